//! `sopin enable` and `sopin disable`: write and remove `sopin.pth` in a Python environment. Python
//! executes the lines of such files that begin with `import` when it starts (`site`), and this one has
//! the package load its library. Neither changes or reads anything else there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process;

use crate::exit::{Exit, Failure};
use crate::known_library::KnownLibrary;
use crate::library::own_path;
use crate::output;
use crate::python::{self, Packages};

/// By its first line the command knows the file as its own.
const MARK: &str = "# Written by `sopin enable`; `sopin disable` removes it.\n";

const MORE_OF_ENABLE: &str = "\
Exit status:
  0  the environment is enabled
  1  it is not: the reason is on stderr
  2  the command line was not understood

Examples:
  sopin enable
  sopin enable --python /srv/shop/venv/bin/python
";

const MORE_OF_DISABLE: &str = "\
Exit status:
  0  the environment is not enabled any more, or never was
  1  it may be: the reason is on stderr
  2  the command line was not understood

Examples:
  sopin disable
  sopin disable --python /srv/shop/venv/bin/python
";

/// Have every Python of an environment load libsopin.so when it starts
///
/// Whatever is started with such a Python is protected without LD_PRELOAD: servers, workers,
/// notebooks' kernels, zip applications. Programs that it starts are not, unless their
/// interpreter is of the environment.
///
/// The environment needs the package sopin (pip install sopin). Without --python it is the
/// one in which this command is installed. The command writes the file sopin.pth beside the
/// package. It replaces no file of this name that it did not write itself.
///
/// Python reads the file also with -I and -E, and not with -S. If the library is missing or
/// is not as it was installed, Python starts without it and prints one line; if the package is
/// removed, it prints nothing.
#[derive(Debug, clap::Args)]
#[command(after_long_help = MORE_OF_ENABLE)]
pub struct EnableArgs {
    /// An interpreter of the environment; the command starts it to learn where its packages are
    #[arg(long, value_name = "PYTHON", value_hint = clap::ValueHint::ExecutablePath)]
    python: Option<PathBuf>,
}

/// Undo what sopin enable did
///
/// Removes the file sopin.pth, if sopin enable wrote it. What runs stays protected.
#[derive(Debug, clap::Args)]
#[command(after_long_help = MORE_OF_DISABLE)]
pub struct DisableArgs {
    /// An interpreter of the environment; the command starts it to learn where its packages are
    #[arg(long, value_name = "PYTHON", value_hint = clap::ValueHint::ExecutablePath)]
    python: Option<PathBuf>,
}

/// Writes the file.
///
/// # Errors
/// 1 when there is no environment with the package, or the file cannot be written.
pub fn enable(arguments: &EnableArgs) -> Result<Exit, Failure> {
    let packages = match &arguments.python {
        Some(python) => environment_of(python)?,
        None => own_environment()?,
    };
    let file = Pth::of(&packages);
    // Whatever is wrong with the library, each start of Python finds it out and says so.
    let known = KnownLibrary::at(&packages.library());
    let text = format!("{MARK}{}\n", line(known.as_ref()));
    let said = match file.read()? {
        Some(found) if found == text => "enabled already",
        _ => {
            file.write(&text).map_err(|error| refusal(file.path(), error))?;
            "enabled: Python loads the library from its next start"
        }
    };
    report(file.path(), said)
}

/// Removes the file.
///
/// # Errors
/// 1 when there is no environment, or the file cannot be removed.
pub fn disable(arguments: &DisableArgs) -> Result<Exit, Failure> {
    // The package may have been removed before.
    let file = match &arguments.python {
        Some(python) => {
            let sites = python::sites_of(python).map_err(as_refusal)?;
            match sites.iter().map(Pth::of).find(|file| file.path().symlink_metadata().is_ok()) {
                Some(file) => file,
                None => return report(python, "not enabled"),
            }
        }
        None => Pth::of(&own_environment()?),
    };
    let is_enabled = file.read()?.is_some();
    if is_enabled {
        fs::remove_file(file.path()).map_err(|error| refusal(file.path(), error))?;
    }
    let said = if is_enabled { "disabled" } else { "not enabled" };
    report(file.path(), said)
}

fn report(path: &Path, said: &str) -> Result<Exit, Failure> {
    let printed = output::print(format_args!("{}: {said}\n", output::shown(&path.to_string_lossy())));
    printed.map_err(|error| refusal(Path::new("stdout"), error))?;
    Ok(Exit::Success)
}

fn refusal(path: &Path, reason: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Negative, path.display(), reason)
}

fn as_refusal(failure: Failure) -> Failure {
    Failure { exit: Exit::Negative, ..failure }
}

/// Returns the environment of an interpreter that has the package.
fn environment_of(python: &Path) -> Result<Packages, Failure> {
    let sites = python::sites_of(python).map_err(as_refusal)?;
    sites.into_iter().find(|packages| packages.start_module().is_file()).ok_or_else(|| {
        refusal(python, "its environment has no package sopin")
            .with_way_out(format_args!("{} -m pip install sopin", python.display()))
    })
}

/// Returns the environment in which this command is installed.
fn own_environment() -> Result<Packages, Failure> {
    let command = own_path().map_err(as_refusal)?;
    match python::beside(&command).map_err(as_refusal)? {
        Some(packages) if packages.is_site => Ok(packages),
        _ => Err(refusal(&command, "this command is in no Python environment")
            .with_way_out("name an interpreter of one: --python venv/bin/python")),
    }
}

/// Returns the line that Python executes. It says by which identity a start knows the library.
///
/// Python would print an error at each start if the line failed, for instance after the package was
/// removed. Python reads it in the encoding of the locale before 3.13, so it is ASCII. In a virtual
/// environment it executes the line twice, and compiles what `exec` gets the first time only. It parses one
/// string much faster than a tuple.
fn line(known: Option<&KnownLibrary>) -> String {
    let known = known.map_or_else(String::new, |KnownLibrary { boot, identity: file }| {
        let numbers = format!("{} {} {} {}", file.inode, file.size, file.modified, file.changed);
        format!("_sopin_start.known = '{boot} {numbers}'; ")
    });
    format!(
        r#"import sys; "_sopin_start" in sys.modules or exec("try:\n import _sopin_start; {known}_sopin_start.start()\nexcept Exception: pass")"#
    )
}

/// The file `sopin.pth` of an environment.
struct Pth {
    path: PathBuf,
}

impl Pth {
    fn of(packages: &Packages) -> Self {
        Self { path: packages.directory.join("sopin.pth") }
    }

    fn path(&self) -> &Path {
        &self.path
    }

    /// Returns its text, if it exists.
    ///
    /// # Errors
    /// When it cannot be read, or this command did not write it.
    fn read(&self) -> Result<Option<String>, Failure> {
        let is_link = fs::symlink_metadata(&self.path).is_ok_and(|found| !found.is_file());
        match fs::read(&self.path).map(String::from_utf8) {
            Ok(Ok(text)) if text.starts_with(MARK) && !is_link => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_link => Ok(None),
            Err(error) => Err(refusal(&self.path, error)),
            Ok(_) => Err(refusal(&self.path, "sopin enable did not write this file")
                .with_way_out("it is left as it is; move it away if you do not need it")),
        }
    }

    /// Writes the file so that an interpreter that starts meanwhile reads all of it or nothing.
    fn write(&self, text: &str) -> io::Result<()> {
        // Python reads no file of this name.
        let new = self.path.with_file_name(format!(".sopin.pth.{}", process::id()));
        let written = write_new(&new, text).and_then(|()| fs::rename(&new, &self.path));
        if written.is_err() {
            // The first error is the one to report.
            let _ = fs::remove_file(&new);
        }
        written
    }
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
    // Other users start this Python too, whatever the umask of the one who enables it.
    file.set_permissions(fs::Permissions::from_mode(0o644))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

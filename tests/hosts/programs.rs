//! The programs: what each needs from the machine, its installation, and how it is
//! started. They use the protocol that tests/hosts/science.py describes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{library, needs::Need, process::Outcome, rewrite};

/// The way in which the library is loaded into a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loading {
    /// `LD_PRELOAD`.
    Preloaded,
    /// The running program loads it.
    AtRunTime,
}

/// A program under test.
pub struct Program {
    /// Its name in the trials.
    pub name: &'static str,
    pub loading: Loading,
    /// The exit status of a program that reports a killed child. Any other unprotected
    /// program is expected to die of a signal.
    pub exit_when_child_died: Option<i32>,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Python(&'static str),
    Node,
    Names,
}

/// Returns every program.
pub fn all() -> Vec<Program> {
    let program = |name, kind| Program { name, loading: Loading::Preloaded, exit_when_child_died: None, kind };
    vec![
        program("python_science", Kind::Python("science.py")),
        Program { loading: Loading::AtRunTime, ..program("python_science_at_run_time", Kind::Python("science.py")) },
        Program { exit_when_child_died: Some(3), ..program("python_forks", Kind::Python("forks.py")) },
        program("node_addons", Kind::Node),
        program("nss_and_iconv", Kind::Names),
    ]
}

impl Program {
    /// Returns why it cannot be run here, or `None` if it can.
    pub fn unmet_need(&self) -> Option<String> {
        let installed = |name: &str| {
            let path = library::checkout().join("target").join(name);
            (!path.is_dir()).then(|| format!("no target/{name}: run scripts/test-environments"))
        };
        match self.kind {
            Kind::Python(_) => installed("test-python"),
            Kind::Node => Need::Program("node".to_owned()).unmet().or_else(|| installed("test-node")),
            Kind::Names => Need::Glibc.unmet().or_else(|| {
                // Distributions have packages for these that are separate from the C
                // library.
                ["gconv/EUC-JP.so", "libnss_compat.so.2"]
                    .into_iter()
                    .find(|module| found_by_compiler(module).is_none())
                    .map(|module| format!("the C library's {module} is not installed"))
            }),
        }
    }

    /// Makes the installation whose shared objects are rewritten, in a directory that
    /// does not exist.
    ///
    /// # Errors
    /// The file that could not be copied or compiled.
    pub fn install(&self, to: &Path) -> Result<(), String> {
        let copy = |from: &Path, to: &Path| {
            rewrite::copy_installation(from, to).map_err(|error| format!("copy {}: {error}", from.display()))
        };
        let made = library::checkout().join("target");
        match self.kind {
            Kind::Python(_) => copy(&made.join("test-python"), to),
            Kind::Node => copy(&made.join("test-node"), to),
            Kind::Names => {
                for (module, name) in [("gconv", "gconv"), ("libnss_compat.so.2", "libnss_compat.so.2")] {
                    let from = found_by_compiler(module).ok_or_else(|| format!("no {module}"))?;
                    copy_files(&from, &to.join(name)).map_err(|error| format!("copy {}: {error}", from.display()))?;
                }
                compile(&source("names.c"), &to.join("names"))
            }
        }
    }

    /// Returns the command that starts it from its installation. `work` is `once`,
    /// `busy` or `idle`. The caller adds the variables that load the library.
    pub fn command(&self, installation: &Path, work: &str) -> Command {
        let mut command;
        match self.kind {
            Kind::Python(script) => {
                command = Command::new(installation.join("bin/python"));
                command.arg(source(script));
                // More threads than processors would only take turns.
                command.env("OPENBLAS_NUM_THREADS", "2");
                // Threads that wait for work spin by default; 2^4 cycles are enough.
                command.env("OPENBLAS_THREAD_TIMEOUT", "4");
            }
            Kind::Node => {
                command = Command::new("node");
                command.arg(source("checksums.js"));
            }
            Kind::Names => {
                command = Command::new(installation.join("names"));
                command.env("LD_LIBRARY_PATH", installation);
                command.env("GCONV_PATH", installation.join("gconv"));
            }
        }
        command.arg(work).current_dir(installation);
        command
    }

    /// Returns whether this outcome shows that the rewriting killed the program.
    pub fn died(&self, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Signal(signal) => {
                [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGABRT, libc::SIGTRAP, libc::SIGFPE]
                    .contains(&signal)
            }
            Outcome::Exit(status) => self.exit_when_child_died == Some(status),
            Outcome::TimedOut => false,
        }
    }
}

/// Returns the shared objects to rewrite.
///
/// # Errors
/// Those of the file system.
pub fn rewritten(installation: &Path) -> Result<Vec<PathBuf>, String> {
    let mut objects = rewrite::shared_objects(installation).map_err(|error| error.to_string())?;
    // This one is loaded and unloaded all the time, so the loader would read it while
    // it is empty.
    objects.retain(|path| !path.ends_with("gconv/IBM037.so"));
    if objects.is_empty() { Err(format!("no shared object in {}", installation.display())) } else { Ok(objects) }
}

fn source(name: &str) -> PathBuf {
    library::checkout().join("tests/hosts").join(name)
}

/// Returns a file or directory where the C compiler searches for libraries, beside the
/// C library of this machine.
fn found_by_compiler(name: &str) -> Option<PathBuf> {
    let output = Command::new("cc").arg(format!("-print-file-name={name}")).output().ok()?;
    // cc prints only the name if it finds nothing.
    let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    path.is_absolute().then(|| path.canonicalize().ok())?
}

/// Copies a file or a directory without links to the machine's own files.
fn copy_files(from: &Path, to: &Path) -> std::io::Result<()> {
    if !from.is_dir() {
        fs::create_dir_all(to.parent().unwrap_or(to))?;
        return fs::copy(from, to).map(drop);
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy_files(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

fn compile(source: &Path, output: &Path) -> Result<(), String> {
    let compiled = Command::new("cc")
        .args(["-O1", "-g", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-o"])
        .args([output, source])
        .output()
        .map_err(|error| format!("cc: {error}"))?;
    if compiled.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&compiled.stderr).into_owned()) }
}

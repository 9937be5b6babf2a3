//! Finds the package `sopin` of a Python environment: below the prefix of this command, which the
//! wheel installs as `bin/sopin`, or by asking an interpreter. Changes nothing.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sopin_core::LIBRARY;

use crate::exit::{Exit, Failure};

/// Prints the directories in which an interpreter reads `.pth` files, each with a NUL behind it.
/// It reads those of the user in no virtual environment.
const ASK: &str = "import os, site, sys
directories = site.getsitepackages()
if sys.prefix == sys.base_prefix:
    directories.append(site.getusersitepackages())
sys.stdout.buffer.write(b''.join(os.fsencode(each) + b'\\0' for each in directories))";

/// A directory with the package: `site-packages` of an environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packages {
    pub directory: PathBuf,
    /// Whether an interpreter reads the `.pth` files in it; none does with `pip --target`.
    pub is_site: bool,
}

impl Packages {
    /// Returns the path of the package's library.
    pub fn library(&self) -> PathBuf {
        self.directory.join("sopin").join(LIBRARY)
    }

    /// Returns the path of the module that loads the library at the start of an interpreter.
    pub fn start_module(&self) -> PathBuf {
        self.directory.join("_sopin_start.py")
    }
}

/// Finds the package to which this command belongs, by the path of the command's file.
///
/// The library in it will run in other programs of the caller, so the command takes it only if it
/// knows that no third user has put it there: see [`stranger`].
///
/// # Errors
/// When another user owns the package or could have put it there.
pub fn beside(command: &Path) -> Result<Option<Packages>, Failure> {
    let Some(prefix) = command.parent().and_then(Path::parent) else { return Ok(None) };
    // `uv pip install --link-mode symlink` makes the command a link into the unpacked wheel.
    let wheel = prefix.parent().filter(|_| prefix.ends_with(concat!("sopin-", env!("CARGO_PKG_VERSION"), ".data")));
    let prefix = wheel.unwrap_or(prefix);
    let Some(packages) = below(prefix).into_iter().find(is_of_this_version) else {
        return Ok(None);
    };
    let owner = fs::metadata(command).map_or(0, |file| file.uid());
    let trusted = [0, owner, rustix::process::geteuid().as_raw()];
    match stranger(prefix, &packages.library(), &trusted) {
        None => Ok(Some(packages)),
        Some((path, reason)) => Err(Failure::new(Exit::Failed, path.display(), reason)
            .with_way_out("the library is taken only from where no other user could have put it")),
    }
}

/// Returns all directories below a prefix that may have packages, those of the newest Python first:
/// `pip --user` may have filled several. Debian's name is `dist-packages`. With `pip --target`, and in an
/// unpacked wheel, it is the prefix itself.
pub fn below(prefix: &Path) -> Vec<Packages> {
    let mut found = Vec::new();
    for library_directory in ["lib", "lib64"] {
        let entries = fs::read_dir(prefix.join(library_directory)).into_iter().flatten().flatten();
        found.extend(entries.filter_map(|entry| Some((minor_version(&entry.file_name())?, entry.path()))));
    }
    found.sort_by(|one, other| other.0.cmp(&one.0).then_with(|| one.1.cmp(&other.1)));
    let sites = found.iter().flat_map(|(_, path)| ["site-packages", "dist-packages"].map(|name| path.join(name)));
    let mut all: Vec<_> = sites.map(|directory| Packages { directory, is_site: true }).collect();
    all.push(Packages { directory: prefix.to_owned(), is_site: false });
    all
}

/// Returns 13 for `python3.13` and for `python3.13t`.
fn minor_version(name: &OsStr) -> Option<u32> {
    name.to_str()?.strip_prefix("python3.")?.trim_end_matches('t').parse().ok()
}

/// Returns whether the package there was installed with this command: both are of one version, as the
/// installer's notes show.
fn is_of_this_version(packages: &Packages) -> bool {
    let notes = concat!("sopin-", env!("CARGO_PKG_VERSION"), ".dist-info");
    packages.directory.join(notes).is_dir() && packages.library().is_file()
}

/// Returns the first directory or file on the way from a prefix to a file that a user could change
/// who is not trusted, and why. The trusted are root, the owner of the command, who can replace
/// the command as well, and the caller. Each step on the way is looked up in a directory of the trusted,
/// so they have made a symbolic link there too. The prefix itself may be a directory like /tmp.
fn stranger(prefix: &Path, file: &Path, trusted: &[u32]) -> Option<(PathBuf, String)> {
    let mut path = prefix.to_owned();
    for component in file.strip_prefix(prefix).ok()?.components() {
        path.push(component);
        let reason = match fs::metadata(&path) {
            Err(error) => error.to_string(),
            Ok(found) if !trusted.contains(&found.uid()) => {
                format!("belongs to user {}, who does not own this command", found.uid())
            }
            Ok(found) if found.mode() & 0o002 != 0 => "every user can write to it".to_owned(),
            Ok(_) => continue,
        };
        return Some((path, reason));
    }
    None
}

/// Asks an interpreter where it reads `.pth` files, in the order in which it looks.
///
/// # Errors
/// When it cannot be started, or does not answer.
pub fn sites_of(python: &Path) -> Result<Vec<Packages>, Failure> {
    let failure = |reason: String| Failure::new(Exit::Failed, python.display(), reason);
    let mut command = Command::new(python);
    // Isolated: neither the current directory nor the environment chooses what it imports.
    command.args(["-I", "-c", ASK]).stdin(Stdio::null()).stderr(Stdio::inherit());
    let answer = command.output().map_err(|error| failure(error.to_string()))?;
    if !answer.status.success() {
        return Err(failure(format!("it does not say where its packages are ({})", answer.status)));
    }
    let names = answer.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(|name| Packages { directory: OsStr::from_bytes(name).into(), is_site: true }).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn versions_are_numbers() {
        let minor = |name: &str| minor_version(OsStr::new(name));
        assert_eq!(minor("python3.8"), Some(8));
        assert_eq!(minor("python3.13t"), Some(13));
        assert_eq!(["python3", "python2.7", "python3.x", "pypy3.10"].map(minor), [None; 4]);
    }

    #[test]
    fn the_newest_python_comes_first() {
        let prefix = tempfile::tempdir().unwrap();
        for name in ["lib/python3.9", "lib/python3.10", "lib64/python3.9", "lib/other"] {
            fs::create_dir_all(prefix.path().join(name)).unwrap();
        }
        let found = below(prefix.path());
        let names: Vec<_> = found.iter().map(|each| each.directory.strip_prefix(prefix.path()).unwrap()).collect();
        assert_eq!(names[0], Path::new("lib/python3.10/site-packages"));
        assert_eq!(names[2], Path::new("lib/python3.9/site-packages"));
        assert_eq!((names.len(), names[6]), (7, Path::new("")));
        assert!(found[0].is_site && !found[6].is_site);
    }

    #[test]
    fn what_others_can_change_is_named() {
        let prefix = tempfile::tempdir().unwrap();
        let file = prefix.path().join("lib/python3.9/libsopin.so");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "").unwrap();
        let own = [rustix::process::geteuid().as_raw()];
        assert_eq!(stranger(prefix.path(), &file, &own), None);
        // Who could write to the prefix only, could not have made what the trusted own.
        fs::set_permissions(prefix.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        assert_eq!(stranger(prefix.path(), &file, &own), None);
        let (path, reason) = stranger(prefix.path(), &file, &[own[0] + 1]).unwrap();
        assert!(path.ends_with("lib") && reason.starts_with(&format!("belongs to user {}", own[0])), "{reason}");
        fs::set_permissions(file.parent().unwrap(), fs::Permissions::from_mode(0o777)).unwrap();
        let (path, reason) = stranger(prefix.path(), &file, &own).unwrap();
        assert!(path.ends_with("python3.9") && reason == "every user can write to it", "{reason}");
    }
}

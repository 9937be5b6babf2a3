//! From a command's name to files, as `execvp(3)` of the C library tries them.

use std::env;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

/// The directories in which glibc searches without `PATH` (`confstr(3)`, `_CS_PATH`).
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// Returns the files that a command's name may stand for, the first one first.
pub fn candidates(name: &OsStr) -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    candidates_in(&path, name)
}

fn candidates_in(path: &OsStr, name: &OsStr) -> Vec<PathBuf> {
    if name.is_empty() {
        return Vec::new();
    }
    if name.as_bytes().contains(&b'/') {
        return vec![name.into()];
    }
    // An empty element is the current directory: join() leaves the bare name.
    path.as_bytes()
        .split(|byte| *byte == b':')
        .map(|element| Path::new(OsStr::from_bytes(element)).join(name))
        .collect()
}

/// Returns the candidate that `execvp(3)` would execute, or else the first that exists, with
/// whose error it would fail.
pub fn find(name: &OsStr) -> Option<PathBuf> {
    let candidates = candidates(name);
    let executable = candidates.iter().find(|path| is_executable(path));
    executable.or_else(|| candidates.iter().find(|path| path.exists())).cloned()
}

/// Returns whether the kernel would execute the file, as far as its permissions go.
pub fn is_executable(path: &Path) -> bool {
    path.is_file() && accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(path: &str, name: &str) -> Vec<PathBuf> {
        candidates_in(OsStr::new(path), OsStr::new(name))
    }

    #[test]
    fn each_element_of_the_path_is_tried_in_order() {
        assert_eq!(candidates("/a:/b/", "x"), [Path::new("/a/x"), Path::new("/b/x")]);
    }

    #[test]
    fn an_empty_element_is_the_current_directory() {
        assert_eq!(candidates(":/b", "x"), [Path::new("x"), Path::new("/b/x")]);
        assert_eq!(candidates("", "x"), [Path::new("x")]);
    }

    #[test]
    fn a_name_with_a_slash_is_not_searched() {
        assert_eq!(candidates("/a", "./x"), [Path::new("./x")]);
        assert_eq!(candidates("/a", "d/x"), [Path::new("d/x")]);
    }

    #[test]
    fn the_empty_name_is_nowhere() {
        assert_eq!(candidates("/a", "").len(), 0);
    }
}

//! Where `libsopin.so` is: next to this command, installed or just built.

use std::env;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::exit::{Exit, Failure};

/// The library's file name, which `LD_PRELOAD` and the loader know it by.
pub const FILE_NAME: &str = "libsopin.so";

/// Where it may be, seen from the directory of the command's file, the
/// likeliest first: `target/<profile>/`, then below an installation's prefix,
/// with the library directories of Debian and of Fedora.
fn candidates(directory: &Path) -> Vec<PathBuf> {
    let multiarch = format!("lib/{}-linux-gnu", env::consts::ARCH);
    let mut candidates = vec![directory.join(FILE_NAME)];
    if let Some(prefix) = directory.parent() {
        candidates.extend(["lib", &multiarch, "lib64"].map(|below| prefix.join(below).join(FILE_NAME)));
    }
    candidates
}

/// The library's absolute path, as it can be written into `LD_PRELOAD`. Links
/// in it are kept: they name the library after an upgrade too.
///
/// # Errors
/// When there is none, or its path cannot be written into `LD_PRELOAD`.
pub fn find() -> Result<PathBuf, Failure> {
    let command = env::current_exe().map_err(|error| {
        Failure::new(Exit::Failed, "/proc/self/exe", error)
            .with_way_out("sopin finds libsopin.so by its own path, which needs /proc")
    })?;
    let candidates = candidates(command.parent().unwrap_or(Path::new("/")));
    let Some(library) = candidates.iter().find(|path| path.is_file()) else {
        let places: Vec<_> = candidates.iter().map(|path| path.display().to_string()).collect();
        return Err(Failure::new(Exit::Failed, FILE_NAME, format!("not found as {}", places.join(", ")))
            .with_way_out("install the library and the command below one prefix"));
    };
    check_spelling(library)?;
    Ok(library.clone())
}

/// `LD_PRELOAD` has no way to quote what separates its entries.
fn check_spelling(library: &Path) -> Result<(), Failure> {
    let separator = match library.as_os_str().as_bytes().iter().find(|byte| b": ".contains(byte)) {
        None => return Ok(()),
        Some(b':') => "a colon",
        Some(_) => "a space",
    };
    Err(Failure::new(
        Exit::Failed,
        library.display(),
        format!("the path has {separator} in it, which separates entries of LD_PRELOAD"),
    )
    .with_way_out("install sopin below another directory"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_looked_for_below_the_prefix() {
        let looked: Vec<_> = candidates(Path::new("/opt/bin"));
        assert_eq!(looked[..2], [Path::new("/opt/bin/libsopin.so"), Path::new("/opt/lib/libsopin.so")]);
        assert_eq!(looked.last().unwrap(), Path::new("/opt/lib64/libsopin.so"));
    }

    #[test]
    fn separators_are_refused_by_name() {
        let refused = |path| check_spelling(Path::new(path)).unwrap_err().reason;
        assert!(refused("/a:b/lib/libsopin.so").contains("a colon"));
        assert!(refused("/a b/lib/libsopin.so").contains("a space"));
        assert!(check_spelling(Path::new("/a\tb;c/lib/libsopin.so")).is_ok());
    }
}

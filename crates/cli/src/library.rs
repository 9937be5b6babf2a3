//! Finds `libsopin.so` next to this command: installed, just built, or in the package of the Python
//! environment in which the wheel has installed both.

use std::env;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sopin_core::LIBRARY;

use crate::exit::{Exit, Failure};
use crate::program::elf::{self, Elf};
use crate::python;

/// The file name in an installation. The name without a version is a link for linkers, which a
/// package of its own may contain: programs that still run would pass its path to their children
/// after that package was removed.
const SONAME: &str = concat!("libsopin.so.", env!("CARGO_PKG_VERSION_MAJOR"));

/// The library that belongs to this command.
#[derive(Debug)]
pub struct Library {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl Library {
    /// Finds the library by the path of the running command.
    ///
    /// # Errors
    /// When there is none, another user could have put it there, or its path cannot be written into
    /// `LD_PRELOAD`.
    pub fn find() -> Result<Self, Failure> {
        let command = own_path()?;
        let directories = directories(command.parent().unwrap_or(Path::new("/")));
        let installed = directories.iter().flat_map(|directory| [SONAME, LIBRARY].map(|name| directory.join(name)));
        let path = match installed.into_iter().find(|path| identity(path).is_some()) {
            Some(path) => Some(path),
            None => python::beside(&command)?.map(|packages| packages.library()),
        };
        if let Some((path, identity)) = path.and_then(|path| identity(&path).map(|identity| (path, identity))) {
            check_spelling(&path)?;
            return Ok(Self { path, identity });
        }
        let places: Vec<_> = directories.iter().map(|path| path.display().to_string()).collect();
        Err(Failure::new(Exit::Failed, LIBRARY, format!("not found in {}", places.join(", ")))
            .with_way_out("install the library and the command below one prefix"))
    }

    /// Returns its absolute path, as it is put into `LD_PRELOAD`. Symbolic links in it are not
    /// resolved, because they lead to the library after an upgrade, too.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether a path leads to the library.
    pub fn is_at(&self, path: &Path) -> bool {
        path == self.path || identity(path) == Some(self.identity)
    }

    /// Returns the machine and the loader of the library.
    ///
    /// # Errors
    /// When the file is not an ELF file.
    pub fn elf(&self) -> Result<Elf, Failure> {
        read_elf(&self.path)
    }
}

/// Returns the path of the loader that has started this command.
///
/// # Errors
/// When there is no `/proc`.
pub fn own_loader() -> Result<Option<PathBuf>, Failure> {
    // It reads /proc/self/exe and not the command's path, because the command may just be
    // upgraded.
    Ok(read_elf(Path::new("/proc/self/exe"))?.loader)
}

/// Returns whether both paths lead to one file.
pub fn is_same_file(one: &Path, other: &Path) -> bool {
    identity(one).is_some_and(|one| identity(other) == Some(one))
}

/// Returns the path of this command's file.
///
/// # Errors
/// When there is no `/proc`.
pub fn own_path() -> Result<PathBuf, Failure> {
    env::current_exe().map_err(|error| {
        Failure::new(Exit::Failed, "/proc/self/exe", error)
            .with_way_out("sopin finds libsopin.so by its own path, which needs /proc")
    })
}

fn read_elf(path: &Path) -> Result<Elf, Failure> {
    let failure = |reason: String| Failure::new(Exit::Failed, path.display(), reason);
    elf::read(File::open(path).map_err(|error| failure(error.to_string()))?).map_err(failure)
}

/// Returns device and inode of a regular file; follows links.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().filter(fs::Metadata::is_file).map(|file| (file.dev(), file.ino()))
}

/// Returns the directories in which the library may be, derived from the directory of the
/// command's file, the likeliest first: `target/<profile>/`, then below an installation's
/// prefix, with the library directories of Debian and of Fedora.
fn directories(of_command: &Path) -> Vec<PathBuf> {
    let multiarch = format!("lib/{}-linux-gnu", env::consts::ARCH);
    let mut directories = vec![of_command.to_owned()];
    if let Some(prefix) = of_command.parent() {
        directories.extend(["lib", &multiarch, "lib64"].map(|below| prefix.join(below)));
    }
    directories
}

/// Checks that the path has no character with a meaning in `LD_PRELOAD`, which has no way to
/// quote one (`ld.so(8)`).
fn check_spelling(library: &Path) -> Result<(), Failure> {
    let meaning = match library.as_os_str().as_bytes().iter().find(|byte| b": $".contains(byte)) {
        None => return Ok(()),
        Some(b':') => "a colon in it, which separates entries of LD_PRELOAD",
        Some(b' ') => "a space in it, which separates entries of LD_PRELOAD",
        Some(_) => "a dollar sign in it, which the loader takes for a token such as $LIB",
    };
    Err(Failure::new(Exit::Failed, library.display(), format!("the path has {meaning}"))
        .with_way_out("install sopin below another directory"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_looked_for_below_the_prefix() {
        let looked = directories(Path::new("/opt/bin"));
        assert_eq!(looked[..2], [Path::new("/opt/bin"), Path::new("/opt/lib")]);
        assert_eq!(looked.last().unwrap(), Path::new("/opt/lib64"));
        assert_eq!(directories(Path::new("/")), [Path::new("/")]);
    }

    #[test]
    fn separators_are_refused_by_name() {
        let refused = |path| check_spelling(Path::new(path)).unwrap_err().reason;
        assert!(refused("/a:b/lib/libsopin.so").contains("a colon"));
        assert!(refused("/a b/lib/libsopin.so").contains("a space"));
        assert!(refused("/a/$LIB/libsopin.so").contains("a dollar sign"));
        assert!(check_spelling(Path::new("/a\tb;c/lib/libsopin.so")).is_ok());
    }
}

//! Where `libsopin.so` is: next to this command, installed or just built.

use std::env;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sopin_core::LIBRARY;

use crate::exit::{Exit, Failure};
use crate::program::elf::{self, Elf};

/// Its name where no development files are installed: the soname.
const SONAME: &str = concat!("libsopin.so.", env!("CARGO_PKG_VERSION_MAJOR"));

/// The library that belongs to this command.
#[derive(Debug)]
pub struct Library {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl Library {
    /// Finds it by the path of the running command.
    ///
    /// # Errors
    /// When there is none, or its path cannot be written into `LD_PRELOAD`.
    pub fn find() -> Result<Self, Failure> {
        let command = own_path()?;
        let directories = directories(command.parent().unwrap_or(Path::new("/")));
        for path in directories.iter().flat_map(|directory| [LIBRARY, SONAME].map(|name| directory.join(name))) {
            if let Some(identity) = identity(&path) {
                check_spelling(&path)?;
                return Ok(Self { path, identity });
            }
        }
        let places: Vec<_> = directories.iter().map(|path| path.display().to_string()).collect();
        Err(Failure::new(Exit::Failed, LIBRARY, format!("not found in {}", places.join(", ")))
            .with_way_out("install the library and the command below one prefix"))
    }

    /// Its absolute path, as it goes into `LD_PRELOAD`. A symbolic link in it is
    /// kept: that names the library after an upgrade too.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this path leads to it.
    pub fn is_at(&self, path: &Path) -> bool {
        path == self.path || identity(path) == Some(self.identity)
    }

    /// What it is made for.
    ///
    /// # Errors
    /// When it is no ELF file.
    pub fn elf(&self) -> Result<Elf, Failure> {
        read_elf(&self.path)
    }
}

/// The loader that has started this very command.
///
/// # Errors
/// When there is no `/proc`.
pub fn own_loader() -> Result<Option<PathBuf>, Failure> {
    // Not by its path: the command may be being upgraded.
    Ok(read_elf(Path::new("/proc/self/exe"))?.loader)
}

/// Whether both paths lead to one file.
pub fn is_same_file(one: &Path, other: &Path) -> bool {
    identity(one).is_some_and(|one| identity(other) == Some(one))
}

fn own_path() -> Result<PathBuf, Failure> {
    env::current_exe().map_err(|error| {
        Failure::new(Exit::Failed, "/proc/self/exe", error)
            .with_way_out("sopin finds libsopin.so by its own path, which needs /proc")
    })
}

fn read_elf(path: &Path) -> Result<Elf, Failure> {
    let failure = |reason: String| Failure::new(Exit::Failed, path.display(), reason);
    elf::read(File::open(path).map_err(|error| failure(error.to_string()))?).map_err(failure)
}

/// Of a regular file; links are followed.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().filter(fs::Metadata::is_file).map(|file| (file.dev(), file.ino()))
}

/// Where it may be, seen from the directory of the command's file, the
/// likeliest first: `target/<profile>/`, then below an installation's prefix,
/// with the library directories of Debian and of Fedora.
fn directories(of_command: &Path) -> Vec<PathBuf> {
    let multiarch = format!("lib/{}-linux-gnu", env::consts::ARCH);
    let mut directories = vec![of_command.to_owned()];
    if let Some(prefix) = of_command.parent() {
        directories.extend(["lib", &multiarch, "lib64"].map(|below| prefix.join(below)));
    }
    directories
}

/// `LD_PRELOAD` has no way to quote what means something in it (`ld.so(8)`).
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

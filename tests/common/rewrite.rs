//! Changes shared objects in place, as installers and accidents do.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::tree;

/// A way to change a file without changing its inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewrite {
    /// As cp, pip and tar do: truncates and writes the very same bytes.
    SameBytes,
    /// As `rsync --inplace` does: writes other bytes without truncating. The bytes trap
    /// when executed, and a pointer made of them faults.
    Traps,
    /// Truncates the file and writes nothing.
    Empty,
}

impl Rewrite {
    /// Rewrites one file.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn apply(self, path: &Path) -> io::Result<()> {
        match self {
            Self::SameBytes => {
                let bytes = fs::read(path)?;
                File::create(path)?.write_all(&bytes)
            }
            Self::Traps => {
                let size = usize::try_from(fs::metadata(path)?.len()).map_err(io::Error::other)?;
                OpenOptions::new().write(true).open(path)?.write_all(&vec![0xCC; size])
            }
            Self::Empty => File::create(path).map(drop),
        }
    }

    /// Rewrites many files, one after the other.
    ///
    /// # Errors
    /// Those of the file system, with the path.
    pub fn apply_to_all(self, paths: &[PathBuf]) -> Result<(), String> {
        paths.iter().try_for_each(|path| self.apply(path).map_err(|error| format!("{}: {error}", path.display())))
    }
}

/// Returns the shared objects in a directory tree: regular files that begin as ELF
/// files do and are named like one (`.so`, `.so.N`, `.node`).
///
/// # Errors
/// Those of the file system, and a file that has another name, because the copy at that
/// name would be rewritten as well.
pub fn shared_objects(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in tree::files(root, |_| true)? {
        let metadata = path.symlink_metadata()?;
        if metadata.is_file() && is_shared_object(&path)? {
            if metadata.nlink() != 1 {
                return Err(io::Error::other(format!("{} is a hard link", path.display())));
            }
            found.push(path);
        }
    }
    Ok(found)
}

/// Returns whether a file has the name and the beginning of a shared object.
///
/// # Errors
/// Those of opening and reading it.
pub fn is_shared_object(path: &Path) -> io::Result<bool> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if !(name.ends_with(".so") || name.contains(".so.") || name.ends_with(".node")) {
        return Ok(false);
    }
    let mut magic = Vec::with_capacity(4);
    File::open(path)?.take(4).read_to_end(&mut magic)?;
    Ok(magic == b"\x7fELF")
}

/// Copies an installation so that its shared objects may be rewritten: they are new
/// files, and everything else is a hard link, which takes neither time nor space. Both
/// directories must be on one file system.
///
/// # Errors
/// Those of the file system.
pub fn copy_installation(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_installation(&source, &target)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&source)?, &target)?;
        } else if is_shared_object(&source)? {
            fs::copy(&source, &target)?;
        } else {
            fs::hard_link(&source, &target)?;
        }
    }
    Ok(())
}

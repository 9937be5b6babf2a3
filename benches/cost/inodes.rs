//! Keeps the inodes of files that are no longer needed until the benchmark ends.
//!
//! ext4 gives the number of an inode that was deleted within the last minutes to no new
//! file, and examines each of them to find that out (`recently_deleted`,
//! fs/ext4/ialloc.c). If a store were deleted between two rounds, the next one would
//! take several times as long, which does not happen outside of a benchmark.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// Frees the contents of every file below `directory` that has no other name.
pub fn empty(directory: &Path) -> io::Result<()> {
    for_each_file(directory, &mut |file| {
        if fs::metadata(file)?.nlink() > 1 {
            return Ok(());
        }
        fs::set_permissions(file, Permissions::from_mode(0o600))?;
        File::options().write(true).open(file)?.set_len(0)
    })
}

/// Gives every shared object below `directory` another name in the new directory
/// `kept`, so that replacing it deletes nothing.
pub fn keep(directory: &Path, kept: &Path) -> io::Result<()> {
    fs::create_dir_all(kept)?;
    let mut number = 0;
    for_each_file(directory, &mut |file| {
        if !file.file_name().is_some_and(|name| name.to_string_lossy().contains(".so")) {
            return Ok(());
        }
        number += 1;
        fs::hard_link(file, kept.join(number.to_string()))
    })
}

/// Calls `each` with every regular file below a directory.
pub fn for_each_file(directory: &Path, each: &mut impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            for_each_file(&entry.path(), each)?;
        } else if kind.is_file() {
            each(&entry.path())?;
        }
    }
    Ok(())
}

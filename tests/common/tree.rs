//! Directory trees.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Returns the files below a directory, sorted, and the symbolic links, which it does not
/// follow. It enters the directories for whose path `enters` returns true.
///
/// # Errors
/// Those of the file system.
pub fn files(root: &Path, enters: impl Fn(&Path) -> bool) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let path = entry.path();
            if !entry.file_type()?.is_dir() {
                found.push(path);
            } else if enters(&path) {
                directories.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

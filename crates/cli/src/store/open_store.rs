//! A store that is open, and the names in its directories.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use rustix::fs::Dir;
use sopin_core::credentials::User;
use sopin_store::Store;

/// A store that could be opened.
pub struct OpenStore {
    /// Its path.
    pub path: PathBuf,
    /// The library's type, for everything that changes the store.
    pub store: Store,
    /// Another descriptor of its directory.
    pub directory: OwnedFd,
}

impl OpenStore {
    /// Returns whether this process has the rights of the store's owner.
    pub fn is_owned(&self) -> bool {
        User::of_this_thread() == Ok(self.store.owner())
    }
}

/// Returns the names in a directory, in order.
///
/// # Errors
/// Those of the file system.
pub fn names(directory: &OwnedFd) -> rustix::io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    names.sort();
    Ok(names)
}

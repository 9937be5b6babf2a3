//! Removing one entry. What processes map of it stays theirs.

use core::ffi::CStr;

use sopin_core::sys::{self, Errno, Fd};

use crate::listing::{DIRECTORY_TO_LIST, for_each_name};

/// Seconds after which an unfinished copy or an empty entry belongs to nobody.
pub const ABANDONED_SECONDS: i64 = 60 * 60;

/// Removes an entry that nobody maps, and tells whether it did. A process that
/// maps it may run what is on disk, and needrestart should not list it.
pub fn remove_unless_in_use(store: &Fd, name: &CStr) -> bool {
    let directory = match sys::openat(store, name, DIRECTORY_TO_LIST, 0) {
        Ok(directory) => directory,
        Err(Errno(libc::ENOTDIR | libc::ELOOP)) => {
            remove_entry(store, name);
            return true;
        }
        Err(_) => return false,
    };
    let mut in_use = false;
    let _ = for_each_name(&directory, |file| {
        let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let Ok(entry) = sys::openat(&directory, file, flags, 0) else { return };
        if sys::flock(&entry, libc::LOCK_EX | libc::LOCK_NB).is_err() {
            in_use = true;
            // So that it counts as used when its last process has ended.
            let _ = sys::touch(&entry);
            return;
        }
        // Unlinked while locked: who opens it now finds it without a name.
        let _ = sys::unlinkat(&directory, file, 0);
    });
    if !in_use {
        remove_entry(store, name);
    }
    !in_use
}

/// Removes an entry and all that is in it.
pub fn remove_entry(store: &Fd, name: &CStr) {
    match sys::openat(store, name, DIRECTORY_TO_LIST, 0) {
        Ok(directory) => {
            let _ = for_each_name(&directory, |file| {
                let _ = sys::unlinkat(&directory, file, 0);
            });
            let _ = sys::unlinkat(store, name, libc::AT_REMOVEDIR);
        }
        // Not a directory: somebody has put something else there.
        Err(_) => {
            let _ = sys::unlinkat(store, name, 0);
        }
    }
}

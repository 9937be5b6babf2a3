//! Removes one entry. Processes that map it keep its contents.

use core::ffi::CStr;

use sopin_core::sys::{self, Errno, Fd};

use sopin_core::listing::{DIRECTORY_TO_LIST, for_each_name};

/// Seconds after which an unfinished copy or an empty entry counts as abandoned.
pub const ABANDONED_SECONDS: i64 = 60 * 60;

/// Removes an entry if no process maps it, and returns whether it has. An entry in use stays,
/// because the files of its processes may be up to date, and needrestart should not list them.
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
            // The entry then counts as used until the last of its processes has ended.
            let _ = sys::touch(&entry);
            return;
        }
        // The file is unlinked while it is locked: a process that opens it now sees that it has
        // no name.
        let _ = sys::unlinkat(&directory, file, 0);
    });
    if !in_use {
        remove_entry(store, name);
    }
    !in_use
}

/// Removes an entry and all files in it.
pub fn remove_entry(store: &Fd, name: &CStr) {
    match sys::openat(store, name, DIRECTORY_TO_LIST, 0) {
        Ok(directory) => {
            let _ = for_each_name(&directory, |file| {
                let _ = sys::unlinkat(&directory, file, 0);
            });
            let _ = sys::unlinkat(store, name, libc::AT_REMOVEDIR);
        }
        // It is not a directory, so another program has put a file in its place.
        Err(_) => {
            let _ = sys::unlinkat(store, name, 0);
        }
    }
}

//! Removing entries: older versions of the file that is being added, and what
//! has not been used for long. An entry that is unlinked while processes map
//! it stays theirs.

use core::ffi::CStr;
use core::sync::atomic::{AtomicI64, Ordering};

use crate::pages::PageVec;
use crate::sys::{self, Fd};

use super::name::{Key, Prefix};
use super::{DIRECTORY_TO_LIST, DIRECTORY_TO_PASS, SOURCE};

/// How the names of unfinished copies begin.
pub const TEMPORARY: &str = ".new-";

/// Seconds after which an entry that nobody has used is removed.
const UNUSED_SECONDS: i64 = 30 * 24 * 60 * 60;
/// Seconds after which an unfinished copy or an empty entry belongs to nobody.
const ABANDONED_SECONDS: i64 = 60 * 60;

/// Seconds after which a process that adds entries looks for unused ones again.
const LOOK_SECONDS: i64 = 24 * 60 * 60;
/// When this process last did, in seconds since the epoch.
static LAST_LOOK: AtomicI64 = AtomicI64::new(0);

/// Before an entry is added: removes older versions of the same file, and what
/// has not been used for 30 days.
pub fn make_room(store: &Fd, key: &Key, origin: Option<&CStr>) {
    // The store's own descriptor keeps its position.
    let Ok(listing) = sys::openat(store, c".", DIRECTORY_TO_LIST, 0) else { return };
    let now = sys::realtime_seconds();
    let looks_for_unused = now - LAST_LOOK.swap(now, Ordering::Relaxed) > LOOK_SECONDS;
    // Nothing can be done about a listing that fails half way.
    let _ = sys::for_each_name(&listing, |name| {
        if name.to_bytes().starts_with(TEMPORARY.as_bytes()) {
            let status = sys::fstatat(store, name, libc::AT_SYMLINK_NOFOLLOW);
            if looks_for_unused && status.is_ok_and(|status| now - status.st_mtime > ABANDONED_SECONDS) {
                let _ = sys::unlinkat(store, name, 0);
            }
            return;
        }
        let Some(prefix) = Prefix::parse(name.to_bytes()) else { return };
        if name == key.as_c_str() {
            return;
        }
        if is_older_version(store, name, prefix, key.prefix(), origin) {
            // Even if it is in use: needrestart then lists the processes that
            // map it, as it should.
            remove_entry(store, name);
        } else if looks_for_unused && last_use(store, name).is_some_and(|time| now - time > UNUSED_SECONDS) {
            remove_unless_in_use(store, name);
        }
    });
}

/// Whether entry `name` is another version of the file that is being added:
/// the same inode with other contents, or another inode at the same path.
fn is_older_version(store: &Fd, name: &CStr, prefix: Prefix, added: Prefix, origin: Option<&CStr>) -> bool {
    if prefix == added {
        return true;
    }
    if prefix.name_hash != added.name_hash || prefix.device != added.device {
        return false;
    }
    let Ok(directory) = sys::openat(store, name, DIRECTORY_TO_PASS, 0) else { return false };
    let Ok(mut buffer) = PageVec::zeroed(libc::PATH_MAX as usize) else { return false };
    let known = sys::readlinkat(&directory, SOURCE, &mut buffer).ok();
    known.is_some() && known == origin.map(CStr::to_bytes)
}

/// The latest access time in an entry, in seconds since the epoch; of an
/// abandoned one without a copy, a time long ago.
fn last_use(store: &Fd, name: &CStr) -> Option<i64> {
    let directory = sys::openat(store, name, DIRECTORY_TO_LIST, 0).ok()?;
    let mut latest = None;
    sys::for_each_name(&directory, |file| {
        let status = sys::fstatat(&directory, file, libc::AT_SYMLINK_NOFOLLOW);
        if let Ok(status) = status
            && status.st_mode & libc::S_IFMT == libc::S_IFREG
        {
            latest = latest.max(Some(status.st_atime));
        }
    })
    .ok()?;
    if latest.is_some() {
        return latest;
    }
    let made = sys::fstat(directory.raw()).ok()?.st_mtime;
    (sys::realtime_seconds() - made > ABANDONED_SECONDS).then_some(0)
}

/// Removes an entry that nobody maps. A process that maps it runs what is on
/// disk, and needrestart should not list it.
fn remove_unless_in_use(store: &Fd, name: &CStr) {
    let Ok(directory) = sys::openat(store, name, DIRECTORY_TO_LIST, 0) else { return };
    let mut in_use = false;
    let _ = sys::for_each_name(&directory, |file| {
        let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let Ok(entry) = sys::openat(&directory, file, flags, 0) else { return };
        if sys::flock(&entry, libc::LOCK_EX | libc::LOCK_NB).is_err() {
            in_use = true;
            // So that it is not looked at again every time.
            let _ = sys::touch(&entry);
            return;
        }
        // Unlinked while locked: who opens it now finds it without a name.
        let _ = sys::unlinkat(&directory, file, 0);
    });
    if !in_use {
        remove_entry(store, name);
    }
}

/// Removes an entry and all that is in it.
pub fn remove_entry(store: &Fd, name: &CStr) {
    match sys::openat(store, name, DIRECTORY_TO_LIST, 0) {
        Ok(directory) => {
            let _ = sys::for_each_name(&directory, |file| {
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

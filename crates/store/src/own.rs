//! Entries that one process uses alone: copies of files that have changed so recently, or may
//! just be written to, that their identity does not determine their contents. No other process
//! looks for such an entry. It is proven by comparing its bytes with those that are mapped.
//!
//! ```text
//! <store>/own-<thread>-<time>/
//!   libfoo.so, .source      as in other entries
//! ```
//!
//! For the process itself private memory would suffice, but debuggers and profilers read the
//! file that `/proc/PID/maps` names.
//!
//! The copy is locked before it has a name, and mappings keep the lock. Every process that
//! makes such an entry, or adds an ordinary one, removes those that are not locked. So an entry
//! does not outlive its process for long, however the process has ended.

use core::ffi::CStr;
use core::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use sopin_core::cause::{Cause, Operation};
use sopin_core::line::Line;
use sopin_core::sys::{self, Errno, Fd};

use crate::part::{ListingPart, NEXT_OWN};
use crate::removal::{ABANDONED_SECONDS, remove_entry};
use sopin_core::listing::{DIRECTORY_TO_LIST, DIRECTORY_TO_PASS, for_each_name};

/// The beginning of the names of such entries, with which no key begins.
const PREFIX: &[u8] = b"own-";

/// Limits on the number and the bytes of such entries of all processes of the user in a store.
const MAX_ENTRIES: u64 = 4096;
const MAX_BYTES: u64 = 4 << 30;
/// The number of names among which one look finds them.
const NAMES_AT_ONCE: usize = 4096;
/// Seconds between two looks of one process for entries that are not locked any more.
const LOOK_SECONDS: i64 = 10;

/// Returns whether a directory of this name in a store is an entry that one process uses alone.
pub fn is_name(name: &[u8]) -> bool {
    let is_number = |digits: &[u8]| !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    let mut numbers = name.strip_prefix(PREFIX).unwrap_or_default().split(|byte| *byte == b'-');
    numbers.next().is_some_and(is_number) && numbers.next().is_some_and(is_number) && numbers.next().is_none()
}

/// Number and bytes of the entries that the last look of this process has left, and of those
/// added since.
static ENTRIES: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);
/// When the last look was, in seconds of the monotonic clock; 0 before the first.
static LOOKED: AtomicI64 = AtomicI64::new(0);

/// Checks that another copy of `size` bytes is within the limits.
pub fn check_room(size: u64) -> Result<(), Cause> {
    let bytes = BYTES.load(Ordering::Relaxed).saturating_add(size);
    if ENTRIES.load(Ordering::Relaxed) >= MAX_ENTRIES || bytes > MAX_BYTES {
        return Err(Cause::words(Operation::AddToStore, "too many copies of files that have just changed are in use"));
    }
    Ok(())
}

/// Counts a copy of `size` bytes that was made.
pub fn note_added(size: u64) {
    ENTRIES.fetch_add(1, Ordering::Relaxed);
    BYTES.fetch_add(size, Ordering::Relaxed);
}

/// Marks a copy as in use. The open file description of the copy holds the lock until that of
/// the mapped file does.
pub fn lock(file: &Fd) -> Result<(), Cause> {
    sys::flock(file, libc::LOCK_SH | libc::LOCK_NB).map_err(Operation::Flock.failed())
}

/// Makes the directory of a new entry.
pub fn make_directory(store: &Fd) -> Result<Fd, Cause> {
    const ATTEMPTS: usize = 16;
    let mut refusal = Errno(libc::EEXIST);
    for _ in 0..ATTEMPTS {
        // A thread with the same number in another container may share the store.
        let (thread, now) = (sys::gettid(), sys::monotonic_ns());
        let name = Line::<64>::format_raw(format_args!("own-{thread:x}-{now:x}\0"));
        match sys::mkdirat(store, name.as_c_str(), 0o700) {
            Ok(()) => {
                return sys::openat(store, name.as_c_str(), DIRECTORY_TO_PASS, 0).map_err(Operation::Openat.failed());
            }
            Err(errno @ Errno(libc::EEXIST)) => refusal = errno,
            Err(errno) => return Err(Cause::call(Operation::Mkdirat, errno)),
        }
    }
    Err(Cause::call(Operation::Mkdirat, refusal))
}

/// Removes the entries that no process maps, unless this process has just looked. In a store of more
/// than [`NAMES_AT_ONCE`] names it looks at the next so many (`part`). The limit on the number then
/// counts only those, and the limit on the bytes those of the last round.
pub fn clean(store: &Fd) {
    let now = i64::try_from(sys::monotonic_ns() / 1_000_000_000).unwrap_or(0);
    let looked = LOOKED.load(Ordering::Relaxed);
    if looked != 0 && now - looked < LOOK_SECONDS {
        return;
    }
    LOOKED.store(now.max(1), Ordering::Relaxed);
    clean_part(store);
}

/// Does the same whenever it is called.
pub(super) fn clean_part(store: &Fd) {
    let Ok(mut part) = ListingPart::open(store, NEXT_OWN, NAMES_AT_ONCE) else { return };
    let (mut entries, mut bytes) = (0, 0);
    let listed = part.for_each_name(|name| {
        if is_name(name.to_bytes())
            && let Some(size) = size_in_use(store, name)
        {
            entries += 1;
            bytes += size;
        }
    });
    if listed.is_ok() {
        ENTRIES.store(entries, Ordering::Relaxed);
        BYTES.store(part.bytes_in_all(bytes), Ordering::Relaxed);
        part.finish(bytes);
    }
}

/// Returns the size of an entry that a process maps or is making. Removes an entry that is not
/// needed, and returns `None` for it.
fn size_in_use(store: &Fd, name: &CStr) -> Option<u64> {
    let directory = sys::openat(store, name, DIRECTORY_TO_LIST, 0).ok()?;
    let (mut size, mut has_copy) = (None, false);
    let _ = for_each_name(&directory, |file| {
        let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let Ok(copy) = sys::openat(&directory, file, flags, 0) else { return };
        has_copy = true;
        if sys::flock(&copy, libc::LOCK_EX | libc::LOCK_NB).is_err() {
            size = Some(sys::fstat(copy.raw()).map_or(0, |status| status.st_size.cast_unsigned()));
        }
    });
    // A process that makes an entry makes its directory first.
    let is_abandoned = || {
        sys::fstat(directory.raw()).is_ok_and(|status| sys::realtime_seconds() - status.st_mtime > ABANDONED_SECONDS)
    };
    if size.is_none() && (has_copy || is_abandoned()) {
        remove_entry(store, name);
        return None;
    }
    Some(size.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Version;

    #[test]
    fn names_are_no_keys() {
        assert!(is_name(b"own-1a2b-deadbeef01"));
        assert!(Version::parse(b"own-1a2b-deadbeef01").is_none());
        for other in [&b"own-"[..], b"own-1", b"own-1-", b"own--1", b"own-1-2-3", b"own-x-1", b"", b".new-1-2"] {
            assert!(!is_name(other));
        }
    }
}

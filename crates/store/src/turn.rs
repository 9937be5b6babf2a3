//! Which of several processes copies a large file that all of them load. The workers of a service
//! start at the same time. If each of them copied what it loads, all but one copy of a gigabyte
//! would be thrown away, after it has taken time, memory and disk.
//!
//! A process that copies a large file holds an exclusive `flock(2)` on the store's directory. Others
//! wait until the lock is free, and then look whether the store has the copy. The kernel releases
//! the lock however the process ends, so nothing is left behind. Smaller files are copied
//! without it: the copy takes no longer than the waiting.
//!
//! Nothing depends on the lock. A process that has waited in vain, because the other one is stopped
//! or its disk is slow, copies the file itself, and never waits again. So the waiting must stay bounded, and
//! must not take place where this process holds the lock itself: in a signal handler that has
//! interrupted the copying.

use core::sync::atomic::{AtomicBool, Ordering};

use sopin_core::listing::DIRECTORY_TO_LIST;
use sopin_core::sys::{self, Errno, Fd, KeptFromChildren};

/// The size in bytes from which on a file is large.
const LARGE: u64 = 16 << 20;
/// How long to wait at most, in nanoseconds: in any case, since the other process may be copying a larger file, and
/// for each byte of this file. A disk that reads 64 MiB in a second is slow.
const NANOSECONDS: u64 = 5_000_000_000;
const NANOSECONDS_PER_BYTE: u64 = 15;
const NAP_NANOSECONDS: i64 = 2_000_000;

/// True if this process does not wait, because a thread of it has the lock or one has waited in vain.
#[unsafe(link_section = ".data.sopin")]
static WAITS_NOT: AtomicBool = AtomicBool::new(false);

/// The right to copy a file, until this is dropped.
pub struct Turn {
    lock: Option<Fd>,
    has_waited: bool,
}

impl Turn {
    /// Waits until no other process copies a large file to `store`, or until `is_there` returns true
    /// because one has copied this file. Does not wait if this file of `size` bytes is not large.
    pub fn take(store: &Fd, size: u64, is_there: impl Fn() -> bool) -> Self {
        let none = Self { lock: None, has_waited: false };
        if size < LARGE || WAITS_NOT.load(Ordering::Relaxed) {
            return none;
        }
        // Every lock needs an open file description of its own.
        let Ok(lock) = sys::openat(store, c".", DIRECTORY_TO_LIST, 0) else { return none };
        let longest = size.saturating_mul(NANOSECONDS_PER_BYTE).max(NANOSECONDS);
        let begun = sys::monotonic_ns();
        let mut has_waited = false;
        loop {
            match sys::flock(&lock, libc::LOCK_EX | libc::LOCK_NB) {
                Ok(()) => break,
                Err(Errno(libc::EWOULDBLOCK)) => {}
                // The file system has no locks, or a filter forbids them.
                Err(_) => return Self { lock: None, has_waited },
            }
            if sys::monotonic_ns().saturating_sub(begun) > longest {
                WAITS_NOT.store(true, Ordering::Relaxed);
                return Self { lock: None, has_waited };
            }
            has_waited = true;
            sys::nap(NAP_NANOSECONDS);
            if is_there() {
                return Self { lock: None, has_waited };
            }
        }
        WAITS_NOT.store(true, Ordering::Relaxed);
        Self { lock: Some(lock), has_waited }
    }

    /// Returns whether another process may have added the copy since the caller has looked for it.
    pub const fn has_waited(&self) -> bool {
        self.has_waited
    }

    /// Keeps children of this process from holding the lock.
    pub fn keep(&self) -> Option<KeptFromChildren<'_>> {
        self.lock.as_ref().and_then(KeptFromChildren::new)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.lock.is_some() {
            WAITS_NOT.store(false, Ordering::Relaxed);
        }
    }
}

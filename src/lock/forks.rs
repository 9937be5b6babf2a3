//! Forks: the thread that forks holds the library's lock meanwhile, so that a child starts with
//! a free lock and a consistent table, and no thread iterates over the loader's list.
//!
//! A thread that waits too long for the lock forks without it, and its child is a copy of a
//! process in which another thread holds the lock. There are two cases. If that thread has
//! taken the lock for a fork of its own, it changes nothing that the lock protects, and the
//! child frees the lock. Otherwise the table may be inconsistent, and the lock stays taken.

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use sopin_core::sys;

use super::{Guard, LAST_PROCESS, NO_PROCESS, OWNER_PROCESS, STATE, is_own, lock_quietly};
use crate::filters;
use crate::large_copies;
use crate::loader::{self, iterations};

/// Registers the fork handlers.
pub fn prepare_for_forks() {
    // SAFETY: the handlers stay loaded, because this library is linked with `-z nodelete`. Each
    // frees the lock only if it was left taken for a fork.
    unsafe { loader::register_fork_handlers(before_fork, after_fork_in_parent, after_fork_in_child) };
}

/// The identity of the thread that has left the lock taken for its fork, until the fork ends;
/// 0 if there is none.
#[unsafe(link_section = ".data.sopin")]
static FORKING: AtomicUsize = AtomicUsize::new(0);
/// How many forks the thread that holds the lock has begun in signal handlers.
#[unsafe(link_section = ".data.sopin")]
static NESTED: AtomicU32 = AtomicU32::new(0);

/// How many naps a fork waits for the lock: one second. Another thread may be copying a file
/// while it holds the lock.
const NAPS: u32 = 20_000;

unsafe extern "C" fn before_fork() {
    if is_own() {
        NESTED.fetch_add(1, Ordering::Relaxed);
    } else if let Some(guard) = lock_quietly(NAPS) {
        guard.leave_taken();
        // A child that sees this sees also what earlier owners of the lock have stored: the
        // lock's exchange has acquired that.
        FORKING.store(sys::thread_identity(), Ordering::Release);
    }
    iterations::stop();
}

/// Ends a fork that a signal handler has begun while this thread held the lock already. Returns
/// false, without an effect, if the fork that ends has begun without the lock.
fn end_nested() -> bool {
    let is_nested = is_own() && NESTED.load(Ordering::Relaxed) != 0;
    if is_nested {
        NESTED.fetch_sub(1, Ordering::Relaxed);
    }
    is_nested
}

/// Frees the lock that `before_fork` has left taken.
///
/// # Safety
/// [`FORKING`] must not be 0, and it must name this thread, or one that does not exist.
unsafe fn free() {
    FORKING.store(0, Ordering::Relaxed);
    // SAFETY: `before_fork` has left the lock taken, and the thread for which it did so does not
    // use that any more: it is this one, at the end of its fork, or does not exist.
    drop(unsafe { Guard::of_taken() });
}

unsafe extern "C" fn after_fork_in_parent() {
    let is_nested = end_nested();
    iterations::resume();
    if !is_nested && FORKING.load(Ordering::Relaxed) == sys::thread_identity() {
        // SAFETY: `FORKING` names this thread.
        unsafe { free() };
    }
}

unsafe extern "C" fn after_fork_in_child() {
    filters::note_forked();
    LAST_PROCESS.store(0, Ordering::Relaxed);
    iterations::discard_others();
    sys::close_kept();
    large_copies::remove_others();
    let is_nested = end_nested();
    iterations::resume();
    if is_nested {
        // The sweep that holds the lock continues in the child, too, whose id is another one.
        OWNER_PROCESS.store(0, Ordering::Relaxed);
        return;
    }
    if FORKING.load(Ordering::Acquire) != 0 {
        // Forks that the thread has begun in signal handlers end in the parent.
        NESTED.store(0, Ordering::Relaxed);
        // SAFETY: `FORKING` names this thread, or another one of the parent, which does not exist
        // in the child.
        unsafe { free() };
    } else if STATE.is_locked() {
        OWNER_PROCESS.store(NO_PROCESS, Ordering::Relaxed);
    }
}

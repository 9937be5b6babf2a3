//! Forks: the thread that forks holds the library's lock meanwhile, so that a child starts with
//! a free lock and a consistent table, and no thread iterates over the loader's list.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, Ordering};

use sopin_core::sys;

use super::{Guard, LAST_PROCESS, OWNER_PROCESS, is_own, lock_quietly};
use crate::filters;
use crate::large_copies;
use crate::loader::{self, iterations};

/// Registers the fork handlers.
pub fn prepare_for_forks() {
    // SAFETY: the handlers stay loaded, because this library is linked with `-z nodelete`. They
    // access `FORKING` only while their thread holds the lock or is the only thread.
    unsafe { loader::register_fork_handlers(before_fork, after_fork_in_parent, after_fork_in_child) };
}

/// The guard of the thread that forks, from `before_fork` to the end of the fork.
static FORKING: ForkingThread = ForkingThread(UnsafeCell::new(None));
/// How many forks the thread that holds the lock has begun in signal handlers.
static NESTED: AtomicU32 = AtomicU32::new(0);

/// How many naps a fork waits for the lock: one second. Another thread may be copying a file
/// while it holds the lock.
const NAPS: u32 = 20_000;

struct ForkingThread(UnsafeCell<Option<Guard>>);

// SAFETY: only the thread that holds the lock accesses the cell, or the only thread of a child.
unsafe impl Sync for ForkingThread {}

unsafe extern "C" fn before_fork() {
    if is_own() {
        NESTED.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let guard = lock_quietly(NAPS);
    if guard.is_some() {
        // SAFETY: this thread has just taken the lock, and only its owner accesses the cell.
        unsafe { *FORKING.0.get() = guard };
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

unsafe extern "C" fn after_fork_in_parent() {
    if end_nested() {
        return;
    }
    iterations::resume(false);
    if is_own() {
        // SAFETY: this thread still holds the lock, and only its owner accesses the cell.
        drop(unsafe { (*FORKING.0.get()).take() });
    }
}

unsafe extern "C" fn after_fork_in_child() {
    filters::note_forked();
    LAST_PROCESS.store(0, Ordering::Relaxed);
    iterations::resume(true);
    sys::close_kept();
    large_copies::remove_others();
    if end_nested() {
        // The sweep that holds the lock continues in the child, too, whose id is another one.
        OWNER_PROCESS.store(0, Ordering::Relaxed);
        return;
    }
    // If `before_fork` has taken the lock, it did so in this thread, and dropping the guard frees
    // the lock in the child. Otherwise the cell is empty.
    // SAFETY: this is the only thread of the child, so no other one accesses the cell.
    drop(unsafe { (*FORKING.0.get()).take() });
}

//! Forks: the lock is held while the process forks, so that a child starts with
//! a free lock and a whole table; and nobody walks over the loader's list then.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, Ordering};

use sopin_core::sys;

use super::atfork::register_fork_handlers;
use super::{Guard, LAST_PROCESS, OWNER_PROCESS, is_own, lock_quietly};
use crate::filters;
use crate::large_copies;
use crate::loader::iterations;

/// Registers the fork handlers.
pub fn prepare_for_forks() {
    // SAFETY: the handlers stay loaded: this library is linked with `-z nodelete`.
    // Failure (no memory) leaves the case of a child made by `_Fork`.
    unsafe { register_fork_handlers(before_fork, after_fork_in_parent, after_fork_in_child) };
}

/// The lock, while `before_fork` holds it.
static FORKING: ForkingThread = ForkingThread(UnsafeCell::new(None));
/// How many forks the thread that has the lock has begun in handlers of signals.
static NESTED: AtomicU32 = AtomicU32::new(0);

/// How many naps a fork waits for the lock: a second, in which another thread copies
/// with it.
const NAPS: u32 = 20_000;

struct ForkingThread(UnsafeCell<Option<Guard>>);

// SAFETY: only the thread that holds the lock looks at it.
unsafe impl Sync for ForkingThread {}

unsafe extern "C" fn before_fork() {
    if is_own() {
        NESTED.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let guard = lock_quietly(NAPS);
    if guard.is_some() {
        // SAFETY: this thread holds the lock.
        unsafe { *FORKING.0.get() = guard };
    }
    iterations::stop();
}

/// Ends a fork that was begun while this thread had the lock; whether it was.
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
        // SAFETY: this thread holds the lock.
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
        // What has the lock goes on here, too.
        OWNER_PROCESS.store(0, Ordering::Relaxed);
        return;
    }
    // SAFETY: this is the only thread. If the lock was taken before the fork
    // it was by this thread's image in the parent, and is free now; otherwise
    // there is nothing to drop.
    drop(unsafe { (*FORKING.0.get()).take() });
}

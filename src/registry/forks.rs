//! Forks: the lock is held while the process forks, so that a child starts with
//! a free lock and a whole table; and nobody walks over the loader's list then.

use core::cell::UnsafeCell;
use core::sync::atomic::Ordering;

use sopin_core::sys;

use super::{Guard, OWNER_THREAD, lock};
use crate::filters;
use crate::large_copies;
use crate::loader::walks;

/// Registers the fork handlers.
pub fn prepare_for_forks() {
    // SAFETY: the handlers stay loaded: this library is linked with `-z nodelete`.
    // Failure (no memory) leaves the case of a child made by `_Fork`.
    unsafe { crate::hooks::register_fork_handlers(before_fork, after_fork_in_parent, after_fork_in_child) };
}

/// Whether `before_fork` holds the lock, with the signal mask that it found.
static FORKING: ForkingThread = ForkingThread(UnsafeCell::new(None));

struct ForkingThread(UnsafeCell<Option<Guard>>);

// SAFETY: only the thread that holds the lock looks at it.
unsafe impl Sync for ForkingThread {}

unsafe extern "C" fn before_fork() {
    let looked = filters::look();
    let guard = lock(looked);
    // Without the lock another thread may be forking too.
    filters::note_fork(guard.is_some().then_some(looked));
    if guard.is_some() {
        // SAFETY: this thread holds the lock.
        unsafe { *FORKING.0.get() = guard };
    }
    walks::stop();
}

unsafe extern "C" fn after_fork_in_parent() {
    filters::note_forked(false);
    walks::resume(false);
    if OWNER_THREAD.load(Ordering::Relaxed) == sys::thread_identity() {
        // SAFETY: this thread holds the lock.
        drop(unsafe { (*FORKING.0.get()).take() });
    }
}

unsafe extern "C" fn after_fork_in_child() {
    filters::note_forked(true);
    walks::resume(true);
    sys::close_kept();
    large_copies::remove_others();
    // SAFETY: this is the only thread. If the lock was taken before the fork
    // it was by this thread's image in the parent, and is free now; otherwise
    // there is nothing to drop.
    drop(unsafe { (*FORKING.0.get()).take() });
}

//! Forks and our walks over the loader's list exclude each other.
//!
//! glibc frees `dl_load_lock` in a forked child but not `dl_load_write_lock`,
//! which `dl_iterate_phdr` holds: a child forked while another thread is in
//! there could never load anything. So a thread that forks waits for those that
//! walk, and threads that want to walk wait for a fork.
//!
//! A signal handler of the host may come to want a walk inside a walk of its
//! own thread, and whatever it waits for may be waiting for that walk. It does
//! without: hence the walkers are known by thread.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use sopin_core::sys;

/// Threads that want to walk or do, each as its identity; 0 is free.
static WALKERS: [AtomicUsize; 16] = [const { AtomicUsize::new(0) }; 16];
/// Walkers beyond those.
static OTHERS: AtomicU32 = AtomicU32::new(0);
static IS_FORKING: AtomicBool = AtomicBool::new(false);

/// A nap while the other one is busy, and how many of them: 100 ms, which is
/// reached only if a fork handler of the host waits for the loader.
const NAP_NS: i64 = 20_000;
const MAX_NAPS: u32 = 5_000;

/// Waits, for a short time, until no thread is walking; none starts to.
pub fn stop() {
    IS_FORKING.store(true, Ordering::SeqCst);
    for _ in 0..MAX_NAPS {
        let is_free = |walker: &AtomicUsize| walker.load(Ordering::SeqCst) == 0;
        if OTHERS.load(Ordering::SeqCst) == 0 && WALKERS.iter().all(is_free) {
            return;
        }
        sys::nap(NAP_NS);
    }
}

/// Lets threads walk again.
pub fn resume(is_child: bool) {
    if is_child {
        // The other threads do not exist here.
        OTHERS.store(0, Ordering::SeqCst);
        for walker in &WALKERS {
            walker.store(0, Ordering::SeqCst);
        }
    }
    IS_FORKING.store(false, Ordering::SeqCst);
}

/// A walk; it ends when this is dropped.
pub struct Walk {
    /// `None`: among the others.
    walker: Option<&'static AtomicUsize>,
}

impl Walk {
    /// Counts this thread among the walkers, when no thread forks. `None` if one
    /// does for too long, or if this thread is one already.
    pub fn begin() -> Option<Self> {
        if is_within() {
            return None;
        }
        for _ in 0..MAX_NAPS {
            // Announced before the look at the flag, which is set before the
            // look at the walkers: one of the two sees the other.
            let walk = Self::announce();
            if !IS_FORKING.load(Ordering::SeqCst) {
                return Some(walk);
            }
            drop(walk);
            sys::nap(NAP_NS);
        }
        None
    }

    fn announce() -> Self {
        let thread = identity();
        let is_taken =
            |walker: &&AtomicUsize| walker.compare_exchange(0, thread, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        let walker = WALKERS.iter().find(is_taken);
        if walker.is_none() {
            OTHERS.fetch_add(1, Ordering::SeqCst);
        }
        Self { walker }
    }
}

/// Whether a thread is forking, and what wants a walk has to wait.
pub fn is_forking() -> bool {
    IS_FORKING.load(Ordering::Relaxed)
}

/// Whether this thread is in a walk: then it may wait for nobody.
pub fn is_within() -> bool {
    let thread = identity();
    WALKERS.iter().any(|walker| walker.load(Ordering::Relaxed) == thread)
}

impl Drop for Walk {
    fn drop(&mut self) {
        match self.walker {
            Some(walker) => walker.store(0, Ordering::SeqCst),
            None => {
                OTHERS.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }
}

/// What tells the calling thread from others without a system call: where its
/// `errno` is.
fn identity() -> usize {
    sys::errno_address()
}

//! Forks and our walks over the loader's list exclude each other.
//!
//! glibc frees `dl_load_lock` in a forked child but not `dl_load_write_lock`,
//! which `dl_iterate_phdr` holds: a child forked while another thread is in
//! there could never load anything. So a thread that forks waits for those that
//! walk, and threads that want to walk wait for a fork.
//!
//! A signal handler of the host may come to want a walk inside a walk of its
//! own thread, and whatever it waits for may be waiting for that walk. It does
//! without: hence the walkers are known by thread. So is the one that forks, whose
//! fork handlers may want a walk.

use core::sync::atomic::Ordering;
#[cfg(not(test))]
use core::sync::atomic::{AtomicU32, AtomicUsize, fence};
#[cfg(test)]
use loom::sync::atomic::{AtomicU32, AtomicUsize, fence};

/// Who walks and who forks. Up to `SLOTS` walkers are told apart.
///
/// What waits calls its `nap` in between, until that says that it was enough.
pub struct Iterations<const SLOTS: usize> {
    /// Threads that want to walk or do, each as its identity; 0 is free.
    walkers: [AtomicUsize; SLOTS],
    /// Walkers beyond those.
    others: AtomicU32,
    /// The thread that forks, or 0.
    forker: AtomicUsize,
}

/// A walk; it ends when this is dropped.
pub struct Iteration<'a, const SLOTS: usize> {
    walks: &'a Iterations<SLOTS>,
    /// `None`: among the others.
    walker: Option<&'a AtomicUsize>,
}

impl<const SLOTS: usize> Iterations<SLOTS> {
    /// Nobody does anything.
    #[cfg(not(test))]
    #[allow(clippy::new_without_default, reason = "for a static")]
    pub const fn new() -> Self {
        Self { walkers: [const { AtomicUsize::new(0) }; SLOTS], others: AtomicU32::new(0), forker: AtomicUsize::new(0) }
    }

    /// Waits until no thread is walking, so that `thread` can fork, and tells whether
    /// it came to that. None starts to before [`Iterations::resume`], in either case.
    pub fn stop(&self, thread: usize, mut nap: impl FnMut() -> bool) -> bool {
        self.forker.store(thread, Ordering::Relaxed);
        // Of this and the fence in `begin` one comes first: either the walker
        // sees the fork, or it is seen.
        fence(Ordering::SeqCst);
        loop {
            let is_free = |walker: &AtomicUsize| walker.load(Ordering::Acquire) == 0;
            if self.others.load(Ordering::Acquire) == 0 && self.walkers.iter().all(is_free) {
                return true;
            }
            if !nap() {
                return false;
            }
        }
    }

    /// Lets threads walk again. In a forked child the other threads do not exist.
    pub fn resume(&self, is_child: bool) {
        if is_child {
            self.others.store(0, Ordering::Relaxed);
            for walker in &self.walkers {
                walker.store(0, Ordering::Relaxed);
            }
        }
        self.forker.store(0, Ordering::Release);
    }

    /// Counts `thread` among the walkers when no thread forks. `None` if one does
    /// for too long, or if it is one already or forks itself.
    pub fn begin(&self, thread: usize, mut nap: impl FnMut() -> bool) -> Option<Iteration<'_, SLOTS>> {
        if self.is_within(thread) || self.forker.load(Ordering::Relaxed) == thread {
            return None;
        }
        loop {
            let walk = self.announce(thread);
            fence(Ordering::SeqCst);
            if self.forker.load(Ordering::Acquire) == 0 {
                return Some(walk);
            }
            drop(walk);
            if !nap() {
                return None;
            }
        }
    }

    fn announce(&self, thread: usize) -> Iteration<'_, SLOTS> {
        let is_taken =
            |walker: &&AtomicUsize| walker.compare_exchange(0, thread, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        let walker = self.walkers.iter().find(is_taken);
        if walker.is_none() {
            self.others.fetch_add(1, Ordering::Relaxed);
        }
        Iteration { walks: self, walker }
    }

    /// Whether a thread is forking, and what wants a walk has to wait.
    pub fn is_forking(&self) -> bool {
        self.forker.load(Ordering::Relaxed) != 0
    }

    /// Whether `thread` is in a walk: then it may wait for nobody.
    pub fn is_within(&self, thread: usize) -> bool {
        self.walkers.iter().any(|walker| walker.load(Ordering::Relaxed) == thread)
    }
}

impl<const SLOTS: usize> Drop for Iteration<'_, SLOTS> {
    fn drop(&mut self) {
        match self.walker {
            Some(walker) => walker.store(0, Ordering::Release),
            None => {
                self.walks.others.fetch_sub(1, Ordering::Release);
            }
        }
    }
}

#[cfg(test)]
mod tests;

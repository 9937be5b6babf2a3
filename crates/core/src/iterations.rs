//! Forks and the library's iterations over the loader's list exclude each other.
//!
//! glibc frees `dl_load_lock` in a forked child but not `dl_load_write_lock`, which
//! `dl_iterate_phdr` holds. A child that is forked while another thread iterates could never
//! load anything. So a thread that forks waits until no thread is iterating, and a thread that
//! is about to iterate waits until no thread is forking.
//!
//! A signal handler can re-enter the library while its own thread is iterating. Waiting would
//! deadlock, because the thread that it waits for may be waiting for this iteration to end. So
//! the nested call fails, and to recognise it the table records which thread iterates. It also
//! records which thread forks, because that thread's fork handlers can call the library, too.

use core::sync::atomic::Ordering;
#[cfg(not(test))]
use core::sync::atomic::{AtomicU32, AtomicUsize, fence};
#[cfg(test)]
use loom::sync::atomic::{AtomicU32, AtomicUsize, fence};

/// The threads that iterate and the thread that forks. Up to `SLOTS` iterating threads are
/// recorded individually.
///
/// A method that waits calls its `nap` repeatedly, and gives up when `nap` returns false.
pub struct Iterations<const SLOTS: usize> {
    /// The identities of the threads that are iterating or are about to; 0 marks a free slot.
    threads: [AtomicUsize; SLOTS],
    /// The number of iterating threads for which there was no free slot.
    others: AtomicU32,
    /// The identity of the thread that forks, or 0.
    forker: AtomicUsize,
}

/// An iteration over the loader's list; it ends when this is dropped.
pub struct Iteration<'a, const SLOTS: usize> {
    iterations: &'a Iterations<SLOTS>,
    /// `None` if the thread is counted among the others.
    slot: Option<&'a AtomicUsize>,
}

impl<const SLOTS: usize> Iterations<SLOTS> {
    /// Makes a table in which no thread iterates or forks.
    #[cfg(not(test))]
    #[allow(clippy::new_without_default, reason = "for a static")]
    pub const fn new() -> Self {
        Self { threads: [const { AtomicUsize::new(0) }; SLOTS], others: AtomicU32::new(0), forker: AtomicUsize::new(0) }
    }

    /// Waits until no thread is iterating, so that `thread` can fork. Returns false if `nap`
    /// gave up first. In either case no thread begins an iteration before
    /// [`Iterations::resume`].
    pub fn stop(&self, thread: usize, mut nap: impl FnMut() -> bool) -> bool {
        self.forker.store(thread, Ordering::Relaxed);
        // This fence and the one in `begin` are ordered: either the iterating thread sees the
        // fork, or this thread sees the iteration.
        fence(Ordering::SeqCst);
        loop {
            let is_free = |slot: &AtomicUsize| slot.load(Ordering::Acquire) == 0;
            if self.others.load(Ordering::Acquire) == 0 && self.threads.iter().all(is_free) {
                return true;
            }
            if !nap() {
                return false;
            }
        }
    }

    /// Permits iterations again. In a forked child the other threads do not exist.
    pub fn resume(&self, is_child: bool) {
        if is_child {
            self.others.store(0, Ordering::Relaxed);
            for slot in &self.threads {
                slot.store(0, Ordering::Relaxed);
            }
        }
        self.forker.store(0, Ordering::Release);
    }

    /// Begins an iteration of `thread`, after waiting until no thread forks. `None` if `nap`
    /// gave up first, or if `thread` is already iterating or is the one that forks.
    pub fn begin(&self, thread: usize, mut nap: impl FnMut() -> bool) -> Option<Iteration<'_, SLOTS>> {
        if self.is_within(thread) || self.forker.load(Ordering::Relaxed) == thread {
            return None;
        }
        loop {
            let iteration = self.announce(thread);
            fence(Ordering::SeqCst);
            if self.forker.load(Ordering::Acquire) == 0 {
                return Some(iteration);
            }
            drop(iteration);
            if !nap() {
                return None;
            }
        }
    }

    fn announce(&self, thread: usize) -> Iteration<'_, SLOTS> {
        let is_taken =
            |slot: &&AtomicUsize| slot.compare_exchange(0, thread, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        let slot = self.threads.iter().find(is_taken);
        if slot.is_none() {
            self.others.fetch_add(1, Ordering::Relaxed);
        }
        Iteration { iterations: self, slot }
    }

    /// Returns whether a thread is forking, so that an iteration has to wait.
    pub fn is_forking(&self) -> bool {
        self.forker.load(Ordering::Relaxed) != 0
    }

    /// Returns whether `thread` is iterating. Then it must not wait for any other thread.
    pub fn is_within(&self, thread: usize) -> bool {
        self.threads.iter().any(|slot| slot.load(Ordering::Relaxed) == thread)
    }
}

impl<const SLOTS: usize> Drop for Iteration<'_, SLOTS> {
    fn drop(&mut self) {
        match self.slot {
            Some(slot) => slot.store(0, Ordering::Release),
            None => {
                self.iterations.others.fetch_sub(1, Ordering::Release);
            }
        }
    }
}

#[cfg(test)]
mod tests;

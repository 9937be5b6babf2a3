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
//! records which threads fork, because their fork handlers can call the library, too. Several
//! threads can fork at once: each waits for the library's lock, but not for ever.

use core::sync::atomic::Ordering;
#[cfg(not(test))]
use core::sync::atomic::{AtomicU32, AtomicUsize, fence};
#[cfg(test)]
use loom::sync::atomic::{AtomicU32, AtomicUsize, fence};

/// How many forking threads are recorded individually. The model has two, because each slot
/// multiplies its interleavings.
const FORKERS: usize = if cfg!(test) { 2 } else { 4 };

/// The threads that iterate and those that fork. Up to `SLOTS` iterating threads are
/// recorded individually.
///
/// A method that waits calls its `nap` repeatedly, and gives up when `nap` returns false.
pub struct Iterations<const SLOTS: usize> {
    /// The identities of the threads that are iterating or are about to; 0 marks a free slot.
    threads: [AtomicUsize; SLOTS],
    /// The number of iterating threads for which there was no free slot.
    others: AtomicU32,
    /// The identities of threads that fork; 0 marks a free slot. A thread for which there was
    /// none is not recognised, and waits in vain for its own fork to end.
    forkers: [AtomicUsize; FORKERS],
    /// The number of forks under way.
    forks: AtomicU32,
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
        Self {
            threads: [const { AtomicUsize::new(0) }; SLOTS],
            others: AtomicU32::new(0),
            forkers: [const { AtomicUsize::new(0) }; FORKERS],
            forks: AtomicU32::new(0),
        }
    }

    /// Waits until no other thread is iterating, so that `thread` can fork. `thread` itself iterates
    /// if it forks in a signal handler; parent and child both continue that iteration. Returns
    /// false if `nap` gave up first. In either case no thread begins an iteration before
    /// [`Iterations::resume`] was called as often as this function.
    pub fn stop(&self, thread: usize, mut nap: impl FnMut() -> bool) -> bool {
        take_slot(&self.forkers, thread);
        self.forks.fetch_add(1, Ordering::Relaxed);
        // This fence and the one in `begin` are ordered: either the iterating thread sees the
        // fork, or this thread sees the iteration.
        fence(Ordering::SeqCst);
        loop {
            let is_free = |slot: &AtomicUsize| [0, thread].contains(&slot.load(Ordering::Acquire));
            if self.others.load(Ordering::Acquire) == 0 && self.threads.iter().all(is_free) {
                return true;
            }
            if !nap() {
                return false;
            }
        }
    }

    /// Notes that a fork of `thread` has ended.
    pub fn resume(&self, thread: usize) {
        if let Some(slot) = self.forkers.iter().find(|slot| slot.load(Ordering::Relaxed) == thread) {
            slot.store(0, Ordering::Relaxed);
        }
        subtract_one(&self.forks);
    }

    /// Forgets all threads but `thread`, which is the only one of a forked child. Its own
    /// iterations and forks go on there.
    pub fn discard_others(&self, thread: usize) {
        let is_own = |slot: &&AtomicUsize| slot.load(Ordering::Relaxed) == thread;
        for slot in self.threads.iter().chain(&self.forkers).filter(|slot| !is_own(slot)) {
            slot.store(0, Ordering::Relaxed);
        }
        self.others.store(0, Ordering::Relaxed);
        let own_forks = self.forkers.iter().filter(is_own).count();
        self.forks.store(own_forks as u32, Ordering::Relaxed);
    }

    /// Begins an iteration of `thread`, after waiting until no thread forks. `None` if `nap`
    /// gave up first, or if `thread` is already iterating or is one that forks.
    pub fn begin(&self, thread: usize, mut nap: impl FnMut() -> bool) -> Option<Iteration<'_, SLOTS>> {
        if self.is_within(thread) || self.forkers.iter().any(|slot| slot.load(Ordering::Relaxed) == thread) {
            return None;
        }
        loop {
            let iteration = self.announce(thread);
            fence(Ordering::SeqCst);
            if self.forks.load(Ordering::Acquire) == 0 {
                return Some(iteration);
            }
            drop(iteration);
            if !nap() {
                return None;
            }
        }
    }

    fn announce(&self, thread: usize) -> Iteration<'_, SLOTS> {
        let slot = take_slot(&self.threads, thread);
        if slot.is_none() {
            self.others.fetch_add(1, Ordering::Relaxed);
        }
        Iteration { iterations: self, slot }
    }

    /// Returns whether a thread is forking, so that an iteration has to wait.
    pub fn is_forking(&self) -> bool {
        self.forks.load(Ordering::Relaxed) != 0
    }

    /// Returns whether `thread` is iterating. Then it must not wait for any other thread.
    pub fn is_within(&self, thread: usize) -> bool {
        self.threads.iter().any(|slot| slot.load(Ordering::Relaxed) == thread)
    }
}

/// Records `thread` in a free slot, if there is one.
fn take_slot(slots: &[AtomicUsize], thread: usize) -> Option<&AtomicUsize> {
    let is_taken = |slot: &&AtomicUsize| slot.compare_exchange(0, thread, Ordering::Relaxed, Ordering::Relaxed).is_ok();
    slots.iter().find(is_taken)
}

/// Subtracts 1 from a number of threads, unless it is 0: a forked child has discarded its
/// parent's threads, and this one may have been among them.
fn subtract_one(threads: &AtomicU32) {
    let _ = threads.fetch_update(Ordering::Release, Ordering::Relaxed, |count| count.checked_sub(1));
}

impl<const SLOTS: usize> Drop for Iteration<'_, SLOTS> {
    fn drop(&mut self) {
        match self.slot {
            Some(slot) => slot.store(0, Ordering::Release),
            None => subtract_one(&self.iterations.others),
        }
    }
}

#[cfg(test)]
mod tests;

//! The loader's counters at the last complete sweep, and the number of missed sweeps. Threads
//! read them without the library's lock, to find out whether a sweep has anything to do.
//!
//! All loads and stores are relaxed, because the loader's lock orders what matters. An object
//! is in the loader's list before its announcement can be missed, and the list is read with
//! that lock. A thread that has read the number of missed sweeps before it reads the list
//! sees every object that they were about. Each number is compared alone: adds of an old
//! sweep beside unloads of a new one only cause a sweep that finds nothing, or skip one
//! whose objects are all recorded.

use core::sync::atomic::Ordering;
#[cfg(not(test))]
use core::sync::atomic::{AtomicU32, AtomicU64};
#[cfg(test)]
use loom::sync::atomic::{AtomicU32, AtomicU64};

/// How far the records of loaded objects are up to date.
pub struct SweepCounts {
    /// The loader's counters at the last time at which every loaded object was recorded. Until
    /// then `adds` has a value that no loader reports; musl begins at 0.
    adds: AtomicU64,
    subs: AtomicU64,
    /// How many announcements were not followed by a sweep.
    missed: AtomicU32,
    /// How many of these a later sweep has made up for, by recording every loaded object.
    made_up_for: AtomicU32,
}

impl SweepCounts {
    /// Makes the counts of a process without a sweep.
    #[cfg(not(test))]
    #[allow(clippy::new_without_default, reason = "for a static")]
    pub const fn new() -> Self {
        Self {
            adds: AtomicU64::new(u64::MAX),
            subs: AtomicU64::new(0),
            missed: AtomicU32::new(0),
            made_up_for: AtomicU32::new(0),
        }
    }

    /// Returns the loader's counts of adds and unloads at the last complete sweep.
    pub fn recorded(&self) -> (u64, u64) {
        (self.adds.load(Ordering::Relaxed), self.subs.load(Ordering::Relaxed))
    }

    /// Notes that every object is recorded that was loaded at these counts. The caller holds the
    /// library's lock.
    pub fn set_recorded(&self, adds: u64, subs: u64) {
        self.adds.store(adds, Ordering::Relaxed);
        self.subs.store(subs, Ordering::Relaxed);
    }

    /// Returns whether an object may have announced itself without being recorded.
    pub fn has_missed(&self) -> bool {
        self.missed() != self.made_up_for.load(Ordering::Relaxed)
    }

    /// Returns how many sweeps after an announcement did not happen.
    pub fn missed(&self) -> u32 {
        self.missed.load(Ordering::Relaxed)
    }

    /// Notes that an object has announced itself and was not recorded.
    pub fn note_missed(&self) {
        self.missed.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that every object is recorded that was loaded when `missed` sweeps had been missed.
    /// The caller holds the library's lock.
    pub fn make_up_for(&self, missed: u32) {
        self.made_up_for.store(missed, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod model {
    //! Two threads that each load an object and sweep once, in every order that the memory
    //! model allows (loom).

    use loom::model::Builder;
    use loom::sync::{Arc, Mutex};
    use loom::thread;

    use super::*;

    /// A set of objects, one bit for each.
    type Objects = u64;

    struct Process {
        counts: SweepCounts,
        /// The loader's list. The number of its objects is the number of adds.
        listed: Mutex<Objects>,
        recorded: Mutex<Objects>,
    }

    impl Process {
        fn new() -> Self {
            let counts = SweepCounts {
                adds: AtomicU64::new(0),
                subs: AtomicU64::new(0),
                missed: AtomicU32::new(0),
                made_up_for: AtomicU32::new(0),
            };
            Self { counts, listed: Mutex::new(0), recorded: Mutex::new(0) }
        }

        fn list(&self) -> Objects {
            *self.listed.lock().unwrap()
        }

        /// Sweeps as `src/pinner.rs` does. Returns false if another thread has the lock. The
        /// number of missed sweeps is read before the list, or after it.
        fn sweep(&self, reads_missed_first: bool) -> bool {
            let first = self.counts.missed();
            if self.counts.recorded() == (self.list().count_ones().into(), 0) {
                return true;
            }
            let listed = self.list();
            let Ok(mut recorded) = self.recorded.try_lock() else { return false };
            let missed = if reads_missed_first { first } else { self.counts.missed() };
            *recorded |= listed;
            self.counts.set_recorded(listed.count_ones().into(), 0);
            self.counts.make_up_for(missed);
            true
        }

        fn load(&self, object: Objects, reads_missed_first: bool) {
            *self.listed.lock().unwrap() |= object;
            if !self.sweep(reads_missed_first) {
                self.counts.note_missed();
            }
        }
    }

    fn two_threads_load(reads_missed_first: bool) {
        let mut explored = Builder::new();
        explored.preemption_bound = Some(3);
        explored.check(move || {
            let process = Arc::new(Process::new());
            let other = {
                let process = process.clone();
                thread::spawn(move || process.load(2, reads_missed_first))
            };
            process.load(1, reads_missed_first);
            other.join().unwrap();
            let is_all = *process.recorded.lock().unwrap() == process.list();
            assert!(is_all || process.counts.has_missed(), "an object was forgotten");
        });
    }

    #[test]
    fn an_object_is_recorded_or_a_sweep_counts_as_missed() {
        two_threads_load(true);
    }

    #[test]
    #[should_panic(expected = "an object was forgotten")]
    fn reading_the_missed_sweeps_after_the_list_forgets_an_object() {
        two_threads_load(false);
    }
}

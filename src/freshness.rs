//! Whether the records are up to date, in a form that threads read without the lock: the
//! loader's counters at the last complete sweep, and the number of missed sweeps.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::loader::Counters;
use crate::registry::Registry;

/// The loader's counters at the last time at which every loaded object was recorded.
/// No loader counts this far, so that nothing is up to date before the first sweep; musl begins
/// to count at 0.
static ADDS: AtomicU64 = AtomicU64::new(u64::MAX);
static SUBS: AtomicU64 = AtomicU64::new(0);
/// How many announcements were not followed by a sweep.
static MISSED: AtomicU32 = AtomicU32::new(0);
/// How many of these a later sweep has made up for, by recording every loaded object.
static MADE_UP_FOR: AtomicU32 = AtomicU32::new(0);

/// Returns whether no object was loaded or unloaded since the last complete sweep.
pub fn is_current(counters: Counters) -> bool {
    counters == recorded_counters()
}

/// Returns the counters of the last complete sweep.
pub fn recorded_counters() -> Counters {
    Counters { adds: ADDS.load(Ordering::Relaxed), subs: SUBS.load(Ordering::Relaxed) }
}

/// Notes that every object that was loaded at `counters` is recorded. The registry proves that
/// the caller holds the lock.
pub fn set_counters(_of: &Registry, counters: Counters) {
    ADDS.store(counters.adds, Ordering::Relaxed);
    SUBS.store(counters.subs, Ordering::Relaxed);
}

/// Returns whether an object may have announced itself without being recorded.
pub fn has_missed_a_sweep() -> bool {
    missed_sweeps() != MADE_UP_FOR.load(Ordering::Relaxed)
}

/// Returns how many sweeps after an announcement did not happen.
pub fn missed_sweeps() -> u32 {
    MISSED.load(Ordering::Relaxed)
}

/// Notes that an object has announced itself and was not recorded.
pub fn note_missed_sweep() {
    MISSED.fetch_add(1, Ordering::Relaxed);
}

/// Notes that every object is recorded that was loaded when `missed` sweeps had been missed.
/// The registry proves that the caller holds the lock.
pub fn make_up_for_missed_sweeps(_of: &Registry, missed: u32) {
    MADE_UP_FOR.store(missed, Ordering::Relaxed);
}

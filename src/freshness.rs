//! Finds out without the lock whether the records are up to date, by the counts of
//! [`sopin_core::sweep_counts`].

use sopin_core::sweep_counts::SweepCounts;

use crate::loader::Counters;
use crate::registry::Registry;

static COUNTS: SweepCounts = SweepCounts::new();

/// Returns whether no object was loaded or unloaded since the last complete sweep.
pub fn is_current(counters: Counters) -> bool {
    counters == recorded_counters()
}

/// Returns the counters of the last complete sweep.
pub fn recorded_counters() -> Counters {
    let (adds, subs) = COUNTS.recorded();
    Counters { adds, subs }
}

/// Notes that every object that was loaded at `counters` is recorded. The registry proves that
/// the caller holds the lock.
pub fn set_counters(_of: &Registry, counters: Counters) {
    COUNTS.set_recorded(counters.adds, counters.subs);
}

/// Returns whether an object may have announced itself without being recorded.
pub fn has_missed_a_sweep() -> bool {
    COUNTS.has_missed()
}

/// Returns how many sweeps after an announcement did not happen. The caller must read this before
/// the loader's list.
pub fn missed_sweeps() -> u32 {
    COUNTS.missed()
}

/// Notes that an object has announced itself and was not recorded.
pub fn note_missed_sweep() {
    COUNTS.note_missed();
}

/// Notes that every object is recorded that was loaded when `missed` sweeps had been missed.
/// The registry proves that the caller holds the lock.
pub fn make_up_for_missed_sweeps(_of: &Registry, missed: u32) {
    COUNTS.make_up_for(missed);
}

//! Whether what is recorded is up to date, in a form that is read without the lock: the
//! loader's counters at the last complete sweep, and the sweeps that did not happen.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::loader::Counters;
use crate::registry::Registry;

/// The loader's counters when everything loaded was last known to be recorded.
static ADDS: AtomicU64 = AtomicU64::new(0);
static SUBS: AtomicU64 = AtomicU64::new(0);
/// How many announcements were not followed by a sweep.
static MISSED: AtomicU32 = AtomicU32::new(0);
/// How many of these do not matter any more, because everything loaded has been recorded since.
static MADE_UP_FOR: AtomicU32 = AtomicU32::new(0);

/// Returns whether nothing was loaded or unloaded since the last complete sweep.
pub fn is_current(counters: Counters) -> bool {
    counters == recorded_counters()
}

/// Returns the counters of the last complete sweep.
pub fn recorded_counters() -> Counters {
    Counters { adds: ADDS.load(Ordering::Relaxed), subs: SUBS.load(Ordering::Relaxed) }
}

/// Notes that everything loaded up to `counters` is recorded. Only the thread that holds
/// the lock has the registry.
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

/// Notes that everything is recorded that was loaded when `missed` sweeps had not happened.
/// Only the thread that holds the lock has the registry.
pub fn make_up_for_missed_sweeps(_of: &Registry, missed: u32) {
    MADE_UP_FOR.store(missed, Ordering::Relaxed);
}

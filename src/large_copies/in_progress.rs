//! For which objects threads are preparing copies, so that the sweep of another thread
//! does not wait for the same copy: it leaves the object to them.

use core::sync::atomic::{AtomicUsize, Ordering};

use sopin_core::sys;

use super::MAX_COPIES;

struct Place {
    /// Of the object; 0 if this is free.
    headers: AtomicUsize,
    /// Of the thread, by what [`sys::thread_identity`] says.
    thread: AtomicUsize,
}

static PLACES: [Place; MAX_COPIES] =
    [const { Place { headers: AtomicUsize::new(0), thread: AtomicUsize::new(0) } }; MAX_COPIES];

/// Notes that this thread prepares a copy. What does not fit is prepared by several.
pub fn add(headers: usize) {
    let take =
        |place: &&Place| place.headers.compare_exchange(0, headers, Ordering::Relaxed, Ordering::Relaxed).is_ok();
    if let Some(place) = PLACES.iter().find(take) {
        place.thread.store(sys::thread_identity(), Ordering::Relaxed);
    }
}

/// Forgets what this thread has noted.
pub fn remove_own() {
    remove(|thread| thread == sys::thread_identity());
}

/// In a child of fork: forgets what the parent's other threads have noted.
pub fn remove_others() {
    remove(|thread| thread != sys::thread_identity());
}

fn remove(is_it: impl Fn(usize) -> bool) {
    for place in PLACES.iter().filter(|place| is_it(place.thread.load(Ordering::Relaxed))) {
        // First, so that this thread does not free it once another has taken it.
        place.thread.store(0, Ordering::Relaxed);
        place.headers.store(0, Ordering::Release);
    }
}

/// Returns whether another thread prepares a copy for this object.
pub fn is_anothers(headers: usize) -> bool {
    PLACES.iter().any(|place| {
        place.headers.load(Ordering::Relaxed) == headers
            && place.thread.load(Ordering::Relaxed) != sys::thread_identity()
    })
}

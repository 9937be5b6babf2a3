//! The objects for which threads are preparing copies. The sweep of another thread leaves such
//! an object to the thread that prepares its copy, and does not wait for the same copy.

use core::sync::atomic::{AtomicUsize, Ordering};

use sopin_core::sys;

use super::MAX_COPIES;

struct Place {
    /// Address of the object's program headers; 0 if the place is free.
    headers: AtomicUsize,
    /// The identity of the thread, see [`sys::thread_identity`].
    thread: AtomicUsize,
}

static PLACES: [Place; MAX_COPIES] =
    [const { Place { headers: AtomicUsize::new(0), thread: AtomicUsize::new(0) } }; MAX_COPIES];

/// Notes that this thread prepares a copy for an object. If no place is free, several threads
/// may prepare the same copy.
pub fn add(headers: usize) {
    let take =
        |place: &&Place| place.headers.compare_exchange(0, headers, Ordering::Relaxed, Ordering::Relaxed).is_ok();
    if let Some(place) = PLACES.iter().find(take) {
        place.thread.store(sys::thread_identity(), Ordering::Relaxed);
    }
}

/// Removes the notes of this thread.
pub fn remove_own() {
    remove(|thread| thread == sys::thread_identity());
}

/// Removes the notes of the parent's other threads, which do not exist in a forked child.
pub fn remove_others() {
    remove(|thread| thread != sys::thread_identity());
}

fn remove(is_it: impl Fn(usize) -> bool) {
    for place in PLACES.iter().filter(|place| is_it(place.thread.load(Ordering::Relaxed))) {
        // The thread is cleared first: as soon as `headers` is 0 another thread can take the
        // place, and its identity must not be overwritten.
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

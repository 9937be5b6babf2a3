//! The objects for which threads are preparing copies. The sweep of another thread leaves such
//! an object to the thread that prepares its copy, and does not wait for the same copy.
//!
//! Threads note and remove objects without a lock. A place belongs to the thread that has
//! changed its object from 0, until that thread stores 0 there again.

#[cfg(not(test))]
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering;
#[cfg(test)]
use loom::sync::atomic::AtomicUsize;

struct Place {
    /// Address of the object's program headers; 0 if the place is free.
    headers: AtomicUsize,
    /// The identity of the thread; 0 until the thread has stored it.
    thread: AtomicUsize,
}

/// A table of the preparations under way, with room for `PLACES` of them.
pub struct Preparations<const PLACES: usize> {
    places: [Place; PLACES],
}

impl<const PLACES: usize> Preparations<PLACES> {
    /// Makes an empty table.
    #[cfg(not(test))]
    #[allow(clippy::new_without_default, reason = "for a static")]
    pub const fn new() -> Self {
        Self { places: [const { Place { headers: AtomicUsize::new(0), thread: AtomicUsize::new(0) } }; PLACES] }
    }

    /// Notes that `thread` prepares a copy for an object. If no place is free, several threads
    /// may prepare the same copy.
    pub fn add(&self, headers: usize, thread: usize) {
        // The exchange acquires what `remove` releases: the identity stored here stays behind
        // the 0 that the thread stored which had the place before.
        let take =
            |place: &&Place| place.headers.compare_exchange(0, headers, Ordering::Acquire, Ordering::Relaxed).is_ok();
        if let Some(place) = self.places.iter().find(take) {
            place.thread.store(thread, Ordering::Relaxed);
        }
    }

    /// Removes the notes of the threads for which `is_it` returns true.
    pub fn remove(&self, is_it: impl Fn(usize) -> bool) {
        for place in self.places.iter().filter(|place| is_it(place.thread.load(Ordering::Relaxed))) {
            // The thread is cleared first: as soon as `headers` is 0 another thread can take the
            // place, and its identity must not be overwritten.
            place.thread.store(0, Ordering::Relaxed);
            place.headers.store(0, Ordering::Release);
        }
    }

    /// Returns whether a thread other than `thread` prepares a copy for this object.
    pub fn is_anothers(&self, headers: usize, thread: usize) -> bool {
        self.places.iter().any(|place| {
            place.headers.load(Ordering::Relaxed) == headers && place.thread.load(Ordering::Relaxed) != thread
        })
    }
}

#[cfg(test)]
mod model {
    //! Two threads that use one place, in every order that the memory model allows (loom).

    use loom::model;
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    type One = Preparations<1>;

    fn prepare(table: &One, headers: usize, thread: usize, remove: fn(&One, usize)) {
        table.add(headers, thread);
        assert!(!table.is_anothers(headers, thread), "its own preparation is another's");
        remove(table, thread);
    }

    fn two_threads_prepare(remove: fn(&One, usize)) {
        model(move || {
            let table = Arc::new(One { places: [Place { headers: AtomicUsize::new(0), thread: AtomicUsize::new(0) }] });
            let other = {
                let table = table.clone();
                thread::spawn(move || prepare(&table, 0x2000, 2, remove))
            };
            prepare(&table, 0x1000, 1, remove);
            other.join().unwrap();
            for headers in [0x1000, 0x2000] {
                assert!(!table.is_anothers(headers, 3), "left behind");
            }
            table.add(0x3000, 3);
            assert!(table.is_anothers(0x3000, 1), "no free place");
        });
    }

    #[test]
    fn what_a_thread_has_noted_it_removes() {
        two_threads_prepare(|table, thread| table.remove(|it| it == thread));
    }

    #[test]
    #[should_panic(expected = "another's")]
    fn freeing_a_place_before_the_thread_is_cleared_overwrites_the_next() {
        two_threads_prepare(|table, thread| {
            for place in table.places.iter().filter(|place| place.thread.load(Ordering::Relaxed) == thread) {
                place.headers.store(0, Ordering::Release);
                place.thread.store(0, Ordering::Relaxed);
            }
        });
    }
}

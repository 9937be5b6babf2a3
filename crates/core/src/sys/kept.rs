//! Descriptors that stay open while other threads may fork: a child must not
//! inherit them, since it would keep files open, and their locks, for its whole life.
//! The fork handlers close them in the child; a child made without these keeps them.

use core::marker::PhantomData;
use core::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use super::{Fd, thread_identity};

/// How many there can be at a time.
const ROOM: usize = 96;

struct KeptSlot {
    number: AtomicI32,
    /// The thread that has it open, by what [`thread_identity`] says.
    thread: AtomicUsize,
}

const FREE: i32 = -1;
/// Taken, but with no number yet.
const TAKEN: i32 = -2;

static SLOTS: [KeptSlot; ROOM] =
    [const { KeptSlot { number: AtomicI32::new(FREE), thread: AtomicUsize::new(0) } }; ROOM];

/// A descriptor that a child does not inherit, until this is dropped: before the
/// descriptor is closed, so that nobody's else is closed instead.
pub struct KeptFromChildren<'a> {
    place: usize,
    file: PhantomData<&'a Fd>,
}

impl<'a> KeptFromChildren<'a> {
    /// Keeps `file` from children; `None` if too many are kept already.
    pub fn new(file: &'a Fd) -> Option<Self> {
        let take =
            |place: &KeptSlot| place.number.compare_exchange(FREE, TAKEN, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        let index = SLOTS.iter().position(take)?;
        let place = SLOTS.get(index)?;
        place.thread.store(thread_identity(), Ordering::Relaxed);
        place.number.store(file.raw(), Ordering::Release);
        Some(Self { place: index, file: PhantomData })
    }
}

impl KeptFromChildren<'_> {
    /// Where it is noted, for [`stop_keeping`].
    pub fn into_place(self) -> usize {
        let place = self.place;
        core::mem::forget(self);
        place
    }
}

impl Drop for KeptFromChildren<'_> {
    fn drop(&mut self) {
        stop_keeping(self.place);
    }
}

/// From here on children inherit what was noted at this place.
pub fn stop_keeping(place: usize) {
    if let Some(place) = SLOTS.get(place) {
        place.number.store(FREE, Ordering::Relaxed);
    }
}

/// In a child of fork: closes what the parent's other threads had open.
pub fn close_kept() {
    for place in &SLOTS {
        let number = place.number.load(Ordering::Acquire);
        // A handler that forks may have interrupted this thread at its work.
        // One that was being taken has no descriptor yet, and its thread is not here.
        if number == TAKEN {
            place.number.store(FREE, Ordering::Relaxed);
        }
        if number < 0 || place.thread.load(Ordering::Relaxed) == thread_identity() {
            continue;
        }
        place.number.store(FREE, Ordering::Relaxed);
        drop(Fd::from_raw(number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys;

    #[test]
    #[cfg_attr(miri, ignore = "makes files")]
    fn only_what_other_threads_keep_is_closed() {
        let (own, others) = (sys::memfd_create(c"own").unwrap(), sys::memfd_create(c"others").unwrap());
        let kept = KeptFromChildren::new(&own).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| core::mem::forget(KeptFromChildren::new(&others)));
        });
        close_kept();
        assert!(sys::fstat(own.raw()).is_ok() && sys::fstat(others.raw()).is_err());
        drop(kept);
        core::mem::forget(others);
    }
}

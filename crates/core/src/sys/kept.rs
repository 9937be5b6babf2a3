//! Descriptors that stay open while other threads may fork. A child must not inherit them,
//! because it would keep the files open, and the locks on them, for its whole life. The fork
//! handlers close them in the child; a child that is made without fork handlers keeps them.

use core::marker::PhantomData;
use core::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use super::{Fd, thread_identity};

/// The number of descriptors that can be kept at a time.
const ROOM: usize = 96;

struct KeptSlot {
    /// The number of the descriptor, plus 1.
    number: AtomicI32,
    /// The thread that has it open, as its [`thread_identity`].
    thread: AtomicUsize,
}

const FREE: i32 = 0;
/// The slot is taken and has no number yet.
const TAKEN: i32 = -1;

static SLOTS: [KeptSlot; ROOM] =
    [const { KeptSlot { number: AtomicI32::new(FREE), thread: AtomicUsize::new(0) } }; ROOM];

/// A descriptor that a child does not inherit until this value is dropped. It must be dropped
/// before the descriptor is closed: afterwards the number can be that of another file.
pub struct KeptFromChildren<'a> {
    place: usize,
    file: PhantomData<&'a Fd>,
}

impl<'a> KeptFromChildren<'a> {
    /// Keeps `file` from children; `None` if too many are kept already.
    pub fn new(file: &'a Fd) -> Option<Self> {
        let take =
            |place: &KeptSlot| place.number.compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed).is_ok();
        let index = SLOTS.iter().position(take)?;
        let place = SLOTS.get(index)?;
        // The exchange has acquired what `stop_keeping` releases: this thread's identity stays
        // behind that of the thread which had the slot before.
        place.thread.store(thread_identity(), Ordering::Relaxed);
        place.number.store(file.raw() + 1, Ordering::Release);
        Some(Self { place: index, file: PhantomData })
    }
}

impl KeptFromChildren<'_> {
    /// Returns the number of the slot, for [`stop_keeping`].
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

/// Frees a slot: from now on children inherit its descriptor.
pub fn stop_keeping(place: usize) {
    if let Some(place) = SLOTS.get(place) {
        place.number.store(FREE, Ordering::Release);
    }
}

/// Closes, in a child of fork, the descriptors that the parent's other threads had open.
pub fn close_kept() {
    for place in &SLOTS {
        let number = place.number.load(Ordering::Acquire);
        // A signal handler that forks may have interrupted this thread, whose descriptors stay
        // open. A slot that was being taken has no descriptor yet, and its thread does not
        // exist in the child.
        if number == TAKEN {
            place.number.store(FREE, Ordering::Relaxed);
        }
        if number <= 0 || place.thread.load(Ordering::Relaxed) == thread_identity() {
            continue;
        }
        place.number.store(FREE, Ordering::Relaxed);
        drop(Fd::from_raw(number - 1));
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

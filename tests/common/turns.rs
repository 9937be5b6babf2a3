//! Turns for trials that keep a processor busy. Where more trials run at a time than there are processors, so that
//! those which wait do not keep the others waiting, these would exceed their time limits together.

use std::sync::{Condvar, Mutex, PoisonError};

use super::at_once::processors;

/// Hands out as many turns at a time as there are processors.
pub struct Turns {
    taken: Mutex<usize>,
    is_over: Condvar,
}

/// A turn, which is over when this is dropped.
pub struct Turn<'a>(&'a Turns);

impl Turns {
    pub const fn new() -> Self {
        Self { taken: Mutex::new(0), is_over: Condvar::new() }
    }

    /// Waits for a turn.
    pub fn take(&self) -> Turn<'_> {
        let processors = processors();
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = |taken: &mut usize| *taken >= processors;
        *self.is_over.wait_while(taken, is_full).unwrap_or_else(PoisonError::into_inner) += 1;
        Turn(self)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.taken.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.is_over.notify_one();
    }
}

/// Spreads the items of one list evenly among those of another one, in which they keep their order.
pub fn spread<T>(items: Vec<T>, among: Vec<T>) -> Vec<T> {
    let (count, others) = (items.len(), among.len());
    let mut all = Vec::with_capacity(count + others);
    let mut items = items.into_iter();
    for (index, other) in among.into_iter().enumerate() {
        let due = count * index / others;
        all.extend(items.by_ref().take(due - count * index.saturating_sub(1) / others));
        all.push(other);
    }
    all.extend(items);
    all
}

//! Records the processes that wait in the open of a file for the guard's answer, and the process that is being
//! pinned. A thread that waits in the kernel cannot be stopped, so no process waits and is pinned at the same time.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The state that the thread which answers and the one which pins share. The lock is held for some
/// assignments only, never during a system call.
#[derive(Debug, Default)]
pub struct Openers(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The number of threads of each process that wait.
    waiting: HashMap<u32, usize>,
    /// The process that is being pinned.
    pinned: Option<u32>,
    /// Since when the thread that pins has been at the same work.
    busy: Option<Instant>,
}

impl Openers {
    /// Notes that a thread of a process waits. Returns false if it must not, because the process is
    /// being pinned.
    pub fn wait(&self, process: u32) -> bool {
        let mut state = self.state();
        if state.pinned == Some(process) {
            return false;
        }
        *state.waiting.entry(process).or_default() += 1;
        true
    }

    /// Notes that a thread of a process waits no more.
    pub fn go_on(&self, process: u32) {
        let mut state = self.state();
        if let Some(count) = state.waiting.get_mut(&process) {
            *count -= 1;
            if *count == 0 {
                state.waiting.remove(&process);
            }
        }
    }

    /// Notes that a process is being pinned. Returns false if it must not be, because a thread of it
    /// waits.
    pub fn begin_pin(&self, process: u32) -> bool {
        let mut state = self.state();
        let is_free = !state.waiting.contains_key(&process);
        state.pinned = is_free.then_some(process);
        // Each process is work of its own.
        state.busy = state.busy.map(|_| Instant::now());
        is_free
    }

    /// Notes that no process is being pinned.
    pub fn end_pin(&self) {
        self.state().pinned = None;
    }

    /// Notes whether the thread that pins begins to work, or has completed that.
    pub fn note_work(&self, begins: bool) {
        self.state().busy = begins.then(Instant::now);
    }

    /// Returns whether the thread that pins has been at the same work for longer than that.
    pub fn is_stuck(&self, time: Duration) -> bool {
        self.state().busy.is_some_and(|since| since.elapsed() > time)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_does_not_wait_while_it_is_pinned() {
        let openers = Openers::default();
        assert!(openers.wait(7) && openers.wait(7) && !openers.begin_pin(7) && openers.begin_pin(8));
        assert!(!openers.wait(8) && openers.wait(9));
        openers.end_pin();
        assert!(openers.wait(8) && !openers.begin_pin(8));
        openers.go_on(7);
        assert!(!openers.begin_pin(7), "its other thread waits");
        openers.go_on(7);
        assert!(openers.begin_pin(7));
    }

    #[test]
    fn work_that_takes_too_long_is_noticed() {
        let openers = Openers::default();
        assert!(!openers.is_stuck(Duration::ZERO));
        openers.note_work(true);
        std::thread::sleep(Duration::from_millis(2));
        assert!(openers.is_stuck(Duration::from_millis(1)) && !openers.is_stuck(Duration::from_secs(60)));
        openers.note_work(false);
        assert!(!openers.is_stuck(Duration::ZERO));
    }
}

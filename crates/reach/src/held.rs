//! The tasks that this process holds: those of a process that is being stopped, and those that could
//! not be released afterwards, parents that wait for a child of vfork(2) and tasks that did not stop
//! in time. The watchdog knows since when they are held.

use std::thread;
use std::time::{Duration, Instant};

use crate::ptrace;
use crate::task::Task;
use crate::watchdog::Watchdog;

/// The longest time for which tasks are waited for that did not stop, and how often they are looked at.
const RESPITE: Duration = Duration::from_millis(500);
const INTERVAL: Duration = Duration::from_millis(2);

/// Tasks that could not be released yet.
pub struct HeldTasks {
    tasks: Vec<Task>,
    /// `None` if there is no memory for a thread.
    watchdog: Option<Watchdog>,
}

impl HeldTasks {
    /// Makes a value without tasks, and starts the watchdog.
    pub fn new() -> Self {
        Self { tasks: Vec::new(), watchdog: Watchdog::start().ok() }
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Releases those that can be.
    pub fn release(&mut self) {
        self.tasks.retain(|task| !task.release());
        self.note();
    }

    /// Waits for a while until those come back that could not be stopped. Then the next attempt does not
    /// meet them where they were. Their process runs meanwhile.
    pub fn wait(&mut self) {
        let end = Instant::now() + RESPITE;
        self.release();
        while !self.tasks.iter().all(Task::waits_for_child) && Instant::now() < end && !ptrace::is_interrupted() {
            thread::sleep(INTERVAL);
            self.release();
        }
    }

    /// Notes that a process is about to be stopped, and returns those of its tasks that are here.
    pub fn begin_stop(&mut self, process: u32) -> Vec<Task> {
        self.release();
        self.watchdog.iter().for_each(|watchdog| watchdog.note_held(true));
        self.tasks.extract_if(.., |task| task.process == process).collect()
    }

    /// Takes the tasks that could not be released at the end of a stop.
    pub fn end_stop(&mut self, left: Vec<Task>) {
        self.tasks.extend(left);
        self.note();
    }

    /// Notes that a process is being pinned, or is no longer.
    pub fn note_pinning(&self, is_pinning: bool) {
        self.watchdog.iter().for_each(|watchdog| watchdog.note_pinning(is_pinning));
    }

    fn note(&self) {
        self.watchdog.iter().for_each(|watchdog| watchdog.note_held(!self.tasks.is_empty()));
    }
}

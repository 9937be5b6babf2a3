//! The thread that reads the kernel's events. It finds the writer's name first, because the writer may end
//! at any moment, and leaves everything else to the main thread.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::eventfd::EventFd;

use super::events::{EventSource, FileChange, FileEvent};
use super::guard::report::GuardReport;
use super::index::Index;
use super::rewrites::{Beginning, Rewrites};
use super::scan;
use super::writer::Writers;

/// The reader rests for these times after many events, and after a few that follow others: meanwhile the kernel
/// merges the events of one writer and one file. It does not rest after the first events for a while, so that it
/// names the next writer, too, before that ends.
const REST_AFTER_MANY: Duration = Duration::from_millis(10);
const REST: Duration = Duration::from_millis(2);
const WHILE: Duration = Duration::from_millis(20);

/// The most reports of the guard that wait for the main thread. Others are left out.
const MOST_REPORTS: usize = 4096;

/// The highest priority of a thread that is not real-time.
const PRIORITY: i32 = -20;

/// The state that the reader and the main thread share.
pub struct Shared {
    /// The mapped objects, and the processes that map them.
    pub index: Arc<Mutex<Index>>,
    /// Wakes the main thread.
    pub news: EventFd,
    rewrites: Mutex<Rewrites>,
    reports: Mutex<Vec<GuardReport>>,
    failure: Mutex<Option<io::Error>>,
}

impl Shared {
    /// Makes them.
    pub fn new(index: Arc<Mutex<Index>>, news: EventFd) -> Self {
        Self { index, news, rewrites: Mutex::default(), reports: Mutex::default(), failure: Mutex::default() }
    }

    /// Locks the rewritings. A thread that panics ends the command, so no lock is poisoned.
    pub fn rewrites(&self) -> MutexGuard<'_, Rewrites> {
        self.rewrites.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a report of the process that guards. It reports at most so fast as opens go on.
    pub fn note_report(&self, report: GuardReport) {
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        // The end of the guard is the last one, and ends the command.
        if reports.len() < MOST_REPORTS || matches!(report, GuardReport::GuardEnded { .. }) {
            reports.push(report);
        }
    }

    /// Returns the reports since the last time.
    pub fn take_reports(&self) -> Vec<GuardReport> {
        std::mem::take(&mut *self.reports.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns why no more events can be read.
    pub fn take_failure(&self) -> Option<io::Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Wakes the main thread.
    pub fn wake(&self) {
        // It can fail only if the main thread has not looked for 2^64 times.
        let _ = self.news.write(1);
    }
}

/// Starts the thread.
pub fn start(source: EventSource, shared: Arc<Shared>) {
    thread::spawn(move || {
        // For the calling thread alone (setpriority(2), "C library/kernel differences"): on a busy machine a short
        // writer has ended before it is named. Without the right to do so it goes on as it is.
        let _ = rustix::process::setpriority_process(None, PRIORITY);
        let error = read_all(&source, &shared);
        *shared.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        shared.wake();
    });
}

fn read_all(source: &EventSource, shared: &Shared) -> io::Error {
    let (mut events, mut writers) = (Vec::new(), Writers::default());
    let mut last: Option<Instant> = None;
    loop {
        let is_much = match source.read(&mut events) {
            Ok(is_much) => is_much,
            Err(error) => return error,
        };
        let now = Instant::now();
        let mut is_news = false;
        for event in events.drain(..) {
            is_news |= match event {
                FileEvent::Changed(change) => {
                    shared.rewrites().note(&change, now, || begin(&change, &mut writers, shared, now))
                }
                FileEvent::Overflow => {
                    shared.rewrites().note_overflow();
                    true
                }
            };
        }
        if is_news {
            shared.wake();
        }
        if is_much {
            thread::sleep(REST_AFTER_MANY);
        } else if last.is_some_and(|last| now.duration_since(last) < WHILE) {
            thread::sleep(REST);
        }
        last = Some(now);
    }
}

fn begin(change: &FileChange, writers: &mut Writers, shared: &Shared, now: Instant) -> Option<Beginning> {
    let (id, path, mappers) = {
        let index = scan::lock(&shared.index);
        let object = index.object(change.inode)?;
        (object.id, object.path.clone(), index.mappers(change.inode))
    };
    (!mappers.is_empty()).then(|| Beginning { id, path, writer: writers.find(change.writer, now), mappers })
}

//! Prints lines in a thread of its own, so that no other thread waits for an output that is not read. The lines
//! that wait to be printed take bounded memory. Lines beyond the bound are left out and counted, and a later line
//! reports their number.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes that may wait.
const MOST_BYTES: usize = 4 << 20;
/// The longest time for which the end of the command waits for the output.
const PATIENCE: Duration = Duration::from_secs(1);

/// Accepts lines.
#[derive(Clone)]
pub struct Printer {
    lines: Sender<String>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    waiting: AtomicUsize,
    dropped: AtomicU64,
    dropped_in_all: AtomicU64,
    failure: Mutex<Option<io::Error>>,
}

impl Printer {
    /// Starts the thread, which prints by `write`. `lost` makes the line that says how many are missing;
    /// `fail` is called when the output cannot be written to.
    pub fn start(
        mut write: impl FnMut(&str) -> io::Result<()> + Send + 'static,
        lost: impl Fn(u64) -> String + Send + 'static,
        fail: impl FnOnce() + Send + 'static,
    ) -> Self {
        let (sender, lines) = mpsc::channel();
        let state = Arc::new(State::default());
        let of_thread = Arc::clone(&state);
        thread::spawn(move || {
            if let Err(error) = print_all(&lines, &of_thread, &mut write, lost) {
                *of_thread.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                fail();
            }
        });
        Self { lines: sender, state }
    }

    /// Prints a line, soon. Never waits.
    pub fn say(&self, mut line: String) {
        line.push('\n');
        let len = line.len();
        if self.state.waiting.fetch_add(len, Ordering::Relaxed) > MOST_BYTES || self.lines.send(line).is_err() {
            self.state.waiting.fetch_sub(len, Ordering::Relaxed);
            self.state.dropped.fetch_add(1, Ordering::Relaxed);
            self.state.dropped_in_all.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the number of lines that were not printed.
    pub fn dropped(&self) -> u64 {
        self.state.dropped_in_all.load(Ordering::Relaxed)
    }

    /// Returns why the output could not be written to.
    pub fn take_failure(&self) -> Option<io::Error> {
        self.state.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Waits until everything is printed, or the output is not read for a while.
    pub fn finish(&self) {
        let begun = Instant::now();
        while self.state.waiting.load(Ordering::Relaxed) != 0 && begun.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn print_all(
    lines: &Receiver<String>,
    state: &State,
    write: &mut impl FnMut(&str) -> io::Result<()>,
    lost: impl Fn(u64) -> String,
) -> io::Result<()> {
    while let Ok(line) = lines.recv() {
        let printed = match state.dropped.swap(0, Ordering::Relaxed) {
            0 => Ok(()),
            count => write(&format!("{}\n", lost(count))),
        };
        let printed = printed.and_then(|()| write(&line));
        state.waiting.fetch_sub(line.len(), Ordering::Relaxed);
        printed?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_that_is_not_read_costs_no_more_than_the_bound() {
        let (sender, lines) = mpsc::channel();
        let (gate, open) = mpsc::channel::<()>();
        let write = move |line: &str| {
            // It waits until the gate is opened, and then never again.
            let _ = open.recv();
            sender.send(line.to_owned()).map_err(io::Error::other)
        };
        let printer = Printer::start(write, |count| format!("{count} are missing"), || ());
        let line = "x".repeat(1 << 16);
        let all = 3 * MOST_BYTES / line.len();
        let begun = Instant::now();
        for _ in 0..all {
            printer.say(line.clone());
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "it does not wait");
        assert!(printer.state.waiting.load(Ordering::Relaxed) <= MOST_BYTES + 2 * line.len());
        let dropped = printer.dropped();
        assert!(dropped >= all as u64 / 2, "{dropped}");
        drop(gate);
        printer.finish();
        printer.say("last".to_owned());
        printer.finish();
        let lines: Vec<String> = lines.try_iter().collect();
        assert_eq!(lines.len() as u64 + dropped, all as u64 + 2);
        assert!(lines.contains(&format!("{dropped} are missing\n")), "the next line that is printed says so");
        assert_eq!(lines.last().map(String::as_str), Some("last\n"));
    }

    #[test]
    fn a_failure_of_the_output_is_noticed() {
        let (sender, failed) = mpsc::channel();
        let fail = move || sender.send(()).unwrap();
        let printer = Printer::start(|_: &str| Err(io::ErrorKind::StorageFull.into()), |_| String::new(), fail);
        printer.say("x".to_owned());
        failed.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(printer.take_failure().map(|error| error.kind()), Some(io::ErrorKind::StorageFull));
    }
}

//! `--exec`: executes a program for each line, which it reads as JSON from its standard input. No
//! shell is involved, and nothing of the line is an argument, so no name in it can become code.
//!
//! A bounded number of programs runs at a time, each waited for by a thread of its own; a bounded
//! number of lines waits for them, and further lines are only counted.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{slice, thread};

use nix::libc;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::SigSet;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::fs::MemfdFlags;

use super::answer::{News, WatchLine};
use crate::exit::{Exit, Failure};
use crate::invocation::Invocation;
use crate::output;

/// The most programs that run at a time.
const AT_A_TIME: usize = 4;
/// The most lines that wait for a program.
const WAITING: usize = 64;
/// The longest time for which the end of the command waits until the last programs are started.
const PATIENCE: Duration = Duration::from_secs(2);

/// Gives alerts.
pub struct Alerts {
    lines: SyncSender<WatchLine>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    waiting: AtomicU64,
    started: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

/// The numbers of alerts since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlertCounts {
    /// The program was started.
    pub started: u64,
    /// It could not be started, or did not end successfully.
    pub failed: u64,
    /// It was not started, because too many had not ended.
    pub dropped: u64,
}

impl Alerts {
    /// Starts the threads.
    pub fn start(program: &OsStr) -> Self {
        let (sender, lines) = sync_channel(WAITING);
        let (lines, counts) = (Arc::new(Mutex::new(lines)), Arc::new(Counts::default()));
        for _ in 0..AT_A_TIME {
            let (program, lines, counts) = (program.to_owned(), Arc::clone(&lines), Arc::clone(&counts));
            thread::spawn(move || give_all(&program, &lines, &counts));
        }
        Self { lines: sender, counts }
    }

    /// Has the program executed for a line, soon. Never waits.
    pub fn give(&self, line: &WatchLine) {
        self.counts.waiting.fetch_add(1, Ordering::Relaxed);
        if self.lines.try_send(line.clone()).is_err() {
            self.counts.waiting.fetch_sub(1, Ordering::Relaxed);
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the numbers of alerts.
    pub fn counts(&self) -> AlertCounts {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counts { started, failed, dropped, .. } = &*self.counts;
        AlertCounts { started: of(started), failed: of(failed), dropped: of(dropped) }
    }

    /// Waits until a program was started for each line, for a while at most.
    pub fn finish(&self) {
        let begun = Instant::now();
        while self.counts.waiting.load(Ordering::Relaxed) != 0 && begun.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn give_all(program: &OsString, lines: &Mutex<Receiver<WatchLine>>, counts: &Counts) {
    loop {
        // The lock is released before the program is started.
        let line = lines.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(line) = line else { return };
        let child = start(program, &line);
        counts.waiting.fetch_sub(1, Ordering::Relaxed);
        let is_success = match child {
            Ok(child) => {
                counts.started.fetch_add(1, Ordering::Relaxed);
                matches!(waitpid(child, None), Ok(WaitStatus::Exited(_, 0)))
            }
            Err(failure) => {
                output::warn(failure.thing, failure.reason);
                false
            }
        };
        if !is_success {
            counts.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Starts the program for a line. Its output goes to stderr, because stdout has the lines. It gets no
/// signals blocked, which the standard library would pass on.
fn start(program: &OsString, line: &WatchLine) -> Result<Pid, Failure> {
    let failure = |what: &str, error: &dyn std::error::Error| Failure::new(Exit::Failed, what, error);
    let input = input(line).map_err(|error| failure("memfd", &error))?;
    let (descriptors, attributes) = surroundings(&input).map_err(|errno| failure("posix_spawn", &errno))?;
    let variables = variables(line);
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value)).collect();
    let invocation = Invocation::new(slice::from_ref(program), &variables)?;
    invocation.start(|file, words, environment| posix_spawn(file, &descriptors, &attributes, words, environment))
}

/// Makes the program's standard input: a file, and no pipe, because the program need not read it.
fn input(line: &WatchLine) -> io::Result<File> {
    let mut input = File::from(rustix::fs::memfd_create("sopin-watch", MemfdFlags::CLOEXEC)?);
    writeln!(input, "{}", line.json())?;
    input.rewind()?;
    Ok(input)
}

fn surroundings(input: &File) -> nix::Result<(PosixSpawnFileActions, PosixSpawnAttr)> {
    let mut descriptors = PosixSpawnFileActions::init()?;
    descriptors.add_dup2(input.as_raw_fd(), libc::STDIN_FILENO)?;
    descriptors.add_dup2(libc::STDERR_FILENO, libc::STDOUT_FILENO)?;
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK)?;
    attributes.set_sigmask(&SigSet::empty())?;
    Ok((descriptors, attributes))
}

/// Returns variables that say what has happened.
fn variables(line: &WatchLine) -> Vec<(&'static str, OsString)> {
    match &line.news {
        News::Rewrite(answer) => vec![
            ("SOPIN_EVENT", "rewrite".into()),
            ("SOPIN_EVENT_FILE", answer.file.clone().into()),
            ("SOPIN_EVENT_DAMAGED", answer.damaged.to_string().into()),
            ("SOPIN_EVENT_ENDED", answer.ended.to_string().into()),
        ],
        News::Lost(_) => vec![("SOPIN_EVENT", "lost".into())],
        News::Open(answer) => {
            vec![("SOPIN_EVENT", "open".into()), ("SOPIN_EVENT_FILE", answer.file.clone().into())]
        }
        News::WentOn(answer) => {
            vec![("SOPIN_EVENT", "went-on".into()), ("SOPIN_EVENT_FILE", answer.file.clone().into())]
        }
        News::Guard(_) => vec![("SOPIN_EVENT", "guard".into())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn wait_for(mut condition: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !condition() {
            assert!(begun.elapsed() < Duration::from_secs(20));
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn the_number_of_alerts_is_bounded_and_giving_one_does_not_wait() {
        let directory = tempfile::tempdir().unwrap();
        let (script, gate) = (directory.path().join("alert"), directory.path().join("gate"));
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &gate,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        // Each waits until the pipe is opened for writing.
        let text = format!("#!/bin/sh\nread -r line < '{}'\ntest \"$SOPIN_EVENT\" = lost\n", gate.display());
        // Written by another process, which no other test's child inherits a descriptor from.
        let mut install = Command::new("install");
        let mut child = install.args(["-m", "755", "/dev/stdin"]).arg(&script).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
        let alerts = Alerts::start(script.as_os_str());
        let (begun, all) = (Instant::now(), 10 * (AT_A_TIME + WAITING));
        for _ in 0..all {
            alerts.give(&WatchLine::lost("output", Some(1)));
        }
        assert!(begun.elapsed() < Duration::from_secs(5));
        wait_for(|| alerts.counts().started == AT_A_TIME as u64);
        let AlertCounts { dropped, failed, .. } = alerts.counts();
        assert!(dropped >= (all - AT_A_TIME - WAITING) as u64, "{dropped}");
        assert_eq!(failed, 0);
        // Opened for reading as well, it is open for all that follow.
        let mut gate = std::fs::OpenOptions::new().read(true).write(true).open(&gate).unwrap();
        gate.write_all(&b"x\n".repeat(all)).unwrap();
        wait_for(|| alerts.counts().started + dropped == all as u64);
        assert_eq!(alerts.counts().failed, 0);
    }

    #[test]
    fn a_program_that_cannot_be_started_is_a_failure() {
        let alerts = Alerts::start("/no/such/program".as_ref());
        alerts.give(&WatchLine::lost("output", Some(1)));
        wait_for(|| alerts.counts().failed == 1);
        assert_eq!(alerts.counts(), AlertCounts { started: 0, failed: 1, dropped: 0 });
    }
}

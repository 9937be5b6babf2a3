//! Child processes of `sopin doctor`. Each ends within a bound, and what it prints is kept.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::trial::NOT_FOR_A_TRIAL;

/// How long a child may take. On a machine that is busy, starting one takes a second.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks whether it has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// The most bytes of an output that are kept, and that are read at a time.
const MOST_KEPT: usize = 1 << 20;
const AT_A_TIME: usize = 1 << 16;
/// How the reason begins why a child was not started.
const UNSTARTED: &str = "it could not be started: ";
/// The signal for a system call that a filter refuses (`seccomp(2)`), on x86-64 and aarch64.
const SIGSYS: i32 = 31;

/// A child that has ended.
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Ended {
    /// Returns whether a seccomp filter has killed it.
    pub fn was_filtered(&self) -> bool {
        self.status.signal() == Some(SIGSYS)
    }

    /// Returns how it ended, in words.
    pub fn fate(&self) -> String {
        match self.status.signal() {
            Some(SIGSYS) => "a seccomp filter has killed it".to_owned(),
            Some(signal) => format!("signal {signal} has ended it"),
            None => format!("it ended with status {}", self.status.code().unwrap_or(-1)),
        }
    }
}

/// Returns this command, to be started again. The child is not preloaded: a broken `LD_PRELOAD` is
/// a subject of its own.
pub fn own_command() -> Command {
    let mut command = Command::new("/proc/self/exe");
    // A command that is dynamic has a loader that these variables make print.
    for variable in NOT_FOR_A_TRIAL.iter().chain(&["LD_PRELOAD"]) {
        command.env_remove(variable);
    }
    command
}

/// Waits until a child has printed something. By then its loader has done its work.
///
/// # Errors
/// When the child has printed nothing, in time or at all.
pub fn await_output(child: &mut Child) -> Result<(), String> {
    let began = Instant::now();
    let stdout = child.stdout.take();
    let mut stdout = Output::of(stdout).map_err(|error| format!("its output could not be read: {error}"))?;
    while stdout.kept.is_empty() {
        if child.try_wait().is_ok_and(|ended| ended.is_some()) || began.elapsed() > PATIENCE {
            return Err("it has printed nothing".to_owned());
        }
        thread::sleep(LOOK_AGAIN);
        stdout.read();
    }
    child.stdout = stdout.stream;
    Ok(())
}

/// Returns what to do when a child could not be run for this reason; empty if the reason makes that
/// clear.
pub fn remedy(reason: &str) -> &'static str {
    if reason.contains(UNSTARTED) {
        "permit more processes and open files (ulimit -u, ulimit -n), and run sopin doctor again"
    } else {
        ""
    }
}

/// Runs a command to its end. It keeps what the command prints, up to a bound, and does not wait for
/// processes that the command leaves behind with its output.
///
/// # Errors
/// When the command cannot be started, or does not end.
pub fn run(command: &mut Command) -> Result<Ended, String> {
    let began = Instant::now();
    // A minimal root directory has no /dev/null.
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| format!("{UNSTARTED}{error}"))?;
    drop(child.stdin.take());
    let ended = wait(&mut child, began);
    if ended.is_err() {
        end(&mut child);
    }
    ended
}

fn wait(child: &mut Child, began: Instant) -> Result<Ended, String> {
    let unread = |error: io::Error| format!("its output could not be read: {error}");
    let mut stdout = Output::of(child.stdout.take()).map_err(unread)?;
    let mut stderr = Output::of(child.stderr.take()).map_err(unread)?;
    loop {
        let ended = child.try_wait().map_err(|error| format!("it could not be waited for: {error}"))?;
        stdout.read();
        stderr.read();
        match ended {
            Some(status) => {
                return Ok(Ended { status, stdout: stdout.text(), stderr: stderr.text(), took: began.elapsed() });
            }
            None if began.elapsed() < PATIENCE => thread::sleep(LOOK_AGAIN),
            None => return Err(format!("it did not end within {} s", PATIENCE.as_secs())),
        }
    }
}

/// Kills a child and waits for it. It may have ended already, which is no error.
pub fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// An output of a child.
struct Output<T> {
    stream: Option<T>,
    kept: Vec<u8>,
}

impl<T: Read + AsFd> Output<T> {
    /// Makes the stream one that is read without waiting.
    fn of(stream: Option<T>) -> io::Result<Self> {
        if let Some(stream) = &stream {
            fcntl_setfl(stream, fcntl_getfl(stream)? | OFlags::NONBLOCK)?;
        }
        Ok(Self { stream, kept: Vec::new() })
    }

    /// Reads what is there. What the child prints beyond the bound is read and dropped, so that the
    /// child does not wait for a reader.
    fn read(&mut self) {
        let Some(stream) = &mut self.stream else { return };
        let room = MOST_KEPT.saturating_sub(self.kept.len());
        let mut block = Vec::new();
        // A pipe without content answers EAGAIN after what was read.
        let _ = stream.take(AT_A_TIME as u64).read_to_end(&mut block);
        block.truncate(room);
        self.kept.append(&mut block);
    }

    fn text(self) -> String {
        String::from_utf8_lossy(&self.kept).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_child_is_told_in_words() {
        let shell = |script: &str| run(Command::new("/bin/sh").args(["-c", script])).unwrap();
        let ended = shell("echo one; echo two >&2; exit 3");
        assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("one\n", "two\n"));
        assert_eq!(ended.fate(), "it ended with status 3");
        assert_eq!(shell("kill -9 $$").fate(), "signal 9 has ended it");
        assert_eq!(shell("kill -31 $$").fate(), "a seccomp filter has killed it");
        let reason = run(&mut Command::new("/nonexistent")).err().unwrap();
        assert!(remedy(&reason).starts_with("permit more processes") && remedy("it did not end").is_empty());
    }

    #[test]
    fn what_a_child_prints_first_is_awaited() {
        let start = |script| Command::new("/bin/sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let (began, mut late) = (Instant::now(), start("sleep 0.2; echo ready"));
        assert_eq!(await_output(&mut late), Ok(()));
        assert!(began.elapsed() >= Duration::from_millis(200));
        let mut silent = start("exit 0");
        assert!(await_output(&mut silent).is_err());
        end(&mut late);
    }

    #[test]
    fn more_than_a_pipe_holds_is_read_and_what_stays_is_not_awaited() {
        let ended = run(Command::new("/bin/sh").args(["-c", "seq 30000; seq 200000 >&2; sleep 5 & exit 0"])).unwrap();
        assert!(ended.status.success() && ended.stdout.ends_with("\n30000\n"));
        assert_eq!(ended.stderr.len(), MOST_KEPT);
        assert!(ended.took < Duration::from_secs(5));
    }
}

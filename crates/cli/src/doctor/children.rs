//! Child processes of `sopin doctor`. Each ends within a bound, and what it prints is kept.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a child may take. On a machine that is busy, starting one takes a second.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks whether it has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
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
    command.env_remove("LD_PRELOAD");
    command
}

/// Runs a command to its end. What it prints must fit into the buffers of pipes.
///
/// # Errors
/// Why it could not be started, or that it did not end.
pub fn run(command: &mut Command) -> Result<Ended, String> {
    let began = Instant::now();
    // A minimal root directory has no /dev/null.
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| format!("it could not be started: {error}"))?;
    drop(child.stdin.take());
    loop {
        match child.try_wait() {
            Ok(Some(status)) => {
                let stdout = text(child.stdout.take());
                return Ok(Ended { status, stdout, stderr: text(child.stderr.take()), took: began.elapsed() });
            }
            Ok(None) if began.elapsed() < PATIENCE => thread::sleep(LOOK_AGAIN),
            Ok(None) => {
                end(&mut child);
                return Err(format!("it did not end within {} s", PATIENCE.as_secs()));
            }
            Err(error) => {
                end(&mut child);
                return Err(format!("it could not be waited for: {error}"));
            }
        }
    }
}

/// Kills a child and waits for it. It may have ended already, which is no error.
pub fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn text(stream: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    // What could be read is used.
    let _ = stream.map(|mut stream| stream.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
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
        assert!(run(&mut Command::new("/nonexistent")).is_err());
    }
}

//! A dialogue with a running program: it prints a line when it has reached a state, and
//! the test then changes its files and writes the next word to its standard input.
//! Neither side sleeps and hopes.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::process::{Finished, Outcome, ends_within, spawn};

/// The interval at which a condition is checked again.
const INTERVAL: Duration = Duration::from_millis(5);

/// A running program with its own process group, which is killed when this is
/// dropped. Its output goes to files, as in `process::run`.
pub struct Dialogue {
    child: Child,
    input: Option<ChildStdin>,
    stdout: PathBuf,
    stderr: PathBuf,
    deadline: Instant,
    outcome: Option<Outcome>,
}

impl Dialogue {
    /// Starts `command`, which must end within `timeout`.
    pub fn start(command: &mut Command, log: &Path, timeout: Duration) -> io::Result<Self> {
        let stdout = log.with_extension("stdout");
        let stderr = log.with_extension("stderr");
        command.stdin(Stdio::piped()).stdout(File::create(&stdout)?).stderr(File::create(&stderr)?).process_group(0);
        let mut child = spawn(command)?;
        let input = child.stdin.take();
        Ok(Self { child, input, stdout, stderr, deadline: Instant::now() + timeout, outcome: None })
    }

    /// Returns the process's number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns what it has printed so far.
    pub fn stdout(&self) -> String {
        fs::read_to_string(&self.stdout).unwrap_or_default()
    }

    /// Returns how often it has printed this line.
    pub fn count(&self, line: &str) -> usize {
        self.stdout().lines().filter(|printed| *printed == line).count()
    }

    /// Waits until it has printed this line `times` times.
    ///
    /// # Errors
    /// When it ends, or the deadline passes, before that.
    pub fn wait_for(&mut self, line: &str, times: usize) -> Result<(), String> {
        let seen = self.wait_until(|dialogue| dialogue.count(line) >= times)?;
        if seen { Ok(()) } else { Err(self.describe(&format!("never printed {line:?} {times} times"))) }
    }

    /// Waits until it has printed this text, perhaps as a part of a line.
    ///
    /// # Errors
    /// When it ends, or the deadline passes, before that.
    pub fn wait_for_text(&mut self, text: &str) -> Result<(), String> {
        let seen = self.wait_until(|dialogue| dialogue.stdout().contains(text))?;
        if seen { Ok(()) } else { Err(self.describe(&format!("never printed {text:?}"))) }
    }

    /// Waits until none of its threads has run for a while: all of them are
    /// blocked in a system call.
    ///
    /// # Errors
    /// When it ends, or the deadline passes, before that.
    pub fn wait_until_idle(&mut self) -> Result<(), String> {
        let mut before = None;
        let mut since = Instant::now();
        let idle = self.wait_until(|dialogue| {
            let now = cpu_time_if_asleep(dialogue.id());
            if now.is_none() || now != before {
                before = now;
                since = Instant::now();
            }
            // This is several clock ticks, so that CPU time in use would have shown.
            since.elapsed() >= Duration::from_millis(100)
        })?;
        if idle { Ok(()) } else { Err(self.describe("never became idle")) }
    }

    /// Waits until a condition holds. Returns `false` if the program ended or the
    /// deadline passed before.
    fn wait_until(&mut self, mut condition: impl FnMut(&Self) -> bool) -> Result<bool, String> {
        loop {
            // This comes before the condition, because a program that has ended may
            // have printed.
            let over = self.is_over()? || Instant::now() >= self.deadline;
            if condition(self) {
                return Ok(true);
            }
            if over {
                return Ok(false);
            }
            thread::sleep(INTERVAL);
        }
    }

    /// Returns whether it has ended, or has to because its deadline passed.
    ///
    /// # Errors
    /// Those of waiting.
    pub fn is_over(&mut self) -> Result<bool, String> {
        if self.outcome.is_none() {
            let status = self.child.try_wait().map_err(|error| format!("wait: {error}"))?;
            self.outcome = status.map(Outcome::from);
        }
        Ok(self.outcome.is_some())
    }

    /// Returns whether its deadline has passed.
    pub fn is_late(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Writes a line to its standard input. An error means that the program has ended,
    /// which `finish` reports.
    pub fn say(&mut self, line: &str) {
        if let Some(input) = &mut self.input {
            let _ = writeln!(input, "{line}");
        }
    }

    /// Closes its standard input, waits for its end, and kills it at the deadline.
    ///
    /// # Errors
    /// Those of waiting and of reading its output.
    pub fn finish(mut self) -> Result<Finished, String> {
        drop(self.input.take());
        if !self.is_over()? {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if ends_within(Pid::from_child(&self.child), left).map_err(|error| error.to_string())? {
                self.is_over()?;
            }
        }
        Ok(Finished {
            outcome: self.outcome.unwrap_or(Outcome::TimedOut),
            stdout: self.stdout(),
            stderr: fs::read_to_string(&self.stderr).map_err(|error| error.to_string())?,
        })
    }

    fn describe(&self, wrong: &str) -> String {
        let how = self.outcome.map_or_else(|| "still running".to_owned(), |outcome| format!("ended with {outcome}"));
        let stderr = fs::read_to_string(&self.stderr).unwrap_or_default();
        format!("{wrong}; {how}\n--- stdout\n{}\n--- stderr\n{}", self.stdout().trim_end(), stderr.trim_end())
    }
}

impl Drop for Dialogue {
    fn drop(&mut self) {
        // After a leader was reaped, its group may have members; the kernel keeps the
        // group's number for as long. Otherwise there is no process to kill.
        if self.outcome.is_none() {
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// Returns the clock ticks that the process has used, or `None` if one of its threads
/// is not asleep.
fn cpu_time_if_asleep(process: u32) -> Option<u64> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{process}/task")).ok()? {
        let stat = fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
        // The name in parentheses may contain blanks; the state follows it.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        if fields.next()? != "S" {
            return None;
        }
        // proc(5): utime is field 14, stime 15; the state was field 3.
        let utime: u64 = fields.nth(10)?.parse().ok()?;
        let stime: u64 = fields.next()?.parse().ok()?;
        total += utime + stime;
    }
    Some(total)
}

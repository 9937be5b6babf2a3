//! Runs a program to its end, or to its deadline, and reports how it ended.

use std::env;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, getrlimit, kill_process_group, pidfd_open, setrlimit,
};

/// The signals with which fixtures end, by their numbers on every Linux architecture
/// that is tested. Others are shown as `signal:N`.
const SIGNALS: [(i32, &str); 15] = [
    (1, "SIGHUP"),
    (2, "SIGINT"),
    (3, "SIGQUIT"),
    (4, "SIGILL"),
    (5, "SIGTRAP"),
    (6, "SIGABRT"),
    (7, "SIGBUS"),
    (8, "SIGFPE"),
    (9, "SIGKILL"),
    (11, "SIGSEGV"),
    (13, "SIGPIPE"),
    (14, "SIGALRM"),
    (15, "SIGTERM"),
    (25, "SIGXFSZ"),
    (31, "SIGSYS"),
];

/// The end of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It called `exit` with this status.
    Exit(i32),
    /// This signal ended it.
    Signal(i32),
    /// It was still running at the deadline, and its process group was killed.
    TimedOut,
}

impl From<ExitStatus> for Outcome {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Exit(code),
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => unreachable!("wait returned a process that has not ended"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Exit(code) => write!(f, "exit:{code}"),
            Self::Signal(number) => match SIGNALS.iter().find(|(n, _)| *n == number) {
                Some((_, name)) => f.write_str(name),
                None => write!(f, "signal:{number}"),
            },
            Self::TimedOut => f.write_str("timeout"),
        }
    }
}

impl FromStr for Outcome {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(code) = text.strip_prefix("exit:") {
            return code.parse().map(Self::Exit).map_err(|error| format!("{text:?}: {error}"));
        }
        SIGNALS
            .iter()
            .find(|(_, name)| *name == text)
            .map(|(number, _)| Self::Signal(*number))
            .ok_or_else(|| format!("{text:?} is neither exit:N nor a signal's name"))
    }
}

/// A process that has ended.
#[derive(Debug)]
pub struct Finished {
    pub outcome: Outcome,
    /// The standard output of it and its children.
    pub stdout: String,
    /// The standard error of it and its children.
    pub stderr: String,
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ended with {}", self.outcome)?;
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.is_empty() {
                write!(f, "\n--- {name}\n{}", text.trim_end())?;
            }
        }
        Ok(())
    }
}

/// Forbids core files of this process and its children, because a signal ends most
/// negative controls.
///
/// # Errors
/// Those of setrlimit(2).
pub fn forbid_core_files() -> io::Result<()> {
    let maximum = getrlimit(Resource::Core).maximum;
    let limit = Rlimit { current: Some(0), maximum };
    Ok(setrlimit(Resource::Core, limit)?)
}

/// Runs `command` in a process group of its own until it ends or `timeout` has passed,
/// then kills the rest of the group. Its output goes to files beside `log`
/// (`<log>.stdout`, `<log>.stderr`): unlike a pipe, a file cannot block the program,
/// nor this process when a grandchild keeps it open.
///
/// # Errors
/// When the program cannot be started or waited for.
pub fn run(command: &mut Command, log: &Path, timeout: Duration) -> io::Result<Finished> {
    let stdout = log.with_extension("stdout");
    let stderr = log.with_extension("stderr");
    command.stdin(Stdio::null()).stdout(File::create(&stdout)?).stderr(File::create(&stderr)?).process_group(0);

    let mut child = spawn(command)?;
    let leader = Pid::from_child(&child);
    let ended = ends_within(leader, timeout);
    // The leader is not reaped yet, so its number still names this group. It is no
    // error if the group is empty already.
    let _ = kill_process_group(leader, Signal::KILL);
    let status = child.wait()?;

    let read = |path: &Path| fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned());
    Ok(Finished {
        outcome: if ended? { status.into() } else { Outcome::TimedOut },
        stdout: read(&stdout)?,
        stderr: read(&stderr)?,
    })
}

/// Starts `command`. The kernel may refuse a program that was just written with
/// ETXTBSY: if another thread of this process forked while the file was open for
/// writing, its child has the descriptor until it executes another program.
///
/// # Errors
/// Those of fork and exec.
pub fn spawn(command: &mut Command) -> io::Result<Child> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}

/// Waits until no process has a file open for writing that was just written, for a program that
/// executes it: see [`spawn`]. The kernel gives no lease for reading before.
///
/// # Errors
/// The file cannot be opened.
pub fn wait_for_writers(file: &Path) -> io::Result<()> {
    let file = fs::File::open(file)?;
    let deadline = Instant::now() + Duration::from_secs(5);
    // SAFETY: fcntl with F_SETLEASE uses the numbers only.
    let lease = |kind: libc::c_int| unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) };
    while lease(libc::F_RDLCK) == -1
        && io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock
        && Instant::now() < deadline
    {
        thread::sleep(Duration::from_millis(1));
    }
    lease(libc::F_UNLCK);
    Ok(())
}

/// Returns whether the process ends within `timeout`. It stays unreaped.
///
/// # Errors
/// Those of `pidfd_open(2)` and poll(2).
pub fn ends_within(process: Pid, timeout: Duration) -> io::Result<bool> {
    let descriptor = pidfd_open(process, PidfdFlags::empty())?;
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut waited_for = [PollFd::new(&descriptor, PollFlags::IN)];
        match poll(&mut waited_for, Some(&left)) {
            Ok(ready) => return Ok(ready == 1),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Returns how many times longer than on real processors everything may take:
/// `SOPIN_TEST_PATIENCE`, or 1.
///
/// # Errors
/// It is not a number.
pub fn patience() -> Result<u32, String> {
    env::var("SOPIN_TEST_PATIENCE")
        .map_or(Ok(1), |text| text.parse().map_err(|error| format!("SOPIN_TEST_PATIENCE={text}: {error}")))
}

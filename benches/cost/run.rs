//! Runs a program once and measures what it used.

use std::io::{self, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Runs a program to its end. Returns its standard output.
///
/// # Errors
/// If it cannot be started, or does not exit with 0.
pub fn run(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        String::from_utf8(output.stdout).map_err(|error| format!("{command:?}: {error}"))
    } else {
        Err(format!("{command:?}: {}", output.status))
    }
}

/// Returns the standard output of a program, whatever its exit status, and its user and
/// system time.
///
/// # Errors
/// If it cannot be started, or a signal ends it.
pub fn output_and_cpu(command: &mut Command) -> Result<(String, Duration), String> {
    output_and_usage(command).map(|(output, usage)| (output, usage.cpu))
}

/// Returns the standard output of a program, whatever its exit status, and what it has used.
///
/// # Errors
/// If it cannot be started, or a signal ends it.
pub fn output_and_usage(command: &mut Command) -> Result<(String, Usage), String> {
    let mut run = || {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut output = String::new();
        let read = child.stdout.take().map_or(Ok(0), |mut stdout| stdout.read_to_string(&mut output));
        let (status, usage) = wait(child.id())?;
        match (read, status.code()) {
            (Ok(_), Some(_)) => Ok((output, usage)),
            (Ok(_), None) => Err(io::Error::other(status.to_string())),
            (Err(error), _) => Err(error),
        }
    };
    run().map_err(|error| format!("{command:?}: {error}"))
}

/// Returns the time from before the start of a program to after its end, and the user
/// and system time of the program itself. The program inherits standard input and
/// output, because a pipe would cost as much as the difference that is measured.
///
/// # Errors
/// If it cannot be started, or does not exit with 0.
pub fn start_and_end(command: &mut Command) -> Result<(Duration, Duration), String> {
    let started = Instant::now();
    let waited = command.spawn().and_then(|child| wait(child.id()));
    let took = started.elapsed();
    match waited {
        Ok((status, usage)) if status.success() => Ok((took, usage.cpu)),
        Ok((status, _)) => Err(format!("{command:?}: {status}")),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}

/// The resources that a program has used.
#[derive(Clone, Copy)]
pub struct Usage {
    /// User and system time.
    pub cpu: Duration,
    /// Page faults that needed no disk.
    pub minor_faults: u64,
    /// The most memory that it had at a time (`ru_maxrss`), in MiB.
    pub peak_mib: f64,
}

/// Waits for a child of this process, which `Child::wait` must not have waited for.
fn wait(child: u32) -> io::Result<(ExitStatus, Usage)> {
    let child = libc::pid_t::try_from(child).map_err(io::Error::other)?;
    let mut status = 0;
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: wait4(2) writes an int and a `struct rusage` through these pointers,
    // which are to live variables of these types.
    while unsafe { libc::wait4(child, &raw mut status, 0, usage.as_mut_ptr()) } != child {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // SAFETY: wait4 has succeeded, so it has written all of the structure.
    let usage = unsafe { usage.assume_init() };
    let cpu = duration(usage.ru_utime) + duration(usage.ru_stime);
    #[expect(clippy::cast_precision_loss, reason = "no process has so much")]
    let peak_mib = usage.ru_maxrss as f64 / 1024.0;
    Ok((ExitStatus::from_raw(status), Usage { cpu, minor_faults: usage.ru_minflt.cast_unsigned(), peak_mib }))
}

fn duration(time: libc::timeval) -> Duration {
    Duration::from_secs(time.tv_sec.cast_unsigned()) + Duration::from_micros(time.tv_usec.cast_unsigned())
}

/// A program that does its work, prints a line, and waits for the end of its standard
/// input, so that it can be examined.
pub struct Held {
    child: Child,
    /// The time from before the start to the line.
    pub took: Duration,
}

impl Held {
    /// Starts a program and waits for its line.
    ///
    /// # Errors
    /// If it cannot be started, or ends without the line.
    pub fn start(command: &mut Command) -> Result<Self, String> {
        let started = Instant::now();
        let mut start = || {
            let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
            let mut held = Self { child, took: Duration::ZERO };
            let mut line = [0];
            // The pipe is closed after the line, because there may be hundreds of such
            // programs.
            held.child.stdout.take().map_or(Ok(()), |mut stdout| stdout.read_exact(&mut line))?;
            held.took = started.elapsed();
            Ok(held)
        };
        start().map_err(|error: io::Error| format!("{command:?}: {error}"))
    }

    /// Returns its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it run to its end. Returns its user and system time.
    ///
    /// # Errors
    /// If it does not exit with 0.
    pub fn end(self) -> Result<Duration, String> {
        self.end_with_usage().map(|usage| usage.cpu)
    }

    /// Lets it run to its end. Returns what it has used.
    ///
    /// # Errors
    /// If it does not exit with 0.
    pub fn end_with_usage(mut self) -> Result<Usage, String> {
        drop(self.child.stdin.take());
        let waited = wait(self.child.id());
        // Dropping it would kill its number, which may belong to another process from
        // here on.
        std::mem::forget(self);
        match waited {
            Ok((status, usage)) if status.success() => Ok(usage),
            Ok((status, _)) => Err(format!("a program that was to be measured: {status}")),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // It has not been waited for, so the number is still its own.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

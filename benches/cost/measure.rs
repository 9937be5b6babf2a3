//! Running a program once and knowing what it used; comparing the modes in
//! interleaved rounds, so that whatever else the machine does hits all alike.

use std::env;
use std::io::{self, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How a program is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Without the library.
    Native,
    /// `SOPIN_MODE=off`: loaded, and nothing done. What is cheaper than this
    /// nobody can make who loads a library; its distance from 1 in a row that
    /// loading cannot change is the noise of the machine.
    Off,
    /// `SOPIN_MODE=relocated`.
    Relocated,
    /// `SOPIN_MODE=full` without a store: read-only ranges come from memfds.
    Full,
    /// `SOPIN_MODE=full` with a store that has every copy already.
    Stored,
}

/// Every mode, in the order of the table.
pub const MODES: [Mode; 5] = [Mode::Native, Mode::Off, Mode::Relocated, Mode::Full, Mode::Stored];

/// One value for each mode.
pub type ByMode<T> = [T; MODES.len()];

impl Mode {
    /// Makes `command` run in this mode, whatever the caller's environment says.
    pub fn apply(self, command: &mut Command, library: &Path, store: &Path) {
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("SOPIN_") {
                command.env_remove(name);
            }
        }
        let mode = match self {
            Self::Native => {
                command.env_remove("LD_PRELOAD");
                return;
            }
            Self::Off => "off",
            Self::Relocated => "relocated",
            Self::Full | Self::Stored => "full",
        };
        // Never the store of who runs this.
        let store = if self == Self::Stored { store.as_os_str() } else { "off".as_ref() };
        command.env("LD_PRELOAD", library).env("SOPIN_MODE", mode).env("SOPIN_STORE", store);
    }
}

/// What one run used and printed.
pub struct Run {
    /// User and system time, children included.
    pub cpu: Duration,
    /// Standard output.
    pub output: String,
}

/// Runs a program to its end.
///
/// # Errors
/// When it cannot be started, or does not exit with 0.
pub fn run(command: &mut Command) -> Result<Run, String> {
    run_once(command).map_err(|error| format!("{command:?}: {error}"))
}

fn run_once(command: &mut Command) -> io::Result<Run> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut output = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut output)?;
    }
    let (status, cpu) = wait(child.id())?;
    if status.success() { Ok(Run { cpu, output }) } else { Err(io::Error::other(status.to_string())) }
}

/// How long it takes from before the start of a program to after its end. The
/// program inherits standard input and output: a pipe would cost as much as the
/// difference that is looked for.
///
/// # Errors
/// When it cannot be started, or does not exit with 0.
pub fn start_and_end(command: &mut Command) -> Result<Duration, String> {
    let started = Instant::now();
    let waited = command.spawn().and_then(|child| wait(child.id()));
    let took = started.elapsed();
    match waited {
        Ok((status, _)) if status.success() => Ok(took),
        Ok((status, _)) => Err(format!("{command:?}: {status}")),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}

/// Waits for a child of ours, which `Child::wait` must not have waited for.
fn wait(child: u32) -> io::Result<(ExitStatus, Duration)> {
    let child = libc::pid_t::try_from(child).map_err(io::Error::other)?;
    let mut status = 0;
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both pointers are to live memory of the types that wait4(2) writes.
    while unsafe { libc::wait4(child, &raw mut status, 0, usage.as_mut_ptr()) } != child {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // SAFETY: wait4 succeeded and filled it; all zeroes are valid too.
    let usage = unsafe { usage.assume_init() };
    Ok((ExitStatus::from_raw(status), duration(usage.ru_utime) + duration(usage.ru_stime)))
}

fn duration(time: libc::timeval) -> Duration {
    Duration::from_secs(time.tv_sec.cast_unsigned()) + Duration::from_micros(time.tv_usec.cast_unsigned())
}

/// One number for each mode and round.
pub struct Rounds {
    rounds: Vec<ByMode<f64>>,
}

impl Rounds {
    /// Measures every mode once a round, in an order that rotates, after a round
    /// that only warms caches.
    ///
    /// # Errors
    /// The first of `measure`.
    pub fn measure(rounds: usize, mut measure: impl FnMut(Mode) -> Result<f64, String>) -> Result<Self, String> {
        for mode in MODES {
            measure(mode)?;
        }
        let mut measured = Vec::with_capacity(rounds);
        for round in 0..rounds {
            let mut numbers = ByMode::<f64>::default();
            for position in 0..MODES.len() {
                let index = (round + position) % MODES.len();
                numbers[index] = measure(MODES[index])?;
            }
            measured.push(numbers);
        }
        Ok(Self { rounds: measured })
    }

    /// The median of a mode.
    pub fn median(&self, mode: Mode) -> f64 {
        quantile(self.rounds.iter().map(|round| round[mode as usize]).collect(), 0.5)
    }

    /// The median over the rounds of a mode's number divided by the native one.
    pub fn ratio(&self, mode: Mode) -> f64 {
        let ratios = self.rounds.iter().map(|round| round[mode as usize] / round[Mode::Native as usize]);
        quantile(ratios.collect(), 0.5)
    }
}

/// The value below which this part of the numbers lies; 0 without numbers.
pub fn quantile(mut numbers: Vec<f64>, part: f64) -> f64 {
    numbers.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let index = (part * numbers.len() as f64) as usize;
    numbers.get(index.min(numbers.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

//! `--watch`: runs the command as a child, and pins new processes and new objects until it has
//! ended. Signals that are sent to this process are passed on to the command.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::os::fd::AsFd;

use super::human;
use super::pins::Pins;
use super::selection::Selection;
use super::session::Session;
use crate::exit::{Exit, Failure};
use crate::invocation::Invocation;
use crate::output;

/// How often the processes are looked at.
const PERIOD: Duration = Duration::from_millis(250);
/// The part of the time in which this process only waits, so that looking at hundreds of
/// processes does not slow down the command.
const REST: u32 = 4;
/// The longest such time: until then, threads that could not be released before are held.
const LONGEST_REST: Duration = Duration::from_secs(30);

/// The signals that are passed on. Signals of job control stop both processes, because both
/// belong to the same process group.
const PASSED_ON: [Signal; 6] =
    [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2];

/// Runs the command; without a selection, pins nothing. Returns its exit status: if a signal has ended it, 128 and the signal's
/// number, as in a shell.
///
/// # Errors
/// 125, 126 or 127 when the command cannot be run.
pub fn watch<P: Pins>(
    session: &mut Session<P>,
    selection: Option<&Selection>,
    invocation: &Invocation,
) -> Result<ExitCode, Failure> {
    let mut command = Child::start(invocation)?;
    let mut next_look = Instant::now();
    loop {
        command.wait_until(next_look)?;
        if let Some(status) = command.ended()? {
            return Ok(status);
        }
        let begun = Instant::now();
        if begun < next_look {
            continue;
        }
        if let Some(selection) = selection {
            // The command is this process's child. If this process traced it when it ends, its
            // exit status would be reported to the tracer, and not a second time to the parent.
            match session.pin_changed(selection, command.pid()) {
                Ok(answer) => human::warn(&answer),
                Err(failure) => output::warn(failure.thing, failure.reason),
            }
        }
        session.pins.rest();
        next_look = Instant::now() + (begun.elapsed() * REST).clamp(PERIOD, LONGEST_REST);
    }
}

/// The command as a child.
struct Child {
    pid: Pid,
    signals: SignalFd,
}

impl Child {
    /// Blocks the signals that are passed on, and starts the command with the mask that this
    /// process has inherited.
    fn start(invocation: &Invocation) -> Result<Self, Failure> {
        let failure = |errno: nix::Error| Failure::new(Exit::Failed, "signals", errno.desc());
        let inherited = SigSet::thread_get_mask().map_err(failure)?;
        let mut awaited: SigSet = PASSED_ON.into_iter().collect();
        awaited.add(Signal::SIGCHLD);
        let signals =
            SignalFd::with_flags(&awaited, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(failure)?;
        // A warning that no process reads must not end this process before the command.
        awaited.add(Signal::SIGPIPE);
        awaited.thread_block().map_err(failure)?;
        sopin_startup::restore();
        let pid = invocation.start(|file, words, environment| {
            let mut attributes = PosixSpawnAttr::init()?;
            attributes.set_flags(PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK)?;
            attributes.set_sigmask(&inherited)?;
            posix_spawn(file, &PosixSpawnFileActions::init()?, &attributes, words, environment)
        })?;
        Ok(Self { pid, signals })
    }

    fn pid(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// Waits for a signal, until `time` at most, and passes signals on.
    fn wait_until(&mut self, time: Instant) -> Result<(), Failure> {
        let failure = |errno: nix::Error| Failure::new(Exit::Failed, "signals", errno.desc());
        // Rounded up: with 0 this would not wait in the last millisecond.
        let rest = time.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
        let timeout = PollTimeout::try_from(rest).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(errno) => return Err(failure(errno)),
        }
        while let Some(received) = self.signals.read_signal().map_err(failure)? {
            // The terminal has sent its signal to the whole process group.
            if received.ssi_code == libc::SI_KERNEL {
                continue;
            }
            let signal = i32::try_from(received.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok());
            if let Some(signal) = signal.filter(|signal| PASSED_ON.contains(signal)) {
                // The command has not been waited for, so the number is still its own.
                let _ = kill(self.pid, signal);
            }
        }
        Ok(())
    }

    /// Returns the exit status if the command has ended.
    fn ended(&self) -> Result<Option<ExitCode>, Failure> {
        let status = waitpid(self.pid, Some(WaitPidFlag::WNOHANG));
        let status = status.map_err(|errno| Failure::new(Exit::Failed, "waitpid", errno.desc()))?;
        let code = match status {
            WaitStatus::Exited(_, code) => code,
            WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
            _ => return Ok(None),
        };
        Ok(Some(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))))
    }
}

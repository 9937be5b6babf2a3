//! `sopin watch --pin`: before a process opens a mapped object for writing, the processes that map
//! it are pinned. This module runs in the process of the watch: it starts the process that guards, keeps it going,
//! and reads its reports.
//!
//! | module | responsible for |
//! |---|---|
//! | [`child`] | the process that guards: its threads, its beginning and its end |
//! | [`answers`] | answering the kernel, in time |
//! | [`opening`] | an open that waits |
//! | [`intention`] | whether an open is for writing |
//! | [`openers`] | the processes that wait, and the process that is being pinned |
//! | [`overlays`] | whether root has mounted an overlay |
//! | [`pinning`] | pinning, with what `sopin pin` uses |
//! | [`report`] | the reports of the guard to the watch |

mod answers;
pub mod child;
mod intention;
mod openers;
mod opening;
mod overlays;
mod pinning;
pub mod report;

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};

use crate::exit::{Exit, Failure};
use crate::output;
use report::GuardReport;

/// The longest time that the guard may take after its start to mark the files of all processes.
const START: Duration = Duration::from_secs(60);
/// The longest time that the guard may take to end, in which it completes the pin that it has begun.
const END: Duration = Duration::from_secs(6);

/// The way out that is reported when the guard cannot guard.
const RIGHTS: &str = "it needs root's rights (CAP_SYS_ADMIN, CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH), and a kernel with \
                      CONFIG_FANOTIFY_ACCESS_PERMISSIONS";
/// The guard shows twice a second that it answers. When it has not for so long, it is ended: others wait for it.
const SILENCE: Duration = Duration::from_secs(4);
/// After this process itself was stopped for so long, what the guard has shown meanwhile is read first.
const GRACE: Duration = Duration::from_secs(1);
/// The reason that is reported when the watch has ended the guard.
const SILENT: &str = "the process that guards has not answered for 5 s, and was ended";
/// Stops of the guard are reported at most once in this time.
const PAUSE: Duration = Duration::from_secs(1);

/// The options of `sopin watch` that concern the guard.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct GuardOptions {
    /// Before a process opens a watched object for writing, pin the processes that map it, as sopin pin
    /// does; needs CAP_SYS_ADMIN
    #[arg(long)]
    pub pin: bool,

    /// Be the process that guards.
    #[arg(long = "guard", hide = true, conflicts_with = "pin")]
    pub is_guard: bool,
}

/// The process that guards. Dropping this ends it.
pub struct GuardProcess {
    pid: Pid,
    life: Option<ChildStdin>,
    ended: Receiver<()>,
}

impl GuardProcess {
    /// Starts the process, and waits until it guards. `scope` is the part of the command line that says
    /// which processes and files are watched. `tell` is called in other threads, and must not wait for
    /// long.
    ///
    /// # Errors
    /// 3 when nothing can be guarded.
    pub fn start(
        scope: impl IntoIterator<Item = OsString>,
        tell: impl Fn(GuardReport) + Clone + Send + 'static,
    ) -> Result<Self, Failure> {
        let failure = |reason: &dyn std::fmt::Display| Failure::new(Exit::Uninspected, "--pin", reason);
        let mut command = own_command();
        command.arg("watch").arg("--guard").args(scope).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| failure(&error))?;
        let pid = Pid::from_raw(child.id().cast_signed());
        // The child has not been waited for, so the number is its own.
        let number = rustix::process::Pid::from_child(&child);
        let handle = pidfd_open(number, PidfdFlags::empty()).map_err(|errno| failure(&errno))?;
        let (beat, beats) = sync_channel(1);
        let is_silent = Arc::new(AtomicBool::new(false));
        let (life, reports) = (child.stdin.take(), child.stdout.take());
        let (ready, is_ready) = sync_channel(1);
        let (end, ended) = sync_channel(1);
        let (tell_reports, first) = (tell.clone(), ready.clone());
        let reader = thread::spawn(move || {
            let Some(reports) = reports else { return };
            read(reports, |report| {
                let is_first = match &report {
                    GuardReport::Ready { .. } => first.try_send(Ok(())).is_ok(),
                    GuardReport::Failed { reason } => first.try_send(Err((reason.clone(), RIGHTS))).is_ok(),
                    GuardReport::Alive => {
                        let _ = beat.try_send(());
                        return;
                    }
                    _ => false,
                };
                if !is_first {
                    tell_reports(report);
                }
            });
        });
        let was_silent = Arc::clone(&is_silent);
        thread::spawn(move || end_if_silent(&handle, &beats, &is_silent));
        thread::spawn(move || {
            let reason = keep_going(pid, || tell(GuardReport::GuardContinued));
            // One of its last reports may give a more precise reason, so all of them are read first.
            let _ = reader.join();
            let reason = if was_silent.load(Ordering::SeqCst) { SILENT.to_owned() } else { reason };
            let _ = end.try_send(());
            // If it has not begun, that is why it cannot.
            if ready.try_send(Err((reason.clone(), ""))).is_err() {
                tell(GuardReport::GuardEnded { reason });
            }
        });
        let guard = Self { pid, life, ended };
        match is_ready.recv_timeout(START) {
            Ok(Ok(())) => Ok(guard),
            Ok(Err((reason, way_out))) => Err(failure(&reason).with_way_out(way_out)),
            Err(_) => Err(failure(&"the process that guards does not begin")),
        }
    }
}

impl Drop for GuardProcess {
    fn drop(&mut self) {
        drop(self.life.take());
        if self.ended.recv_timeout(END) == Err(RecvTimeoutError::Timeout) {
            // It has not been waited for, so the number is its own.
            let _ = kill(self.pid, Signal::SIGKILL);
        }
    }
}

/// Returns this program, to be executed once more.
fn own_command() -> Command {
    // By its own path, because the kernel makes the name of the process of it; that may be another file now.
    let path = std::env::current_exe().ok().filter(|path| path.exists());
    Command::new(path.unwrap_or_else(|| "/proc/self/exe".into()))
}

/// Has this process pinned by `sopin pin`, before it answers and watches: the libraries that it has loaded itself may be
/// rewritten like others, and later it cannot be stopped, because others wait for it.
pub fn pin_itself() {
    let mut command = own_command();
    let command = command.arg("pin").arg(std::process::id().to_string());
    let output = command.stdin(Stdio::null()).output();
    if !output.is_ok_and(|output| output.status.success()) {
        output::warn("--pin", "the command itself is not pinned, and ends when one of its own libraries is rewritten");
    }
}

/// Reads reports until the guard has ended.
fn read(reports: ChildStdout, mut tell: impl FnMut(GuardReport)) {
    for line in BufReader::new(reports).lines().map_while(Result::ok) {
        if let Ok(report) = serde_json::from_str(&line) {
            tell(report);
        }
    }
}

/// Ends the guard if it does not show that it answers: a debugger has stopped it, it writes a core dump, or the
/// thread that answers waits for something.
fn end_if_silent(handle: &OwnedFd, beats: &Receiver<()>, is_silent: &AtomicBool) {
    let mut awaited = beats.recv().map_err(|_| RecvTimeoutError::Disconnected);
    while awaited != Err(RecvTimeoutError::Disconnected) {
        awaited = beats.recv_timeout(SILENCE);
        if awaited == Err(RecvTimeoutError::Timeout) {
            awaited = beats.recv_timeout(GRACE);
        }
        if awaited == Err(RecvTimeoutError::Timeout) {
            is_silent.store(true, Ordering::SeqCst);
            let _ = pidfd_send_signal(handle, rustix::process::Signal::KILL);
            return;
        }
    }
}

/// Waits for the end of the guard. Others wait for it while it is stopped, so it is made to go on at once.
fn keep_going(pid: Pid, continued: impl Fn()) -> String {
    let mut last: Option<Instant> = None;
    loop {
        match waitpid(pid, Some(WaitPidFlag::WUNTRACED)) {
            Ok(WaitStatus::Stopped(..)) => {
                let _ = kill(pid, Signal::SIGCONT);
                if last.is_none_or(|last| last.elapsed() > PAUSE) {
                    continued();
                    last = Some(Instant::now());
                }
            }
            Ok(WaitStatus::Exited(_, status)) => {
                return format!("the process that guards has ended with status {status}");
            }
            Ok(WaitStatus::Signaled(_, signal, _)) => return format!("{signal} has ended the process that guards"),
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(errno) => return format!("waitpid: {}", errno.desc()),
        }
    }
}

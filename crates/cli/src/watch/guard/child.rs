//! The process that guards: a child of `sopin watch --pin`. It is a process of its own so that nothing
//! that stops, slows or ends the watch keeps others waiting: a debugger, Ctrl-Z, a pipe that nothing reads,
//! the end of a pin that does not come back (`watchdog` in sopin-reach). When this process ends, in
//! whatever way, the kernel lets every open go on.
//!
//! | thread | what it does |
//! |---|---|
//! | first | writes reports to stdout |
//! | answers | answers the kernel ([`super::answers`]) |
//! | pinning | scans and pins ([`super::pinning`]); the timer of the pins interrupts only this one |
//! | life | waits for the end of stdin, which is that of the watch, and ends this process |

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};
use nix::sys::signal::{SigSet, Signal};
use rustix::fs::OFlags;
use rustix::process::{Resource, Rlimit};
use sopin_core::sys::FileSystem;
use sopin_inspect::descriptors;

use super::answers::{Answerer, BEAT, MOST_WAITING, release};
use super::openers::Openers;
use super::opening::Opening;
use super::overlays;
use super::pinning::{GuardedPins, Pinning};
use super::report::GuardReport;
use crate::exit::Exit;
use crate::pin::options::SettingOptions;
use crate::pin::pins::PinnerOnDemand;
use crate::pin::session::Session;
use crate::watch::events::Marks;
use crate::watch::index::{Index, Inode};
use crate::watch::scan::{Scanner, Scope};

/// The most reports that may wait for the watch to read them. Others are left out.
const MOST_REPORTS: usize = 1024;
/// The descriptors that are wanted, and those without which nothing is guarded: one for each open that
/// waits, that is not decided, that is being handled, or that is late and has not been taken, for each event that is
/// read at a time, and some for the files of a process that is pinned.
const DESCRIPTORS: u64 = 65_536;
const FEWEST_DESCRIPTORS: u64 = 6 * MOST_WAITING as u64;
/// The longest time for which this process waits for the current work of the thread that pins when the watch has ended.
const LAST_PIN: Duration = Duration::from_secs(5);
/// The signals that do not reach this process: the watch ends it. A terminal sends some of them to all
/// processes that it runs.
const BLOCKED: [Signal; 9] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGTSTP,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// Guards until stdin is at its end.
pub fn guard(scope: Scope) -> Exit {
    match start(scope) {
        Ok(started) => {
            write(&started.reports, &started.beats);
            release(&started.group);
        }
        Err(reason) => {
            let failed = serde_json::to_string(&GuardReport::Failed { reason }).unwrap_or_default();
            // If that cannot be written, the watch sees that this process has ended.
            let _ = writeln!(io::stdout(), "{failed}");
        }
    }
    Exit::Uninspected
}

/// The parts that the first thread shares with the others.
struct Started {
    group: Arc<Fanotify>,
    reports: Receiver<GuardReport>,
    beats: Arc<AtomicU64>,
}

/// Starts the threads.
fn start(scope: Scope) -> Result<Started, String> {
    let mut blocked: SigSet = BLOCKED.into_iter().collect();
    blocked.add(Signal::SIGALRM);
    blocked.add(Signal::SIGPIPE);
    blocked.thread_block().map_err(|errno| format!("signals: {}", errno.desc()))?;
    raise_limit()?;
    // While a core dump is written, others wait for this process. If another program writes it, as most
    // distributions have it, that program opens libraries first. Of the limit 1 the kernel makes no
    // dump, neither to a file nor to a program (do_coredump); with 0 it makes that to a program.
    let _ = rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(1), maximum: Some(1) });
    // The kernel must not choose this process when memory is lacking: others wait for it.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
    let (group, openers) = (Arc::new(open()?), Arc::new(Openers::default()));
    let (requests, to_pin) = sync_channel(MOST_WAITING);
    let (reports, written) = sync_channel(MOST_REPORTS);
    let is_ending = Arc::new(AtomicBool::new(false));
    let waiting = Arc::new(AtomicUsize::new(0));
    let beats = Arc::new(AtomicU64::new(0));
    let answers = Answerer {
        group: Arc::clone(&group),
        openers: Arc::clone(&openers),
        requests,
        waiting: Arc::clone(&waiting),
        reports: reports.clone(),
        is_ending: Arc::clone(&is_ending),
        beats: Arc::clone(&beats),
    };
    spawn("answers", move || {
        let errno = answers.run();
        release(&answers.group);
        answers.reports.send(GuardReport::Failed { reason: format!("fanotify: {}", errno.desc()) }).unwrap_or_default();
    })?;
    let pinning_openers = Arc::clone(&openers);
    let (pinning_group, life_group) = (Arc::clone(&group), Arc::clone(&group));
    spawn("pinning", move || pin(scope, pinning_group, (to_pin, waiting), pinning_openers, reports))?;
    spawn("life", move || live(&life_group, &is_ending, &openers))?;
    Ok(Started { group, reports: written, beats })
}

/// Makes the group. Its events say which thread opens a file, whose call shows how.
fn open() -> Result<Fanotify, String> {
    let flags = InitFlags::FAN_CLASS_CONTENT
        | InitFlags::FAN_CLOEXEC
        | InitFlags::FAN_NONBLOCK
        | InitFlags::FAN_UNLIMITED_MARKS
        | InitFlags::FAN_REPORT_TID;
    // O_NONBLOCK: the owner of a file may have a write lease on it (F_SETLEASE), for which the kernel would make the thread
    // that answers wait for 45 s (break_lease in do_dentry_open).
    let file_flags =
        EventFFlags::O_RDONLY | EventFFlags::O_LARGEFILE | EventFFlags::O_CLOEXEC | EventFFlags::O_NONBLOCK;
    Fanotify::init(flags, file_flags).map_err(|errno| format!("fanotify: {}", errno.desc()))
}

/// Raises the limit of descriptors.
fn raise_limit() -> Result<(), String> {
    let now = rustix::process::getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: Some(DESCRIPTORS), maximum: now.maximum.map(|maximum| maximum.max(DESCRIPTORS)) };
    if rustix::process::setrlimit(Resource::Nofile, wanted).is_err() {
        let highest = Rlimit { current: now.maximum, maximum: now.maximum };
        let _ = rustix::process::setrlimit(Resource::Nofile, highest);
    }
    match rustix::process::getrlimit(Resource::Nofile).current {
        Some(limit) if limit < FEWEST_DESCRIPTORS => {
            Err(format!("RLIMIT_NOFILE is {limit}; {FEWEST_DESCRIPTORS} descriptors are needed"))
        }
        _ => Ok(()),
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), String> {
    thread::Builder::new().name(name.to_owned()).spawn(work).map(drop).map_err(|error| format!("thread: {error}"))
}

fn pin(
    scope: Scope,
    group: Arc<Fanotify>,
    (requests, waiting): (Receiver<Arc<Opening>>, Arc<AtomicUsize>),
    openers: Arc<Openers>,
    reports: SyncSender<GuardReport>,
) {
    let mut timer = SigSet::empty();
    timer.add(Signal::SIGALRM);
    let unblocked = timer.thread_unblock();
    let pins = PinnerOnDemand::new(&SettingOptions::default(), false);
    let (Ok(()), Ok(pins)) = (unblocked, pins) else { return };
    let index = Arc::new(Mutex::new(Index::default()));
    let marks: Arc<dyn Marks + Send + Sync> = Arc::new(PermissionMarks(group));
    let scanner = Scanner::new(scope, Arc::clone(&index), vec![marks]);
    let session = Session::new(GuardedPins::new(pins, Arc::clone(&openers), Arc::clone(&waiting)));
    let (begun, refused) = (BTreeSet::new(), HashMap::new());
    Pinning { requests, waiting, reports, openers, index, scanner, session, begun, refused }.run();
}

/// Waits for the end of the watch, and ends this process when the pin at hand is complete. From then on
/// every open goes on at once.
fn live(group: &Fanotify, is_ending: &AtomicBool, openers: &Openers) {
    let _ = io::stdin().read_to_end(&mut Vec::new());
    is_ending.store(true, Ordering::SeqCst);
    // The other thread may wait for something that keeps this process from ending.
    release(group);
    let end = Instant::now() + LAST_PIN;
    while openers.is_stuck(Duration::ZERO) && Instant::now() < end {
        thread::sleep(Duration::from_millis(5));
    }
    std::process::exit(0);
}

/// Writes reports to stdout, and that the thread which answers is alive.
fn write(reports: &Receiver<GuardReport>, beats: &AtomicU64) {
    let (mut last, mut shown) = (Instant::now(), 0);
    loop {
        let received = if last.elapsed() < BEAT {
            reports.recv_timeout(BEAT.saturating_sub(last.elapsed()))
        } else {
            Err(RecvTimeoutError::Timeout)
        };
        let report = match received {
            Ok(report) => report,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                last = Instant::now();
                let count = beats.load(Ordering::Relaxed);
                if count == shown {
                    continue;
                }
                shown = count;
                GuardReport::Alive
            }
        };
        let Ok(line) = serde_json::to_string(&report) else { continue };
        // SIGPIPE is blocked. Nothing reads any more when the watch has ended, and stdin shows that.
        if writeln!(io::stdout(), "{line}").is_err() {
            break;
        }
        if matches!(report, GuardReport::Failed { .. }) {
            return;
        }
    }
    thread::park();
}

/// The marks for which the kernel asks.
struct PermissionMarks(Arc<Fanotify>);

impl Marks for PermissionMarks {
    fn add(&self, file: &OwnedFd, _: Inode) -> io::Result<()> {
        let mark = |flags| self.0.mark::<_, [u8]>(flags, MaskFlags::FAN_OPEN_PERM, file, None);
        // The kernel forgets an evictable mark with the inode, which it keeps while a process maps the
        // file. A kernel before 5.19 does not know the flag.
        let add = MarkFlags::FAN_MARK_ADD;
        Ok(mark(add | MarkFlags::FAN_MARK_EVICTABLE).or_else(|_| mark(add))?)
    }

    /// Marks a file, unless another process or machine answers for its file system: the kernel opens the
    /// file for the event, and while that waited, every open on the machine would.
    fn add_mapped(&self, file: &OwnedFd, inode: Inode, pid: u32) -> io::Result<()> {
        let file_system = descriptors::for_core(file, OFlags::PATH).and_then(|file| FileSystem::of(&file));
        let is_fit = file_system.is_ok_and(|kind| {
            kind.is_kept_by_this_kernel() && (!kind.is_overlay() || overlays::is_mounted_here(file, pid))
        });
        if is_fit { self.add(file, inode) } else { Ok(()) }
    }

    /// The mark goes with the inode, or with the next open for writing.
    fn remove(&self, _: Inode) {}
}

//! Answers the kernel's questions whether a file may be opened. Opens for reading go on at once. One
//! that may be for writing waits until the processes that map the file are pinned, for 2 seconds at
//! most. The answer is always yes.
//!
//! While this thread does not answer, every open of a marked file on the machine waits. So it opens
//! nothing but files in `/proc` that wait for nothing, holds no lock during a system call, does not wait for
//! another thread, and writes to no pipe.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::fanotify::{Fanotify, FanotifyEvent, MarkFlags, MaskFlags};
use sopin_inspect::descriptors;

use super::intention::Intention;
use super::openers::Openers;
use super::opening::{Opening, PATIENCE, Permit, allow};
use super::report::{EarlyOpen, GuardReport, Went};
use crate::watch::index::Inode;

/// The most opens that may wait. Each has a descriptor here. When there are no more descriptors, the kernel
/// refuses the opens itself (`fanotify_read` in fs/notify/fanotify/fanotify_user.c).
pub const MOST_WAITING: usize = 512;
/// The highest priority of a thread that is not real-time.
pub const HIGHEST_PRIORITY: i32 = -20;
/// While opens wait, this thread checks at least this often whether the guard ends.
const PERIOD: Duration = Duration::from_millis(200);
/// This thread shows at least this often that it answers.
pub const BEAT: Duration = Duration::from_millis(500);
/// When the thread that pins has been at the same work for so long, opens do not wait for it.
const STUCK: Duration = Duration::from_secs(10);
/// When it has been at the same work for so long, the guard ends, before something else ends it: the memory
/// of a process may be a file whose server does not answer. A thread that waits for it cannot be killed, and
/// keeps the descriptor by which the kernel asks.
const HOPELESS: Duration = Duration::from_secs(30);

/// The reason that the guard reports when it ends after [`HOPELESS`].
const NO_ANSWER: &str = "the process that guards has waited for 30 s for a process or a file that does not answer";
/// The reason that is reported when the kernel could not open the file for this process without waiting.
const LEASE: &str = "a process has a write lease on the file (F_SETLEASE in fcntl(2))";

/// The number of immediate checks whether a thread that has just asked sleeps already.
const LOOKS: usize = 8;

/// A question of a thread that does not sleep yet, so that its call is not shown.
struct Undecided {
    event: FanotifyEvent,
    since: Instant,
}

/// Returns the intention of a thread that has just asked, if it goes to sleep soon. It does not on a busy
/// machine, where it waits for a processor first, and does not wait for the answer.
fn soon(thread: i32) -> Option<Intention> {
    (0..LOOKS).find_map(|_| Intention::of(thread))
}

/// The state of the thread that answers the kernel.
pub struct Answerer {
    /// The fanotify group by which the kernel asks.
    pub group: Arc<Fanotify>,
    /// The processes that wait, and the process that is being pinned.
    pub openers: Arc<Openers>,
    /// The opens that the thread which pins is to allow.
    pub requests: SyncSender<Arc<Opening>>,
    /// Number of these opens that the thread which pins has not taken.
    pub waiting: Arc<AtomicUsize>,
    /// The channel for reports, which the thread that pins has, too.
    pub reports: SyncSender<GuardReport>,
    /// Set when the guard ends: then every open goes on at once.
    pub is_ending: Arc<AtomicBool>,
    /// Increased each time that it has answered all questions.
    pub beats: Arc<AtomicU64>,
}

impl Answerer {
    /// Answers until the group cannot be read.
    pub fn run(&self) -> Errno {
        // Of this thread alone. Others wait for it.
        let _ = rustix::process::setpriority_process(None, HIGHEST_PRIORITY);
        let mut waiting: VecDeque<Arc<Opening>> = VecDeque::new();
        let mut undecided: VecDeque<Undecided> = VecDeque::new();
        let mut end = None;
        loop {
            self.beats.fetch_add(1, Ordering::Relaxed);
            if !self.is_ending.load(Ordering::SeqCst) && self.openers.is_stuck(HOPELESS) {
                self.is_ending.store(true, Ordering::SeqCst);
                release(&self.group);
                end = Some(GuardReport::Failed { reason: NO_ANSWER.to_owned() });
            }
            // Again until there is room for it.
            if let Some(last) = end.take()
                && let Err(TrySendError::Full(last)) = self.reports.try_send(last)
            {
                end = Some(last);
            }
            let is_ending = self.is_ending.load(Ordering::SeqCst);
            while let Some(first) = waiting.front() {
                match first.answer() {
                    Permit::None if is_ending => drop(first.allow(Permit::Ending)),
                    Permit::None if first.patience().is_zero() => self.give_up(first),
                    Permit::None => break,
                    _ => {}
                }
                waiting.pop_front();
            }
            // Those behind the first may be answered, and have a descriptor each.
            if waiting.len() >= MOST_WAITING / 2 {
                waiting.retain(|opening| opening.answer() == Permit::None);
            }
            for _ in 0..undecided.len() {
                let Some(Undecided { event, since }) = undecided.pop_front() else { break };
                match Intention::of(event.pid()) {
                    Some(intention) => self.decide(event, intention, since, &mut waiting),
                    None if since.elapsed() < PATIENCE => undecided.push_back(Undecided { event, since }),
                    None => self.allow(&event),
                }
            }
            let time = waiting.front().map_or(BEAT, |first| first.patience().min(PERIOD));
            // Rounded up: with 0 this would not wait in the last millisecond.
            let timeout = PollTimeout::try_from(time + Duration::from_micros(999)).unwrap_or(PollTimeout::ZERO);
            let timeout = if undecided.is_empty() { timeout } else { PollTimeout::from(1_u8) };
            match poll(&mut [PollFd::new(self.group.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(0) | Err(Errno::EINTR) => continue,
                Ok(_) => {}
                Err(errno) => {
                    for opening in waiting {
                        opening.allow(Permit::Ending);
                    }
                    for Undecided { event, .. } in undecided {
                        self.allow(&event);
                    }
                    return errno;
                }
            }
            match self.group.read_events() {
                Ok(events) => {
                    for event in events {
                        let since = Instant::now();
                        match soon(event.pid()) {
                            Some(intention) => self.decide(event, intention, since, &mut waiting),
                            None if undecided.len() < MOST_WAITING => {
                                undecided.push_back(Undecided { event, since });
                            }
                            None => self.allow(&event),
                        }
                    }
                }
                Err(Errno::EINTR) => {}
                // There was a question. The kernel could not open the file for this process without waiting for
                // the end of a lease, and has refused the open.
                Err(Errno::EAGAIN) => self.report(GuardReport::Refused { reason: LEASE.to_owned() }),
                // It could not for another reason.
                Err(errno) => self.report(GuardReport::Refused { reason: errno.desc().to_owned() }),
            }
        }
    }

    /// Lets an open go on, or adds it to those that wait, of which the one that asked first is the first.
    fn decide(&self, event: FanotifyEvent, intention: Intention, since: Instant, waiting: &mut VecDeque<Arc<Opening>>) {
        if let Some(opening) = self.answer(event, intention, since, waiting.len()) {
            // One that did not sleep at once has asked before others that wait already.
            let place = waiting.partition_point(|other| other.begun <= since);
            waiting.insert(place, opening);
        }
    }

    /// Lets an open go on, or returns it if it is to wait.
    fn answer(
        &self,
        event: FanotifyEvent,
        intention: Intention,
        since: Instant,
        waiting: usize,
    ) -> Option<Arc<Opening>> {
        let (file, thread) = (event.fd()?, event.pid());
        if intention == Intention::Reads || self.is_ending.load(Ordering::SeqCst) || is_own(thread) {
            allow(&self.group, file);
            return None;
        }
        let Ok(status) = rustix::fs::fstat(file) else {
            allow(&self.group, file);
            return None;
        };
        let inode = Inode { device: status.st_dev, number: status.st_ino };
        let process = process_of(thread);
        let went = if waiting >= MOST_WAITING {
            Some(Went::Crowded)
        } else if self.openers.is_stuck(STUCK) {
            Some(Went::Stuck)
        } else if !self.openers.wait(process) {
            Some(Went::Target)
        } else {
            None
        };
        if let Some(went) = went {
            self.report_early(path_of(file), process, thread, went);
            allow(&self.group, file);
            return None;
        }
        let about = (process, inode, intention, since);
        let opening = Arc::new(Opening::new(event, about, Arc::clone(&self.group), Arc::clone(&self.openers)));
        self.waiting.fetch_add(1, Ordering::SeqCst);
        if self.requests.try_send(Arc::clone(&opening)).is_err() {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            opening.allow(Permit::Done);
            return None;
        }
        Some(opening)
    }

    fn allow(&self, event: &FanotifyEvent) {
        if let Some(file) = event.fd() {
            allow(&self.group, file);
        }
    }

    /// Lets an open go on for which the time is up.
    fn give_up(&self, opening: &Opening) {
        if opening.allow(Permit::Late) {
            let path = String::from_utf8_lossy(&opening.path()).into_owned();
            self.report_early(path, opening.process, opening.thread, Went::Late);
        }
    }

    fn report_early(&self, path: String, pid: u32, thread: i32, went: Went) {
        self.report(GuardReport::WentOn(EarlyOpen { path, pid, name: name_of(thread), went }));
    }

    fn report(&self, report: GuardReport) {
        // If the reader is so far behind, there is no other way than to leave it out.
        let _ = self.reports.try_send(report);
    }
}

/// Takes all marks away: the kernel asks no more, even if this process cannot end.
pub fn release(group: &Fanotify) {
    // Its only error is that of a wrong argument.
    let _ = group.mark::<_, [u8]>(MarkFlags::FAN_MARK_FLUSH, MaskFlags::empty(), nix::fcntl::AT_FDCWD, None);
}

/// Returns whether a thread is one of this process. What this process opens goes on at once, since it may
/// be what the pinning of a process needs.
fn is_own(thread: i32) -> bool {
    Path::new(&format!("/proc/self/task/{thread}")).exists()
}

/// Returns the process of a thread; 0 if it has no number in this PID namespace.
fn process_of(thread: i32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let process = status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok());
    process.unwrap_or(0)
}

fn name_of(thread: i32) -> String {
    let name = std::fs::read(format!("/proc/{thread}/comm")).unwrap_or_default();
    String::from_utf8_lossy(name.trim_ascii_end()).into_owned()
}

fn path_of(file: impl AsFd) -> String {
    let link = descriptors::path_of(file.as_fd().as_raw_fd());
    std::fs::read_link(link).map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
}

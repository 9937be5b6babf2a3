//! Pins the processes that map a file before an open of it for writing goes on. This is the thread
//! that may wait: for processes to stop, for copies to be made, for files to be read. Nothing that it
//! opens has to wait for itself, because `answers` lets this process's own opens go on.
//!
//! First only the object of that file is pinned in all processes that map it, with little patience, and the
//! open goes on. What else these processes have loaded follows while no open waits: a program that
//! rewrites one file often rewrites others.
//!
//! | case | what happens |
//! |---|---|
//! | the writer maps the file itself | the others are pinned; it waits in the kernel, where it cannot be stopped |
//! | a process to be pinned waits in an open of another file | the same |
//! | another process traces it, as `sopin pin` does, or it does not stop | tried again while there is time |
//! | it cannot be pinned | it is left, and not tried again for a while |

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use sopin_core::vmas::FileId;
use sopin_inspect::process::Process;
use sopin_reach::focus::Focus;
use sopin_reach::report::{PinRefusal, PinReport};

use super::answers::HIGHEST_PRIORITY;
use super::intention::Intention;
use super::openers::Openers;
use super::opening::{Opening, Permit};
use super::report::{GuardReport, GuardedOpen, GuardedProcess};
use crate::pin::answer::{PinAnswer, left};
use crate::pin::pins::{PinnerOnDemand, Pins};
use crate::pin::selection::Selection;
use crate::pin::session::Session;
use crate::watch::index::{Index, Inode};
use crate::watch::scan::{Scanner, lock};

/// The shortest time between two regular scans for processes that have appeared, or have loaded something.
const PERIOD: Duration = Duration::from_millis(250);
/// Scans take at most this part of the time, unless a file is opened for writing.
const REST: u32 = 50;
/// When nothing was pinned for so long, what pinning has changed in this process is put back.
const IDLE: Duration = Duration::from_secs(2);
/// A process that could not be pinned is not tried again for so long.
const PAUSE: Duration = Duration::from_secs(10);
/// The most scans for the opens that wait: processes can appear while others are pinned.
const MAX_ROUNDS: usize = 4;
/// The longest wait for a good moment to stop a process, while an open waits.
const MOMENT: Duration = Duration::from_millis(50);
/// A process that another one traces, or that did not stop, is tried again after this time.
const AGAIN: Duration = Duration::from_millis(20);
/// Another attempt is made only if the opens have at least this much of their patience left.
const RESERVE: Duration = Duration::from_millis(500);

/// The reason that is reported for a process that waits in an open itself.
const WAITS: &str = "it waits in an open for writing itself, where it cannot be stopped";
/// The reason that is reported for a process that answers the kernel's questions as this one does.
const ANSWERS: &str = "it decides about the opens of other processes (fanotify), which would wait for it";

/// Pins, unless a process waits for this one.
pub struct GuardedPins {
    pins: PinnerOnDemand,
    openers: Arc<Openers>,
    /// The number of requests that have not been taken.
    waiting: Arc<AtomicUsize>,
    /// The files whose objects are pinned; `None` if all are, as long as no open waits.
    files: Option<Vec<FileId>>,
}

impl GuardedPins {
    /// Makes them of what `sopin pin` uses.
    pub fn new(pins: PinnerOnDemand, openers: Arc<Openers>, waiting: Arc<AtomicUsize>) -> Self {
        Self { pins, openers, waiting, files: None }
    }
}

impl Pins for GuardedPins {
    fn pin(&mut self, pid: u32) -> Result<PinReport, PinRefusal> {
        if answers_kernel(pid) {
            return Err(PinRefusal::Unsuitable(ANSWERS));
        }
        if !self.openers.begin_pin(pid) {
            return Err(PinRefusal::Unsuitable(WAITS));
        }
        let no_open_waits = || self.waiting.load(Ordering::SeqCst) == 0;
        let focus = match &self.files {
            Some(files) => Focus { files: Some(files), patience: MOMENT, stops: 1, ..Focus::all() },
            None => Focus { goes_on: &no_open_waits, ..Focus::all() },
        };
        let result = self.pins.pin_with(pid, &focus);
        self.openers.end_pin();
        result
    }

    fn is_interrupted(&self) -> bool {
        self.pins.is_interrupted()
    }

    fn rest(&mut self) -> bool {
        self.pins.rest()
    }
}

/// Returns whether a process has a group of fanotify: another watch, or a virus scanner. While it is
/// stopped, what this process opens may wait for it.
fn answers_kernel(pid: u32) -> bool {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut links = files.filter_map(|file| std::fs::read_link(file.path()).ok());
    links.any(|link| link == Path::new("anon_inode:[fanotify]"))
}

/// The state of the thread that pins.
pub struct Pinning {
    /// The opens that wait, and their number.
    pub requests: Receiver<Arc<Opening>>,
    pub waiting: Arc<AtomicUsize>,
    /// The channel for reports.
    pub reports: SyncSender<GuardReport>,
    /// The processes that wait, and the process that is being pinned.
    pub openers: Arc<Openers>,
    /// The mapped objects, and the processes that map them.
    pub index: Arc<Mutex<Index>>,
    /// Keeps the index up to date, and marks the files.
    pub scanner: Scanner,
    /// The processes that were pinned.
    pub session: Session<GuardedPins>,
    /// The processes of which one object was pinned, and the others were not yet.
    pub begun: BTreeSet<u32>,
    /// The processes that could not be pinned.
    pub refused: HashMap<u32, Refused>,
}

/// A process that could not be pinned.
#[derive(Clone, Debug)]
pub struct Refused {
    name: String,
    reason: String,
    since: Instant,
}

impl Pinning {
    /// Works until the other side of `requests` is gone.
    pub fn run(&mut self) {
        // Of this thread alone: while it waits for a processor, so do those who wait for it.
        let _ = rustix::process::setpriority_process(None, HIGHEST_PRIORITY);
        let mut next_scan = Instant::now();
        let mut is_ready = false;
        let mut last_pin: Option<Instant> = None;
        loop {
            let now = Instant::now();
            if now >= next_scan {
                self.busy(Self::scan);
                next_scan = Instant::now() + (now.elapsed() * REST).max(PERIOD);
                if !is_ready {
                    is_ready = true;
                    let files = lock(&self.index).counts().1;
                    self.report(GuardReport::Ready { files });
                }
            }
            if last_pin.is_some_and(|last| last.elapsed() > IDLE) && self.session.pins.rest() {
                last_pin = None;
            }
            let time = if self.begun.is_empty() { next_scan.saturating_duration_since(now) } else { Duration::ZERO };
            match self.requests.recv_timeout(time) {
                Ok(first) => {
                    let openings: Vec<_> = std::iter::once(first).chain(self.requests.try_iter()).collect();
                    self.waiting.fetch_sub(openings.len(), Ordering::SeqCst);
                    self.busy(|pinning| pinning.handle(openings));
                    last_pin = Some(Instant::now());
                }
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(pid) = self.begun.pop_first() {
                        self.busy(|pinning| pinning.complete(pid));
                        last_pin = Some(Instant::now());
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Does work. If it takes too long, opens do not wait for it.
    fn busy(&mut self, work: impl FnOnce(&mut Self)) {
        self.openers.note_work(true);
        work(self);
        self.openers.note_work(false);
    }

    /// Looks for processes and objects.
    fn scan(&mut self) {
        if let Err(error) = self.scanner.scan() {
            self.report(GuardReport::Failed { reason: format!("/proc: {error}") });
        }
        let index = lock(&self.index);
        self.session.keep(|pid| index.process(pid).is_some());
        self.refused.retain(|pid, refused| index.process(*pid).is_some() && refused.since.elapsed() < PAUSE);
        self.begun.retain(|pid| index.process(*pid).is_some());
    }

    fn handle(&mut self, mut openings: Vec<Arc<Opening>>) {
        openings.retain(|opening| {
            let writes = opening.intention.read(opening.thread) != Intention::Reads;
            if !writes {
                opening.allow(Permit::Done);
            }
            writes
        });
        if openings.is_empty() {
            return;
        }
        let inodes: BTreeSet<Inode> = openings.iter().map(|opening| opening.inode).collect();
        let mut outcome = Outcome::default();
        for _ in 0..MAX_ROUNDS {
            // One that has loaded a file meanwhile is seen now: its open for reading was before.
            self.scan();
            let targets = self.targets(&inodes, &mut outcome);
            if targets.is_empty() {
                break;
            }
            self.pin(targets, &mut outcome, &openings);
        }
        for opening in &openings {
            let mappers: BTreeSet<u32> = lock(&self.index).mappers(opening.inode).iter().map(|one| one.pid).collect();
            if mappers.is_empty() {
                opening.unmark();
            }
            // It may have ended a moment after it goes on.
            let writer =
                Process::open(opening.process).ok().map(|writer| (writer.facts.name.clone(), writer.command()));
            opening.allow(Permit::Done);
            self.report_open(opening, writer.unwrap_or_default(), &mappers, &outcome);
        }
        self.begun.extend(outcome.pinned.keys());
    }

    /// Returns the processes that map one of the files and have not been tried for these opens. The files
    /// are those that are pinned from now on.
    fn targets(&mut self, inodes: &BTreeSet<Inode>, outcome: &mut Outcome) -> Vec<u32> {
        let index = lock(&self.index);
        let files = inodes.iter().filter_map(|inode| index.object(*inode)).map(|object| object.id);
        self.session.pins.files = Some(files.collect());
        let mut targets = Vec::new();
        // They have been pinned before they began.
        let own = [std::process::id(), std::os::unix::process::parent_id()];
        for mapper in inodes.iter().flat_map(|inode| index.mappers(*inode)) {
            if !outcome.tried.insert((mapper.pid, mapper.start)) || own.contains(&mapper.pid) {
                continue;
            }
            match self.refused.get(&mapper.pid) {
                Some(refused) => drop(outcome.left.insert(mapper.pid, refused.clone())),
                None => targets.push(mapper.pid),
            }
        }
        targets
    }

    /// Pins the objects in processes, again and again in those that another one traces or that do not stop.
    fn pin(&mut self, mut named: Vec<u32>, outcome: &mut Outcome, openings: &[Arc<Opening>]) {
        loop {
            let selection = Selection { named: std::mem::take(&mut named), criteria: None, notes_loads: true };
            let Ok(answer) = self.session.pin_in_part(&selection) else { return };
            let is_passing = |error| ["traced", "does-not-stop", "does-not-run"].contains(&error);
            let again = answer.not_pinned.iter().filter(|process| is_passing(process.error));
            named.extend(again.map(|process| process.pid));
            outcome.note(answer);
            let patience = openings.iter().map(|opening| opening.patience()).min().unwrap_or_default();
            if named.is_empty() || patience < RESERVE {
                break;
            }
            thread::sleep(AGAIN);
        }
        // One that waits itself is tried the next time.
        let refused = outcome.left.iter().filter(|(_, refused)| refused.is_refusal() && refused.reason != WAITS);
        self.refused.extend(refused.map(|(pid, refused)| (*pid, refused.clone())));
    }

    /// Pins all objects of a process, unless an open begins to wait.
    fn complete(&mut self, pid: u32) {
        self.session.pins.files = None;
        // By pinning, the process maps other files. The second time nothing is left to do, and it is done.
        for _ in 0..2 {
            let selection = Selection { named: vec![pid], criteria: None, notes_loads: true };
            let _ = self.session.pin_new(&selection);
            if self.waiting.load(Ordering::SeqCst) != 0 {
                self.session.forget(pid);
                self.begun.insert(pid);
                return;
            }
        }
    }

    fn report_open(
        &self,
        opening: &Opening,
        (name, command): (String, Vec<String>),
        mappers: &BTreeSet<u32>,
        outcome: &Outcome,
    ) {
        let process = |pid: &u32, reason: Option<&str>, name: &str| GuardedProcess {
            pid: *pid,
            name: name.to_owned(),
            reason: reason.map(str::to_owned),
        };
        let pinned: Vec<_> = outcome
            .pinned
            .iter()
            .filter(|(pid, _)| mappers.contains(pid))
            .map(|(pid, name)| process(pid, None, name))
            .collect();
        let left: Vec<_> = outcome
            .left
            .iter()
            .filter(|(pid, _)| mappers.contains(pid))
            .map(|(pid, refused)| process(pid, Some(&refused.reason), &refused.name))
            .collect();
        let late = opening.answer() == Permit::Late;
        if pinned.is_empty() && left.is_empty() && !late {
            return;
        }
        self.report(GuardReport::Open(GuardedOpen {
            path: String::from_utf8_lossy(&opening.path()).into_owned(),
            pid: opening.process,
            name,
            command,
            delay_us: u64::try_from(opening.begun.elapsed().as_micros()).unwrap_or(u64::MAX),
            late,
            pinned,
            left,
        }));
    }

    fn report(&self, report: GuardReport) {
        let _ = self.reports.try_send(report);
    }
}

/// The results of pinning the processes that map the files.
#[derive(Default)]
struct Outcome {
    /// Those that were tried, with the time when they were made.
    tried: BTreeSet<(u32, u64)>,
    /// Those that were pinned, and their names.
    pinned: BTreeMap<u32, String>,
    /// Those that were not.
    left: BTreeMap<u32, Refused>,
}

impl Refused {
    /// Returns whether the whole process was refused, and not one of its objects.
    fn is_refusal(&self) -> bool {
        !self.reason.starts_with(OBJECT)
    }
}

/// The beginning of the reason if an object could not be pinned.
const OBJECT: &str = "its object is left";

impl Outcome {
    fn note(&mut self, answer: PinAnswer) {
        let since = Instant::now();
        for process in answer.not_pinned.into_iter().filter(|process| process.error != "vanished") {
            let refused = Refused { name: process.name.unwrap_or_default(), reason: process.reason, since };
            self.left.insert(process.pid, refused);
        }
        for process in answer.processes {
            // It may have been refused before.
            self.left.remove(&process.pid);
            if left(&process) != 0 {
                let reason = process.objects.iter().find_map(|object| object.reason.clone()).unwrap_or_default();
                let reason = format!("{OBJECT}: {reason}");
                self.left.insert(process.pid, Refused { name: process.name, reason, since });
            } else if !process.objects.is_empty() {
                self.pinned.insert(process.pid, process.name);
            }
        }
    }
}

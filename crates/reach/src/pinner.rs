//! Pins one process: in rounds, each of which prepares while the process runs and changes what it
//! maps while it has stopped.

use std::cell::Cell;
use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use sopin_core::attributes::AttributeMap;
use sopin_core::private_memory::PrivateMemory;
use sopin_core::settings::Settings;
use sopin_inspect::Inspector;
use sopin_inspect::object::{InspectedObject, ObjectState};
use sopin_inspect::process::Process;

use crate::copies::{self, Copies};
use crate::focus::Focus;
use crate::held::HeldTasks;
use crate::instructions::Instructions;
use crate::interpreter::ObjectOutcome;
use crate::kernel_stores::KernelStores;
use crate::memory::WritableMemory;
use crate::moment::Moment;
use crate::object::{self, Surroundings};
use crate::passing::RaisedLimit;
use crate::prepared::PreparedFiles;
use crate::ptrace::{self, Watch};
use crate::report::{PinRefusal, PinReport, PinnedObject};
use crate::sharers::Sharers;
use crate::stop::StoppedProcess;
use crate::target::{UsableStores, attributes_of, check, failed, memory_of, pagemap_of};
use crate::urgency::Urgency;
use crate::work::{MAY_BE_IN_SEQUENCE, Round, Work, left_whole, plan, take_memory};

const NO_INSTRUCTIONS: PinRefusal =
    PinRefusal::Unsuitable("its code has no instructions for a system call and for the return from a signal handler");
/// The most rounds for one process.
const MAX_ROUNDS: u32 = 1024;
/// How often a round is attempted again, because no thread was in a system call, after how long.
const MAX_ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(5);

/// The state that one round of a pin passes to the next.
struct Progress {
    instructions: Option<Instructions>,
    /// The time for which moments may still be waited for.
    patience: Duration,
    /// The copies in memory that the process has, from the first stop on.
    private: Cell<Option<PrivateMemory>>,
    outcomes: HashMap<u64, ObjectOutcome>,
}

/// The state that the pins of one run share.
pub struct Pinner {
    settings: Settings,
    inspector: Inspector,
    copies: Copies,
    held: HeldTasks,
    /// Which attempt to stop the process this is, beginning with 1.
    attempt: u32,
    urgency: Option<Urgency>,
    _watch: Watch,
}

impl Pinner {
    /// Makes a pinner with these settings. While it exists this process has a timer, and signals that
    /// would end it only make [`Pinner::is_interrupted`] true. From the first pin on the process has a
    /// high priority. So drop the pinner before executing another program.
    pub fn new(settings: Settings) -> Self {
        let copies = Copies::new(&settings);
        Self {
            settings,
            inspector: Inspector::new(false),
            copies,
            held: HeldTasks::new(),
            attempt: 1,
            urgency: None,
            _watch: Watch::start(),
        }
    }

    /// Returns whether the user has requested the end of the command. The pin at hand has then been
    /// completed.
    pub fn is_interrupted(&self) -> bool {
        ptrace::is_interrupted()
    }

    /// Releases tasks that could not be released before: parents that wait for a child of vfork(2).
    pub fn release_held(&mut self) {
        self.held.release();
    }

    /// Gives this process the priority that it had before, until the next pin. The programs that it
    /// starts inherit it.
    pub fn rest(&mut self) {
        self.urgency = None;
    }

    /// Returns whether there are tasks that could not be released yet. They stay traced by this
    /// process if it executes another program.
    pub fn holds_tasks(&self) -> bool {
        !self.held.is_empty()
    }

    /// Pins the objects of a process.
    ///
    /// # Errors
    /// The reason for which the process was not pinned.
    pub fn pin(&mut self, pid: u32) -> Result<PinReport, PinRefusal> {
        self.pin_with(pid, &Focus::all())
    }

    /// Pins some objects of a process, or with other patience than [`Pinner::pin`].
    ///
    /// # Errors
    /// The reason for which the process was not pinned.
    pub fn pin_with(&mut self, pid: u32, focus: &Focus<'_>) -> Result<PinReport, PinRefusal> {
        self.release_held();
        self.watched(|pinner| pinner.pin_in_rounds(pid, focus))
    }

    /// Does work that the watchdog ends if it was interrupted and does not end.
    fn watched<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        self.held.note_pinning(true);
        let result = work(self);
        self.held.note_pinning(false);
        result
    }

    fn pin_in_rounds(&mut self, pid: u32, focus: &Focus<'_>) -> Result<PinReport, PinRefusal> {
        let process = Process::open(pid)?;
        let (mut report, mut files) = self.begin(pid, &process, focus)?;
        if report.objects.is_empty() {
            return Ok(report);
        }
        let mut progress = Progress {
            instructions: None,
            patience: focus.patience,
            private: Cell::new(None),
            outcomes: HashMap::new(),
        };
        let mut attempts = 0;
        self.attempt = 1;
        for _ in 0..MAX_ROUNDS {
            let round = match self.round(&process, &files, focus, &mut progress, &mut report) {
                Err(MAY_BE_IN_SEQUENCE) if attempts < MAX_ATTEMPTS && !ptrace::is_interrupted() => {
                    attempts += 1;
                    thread::sleep(PAUSE);
                    continue;
                }
                Err(PinRefusal::DoesNotStop) if self.attempt < focus.stops && !ptrace::is_interrupted() => {
                    self.attempt += 1;
                    self.held.wait();
                    continue;
                }
                round => round?,
            };
            if round.outcomes.is_empty() {
                // They may be gone. The process could unmap them again and again.
                progress.instructions = None;
                attempts += 1;
            } else {
                attempts = 0;
            }
            progress.outcomes.extend(round.outcomes);
            if !round.is_cut || ptrace::is_interrupted() || attempts > MAX_ATTEMPTS || !(focus.goes_on)() {
                break;
            }
            files = self.prepare(&process, focus)?;
        }
        self.conclude(&process, &progress.outcomes, &mut report);
        Ok(report)
    }

    /// Returns what [`Pinner::pin`] is expected to do, without stopping the process.
    ///
    /// # Errors
    /// Why the process could not be pinned.
    pub fn preview(&mut self, pid: u32) -> Result<PinReport, PinRefusal> {
        self.watched(|pinner| pinner.preview_one(pid))
    }

    fn preview_one(&mut self, pid: u32) -> Result<PinReport, PinRefusal> {
        let process = Process::open(pid)?;
        let (mut report, files) = self.begin(pid, &process, &Focus::all())?;
        let memory = memory_of(&process)?;
        let pagemap = pagemap_of(&process)?;
        let attributes = attributes_of(&process, None)?;
        let (mode, settings) = (self.settings.mode, &self.settings);
        self.inspector.with_objects(&process, |found| {
            let stores = KernelStores::of(&process, found.maps);
            let around = Surroundings { found, memory: &memory, pagemap: &pagemap, mode };
            let private = Cell::new(copies::in_memory_of(found));
            for listed in &mut report.objects {
                let Some(object) = found.objects.iter().find(|object| object.span.0 == listed.start) else { continue };
                let outcome = match plan(object, &around, &files, &stores, &attributes, || None) {
                    Ok(Some(mut plan)) => {
                        plan.bound_untouched_data(&pagemap, |bytes| take_memory(&private, bytes, settings));
                        plan.left.bytes = plan.ranges.iter().map(|range| range.span.len()).sum();
                        plan.left
                    }
                    Ok(None) => ObjectOutcome::default(),
                    Err(reason) => left_whole(&reason),
                };
                listed.after = expected(&outcome);
                listed.bytes = outcome.bytes as u64;
                listed.reason = outcome.relocated_failure.or(outcome.read_only_failure);
            }
        })?;
        Ok(report)
    }

    /// Begins the report: which objects are not out of their files' reach. Makes the copies.
    fn begin(
        &mut self,
        pid: u32,
        process: &Process,
        focus: &Focus<'_>,
    ) -> Result<(PinReport, PreparedFiles), PinRefusal> {
        check(pid, process)?;
        let (mode, settings) = (self.settings.mode, &self.settings);
        let (objects, objects_in_all, has_library) = self.inspector.with_objects(process, |found| {
            let is_listed = |object: &&InspectedObject<'_>| {
                object::is_exposed(object, mode) && focus.selects(object) && settings.selects(&object::path_of(object))
            };
            let listed = found.objects.iter().filter(is_listed);
            let objects: Vec<PinnedObject> = listed
                .map(|object| PinnedObject {
                    path: String::from_utf8_lossy(&object::path_of(object)).into_owned(),
                    start: object.span.0,
                    end: object.span.1,
                    before: object.state(),
                    after: object.state(),
                    bytes: 0,
                    reason: None,
                })
                .collect();
            (objects, found.objects.len(), found.has_library)
        })?;
        let report = PinReport {
            pid,
            uid: process.user,
            name: process.facts.name.clone(),
            command: process.command(),
            has_library,
            objects,
            objects_in_all,
            tasks: 0,
            stops: 0,
            longest_stop_us: 0,
            calls_repaired: 0,
            timeouts_restarted: 0,
            transfers_cut_short: 0,
            errors: Vec::new(),
        };
        let files = if report.objects.is_empty() { PreparedFiles::default() } else { self.prepare(process, focus)? };
        Ok((report, files))
    }

    /// Makes or finds the copies of the files that the exposed objects of a process map.
    fn prepare(&mut self, process: &Process, focus: &Focus<'_>) -> Result<PreparedFiles, PinRefusal> {
        let (mode, settings) = (self.settings.mode, &self.settings);
        let memory = memory_of(process)?;
        let pagemap = pagemap_of(process)?;
        let stores = UsableStores::of(process, self.copies.user());
        let copies = &mut self.copies;
        let mut files = PreparedFiles::default();
        self.inspector.with_objects(process, |found| {
            let around = Surroundings { found, memory: &memory, pagemap: &pagemap, mode };
            for object in found.objects {
                let is_selected = focus.selects(object) && settings.selects(&object::path_of(object));
                if !object::is_exposed(object, mode) || !is_selected {
                    continue;
                }
                // What is wrong with an object is reported when it is to be pinned.
                let Ok(Some(plan)) = object::plan(object, &around) else { continue };
                files.add(&around, &plan, copies, stores);
                self.held.release();
            }
        })?;
        Ok(files)
    }

    /// Stops the process, and pins as many objects as there is time for.
    fn round(
        &mut self,
        process: &Process,
        files: &PreparedFiles,
        focus: &Focus<'_>,
        progress: &mut Progress,
        report: &mut PinReport,
    ) -> Result<Round, PinRefusal> {
        // These take long, so they are read while the process runs.
        let attributes = attributes_of(process, None)?;
        if progress.instructions.is_none() {
            progress.instructions = self.inspector.with_objects(process, Instructions::find)?;
        }
        let instructions = match progress.instructions {
            Some(instructions) => instructions,
            None if ptrace::is_interrupted() => return Ok(Round { is_cut: true, ..Round::default() }),
            None => return Err(NO_INSTRUCTIONS),
        };
        let sharers = Sharers::search(report.pid, process.thread.cast_signed());
        self.urgency.get_or_insert_with(Urgency::raise);
        let processes: Vec<u32> = std::iter::once(report.pid).chain(sharers.found().iter().copied()).collect();
        let moment = Moment::wait(&processes, &mut progress.patience, || {
            self.held.release();
            (focus.goes_on)()
        });
        let begin = Instant::now();
        let own = self.held.begin_stop(report.pid);
        let stopped = StoppedProcess::stop(report.pid, own, sharers, self.attempt);
        let mut stopped = stopped.map_err(|(refusal, left)| {
            self.held.end_stop(left);
            refusal
        })?;
        stopped.repair_calls(&moment);
        let limit = RaisedLimit::if_needed(process);
        let result = self.work(process, &stopped, (files, focus), (instructions, attributes), progress);
        drop(limit);
        report.tasks = report.tasks.max(stopped.tasks.len());
        report.stops += 1;
        report.calls_repaired += stopped.repaired;
        report.timeouts_restarted += stopped.restarted;
        report.transfers_cut_short += stopped.cut_short;
        self.held.end_stop(stopped.resume());
        let micros = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
        report.longest_stop_us = report.longest_stop_us.max(micros);
        result
    }

    /// Pins objects of a process that has stopped. Its files are opened only now, because it may have
    /// executed another program before, and had the memory of another process.
    fn work(
        &self,
        process: &Process,
        stopped: &StoppedProcess,
        (files, focus): (&PreparedFiles, &Focus<'_>),
        (instructions, attributes): (Instructions, AttributeMap),
        progress: &Progress,
    ) -> Result<Round, PinRefusal> {
        let memory = memory_of(process)?;
        let pagemap = pagemap_of(process)?;
        let writable = WritableMemory::of(process).map_err(|errno| failed("open /proc/PID/mem", errno))?;
        let (mode, settings) = (self.settings.mode, &self.settings);
        self.inspector.with_objects(process, |found| {
            let around = Surroundings { found, memory: &memory, pagemap: &pagemap, mode };
            let stores = KernelStores::of(process, found.maps);
            let private = Cell::new(progress.private.get().unwrap_or_else(|| copies::in_memory_of(found)));
            let mut work = Work {
                process,
                instructions,
                around,
                stores,
                attributes,
                files,
                writable: &writable,
                settings,
                focus,
                private: &private,
            };
            let round = work.run(stopped, &progress.outcomes);
            progress.private.set(Some(private.get()));
            round
        })?
    }

    /// Completes the report: what state the objects are in now.
    fn conclude(&self, process: &Process, outcomes: &HashMap<u64, ObjectOutcome>, report: &mut PinReport) {
        let looked = self.inspector.with_objects(process, |found| {
            for listed in &mut report.objects {
                let now = found.objects.iter().find(|object| object.span.0 == listed.start);
                let outcome = outcomes.get(&listed.start);
                listed.after = now.map_or(ObjectState::Full, InspectedObject::state);
                listed.bytes = outcome.map_or(0, |outcome| outcome.bytes as u64);
                listed.reason = match (listed.after, now, outcome) {
                    (_, None, _) => Some("it was unloaded meanwhile".to_owned()),
                    (ObjectState::Full, ..) => None,
                    (.., Some(outcome)) => {
                        outcome.relocated_failure.clone().or_else(|| outcome.read_only_failure.clone())
                    }
                    (.., None) => Some("the command was interrupted before".to_owned()),
                };
            }
        });
        if let Err(trouble) = looked {
            report.errors.push(format!("what has become of it is not known: {}", trouble.reason()));
        }
    }
}

/// Returns the state of an object after this outcome.
fn expected(outcome: &ObjectOutcome) -> ObjectState {
    match (&outcome.relocated_failure, &outcome.read_only_failure) {
        (Some(_), _) => ObjectState::Exposed,
        (None, Some(_)) => ObjectState::Relocated,
        (None, None) => ObjectState::Full,
    }
}

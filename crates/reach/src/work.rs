//! What is done while the process has stopped: planning its objects with what they map now, and
//! replacing their ranges.

use std::cell::Cell;
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use sopin_core::attributes::AttributeMap;
use sopin_core::branch_protection;
use sopin_core::once::{OnceCell, get_or_init};
use sopin_core::plan::{Backing, Replacement};
use sopin_core::private_memory::{NoRoom, PrivateMemory};
use sopin_core::settings::Settings;
use sopin_core::steps::{self, File};
use sopin_core::witness;
use sopin_inspect::maps::Mapping;
use sopin_inspect::memory::{Bytes, FileBytes};
use sopin_inspect::object::InspectedObject;
use sopin_inspect::process::Process;

use crate::calls::{self, CallError, Caller};
use crate::copies;
use crate::focus::Focus;
use crate::instructions::Instructions;
use crate::interpreter::{Interpreter, ObjectOutcome};
use crate::kernel_stores::KernelStores;
use crate::memory::WritableMemory;
use crate::object::{self, ObjectPlan, Surroundings};
use crate::passing::Passage;
use crate::prepared::PreparedFiles;
use crate::ptrace;
use crate::records;
use crate::report::PinRefusal;
use crate::restartable;
use crate::slowness::Slowness;
use crate::stop::StoppedProcess;
use crate::target::{attributes_of, failed};
use crate::task::{Task, status_of};

/// After this time a stop ends, and what is left is done in another one.
const LONG_STOP: Duration = Duration::from_millis(10);

/// The refusal at a moment at which no thread is in a system call, where the kernel does not show
/// restartable sequences.
pub const MAY_BE_IN_SEQUENCE: PinRefusal =
    PinRefusal::Unsuitable("it may be in a restartable sequence, which this kernel does not show");

/// The result of a round.
#[derive(Default)]
pub struct Round {
    /// What has become of the objects.
    pub outcomes: HashMap<u64, ObjectOutcome>,
    /// Whether the time was up before all objects were pinned.
    pub is_cut: bool,
}

/// What the work under a stop needs.
pub struct Work<'a> {
    pub process: &'a Process,
    pub instructions: Instructions,
    pub around: Surroundings<'a>,
    pub stores: KernelStores,
    pub attributes: AttributeMap,
    pub files: &'a PreparedFiles,
    pub writable: &'a WritableMemory,
    pub settings: &'a Settings,
    pub focus: &'a Focus<'a>,
    /// The copies in memory that the process maps, and those that were made for it.
    pub private: &'a Cell<PrivateMemory>,
}

impl Work<'_> {
    /// Pins objects until the time is up.
    pub fn run(&mut self, stopped: &StoppedProcess, done: &HashMap<u64, ObjectOutcome>) -> Result<Round, PinRefusal> {
        let found = self.around.found;
        if !self.instructions.are_in(found.maps, found.memory) {
            return Ok(Round { is_cut: true, ..Round::default() });
        }
        let task = choose(stopped)?;
        let mut caller = Caller::prepare(task, self.instructions, found, self.writable).map_err(not_prepared)?;
        let mut round = Round::default();
        let worked = self.with(&mut caller, done, &mut round);
        let outcome_of = |start| round.outcomes.get(&start).or_else(|| done.get(&start));
        records::note(self.process, found, outcome_of, self.around.mode, self.writable);
        let is_restored = caller.restore();
        match worked {
            Ok(()) if is_restored => Ok(round),
            Ok(()) => Err(lost()),
            Err(error) => Err(refusal("prepare the process", error)),
        }
    }

    fn with(
        &mut self,
        caller: &mut Caller<'_>,
        done: &HashMap<u64, ObjectOutcome>,
        round: &mut Round,
    ) -> Result<(), CallError> {
        // On a busy machine stopping takes long, too, which must not leave time for one object only.
        let begin = Instant::now();
        let page = calls::page();
        let readable = self.around.found.memory;
        let work = caller.map_anonymous(page as usize)?;
        // Without descriptors, what needs no file can still be replaced.
        let passage = match Passage::open(caller, readable, work) {
            Ok(passage) => Ok(passage),
            Err(CallError::Failed(errno)) => Err(errno),
            Err(error) => return Err(error),
        };
        let fresh = caller.frame_address();
        let mut interpreter = Interpreter {
            caller,
            passage: passage.as_ref().map_err(|errno| *errno),
            readable,
            writable: self.writable,
        };
        let mut result = Ok(());
        for object in self.around.found.objects {
            let is_wanted = object::is_exposed(object, self.around.mode)
                && self.focus.selects(object)
                && self.settings.selects(&object::path_of(object));
            if !is_wanted || done.contains_key(&object.span.0) {
                continue;
            }
            if begin.elapsed() > LONG_STOP && !round.outcomes.is_empty() || ptrace::is_interrupted() {
                round.is_cut = true;
                break;
            }
            match self.pin_object(object, &mut interpreter, fresh) {
                Ok(outcome) => drop(round.outcomes.insert(object.span.0, outcome)),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        if result.is_err_and(CallError::is_final) {
            return result;
        }
        let closed = passage.map_or(Ok(()), |passage| passage.close(caller));
        let unmapped = caller.unmap(work, page as usize);
        result.and(closed).and(unmapped)
    }

    fn pin_object(
        &self,
        object: &InspectedObject<'_>,
        interpreter: &mut Interpreter<'_, '_>,
        fresh: u64,
    ) -> Result<ObjectOutcome, CallError> {
        // What every new mapping of the process has is known only now that it has a new one.
        let reread = || attributes_of(self.process, Some(fresh as usize)).ok();
        let mut plan = match plan(object, &self.around, self.files, &self.stores, &self.attributes, reread) {
            Ok(Some(plan)) => plan,
            Ok(None) => return Ok(ObjectOutcome::default()),
            Err(reason) => return Ok(left_whole(&reason)),
        };
        // Before the copies: without this data the object would be exposed, and without those relocated.
        plan.bound_untouched_data(self.around.pagemap, |bytes| take_memory(self.private, bytes, self.settings));
        let prepared = self.files.get(&plan.mapping);
        let shared = prepared.and_then(|prepared| prepared.copy.as_ref().ok());
        let readable = self.around.found.memory;
        let (private, relocated) = (OnceCell::new(), OnceCell::new());
        let copy = |file| {
            let size = steps::contents(&plan.ranges, file).map(|(span, _)| span.len()).sum();
            take_memory(self.private, size, self.settings)?;
            private_copy(readable, &object::path_of(object), &plan.ranges, file)
        };
        let file = |file: File| -> Result<BorrowedFd<'_>, String> {
            let made = match file {
                File::Shared => return shared.map(|copy| copy.file.as_fd()).ok_or_else(|| "no copy".to_owned()),
                File::Private => get_or_init(&private, || copy(file)),
                File::Relocated => get_or_init(&relocated, || copy(file)),
            };
            made.as_ref().map(AsFd::as_fd).map_err(Clone::clone)
        };
        let mut outcome = interpreter.run(steps::moving(&plan.ranges, shared.is_some()), file)?;
        let is_text = |range: &&Replacement| range.backing == Backing::Copy && range.protection & libc::PROT_EXEC != 0;
        if let Some(text) = plan.ranges.iter().find(is_text).filter(|_| outcome.read_only_failure.is_none()) {
            outcome.witness = self.keep_visible(object, &plan, text.offset, interpreter)?;
        }
        outcome.relocated_failure = outcome.relocated_failure.or(plan.left.relocated_failure);
        outcome.read_only_failure = outcome.read_only_failure.or(plan.left.read_only_failure);
        Ok(outcome)
    }

    /// Maps a page of the object's file where nothing uses it, unless the file stays visible.
    fn keep_visible(
        &self,
        object: &InspectedObject<'_>,
        plan: &ObjectPlan,
        offset: u64,
        interpreter: &mut Interpreter<'_, '_>,
    ) -> Result<Option<u64>, CallError> {
        let found = self.around.found;
        let is_elsewhere = |mapping: &Mapping| {
            mapping.file == plan.file && mapping.path == plan.mapping.path && mapping.start >= object.span.1
        };
        let original = self.files.get(&plan.mapping).and_then(|prepared| prepared.original.as_ref());
        let Some(original) = original.filter(|_| !found.maps.iter().any(is_elsewhere)) else { return Ok(None) };
        let stack = found.maps.iter().find(|mapping| mapping.path == b"[stack]").map_or(0, |stack| stack.end as usize);
        let place = witness::place_for(plan.object.span, stack, calls::page() as usize).unwrap_or_default();
        // py-spy would take an executable page for the program's text.
        let is_program = found.objects.first().is_some_and(|first| first.span == object.span);
        let execution = libc::PROT_EXEC | branch_protection::strictest_bits();
        let protection = libc::PROT_READ | if is_program { 0 } else { execution };
        interpreter.map_witness(original.file.as_fd(), place, protection, offset, calls::page())
    }
}

/// Plans an object: takes from its ranges what must be left.
pub fn plan(
    object: &InspectedObject<'_>,
    around: &Surroundings<'_>,
    files: &PreparedFiles,
    stores: &KernelStores,
    attributes: &AttributeMap,
    reread: impl FnOnce() -> Option<AttributeMap>,
) -> Result<Option<ObjectPlan>, String> {
    let Some(mut plan) = object::plan(object, around)? else { return Ok(None) };
    match files.get(&plan.mapping) {
        None => return Err("it was loaded only now; try again".to_owned()),
        Some(prepared) if prepared.is_unwritable => plan.leave_unwritable(),
        Some(prepared) => match (&prepared.copy, &prepared.original) {
            (Ok(_), Some(original)) if !original.is_unchanged() => plan.leave_read_only("the file is changing"),
            (Ok(copy), Some(_)) if copy.has_data => plan.share_untouched_data(around.pagemap),
            // If the file is not there any more, the bytes come from the memory.
            (Ok(_), _) | (Err(_), None) => {}
            (Err(reason), Some(_)) => plan.leave_read_only(reason),
        },
    }
    plan.leave_where_stored(stores);
    let again = if plan.is_marked(attributes) { reread() } else { None };
    plan.leave_marked(again.as_ref().unwrap_or(attributes));
    Ok(Some(plan))
}

/// Counts a copy of so many bytes for a process, which is about to be made. Unlike the library, this
/// counts relocated text: its pages are private memory only where the loader has stored to them, and
/// otherwise they may be parts of a sparse file of any size.
pub fn take_memory(held: &Cell<PrivateMemory>, bytes: usize, settings: &Settings) -> Result<(), String> {
    let mut private = held.get();
    private.check(bytes, settings.private_limit).map_err(|reason| match reason {
        NoRoom::Limited => "the copies in memory would be larger than SOPIN_PRIVATE_LIMIT".to_owned(),
        NoRoom::Short => "too little memory is left for a copy".to_owned(),
    })?;
    private.add(bytes);
    held.set(private);
    Ok(())
}

/// Makes a copy of the bytes that a process has in memory.
fn private_copy(memory: &FileBytes, path: &[u8], ranges: &[Replacement], file: File) -> Result<OwnedFd, String> {
    let copy = copies::make_sealed(&copies::name_for(path), |to| {
        for (span, offset) in steps::contents(ranges, file) {
            for start in (span.start..span.end).step_by(steps::PIECE) {
                let bytes = memory.read_exact(start as u64, steps::PIECE.min(span.end - start))?;
                to.write_all_at(&bytes, offset + (start - span.start) as u64)?;
            }
        }
        Ok(())
    });
    copy.map_err(|error| format!("copy to private memory: {error}"))
}

/// Chooses the task that makes the system calls: one of the process itself that is in a system call,
/// because then it is in no restartable sequence, and under no seccomp filter, if there is one. While
/// all threads wait for children of vfork(2), it is such a child. Of several it is the one to which the
/// scheduler gives most time, because all others stand still meanwhile.
fn choose(stopped: &StoppedProcess) -> Result<&Task, PinRefusal> {
    let mut candidates = Vec::new();
    for task in stopped.tasks.iter().filter(|task| task.has_stopped()) {
        let registers = match task.registers() {
            Err(Errno::XDEV) => return Err(PinRefusal::OtherMachine),
            Err(_) => continue,
            Ok(registers) => registers,
        };
        // A worker of the kernel's (io_uring, vhost) never executes instructions of the program. Its
        // registers are zero.
        if registers.instruction() == 0 {
            continue;
        }
        let is_filtered = status_of(task.process, task.id).is_some_and(|status| status.is_filtered);
        let is_outside = !task.is_in_call(&registers);
        let slowness = Slowness::of(task.id);
        // Where the kernel shows the sequences, a task can be made to leave its own.
        let is_too_slow = restartable::are_shown() && slowness.is_extreme();
        let rank = (task.process != stopped.pid, is_filtered, is_too_slow, is_outside, slowness);
        candidates.push((rank, task));
    }
    let ((_, is_filtered, ..), task) =
        candidates.into_iter().min_by_key(|(rank, _)| *rank).ok_or(PinRefusal::DoesNotStop)?;
    if ptrace::dispatches_calls(task.id) {
        return Err(PinRefusal::Unsuitable("it handles its system calls itself (PR_SET_SYSCALL_USER_DISPATCH)"));
    }
    if is_filtered && ptrace::set_options(task.id, ptrace::MARK_CALLS | ptrace::SUSPEND_SECCOMP).is_err() {
        return Err(PinRefusal::Filtered);
    }
    Ok(task)
}

fn not_prepared(error: CallError) -> PinRefusal {
    if error == CallError::Failed(Errno::NOTSUP) { MAY_BE_IN_SEQUENCE } else { refusal("mmap", error) }
}

fn refusal(operation: &str, error: CallError) -> PinRefusal {
    match error {
        CallError::Failed(errno) => failed(operation, errno),
        CallError::NotBegun => PinRefusal::DoesNotRun,
        CallError::Lost => lost(),
    }
}

fn lost() -> PinRefusal {
    PinRefusal::Failed("one of its tasks did not come back from a system call".to_owned())
}

/// Returns the outcome for an object that is left as a whole.
pub fn left_whole(reason: &str) -> ObjectOutcome {
    let mut outcome = ObjectOutcome::default();
    outcome.note(Backing::Anonymous, reason);
    outcome
}

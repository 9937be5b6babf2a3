//! The writable ranges of objects whose code may have run, in a process in which this thread is not
//! alone. They are replaced while everything else has stopped that could store to them
//! ([`crate::stopped`]). Before that, while the program runs, the other ranges of these objects have
//! been replaced.
//!
//! A stop takes at most about 10 ms and the time for one object: what is left is replaced in
//! another one. While everything has stopped, the ranges are found and replaced, and nothing else is
//! done: before, pages are read in and it is decided what becomes of untouched data; afterwards
//! results are recorded and reported. All replacements are anonymous memory: looking for copies in a
//! store could take long, and a descriptor that is kept for each object until then would take those
//! of the program.

use sopin_core::cause::Cause;
use sopin_core::memory::ProcessMemory;
use sopin_core::mode::Mode;
use sopin_core::plan::{self, Outlook, PlanInputs};
use sopin_core::settings::Level;
use sopin_core::sys;
use sopin_core::vmas::{FileId, Maps, Vma};

use super::Sweep;
use super::untouched::{self, UntouchedData};
use crate::candidates::Candidate;
use crate::object_path::ObjectPath;
use crate::published::Account;
use crate::remap::{self, Outcome};
use crate::report::Report;
use crate::stopped;
use crate::workspace::Workspace;

/// After this time, in nanoseconds, a stop ends.
const ROUND: u64 = 10_000_000;

/// After how many nanoseconds a stop is tried again that was late, each time: a thread that could not
/// be interrupted may then have had what it waited for.
const PAUSES: [i64; 3] = [20_000_000, 80_000_000, 320_000_000];

/// An object of which writable ranges are left.
#[derive(Clone, Copy)]
pub struct Unfinished {
    candidate: Candidate,
    /// The file that it was loaded from.
    original: FileId,
    /// The result for its other ranges.
    report: Report,
    /// Whether the result differs from what was recorded.
    is_changed: bool,
    /// The indices of its path in [`Workspace::paths`](crate::workspace::Workspace::paths).
    path: (usize, usize),
    /// The decision about data to which no code has stored.
    pub(super) untouched: UntouchedData,
    /// The result for its writable ranges, once it was tried to replace them.
    tried: Option<Writable>,
}

/// The result for the writable ranges of an object.
#[derive(Clone, Copy)]
struct Writable {
    outlook: Outlook,
    outcome: Outcome,
    /// Whether the dynamic section is in one of the ranges.
    has_dynamic: bool,
    /// The reason for leaving untouched data. `None` if all of it was replaced.
    untouched: Option<Cause>,
}

impl Unfinished {
    /// Plans to replace its writable ranges, which are among the VMAs in the workspace.
    fn plan(&self, work: &mut Workspace, mode: Mode) -> Result<Outlook, Cause> {
        // The others map copies by now.
        let is_left = |vma: &Vma| vma.is_writable() || vma.protection == libc::PROT_NONE;
        work.vmas.retain(|vma| vma.file == self.original && is_left(vma));
        let has_text_relocations = self.candidate.dynamic.has_text_relocations;
        let inputs = PlanInputs { mode, has_text_relocations, stores_possible: false, may_have_run: true };
        plan::plan(&self.candidate.object, &work.vmas, inputs, &mut work.replacements).map_err(Cause::no_memory)
    }
}

impl Sweep<'_> {
    /// Notes an object whose writable ranges have been left. It was loaded from the file `original`.
    #[cold]
    #[inline(never)]
    pub(super) fn note_unfinished(
        &mut self,
        candidate: &Candidate,
        original: FileId,
        path: ObjectPath<'_>,
        report: Report,
        is_changed: bool,
    ) -> Result<(), Cause> {
        let start = self.work.paths.len();
        self.work.paths.extend(path.terminated()).map_err(Cause::no_memory)?;
        let path = (start, self.work.paths.len());
        let (candidate, untouched) = (*candidate, UntouchedData::default());
        let mut unfinished = Unfinished { candidate, original, report, is_changed, path, untouched, tried: None };
        unfinished.plan(self.work, self.reporter.settings().mode)?;
        // Code may store to some of the data until everything has stopped, so this is the most of it.
        unfinished.untouched = self.decide_on_untouched_data(false, false)?;
        self.read_pages_in();
        self.work.unfinished.push(unfinished).map_err(Cause::no_memory)
    }

    /// Has the kernel read the pages of the ranges to be copied that the program has never touched,
    /// while nothing has stopped: their file may be on a slow disk.
    fn read_pages_in(&self) {
        let page = sys::page_size();
        for range in self.work.replacements.iter() {
            for address in (range.span.start..range.span.end).step_by(page) {
                // A page that cannot be read now cannot be copied later either, which is reported then.
                let _ = self.memory.read::<u8>(address);
            }
        }
    }

    /// Replaces the writable ranges that were left, if everything else can be stopped, and records
    /// and reports the result.
    pub(super) fn finish(&mut self) -> Result<(), Cause> {
        let (mut next, mut stops, mut tasks, mut longest) = (0, 0, 0, 0);
        let mut pauses = PAUSES.into_iter();
        while next < self.work.unfinished.len() {
            let begin = next;
            let ran = match self.signals {
                Ok(()) => stopped::run(&mut || next = self.replace_for_a_round(next)),
                Err(errno) => Err(stopped::NotStopped::Call("rt_sigprocmask", errno)),
            };
            match ran {
                Ok(stop) => {
                    stops += 1;
                    tasks = stop.tasks.max(tasks);
                    longest = stop.ns.max(longest);
                    if next == begin {
                        break;
                    }
                }
                Err(reason) => {
                    // The helper may have been killed while it stored a result.
                    self.work.unfinished.iter_mut().skip(begin).for_each(|unfinished| unfinished.tried = None);
                    next = begin;
                    if matches!(reason, stopped::NotStopped::Late(_))
                        && let Some(pause) = pauses.next()
                    {
                        sys::nap(pause);
                        continue;
                    }
                    self.reporter.line(Level::Info, format_args!("the other threads were not stopped: {reason}"));
                    break;
                }
            }
        }
        if stops != 0 {
            let micros = longest / 1000;
            let stopped = format_args!("{next} objects pinned while {tasks} other threads had stopped");
            self.reporter.line(Level::Info, format_args!("{stopped}, {stops} times, for at most {micros} us"));
        }
        (0..self.work.unfinished.len()).try_for_each(|index| {
            let unfinished = self.work.unfinished.get(index).copied();
            unfinished.map_or(Ok(()), |unfinished| self.conclude(&unfinished))
        })
    }

    /// Replaces the ranges of the objects from the one of this index on, until the time is up.
    /// Returns the index of the first that was not tried.
    fn replace_for_a_round(&mut self, first: usize) -> usize {
        let begin = sys::monotonic_ns();
        let memory = ProcessMemory::own();
        // This is the helper, another task than the one that has begun the sweep. It may be killed while it
        // stores, so it does not take the memory of the workspace, and gives none back to it.
        let Ok(mut maps) = Maps::open() else { return first };
        let mut next = first;
        while let Some(unfinished) = self.work.unfinished.get(next).copied() {
            if next > first && sys::monotonic_ns() - begin > ROUND {
                break;
            }
            let tried = self.replace_writable(&unfinished, &mut maps, &memory);
            if let Some(slot) = self.work.unfinished.get_mut(next) {
                slot.tried = tried.ok();
            }
            next += 1;
        }
        next
    }

    /// Replaces the writable ranges of one object, while everything has stopped.
    fn replace_writable(
        &mut self,
        unfinished: &Unfinished,
        maps: &mut Maps,
        memory: &ProcessMemory,
    ) -> Result<Writable, Cause> {
        let Unfinished { candidate, path, .. } = unfinished;
        let work = &mut *self.work;
        maps.file_backed_in(candidate.object.span, &mut work.vmas).map_err(Cause::no_memory)?;
        let outlook = unfinished.plan(work, self.reporter.settings().mode)?;
        // The data is looked for again, because code may have stored to it. The page map is open already:
        // the thread that has begun the sweep has opened it.
        let untouched = match unfinished.untouched.refusal {
            Some(cause) => (untouched::leave(&self.sources, work)? != 0).then_some(cause),
            None => None,
        };
        let left = self.marked.leave(&mut work.replacements);
        let path = ObjectPath::kept(work.paths.get(path.0..path.1).unwrap_or_default());
        // SAFETY: the contract of `replace` holds.
        // * The plan has just made the ranges from the object's mappings, with their protection, and
        //   nothing else executes code of this process, which could change them. So the object cannot
        //   be unloaded either.
        // * No range is to get the bytes of a file.
        // * No thread runs that could store to them, and the kernel does not (`stopped::run`).
        let outcome = unsafe { remap::replace(memory, path, &work.replacements, None, |_| Ok(())) };
        let outcome = left.note_in(outcome);
        let dynamic = candidate.object.dynamic.start;
        let has_dynamic = work.replacements.iter().any(|range| range.span.contains(dynamic));
        Ok(Writable { outlook, outcome, has_dynamic, untouched })
    }

    /// Records and reports the result for an object.
    fn conclude(&mut self, unfinished: &Unfinished) -> Result<(), Cause> {
        let Unfinished { candidate, report, is_changed, tried, .. } = unfinished;
        let (mut report, mut is_changed) = (*report, *is_changed);
        if let Some(Writable { outlook, outcome, has_dynamic, untouched }) = tried {
            report.add(outlook, outcome, *untouched);
            is_changed |= outcome.bytes != 0;
            let Some((mut entry, published)) = self.registry.look_up(candidate.loaded.headers) else { return Ok(()) };
            if *has_dynamic {
                entry.set_file(outcome.file_of_anonymous());
            }
            let private = unfinished.untouched.bytes_in(outcome);
            self.private_memory.add(private);
            entry.private += private;
            let (reached, cause) = report.reached(self.reporter.settings().mode);
            let bytes = published.bytes as usize + outcome.bytes;
            self.record(&candidate.loaded, entry, &Account { reached, span: candidate.object.span, bytes, cause })?;
        }
        if !is_changed {
            return Ok(());
        }
        let (start, end) = unfinished.path;
        let path = ObjectPath::kept(self.work.paths.get(start..end).unwrap_or_default());
        let beside = if candidate.may_have_run() { &self.work.beside[..] } else { &[] };
        self.reporter.pinned(path, &report, beside);
        Ok(())
    }
}

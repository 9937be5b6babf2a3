//! One sweep under the library's lock: it collects the candidates, drops those that are not
//! ready, and pins the others. The cause of the sweep, [`loading`] or a [`request`], decides
//! which objects are candidates and what proves that they are ready. The steps that both
//! kinds share are in this module.

use sopin_core::cause::{Cause, Operation};
use sopin_core::memory::ProcessMemory;
use sopin_core::once::{OnceCell, get_or_init};
use sopin_core::pages::PageVec;
use sopin_core::private_memory::PrivateMemory;
use sopin_core::slices;
use sopin_core::sys::{self, ThreadIds};
use sopin_core::vmas::{FileId, Maps, Vma};

use crate::candidates::{self, Candidate};
use crate::large_copies::LargeCopies;
use crate::loader::Loaded;
use crate::lock::Guard;
use crate::marked_ranges::MarkedRanges;
use crate::own;
use crate::published::Account;
use crate::registry::{Entry, Registry};
use crate::report::Reporter;
use crate::sources::{KnownStores, Sources};
use crate::state::Parts;
use crate::stopped::{self, Alone};
use crate::workspace::Workspace;
use crate::write_safety::Assessment;

mod beside;
mod forgetting;
mod large;
mod loading;
mod pin;
mod request;
mod unfinished;
mod untouched;

pub use forgetting::forget_unloaded;
pub use loading::{Root, Swept};
pub use request::{Verdict, Wanted};
pub use unfinished::Unfinished;

/// A sweep under way.
pub struct Sweep<'a> {
    registry: &'a mut Registry,
    reporter: &'a mut Reporter,
    private_memory: &'a mut PrivateMemory,
    known_stores: &'a mut KnownStores,
    /// Room for one path.
    path_room: &'a mut [u8],
    work: &'a mut Workspace,
    /// Why signals are not blocked in this thread, if they are not.
    signals: sys::Result<()>,
    /// The proof that nothing but this thread can store to the process's memory, once it was looked for.
    alone: OnceCell<Option<Alone>>,
    memory: &'a ProcessMemory,
    /// The ids of this thread.
    caller: ThreadIds,
    in_other_namespace: bool,
    /// How many of the first objects of the loader's list are certainly recorded.
    recorded: usize,
    /// Whether this sweep has found or made a record of every object of the loader's list.
    has_recorded_all: bool,
    sources: Sources,
    large: &'a mut LargeCopies,
    marked: MarkedRanges,
}

impl<'a> Sweep<'a> {
    /// Makes a sweep without candidates. `large` has the copies that earlier sweeps of the same
    /// event have asked for.
    pub fn new(
        guard: &'a mut Guard,
        memory: &'a ProcessMemory,
        large: &'a mut LargeCopies,
        in_other_namespace: bool,
    ) -> Self {
        let (signals, caller, shown) = (guard.blocks_signals(), guard.caller(), guard.shown_rights());
        memory.know_process(caller.process);
        let Parts { registry, reporter, private_memory, known_stores, path_room, workspace } = guard.parts();
        Self {
            registry,
            reporter,
            private_memory,
            known_stores,
            path_room,
            work: workspace,
            signals,
            alone: OnceCell::new(),
            memory,
            caller,
            in_other_namespace,
            recorded: 0,
            has_recorded_all: false,
            sources: Sources::of(caller, shown),
            large,
            marked: MarkedRanges::default(),
        }
    }

    /// Notes that the first `recorded` objects of the loader's list are recorded.
    pub const fn know_recorded(&mut self, recorded: usize) {
        self.recorded = recorded;
    }

    /// Returns whether this sweep has found or made a record of every object of the loader's list.
    pub const fn has_recorded_all(&self) -> bool {
        self.has_recorded_all
    }

    /// Borrows the settings and the log.
    pub const fn reporter(&mut self) -> &mut Reporter {
        self.reporter
    }

    /// Opens the mappings of this process for the task with these ids, which calls this.
    /// [`Sweep::close_maps`] keeps their memory for the next sweep.
    fn open_maps(&mut self, caller: ThreadIds) -> Result<Maps, Cause> {
        Maps::open_with(core::mem::take(&mut self.work.maps_room), caller).map_err(Operation::OpenMaps.failed())
    }

    fn close_maps(&mut self, maps: Maps) {
        self.work.maps_room = maps.into_room();
    }

    /// Adds those of `objects` to the candidates that are `wanted` and can be read.
    fn collect(
        &mut self,
        objects: &[Loaded],
        mut wanted: impl FnMut(&mut Registry, &Loaded) -> bool,
    ) -> Result<(), Cause> {
        for loaded in objects {
            if wanted(self.registry, loaded)
                && let Ok(candidate) = Candidate::read(self.memory, *loaded)
            {
                self.work.candidates.push(candidate).map_err(Cause::no_memory)?;
            }
        }
        Ok(())
    }

    /// Marks the candidates at `roots` and those on which they depend.
    #[cold]
    #[inline(never)]
    fn mark(&mut self, objects: &[Loaded], roots: impl IntoIterator<Item = usize>) -> Result<(), Cause> {
        let Workspace { candidates, groups, .. } = &mut *self.work;
        candidates::mark_groups(self.memory, self.registry, objects, candidates, groups, roots)
    }

    /// Marks the candidates that depend on the one at `root`, which loaders initialise before them.
    #[cold]
    #[inline(never)]
    fn mark_dependents(&mut self, root: usize, objects: &[Loaded]) -> Result<(), Cause> {
        self.mark(objects, [root])?;
        let Workspace { candidates, groups, .. } = &mut *self.work;
        candidates::mark_dependents(self.memory, candidates, groups, root)
    }

    /// Returns why the writable ranges of `candidate` must be left while the program runs, if they must.
    fn reason_to_leave(&self, assessment: Assessment, candidate: &Candidate) -> Option<Cause> {
        assessment.reason_to_leave(self.signals, candidate).filter(|_| !is_alone(&self.alone, &self.marked))
    }

    /// Returns the index of the first candidate for which `is_it` returns true.
    fn position(&self, is_it: impl FnMut(&Candidate) -> bool) -> Option<usize> {
        self.work.candidates.iter().position(is_it)
    }

    /// Drops the candidates for which `ready` returns false. It gets each candidate, the parts of
    /// its RELRO that still map the file, and its registry entry.
    fn keep(
        &mut self,
        maps: &mut Maps,
        mut ready: impl FnMut(&Candidate, &[Vma], Option<Entry>) -> bool,
    ) -> Result<(), Cause> {
        let Workspace { candidates, vmas, .. } = &mut *self.work;
        candidates.try_retain(|candidate| {
            maps.file_backed_in(candidate.object.relro, vmas).map_err(Operation::ReadMaps.failed())?;
            Ok(ready(candidate, vmas, self.registry.recorded(candidate.loaded.headers)))
        })
    }

    /// Pins all candidates. Those that may have run come first, because others are left because
    /// of them and the log must name the reason first. Then come the smallest, so that a bound
    /// on memory for private copies leaves the largest objects. This library is the last one: the
    /// sweep executes its text, whose pages the kernel must map again after it was replaced.
    fn pin_candidates(&mut self, assessment: Assessment, maps: &mut Maps) -> Result<(), Cause> {
        let rank = |candidate: &Candidate| {
            let span = candidate.object.span;
            (!candidate.may_have_run(), own::is_in(span), span.len())
        };
        slices::sort_by_key(&mut self.work.candidates, rank);
        let path_room = core::mem::take(&mut self.path_room);
        let pinned = (0..self.work.candidates.len()).try_for_each(|index| {
            let candidate = self.work.candidates.get(index).copied();
            candidate.map_or(Ok(()), |candidate| self.pin(&candidate, assessment, maps, path_room))
        });
        self.path_room = path_room;
        pinned.and_then(|()| self.finish())
    }

    fn record(&mut self, loaded: &Loaded, mut entry: Entry, account: &Account) -> Result<(), Cause> {
        entry.in_other_namespace = self.in_other_namespace;
        self.registry.record(loaded, entry, account).map_err(Cause::no_memory)
    }
}

/// Returns whether nothing but this thread can store to the process's memory until the sweep ends.
/// It makes no task during a sweep that has the proof: it starts no helper then.
fn is_alone(alone: &OnceCell<Option<Alone>>, marked: &MarkedRanges) -> bool {
    get_or_init(alone, || stopped::prove_alone(|| marked.kernel_store_now())).is_some()
}

/// Returns whether an object is the vDSO, which the kernel maps and which has no file.
fn is_vdso(loaded: &Loaded) -> bool {
    loaded.base == sys::vdso_address() && loaded.base != 0
}

/// Returns the file that is mapped at `address`. Anonymous memory has inode 0.
fn file_at(address: usize, maps: &mut Maps) -> FileId {
    let vma = maps.file_backed_at(address).ok().flatten();
    vma.map(|vma| vma.file).unwrap_or_default()
}

impl Drop for Sweep<'_> {
    fn drop(&mut self) {
        self.work.candidates.clear();
        self.work.unreadable.clear();
        self.work.beside.clear();
        self.work.unfinished.clear();
        self.work.paths.clear();
        // This memory is rarely used and large, and stays resident in a host that has locked its
        // memory. So it is unmapped after each sweep.
        self.work.copied = PageVec::new();
    }
}

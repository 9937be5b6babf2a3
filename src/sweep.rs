//! The steps of one sweep under the lock: find what is new, keep what is
//! proven, pin each of it.

use sopin_core::cause::Cause;
use sopin_core::memory::OwnMemory;
use sopin_core::pages::PageVec;
use sopin_core::records::Reached;
use sopin_core::settings::Level;
use sopin_core::slices;
use sopin_core::sys::{self, Errno};
use sopin_core::vmas::{FileId, Maps};

use crate::candidates::{self, Candidate};
use crate::freshness;
use crate::large_copies::LargeCopies;
use crate::loader::{Counters, Loaded};
use crate::lock::Guard;
use crate::marked_ranges::MarkedRanges;
use crate::object_path::{ObjectPath, PathBuffer};
use crate::original;
use crate::private_memory::PrivateMemory;
use crate::published::Account;
use crate::registry::{Entry, Registry};
use crate::report::Reporter;
use crate::sources::{KnownStores, Sources};
use crate::state::Parts;
use crate::workspace::Workspace;
use crate::write_safety::{Announcement, Assessment};

mod beside;
mod large;
mod pin;
mod request;

use large::Found;
pub use large::Swept;
pub use request::{Verdict, Wanted};

/// How to find the object that the event is about.
#[derive(Clone, Copy)]
pub enum Root {
    /// The one with this address inside.
    Containing(usize),
    /// The one whose dynamic section is here.
    Dynamic(usize),
}

impl Root {
    /// Whether the loader's lock is held: nothing is being loaded or unloaded
    /// but by this thread.
    fn has_loader_lock(self) -> bool {
        matches!(self, Self::Containing(_))
    }

    /// The object that it is, by the addresses that objects begin at: for one
    /// whose headers cannot be read.
    fn among(self, objects: &[Loaded]) -> Option<&Loaded> {
        let (Self::Containing(address) | Self::Dynamic(address)) = self;
        objects.iter().filter(|loaded| loaded.base <= address).max_by_key(|loaded| loaded.base)
    }

    fn is(self, candidate: &Candidate) -> bool {
        match self {
            Self::Containing(address) => candidate.object.span.contains(address),
            Self::Dynamic(address) => candidate.object.dynamic.start == address,
        }
    }
}

/// A sweep under way.
pub struct Sweep<'a> {
    registry: &'a mut Registry,
    reporter: &'a mut Reporter,
    private_memory: &'a mut PrivateMemory,
    known_stores: &'a mut KnownStores,
    paths: &'a mut PathBuffer,
    work: &'a mut Workspace,
    /// Whether signal handlers are kept from running in this thread, or why not.
    signals: sys::Result<()>,
    memory: &'a OwnMemory,
    in_other_namespace: bool,
    /// The host has asked for it: objects that other threads are about to pin count too.
    is_request: bool,
    sources: Sources,
    large: &'a mut LargeCopies,
    marked: MarkedRanges,
}

impl<'a> Sweep<'a> {
    /// A sweep that has found nothing yet, with the copies that earlier ones of the
    /// same event have asked for.
    pub fn new(
        guard: &'a mut Guard,
        memory: &'a OwnMemory,
        large: &'a mut LargeCopies,
        in_other_namespace: bool,
    ) -> Self {
        let signals = guard.blocks_signals();
        let Parts { registry, reporter, private_memory, known_stores, paths, workspace: work } = guard.parts();
        Self {
            registry,
            reporter,
            private_memory,
            known_stores,
            paths,
            work,
            signals,
            memory,
            in_other_namespace,
            is_request: false,
            sources: Sources::default(),
            large,
            marked: MarkedRanges::default(),
        }
    }

    /// Returns what messages go through.
    pub const fn reporter(&mut self) -> &mut Reporter {
        self.reporter
    }

    /// Pins what is new in `objects`, the loader's list at `counters`. `missed`:
    /// how many sweeps had been missed before the list was taken.
    pub fn run(&mut self, objects: &[Loaded], root: Root, counters: Counters, missed: u32) -> Result<Swept, Cause> {
        self.large.check(counters.subs);
        let found = self.pin_new(objects, root, counters)?;
        if found == Found::Everything && !self.in_other_namespace {
            freshness::set_counters(self.registry, counters);
            freshness::make_up_for_missed_sweeps(self.registry, missed);
        }
        Ok(if found == Found::LargeObjects { Swept::NeedsCopies } else { Swept::Done })
    }

    /// Reports that the sweep was given up because of `cause`.
    pub fn give_up(&mut self, objects: &[Loaded], root: Root, cause: Cause) {
        let name = ObjectPath::of_group(self.memory, root.among(objects), self.paths);
        self.reporter.exposed(name, cause, &[]);
    }

    /// What is recorded now of `objects`.
    fn pin_new(&mut self, objects: &[Loaded], root: Root, counters: Counters) -> Result<Found, Cause> {
        let mut maps = match Maps::open() {
            Ok(maps) => maps,
            Err(errno) => return self.leave_all(objects, errno),
        };
        let recorded = self.registry.all_published().len();
        let is_first = recorded == 0 || self.large.recorded_at_first == Some(recorded);
        let has_unloaded = counters.subs != freshness::recorded_counters().subs;
        let is_up_to_date = !has_unloaded || root.has_loader_lock();
        self.find_candidates(objects, has_unloaded || self.in_other_namespace, &mut maps)?;
        let Some(root_index) = self.work.candidates.iter().position(|candidate| root.is(candidate)) else {
            let is_root =
                |found: &&(Loaded, _)| root.among(objects).is_some_and(|root| root.headers == found.0.headers);
            if let Some((loaded, cause)) = self.work.unreadable.iter().find(is_root).copied() {
                if !root.has_loader_lock() {
                    self.leave(&loaded, cause)?;
                } else if self.work.candidates.is_empty() {
                    self.leave_unreadable()?;
                } else {
                    // What came with it is for the next sweep to find.
                    return Err(cause);
                }
            }
            // Known already: the group came with it. What else is new belongs
            // to another thread, and the loader's lock may not be held at all:
            // at startup it is not.
            return Ok(Found::all_if(
                is_up_to_date && self.work.candidates.is_empty() && self.work.unreadable.is_empty(),
            ));
        };
        self.forget_replaced();
        let mut unreadable = self.large.unreadable;
        if root.has_loader_lock() {
            unreadable = self.leave_unreadable()?.or(unreadable);
            if has_unloaded {
                forget_unlisted(self.registry, self.private_memory, objects);
            }
        }
        let all = self.work.candidates.len();
        self.keep_relocated(root, root_index, objects, &mut maps)?;
        let assessment = if root.has_loader_lock() {
            let root = self.work.candidates.iter().position(|candidate| root.is(candidate)).unwrap_or(usize::MAX);
            let (memory, has_missed) = (self.memory, freshness::has_missed_a_sweep());
            Announcement { memory, objects, root, is_first, has_missed, unreadable }.assess(&mut self.work.candidates)
        } else {
            Assessment::AFTER_RUNNING
        };
        if self.ask_for_copies(counters.subs, &mut maps) {
            self.large.unreadable = unreadable;
            self.large.recorded_at_first = is_first.then(|| self.registry.all_published().len());
            return Ok(Found::LargeObjects);
        }
        self.name_those_beside(assessment)?;
        self.pin_candidates(assessment, &mut maps)?;
        let kept = self.work.candidates.len();
        self.reporter.line(Level::Debug, format_args!("sweep: {all} objects new, {kept} of them ready to be pinned"));
        Ok(Found::all_if(is_up_to_date && kept == all && self.work.unreadable.is_empty()))
    }

    /// Pins all candidates: those that others are left for come first, and are named
    /// first; then the smallest, since where memory for private copies is bounded the
    /// largest objects are left.
    fn pin_candidates(&mut self, assessment: Assessment, maps: &mut Maps) -> Result<(), Cause> {
        let rank = |candidate: &Candidate| (!candidate.may_have_run(), candidate.object.span.len());
        slices::sort_by_key(&mut self.work.candidates, rank);
        for index in 0..self.work.candidates.len() {
            let Some(candidate) = self.work.candidates.get(index).copied() else { break };
            self.pin(&candidate, assessment, maps)?;
        }
        Ok(())
    }

    /// Collects the objects that are not recorded. After an unload an object
    /// may have come to lie where a recorded one was: then what is mapped
    /// decides. Those that cannot be read are kept apart; they may just have been
    /// unloaded.
    fn find_candidates(&mut self, objects: &[Loaded], has_unloaded: bool, maps: &mut Maps) -> Result<(), Cause> {
        for loaded in objects {
            let recorded = self.registry.recorded(loaded.headers);
            if recorded.is_some() && !has_unloaded {
                continue;
            }
            match Candidate::read(self.memory, *loaded) {
                Ok(candidate) if recorded.is_none_or(|entry| is_replaced(&entry, &candidate, maps)) => {
                    self.work.candidates.push(candidate).map_err(no_memory)?;
                }
                Err(cause) if recorded.is_none() => self.work.unreadable.push((*loaded, cause)).map_err(no_memory)?,
                Ok(_) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Forgets the objects in whose place the candidates have come.
    fn forget_replaced(&mut self) {
        for candidate in self.work.candidates.iter() {
            if let Some(entry) = self.registry.forget(candidate.loaded.headers) {
                release(&entry, self.private_memory);
            }
        }
    }

    /// Reports the new objects that cannot be read; why one cannot that may have run.
    fn leave_unreadable(&mut self) -> Result<Option<Cause>, Cause> {
        let mut reason = None;
        while let Some((loaded, cause)) = self.work.unreadable.last().copied() {
            self.leave(&loaded, cause)?;
            self.work.unreadable.truncate(self.work.unreadable.len() - 1);
            reason = reason.or((!is_vdso(&loaded)).then_some(cause));
        }
        Ok(reason)
    }

    /// Drops the candidates that are not proven relocated and, where neither the
    /// loader's lock nor its list is held, those that might be unloaded meanwhile.
    /// Without the lock, a group of which an object has yet to announce itself is
    /// dropped too, because that can be pinned whole then, and what those of the
    /// group that have run can reach must be judged together with it.
    fn keep_relocated(
        &mut self,
        root: Root,
        root_index: usize,
        objects: &[Loaded],
        maps: &mut Maps,
    ) -> Result<(), Cause> {
        let has_loader_lock = root.has_loader_lock();
        if has_loader_lock && self.all_are_relocated(maps)? {
            return Ok(());
        }
        let memory = self.memory;
        let Workspace { candidates, groups, vmas, .. } = &mut *self.work;
        // The loader relocates the executable's group before any code runs.
        let executable = objects.first().map(|first| first.headers);
        let executable = candidates.iter().position(|candidate| Some(candidate.loaded.headers) == executable);
        let roots = [Some(root_index), executable.filter(|_| has_loader_lock)];
        candidates::mark_groups(memory, self.registry, objects, candidates, groups, roots.into_iter().flatten())?;
        let has_missed = freshness::has_missed_a_sweep();
        if !has_loader_lock && !has_missed {
            let will_announce = |candidate: &Candidate| {
                (candidate.is_in_initialised_group || self.in_other_namespace)
                    && candidate.will_announce(memory) == Ok(true)
            };
            if candidates.iter().any(will_announce) {
                candidates.truncate(0);
                return Ok(());
            }
        }
        let mut kept = 0;
        for index in 0..candidates.len() {
            let Some(candidate) = candidates.get(index).copied() else { break };
            maps.file_backed_in(candidate.object.relro, vmas).map_err(no_maps)?;
            let is_ready = if has_loader_lock {
                candidate.is_relocated(vmas)
            } else {
                (candidate.is_in_initialised_group || self.in_other_namespace)
                    && candidate.is_relocated_after_opening(vmas, memory)
            };
            if let (true, Some(slot)) = (is_ready, candidates.get_mut(kept)) {
                *slot = candidate;
                kept += 1;
            }
        }
        candidates.truncate(kept);
        Ok(())
    }

    /// Whether every candidate's own mappings prove that it is relocated.
    fn all_are_relocated(&mut self, maps: &mut Maps) -> Result<bool, Cause> {
        for candidate in self.work.candidates.iter() {
            maps.file_backed_in(candidate.object.relro, &mut self.work.vmas).map_err(no_maps)?;
            if !candidate.is_relocated(&self.work.vmas) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn record(&mut self, loaded: &Loaded, mut entry: Entry, account: &Account) -> Result<(), Cause> {
        entry.in_other_namespace = self.in_other_namespace;
        self.registry.record(loaded, entry, account).map_err(no_memory)
    }

    /// Records an object as left alone because of `cause`.
    fn leave(&mut self, loaded: &Loaded, cause: Cause) -> Result<(), Cause> {
        let is_vdso = is_vdso(loaded);
        let account = if is_vdso {
            Account { reached: Reached::NoFile, ..Account::default() }
        } else {
            Account { reached: Reached::Exposed, cause: Some(cause), ..Account::default() }
        };
        self.record(loaded, Entry::default(), &account)?;
        if !is_vdso {
            let name = ObjectPath::named_by_loader(self.memory, loaded, self.paths);
            self.reporter.exposed(name, cause, &[]);
        }
        Ok(())
    }

    /// The mappings cannot be read: leaves every new object alone. Those that
    /// came while the process was short of something are tried again later.
    fn leave_all(&mut self, objects: &[Loaded], errno: Errno) -> Result<Found, Cause> {
        let cause = Cause::call("open /proc/self/maps", errno);
        if matches!(errno.0, libc::EMFILE | libc::ENFILE | libc::ENOMEM) {
            return Err(cause);
        }
        for loaded in objects {
            if self.registry.recorded(loaded.headers).is_none() {
                self.leave(loaded, cause)?;
            }
        }
        Ok(Found::Everything)
    }
}

/// Whether an object is the vDSO, which is the kernel's own.
fn is_vdso(loaded: &Loaded) -> bool {
    loaded.base == sys::vdso_address() && loaded.base != 0
}

fn no_memory(errno: Errno) -> Cause {
    Cause::call("mmap", errno)
}

fn no_maps(errno: Errno) -> Cause {
    Cause::call("read /proc/self/maps", errno)
}

/// Forgets the objects that are no longer in `objects`, the loader's list.
pub fn forget_unloaded(Parts { registry, private_memory, .. }: &mut Parts<'_>, objects: &[Loaded]) {
    forget_unlisted(registry, private_memory, objects);
}

fn forget_unlisted(registry: &mut Registry, private_memory: &mut PrivateMemory, objects: &[Loaded]) {
    registry.forget_unlisted(
        objects,
        // Objects of other namespaces are not in the list; one that is gone
        // has left its address unmapped or to an object that will be new.
        |headers, entry| !entry.in_other_namespace || !sys::is_readable(headers),
        |entry| release(entry, private_memory),
    );
}

/// Gives up what an object that was forgotten has held.
fn release(entry: &Entry, private_memory: &mut PrivateMemory) {
    private_memory.subtract(entry.private);
    original::unmap_witness(entry.witness);
}

/// Whether `candidate` has taken the place of the object recorded in `entry`.
fn is_replaced(entry: &Entry, candidate: &Candidate, maps: &mut Maps) -> bool {
    let dynamic = candidate.object.dynamic.start;
    entry.is_replaced_by(dynamic, file_at(dynamic, maps))
}

/// The file mapped at `address`; none has inode 0.
fn file_at(address: usize, maps: &mut Maps) -> FileId {
    let vma = maps.file_backed_at(address).ok().flatten();
    vma.map(|vma| vma.file).unwrap_or_default()
}

impl Drop for Sweep<'_> {
    fn drop(&mut self) {
        self.work.candidates.clear();
        self.work.unreadable.clear();
        self.work.beside.clear();
        // Seldom used and large: a host that has locked its memory pays for it.
        self.work.copied = PageVec::new();
    }
}

//! The steps of one sweep under the lock: find what is new, keep what is
//! proven, plan, replace, record.

use core::cell::OnceCell;
use core::ffi::CStr;

use sopin_core::line::Text;
use sopin_core::memory::OwnMemory;
use sopin_core::object::Span;
use sopin_core::pagemap::Pagemap;
use sopin_core::pages::PageVec;
use sopin_core::plan::{self, Replacement, Source, Terms};
use sopin_core::settings::Level;
use sopin_core::sys::{self, Errno, Result};
use sopin_core::vmas::{Maps, Vma};

use crate::candidates::{self, Candidate, Stores};
use crate::loader::{Counters, Loaded};
use crate::log::Cause;
use crate::registry::{self, Guard};
use crate::remap::{self, Outcome};
use crate::report::{self, Report};
use crate::{environment, hooks};

/// How to find the object that the event is about.
#[derive(Clone, Copy)]
pub enum Root {
    /// The one with this address inside.
    Containing(usize),
    /// The one whose dynamic section is here.
    Dynamic(usize),
}

impl Root {
    fn is(self, candidate: &Candidate) -> bool {
        match self {
            Self::Containing(address) => candidate.object.span.contains(address),
            Self::Dynamic(address) => candidate.object.dynamic == address,
        }
    }
}

/// A sweep under way.
pub struct Sweep<'a> {
    /// The lock.
    pub guard: Guard,
    memory: &'a OwnMemory,
    /// An object that has yet to announce itself has run no code.
    trusts_announcements: bool,
    in_other_namespace: bool,
    candidates: PageVec<Candidate>,
    pagemap: OnceCell<Result<Pagemap>>,
}

impl<'a> Sweep<'a> {
    /// A sweep that has found nothing yet.
    pub fn new(guard: Guard, memory: &'a OwnMemory, trusts_announcements: bool, in_other_namespace: bool) -> Self {
        let (candidates, pagemap) = (PageVec::new(), OnceCell::new());
        Self { guard, memory, trusts_announcements, in_other_namespace, candidates, pagemap }
    }

    /// Pins what is new in `objects`, the loader's list at `counters`.
    pub fn run(&mut self, objects: &[Loaded], root: Root, counters: Counters) -> core::result::Result<(), Cause> {
        let complete = self.pin_new(objects, root, counters)?;
        if complete && !self.in_other_namespace {
            registry::set_counters(&self.guard, counters);
        }
        Ok(())
    }

    /// Whether everything in `objects` is now recorded.
    fn pin_new(&mut self, objects: &[Loaded], root: Root, counters: Counters) -> core::result::Result<bool, Cause> {
        let out_of_memory = |errno: Errno| Cause::call("mmap", errno);
        let mut maps = match Maps::open() {
            Ok(maps) => maps,
            Err(errno) => return self.leave_all(objects, errno),
        };
        self.find_candidates(objects, counters, &mut maps).map_err(out_of_memory)?;
        let Some(root_index) = self.candidates.iter().position(|candidate| root.is(candidate)) else {
            // Known already: the group came with it. What else is new belongs
            // to another thread.
            return Ok(self.candidates.is_empty());
        };
        let all = self.candidates.len();
        self.keep_relocated(root, root_index, objects, &mut maps).map_err(out_of_memory)?;
        let stores = self.stores();
        let mut buffers = Buffers::default();
        for index in 0..self.candidates.len() {
            let Some(candidate) = self.candidates.get(index).copied() else { break };
            self.pin(&candidate, stores, &mut maps, &mut buffers).map_err(out_of_memory)?;
        }
        self.log_sweep(all);
        Ok(self.candidates.len() == all)
    }

    fn log_sweep(&mut self, all: usize) {
        let (kept, state) = (self.candidates.len(), &mut *self.guard);
        let message = format_args!("sweep: {all} objects new, {kept} of them ready to be pinned");
        state.log.line(&state.settings, Level::Debug, message);
    }

    /// Collects the objects that are not recorded. After an unload an object
    /// may have come to lie where a recorded one was: what is mapped decides.
    fn find_candidates(&mut self, objects: &[Loaded], counters: Counters, maps: &mut Maps) -> Result<()> {
        let has_unloaded = counters.subs != registry::recorded_counters().subs || self.in_other_namespace;
        for loaded in objects {
            let is_recorded = self.guard.mark(loaded.headers);
            if is_recorded && !has_unloaded {
                continue;
            }
            match Candidate::read(self.memory, *loaded) {
                Ok(candidate) if is_recorded && !is_as_loaded(&candidate, maps) => {}
                Ok(candidate) => {
                    if let Some(entry) = self.guard.forget(loaded.headers) {
                        remap::unmap_witness(entry.witness);
                    }
                    self.candidates.push(candidate)?;
                }
                Err(cause) => {
                    self.guard.record(loaded.headers, Span::default(), self.in_other_namespace)?;
                    let mut buffer = [0; libc::PATH_MAX as usize];
                    let name = candidates::loader_name(self.memory, loaded, &mut buffer);
                    report::exposed(&mut self.guard, format_args!("{name}"), cause);
                }
            }
        }
        if has_unloaded && !self.in_other_namespace {
            forget_unloaded(&mut self.guard, self.memory, objects);
        }
        Ok(())
    }

    /// Drops the candidates that are not proven relocated and, where the
    /// loader's lock is not held, those that might be unloaded meanwhile.
    fn keep_relocated(&mut self, root: Root, root_index: usize, objects: &[Loaded], maps: &mut Maps) -> Result<()> {
        let only_group = matches!(root, Root::Dynamic(_)) && !self.in_other_namespace;
        let mut relro = PageVec::new();
        let mut unproven = only_group;
        for index in 0..self.candidates.len() {
            let Some(candidate) = self.candidates.get(index) else { break };
            maps.file_backed_in(candidate.object.relro, &mut relro)?;
            unproven |= !candidate.is_relocated(&relro);
        }
        if !unproven {
            return Ok(());
        }
        candidates::mark_group(self.memory, &mut self.candidates, root_index)?;
        if !only_group {
            // The loader relocates the executable's group before any code runs.
            let executable = objects.first().map(|first| first.headers);
            if let Some(index) =
                self.candidates.iter().position(|candidate| Some(candidate.loaded.headers) == executable)
            {
                candidates::mark_group(self.memory, &mut self.candidates, index)?;
            }
        }
        let mut kept = 0;
        for index in 0..self.candidates.len() {
            let Some(candidate) = self.candidates.get(index).copied() else { break };
            maps.file_backed_in(candidate.object.relro, &mut relro)?;
            if candidate.is_in_initialised_group || !only_group && candidate.is_relocated(&relro) {
                if let Some(slot) = self.candidates.get_mut(kept) {
                    *slot = candidate;
                }
                kept += 1;
            }
        }
        self.candidates.truncate(kept);
        Ok(())
    }

    fn stores(&self) -> Stores {
        if self.guard.blocks_signals() && environment::has_one_thread() {
            Stores::NoOtherThread
        } else if self.trusts_announcements {
            Stores::with_threads(self.memory, hooks::announcement_address(), &self.candidates)
        } else {
            Stores::Possible
        }
    }

    /// Pins one object, records and reports it.
    fn pin(&mut self, candidate: &Candidate, stores: Stores, maps: &mut Maps, buffers: &mut Buffers) -> Result<()> {
        let begin = sys::monotonic_ns();
        let Buffers { vmas, replacements, runs, path } = buffers;
        maps.file_backed_in(candidate.object.span, vmas)?;
        let Some(lowest) = vmas.first().copied() else {
            // The vDSO, or an object that the program has remapped.
            return self.guard.record(candidate.loaded.headers, Span::default(), self.in_other_namespace);
        };
        let path_len = maps.path_at(lowest.span.start, path)?.len();
        let path = path.get(..path_len).unwrap_or_default();
        if !self.guard.settings.selects(path) {
            let state = &mut *self.guard;
            state.log.line(&state.settings, Level::Info, format_args!("{}: excluded", Text(path)));
            return state.record(candidate.loaded.headers, Span::default(), self.in_other_namespace);
        }
        let terms = Terms {
            mode: self.guard.settings.mode,
            has_text_relocations: candidate.dynamic.has_text_relocations,
            stores_possible: stores.possible_to(self.memory, hooks::announcement_address(), candidate),
        };
        let outlook = plan::plan(&candidate.object, vmas, terms, replacements)?;
        let modified = self.leave_modified_pages(replacements, runs)?;
        // Room for the record first: what is pinned must not be forgotten.
        self.guard.record(candidate.loaded.headers, Span::default(), self.in_other_namespace)?;
        // SAFETY: the ranges belong to an object that is relocated and cannot
        // be unloaded during the sweep; where stores are possible the plan has
        // no writable range.
        let outcome = unsafe { remap::replace(self.memory, path, replacements) };
        let witness = witness(maps, path, vmas, replacements, &outcome);
        self.guard.record(candidate.loaded.headers, witness, self.in_other_namespace)?;
        let micros = (sys::monotonic_ns() - begin) / 1000;
        report::pinned(&mut self.guard, &Report { path, outlook, outcome, modified, micros });
        Ok(())
    }

    /// Takes the pages that were modified in memory out of the ranges that are
    /// to be replaced by the file's bytes; how many bytes they are. If that
    /// cannot be found out, no such range is replaced.
    fn leave_modified_pages(
        &self,
        replacements: &mut PageVec<Replacement>,
        runs: &mut PageVec<Replacement>,
    ) -> Result<core::result::Result<usize, Cause>> {
        runs.clear();
        let mut modified = Ok(0);
        for range in replacements.iter() {
            if range.source != Source::Copy {
                runs.push(*range)?;
                continue;
            }
            let pagemap = self.pagemap.get_or_init(Pagemap::open).as_ref();
            let found = pagemap.map_err(|errno| *errno).and_then(|pagemap| {
                pagemap.for_each_unmodified(range.span, |span| {
                    let offset = range.offset + (span.start - range.span.start) as u64;
                    runs.push(Replacement { span, offset, ..*range })
                })
            });
            match (found, &mut modified) {
                (Ok(bytes), Ok(sum)) => *sum += bytes,
                (Ok(_), Err(_)) => {}
                (Err(errno), modified) => *modified = Err(Cause::call("read /proc/self/pagemap", errno)),
            }
        }
        if modified.is_err() {
            runs.clear();
            for range in replacements.iter().filter(|range| range.source != Source::Copy) {
                runs.push(*range)?;
            }
        }
        core::mem::swap(replacements, runs);
        Ok(modified)
    }

    /// The mappings cannot be read: leaves every new object alone. Those that
    /// came while the process was short of something are tried again later.
    fn leave_all(&mut self, objects: &[Loaded], errno: Errno) -> core::result::Result<bool, Cause> {
        let cause = Cause::call("open /proc/self/maps", errno);
        if matches!(errno.0, libc::EMFILE | libc::ENFILE | libc::ENOMEM) {
            return Err(cause);
        }
        for loaded in objects {
            if self.guard.mark(loaded.headers) {
                continue;
            }
            let recorded = self.guard.record(loaded.headers, Span::default(), self.in_other_namespace);
            recorded.map_err(|errno| Cause::call("mmap", errno))?;
            let mut buffer = [0; libc::PATH_MAX as usize];
            let name = candidates::loader_name(self.memory, loaded, &mut buffer);
            report::exposed(&mut self.guard, format_args!("{name}"), cause);
        }
        Ok(true)
    }
}

/// Forgets the objects that are no longer in `objects`, the loader's list.
pub fn forget_unloaded(guard: &mut Guard, memory: &OwnMemory, objects: &[Loaded]) {
    guard.begin_walk();
    for loaded in objects {
        guard.mark(loaded.headers);
    }
    guard.forget_unseen(
        // Objects of other namespaces are not in the list; one that is gone
        // has left its address unmapped or to an object that will be new.
        |headers, entry| !entry.in_other_namespace || memory.read::<u8>(headers).is_err(),
        |entry| remap::unmap_witness(entry.witness),
    );
}

/// Whether the dynamic section of `candidate` still maps a file: what is
/// pinned has it in anonymous memory.
fn is_as_loaded(candidate: &Candidate, maps: &mut Maps) -> bool {
    matches!(maps.file_backed_at(candidate.object.dynamic), Ok(Some(_)))
}

/// Maps the witness page of an object whose text no longer maps its file.
fn witness(maps: &mut Maps, path: &[u8], vmas: &[Vma], replaced: &[Replacement], outcome: &Outcome) -> Span {
    let text = replaced.iter().find(|range| range.source == Source::Copy && range.protection & libc::PROT_EXEC != 0);
    let (Some(text), None, Some(file)) = (text, outcome.read_only_failure, plan::file_of(vmas)) else {
        return Span::default();
    };
    let mut buffer = [0; libc::PATH_MAX as usize];
    match buffer.get_mut(..path.len()) {
        Some(start) if path.len() < libc::PATH_MAX as usize => start.copy_from_slice(path),
        _ => return Span::default(),
    }
    let path = CStr::from_bytes_until_nul(&buffer).unwrap_or_default();
    remap::map_witness(maps, path, file, text.offset)
}

/// Memory that is used again for every object of a sweep.
struct Buffers {
    vmas: PageVec<Vma>,
    replacements: PageVec<Replacement>,
    runs: PageVec<Replacement>,
    path: [u8; libc::PATH_MAX as usize],
}

impl Default for Buffers {
    fn default() -> Self {
        Self {
            vmas: PageVec::new(),
            replacements: PageVec::new(),
            runs: PageVec::new(),
            path: [0; libc::PATH_MAX as usize],
        }
    }
}

//! A sweep after objects were loaded. The event tells which of the new objects is the root;
//! the others were loaded together with it.

use sopin_core::cause::{Cause, Operation};
use sopin_core::records::Reached;
use sopin_core::settings::Level;
use sopin_core::sys::Errno;
use sopin_core::vmas::{Maps, Vma};

use super::forgetting::is_replaced;
use super::{Sweep, is_vdso};
use crate::candidates::Candidate;
use crate::environment;
use crate::freshness;
use crate::large_copies;
use crate::loader::{self, Counters, Loaded};
use crate::object_path::ObjectPath;
use crate::published::Account;
use crate::registry::Entry;
use crate::write_safety::{Announcement, Assessment};

/// How to find the object that the event is about.
#[derive(Clone, Copy)]
pub enum Root {
    /// The object that contains this address, which the loader is initialising.
    Containing(usize),
    /// The object whose dynamic section has this address, which was opened.
    Dynamic(usize),
}

impl Root {
    /// Returns whether the loader is initialising the object. Then no object is unloaded meanwhile:
    /// this thread holds glibc's lock, or the process is starting, and musl never unloads. Other
    /// threads can be loading objects only on musl, whose list shows none of them before it is
    /// relocated.
    fn is_initialised(self) -> bool {
        matches!(self, Self::Containing(_))
    }

    /// Returns the root as the object whose base is closest below the address, for a root whose
    /// headers cannot be read.
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

/// How a sweep has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swept {
    /// The sweep is complete.
    Done,
    /// The sweep has asked for copies and pinned nothing. It must be repeated once they are made.
    NeedsCopies,
}

/// How much of the loader's list a sweep has recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coverage {
    /// Every listed object is recorded now, and every recorded object is listed.
    Everything,
    /// The list and the records differ, or may differ.
    Something,
    /// Nothing new: copies of large objects have to be made first.
    LargeObjects,
}

impl Coverage {
    fn all_if(is_everything: bool) -> Self {
        if is_everything { Self::Everything } else { Self::Something }
    }
}

impl Sweep<'_> {
    /// Pins the new ones of `objects`, the loader's list at `counters`. `missed` is the number
    /// of sweeps that had been missed before the list was copied.
    pub fn run(&mut self, objects: &[Loaded], root: Root, counters: Counters, missed: u32) -> Result<Swept, Cause> {
        self.large.check(counters.subs);
        let found = match self.open_maps(self.caller) {
            Ok(mut maps) => {
                let found = self.pin_new(objects, root, counters, &mut maps);
                self.close_maps(maps);
                found?
            }
            Err(cause) => self.leave_all(objects, cause)?,
        };
        if found == Coverage::Everything && !self.in_other_namespace {
            freshness::set_counters(self.registry, counters);
            freshness::make_up_for_missed_sweeps(self.registry, missed);
            self.has_recorded_all = true;
        }
        Ok(if found == Coverage::LargeObjects { Swept::NeedsCopies } else { Swept::Done })
    }

    /// Reports that the sweep was given up because of `cause`, and names the root.
    #[cold]
    #[inline(never)]
    pub fn give_up(&mut self, objects: &[Loaded], root: Root, cause: Cause) {
        let name = ObjectPath::of_group(self.memory, root.among(objects), self.path_room);
        self.reporter.exposed(name, cause, &[]);
    }

    fn pin_new(
        &mut self,
        objects: &[Loaded],
        root: Root,
        counters: Counters,
        maps: &mut Maps,
    ) -> Result<Coverage, Cause> {
        let recorded = self.registry.all_published().len();
        let is_first = recorded == 0 || self.large.recorded_at_first == Some(recorded);
        let has_unloaded = counters.subs != freshness::recorded_counters().subs;
        let is_up_to_date = !has_unloaded || root.is_initialised();
        self.collect_new(objects, has_unloaded || self.in_other_namespace, maps)?;
        let Some(root_index) = self.position(|candidate| root.is(candidate)) else {
            self.leave_unreadable_root(objects, root)?;
            // The root is recorded already, and so is its group. Other new objects are being
            // loaded by another thread: at startup this thread does not hold the loader's lock.
            let is_empty = self.work.candidates.is_empty() && self.work.unreadable.is_empty();
            return Ok(Coverage::all_if(is_up_to_date && is_empty));
        };
        self.forget_replaced();
        let mut unreadable = self.large.unreadable;
        if root.is_initialised() {
            unreadable = self.leave_unreadable()?.or(unreadable);
            if has_unloaded {
                self.forget_unlisted(objects);
            }
        }
        let all = self.work.candidates.len();
        self.keep_relocated(root, root_index, objects, maps)?;
        if root.is_initialised() && loader::is_musl() {
            self.mark_dependents(root_index, objects)?;
        }
        let assessment = if let Root::Containing(caller) = root {
            let root = self.position(|candidate| root.is(candidate)).unwrap_or(usize::MAX);
            let (memory, has_missed) = (self.memory, freshness::has_missed_a_sweep());
            Announcement { memory, objects, root, caller, is_first, has_missed, unreadable }
                .assess(&mut self.work.candidates)
        } else {
            Assessment::AFTER_RUNNING
        };
        let is_any_beginning = self.position(|candidate| candidate.may_be_beginning).is_some();
        if is_any_beginning && environment::has_one_thread() != Ok(true) {
            // Another thread may be storing to these objects. It will pin them when they announce
            // themselves, which comes next.
            self.work.candidates.retain(|candidate| !candidate.may_be_beginning);
        }
        if self.may_use_store() {
            // Another thread is preparing copies for these objects and will pin them.
            self.work.candidates.retain(|candidate| !large_copies::is_anothers(candidate.loaded.headers));
        }
        if self.ask_for_copies(counters.subs, maps) {
            self.large.unreadable = unreadable;
            self.large.recorded_at_first = is_first.then(|| self.registry.all_published().len());
            return Ok(Coverage::LargeObjects);
        }
        self.name_those_beside(assessment)?;
        self.pin_candidates(assessment, maps)?;
        let kept = self.work.candidates.len();
        self.reporter.line(Level::Debug, format_args!("sweep: {all} objects new, {kept} of them ready to be pinned"));
        Ok(Coverage::all_if(is_up_to_date && kept == all && self.work.unreadable.is_empty()))
    }

    /// Makes the objects that are not recorded the candidates. After an unload, another object
    /// may lie at the address of a recorded one; then the file that is mapped there decides
    /// whether it is new. Objects that cannot be read are collected separately, since they may
    /// have been unloaded just now.
    fn collect_new(&mut self, objects: &[Loaded], has_unloaded: bool, maps: &mut Maps) -> Result<(), Cause> {
        // Most objects of a process with many are known to be recorded without a look at each.
        let known = if has_unloaded { 0 } else { self.recorded };
        if self.registry.all_published().is_empty() {
            // All of them are new. Room that grows step by step has more pages to touch.
            self.work.candidates.reserve(objects.len()).map_err(Cause::no_memory)?;
        }
        for loaded in objects.get(known..).unwrap_or_default() {
            let recorded = self.registry.recorded(loaded.headers);
            if recorded.is_some() && !has_unloaded {
                continue;
            }
            match Candidate::read(self.memory, *loaded) {
                Ok(candidate) if recorded.is_none_or(|entry| is_replaced(&entry, &candidate, maps)) => {
                    self.work.candidates.push(candidate).map_err(Cause::no_memory)?;
                }
                Err(cause) if recorded.is_none() => {
                    self.work.unreadable.push((*loaded, cause)).map_err(Cause::no_memory)?;
                }
                Ok(_) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Reports the root if it is new and cannot be read. If objects that can be read were loaded
    /// together with it, the sweep fails, and the next one finds them.
    #[cold]
    #[inline(never)]
    fn leave_unreadable_root(&mut self, objects: &[Loaded], root: Root) -> Result<(), Cause> {
        let headers = root.among(objects).map(|root| root.headers);
        let is_root = |found: &&(Loaded, _)| headers == Some(found.0.headers);
        match self.work.unreadable.iter().find(is_root).copied() {
            None => Ok(()),
            Some((loaded, cause)) if !root.is_initialised() => self.leave(&loaded, cause),
            Some(_) if self.work.candidates.is_empty() => self.leave_unreadable().map(drop),
            Some((_, cause)) => Err(cause),
        }
    }

    /// Reports the new objects that cannot be read. Returns the cause for one of them that may
    /// have run, which are all but the vDSO.
    fn leave_unreadable(&mut self) -> Result<Option<Cause>, Cause> {
        let mut reason = None;
        while let Some((loaded, cause)) = self.work.unreadable.last().copied() {
            self.leave(&loaded, cause)?;
            self.work.unreadable.truncate(self.work.unreadable.len() - 1);
            reason = reason.or((!is_vdso(&loaded)).then_some(cause));
        }
        Ok(reason)
    }

    /// Drops the candidates that are not proven relocated. After a `dlopen` has returned, it also
    /// drops those that could be unloaded during the sweep. Then it drops all candidates if one of
    /// the group has yet to announce itself: that object can be pinned whole when it does, and the
    /// reach of those of the group that have run must be judged together with it.
    fn keep_relocated(
        &mut self,
        root: Root,
        root_index: usize,
        objects: &[Loaded],
        maps: &mut Maps,
    ) -> Result<(), Cause> {
        let (memory, is_initialised) = (self.memory, root.is_initialised());
        if is_initialised && (loader::is_musl() || self.all_are_relocated(maps)?) {
            return Ok(());
        }
        // The loader relocates the executable's group before any code runs.
        let executable = objects.first().filter(|_| is_initialised).map(|first| first.headers);
        let executable = self.position(|candidate| Some(candidate.loaded.headers) == executable);
        self.mark(objects, [Some(root_index), executable].into_iter().flatten())?;
        if is_initialised {
            return self.keep(maps, |candidate, relro, _| candidate.is_relocated(relro));
        }
        let is_all = self.in_other_namespace;
        let is_of_group = |candidate: &Candidate| candidate.is_in_initialised_group || is_all;
        let will_announce =
            |candidate: &Candidate| is_of_group(candidate) && candidate.will_announce(memory) == Ok(true);
        if !freshness::has_missed_a_sweep() && self.position(will_announce).is_some() {
            self.work.candidates.clear();
            return Ok(());
        }
        let is_ready = |candidate: &Candidate, relro: &[Vma]| {
            is_of_group(candidate) && candidate.is_relocated_after_opening(relro, memory)
        };
        self.keep(maps, |candidate, relro, _| is_ready(candidate, relro))
    }

    /// Returns whether every candidate's own mappings prove that it is relocated.
    fn all_are_relocated(&mut self, maps: &mut Maps) -> Result<bool, Cause> {
        for candidate in self.work.candidates.iter() {
            maps.file_backed_in(candidate.object.relro, &mut self.work.vmas).map_err(Operation::ReadMaps.failed())?;
            if !candidate.is_relocated(&self.work.vmas) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Records an object as exposed because of `cause`, and reports that; the vDSO as one without
    /// a file.
    #[cold]
    #[inline(never)]
    fn leave(&mut self, loaded: &Loaded, cause: Cause) -> Result<(), Cause> {
        let (reached, cause) = if is_vdso(loaded) { (Reached::NoFile, None) } else { (Reached::Exposed, Some(cause)) };
        self.record(loaded, Entry::default(), &Account { reached, cause, ..Account::default() })?;
        if let Some(cause) = cause {
            let name = ObjectPath::named_by_loader(self.memory, loaded, self.path_room);
            self.reporter.exposed(name, cause, &[]);
        }
        Ok(())
    }

    /// Leaves every new object, because the mappings cannot be read. If the process is short of
    /// descriptors or memory, the sweep fails instead, so that a later one tries again.
    #[cold]
    #[inline(never)]
    fn leave_all(&mut self, objects: &[Loaded], cause: Cause) -> Result<Coverage, Cause> {
        if let Some(Errno(libc::EMFILE | libc::ENFILE | libc::ENOMEM)) = cause.errno() {
            return Err(cause);
        }
        for loaded in objects {
            if self.registry.recorded(loaded.headers).is_none() {
                self.leave(loaded, cause)?;
            }
        }
        Ok(Coverage::Everything)
    }
}

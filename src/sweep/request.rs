//! A sweep that the host has asked for: objects that are not recorded yet, and
//! what is left of those that could be pinned in part only.
//!
//! Nobody has loaded anything just now, so nothing follows from the moment: an
//! object counts as relocated if its own mappings say so, if it belongs to the
//! executable's group, or if it was pinned in part before; and its code may have
//! run, so that stores to its data are possible.

use sopin_core::cause::Cause;
use sopin_core::object::file_name;
use sopin_core::records::{Reached, Record};
use sopin_core::settings::Mode;
use sopin_core::vmas::Maps;

use super::{Sweep, forget_unlisted, is_replaced, no_maps, no_memory, release};
use crate::candidates::{self, Candidate};
use crate::freshness;
use crate::loader::Loaded;
use crate::object_path::{ObjectPath, without_deleted};
use crate::original;
use crate::workspace::Workspace;
use crate::write_safety::Assessment;

/// Which objects a request is about.
#[derive(Clone, Copy)]
pub enum Wanted<'a> {
    /// All of them.
    Everything,
    /// The one whose dynamic section is here, and those that it needs.
    Dynamic(usize),
    /// The one that was loaded from this path.
    Path {
        /// As the host has given it.
        given: &'a [u8],
        /// Without symbolic links, as `/proc/PID/maps` shows paths.
        canonical: &'a [u8],
    },
}

/// How well what was wanted is pinned now, from the best to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As the mode says.
    Pinned,
    /// The settings exclude it.
    Excluded,
    /// Read-only ranges still map the file although the mode is `full`.
    Partial,
    /// Writable or relocated ranges still map the file.
    Exposed,
    /// No object is it.
    NotLoaded,
}

impl Sweep<'_> {
    /// Pins what is `wanted` of `objects`, none of which can be unloaded during
    /// the call. `has_unloaded`: the records may be those of objects that are
    /// gone. `subs`: how often the loader has unloaded objects. `None` if copies are
    /// to be made first.
    pub fn run_request(
        &mut self,
        objects: &[Loaded],
        wanted: Wanted<'_>,
        has_unloaded: bool,
        subs: u64,
    ) -> Result<Option<Verdict>, Cause> {
        self.large.check(subs);
        self.is_request = true;
        let mut maps = Maps::open().map_err(|errno| Cause::call("open /proc/self/maps", errno))?;
        if has_unloaded && !self.in_other_namespace {
            self.forget_gone(objects, &mut maps);
        }
        let target = match wanted {
            Wanted::Everything => None,
            Wanted::Dynamic(address) => Some(self.with_dynamic(objects, address)),
            Wanted::Path { given, canonical } => Some(self.with_path(objects, given, canonical, &mut maps)),
        };
        if target == Some(None) {
            return Ok(Some(Verdict::NotLoaded));
        }
        let target = target.flatten();
        match (wanted, target) {
            (Wanted::Dynamic(_), Some(root)) => self.collect_group(objects, root)?,
            (_, None) => self.collect(objects)?,
            (_, Some(headers)) => {
                let listed = objects.iter().position(|loaded| loaded.headers == headers);
                self.collect(listed.and_then(|index| objects.get(index..=index)).unwrap_or_default())?;
            }
        }
        let opened = target.filter(|_| matches!(wanted, Wanted::Dynamic(_)));
        let unproven = self.keep_proven(objects, opened, &mut maps)?;
        if self.ask_for_copies(subs, &mut maps) {
            return Ok(None);
        }
        self.pin_candidates(Assessment::AFTER_RUNNING, &mut maps)?;
        let listed = objects.iter().filter(|loaded| target.is_none_or(|headers| loaded.headers == headers));
        let mut worst = if target.is_none() && unproven { Verdict::Exposed } else { Verdict::Pinned };
        for loaded in listed {
            let verdict = match self.registry.look_up(loaded.headers) {
                Some((_, record)) => self.verdict(&record),
                None if target.is_some() => Verdict::Exposed,
                // Unproven, which counts already, or about to announce itself.
                None => Verdict::Pinned,
            };
            worst = worst.max(if target.is_none() && verdict == Verdict::Excluded { Verdict::Pinned } else { verdict });
        }
        Ok(Some(worst))
    }

    fn verdict(&self, record: &Record) -> Verdict {
        match record.reached() {
            Some(Reached::Full | Reached::NoFile) => Verdict::Pinned,
            Some(Reached::Relocated) if self.reporter.settings().mode == Mode::Relocated => Verdict::Pinned,
            Some(Reached::Relocated) => Verdict::Partial,
            Some(Reached::Excluded) => Verdict::Excluded,
            Some(Reached::Pending | Reached::Exposed) | None => Verdict::Exposed,
        }
    }

    /// Forgets what is recorded of objects that are not loaded any more, or in
    /// whose place there are others.
    fn forget_gone(&mut self, objects: &[Loaded], maps: &mut Maps) {
        for loaded in objects {
            if let Some(entry) = self.registry.recorded(loaded.headers)
                && let Ok(candidate) = Candidate::read(self.memory, *loaded)
                && is_replaced(&entry, &candidate, maps)
            {
                self.registry.forget(loaded.headers);
                release(&entry, self.private_memory);
            }
        }
        forget_unlisted(self.registry, self.private_memory, objects);
    }

    /// Whether there may be something left to do for an object.
    fn is_unfinished(&mut self, headers: usize) -> bool {
        self.registry.look_up(headers).is_none_or(|(_, record)| match record.reached() {
            Some(Reached::Pending | Reached::Exposed) | None => true,
            Some(Reached::Relocated) => record.cause().is_some(),
            Some(Reached::Full | Reached::Excluded | Reached::NoFile) => false,
        })
    }

    /// Makes those of `objects` with something left to do the candidates.
    fn collect(&mut self, objects: &[Loaded]) -> Result<(), Cause> {
        for loaded in objects {
            // One that cannot be read stays what it is.
            if self.is_unfinished(loaded.headers)
                && let Ok(candidate) = Candidate::read(self.memory, *loaded)
            {
                self.work.candidates.push(candidate).map_err(no_memory)?;
            }
        }
        Ok(())
    }

    /// Makes what is unfinished of the group of the object at `root` the
    /// candidates. What is finished takes part in finding the group.
    fn collect_group(&mut self, objects: &[Loaded], root: usize) -> Result<(), Cause> {
        for loaded in objects {
            if let Ok(candidate) = Candidate::read(self.memory, *loaded) {
                self.work.candidates.push(candidate).map_err(no_memory)?;
            }
        }
        self.mark(objects, root)?;
        let mut kept = 0;
        for index in 0..self.work.candidates.len() {
            let Some(candidate) = self.work.candidates.get(index).copied() else { break };
            if candidate.is_in_initialised_group && self.is_unfinished(candidate.loaded.headers) {
                self.keep(&candidate, &mut kept);
            }
        }
        self.work.candidates.truncate(kept);
        Ok(())
    }

    fn keep(&mut self, candidate: &Candidate, kept: &mut usize) {
        if let Some(slot) = self.work.candidates.get_mut(*kept) {
            *slot = *candidate;
            *kept += 1;
        }
    }

    /// Marks the group of the candidate with these program headers, if it is one.
    fn mark(&mut self, objects: &[Loaded], headers: usize) -> Result<(), Cause> {
        let Workspace { candidates, groups, .. } = &mut *self.work;
        match candidates.iter().position(|candidate| candidate.loaded.headers == headers) {
            Some(index) => candidates::mark_groups(self.memory, self.registry, objects, candidates, groups, [index]),
            None => Ok(()),
        }
    }

    /// Drops the candidates that are not proven relocated, and those that their
    /// own thread is about to pin: they have yet to announce themselves. The
    /// candidates are the group of the object `opened`, if given. Whether there
    /// were any of the former.
    fn keep_proven(&mut self, objects: &[Loaded], opened: Option<usize>, maps: &mut Maps) -> Result<bool, Cause> {
        let has_missed = freshness::has_missed_a_sweep();
        if opened.is_none()
            && let Some(executable) = objects.first().filter(|_| !self.in_other_namespace)
        {
            // The loader relocates the executable's group before any code runs.
            self.mark(objects, executable.headers)?;
        }
        let (mut kept, mut unproven) = (0, false);
        for index in 0..self.work.candidates.len() {
            let Some(candidate) = self.work.candidates.get(index).copied() else { break };
            let recorded = self.registry.recorded(candidate.loaded.headers);
            maps.file_backed_in(candidate.object.relro, &mut self.work.vmas).map_err(no_maps)?;
            let was_pinned = recorded.is_some_and(|entry| entry.original.is_some());
            let is_relocated = was_pinned
                || if opened.is_some() {
                    candidate.is_relocated_after_opening(&self.work.vmas, self.memory)
                } else {
                    candidate.is_relocated(&self.work.vmas)
                };
            let will_be_pinned = recorded.is_none() && !has_missed && candidate.will_announce(self.memory) != Ok(false);
            if is_relocated && !will_be_pinned {
                self.keep(&candidate, &mut kept);
            } else {
                unproven |= !will_be_pinned;
            }
        }
        self.work.candidates.truncate(kept);
        Ok(unproven)
    }

    fn with_dynamic(&self, objects: &[Loaded], address: usize) -> Option<usize> {
        let is_it = |loaded: &&Loaded| {
            Candidate::read(self.memory, **loaded).is_ok_and(|candidate| candidate.object.dynamic.start == address)
        };
        objects.iter().find(is_it).map(|loaded| loaded.headers)
    }

    /// The object that was loaded from a path: by the loader's name for it, or
    /// by the path of the file that it maps or has mapped. A name without a
    /// slash is compared with file names.
    fn with_path(&mut self, objects: &[Loaded], given: &[u8], canonical: &[u8], maps: &mut Maps) -> Option<usize> {
        let is_bare = !given.contains(&b'/');
        let is_it = |path: &[u8]| {
            let path = without_deleted(path);
            if is_bare {
                file_name(path) == given
            } else {
                // The loader has no name for the executable.
                !path.is_empty() && (path == given || path == canonical)
            }
        };
        let memory = self.memory;
        let buffer = &mut self.paths[..];
        let named = objects.iter().find(|loaded| memory.read_string(loaded.name, &mut *buffer).is_ok_and(is_it));
        if let Some(loaded) = named {
            return Some(loaded.headers);
        }
        objects.iter().find(|loaded| is_it(self.original_path(loaded, maps).as_bytes())).map(|loaded| loaded.headers)
    }

    /// Reads the path of the file that an object was loaded from.
    fn original_path(&mut self, loaded: &Loaded, maps: &mut Maps) -> ObjectPath<'_> {
        let shown = self.registry.look_up(loaded.headers);
        let shown = shown.and_then(|(entry, record)| original::shown_at(&record, entry.original, maps));
        ObjectPath::mapped_at(shown.unwrap_or(loaded.headers), maps, self.memory, loaded, self.paths)
    }
}

//! A sweep that the host has requested. It pins objects that are not recorded yet, and the
//! other ranges of those that were pinned in part only.
//!
//! A request comes at any time, so its time proves nothing about an object. An object
//! counts as relocated if its own mappings prove that, if it belongs to the executable's
//! group, or if it was pinned in part before. Its code may have run, so its
//! writable ranges are replaced if this thread is alone, or else while everything else has stopped
//! ([`super::unfinished`]).

use sopin_core::cause::Cause;
use sopin_core::mode::Mode;
use sopin_core::object::file_name;
use sopin_core::records::Reached;
use sopin_core::vmas::Maps;

use super::Sweep;
use crate::freshness;
use crate::loader::{Counters, Loaded};
use crate::object_path::{ObjectPath, without_deleted};
use crate::original;
use crate::registry::Registry;
use crate::write_safety::Assessment;

/// Which objects a request is about.
#[derive(Clone, Copy)]
pub enum Wanted<'a> {
    /// All objects.
    Everything,
    /// The object whose dynamic section has this address, and those that it needs.
    Dynamic(usize),
    /// The object that was loaded from this path.
    Path {
        /// The path that the host has passed.
        given: &'a [u8],
        /// The path without symbolic links, as `/proc/PID/maps` shows it.
        canonical: &'a [u8],
    },
}

/// How far the wanted objects are pinned now, from the best to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// They are pinned as the mode says.
    Pinned,
    /// The settings exclude the object.
    Excluded,
    /// Read-only ranges still map the file although the mode is `full`.
    Partial,
    /// Writable or relocated ranges still map the file.
    Exposed,
    /// No such object is loaded.
    NotLoaded,
}

/// Which of the loader's objects are wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    All,
    /// The object with these program headers.
    One(usize),
    /// The object with these program headers, and those that it needs.
    Group(usize),
}

impl Sweep<'_> {
    /// Pins those of `objects` that are `wanted`. `objects` is the loader's list at `counters`, and
    /// none of them can be unloaded during the call. `None` if copies have to be made first.
    pub fn run_request(
        &mut self,
        objects: &[Loaded],
        wanted: Wanted<'_>,
        counters: Counters,
    ) -> Result<Option<Verdict>, Cause> {
        self.large.check(counters.subs);
        let mut maps = self.open_maps(self.caller)?;
        let verdict = self.pin_wanted(objects, wanted, counters, &mut maps);
        self.close_maps(maps);
        verdict
    }

    fn pin_wanted(
        &mut self,
        objects: &[Loaded],
        wanted: Wanted<'_>,
        counters: Counters,
        maps: &mut Maps,
    ) -> Result<Option<Verdict>, Cause> {
        // Objects that are still recorded may have been unloaded.
        if counters.subs != freshness::recorded_counters().subs && !self.in_other_namespace {
            self.forget_gone(objects, maps);
        }
        let Some(target) = self.collect_wanted(objects, wanted, maps)? else {
            return Ok(Some(Verdict::NotLoaded));
        };
        let all_proven = self.keep_proven(objects, target, maps)?;
        if self.ask_for_copies(counters.subs, maps) {
            return Ok(None);
        }
        self.pin_candidates(Assessment::AFTER_RUNNING, maps)?;
        let verdict = match target {
            Target::All => {
                let verdicts = objects.iter().filter_map(|loaded| self.verdict(loaded.headers));
                let worst = verdicts.filter(|verdict| *verdict != Verdict::Excluded).max();
                // An object without a record is not proven relocated, which `all_proven` covers, or
                // is about to announce itself.
                let unproven = if all_proven { Verdict::Pinned } else { Verdict::Exposed };
                worst.unwrap_or(Verdict::Pinned).max(unproven)
            }
            Target::One(headers) | Target::Group(headers) => self.verdict(headers).unwrap_or(Verdict::Exposed),
        };
        Ok(Some(verdict))
    }

    /// Returns how far the object is pinned, if it is recorded.
    fn verdict(&mut self, headers: usize) -> Option<Verdict> {
        let (_, record) = self.registry.look_up(headers)?;
        Some(match record.reached() {
            Some(Reached::Full | Reached::NoFile) => Verdict::Pinned,
            Some(Reached::Relocated) if self.reporter.settings().mode == Mode::Relocated => Verdict::Pinned,
            Some(Reached::Relocated) => Verdict::Partial,
            Some(Reached::Excluded) => Verdict::Excluded,
            Some(Reached::Pending | Reached::Exposed) | None => Verdict::Exposed,
        })
    }

    /// Makes the wanted objects that are unfinished the candidates; returns which objects are
    /// wanted. `None` if no such object is loaded. An object that cannot be read is no candidate.
    fn collect_wanted(
        &mut self,
        objects: &[Loaded],
        wanted: Wanted<'_>,
        maps: &mut Maps,
    ) -> Result<Option<Target>, Cause> {
        let target = match wanted {
            Wanted::Everything => Target::All,
            Wanted::Path { given, canonical } => match self.with_path(objects, given, canonical, maps) {
                Some(headers) => Target::One(headers),
                None => return Ok(None),
            },
            Wanted::Dynamic(address) => {
                // Finished objects are collected as well, because the group may be connected
                // through them.
                self.collect(objects, |_, _| true)?;
                let root = self.position(|candidate| candidate.object.dynamic.start == address);
                let Some((root, loaded)) = root.and_then(|root| Some((root, self.work.candidates.get(root)?.loaded)))
                else {
                    return Ok(None);
                };
                self.mark(objects, [root])?;
                self.work.candidates.retain(|candidate| {
                    candidate.is_in_initialised_group && is_unfinished(self.registry, candidate.loaded.headers)
                });
                return Ok(Some(Target::Group(loaded.headers)));
            }
        };
        self.collect(objects, |registry, loaded| {
            let is_target = matches!(target, Target::All) || target == Target::One(loaded.headers);
            is_target && is_unfinished(registry, loaded.headers)
        })?;
        Ok(Some(target))
    }

    /// Drops the candidates that are not proven relocated, and those that have yet to announce
    /// themselves, which the thread that loads them is about to pin. Returns false if one of them
    /// is neither proven relocated nor about to be pinned like that.
    fn keep_proven(&mut self, objects: &[Loaded], target: Target, maps: &mut Maps) -> Result<bool, Cause> {
        let (memory, has_missed) = (self.memory, freshness::has_missed_a_sweep());
        let was_opened = matches!(target, Target::Group(_));
        if !was_opened && let Some(executable) = objects.first().filter(|_| !self.in_other_namespace) {
            // The loader relocates the executable's group before any code runs.
            if let Some(root) = self.position(|candidate| candidate.loaded.headers == executable.headers) {
                self.mark(objects, [root])?;
            }
        }
        let mut all_proven = true;
        self.keep(maps, |candidate, relro, recorded| {
            let was_pinned = recorded.is_some_and(|entry| entry.original.is_some());
            let is_relocated = was_pinned
                || if was_opened {
                    candidate.is_relocated_after_opening(relro, memory)
                } else {
                    candidate.is_relocated(relro)
                };
            let will_be_pinned = recorded.is_none() && !has_missed && candidate.will_announce(memory) != Ok(false);
            all_proven &= is_relocated || will_be_pinned;
            is_relocated && !will_be_pinned
        })?;
        Ok(all_proven)
    }

    /// Returns the program headers' address of the object that was loaded from a path. It compares
    /// the path with the loader's names, then with the paths of the files that objects map or
    /// have mapped. It compares a path without a slash with file names.
    fn with_path(&mut self, objects: &[Loaded], given: &[u8], canonical: &[u8], maps: &mut Maps) -> Option<usize> {
        let is_bare = !given.contains(&b'/');
        let is_it = |path: &[u8]| {
            let path = without_deleted(path);
            if is_bare {
                file_name(path) == given
            } else {
                // In the loader's list the name of the executable is empty.
                !path.is_empty() && (path == given || path == canonical)
            }
        };
        let (memory, room) = (self.memory, &mut *self.path_room);
        let named = objects.iter().find(|loaded| memory.read_string(loaded.name, &mut *room).is_ok_and(is_it));
        let found = named.or_else(|| {
            objects.iter().find(|loaded| {
                let recorded = self.registry.look_up(loaded.headers);
                let shown = recorded.and_then(|(entry, record)| original::shown_at(&record, entry.original, maps));
                let address = shown.unwrap_or(loaded.headers);
                is_it(ObjectPath::mapped_at(address, maps, memory, loaded, room).as_bytes())
            })
        });
        found.map(|loaded| loaded.headers)
    }
}

/// Returns whether a sweep may be able to pin more of an object.
fn is_unfinished(registry: &mut Registry, headers: usize) -> bool {
    registry.look_up(headers).is_none_or(|(_, record)| match record.reached() {
        Some(Reached::Pending | Reached::Exposed) | None => true,
        Some(Reached::Relocated) => record.cause().is_some(),
        Some(Reached::Full | Reached::Excluded | Reached::NoFile) => false,
    })
}

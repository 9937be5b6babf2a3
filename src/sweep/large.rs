//! The step of a sweep that looks for large objects: their copies are made before
//! any object is pinned, without the lock, see [`crate::large_copies`].

use sopin_core::settings::Mode;
use sopin_core::vmas::Maps;

use super::Sweep;
use crate::candidates::Candidate;
use crate::large_copies;
use crate::object_path::ObjectPath;

/// How a sweep has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swept {
    /// It is done.
    Done,
    /// It has pinned nothing, and asked for copies: to be repeated once they are made.
    NeedsCopies,
}

/// What a sweep has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Everything listed is recorded now, and everything recorded is listed.
    Everything,
    /// That is not so, or not known.
    Something,
    /// Large objects whose copies are to be made first.
    LargeObjects,
}

impl Found {
    pub(super) fn all_if(is_everything: bool) -> Self {
        if is_everything { Self::Everything } else { Self::Something }
    }
}

impl Sweep<'_> {
    /// Asks for copies of what is large among the candidates; whether there is
    /// anything to wait for.
    pub(super) fn ask_for_copies(&mut self, subs: u64, maps: &mut Maps) -> bool {
        let settings = self.reporter.settings();
        if settings.mode != Mode::Full || settings.store.is_none() {
            return false;
        }
        if !self.is_request {
            // Another thread is about to pin these.
            self.work.candidates.retain(|candidate| !large_copies::is_anothers(candidate.loaded.headers));
        }
        let mut has_asked = false;
        for index in 0..self.work.candidates.len() {
            let Some(candidate) = self.work.candidates.get(index).copied() else { break };
            // What is left of one that was pinned in part is not its file's alone.
            let recorded = self.registry.recorded(candidate.loaded.headers);
            if recorded.is_none_or(|entry| entry.original.is_none())
                && self.large.should_prepare(&candidate.loaded, candidate.object.span)
                && self.needs_preparing(&candidate, maps)
            {
                has_asked |= self.large.ask(&candidate.loaded);
            }
        }
        if has_asked {
            self.large.begin(core::mem::take(&mut self.sources), subs);
        }
        has_asked
    }

    /// Returns whether the settings select an object, and a store can have a copy that it
    /// does not have yet.
    fn needs_preparing(&mut self, candidate: &Candidate, maps: &mut Maps) -> bool {
        let loaded = &candidate.loaded;
        let path = ObjectPath::mapped_at(loaded.headers, maps, self.memory, loaded, self.paths);
        let settings = self.reporter.settings();
        settings.selects(path.as_bytes())
            && self.sources.open_stores(settings, self.known_stores).is_some()
            && self.sources.may_add(path.as_c_str())
    }
}

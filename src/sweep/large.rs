//! The step of a sweep that looks for large objects: their copies are made before
//! any object is pinned, without the lock, see [`crate::large_copies`].

use sopin_core::mode::Mode;
use sopin_core::vmas::Maps;

use super::Sweep;
use crate::candidates::Candidate;
use crate::object_path::ObjectPath;

impl Sweep<'_> {
    /// Returns whether the settings allow copies in a store.
    pub(super) fn may_use_store(&self) -> bool {
        let settings = self.reporter.settings();
        settings.mode == Mode::Full && settings.store.is_some()
    }

    /// Asks for copies of what is large among the candidates; returns whether there is
    /// anything to wait for.
    pub(super) fn ask_for_copies(&mut self, subs: u64, maps: &mut Maps) -> bool {
        if !self.may_use_store() {
            return false;
        }
        let mut has_asked = false;
        for Candidate { loaded, object, .. } in self.work.candidates.iter() {
            // What is left of one that was pinned in part is not its file's alone.
            let was_pinned = self.registry.recorded(loaded.headers).is_some_and(|entry| entry.original.is_some());
            if was_pinned || !self.large.should_prepare(loaded, object.span) {
                continue;
            }
            let path = ObjectPath::mapped_at(loaded.headers, maps, self.memory, loaded, self.path_room);
            let settings = self.reporter.settings();
            // The settings select it, and a store can have a copy that it does not have yet.
            has_asked |= settings.selects(path.as_bytes())
                && self.sources.open_stores(settings, self.known_stores).is_some()
                && self.sources.may_add(path.as_c_str())
                && self.large.ask(loaded);
        }
        if has_asked {
            self.large.begin(core::mem::take(&mut self.sources), subs);
        }
        has_asked
    }
}

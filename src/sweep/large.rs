//! The step of a sweep that asks for copies of large objects. They are made without the
//! library's lock, before the sweep pins any object: see [`crate::large_copies`].

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

    /// Asks for copies of the large candidates. Returns whether it has asked for one, so that the
    /// sweep must be repeated after the copies were made.
    pub(super) fn ask_for_copies(&mut self, subs: u64, maps: &mut Maps) -> bool {
        if !self.may_use_store() {
            return false;
        }
        let mut has_asked = false;
        for Candidate { loaded, object, .. } in self.work.candidates.iter() {
            // The lowest mapping of an object that was pinned in part may be one of a copy, by which
            // `LargeCopies::make` would not find the original file.
            let was_pinned = self.registry.recorded(loaded.headers).is_some_and(|entry| entry.original.is_some());
            if was_pinned || !self.large.should_prepare(loaded, object.span) {
                continue;
            }
            let path = ObjectPath::mapped_at(loaded.headers, maps, self.memory, loaded, self.path_room);
            let settings = self.reporter.settings();
            // It asks only if the settings select the object and a store can get a copy that it
            // may not have yet.
            has_asked |= settings.selects(path.as_bytes())
                && !self.sources.has_in_layers(path.as_c_str())
                && self.sources.open_system_store(settings, self.known_stores).is_some()
                && self.sources.may_add(path.as_c_str(), settings, self.known_stores)
                && self.large.ask(loaded);
        }
        if has_asked {
            // The verdict on the root directory is kept in words that only the lock protects.
            self.sources.find_layers();
            self.large.begin(core::mem::take(&mut self.sources), subs);
        }
        has_asked
    }
}

//! The steps of pinning one object: what it maps, which file that is, what to
//! replace and by what; then replace it, record it, report it.

use sopin_core::branch_protection;
use sopin_core::cause::Cause;
use sopin_core::object::Span;
use sopin_core::plan::{self, Replacement, Source, Terms};
use sopin_core::records::Reached;
use sopin_core::settings::Level;
use sopin_core::store::Proof;
use sopin_core::sys;
use sopin_core::vmas::{FileId, Maps, Vma};

use super::{Sweep, file_at, no_maps, no_memory};
use crate::candidates::Candidate;
use crate::marked_ranges::Left;
use crate::object_path::ObjectPath;
use crate::original;
use crate::published::Account;
use crate::registry::Entry;
use crate::remap::{self, Outcome};
use crate::report::Report;
use crate::sources;
use crate::workspace::Workspace;
use crate::write_safety::Assessment;

impl Sweep<'_> {
    /// Pins one object, records and reports it. What is left of one that was
    /// pinned in part is tried again.
    pub(super) fn pin(&mut self, candidate: &Candidate, assessment: Assessment, maps: &mut Maps) -> Result<(), Cause> {
        let begin = sys::monotonic_ns();
        let headers = candidate.loaded.headers;
        let earlier = self.registry.look_up(headers);
        let mut account = Account { span: candidate.object.span, ..Account::default() };
        if earlier.is_none() {
            // Room for the record first: what is pinned must not be forgotten.
            let entry = Entry::named(candidate.names(self.memory));
            self.record(&candidate.loaded, entry, &account)?;
        }
        let (earlier, published) = earlier.unwrap_or_default();
        maps.file_backed_in(candidate.object.span, &mut self.work.vmas).map_err(no_maps)?;
        let was_pinned = earlier.original.is_some();
        if let Some(original) = earlier.original {
            // The rest maps copies of ours.
            self.work.vmas.retain(|vma| vma.file == original);
        }
        let lowest = match self.work.vmas.first().copied() {
            Some(lowest) => lowest,
            // The program has remapped what was left.
            None if was_pinned => Vma::default(),
            // The vDSO, or an object that the program has remapped.
            None => return self.record_untouched(candidate, Reached::NoFile, maps),
        };
        let path = ObjectPath::mapped_at(lowest.span.start, maps, self.memory, &candidate.loaded, self.paths);
        let stores = assessment.reason_to_leave(self.signals, candidate);
        let settings = self.reporter.settings();
        if !settings.selects(path.as_bytes()) {
            self.reporter.line(Level::Info, format_args!("{}: excluded", path.text()));
            return self.record_untouched(candidate, Reached::Excluded, maps);
        }
        let terms = Terms {
            mode: settings.mode,
            has_text_relocations: candidate.dynamic.has_text_relocations,
            stores_possible: stores.is_some(),
        };
        let Workspace { vmas, replacements, runs, copied, .. } = &mut *self.work;
        let outlook = plan::plan(&candidate.object, vmas, terms, replacements).map_err(no_memory)?;
        branch_protection::keep(self.memory, &candidate.object, replacements);
        let has_begun = !assessment.proves_not_begun(candidate);
        let left = if has_begun { self.marked.leave(replacements) } else { Left::default() };
        let original = sources::find_original(maps, path.as_c_str(), lowest.file, candidate, replacements);
        let modified =
            self.sources.leave_modified_pages(self.memory, original.as_ref(), replacements, runs).map_err(no_memory)?;
        let shared = match &original {
            Some(original) if self.sources.need_no_copy(original) => {
                replacements.retain(|range| range.source != Source::Copy);
                None
            }
            Some(original) if self.sources.open_stores(settings, self.known_stores).is_some() => {
                let prepared = self.large.take(headers, &original.identity, self.sources.user());
                let object = &candidate.object;
                let find =
                    || self.sources.find_copy(path.as_c_str(), original, self.memory, object, replacements, copied);
                let found = prepared.unwrap_or_else(find);
                self.reporter.complain(path, &found);
                found.entry.ok()
            }
            _ => None,
        };
        // Where only the read-only ranges were compared, data may differ.
        if shared.as_ref().is_some_and(|entry| entry.proof == Proof::Whole) && !terms.has_text_relocations {
            self.sources.share_untouched_data(replacements, runs).map_err(no_memory)?;
        }
        // SAFETY: the ranges belong to an object that is relocated and cannot
        // be unloaded during the sweep; where stores are possible the plan has
        // no writable range. A store entry is a copy of the file that is mapped.
        let outcome = unsafe {
            let shared = shared.as_ref().map(|entry| &entry.file);
            let (memory, held, settings) = (self.memory, &self.private_memory, self.reporter.settings());
            remap::replace(memory, path, replacements, shared, |bytes| held.check(bytes, settings))
        };
        self.private_memory.add(outcome.private);
        let outcome = left.note_in(outcome);
        let has_moved = outcome.read_only_failure.is_none() && replacements.iter().any(sources::is_text);
        let witness = match original.filter(|_| has_moved) {
            Some(original) => {
                original::unmap_witness(earlier.witness);
                original.keep_witness()
            }
            None => earlier.witness,
        };
        let dynamic = candidate.object.dynamic.start;
        let file = if was_pinned && !replacements.iter().any(|range| range.span.contains(dynamic)) {
            earlier.file()
        } else {
            file_since(dynamic, vmas, replacements, &outcome)
        };
        let mut entry = Entry::new(witness, dynamic, file);
        entry.private = earlier.private + outcome.private;
        entry.original = earlier.original.or(Some(lowest.file));
        let micros = (sys::monotonic_ns() - begin) / 1000;
        let report = Report { outlook, stores, outcome, modified, micros };
        account.bytes = published.bytes as usize + outcome.bytes;
        (account.reached, account.cause) = report.reached(self.reporter.settings().mode);
        entry.in_other_namespace = self.in_other_namespace;
        self.registry.record(&candidate.loaded, entry, &account).map_err(no_memory)?;
        if outcome.bytes != 0 || published.reached() != Some(account.reached) {
            let beside = if candidate.may_have_run() { &self.work.beside[..] } else { &[] };
            self.reporter.pinned(path, &report, beside);
        }
        Ok(())
    }

    /// Records an object that is left as it is, with nothing to report.
    fn record_untouched(&mut self, candidate: &Candidate, reached: Reached, maps: &mut Maps) -> Result<(), Cause> {
        let dynamic = candidate.object.dynamic.start;
        let entry = Entry::new(Span::default(), dynamic, Some(file_at(dynamic, maps)));
        self.record(&candidate.loaded, entry, &Account { reached, span: candidate.object.span, ..Account::default() })
    }
}

/// The file mapped at `address` after the ranges of an object that mapped
/// `vmas` were replaced; `None` if it is a copy, whichever.
fn file_since(address: usize, vmas: &[Vma], replaced: &[Replacement], outcome: &Outcome) -> Option<FileId> {
    let before = vmas.iter().find(|vma| vma.span.contains(address)).map(|vma| vma.file).unwrap_or_default();
    match replaced.iter().find(|range| range.span.contains(address)).map(|range| range.source) {
        None => Some(before),
        Some(Source::Anonymous) if outcome.relocated_failure.is_none() && !outcome.is_unnamed => {
            Some(FileId::default())
        }
        // In part, perhaps: what is there now is the object recorded.
        Some(_) => None,
    }
}

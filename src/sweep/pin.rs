//! The steps of pinning one object: what it maps, which file that is, what to
//! replace and by what; then replace it, record it, report it.

use sopin_core::branch_protection;
use sopin_core::cause::Cause;
use sopin_core::line::Text;
use sopin_core::object::Span;
use sopin_core::plan::{self, Replacement, Source, Terms};
use sopin_core::records::Reached;
use sopin_core::settings::Level;
use sopin_core::sys;
use sopin_core::vmas::{FileId, Maps, Vma};
use sopin_store::Proof;

use super::{Sweep, file_at, no_maps, no_memory};
use crate::candidates::{self, Candidate};
use crate::loader::Loaded;
use crate::marked_ranges::Left;
use crate::original;
use crate::registry::{Account, Entry};
use crate::remap::{self, Outcome};
use crate::report::{self, Report};
use crate::sources::{self, CopyWork};
use crate::workspace::Workspace;
use crate::write_safety::Assessment;

impl Sweep<'_> {
    /// Pins one object, records and reports it. What is left of one that was
    /// pinned in part is tried again.
    pub(super) fn pin(&mut self, candidate: &Candidate, assessment: Assessment, maps: &mut Maps) -> Result<(), Cause> {
        let begin = sys::monotonic_ns();
        let headers = candidate.loaded.headers;
        let earlier = self.guard.recorded(headers).zip(self.guard.published(headers));
        let mut account = Account { span: candidate.object.span, ..Account::default() };
        if earlier.is_none() {
            // Room for the record first: what is pinned must not be forgotten.
            let entry = Entry::named(candidate.names(self.memory));
            self.record(&candidate.loaded, entry, &account)?;
        }
        let (earlier, published) = earlier.unwrap_or_default();
        maps.file_backed_in(candidate.object.span, &mut self.work.vmas).map_err(no_maps)?;
        let was_pinned = earlier.original != FileId::default();
        if was_pinned {
            // The rest maps copies of ours.
            self.work.vmas.retain(|vma| vma.file == earlier.original);
        }
        let lowest = match self.work.vmas.first().copied() {
            Some(lowest) => lowest,
            // The program has remapped what was left.
            None if was_pinned => Vma::default(),
            // The vDSO, or an object that the program has remapped.
            None => return self.record_untouched(candidate, Reached::NoFile, maps),
        };
        let path_len = self.read_path(&candidate.loaded, lowest.span.start, maps);
        let stores = assessment.reason_to_leave(&self.guard, candidate);
        let state = &mut *self.guard;
        let path = state.path_buffer.get(..path_len).unwrap_or_default();
        if !state.settings.selects(path) {
            state.log.line(&state.settings, Level::Info, format_args!("{}: excluded", Text(path)));
            return self.record_untouched(candidate, Reached::Excluded, maps);
        }
        let terms = Terms {
            mode: state.settings.mode,
            has_text_relocations: candidate.dynamic.has_text_relocations,
            stores_possible: stores.is_some(),
        };
        let Workspace { vmas, replacements, runs, copied, .. } = &mut self.work;
        let outlook = plan::plan(&candidate.object, vmas, terms, replacements).map_err(no_memory)?;
        branch_protection::keep(self.memory, &candidate.object, replacements);
        let has_begun = !assessment.proves_not_begun(candidate);
        let left = if has_begun { self.marked.leave(replacements) } else { Left::default() };
        let original = sources::find_original(maps, &state.path_buffer, lowest.file, candidate, replacements);
        let modified =
            self.sources.leave_modified_pages(self.memory, original.as_ref(), replacements, runs).map_err(no_memory)?;
        let shared = original.as_ref().and_then(|original| {
            let work = CopyWork { buffer: copied, large: self.large };
            self.sources.shared_copy(state, self.memory, candidate, original, replacements, work)
        });
        // Where only the read-only ranges were compared, data may differ.
        if shared.as_ref().is_some_and(|entry| entry.proof == Proof::Whole) && !terms.has_text_relocations {
            self.sources.share_untouched_data(replacements, runs).map_err(no_memory)?;
        }
        let path = state.path_buffer.get(..path_len).unwrap_or_default();
        // SAFETY: the ranges belong to an object that is relocated and cannot
        // be unloaded during the sweep; where stores are possible the plan has
        // no writable range. A store entry is a copy of the file that is mapped.
        let outcome = unsafe {
            remap::replace(self.memory, path, replacements, shared.as_ref().map(|entry| &entry.file), |bytes| {
                state.private_memory.check(bytes, &state.settings)
            })
        };
        state.private_memory.add(outcome.private);
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
        entry.original = if was_pinned { earlier.original } else { lowest.file };
        let micros = (sys::monotonic_ns() - begin) / 1000;
        let report = Report { outlook, stores, outcome, modified, micros };
        account.bytes = published.bytes as usize + outcome.bytes;
        (account.reached, account.cause) = report.reached(self.guard.settings.mode);
        self.record(&candidate.loaded, entry, &account)?;
        if outcome.bytes != 0 || published.reached() != Some(account.reached) {
            let beside = if candidate.may_have_run() { &self.work.beside[..] } else { &[] };
            report::pinned(&mut self.guard, path_len, &report, beside);
        }
        Ok(())
    }

    /// Reads the path of the file mapped at `address` into the path buffer,
    /// with a NUL behind it; its length. If the mappings do not tell it the
    /// loader's name has to do.
    pub(super) fn read_path(&mut self, loaded: &Loaded, address: usize, maps: &mut Maps) -> usize {
        let buffer = &mut self.guard.path_buffer;
        let room = buffer.len() - 1;
        let path = buffer.get_mut(..room).unwrap_or_default();
        let len = match maps.path_at(address, path) {
            Ok(path) => path.len(),
            Err(_) => candidates::read_loader_name(self.memory, loaded, path),
        };
        if let Some(end) = buffer.get_mut(len) {
            *end = 0;
        }
        len
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

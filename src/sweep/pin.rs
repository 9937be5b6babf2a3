//! The steps of pinning one object: survey what it maps, find the bytes that are to back
//! its ranges, apply the replacements, record and report what became of it.

use sopin_core::branch_protection;
use sopin_core::cause::{Cause, Operation};
use sopin_core::mode::Mode;
use sopin_core::object::Span;
use sopin_core::plan::{self, Backing, Outlook, PlanInputs, Replacement};
use sopin_core::records::{Reached, Record};
use sopin_core::settings::Level;
use sopin_core::sys;
use sopin_core::vmas::{FileId, Maps, Vma};
use sopin_store::CacheEntry;

use super::untouched::UntouchedData;
use super::{Sweep, file_at};
use crate::candidates::Candidate;
use crate::marked_ranges::Left;
use crate::object_path::ObjectPath;
use crate::original::{self, Original};
use crate::private_memory;
use crate::published::Account;
use crate::registry::Entry;
use crate::remap::{self, Outcome};
use crate::report::Report;
use crate::sources::{self, Modified, WantedCopy};
use crate::workspace::Workspace;
use crate::write_safety::Assessment;

/// What earlier sweeps have recorded of an object.
#[derive(Clone, Copy)]
enum Earlier {
    /// The object is new.
    Unseen,
    /// The object was left.
    Untouched(Entry, Record),
    /// The object was pinned in part; its other ranges map this file.
    InPart(Entry, Record, FileId),
}

impl Earlier {
    fn of(found: Option<(Entry, Record)>) -> Self {
        match found {
            None => Self::Unseen,
            Some((entry, record)) => match entry.original {
                None => Self::Untouched(entry, record),
                Some(original) => Self::InPart(entry, record, original),
            },
        }
    }

    /// Returns the file from which it was loaded, if it was pinned in part.
    const fn original(&self) -> Option<FileId> {
        match self {
            Self::InPart(_, _, original) => Some(*original),
            Self::Unseen | Self::Untouched(..) => None,
        }
    }

    /// Returns its entry and its published record; empty ones for a new object.
    fn entry(&self) -> (Entry, Record) {
        match self {
            Self::Unseen => Default::default(),
            Self::Untouched(entry, record) | Self::InPart(entry, record, _) => (*entry, *record),
        }
    }
}

/// The inputs for replacing the ranges of one object, beside the replacements, which are in
/// the workspace.
struct Supply {
    /// Which ranges the plan has left.
    outlook: Outlook,
    /// Why ranges are left of which a replacement would lose attributes.
    left: Left,
    /// How much of its text was modified in memory.
    modified: Modified,
    /// The file from which the object was loaded, if its path still leads to it.
    original: Option<Original>,
    /// The cache entry of that file, if a store has it.
    shared: Option<CacheEntry>,
    /// The decision about data to which no code has stored.
    untouched: UntouchedData,
}

impl Sweep<'_> {
    /// Pins one object, records and reports it. Of an object that was pinned in part, it tries
    /// the other ranges again.
    pub(super) fn pin(
        &mut self,
        candidate: &Candidate,
        assessment: Assessment,
        maps: &mut Maps,
        path_room: &mut [u8],
    ) -> Result<(), Cause> {
        // The first reading of the clock in a process costs two page faults.
        let begin = (self.reporter.settings().level >= Level::Info).then(sys::monotonic_ns);
        let earlier = self.make_room(candidate)?;
        let Some(lowest) = self.survey(candidate, &earlier, maps)? else {
            return self.record_untouched(candidate, Reached::NoFile, maps);
        };
        let path = ObjectPath::mapped_at(lowest.span.start, maps, self.memory, &candidate.loaded, path_room);
        if !self.reporter.settings().selects(path.as_bytes()) {
            self.reporter.line(Level::Info, format_args!("{}: excluded", path.text()));
            return self.record_untouched(candidate, Reached::Excluded, maps);
        }
        let stores = self.reason_to_leave(assessment, candidate);
        let has_begun = !assessment.proves_not_begun(candidate);
        let supply = self.supply(candidate, lowest.file, path, stores.is_some(), has_begun, maps)?;
        let outcome = self.apply(path, &supply);
        let micros = begin.map_or(0, |begin| (sys::monotonic_ns() - begin) / 1000);
        let Supply { outlook, modified, untouched: UntouchedData { refusal: untouched, .. }, .. } = supply;
        let report = Report { outlook, stores, untouched, outcome, modified, micros };
        let is_changed = self.record_pinned(candidate, &earlier, lowest.file, supply.original, &report)?;
        if report.stores.is_some() && report.outlook.writable_left != 0 {
            self.note_unfinished(candidate, earlier.original().unwrap_or(lowest.file), path, report, is_changed)?;
        } else if is_changed {
            let beside = if candidate.may_have_run() { &self.work.beside[..] } else { &[] };
            self.reporter.pinned(path, &report, beside);
        }
        Ok(())
    }

    /// Records a new object as pending, before it is pinned: that needs memory, and no object
    /// may be pinned without a record.
    fn make_room(&mut self, candidate: &Candidate) -> Result<Earlier, Cause> {
        let earlier = Earlier::of(self.registry.look_up(candidate.loaded.headers));
        if matches!(earlier, Earlier::Unseen) {
            let account = Account { span: candidate.object.span, ..Account::default() };
            self.record(&candidate.loaded, Entry::named(candidate.names(self.memory)), &account)?;
        }
        Ok(earlier)
    }

    /// Finds the VMAs by which the object still maps its file; returns the lowest. `None` if the
    /// object maps no file, because it is the vDSO or the program has remapped it.
    fn survey(&mut self, candidate: &Candidate, earlier: &Earlier, maps: &mut Maps) -> Result<Option<Vma>, Cause> {
        let vmas = &mut self.work.vmas;
        maps.file_backed_in(candidate.object.span, vmas).map_err(Operation::ReadMaps.failed())?;
        if let Some(original) = earlier.original() {
            // The other VMAs map copies that this library has made. If no VMA maps the file, the
            // program has remapped those that did.
            vmas.retain(|vma| vma.file == original);
            return Ok(Some(vmas.first().copied().unwrap_or_default()));
        }
        Ok(vmas.first().copied())
    }

    /// Plans which ranges to replace, and finds their bytes. If the object `has_begun`, the
    /// program may have set attributes of the ranges, which are checked then.
    fn supply(
        &mut self,
        candidate: &Candidate,
        mapped: FileId,
        path: ObjectPath<'_>,
        stores_possible: bool,
        has_begun: bool,
        maps: &mut Maps,
    ) -> Result<Supply, Cause> {
        let Workspace { vmas, replacements, runs, .. } = &mut *self.work;
        let has_text_relocations = candidate.dynamic.has_text_relocations;
        let mode = self.reporter.settings().mode;
        let may_have_run = stores_possible || has_begun;
        let inputs = PlanInputs { mode, has_text_relocations, stores_possible, may_have_run };
        let outlook = plan::plan(&candidate.object, vmas, inputs, replacements).map_err(Cause::no_memory)?;
        let original = self.sources.find_original(maps, path.as_c_str(), mapped, candidate, replacements);
        if original.as_ref().is_some_and(|original| original.is_immutable) {
            // No write to the file can take a page from the process, and none changes one.
            replacements.clear();
            return Ok(Supply {
                outlook: Outlook::default(),
                left: Left::default(),
                modified: Modified::Bytes(0),
                original,
                shared: None,
                untouched: UntouchedData::default(),
            });
        }
        branch_protection::keep(self.memory, &candidate.object, has_text_relocations, replacements);
        let left = if has_begun {
            self.marked.leave(replacements)
        } else {
            if branch_protection::is_in_doubt(&candidate.object, replacements) {
                self.marked.correct_branch_targets(replacements);
            }
            Left::default()
        };
        let modified = self.sources.leave_modified_pages(self.memory, original.as_ref(), replacements, runs)?;
        let has_copied = replacements.iter().any(|range| range.backing == Backing::Copy);
        let original = original.filter(|_| has_copied);
        let shared = original.as_ref().and_then(|original| self.shared_copy(candidate, original, path));
        let copy_has_data = shared.as_ref().is_some_and(CacheEntry::has_data) && !has_text_relocations;
        // A later attempt, of which the text is pinned already, looks for no copy.
        let would_store_help = mode == Mode::Full && has_copied && shared.is_none();
        let untouched = self.decide_on_untouched_data(copy_has_data, would_store_help)?;
        Ok(Supply { outlook, left, modified, original, shared, untouched })
    }

    /// Finds the copy of the object's file in a store, or makes it. `None` if there is none and
    /// the copy has to be private.
    fn shared_copy(&mut self, candidate: &Candidate, original: &Original, path: ObjectPath<'_>) -> Option<CacheEntry> {
        let Workspace { replacements, copied, .. } = &mut *self.work;
        let (sources, settings) = (&self.sources, self.reporter.settings());
        sources.open_system_store(settings, self.known_stores)?;
        let prepared = self.large.take(candidate.loaded.headers, &original.identity, || {
            sources.open_user_store(settings, self.known_stores);
            sources.user()
        });
        let found = prepared.unwrap_or_else(|| {
            let (path, memory, object) = (path.as_c_str(), self.memory, &candidate.object);
            let wanted = WantedCopy { path, original, memory, object, replacements };
            sources.find_copy(&wanted, copied, Some((settings, &mut *self.known_stores)))
        });
        self.reporter.complain(path, &found);
        found.entry.ok()
    }

    fn apply(&mut self, path: ObjectPath<'_>, supply: &Supply) -> Outcome {
        let shared = supply.shared.as_ref().map(|entry| &entry.file);
        // The data comes first: without it the object would be exposed, and without copies of its
        // read-only ranges it is relocated.
        let mut held = self.held_memory();
        held.add(supply.untouched.bytes);
        let settings = self.reporter.settings();
        // SAFETY: the contract of `replace` holds.
        // * The plan made the ranges from the object's mappings, with their protection. The object
        //   cannot be unloaded during the sweep: see the table in `pinner`, and `held_list`.
        // * Ranges for the file's bytes have no pages that were modified in memory, and the store
        //   has proven that its entry has those bytes. The library never changes an entry.
        // * The object is relocated, so the loader stores no longer to its read-only and RELRO
        //   ranges. The plan has writable ranges only if `write_safety` has ruled out stores to
        //   them, also those of lazy binding, or if this thread is proven to be alone.
        let mut outcome = unsafe {
            remap::replace(self.memory, path, &self.work.replacements, shared, |bytes| {
                private_memory::check(held, bytes, settings)
            })
        };
        outcome.private += supply.untouched.bytes_in(&outcome);
        self.private_memory.add(outcome.private);
        supply.left.note_in(outcome)
    }

    /// Records the result for the object. Returns whether it has changed, so that it must be
    /// reported.
    fn record_pinned(
        &mut self,
        candidate: &Candidate,
        earlier: &Earlier,
        mapped: FileId,
        original: Option<Original>,
        report: &Report,
    ) -> Result<bool, Cause> {
        let (entry, published) = earlier.entry();
        let (replaced, outcome) = (&self.work.replacements, &report.outcome);
        let has_moved = outcome.read_only_failure.is_none() && replaced.iter().any(sources::is_text);
        let witness = match original.filter(|_| has_moved) {
            Some(original) => {
                original::unmap_witness(entry.witness);
                original.keep_witness()
            }
            None => entry.witness,
        };
        let dynamic = candidate.object.dynamic.start;
        let was_replaced = replaced.iter().any(|range| range.span.contains(dynamic));
        let file = match earlier {
            Earlier::InPart(entry, ..) if !was_replaced => entry.file(),
            _ => file_since(dynamic, &self.work.vmas, replaced, outcome),
        };
        let mut now = Entry::new(witness, dynamic, file);
        now.private = entry.private + outcome.private;
        now.original = earlier.original().or(Some(mapped));
        let (reached, cause) = report.reached(self.reporter.settings().mode);
        let bytes = published.bytes as usize + outcome.bytes;
        self.record(&candidate.loaded, now, &Account { reached, span: candidate.object.span, bytes, cause })?;
        Ok(outcome.bytes != 0 || published.reached() != Some(reached))
    }

    /// Records an object that is left, without reporting it.
    fn record_untouched(&mut self, candidate: &Candidate, reached: Reached, maps: &mut Maps) -> Result<(), Cause> {
        let dynamic = candidate.object.dynamic.start;
        let entry = Entry::new(Span::default(), dynamic, Some(file_at(dynamic, maps)));
        self.record(&candidate.loaded, entry, &Account { reached, span: candidate.object.span, ..Account::default() })
    }
}

/// Returns the file that is mapped at `address` after the ranges of an object that mapped
/// `vmas` were replaced. `None` if it may be a copy.
fn file_since(address: usize, vmas: &[Vma], replaced: &[Replacement], outcome: &Outcome) -> Option<FileId> {
    let before = vmas.iter().find(|vma| vma.span.contains(address)).map(|vma| vma.file).unwrap_or_default();
    match replaced.iter().find(|range| range.span.contains(address)).map(|range| range.backing) {
        None => Some(before),
        Some(Backing::Anonymous) => outcome.file_of_anonymous(),
        // The range maps a copy whose identity was not read, if it was replaced.
        Some(_) => None,
    }
}

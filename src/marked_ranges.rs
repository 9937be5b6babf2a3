//! Leaves ranges alone that carry what a replacement would lose: locks, advice,
//! protection keys, seals. Whether a range does is known to
//! [`sopin_core::attributes`], and costs more than all the rest of a sweep, so
//! this module decides first whether a program may have asked for anything.
//!
//! Before any code of an object has run nobody knows its addresses: that is so at
//! the start of the process, and for an object that has yet to announce itself. All
//! others may have been loaded long ago.

use core::cell::OnceCell;

use sopin_core::attributes::AttributeMap;
use sopin_core::cause::Cause;
use sopin_core::memory::OwnMemory;
use sopin_core::object::Object;
use sopin_core::pages::PageVec;
use sopin_core::plan::{Replacement, Source};
use sopin_core::sys;

use crate::candidates::Candidate;
use crate::loader::Loaded;
use crate::remap::Outcome;

const MARKED: Cause = Cause::words(
    "pin ranges",
    "they are locked, sealed or carry advice or a protection key, which a replacement would lose",
);

/// What a sweep knows of ranges that a program has asked something of.
#[derive(Default)]
pub struct MarkedRanges {
    is_startup: bool,
    trusts_announcements: bool,
    /// Read when the first object needs it.
    attributes: OnceCell<Result<AttributeMap, Cause>>,
}

/// Why ranges were left.
#[derive(Clone, Copy, Default)]
pub struct Left {
    relocated: Option<Cause>,
    read_only: Option<Cause>,
}

impl MarkedRanges {
    /// For a sweep of objects of which any may have run code.
    pub fn of_late_sweep() -> Self {
        Self::default()
    }

    /// For a sweep because an object announces itself, or our own does.
    /// `is_startup`: no constructor of the program has run. `trusts_announcements`:
    /// an object that has yet to announce itself has run no code.
    pub fn of_announcement(is_startup: bool, trusts_announcements: bool) -> Self {
        Self { is_startup, trusts_announcements, attributes: OnceCell::new() }
    }

    /// Takes those of an object's `replacements` out that would lose something.
    /// If that cannot be found out, all of them.
    pub fn leave(
        &self,
        memory: &OwnMemory,
        announce: usize,
        candidate: &Candidate,
        replacements: &mut PageVec<Replacement>,
    ) -> Left {
        let mut left = Left::default();
        if replacements.is_empty() || self.has_run_no_code(memory, announce, candidate) {
            return left;
        }
        let attributes = self.attributes.get_or_init(AttributeMap::read);
        let lost = |range: &Replacement| match attributes {
            Ok(attributes) => attributes.would_lose(range.span, range.protection).then_some(MARKED),
            Err(cause) => Some(*cause),
        };
        for range in replacements.iter() {
            let cause = if range.source == Source::Copy { &mut left.read_only } else { &mut left.relocated };
            *cause = cause.or(lost(range));
        }
        replacements.retain(|range| lost(range).is_none());
        left
    }

    fn has_run_no_code(&self, memory: &OwnMemory, announce: usize, candidate: &Candidate) -> bool {
        self.is_startup || self.trusts_announcements && candidate.will_announce(memory, announce) == Ok(true)
    }
}

impl Left {
    /// Adds what was left to what became of the other ranges.
    pub fn note_in(self, mut outcome: Outcome) -> Outcome {
        outcome.relocated_failure = outcome.relocated_failure.or(self.relocated);
        outcome.read_only_failure = outcome.read_only_failure.or(self.read_only);
        outcome
    }
}

/// Whether this library, which `announce` is in, came with the program. The
/// loader's own object is among the last of those, and what is opened at run time
/// comes behind. A library that only others need may come behind it too, and then
/// counts as opened.
pub fn came_with_the_program(objects: &[Loaded], memory: &OwnMemory, announce: usize) -> bool {
    let loader = sys::loader_address();
    let until_loader = objects.iter().take_while(|loaded| loaded.base != loader);
    let is_own = |loaded: &Loaded| {
        let object = Object::read(memory, loaded.base, loaded.headers, loaded.header_count);
        object.is_ok_and(|object| object.span.contains(announce))
    };
    // A loader that is run as a program is the kernel's executable, and unknown.
    loader != 0 && until_loader.into_iter().any(is_own)
}

//! Leaves ranges alone that carry what a replacement would lose: locks, advice,
//! protection keys, seals. Whether a range does is known to
//! [`sopin_core::attributes`], and costs more than all the rest of a sweep.
//!
//! Before any code of an object has run nobody knows its addresses, so such an
//! object is not asked about: that is so at the start of the process, and for an
//! object that has yet to announce itself. All others may have been loaded long ago.

use sopin_core::attributes::AttributeMap;
use sopin_core::cause::{Cause, Operation};
use sopin_core::once::{OnceCell, get_or_init};
use sopin_core::pages::PageVec;
use sopin_core::plan::{Backing, Replacement};

use crate::remap::Outcome;

const MARKED: Cause = Cause::words(
    Operation::PinRanges,
    "they are locked, sealed or carry advice or a protection key, which a replacement would lose",
);

/// What a sweep knows of ranges that a program has asked something of.
#[derive(Default)]
pub struct MarkedRanges {
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
    /// Takes those of an object's `replacements` out that would lose something.
    /// If that cannot be found out, all of them.
    pub fn leave(&self, replacements: &mut PageVec<Replacement>) -> Left {
        let mut left = Left::default();
        if replacements.is_empty() {
            return left;
        }
        let attributes = get_or_init(&self.attributes, AttributeMap::read);
        let lost = |range: &Replacement| match attributes {
            Ok(attributes) => attributes.would_lose(range.span, range.protection).then_some(MARKED),
            Err(cause) => Some(*cause),
        };
        for range in replacements.iter() {
            let cause = if range.backing == Backing::Copy { &mut left.read_only } else { &mut left.relocated };
            *cause = cause.or(lost(range));
        }
        replacements.retain(|range| lost(range).is_none());
        left
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

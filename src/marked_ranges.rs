//! Leaving ranges with attributes that a replacement would lose: locks, advice, protection
//! keys, seals. [`sopin_core::attributes`] reads the attributes, which takes longer than all
//! the rest of a sweep.
//!
//! Before any code of an object has run, no code knows its addresses, so it cannot have set
//! such attributes. So the attributes are not read for objects that are proven not to have
//! begun: those at the start of the process, and one that is announcing itself. All others
//! may have been loaded long ago.
//!
//! The attributes also show which executable ranges have `PROT_BTI`. So this module gives the
//! replacements the bit that their ranges have. For that it also reads the attributes of an object
//! that has not begun, if the bit is in doubt ([`branch_protection::is_in_doubt`]).

use sopin_core::attributes::AttributeMap;
use sopin_core::branch_protection;
use sopin_core::cause::{Cause, Operation};
use sopin_core::kernel_stores::KernelStore;
use sopin_core::once::{OnceCell, get_or_init};
use sopin_core::pages::PageVec;
use sopin_core::plan::{Backing, Replacement};
use sopin_core::sys::Errno;

use crate::remap::Outcome;

const MARKED: Cause = Cause::words(
    Operation::PinRanges,
    "they are locked, sealed or carry advice or a protection key, which a replacement would lose",
);

/// The attributes of this process's mappings during one sweep.
#[derive(Default)]
pub struct MarkedRanges {
    /// The map, which is read when the first object needs it.
    attributes: OnceCell<Result<AttributeMap, Cause>>,
}

/// Why ranges of an object were left, if some were.
#[derive(Clone, Copy, Default)]
pub struct Left {
    relocated: Option<Cause>,
    read_only: Option<Cause>,
}

impl MarkedRanges {
    /// Reads the attributes and returns by what the kernel may store to the process's memory, as far as the same
    /// text shows it. Fails if they were read before, when that may have been different.
    pub fn kernel_store_now(&self) -> Result<Option<KernelStore>, Cause> {
        if self.attributes.get().is_some() {
            return Err(Operation::ReadSmaps.failed()(Errno(libc::EALREADY)));
        }
        self.attributes().as_ref().map(AttributeMap::kernel_store).map_err(|cause| *cause)
    }

    /// Returns the attributes, which it reads at the first call.
    fn attributes(&self) -> &Result<AttributeMap, Cause> {
        get_or_init(&self.attributes, AttributeMap::read)
    }

    /// Gives those `replacements` that are executable the bit for branch targets where their
    /// ranges have it, and takes it from the others; from all of them if the attributes cannot
    /// be read.
    pub fn correct_branch_targets(&self, replacements: &mut [Replacement]) {
        let attributes = self.attributes();
        for range in replacements {
            let has = attributes.as_ref().map_or(Some(false), |attributes| attributes.has_branch_targets(range.span));
            // If no VMA shows the bit, what was planned from the object's note stays.
            if let Some(has) = has {
                branch_protection::set(range, has);
            }
        }
    }

    /// Removes those of an object's `replacements` that would lose attributes. Removes all of
    /// them if the attributes cannot be read.
    pub fn leave(&self, replacements: &mut PageVec<Replacement>) -> Left {
        let mut left = Left::default();
        if replacements.is_empty() {
            return left;
        }
        self.correct_branch_targets(replacements);
        let attributes = self.attributes();
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
    /// Adds the causes for these ranges to the outcome of the others, whose causes come first.
    pub fn note_in(self, mut outcome: Outcome) -> Outcome {
        outcome.relocated_failure = outcome.relocated_failure.or(self.relocated);
        outcome.read_only_failure = outcome.read_only_failure.or(self.read_only);
        outcome
    }
}

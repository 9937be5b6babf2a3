//! Decides what becomes of data to which no code has stored ([`sopin_core::untouched`]). It is mapped
//! from the copy in a store, if that has it. Otherwise it would become private memory, which is bounded.
//! If the data of an object does not fit, all of it is left as the loader has mapped it, and the object is
//! reported as exposed. Its other pages are pinned all the same.
//!
//! A run that is left loses no store, whatever code does meanwhile. Those that are replaced are parts
//! of ranges to which no store is possible, as for all writable ranges.

use sopin_core::cause::Cause;
use sopin_core::private_memory::PrivateMemory;
use sopin_core::untouched;

use super::Sweep;
use crate::private_copies;
use crate::private_memory;
use crate::remap::Outcome;
use crate::sources::Sources;
use crate::workspace::Workspace;

/// The decision about the untouched data of one object.
#[derive(Clone, Copy, Default)]
pub struct UntouchedData {
    /// Bytes of it that may become private memory.
    pub bytes: usize,
    /// The reason for leaving it, if it is left.
    pub refusal: Option<Cause>,
}

impl UntouchedData {
    /// Returns how many bytes of it have become private memory, with this result for the object's
    /// ranges.
    pub fn bytes_in(&self, outcome: &Outcome) -> usize {
        // After a failure it is not known which ranges were replaced. What was not is counted by the
        // next attempt, and each byte is replaced only once, so the sum has a bound.
        if outcome.relocated_failure.is_none() { self.bytes } else { self.bytes.min(outcome.bytes) }
    }
}

impl Sweep<'_> {
    /// Returns the private memory that the process holds, with that of the ranges that will be
    /// replaced as soon as everything else has stopped.
    pub(super) fn held_memory(&self) -> PrivateMemory {
        let mut held = *self.private_memory;
        for unfinished in self.work.unfinished.iter() {
            held.add(unfinished.untouched.bytes);
        }
        held
    }

    /// Decides about the untouched data of an object whose replacements are planned: has it mapped from
    /// the copy of its file, if that `copy_has_data`, or removes it from the replacements if it does not fit
    /// into the private memory that is permitted.
    pub(super) fn decide_on_untouched_data(
        &mut self,
        copy_has_data: bool,
        would_store_help: bool,
    ) -> Result<UntouchedData, Cause> {
        let Workspace { replacements, runs, .. } = &mut *self.work;
        // Most objects have none, and then the page map is neither opened nor read.
        if !replacements.iter().any(untouched::may_be_in) {
            return Ok(UntouchedData::default());
        }
        let bytes = match self.sources.pagemap() {
            Some(pagemap) if copy_has_data => {
                untouched::share(replacements, runs, pagemap).map_err(Cause::no_memory)?
            }
            pagemap => untouched::bytes_in(replacements, pagemap),
        };
        if bytes == 0 || !private_copies::take_memory(replacements) {
            return Ok(UntouchedData::default());
        }
        let (held, settings) = (self.held_memory(), self.reporter.settings());
        match private_memory::check_untouched(held, bytes, settings, would_store_help) {
            Ok(()) => Ok(UntouchedData { bytes, refusal: None }),
            Err(cause) => {
                leave(&self.sources, self.work)?;
                Ok(UntouchedData { bytes: 0, refusal: Some(cause) })
            }
        }
    }
}

/// Removes the untouched data from the replacements; returns how many bytes that are.
pub fn leave(sources: &Sources, work: &mut Workspace) -> Result<usize, Cause> {
    let Workspace { replacements, runs, .. } = work;
    untouched::leave(replacements, runs, sources.pagemap()).map_err(Cause::no_memory)
}

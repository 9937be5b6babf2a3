//! Memory that sweeps use one after the other, so that none of them has to map
//! and touch it anew.

use sopin_core::cause::Cause;
use sopin_core::pages::PageVec;
use sopin_core::plan::Replacement;
use sopin_core::vmas::Vma;

use crate::candidates::{Candidate, GroupWork};
use crate::loader::Loaded;

/// Memory that is used again in every sweep.
#[derive(Default)]
pub struct Workspace {
    /// The objects that are new.
    pub candidates: PageVec<Candidate>,
    /// Objects that are new and cannot be read, with the reason.
    pub unreadable: PageVec<(Loaded, Cause)>,
    /// File names of those that are left because another may have run, with commas.
    pub beside: PageVec<u8>,
    /// Which of them belong together.
    pub groups: GroupWork,
    /// What one of them maps.
    pub vmas: PageVec<Vma>,
    /// What is to be replaced of it.
    pub replacements: PageVec<Replacement>,
    /// The same, while pages are taken out.
    pub runs: PageVec<Replacement>,
    /// What is copied to the store at once. Unmapped after each sweep; empty while the
    /// store has everything.
    pub copied: PageVec<u8>,
}

impl Workspace {
    /// No memory yet.
    pub const fn new() -> Self {
        Self {
            candidates: PageVec::new(),
            unreadable: PageVec::new(),
            beside: PageVec::new(),
            groups: GroupWork::new(),
            vmas: PageVec::new(),
            replacements: PageVec::new(),
            runs: PageVec::new(),
            copied: PageVec::new(),
        }
    }
}

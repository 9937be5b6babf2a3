//! Memory that every sweep uses again, so that it need not be mapped and populated anew.

use sopin_core::cause::Cause;
use sopin_core::pages::PageVec;
use sopin_core::plan::Replacement;
use sopin_core::vmas::{MapsRoom, Vma};

use crate::candidates::{Candidate, GroupWork};
use crate::loader::Loaded;
use crate::sweep::Unfinished;

/// The memory of the sweep under way.
#[derive(Default)]
pub struct Workspace {
    pub candidates: PageVec<Candidate>,
    /// New objects that cannot be read, with the reason.
    pub unreadable: PageVec<(Loaded, Cause)>,
    /// File names of the candidates that are left because another one may have run, separated by
    /// commas.
    pub beside: PageVec<u8>,
    /// Objects of which writable ranges are left until everything else has stopped.
    pub unfinished: PageVec<Unfinished>,
    /// Their paths, each with a NUL behind it.
    pub paths: PageVec<u8>,
    /// Memory for finding the candidates of a group.
    pub groups: GroupWork,
    /// Memory for the text of the mappings.
    pub maps_room: MapsRoom,
    /// The VMAs of one candidate, or of its RELRO.
    pub vmas: PageVec<Vma>,
    /// The ranges of one candidate that are to be replaced.
    pub replacements: PageVec<Replacement>,
    /// The replacements that are being built from the former, with pages removed.
    pub runs: PageVec<Replacement>,
    /// A buffer for copying a file to the store. It is unmapped after each sweep, and stays empty
    /// while the store has all copies.
    pub copied: PageVec<u8>,
}

impl Workspace {
    /// Makes a workspace that has mapped no memory yet.
    pub const fn new() -> Self {
        Self {
            candidates: PageVec::new(),
            unreadable: PageVec::new(),
            beside: PageVec::new(),
            unfinished: PageVec::new(),
            paths: PageVec::new(),
            groups: GroupWork::new(),
            maps_room: MapsRoom::new(),
            vmas: PageVec::new(),
            replacements: PageVec::new(),
            runs: PageVec::new(),
            copied: PageVec::new(),
        }
    }
}

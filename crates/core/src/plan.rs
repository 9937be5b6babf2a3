//! What to replace in an object, and by what. Pure: looks at an object and
//! its VMAs, touches nothing.
//!
//! Every part of a PT_LOAD segment that still maps the object's file falls in
//! one of four cases:
//!
//! | part | becomes |
//! |---|---|
//! | writable now | a copy in anonymous memory, if no store can be lost |
//! | read-only, but relocated: RELRO | a copy in anonymous memory |
//! | executable and relocated: DT_TEXTREL | an immutable copy of what is in memory |
//! | read-only as in the file: text, .rodata, headers | the same, in mode `full` |
//!
//! What is not accessible (gaps between segments), shared, or no longer the
//! object's file (the program remapped it) is not touched.
//!
//! A replacement gets the protection that `/proc/self/maps` shows, and an emulator can
//! show a wrong one (qemu-user shows text as readable only, because its own kernel need
//! not execute it). So a part for which the mappings show less access than the program
//! headers is left as it is. If that part is text, all read-only parts of the object are
//! left.

use crate::mode::Mode;
use crate::object::{Object, Segment, Span};
use crate::pages::PageVec;
use crate::sys::Result;
use crate::vmas::{FileId, Protection, Vma};

/// What backs a range once it is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// Anonymous private memory with the same bytes.
    Anonymous,
    /// A private mapping of an immutable copy of the bytes in memory, which
    /// differ from the file's: relocated text.
    RelocatedCopy,
    /// A private mapping of an immutable copy of the file's bytes.
    Copy,
    /// The same for data that nobody has stored to yet: a page that is stored to
    /// becomes anonymous memory then. The plan does not say so; whoever knows
    /// the pages and has a copy that is shared may.
    CopyOnWrite,
}

impl Backing {
    /// Returns whether ranges with this backing hold what is in the object's file.
    pub const fn is_file_copy(self) -> bool {
        matches!(self, Self::Copy | Self::CopyOnWrite)
    }
}

/// A range to replace: whole pages of one VMA and one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// The pages.
    pub span: Span,
    /// The protection they have and keep.
    pub protection: Protection,
    /// Their offset in the object's file.
    pub offset: u64,
    /// What takes their place.
    pub backing: Backing,
}

/// What a plan depends on, beside the object and its VMAs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanInputs {
    /// The mode of the user's choice.
    pub mode: Mode,
    /// DT_TEXTREL is set.
    pub has_text_relocations: bool,
    /// Whether concurrent stores to writable ranges cannot be ruled out.
    pub stores_possible: bool,
}

/// The result of planning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// Bytes of writable ranges that had to be left because stores were possible.
    pub writable_left: usize,
    /// Bytes of read-only ranges left because of the mode.
    pub read_only_left: usize,
    /// Bytes of writable or relocated ranges left because their mappings contradict
    /// the program headers.
    pub relocated_contradicted: usize,
    /// Bytes of read-only ranges left for that reason.
    pub read_only_contradicted: usize,
}

/// The file that `vmas`, those of one object, map: that of the lowest one.
pub fn file_of(vmas: &[Vma]) -> Option<FileId> {
    vmas.first().map(|vma| vma.file)
}

/// Replaces `replacements` by what to do to `object`, which maps `vmas`.
pub fn plan(
    object: &Object,
    vmas: &[Vma],
    inputs: PlanInputs,
    replacements: &mut PageVec<Replacement>,
) -> Result<Outlook> {
    replacements.clear();
    let mut outlook = Outlook::default();
    let Some(file) = file_of(vmas) else { return Ok(outlook) };
    for segment in object.segments() {
        for vma in vmas.iter().filter(|vma| vma.file == file && !vma.is_shared && vma.protection != libc::PROT_NONE) {
            let span = segment.span.intersection(&vma.span);
            if span.is_empty() {
                continue;
            }
            let offset = vma.offset + (span.start - vma.span.start) as u64;
            let is_executable = vma.protection & libc::PROT_EXEC != 0;
            let backing = if vma.is_writable() {
                if inputs.stores_possible {
                    outlook.writable_left += span.len();
                    continue;
                }
                Backing::Anonymous
            } else if segment.writable && !is_executable {
                Backing::Anonymous
            } else if inputs.has_text_relocations || segment.writable {
                Backing::RelocatedCopy
            } else if inputs.mode == Mode::Full {
                Backing::Copy
            } else {
                outlook.read_only_left += span.len();
                continue;
            };
            if contradicts(object, segment, vma, inputs) || offset != segment.offset_of(span.start) {
                let left = if backing == Backing::Copy {
                    &mut outlook.read_only_contradicted
                } else {
                    &mut outlook.relocated_contradicted
                };
                *left += span.len();
                continue;
            }
            replacements.push(Replacement { span, protection: vma.protection, offset, backing })?;
        }
    }
    if outlook.read_only_contradicted != 0 {
        let copied = |range: &Replacement| range.backing == Backing::Copy;
        outlook.read_only_contradicted +=
            replacements.iter().filter(|range| copied(range)).map(|range| range.span.len()).sum::<usize>();
        replacements.retain(|range| !copied(range));
    }
    Ok(outlook)
}

/// Returns whether `vma` is said to allow less than the loader has given to that part of
/// `segment`. A program may have taken rights away itself, once its code has run; for
/// text that is no reason to believe it, because nothing is lost by leaving it.
fn contradicts(object: &Object, segment: &Segment, vma: &Vma, inputs: PlanInputs) -> bool {
    let span = segment.span.intersection(&vma.span);
    let is_relro = span.intersection(&object.relro) == span;
    let lacks_write = segment.writable && !vma.is_writable() && !is_relro && !inputs.stores_possible;
    let lacks_execution = segment.executable && vma.protection & libc::PROT_EXEC == 0;
    lacks_write || lacks_execution
}

#[cfg(test)]
mod tests;

//! Planning which ranges of an object to replace, and the backing of each. The functions are
//! pure: they read the description of an object and its VMAs, and access no mapping.
//!
//! Every part of a PT_LOAD segment that still maps the object's file falls in
//! one of four cases:
//!
//! | part | replaced by |
//! |---|---|
//! | writable now | a copy in anonymous memory, if no concurrent store can be lost |
//! | read-only, but relocated: RELRO | a copy in anonymous memory |
//! | executable and relocated: DT_TEXTREL | an immutable copy of the bytes in memory |
//! | read-only as in the file: text, .rodata, headers | an immutable copy of the file's bytes, in mode `full` |
//!
//! Parts are left that are inaccessible (gaps between segments), shared, or no longer map the
//! object's file because the program has remapped them.
//!
//! A replacement gets the protection that `/proc/self/maps` shows. An emulator can show a
//! wrong one: qemu-user shows text as readable only, because the kernel below it does not
//! execute it. So a part for which the mappings show less access than the program headers
//! is left. If that part is read-only, all read-only parts of the object are left.

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
    /// A private writable mapping of an immutable copy of the file's bytes, for data to which no
    /// code has stored yet. A page becomes anonymous memory at the first store. [`plan`] never
    /// chooses this backing; a caller that knows the pages and has a shared copy may.
    CopyOnWrite,
}

impl Backing {
    /// Returns whether ranges with this backing hold the bytes of the object's file.
    pub const fn is_file_copy(self) -> bool {
        matches!(self, Self::Copy | Self::CopyOnWrite)
    }
}

/// A range to replace: whole pages of one VMA and one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// The pages to replace.
    pub span: Span,
    /// The protection that the pages have and keep.
    pub protection: Protection,
    /// Their offset in the object's file.
    pub offset: u64,
    /// What backs the pages afterwards.
    pub backing: Backing,
}

/// The inputs of a plan, beside the object and its VMAs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanInputs {
    /// The mode that the user has chosen.
    pub mode: Mode,
    /// True if the object has DT_TEXTREL.
    pub has_text_relocations: bool,
    /// True if concurrent stores to writable ranges cannot be ruled out.
    pub stores_possible: bool,
    /// True if code of the program may have run, which may have changed protections.
    pub may_have_run: bool,
}

/// How many bytes a plan leaves, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// Bytes of writable ranges that are left because concurrent stores are possible.
    pub writable_left: usize,
    /// Bytes of read-only ranges that are left because of the mode.
    pub read_only_left: usize,
    /// Bytes of read-only ranges that are left because the program has made them inaccessible, so
    /// that they cannot be compared with a copy.
    pub inaccessible_left: usize,
    /// Bytes of writable or relocated ranges that are left because their mappings contradict
    /// the program headers.
    pub relocated_contradicted: usize,
    /// Bytes of read-only ranges that are left because mappings of read-only ranges contradict
    /// the program headers.
    pub read_only_contradicted: usize,
}

/// Returns the file that an object maps: that of the lowest of its `vmas`.
pub fn file_of(vmas: &[Vma]) -> Option<FileId> {
    vmas.first().map(|vma| vma.file)
}

/// Plans what to replace in `object`, which maps `vmas`. Stores the ranges in `replacements`,
/// whose previous contents it discards. Fails if there is no memory for them.
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
        for vma in vmas.iter().filter(|vma| vma.file == file && !vma.is_shared) {
            let span = segment.span.intersection(&vma.span);
            if span.is_empty() {
                continue;
            }
            let offset = vma.offset + (span.start - vma.span.start) as u64;
            let Some(backing) = backing_of(segment, vma, inputs) else {
                let left = match vma.protection {
                    _ if may_be_stored_to(segment, vma) => &mut outlook.writable_left,
                    libc::PROT_NONE => &mut outlook.inaccessible_left,
                    _ => &mut outlook.read_only_left,
                };
                *left += span.len();
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

/// Returns what replaces the parts of `segment` in `vma`; `None` if they are left.
fn backing_of(segment: &Segment, vma: &Vma, inputs: PlanInputs) -> Option<Backing> {
    let is_executable = vma.protection & libc::PROT_EXEC != 0;
    if may_be_stored_to(segment, vma) {
        (!inputs.stores_possible).then_some(Backing::Anonymous)
    } else if vma.protection == libc::PROT_NONE {
        None
    } else if segment.writable && !is_executable {
        Some(Backing::Anonymous)
    } else if inputs.has_text_relocations || segment.writable {
        Some(Backing::RelocatedCopy)
    } else {
        (inputs.mode == Mode::Full).then_some(Backing::Copy)
    }
}

/// Returns whether stores to `vma`'s part of `segment` are possible now, or as soon as the program
/// makes it accessible again.
fn may_be_stored_to(segment: &Segment, vma: &Vma) -> bool {
    vma.is_writable() || segment.writable && vma.protection == libc::PROT_NONE
}

/// Returns whether `vma` shows less access than the loader has given to its part of `segment`.
/// Once code of the program has run, it may have taken the right to write away itself, so that a
/// lack of it is no contradiction. A lack of execution always counts, because text that is left
/// keeps working.
fn contradicts(object: &Object, segment: &Segment, vma: &Vma, inputs: PlanInputs) -> bool {
    let span = segment.span.intersection(&vma.span);
    let is_relro = span.intersection(&object.relro) == span;
    let lacks_write = segment.writable && !may_be_stored_to(segment, vma) && !is_relro && !inputs.may_have_run;
    let lacks_execution = segment.executable && vma.protection & libc::PROT_EXEC == 0;
    lacks_write || lacks_execution
}

#[cfg(test)]
mod tests;

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

use crate::object::{Object, Span};
use crate::pages::PageVec;
use crate::settings::Mode;
use crate::sys::Result;
use crate::vmas::{FileId, Protection, Vma};

/// What a range is replaced by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
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
    pub source: Source,
}

/// What may be done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The mode of the user's choice.
    pub mode: Mode,
    /// DT_TEXTREL is set.
    pub has_text_relocations: bool,
    /// Somebody may be storing to writable ranges while they are copied.
    pub stores_possible: bool,
}

/// The result of planning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// Bytes of writable ranges that had to be left because stores were possible.
    pub writable_left: usize,
    /// Bytes of read-only ranges left because of the mode.
    pub read_only_left: usize,
}

/// The file that `vmas`, those of one object, map: that of the lowest one.
pub fn file_of(vmas: &[Vma]) -> Option<FileId> {
    vmas.first().map(|vma| vma.file)
}

/// Replaces `replacements` by what to do to `object`, which maps `vmas`.
pub fn plan(object: &Object, vmas: &[Vma], terms: Terms, replacements: &mut PageVec<Replacement>) -> Result<Outlook> {
    replacements.clear();
    let mut outlook = Outlook::default();
    let Some(file) = file_of(vmas) else { return Ok(outlook) };
    for segment in object.segments() {
        for vma in vmas.iter().filter(|vma| vma.file == file && !vma.is_shared && vma.protection != libc::PROT_NONE) {
            let span = segment.span.intersection(&vma.span);
            if span.is_empty() {
                continue;
            }
            let is_executable = vma.protection & libc::PROT_EXEC != 0;
            let source = if vma.is_writable() {
                if terms.stores_possible {
                    outlook.writable_left += span.len();
                    continue;
                }
                Source::Anonymous
            } else if segment.writable && !is_executable {
                Source::Anonymous
            } else if terms.has_text_relocations || segment.writable {
                Source::RelocatedCopy
            } else if terms.mode == Mode::Full {
                Source::Copy
            } else {
                outlook.read_only_left += span.len();
                continue;
            };
            let offset = vma.offset + (span.start - vma.span.start) as u64;
            replacements.push(Replacement { span, protection: vma.protection, offset, source })?;
        }
    }
    Ok(outlook)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::OwnMemory;
    use libc::{Elf64_Phdr, PF_R, PF_W, PF_X, PROT_EXEC, PROT_NONE, PROT_READ, PROT_WRITE, PT_LOAD};
    use std::vec::Vec;

    const BASE: usize = 0x10_0000;
    const FILE: FileId = FileId { device: (8, 1), inode: 42 };

    fn object(segments: &[(u32, u64, u64)]) -> Object {
        let headers: Vec<Elf64_Phdr> = segments
            .iter()
            .map(|(flags, start, end)| Elf64_Phdr {
                p_type: PT_LOAD,
                p_flags: *flags,
                p_offset: *start,
                p_vaddr: *start,
                p_paddr: 0,
                p_filesz: end - start,
                p_memsz: end - start,
                p_align: 0x1000,
            })
            .collect();
        Object::read(&OwnMemory::new(), BASE, headers.as_ptr().expose_provenance(), headers.len()).unwrap()
    }

    fn vma(start: usize, end: usize, protection: Protection) -> Vma {
        let span = Span { start: BASE + start, end: BASE + end };
        Vma { span, protection, is_shared: false, offset: start as u64, file: FILE }
    }

    /// Headers, text, RELRO and data as the GNU linker lays them out.
    fn ordinary() -> (Object, Vec<Vma>) {
        let segments = [(PF_R, 0, 0x800), (PF_R | PF_X, 0x1000, 0x2800), (PF_R | PF_W, 0x3e00, 0x5100)];
        let vmas = [
            vma(0, 0x1000, PROT_READ),
            vma(0x1000, 0x3000, PROT_READ | PROT_EXEC),
            vma(0x3000, 0x4000, PROT_READ),
            vma(0x4000, 0x5000, PROT_READ | PROT_WRITE),
        ];
        (object(&segments), vmas.to_vec())
    }

    const TERMS: Terms = Terms { mode: Mode::Full, has_text_relocations: false, stores_possible: false };

    fn sources(object: &Object, vmas: &[Vma], terms: Terms) -> (Vec<(usize, Source)>, Outlook) {
        let mut replacements = PageVec::new();
        let outlook = plan(object, vmas, terms, &mut replacements).unwrap();
        (replacements.iter().map(|range| (range.span.start - BASE, range.source)).collect(), outlook)
    }

    #[test]
    fn full_replaces_everything() {
        let (object, vmas) = ordinary();
        let (found, outlook) = sources(&object, &vmas, TERMS);
        assert_eq!(
            found,
            [(0, Source::Copy), (0x1000, Source::Copy), (0x3000, Source::Anonymous), (0x4000, Source::Anonymous)]
        );
        assert_eq!(outlook, Outlook::default());
    }

    #[test]
    fn relocated_replaces_relro_and_data() {
        let (object, vmas) = ordinary();
        let (found, outlook) = sources(&object, &vmas, Terms { mode: Mode::Relocated, ..TERMS });
        assert_eq!(found, [(0x3000, Source::Anonymous), (0x4000, Source::Anonymous)]);
        assert_eq!(outlook.read_only_left, 0x3000);
    }

    #[test]
    fn possible_stores_leave_only_what_is_writable_now() {
        let (object, vmas) = ordinary();
        let (found, outlook) = sources(&object, &vmas, Terms { stores_possible: true, ..TERMS });
        assert_eq!(found, [(0, Source::Copy), (0x1000, Source::Copy), (0x3000, Source::Anonymous)]);
        assert_eq!(outlook.writable_left, 0x1000);
    }

    #[test]
    fn relocated_text_is_replaced_in_both_modes() {
        let (object, vmas) = ordinary();
        let terms = Terms { mode: Mode::Relocated, has_text_relocations: true, ..TERMS };
        let (found, outlook) = sources(&object, &vmas, terms);
        assert_eq!(found.get(1), Some(&(0x1000, Source::RelocatedCopy)));
        assert_eq!(outlook.read_only_left, 0);
    }

    #[test]
    fn what_is_not_the_objects_file_is_left_alone() {
        let (object, mut vmas) = ordinary();
        vmas[1].file.inode = 7;
        vmas[2].is_shared = true;
        vmas[3].protection = PROT_NONE;
        assert_eq!(sources(&object, &vmas, TERMS), (std::vec![(0, Source::Copy)], Outlook::default()));
        assert_eq!(sources(&object, &[], TERMS), (std::vec![], Outlook::default()));
    }

    #[test]
    fn a_vma_over_two_segments_is_split_and_offsets_follow() {
        let object = object(&[(PF_R, 0, 0x1000), (PF_R | PF_W, 0x1000, 0x2000)]);
        let merged = Vma { offset: 0x7000, ..vma(0, 0x2000, PROT_READ) };
        let mut replacements = PageVec::new();
        plan(&object, &[merged], TERMS, &mut replacements).unwrap();
        let found: Vec<_> = replacements.iter().map(|range| (range.offset, range.source)).collect();
        assert_eq!(found, [(0x7000, Source::Copy), (0x8000, Source::Anonymous)]);
    }

    #[test]
    fn writable_and_executable_segments_stay_in_anonymous_memory() {
        let object = object(&[(PF_R | PF_W | PF_X, 0, 0x1000)]);
        let all = vma(0, 0x1000, PROT_READ | PROT_WRITE | PROT_EXEC);
        assert_eq!(sources(&object, &[all], TERMS).0, [(0, Source::Anonymous)]);
    }
}

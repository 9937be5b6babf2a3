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

use crate::object::{Object, Segment, Span};
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

impl Source {
    /// Returns whether ranges of this source hold what is in the object's file.
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
            let offset = vma.offset + (span.start - vma.span.start) as u64;
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
            if contradicts(object, segment, vma, terms) || offset != segment.offset_of(span.start) {
                let left = if source == Source::Copy {
                    &mut outlook.read_only_contradicted
                } else {
                    &mut outlook.relocated_contradicted
                };
                *left += span.len();
                continue;
            }
            replacements.push(Replacement { span, protection: vma.protection, offset, source })?;
        }
    }
    if outlook.read_only_contradicted != 0 {
        let copied = |range: &Replacement| range.source == Source::Copy;
        outlook.read_only_contradicted +=
            replacements.iter().filter(|range| copied(range)).map(|range| range.span.len()).sum::<usize>();
        replacements.retain(|range| !copied(range));
    }
    Ok(outlook)
}

/// Returns whether `vma` is said to allow less than the loader has given to that part of
/// `segment`. A program may have taken rights away itself, once its code has run; for
/// text that is no reason to believe it, because nothing is lost by leaving it.
fn contradicts(object: &Object, segment: &Segment, vma: &Vma, terms: Terms) -> bool {
    let span = segment.span.intersection(&vma.span);
    let is_relro = span.intersection(&object.relro) == span;
    let lacks_write = segment.writable && !vma.is_writable() && !is_relro && !terms.stores_possible;
    let lacks_execution = segment.executable && vma.protection & libc::PROT_EXEC == 0;
    lacks_write || lacks_execution
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
        let relro = Span { start: BASE + 0x3000, end: BASE + 0x4000 };
        let vmas = [
            vma(0, 0x1000, PROT_READ),
            vma(0x1000, 0x3000, PROT_READ | PROT_EXEC),
            vma(0x3000, 0x4000, PROT_READ),
            vma(0x4000, 0x5000, PROT_READ | PROT_WRITE),
        ];
        let mut object = object(&segments);
        object.relro = relro;
        (object, vmas.to_vec())
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
        let mut replacements = PageVec::new();
        let terms = Terms { stores_possible: true, ..TERMS };
        plan(&object, &[vma(0, 0x2000, PROT_READ)], terms, &mut replacements).unwrap();
        let found: Vec<_> = replacements.iter().map(|range| (range.offset, range.source)).collect();
        assert_eq!(found, [(0, Source::Copy), (0x1000, Source::Anonymous)]);
    }

    #[test]
    fn text_that_is_said_not_to_be_executable_is_left_with_all_that_is_read_only() {
        let (object, vmas) = ordinary();
        // As qemu-user shows it.
        let merged = [vma(0, 0x3000, PROT_READ), vmas[2], vmas[3]];
        let (found, outlook) = sources(&object, &merged, TERMS);
        assert_eq!(found, [(0x3000, Source::Anonymous), (0x4000, Source::Anonymous)]);
        assert_eq!(outlook, Outlook { read_only_contradicted: 0x3000, ..Outlook::default() });
        let (found, outlook) = sources(&object, &merged, Terms { mode: Mode::Relocated, ..TERMS });
        assert_eq!(found, [(0x3000, Source::Anonymous), (0x4000, Source::Anonymous)]);
        assert_eq!(outlook, Outlook { read_only_left: 0x3000, ..Outlook::default() });
        let (_, outlook) = sources(&object, &merged, Terms { has_text_relocations: true, ..TERMS });
        assert_eq!(outlook.relocated_contradicted, 0x2000);
    }

    #[test]
    fn data_that_is_said_to_be_read_only_is_left_unless_the_program_can_have_made_it_so() {
        let (object, mut vmas) = ordinary();
        vmas[3].protection = PROT_READ;
        let (found, outlook) = sources(&object, &vmas, TERMS);
        assert_eq!(found.last(), Some(&(0x3000, Source::Anonymous)));
        assert_eq!(outlook, Outlook { relocated_contradicted: 0x1000, ..Outlook::default() });
        let (found, outlook) = sources(&object, &vmas, Terms { stores_possible: true, ..TERMS });
        assert_eq!(found.last(), Some(&(0x4000, Source::Anonymous)));
        assert_eq!(outlook, Outlook::default());
    }

    #[test]
    fn a_part_of_the_file_that_is_not_the_segments_is_left() {
        let (object, mut vmas) = ordinary();
        vmas[1].offset += 0x1000;
        let (found, outlook) = sources(&object, &vmas, TERMS);
        assert_eq!(found, [(0x3000, Source::Anonymous), (0x4000, Source::Anonymous)]);
        assert_eq!(outlook.read_only_contradicted, 0x3000);
    }

    #[test]
    fn code_that_may_only_be_executed_contradicts_nothing() {
        let object = object(&[(PF_X, 0, 0x1000)]);
        assert_eq!(sources(&object, &[vma(0, 0x1000, PROT_EXEC)], TERMS).0, [(0, Source::Copy)]);
    }

    #[test]
    fn writable_and_executable_segments_stay_in_anonymous_memory() {
        let object = object(&[(PF_R | PF_W | PF_X, 0, 0x1000)]);
        let all = vma(0, 0x1000, PROT_READ | PROT_WRITE | PROT_EXEC);
        assert_eq!(sources(&object, &[all], TERMS).0, [(0, Source::Anonymous)]);
    }
}

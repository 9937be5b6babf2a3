use std::vec::Vec;

use libc::{Elf64_Phdr, PT_DYNAMIC, PT_GNU_RELRO, PT_LOAD};
use proptest::collection::vec;
use proptest::prelude::*;

use super::trials;
use crate::memory::ProcessMemory;
use crate::mode::Mode;
use crate::object::{Dynamic, Object, ObjectError, Span};
use crate::pages::PageVec;
use crate::plan::{Backing, Outlook, PlanInputs, Replacement, plan};
use crate::sys;
use crate::vmas::{FileId, Vma};

const BASE: usize = 0x7f00_0000_0000;

fn header(kind: u32, flags: u32, start: u64, size: u64) -> Elf64_Phdr {
    Elf64_Phdr {
        p_type: kind,
        p_flags: flags,
        p_offset: start,
        p_vaddr: start,
        p_paddr: start,
        p_filesz: size,
        p_memsz: size,
        p_align: 0x1000,
    }
}

/// Headers with addresses of all kinds, most of them nonsense.
fn any_headers() -> impl Strategy<Value = Vec<Elf64_Phdr>> {
    let kind = prop_oneof![4 => Just(PT_LOAD), 1 => Just(PT_DYNAMIC), 1 => Just(PT_GNU_RELRO), 1 => any::<u32>()];
    let number = || prop_oneof![3 => 0_u64..0x8000, 1 => any::<u64>(), 1 => (u64::MAX - 0x3000)..];
    vec((kind, 0_u32..8, number(), number()), 0..24)
        .prop_map(|all| all.into_iter().map(|(kind, flags, start, size)| header(kind, flags, start, size)).collect())
}

/// Segments in ascending order, gaps of any size between them, so that two may
/// share a page.
fn ascending_segments() -> impl Strategy<Value = Vec<Elf64_Phdr>> {
    vec((0_u64..0x1800, 1_u64..0x3800, 0_u32..8), 1..8).prop_map(|sizes| {
        let mut next = 0;
        sizes
            .into_iter()
            .map(|(gap, size, flags)| {
                let start = next + gap;
                next = start + size;
                header(PT_LOAD, flags, start, size)
            })
            .collect()
    })
}

fn read(headers: &[Elf64_Phdr]) -> Result<Object, ObjectError> {
    Object::read(&ProcessMemory::own(), BASE, headers.as_ptr().expose_provenance(), headers.len())
}

/// Returns what may be mapped where such an object is: in order and apart, whatever
/// the protection, the file and the offset.
fn mappings() -> impl Strategy<Value = Vec<Vma>> {
    let page = prop_oneof![3 => Just(None), 1 => (0_u64..64).prop_map(Some)];
    vec((0_usize..3, 1_usize..5, 0_i32..8, prop::bool::weighted(0.1), page, prop::bool::weighted(0.2)), 0..14).prop_map(
        |parts| {
            let mut next = BASE;
            parts
                .into_iter()
                .map(|(gap, pages, protection, is_shared, page, is_foreign)| {
                    let start = next + (gap << 12);
                    next = start + (pages << 12);
                    let file = FileId { device: (8, 1), inode: if is_foreign { 7 } else { 42 } };
                    // The file is loaded as it is, mostly.
                    let offset = page.map_or((start - BASE) as u64, |page| page << 12);
                    Vma { span: Span { start, end: next }, protection, is_shared, offset, file }
                })
                .collect()
        },
    )
}

fn terms() -> impl Strategy<Value = PlanInputs> {
    let mode = prop_oneof![Just(Mode::Full), Just(Mode::Relocated)];
    (mode, any::<[bool; 3]>()).prop_map(|(mode, [has_text_relocations, stores_possible, may_have_run])| PlanInputs {
        mode,
        has_text_relocations,
        stores_possible,
        may_have_run,
    })
}

/// Returns the plan for an object with these headers; `None` if it is none.
fn planned(headers: &[Elf64_Phdr], vmas: &[Vma], inputs: PlanInputs) -> Option<(Object, Vec<Replacement>, Outlook)> {
    let object = read(headers).ok()?;
    let mut replacements = PageVec::new();
    let outlook = plan(&object, vmas, inputs, &mut replacements).unwrap();
    Some((object, replacements.to_vec(), outlook))
}

/// Returns the bytes of the object's file that are mapped in its segments and accessible.
fn bytes_concerned(object: &Object, vmas: &[Vma]) -> usize {
    let file = vmas.first().map(|vma| vma.file);
    let concerned = |vma: &&Vma| Some(vma.file) == file && !vma.is_shared;
    let of_segment = |segment: &Span| -> usize {
        vmas.iter().filter(concerned).map(|vma| vma.span.intersection(segment).len()).sum()
    };
    object.segments().iter().map(|segment| of_segment(&segment.span)).sum()
}

proptest! {
    #![proptest_config(trials())]

    #[test]
    fn any_headers_are_an_object_or_an_error(headers in any_headers()) {
        if let Ok(object) = read(&headers) {
            let page = sys::page_size();
            let mut end = 0;
            prop_assert!(!object.segments().is_empty());
            for segment in object.segments() {
                let span = segment.span;
                prop_assert!(span.start >= end && span.start % page == 0 && span.end % page == 0);
                prop_assert!(span.start >= object.span.start && span.end <= object.span.end);
                end = span.end;
            }
            // Nothing is mapped there: an error or nothing, never a fault. The
            // interpreter would stop.
            if !cfg!(miri) {
                let _ = Dynamic::read(&ProcessMemory::own(), &object);
            }
        }
    }

    #[test]
    fn a_plan_keeps_to_the_object(headers in ascending_segments(), vmas in mappings(), inputs in terms()) {
        let Some((object, replacements, outlook)) = planned(&headers, &vmas, inputs) else { return Ok(()) };
        let page = sys::page_size();
        for range in &replacements {
            prop_assert!(!range.span.is_empty() && range.span.start % page == 0 && range.span.end % page == 0);
            let within = |span: &Span| span.intersection(&range.span) == range.span;
            prop_assert!(object.segments().iter().any(|segment| within(&segment.span)), "outside: {:?}", range);
            let Some(vma) = vmas.iter().find(|vma| within(&vma.span)) else { panic!("over two mappings: {range:?}") };
            prop_assert_eq!(vma.file, vmas[0].file);
            prop_assert!(!vma.is_shared);
            prop_assert!(vma.protection != libc::PROT_NONE || range.backing != Backing::Copy);
            prop_assert_eq!(range.protection, vma.protection, "a protection was changed");
            prop_assert_eq!(range.offset, vma.offset + (range.span.start - vma.span.start) as u64);
        }
        for (index, one) in replacements.iter().enumerate() {
            let overlaps = |other: &Replacement| !one.span.intersection(&other.span).is_empty();
            prop_assert!(!replacements[index + 1..].iter().any(overlaps), "overlapping: {:?}", replacements);
        }
        // Nothing is forgotten: what is not replaced is accounted for.
        let replaced: usize = replacements.iter().map(|range| range.span.len()).sum();
        prop_assert_eq!(
            replaced
                + outlook.writable_left
                + outlook.read_only_left
                + outlook.inaccessible_left
                + outlook.relocated_contradicted
                + outlook.read_only_contradicted,
            bytes_concerned(&object, &vmas)
        );
    }

    #[test]
    fn a_plan_keeps_relocations_and_stores(headers in ascending_segments(), vmas in mappings(), inputs in terms()) {
        let Some((object, replacements, _)) = planned(&headers, &vmas, inputs) else { return Ok(()) };
        for range in &replacements {
            // The loader maps segments in order: on a page of two, the later one's.
            let owner = headers.iter().rposition(|header| {
                let start = BASE + header.p_vaddr as usize;
                start & !0xfff <= range.span.start && range.span.start < start + header.p_memsz as usize
            });
            let is_relocated = owner.is_some_and(|index| headers[index].p_flags & libc::PF_W != 0);
            let may_be_writable = is_relocated && range.protection == libc::PROT_NONE;
            let is_writable = range.protection & libc::PROT_WRITE != 0 || may_be_writable;
            let is_text = owner.is_some_and(|index| headers[index].p_flags & libc::PF_X != 0);
            prop_assert!(!is_text || range.protection & libc::PROT_EXEC != 0, "text would not run: {:?}", range);
            prop_assert!(!(is_writable && inputs.stores_possible), "a store could be lost: {:?}", range);
            if is_relocated || is_writable || inputs.has_text_relocations {
                prop_assert!(range.backing != Backing::Copy, "relocations would be lost: {:?} in {:?}", range, object);
            }
            // Anonymous executable memory only where it was writable and executable.
            if range.backing == Backing::Anonymous {
                prop_assert!(is_writable || range.protection & libc::PROT_EXEC == 0);
            }
            prop_assert!(inputs.mode == Mode::Full || range.backing != Backing::Copy);
        }
    }
}

use super::*;
use crate::memory::ProcessMemory;
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
    Object::read(&ProcessMemory::own(), BASE, headers.as_ptr().expose_provenance(), headers.len()).unwrap()
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

const TERMS: PlanInputs =
    PlanInputs { mode: Mode::Full, has_text_relocations: false, stores_possible: false, may_have_run: false };

fn sources(object: &Object, vmas: &[Vma], inputs: PlanInputs) -> (Vec<(usize, Backing)>, Outlook) {
    let mut replacements = PageVec::new();
    let outlook = plan(object, vmas, inputs, &mut replacements).unwrap();
    (replacements.iter().map(|range| (range.span.start - BASE, range.backing)).collect(), outlook)
}

#[test]
fn full_replaces_everything() {
    let (object, vmas) = ordinary();
    let (found, outlook) = sources(&object, &vmas, TERMS);
    assert_eq!(
        found,
        [(0, Backing::Copy), (0x1000, Backing::Copy), (0x3000, Backing::Anonymous), (0x4000, Backing::Anonymous)]
    );
    assert_eq!(outlook, Outlook::default());
}

#[test]
fn relocated_replaces_relro_and_data() {
    let (object, vmas) = ordinary();
    let (found, outlook) = sources(&object, &vmas, PlanInputs { mode: Mode::Relocated, ..TERMS });
    assert_eq!(found, [(0x3000, Backing::Anonymous), (0x4000, Backing::Anonymous)]);
    assert_eq!(outlook.read_only_left, 0x3000);
}

#[test]
fn possible_stores_leave_only_what_is_writable_now() {
    let (object, vmas) = ordinary();
    let (found, outlook) = sources(&object, &vmas, PlanInputs { stores_possible: true, ..TERMS });
    assert_eq!(found, [(0, Backing::Copy), (0x1000, Backing::Copy), (0x3000, Backing::Anonymous)]);
    assert_eq!(outlook.writable_left, 0x1000);
}

#[test]
fn relocated_text_is_replaced_in_both_modes() {
    let (object, vmas) = ordinary();
    let inputs = PlanInputs { mode: Mode::Relocated, has_text_relocations: true, ..TERMS };
    let (found, outlook) = sources(&object, &vmas, inputs);
    assert_eq!(found.get(1), Some(&(0x1000, Backing::RelocatedCopy)));
    assert_eq!(outlook.read_only_left, 0);
}

#[test]
fn what_is_not_the_objects_file_is_left_alone() {
    let (object, mut vmas) = ordinary();
    vmas[1].file.inode = 7;
    vmas[2].is_shared = true;
    vmas.truncate(3);
    assert_eq!(sources(&object, &vmas, TERMS), (std::vec![(0, Backing::Copy)], Outlook::default()));
    assert_eq!(sources(&object, &[], TERMS), (std::vec![], Outlook::default()));
}

#[test]
fn inaccessible_pages_are_not_forgotten() {
    let (object, mut vmas) = ordinary();
    (vmas[1].protection, vmas[3].protection) = (PROT_NONE, PROT_NONE);
    let (found, outlook) = sources(&object, &vmas, TERMS);
    assert_eq!(found, [(0, Backing::Copy), (0x3000, Backing::Anonymous), (0x4000, Backing::Anonymous)]);
    assert_eq!(outlook, Outlook { inaccessible_left: 0x2000, ..Outlook::default() });
    let (found, outlook) = sources(&object, &vmas, PlanInputs { stores_possible: true, ..TERMS });
    assert_eq!(found, [(0, Backing::Copy), (0x3000, Backing::Anonymous)]);
    assert_eq!(outlook, Outlook { inaccessible_left: 0x2000, writable_left: 0x1000, ..Outlook::default() });
}

#[test]
fn a_vma_over_two_segments_is_split_and_offsets_follow() {
    let object = object(&[(PF_R, 0, 0x1000), (PF_R | PF_W, 0x1000, 0x2000)]);
    let mut replacements = PageVec::new();
    let inputs = PlanInputs { may_have_run: true, ..TERMS };
    plan(&object, &[vma(0, 0x2000, PROT_READ)], inputs, &mut replacements).unwrap();
    let found: Vec<_> = replacements.iter().map(|range| (range.offset, range.backing)).collect();
    assert_eq!(found, [(0, Backing::Copy), (0x1000, Backing::Anonymous)]);
}

#[test]
fn text_that_is_said_not_to_be_executable_is_left_with_all_that_is_read_only() {
    let (object, vmas) = ordinary();
    // As qemu-user shows it.
    let merged = [vma(0, 0x3000, PROT_READ), vmas[2], vmas[3]];
    let (found, outlook) = sources(&object, &merged, TERMS);
    assert_eq!(found, [(0x3000, Backing::Anonymous), (0x4000, Backing::Anonymous)]);
    assert_eq!(outlook, Outlook { read_only_contradicted: 0x3000, ..Outlook::default() });
    let (found, outlook) = sources(&object, &merged, PlanInputs { mode: Mode::Relocated, ..TERMS });
    assert_eq!(found, [(0x3000, Backing::Anonymous), (0x4000, Backing::Anonymous)]);
    assert_eq!(outlook, Outlook { read_only_left: 0x3000, ..Outlook::default() });
    let (_, outlook) = sources(&object, &merged, PlanInputs { has_text_relocations: true, ..TERMS });
    assert_eq!(outlook.relocated_contradicted, 0x2000);
}

#[test]
fn data_that_is_said_to_be_read_only_is_left_unless_the_program_can_have_made_it_so() {
    let (object, mut vmas) = ordinary();
    vmas[3].protection = PROT_READ;
    let (found, outlook) = sources(&object, &vmas, TERMS);
    assert_eq!(found.last(), Some(&(0x3000, Backing::Anonymous)));
    assert_eq!(outlook, Outlook { relocated_contradicted: 0x1000, ..Outlook::default() });
    let (found, outlook) = sources(&object, &vmas, PlanInputs { may_have_run: true, ..TERMS });
    assert_eq!(found.last(), Some(&(0x4000, Backing::Anonymous)));
    assert_eq!(outlook, Outlook::default());
}

#[test]
fn a_part_of_the_file_that_is_not_the_segments_is_left() {
    let (object, mut vmas) = ordinary();
    vmas[1].offset += 0x1000;
    let (found, outlook) = sources(&object, &vmas, TERMS);
    assert_eq!(found, [(0x3000, Backing::Anonymous), (0x4000, Backing::Anonymous)]);
    assert_eq!(outlook.read_only_contradicted, 0x3000);
}

#[test]
fn code_that_may_only_be_executed_contradicts_nothing() {
    let object = object(&[(PF_X, 0, 0x1000)]);
    assert_eq!(sources(&object, &[vma(0, 0x1000, PROT_EXEC)], TERMS).0, [(0, Backing::Copy)]);
}

#[test]
fn writable_and_executable_segments_stay_in_anonymous_memory() {
    let object = object(&[(PF_R | PF_W | PF_X, 0, 0x1000)]);
    let all = vma(0, 0x1000, PROT_READ | PROT_WRITE | PROT_EXEC);
    assert_eq!(sources(&object, &[all], TERMS).0, [(0, Backing::Anonymous)]);
}

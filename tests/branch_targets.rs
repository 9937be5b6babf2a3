//! Checks the marks of control-flow protection that the library has on x86-64, and that
//! they are true. With indirect branch tracking (IBT), a processor kills a program
//! whose indirect branch goes to an instruction other than `endbr64`. So the test
//! examines every address that such a branch can take from the file: those in the
//! dynamic section, the symbols and the relocations, and the functions whose addresses
//! are computed in code. The library has no landing pads of an unwinder.

#![cfg(target_arch = "x86_64")]

mod common;

use std::collections::BTreeMap;
use std::{env, fs};

use object::elf::FileHeader64;
use object::read::elf::{Dyn, ElfFile64, NoteIterator, ProgramHeader};
use object::{LittleEndian as Elf, Object, ObjectSegment, ObjectSymbol, RelocationFlags, SegmentFlags, elf};
use regex::bytes::Regex;

use common::library;

const IBT: u32 = elf::GNU_PROPERTY_X86_FEATURE_1_IBT;
const SHSTK: u32 = elf::GNU_PROPERTY_X86_FEATURE_1_SHSTK;
const ENDBR64: &[u8] = &[0xf3, 0x0f, 0x1e, 0xfa];

type File<'a> = ElfFile64<'a, Elf>;

fn bytes() -> Vec<u8> {
    let path = library::path().unwrap_or_else(|error| panic!("{error}"));
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the marks in the note that the loader reads.
fn marks(file: &File<'_>) -> u32 {
    let headers = file.elf_program_headers().iter();
    let mut marks = 0;
    for header in headers.filter(|header| header.p_type(Elf) == elf::PT_GNU_PROPERTY) {
        let bytes = header.data(Elf, file.data()).expect("a segment without bytes");
        let mut notes = NoteIterator::<FileHeader64<Elf>>::new(Elf, 8, bytes).expect("no notes");
        while let Some(note) = notes.next().expect("a note that cannot be read") {
            let Some(mut properties) = note.gnu_properties(Elf) else { continue };
            while let Some(property) = properties.next().expect("a property that cannot be read") {
                if property.pr_type() == elf::GNU_PROPERTY_X86_FEATURE_1_AND {
                    marks |= property.data_u32(Elf).expect("a property of another size");
                }
            }
        }
    }
    marks
}

/// Returns the executable segments: address and bytes.
fn code<'a>(file: &File<'a>) -> Vec<(u64, &'a [u8])> {
    let is_executable = |flags| matches!(flags, SegmentFlags::Elf { p_flags } if p_flags & elf::PF_X != 0);
    file.segments()
        .filter(|segment| is_executable(segment.flags()))
        .map(|segment| (segment.address(), segment.data().expect("a segment without bytes")))
        .collect()
}

/// Returns the bytes from `address` on, if that is code.
fn at<'a>(code: &[(u64, &'a [u8])], address: u64) -> Option<&'a [u8]> {
    code.iter().find_map(|(start, bytes)| {
        let offset = usize::try_from(address.checked_sub(*start)?).ok()?;
        bytes.get(offset..).filter(|rest| !rest.is_empty())
    })
}

/// Returns every address that the file gives to the loader or to other objects, and
/// where.
fn handed_out(file: &File<'_>) -> BTreeMap<u64, String> {
    let mut found = BTreeMap::new();
    let functions = file.dynamic_symbols().filter(|symbol| symbol.is_definition() && symbol.address() != 0);
    for symbol in functions {
        found.insert(symbol.address(), format!("symbol {}", symbol.name().unwrap_or("?")));
    }
    for (offset, relocation) in file.dynamic_relocations().into_iter().flatten() {
        let RelocationFlags::Elf { r_type } = relocation.flags() else { unreachable!("not an ELF relocation") };
        if matches!(r_type, elf::R_X86_64_RELATIVE | elf::R_X86_64_IRELATIVE) {
            let addend = u64::try_from(relocation.addend()).expect("a negative address");
            found.insert(addend, format!("relocation at {offset:#x}"));
        }
    }
    let (entries, _) = file.elf_section_table().dynamic(Elf, file.data()).unwrap().expect("no dynamic section");
    for entry in entries {
        match entry.tag32(Elf) {
            Some(elf::DT_INIT) => drop(found.insert(entry.d_val(Elf), "DT_INIT".to_owned())),
            Some(elf::DT_FINI) => drop(found.insert(entry.d_val(Elf), "DT_FINI".to_owned())),
            // DT_RELR, whose addends are in the data.
            Some(36) => panic!("DT_RELR: this test does not know it"),
            _ => {}
        }
    }
    found
}

/// Returns every address of code that code computes: `lea displacement(%rip),%reg`.
fn computed(code: &[(u64, &[u8])]) -> BTreeMap<u64, String> {
    let lea = Regex::new(r"(?s-u)[\x48\x4c]\x8d[\x05\x0d\x15\x1d\x25\x2d\x35\x3d]").unwrap();
    let mut found = BTreeMap::new();
    for (start, bytes) in code {
        for instruction in lea.find_iter(bytes) {
            let Some((displacement, _)) = bytes.get(instruction.end()..).and_then(|rest| rest.split_first_chunk())
            else {
                continue;
            };
            let next = start + instruction.end() as u64 + 4;
            let target = next.wrapping_add_signed(i32::from_le_bytes(*displacement).into());
            found.insert(target, format!("lea at {:#x}", start + instruction.start() as u64));
        }
    }
    found
}

#[test]
fn the_release_build_is_marked() {
    // The user's flags replace those that the mark needs.
    if ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "SOPIN_TEST_LIBRARY"].iter().any(|name| env::var_os(name).is_some()) {
        return;
    }
    let bytes = bytes();
    let marks = marks(&File::parse(&*bytes).expect("no 64-bit ELF file"));
    assert_eq!(marks & (IBT | SHSTK), IBT | SHSTK, "hosts would run without IBT or shadow stack: {marks:#x}");
}

#[test]
fn every_target_of_an_indirect_branch_is_endbr64() {
    let bytes = bytes();
    let file = File::parse(&*bytes).expect("no 64-bit ELF file");
    if marks(&file) & IBT == 0 {
        return;
    }
    let code = code(&file);
    assert!(file.section_by_name(".gcc_except_table").is_none(), "there may be landing pads, which are jumped to");
    let mut wrong = Vec::new();
    for (kind, targets) in [("handed out", handed_out(&file)), ("computed", computed(&code))] {
        let targets: Vec<_> =
            targets.into_iter().filter_map(|(address, from)| Some((address, at(&code, address)?, from))).collect();
        assert!(targets.len() > 5, "{kind}: found {} only, so the search is wrong", targets.len());
        let missing = targets.into_iter().filter(|(_, code, _)| !code.starts_with(ENDBR64));
        wrong.extend(missing.map(|(address, _, from)| format!("{address:#x}, {from}")));
    }
    assert!(wrong.is_empty(), "marked for IBT, and without endbr64:\n{}", wrong.join("\n"));
}

/// LLVM makes the processor not track a jump through a table only if rustc's own option
/// asks for protection.
#[test]
fn no_tracked_jump_goes_through_a_table() {
    let bytes = bytes();
    let file = File::parse(&*bytes).expect("no 64-bit ELF file");
    if marks(&file) & IBT == 0 {
        return;
    }
    // movslq (table,index,4),%a; add %b,%c; jmp *%c, the latter without `notrack`.
    let jump = Regex::new(r"(?s-u)[\x48-\x4f]\x63.{2,3}[\x48-\x4f]\x01[\xc0-\xff]\x41?\xff[\xe0-\xe7]").unwrap();
    for (start, bytes) in code(&file) {
        let found: Vec<_> = jump.find_iter(bytes).map(|found| format!("{:#x}", start + found.start() as u64)).collect();
        assert!(found.is_empty(), "jumps through tables: {found:?}");
    }
}

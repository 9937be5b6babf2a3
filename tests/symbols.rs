//! Checks what the dynamic loader sees of the preloaded library. An additional symbol
//! would interpose a function in every host; a version on one of its symbols would end
//! its interposition without an error. tests/dist.rs checks what the loader needs before it
//! loads the library.
//!
//! tests/exported-symbols.txt is the list, as `nm -D --defined-only` prints it.

mod common;

use std::collections::BTreeSet;
use std::fs;

use object::elf::{self, FileHeader64};
use object::read::elf::{Dyn, ElfFile64, FileHeader, ProgramHeader, Sym};
use object::{Endianness, Object, ObjectSection, ObjectSymbol, SymbolFlags, SymbolKind};

use common::library;

type Header = FileHeader64<Endianness>;

/// Returns the file's bytes. The tests are for 64-bit hosts, as the library is.
fn bytes() -> Vec<u8> {
    let path = library::path().unwrap_or_else(|error| panic!("{error}"));
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn parse(bytes: &[u8]) -> ElfFile64<'_, Endianness> {
    ElfFile64::parse(bytes).expect("libsopin.so is no 64-bit ELF file")
}

/// Returns the values of the entries of the dynamic section with this tag.
fn dynamic(file: &ElfFile64<'_, Endianness>, tag: u32) -> Vec<u64> {
    let endian = file.endian();
    let (entries, _) = file
        .elf_section_table()
        .dynamic(endian, file.data())
        .expect("a dynamic section that cannot be read")
        .expect("no dynamic section");
    entries.iter().filter(|entry| entry.tag32(endian) == Some(tag)).map(|entry| entry.d_val(endian)).collect()
}

fn dynamic_strings(file: &ElfFile64<'_, Endianness>, tag: u32) -> Vec<String> {
    let strings = file.elf_dynamic_symbol_table().strings();
    let string = |offset| {
        let offset = u32::try_from(offset).expect("an offset beyond 4 GiB");
        String::from_utf8_lossy(strings.get(offset).expect("no string at this offset")).into_owned()
    };
    dynamic(file, tag).into_iter().map(string).collect()
}

fn flags(file: &ElfFile64<'_, Endianness>, tag: u32) -> u64 {
    dynamic(file, tag).first().copied().unwrap_or(0)
}

fn segments(file: &ElfFile64<'_, Endianness>, kind: u32) -> Vec<u32> {
    let endian = file.endian();
    let headers = Header::program_headers(file.elf_header(), endian, file.data()).expect("no program headers");
    headers.iter().filter(|header| header.p_type(endian) == kind).map(|header| header.p_flags(endian)).collect()
}

#[test]
fn exports_exactly_the_listed_symbols() {
    let bytes = bytes();
    let file = parse(&bytes);
    let list = fs::read_to_string(library::checkout().join("tests/exported-symbols.txt")).expect("the list");
    let expected: BTreeSet<String> = list.lines().map(str::to_owned).collect();
    let exported: BTreeSet<String> = file
        .dynamic_symbols()
        .filter(|symbol| symbol.is_definition() && symbol.is_global())
        .map(|symbol| {
            let SymbolFlags::Elf { st_info, .. } = symbol.flags() else { unreachable!("not an ELF symbol") };
            let kind = match (st_info >> 4, st_info & 0xf) {
                (elf::STB_GLOBAL, elf::STT_FUNC) => "T".to_owned(),
                (elf::STB_GLOBAL, elf::STT_OBJECT) => "D".to_owned(),
                (binding, kind) => format!("(binding {binding}, type {kind})"),
            };
            format!("{kind} {}", symbol.name().expect("a name that cannot be read"))
        })
        .collect();
    assert_eq!(exported, expected);
}

#[test]
fn exports_are_unversioned() {
    let bytes = bytes();
    let file = parse(&bytes);
    assert!(dynamic(&file, elf::DT_VERDEF).is_empty(), "libsopin.so defines symbol versions");
    let endian = file.endian();
    let versions = file.elf_section_table().versions(endian, file.data()).expect("versions that cannot be read");
    let Some(versions) = versions else { return };
    for (index, symbol) in file.elf_dynamic_symbol_table().enumerate() {
        if symbol.st_shndx(endian) == elf::SHN_UNDEF {
            continue;
        }
        let version = versions.version_index(endian, index).index();
        let name = String::from_utf8_lossy(file.elf_dynamic_symbol_table().symbol_name(endian, symbol).unwrap());
        assert!(version <= elf::VER_NDX_GLOBAL, "{name} has version number {version}");
    }
}

#[test]
fn cannot_be_unloaded_and_has_a_soname() {
    let bytes = bytes();
    let file = parse(&bytes);
    assert_ne!(flags(&file, elf::DT_FLAGS_1) & u64::from(elf::DF_1_NODELETE), 0);
    assert_eq!(dynamic_strings(&file, elf::DT_SONAME), [concat!("libsopin.so.", env!("CARGO_PKG_VERSION_MAJOR"))]);
    assert!(dynamic_strings(&file, elf::DT_RPATH).is_empty());
    assert!(dynamic_strings(&file, elf::DT_RUNPATH).is_empty());
}

#[test]
fn has_no_text_relocation() {
    let bytes = bytes();
    let file = parse(&bytes);
    assert!(dynamic(&file, elf::DT_TEXTREL).is_empty());
    assert_eq!(flags(&file, elf::DT_FLAGS) & u64::from(elf::DF_TEXTREL), 0);
}

#[test]
fn stack_is_not_executable() {
    let bytes = bytes();
    let file = parse(&bytes);
    // Without this header, the kernel and the loader make the stack executable.
    assert_eq!(segments(&file, elf::PT_GNU_STACK), [elf::PF_R | elf::PF_W]);
    let executable_and_writable = |flags: &u32| flags & elf::PF_X != 0 && flags & elf::PF_W != 0;
    assert!(!segments(&file, elf::PT_LOAD).iter().any(executable_and_writable));
}

#[test]
fn relro_ends_where_a_page_of_any_size_ends() {
    let bytes = bytes();
    let file = parse(&bytes);
    let endian = file.endian();
    let largest_page = if file.elf_header().e_machine(endian) == elf::EM_AARCH64 { 0x10000 } else { 0x1000 };
    let headers = Header::program_headers(file.elf_header(), endian, file.data()).expect("no program headers");
    let relro = headers.iter().find(|header| header.p_type(endian) == elf::PT_GNU_RELRO).expect("no RELRO");
    let end = relro.p_vaddr(endian) + relro.p_memsz(endian);
    assert_eq!(end % largest_page, 0, "RELRO ends at {end:#x}: the loader leaves its last page writable");
}

#[test]
fn relocations_are_read_only_after_start() {
    let bytes = bytes();
    let file = parse(&bytes);
    assert_eq!(segments(&file, elf::PT_GNU_RELRO), [elf::PF_R]);
    let bound_now = flags(&file, elf::DT_FLAGS) & u64::from(elf::DF_BIND_NOW) != 0
        || flags(&file, elf::DT_FLAGS_1) & u64::from(elf::DF_1_NOW) != 0;
    assert!(bound_now, "lazy binding leaves .got.plt out of RELRO");
}

/// The functions that `build/start.ld` names are in a section of their own. A function that is missing
/// there is no error, since other compilers inline other functions; `scripts/start-order` writes the
/// file anew.
#[test]
fn functions_of_a_start_are_beside_each_other() {
    let bytes = bytes();
    let file = parse(&bytes);
    let comment = file.section_by_name(".comment").and_then(|section| section.data().ok());
    if comment.is_some_and(|comment| comment.windows(4).any(|part| part == b"mold")) {
        // It reads no linker scripts.
        return;
    }
    let section = file.section_by_name(".text.sopin_start").expect("the linker did not read build/start.ld");
    let all = file.section_by_name(".text").expect("no other text").size() + section.size();
    assert!(section.size() > all / 4 && section.size() < all * 3 / 4, "{} of {all} bytes", section.size());
    // What is published has no symbols.
    let functions: Vec<_> = file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text).collect();
    if functions.is_empty() {
        return;
    }
    let order = include_str!("../build/start.ld");
    let named = order.lines().filter_map(|line| line.trim().strip_prefix("*(.text.")?.strip_suffix("*)"));
    let (mut found, mut missing) = (0, Vec::new());
    for prefix in named {
        let Some(function) =
            functions.iter().find(|function| function.name().is_ok_and(|name| name.starts_with(prefix)))
        else {
            missing.push(prefix);
            continue;
        };
        let inside = function.address() >= section.address() && function.address() < section.address() + section.size();
        assert!(inside, "{prefix} is elsewhere");
        found += 1;
    }
    assert!(found > missing.len(), "most functions do not exist: {missing:#?}");
}

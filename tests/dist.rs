//! Checks that one library serves glibc 2.17, newer glibcs and musl, and that the command
//! runs anywhere: what their loaders require of a file before they load it.
//!
//! The trials of the native library always run. Those of the files in `target/dist` run if
//! `scripts/dist-binaries` has made them, for each architecture: they only read the files.
//! `tests/symbols.rs` and `tests/imports.rs` check the symbols, `tests/branch_targets.rs` what the
//! marks promise. `make dist-check` runs these with the libraries in `target/dist` too.

mod common;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use object::elf::{self, FileHeader64};
use object::read::elf::{Dyn, ElfFile64, FileHeader, NoteIterator, ProgramHeader};
use object::{Endianness, Object, ObjectSymbol, RelocationFlags, SymbolFlags};

use common::library;

type File<'a> = ElfFile64<'a, Endianness>;

/// Returns an error if the file is not as it must be.
type Check = fn(&Subject, &File<'_>) -> Result<(), String>;

/// The oldest glibc that the library supports, and so the newest version that it may need.
const OLDEST_GLIBC: (u32, u32) = (2, 17);
/// Names of files that every glibc has, also since 2.34, and that musl takes for its own.
const KNOWN_TO_BOTH: [&str; 3] = ["libc.so.6", "libdl.so.2", "libpthread.so.0"];
/// `DT_RELR` (generic ABI): glibc knows it since 2.36, musl since 1.2.4.
const DT_RELR: u32 = 36;
/// The relocations of data that musl's loader and the oldest glibc's know
/// (`do_relocs` of musl); `IRELATIVE` and those of thread-local storage are not among them.
const RELOCATIONS: [(u16, &[u32]); 2] = [
    (elf::EM_X86_64, &[elf::R_X86_64_64, elf::R_X86_64_GLOB_DAT, elf::R_X86_64_JUMP_SLOT, elf::R_X86_64_RELATIVE]),
    (
        elf::EM_AARCH64,
        &[elf::R_AARCH64_ABS64, elf::R_AARCH64_GLOB_DAT, elf::R_AARCH64_JUMP_SLOT, elf::R_AARCH64_RELATIVE],
    ),
];

const OF_LIBRARIES: [(&str, Check); 6] = [
    ("needs_glibc_2_17_at_most", needs_glibc_2_17_at_most),
    ("needs_names_that_both_loaders_know", needs_names_that_both_loaders_know),
    ("has_no_thread_local_storage", has_no_thread_local_storage),
    ("has_a_hash_table_and_relocations_that_all_know", has_a_hash_table_and_relocations_that_all_know),
    ("fits_every_page_size", fits_every_page_size),
    ("memory_is_not_both_writable_and_executable", memory_is_not_both_writable_and_executable),
];
const OF_COMMANDS: [(&str, Check); 3] = [
    ("needs_no_loader", needs_no_loader),
    ("fits_every_page_size", fits_every_page_size),
    ("memory_is_not_both_writable_and_executable", memory_is_not_both_writable_and_executable),
];
const OF_DISTRIBUTED: [(&str, Check); 3] = [
    ("is_for_its_architecture", is_for_its_architecture),
    ("names_no_directory_of_this_machine", names_no_directory_of_this_machine),
    ("has_its_debugging_information_beside_it", has_its_debugging_information_beside_it),
];

/// One file, and the architecture for which it is.
struct Subject {
    path: PathBuf,
    architecture: &'static str,
}

fn main() -> ExitCode {
    let mut trials = Vec::new();
    let mut add = |name: &str, path: Result<PathBuf, String>, architecture, checks: &[(&str, Check)]| {
        for (what, check) in checks.iter().copied() {
            let path = path.clone();
            let name = format!("{name}::{what}");
            trials.push(Trial::ignorable_test(name, move || look_at(path?, architecture, check)));
        }
    };
    add("native::library", library::path(), env::consts::ARCH, &OF_LIBRARIES);
    for architecture in ["x86_64", "aarch64"] {
        let directory = library::checkout().join("target/dist").join(architecture);
        for (name, file, checks) in
            [("library", "libsopin.so", OF_LIBRARIES.as_slice()), ("command", "sopin", &OF_COMMANDS)]
        {
            let (name, path) = (format!("{architecture}::{name}"), directory.join(file));
            add(&name, Ok(path.clone()), architecture, checks);
            add(&name, Ok(path), architecture, &OF_DISTRIBUTED);
        }
        let marks: [(&str, Check); 1] = [("is_marked_like_the_native_one", is_marked_like_the_native_one)];
        add(&format!("{architecture}::library"), Ok(directory.join("libsopin.so")), architecture, &marks);
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn look_at(path: PathBuf, architecture: &'static str, check: Check) -> Result<Completion, Failed> {
    if !path.exists() {
        return Ok(Completion::ignored_with(format!("no {} (make dist-binaries)", path.display())));
    }
    let bytes = fs::read(&path)?;
    let file = File::parse(&*bytes)?;
    check(&Subject { path, architecture }, &file)?;
    Ok(Completion::Completed)
}

fn ensure(is_so: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if is_so { Ok(()) } else { Err(otherwise()) }
}

/// Returns the tag and the value of each entry of the dynamic section.
fn dynamic(file: &File<'_>) -> Result<Vec<(u32, u64)>, String> {
    let endian = file.endian();
    let section = file.elf_section_table().dynamic(endian, file.data()).map_err(|error| error.to_string())?;
    let entries = section.map_or(&[][..], |(entries, _)| entries);
    Ok(entries.iter().filter_map(|entry| Some((entry.tag32(endian)?, entry.d_val(endian)))).collect())
}

fn needed(file: &File<'_>) -> Result<Vec<String>, String> {
    let strings = file.elf_dynamic_symbol_table().strings();
    let string = |offset: u64| {
        let bytes = u32::try_from(offset).ok().and_then(|offset| strings.get(offset).ok());
        bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()).ok_or_else(|| format!("no string at {offset}"))
    };
    dynamic(file)?.into_iter().filter(|(tag, _)| *tag == elf::DT_NEEDED).map(|(_, offset)| string(offset)).collect()
}

fn segments<'a>(file: &'a File<'_>, kind: u32) -> impl Iterator<Item = &'a elf::ProgramHeader64<Endianness>> {
    file.elf_program_headers().iter().filter(move |header| header.p_type(file.endian()) == kind)
}

/// glibc's loader refuses an object with a needed version that it has not, whether or not
/// a symbol of that version is used, unless the need is marked as weak
/// (`match_symbol`, elf/dl-version.c).
fn needs_glibc_2_17_at_most(_: &Subject, file: &File<'_>) -> Result<(), String> {
    let endian = file.endian();
    let table = file.elf_section_table().gnu_verneed(endian, file.data()).map_err(|error| error.to_string())?;
    let (mut needs, index) = table.ok_or("no needed versions: this was not linked with a C library that has any")?;
    let strings = file.elf_section_table().strings(endian, file.data(), index).map_err(|error| error.to_string())?;
    let mut versions = 0;
    while let Some((_, mut of_library)) = needs.next().map_err(|error| error.to_string())? {
        while let Some(need) = of_library.next().map_err(|error| error.to_string())? {
            let name = need.name(endian, strings).map_err(|error| error.to_string())?;
            let name = String::from_utf8_lossy(name);
            versions += 1;
            let is_weak = need.vna_flags.get(endian) & elf::VER_FLG_WEAK != 0;
            let is_old = glibc_version(&name).is_some_and(|version| version <= OLDEST_GLIBC);
            ensure(is_weak || is_old, || format!("needs {name}"))?;
        }
    }
    ensure(versions > 0, || "the search for versions is wrong: it found none".to_owned())
}

/// Returns the first two numbers of `GLIBC_2.2.5`.
fn glibc_version(name: &str) -> Option<(u32, u32)> {
    let mut numbers = name.strip_prefix("GLIBC_")?.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn needs_names_that_both_loaders_know(_: &Subject, file: &File<'_>) -> Result<(), String> {
    let needed = needed(file)?;
    ensure(needed.iter().any(|name| name == "libc.so.6"), || format!("the C library is missing: {needed:?}"))?;
    ensure(needed.iter().all(|name| KNOWN_TO_BOTH.contains(&&**name)), || format!("DT_NEEDED: {needed:?}"))
}

/// A thread's storage may be allocated when the thread first uses it, and the library must not
/// allocate.
fn has_no_thread_local_storage(_: &Subject, file: &File<'_>) -> Result<(), String> {
    ensure(segments(file, elf::PT_TLS).next().is_none(), || "PT_TLS".to_owned())?;
    for symbol in file.dynamic_symbols() {
        let SymbolFlags::Elf { st_info, .. } = symbol.flags() else { unreachable!("not an ELF symbol") };
        let name = symbol.name().unwrap_or_default();
        let is_local_to_threads = st_info & 0xf == elf::STT_TLS || name.starts_with("__tls_get_addr");
        ensure(!is_local_to_threads, || format!("symbol {name}"))?;
    }
    Ok(())
}

fn has_a_hash_table_and_relocations_that_all_know(_: &Subject, file: &File<'_>) -> Result<(), String> {
    let tags: Vec<u32> = dynamic(file)?.into_iter().map(|(tag, _)| tag).collect();
    ensure(tags.contains(&elf::DT_GNU_HASH), || "no DT_GNU_HASH".to_owned())?;
    ensure(!tags.contains(&DT_RELR), || "DT_RELR".to_owned())?;
    let machine = file.elf_header().e_machine(file.endian());
    let known = RELOCATIONS.iter().find(|(of, _)| *of == machine).ok_or_else(|| format!("machine {machine}"))?.1;
    let mut relocations = 0;
    for (offset, relocation) in file.dynamic_relocations().into_iter().flatten() {
        let RelocationFlags::Elf { r_type } = relocation.flags() else { unreachable!("not an ELF relocation") };
        relocations += 1;
        ensure(known.contains(&r_type), || format!("a relocation of type {r_type} at {offset:#x}"))?;
    }
    ensure(relocations > 0, || "the search for relocations is wrong: it found none".to_owned())
}

/// The kernel and the loaders map no segment whose alignment is below the size of a page;
/// on aarch64 that is 4, 16 or 64 KiB.
fn fits_every_page_size(subject: &Subject, file: &File<'_>) -> Result<(), String> {
    let largest_page = if subject.architecture == "aarch64" { 0x10000 } else { 0x1000 };
    for segment in segments(file, elf::PT_LOAD) {
        let alignment = segment.p_align(file.endian());
        ensure(alignment >= largest_page, || format!("a segment has the alignment {alignment:#x}"))?;
    }
    Ok(())
}

fn memory_is_not_both_writable_and_executable(_: &Subject, file: &File<'_>) -> Result<(), String> {
    let stacks: Vec<_> = segments(file, elf::PT_GNU_STACK).map(|header| header.p_flags(file.endian())).collect();
    // Without the header the kernel and the loader assume the worst.
    ensure(stacks == [elf::PF_R | elf::PF_W], || format!("PT_GNU_STACK: {stacks:?}"))?;
    let both = elf::PF_W | elf::PF_X;
    let is_both = |header: &elf::ProgramHeader64<Endianness>| header.p_flags(file.endian()) & both == both;
    ensure(!segments(file, elf::PT_LOAD).any(is_both), || "a segment is writable and executable".to_owned())
}

/// Checks the marks, on x86-64 those for IBT and shadow stacks. On aarch64 the precompiled
/// `core` has no landing instructions, and a library that claimed them would be killed.
fn is_marked_like_the_native_one(subject: &Subject, file: &File<'_>) -> Result<(), String> {
    let expected = match subject.architecture {
        "x86_64" => elf::GNU_PROPERTY_X86_FEATURE_1_IBT | elf::GNU_PROPERTY_X86_FEATURE_1_SHSTK,
        _ => 0,
    };
    let endian = file.endian();
    let mut marks = 0;
    for header in segments(file, elf::PT_GNU_PROPERTY) {
        let bytes = header.data(endian, file.data()).map_err(|()| "a segment without bytes")?;
        let notes = NoteIterator::<FileHeader64<Endianness>>::new(endian, 8, bytes);
        let mut notes = notes.map_err(|error| error.to_string())?;
        while let Some(note) = notes.next().map_err(|error| error.to_string())? {
            let Some(mut properties) = note.gnu_properties(endian) else { continue };
            while let Some(property) = properties.next().map_err(|error| error.to_string())? {
                if property.pr_type() == elf::GNU_PROPERTY_X86_FEATURE_1_AND {
                    marks |= property.data_u32(endian).map_err(|error| error.to_string())?;
                }
            }
        }
    }
    ensure(marks == expected, || format!("marks {marks:#x}, expected {expected:#x}"))
}

fn needs_no_loader(_: &Subject, file: &File<'_>) -> Result<(), String> {
    ensure(segments(file, elf::PT_INTERP).next().is_none(), || "PT_INTERP".to_owned())?;
    let needed = needed(file)?;
    ensure(needed.is_empty(), || format!("DT_NEEDED: {needed:?}"))
}

fn is_for_its_architecture(subject: &Subject, file: &File<'_>) -> Result<(), String> {
    let expected = if subject.architecture == "aarch64" { elf::EM_AARCH64 } else { elf::EM_X86_64 };
    let machine = file.elf_header().e_machine(file.endian());
    ensure(machine == expected, || format!("machine {machine}"))
}

/// Checks that no path is in the bytes: a build in another directory would have others.
fn names_no_directory_of_this_machine(subject: &Subject, _: &File<'_>) -> Result<(), String> {
    let cargo = env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo = cargo.or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    for path in [subject.path.clone(), debugging_information(subject)] {
        let bytes = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        for directory in [Some(library::checkout()), cargo.as_deref()].into_iter().flatten() {
            let name = directory.as_os_str().as_encoded_bytes();
            let is_named = bytes.windows(name.len()).any(|window| window == name);
            ensure(!is_named, || format!("{} names {}", path.display(), directory.display()))?;
        }
    }
    Ok(())
}

fn debugging_information(subject: &Subject) -> PathBuf {
    let mut name = subject.path.file_name().unwrap_or_default().to_owned();
    name.push(".debug");
    subject.path.with_file_name("debug").join(name)
}

/// Debuggers find it by the name in `.gnu_debuglink`, and compare the build-ids.
fn has_its_debugging_information_beside_it(subject: &Subject, file: &File<'_>) -> Result<(), String> {
    let path = debugging_information(subject);
    let link = file.gnu_debuglink().map_err(|error| error.to_string())?;
    let name = link.map(|(name, _)| name).ok_or("no .gnu_debuglink")?;
    ensure(path.file_name().is_some_and(|file| file.as_encoded_bytes() == name), || {
        format!(".gnu_debuglink names {}", String::from_utf8_lossy(name))
    })?;
    let bytes = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let debug = File::parse(&*bytes).map_err(|error| format!("{}: {error}", path.display()))?;
    let id = file.build_id().map_err(|error| error.to_string())?.ok_or("no build-id")?;
    let other = debug.build_id().map_err(|error| error.to_string())?;
    ensure(other == Some(id), || format!("{} is of another build", path.display()))?;
    ensure(debug.has_debug_symbols(), || format!("{} has no debugging information", path.display()))
}

//! Names of small addresses in objects that a C compiler makes: with and without symbols, lazy
//! entries of the PLT, pointers that would revert, and files that are cut off or damaged.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::{Object as _, ObjectSymbol as _};
use sopin_inspect::image::Flaw;
use sopin_inspect::memory::{Bytes, FileBytes};
use sopin_inspect::small_addresses::{NamedKind, names_at, words_holding};

const SOURCE: &str = r#"
#include <stdlib.h>
static int distill_params(int n) { return n + abs(n); }
int exported(int n) { return distill_params(n) + 1; }
int (*table[])(int) = { distill_params, exported, distill_params };
const char *name = "prices";
"#;

/// Compiles the source as an object with these options.
fn object(name: &str, options: &[&str]) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("small_addresses");
    fs::create_dir_all(&directory).unwrap();
    let (source, object) = (directory.join(format!("{name}.c")), directory.join(format!("{name}.so")));
    fs::write(&source, SOURCE).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-fno-inline", "-fno-builtin", "-o"]).arg(&object).arg(&source);
    assert!(compiler.args(options).status().unwrap().success());
    object
}

fn bytes_of(path: &Path) -> FileBytes {
    FileBytes::from(OwnedFd::from(fs::File::open(path).unwrap()))
}

/// Returns the address of a symbol, read by another program than the tested one.
fn address_of(path: &Path, name: &str) -> u64 {
    let bytes = fs::read(path).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let symbol = file.symbols().chain(file.dynamic_symbols()).find(|symbol| symbol.name() == Ok(name));
    symbol.unwrap().address()
}

/// Bytes of a file that is only in memory.
struct Array(Vec<u8>);

impl Bytes for Array {
    fn read_some(&self, at: u64, buffer: &mut [u8]) -> Result<usize, rustix::io::Errno> {
        let start = usize::try_from(at).unwrap_or(usize::MAX);
        let rest = self.0.get(start..).filter(|rest| !rest.is_empty()).ok_or(rustix::io::Errno::IO)?;
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}

#[test]
fn functions_and_data_have_names() {
    let path = object("named", &["-Wl,-z,noseparate-code"]);
    let file = bytes_of(&path);
    let address = address_of(&path, "distill_params");
    assert!(address < 0x1000, "{address:x}: without separate code, text begins in the first page");
    let names = names_at(&file, address).unwrap();
    assert_eq!(names.len(), 1, "{names:?}");
    assert_eq!((names[0].kind, names[0].name.as_deref()), (NamedKind::Function, Some("distill_params")));
    assert_eq!((names[0].offset, names[0].section.as_deref()), (0, Some(".text")));
    assert_eq!(names_at(&file, address + 1).unwrap()[0].offset, 1);

    let table = names_at(&file, address_of(&path, "table") + 8).unwrap();
    assert_eq!((table[0].kind, table[0].name.as_deref(), table[0].offset), (NamedKind::Datum, Some("table"), 8));
    // The symbol is in both tables, and is one name.
    assert_eq!(names_at(&file, address_of(&path, "exported")).unwrap().len(), 1);
    assert_eq!(names_at(&file, 0x10).unwrap(), [], "the ELF header is no function");
    assert_eq!(names_at(&file, 0x7f00_0000_0000).unwrap(), []);
}

#[test]
fn words_that_would_revert_to_an_address_are_counted() {
    let path = object("words", &["-Wl,-z,noseparate-code"]);
    let file = bytes_of(&path);
    let holding = words_holding(&file, address_of(&path, "distill_params")).unwrap();
    let table = address_of(&path, "table");
    if cfg!(target_arch = "x86_64") {
        assert_eq!((holding.count, holding.first), (2, vec![table, table + 16]));
    }
    assert_eq!(words_holding(&file, 0x123).unwrap().count, 0);
}

#[test]
fn a_function_without_symbol_is_found_by_the_unwinding_table() {
    let path = object("stripped_before", &[]);
    let address = address_of(&path, "distill_params");
    let stripped = path.with_file_name("stripped.so");
    assert!(Command::new("strip").arg("-o").arg(&stripped).arg(&path).status().unwrap().success());
    let names = names_at(&bytes_of(&stripped), address).unwrap();
    assert_eq!((names.len(), names[0].kind, &names[0].name), (1, NamedKind::Function, &None));
    assert_eq!(names_at(&bytes_of(&stripped), address + 1).unwrap(), []);
    let exported = names_at(&bytes_of(&stripped), address_of(&path, "exported")).unwrap();
    assert_eq!(exported[0].name.as_deref(), Some("exported"), "dynamic symbols stay");
}

/// A separate debug file has no contents in its segments, and all symbols.
#[test]
fn a_debug_file_has_the_names() {
    let path = object("with_debug", &["-g"]);
    let debug = path.with_file_name("with_debug.debug");
    let made = Command::new("objcopy").arg("--only-keep-debug").arg(&path).arg(&debug).status().unwrap();
    assert!(made.success());
    let names = names_at(&bytes_of(&debug), address_of(&path, "distill_params")).unwrap();
    assert_eq!(names[0].name.as_deref(), Some("distill_params"));
    assert!(words_holding(&bytes_of(&debug), 8).is_err());
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_lazy_entry_has_the_name_of_its_import() {
    let path = object("lazy", &["-Wl,-z,lazy", "-Wl,-z,noseparate-code"]);
    let file = bytes_of(&path);
    let bytes = fs::read(&path).unwrap();
    // readelf gives the same facts: the word of the relocation, and its contents.
    let listed = Command::new("readelf").args(["-rW"]).arg(&path).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let line = listed.lines().find(|line| line.contains("JUMP_SLO") && line.contains("abs")).unwrap();
    let place = u64::from_str_radix(line.split_whitespace().next().unwrap(), 16).unwrap();
    let parsed = object::File::parse(&*bytes).unwrap();
    let segment = object::Object::segments(&parsed)
        .find(|segment| {
            (object::ObjectSegment::address(segment)..).contains(&place) && {
                place - object::ObjectSegment::address(segment) < object::ObjectSegment::size(segment)
            }
        })
        .unwrap();
    let data = object::ObjectSegment::data(&segment).unwrap();
    let at = usize::try_from(place - object::ObjectSegment::address(&segment)).unwrap();
    let raw = u64::from_le_bytes(data[at..at + 8].try_into().unwrap());
    let names = names_at(&file, raw).unwrap();
    assert_eq!((names[0].kind, names[0].name.as_deref()), (NamedKind::Plt, Some("abs")), "{raw:x} {names:?}");
    assert_eq!(words_holding(&file, raw).unwrap().first, [place]);
}

#[test]
fn files_that_are_cut_off_or_damaged_are_no_harm() {
    let path = object("damaged", &["-Wl,-z,noseparate-code"]);
    let address = address_of(&path, "distill_params");
    let whole = fs::read(&path).unwrap();
    for cut in (0..whole.len()).step_by(397) {
        let file = Array(whole[..cut].to_vec());
        let _ = (names_at(&file, address), words_holding(&file, address));
    }
    // Every byte of the headers, of files and of sections, takes values that are far too large.
    let headers = 0..0x400;
    let sections = whole.len() - 64 * 40..whole.len();
    for at in headers.chain(sections) {
        for value in [0x7f, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            let file = Array(bytes);
            let _ = (names_at(&file, address), words_holding(&file, address));
        }
    }
    assert_eq!(names_at(&Array(b"#!/bin/sh\n".to_vec()), 8), Err(Flaw::Foreign));
}

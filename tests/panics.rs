//! Checks that the preloaded library cannot panic (`src/panics.rs`): the function in
//! which a panic would end is not part of it.

mod common;

use std::fs;

use object::read::elf::ElfFile64;
use object::{Endianness, Object, ObjectSymbol};

use common::library;

#[test]
fn no_code_that_panics_is_left() {
    let path = library::path().unwrap_or_else(|error| panic!("{error}"));
    let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = ElfFile64::<Endianness>::parse(&*bytes).expect("libsopin.so is no 64-bit ELF file");
    let names: Vec<_> = file.symbols().filter_map(|symbol| symbol.name().ok()).collect();
    // This symbol is hidden as well, and is part of the library in any case.
    assert!(names.contains(&"sopin_own_gmon_start"), "{} has been stripped", path.display());
    let panicking: Vec<_> =
        names.iter().filter(|name| name.contains("panicked") || name.contains("panicking")).collect();
    assert!(
        panicking.is_empty(),
        "{}: something can panic ({panicking:?}); look who calls it with objdump -d, and use what \
         returns an Option (get, split_at_checked, checked_div, sopin_core::slices)",
        path.display()
    );
}

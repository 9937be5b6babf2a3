//! Checks that the preloaded library imports only the symbols listed here. A debugging
//! allocator, a tracer or the runtime of a sanitizer can interpose each of them, and the
//! library calls them while it holds its own lock or the loader's. So each has a reason
//! here. Functions that copy or compare must never be among them
//! (`src/memory_functions.rs`).

mod common;

use std::fs;

use object::read::elf::ElfFile64;
use object::{Endianness, Object, ObjectSymbol};

use common::library;

/// The symbols that the library's own code uses. Except for `dl_iterate_phdr`, they take no
/// lock, and none allocates.
const CALLED: [&str; 7] = [
    // Returns the address of the thread's errno.
    "__errno_location",
    // Reads the vDSO's clock.
    "clock_gettime",
    // Calls the loader, which takes its lock. Only used if the executable's headers do not
    // lead to the loader's list of objects.
    "dl_iterate_phdr",
    // Copies a text that shows by which system call fstat(3) is made.
    "confstr",
    // Read the settings and the auxiliary vector.
    "environ",
    "getauxval",
    "getenv",
];

/// The symbols to which the start files refer weakly.
const OF_START_FILES: [&str; 3] = ["_ITM_deregisterTMCloneTable", "_ITM_registerTMCloneTable", "__cxa_finalize"];

#[test]
fn every_import_has_a_reason() {
    let path = library::path().unwrap_or_else(|error| panic!("{error}"));
    let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = ElfFile64::<Endianness>::parse(&*bytes).expect("libsopin.so is no 64-bit ELF file");
    let imports: Vec<_> = file.dynamic_symbols().filter(ObjectSymbol::is_undefined).collect();
    let names: Vec<_> =
        imports.iter().filter_map(|symbol| symbol.name().ok()).filter(|name| !name.is_empty()).collect();
    assert!(names.contains(&"__errno_location"), "the search is wrong: {names:?}");
    let has_reason = |name: &&&str| CALLED.contains(*name) || OF_START_FILES.contains(*name);
    let without: Vec<_> = names.iter().filter(|name| !has_reason(name)).collect();
    assert!(without.is_empty(), "imported without a reason: {without:?}");
}

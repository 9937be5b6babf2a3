//! What the preloaded library asks others for. Every symbol that it imports can be
//! interposed, by a debugging allocator, a tracer or the runtime of a sanitizer, and is
//! called while our lock or the loader's is held: so each has a reason here. Copying and
//! comparing must never be among them (`src/memory_functions.rs`).

mod common;

use std::fs;

use object::read::elf::ElfFile64;
use object::{Endianness, Object, ObjectSymbol};

use common::library;

/// What our own code calls: none of it takes a lock or allocates.
const CALLED: [&str; 7] = [
    // The thread's errno.
    "__errno_location",
    // The vDSO's clock.
    "clock_gettime",
    // The loader, only where its list of objects cannot be found by the executable's
    // headers; it takes its lock.
    "dl_iterate_phdr",
    // Which system call fstat(3) is: copies a text.
    "confstr",
    // The settings and the auxiliary vector: plain reads.
    "environ",
    "getauxval",
    "getenv",
];

/// What the start files refer to, weakly.
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

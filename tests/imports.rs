//! What the preloaded library asks others for. Every symbol that it imports can be
//! interposed, by a debugging allocator, a tracer or the runtime of a sanitizer, and is
//! called while our lock or the loader's is held: so each has a reason here. Copying and
//! comparing must never be among them (`src/memory_functions.rs`).

mod common;

use std::fs;

use object::read::elf::ElfFile64;
use object::{Endianness, Object, ObjectSymbol};

use common::library;

/// What our own code calls: none of it takes a lock or allocates, but for registering
/// fork handlers, once.
const CALLED: [&str; 12] = [
    // The thread's errno.
    "__errno_location",
    // Fork handlers, by the name that the C library has for them.
    "__register_atfork",
    "pthread_atfork",
    // The vDSO's clock.
    "clock_gettime",
    // The loader, only where its list of objects cannot be found by the executable's
    // headers; the first takes its lock.
    "dl_iterate_phdr",
    "dlsym",
    // Which system call fstat(3) is: a plain read.
    "gnu_get_libc_version",
    // The settings and the auxiliary vector: plain reads.
    "environ",
    "getauxval",
    "getenv",
    // Raw system calls.
    "syscall",
    // Thread-local data of the standard library.
    "__tls_get_addr",
];

/// What the standard library and the unwinder call, linked in so that a panic can be
/// caught: not unless there is one, which would be a bug of ours. What they import
/// depends on their versions; LLVM's unwinder, which zig links in, can print.
const CALLED_IN_A_PANIC: &[&str] = &[
    "__cxa_thread_atexit_impl",
    "__fxstat64",
    "__xpg_strerror_r",
    "__xstat64",
    "_dl_find_object",
    "abort",
    "calloc",
    "close",
    "dladdr",
    "fflush",
    "fprintf",
    "free",
    "fstat64",
    "fwrite",
    "getcwd",
    "gettid",
    "lseek64",
    "malloc",
    "mmap64",
    "munmap",
    "open64",
    "posix_memalign",
    "pthread_getspecific",
    "pthread_key_create",
    "__pthread_key_create",
    "pthread_key_delete",
    "pthread_mutex_lock",
    "pthread_mutex_unlock",
    "pthread_once",
    "pthread_rwlock_rdlock",
    "pthread_rwlock_unlock",
    "pthread_rwlock_wrlock",
    "pthread_self",
    "pthread_setspecific",
    "read",
    "readlink",
    "realloc",
    "realpath",
    "sched_yield",
    "snprintf",
    "stat64",
    "statx",
    "stderr",
    "write",
    "writev",
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
    assert!(names.contains(&"syscall"), "the search is wrong: {names:?}");
    let has_reason =
        |name: &&&str| CALLED.contains(*name) || CALLED_IN_A_PANIC.contains(*name) || OF_START_FILES.contains(*name);
    let without: Vec<_> = names.iter().filter(|name| !has_reason(name)).collect();
    assert!(without.is_empty(), "imported without a reason: {without:?}");
}

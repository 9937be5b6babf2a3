//! Passes arguments to the linker. rustc usually calls a C compiler, which passes on what
//! follows `-Wl,` and adds start files of its own. If rustc calls lld itself
//! (`scripts/dist-binaries`), arguments have no such prefix, and there are no start files.

use std::env;
use std::ffi::OsString;
use std::path::Path;

/// Names of lld, without a directory.
const LLD: [&str; 3] = ["rust-lld", "ld.lld", "lld"];

/// Returns the program that rustc links with: the one in its last such flag, or the one that
/// Cargo's configuration names.
pub fn program() -> OsString {
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let named = flags.split('\x1f').filter_map(|flag| flag.strip_prefix("-Clinker=")).next_back();
    named.map(Into::into).or_else(|| env::var_os("RUSTC_LINKER")).unwrap_or_else(|| "cc".into())
}

/// Returns whether the program is lld itself and no compiler.
pub fn is_lld() -> bool {
    let program = program();
    Path::new(&program).file_name().is_some_and(|name| LLD.iter().any(|lld| name == *lld))
}

/// Returns what to give rustc as `-Clink-arg` so that the linker gets `arguments`, which
/// are separated by commas.
pub fn passed(arguments: &str) -> Vec<String> {
    if is_lld() { arguments.split(',').map(str::to_owned).collect() } else { vec![format!("-Wl,{arguments}")] }
}

/// Makes Cargo pass `arguments`, separated by commas, to the linker of the library.
pub fn pass(arguments: &str) {
    for argument in passed(arguments) {
        println!("cargo::rustc-cdylib-link-arg={argument}");
    }
}

//! Which marks of control-flow protection the library may carry on x86-64.
//!
//! The loader turns indirect branch tracking (IBT) and shadow stacks (SHSTK) on
//! only if every object is marked as fit for them, so a library without marks
//! switches them off in its hosts, and one with a false mark kills them. The
//! linker derives marks from its inputs only if all of them have notes, which
//! rustc does not write: they are forced, and this module decides whether that
//! is true.
//!
//! * SHSTK: compiled Rust returns where it was called from.
//! * IBT: LLVM's pass ran over all Rust code, that of `core` included
//!   (`.cargo/config.toml` and link time optimisation). The compiler's start
//!   files, which may be built without it, are left out ([`linker`]).
//!
//! `tests/branch_targets.rs` proves what is claimed.

use std::path::PathBuf;
use std::{env, fs};

use super::linker;

/// `GNU_PROPERTY_X86_FEATURE_1_AND` (x86-64 psABI, "Program Property").
const FEATURES: u32 = 0xc000_0002;
const IBT: u32 = 1;
const SHSTK: u32 = 2;

/// Without both, a tracked jump may go to an instruction that is no `endbr64`.
const REQUIRED: [&str; 2] = ["-x86-indirect-branch-tracking", "-min-jump-table-entries=4294967295"];

/// Arguments that make linkers set both marks: lld's, and those of GNU ld and mold.
const BOTH: [&str; 2] = ["-z,force-ibt,-z,shstk", "-z,ibt,-z,shstk"];
const SHSTK_ONLY: &str = "-z,shstk";

/// Tells the linker to mark the library, as far as that is true.
pub fn mark() {
    let variable = |name: &str| env::var(name).unwrap_or_default();
    if variable("CARGO_CFG_TARGET_ARCH") != "x86_64" || variable("CARGO_CFG_TARGET_OS") != "linux" {
        return;
    }
    let in_force = |option: &&str| variable("CARGO_ENCODED_RUSTFLAGS").contains(*option);
    let is_tracked = is_optimised_whole() && REQUIRED.iter().all(in_force);
    let wanted = BOTH.iter().copied().filter(|_| is_tracked).chain([SHSTK_ONLY]);
    for arguments in wanted {
        let expected = if arguments == SHSTK_ONLY { SHSTK } else { IBT | SHSTK };
        if linked_with(arguments) == Some(expected) {
            linker::pass(arguments);
            return;
        }
    }
}

/// Returns whether link time optimisation takes `core` through LLVM again, as
/// the profile `release` of Cargo.toml says. Cargo does not tell a build script of
/// it; what it does tell is the profile, in the path of the output.
fn is_optimised_whole() -> bool {
    println!("cargo::rerun-if-env-changed=CARGO_PROFILE_RELEASE_LTO");
    let output = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    // <profile>/build/<package>/out
    let is_release = output.ancestors().nth(3).is_some_and(|directory| directory.ends_with("release"));
    let overridden = env::var("CARGO_PROFILE_RELEASE_LTO").is_ok_and(|lto| !matches!(&*lto, "fat" | "true"));
    is_release && !overridden
}

/// Returns the marks of a library that is linked with `arguments`.
fn linked_with(arguments: &str) -> Option<u32> {
    let library = linker::link_trial(&linker::passed(arguments))?;
    Some(fs::read(library).map_or(0, |bytes| features(&bytes)))
}

/// Returns the marks in the property note of an ELF file; none without a note.
fn features(file: &[u8]) -> u32 {
    let word = |at: usize| file.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
    // Elf64_Nhdr: sizes of name and descriptor, NT_GNU_PROPERTY_TYPE_0; the name.
    let is_note =
        |at: &usize| word(*at) == Some(4) && word(at + 8) == Some(5) && file.get(at + 12..at + 16) == Some(b"GNU\0");
    let Some(note) = (0..file.len()).step_by(4).find(is_note) else { return 0 };
    let mut property = note + 16;
    let end = property + word(note + 4).unwrap_or(0) as usize;
    while property < end {
        match (word(property), word(property + 4), word(property + 8)) {
            (Some(FEATURES), _, Some(features)) => return features,
            (Some(_), Some(size), _) => property += 8 + (size as usize).next_multiple_of(8),
            _ => break,
        }
    }
    0
}

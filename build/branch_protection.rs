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
//!   (`.cargo/config.toml` and link time optimisation), and the toolchain's C
//!   pieces that are called through pointers are built for it.
//!
//! `tests/branch_targets.rs` proves what is claimed.

use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

use super::linker;

/// `GNU_PROPERTY_X86_FEATURE_1_AND` (x86-64 psABI, "Program Property").
const FEATURES: u32 = 0xc000_0002;
const IBT: u32 = 1;
const SHSTK: u32 = 2;

/// Without both, a tracked jump may go to an instruction that is no `endbr64`.
const REQUIRED: [&str; 2] = ["-x86-indirect-branch-tracking", "-min-jump-table-entries=4294967295"];

/// Arguments that make linkers set both marks: lld's, and those of GNU ld and
/// mold. Our own `DT_INIT` and `DT_FINI` (`src/hooks/entry_x86_64.rs`) take the place
/// of crti.o's, which may have no `endbr64`.
const BOTH: [&str; 2] =
    ["-z,force-ibt,-z,shstk,-init=sopin_init,-fini=sopin_fini", "-z,ibt,-z,shstk,-init=sopin_init,-fini=sopin_fini"];
const SHSTK_ONLY: &str = "-z,shstk";

/// A library with the symbols that the arguments name.
const TRIAL: &str = "#![no_std]
#[panic_handler] fn panic(_: &core::panic::PanicInfo<'_>) -> ! { loop {} }
#[unsafe(no_mangle)] pub extern \"C\" fn sopin_init() {}
#[unsafe(no_mangle)] pub extern \"C\" fn sopin_fini() {}
";

/// Tells the linker to mark the library, as far as that is true.
pub fn mark() {
    let variable = |name: &str| env::var(name).unwrap_or_default();
    if variable("CARGO_CFG_TARGET_ARCH") != "x86_64" || variable("CARGO_CFG_TARGET_OS") != "linux" {
        return;
    }
    let in_force = |option: &&str| variable("CARGO_ENCODED_RUSTFLAGS").contains(*option);
    let is_tracked = is_optimised_whole() && REQUIRED.iter().all(in_force) && features_of_start_files() & IBT != 0;
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

/// Returns the marks of crtbeginS.o, whose functions stand in `.init_array` and `.fini_array`;
/// all marks where the linker adds no such file.
fn features_of_start_files() -> u32 {
    if linker::is_lld() {
        return IBT | SHSTK;
    }
    let answer = Command::new(linker::program()).arg("-print-file-name=crtbeginS.o").output();
    let Ok(answer) = answer else { return 0 };
    let path = String::from_utf8_lossy(&answer.stdout).trim().to_owned();
    fs::read(path).map_or(0, |bytes| features(&bytes))
}

/// Returns the marks of a library that rustc, with the linker and the flags that are
/// in force, links with `arguments`. A linker that does not know them refuses,
/// or warns and leaves them out.
fn linked_with(arguments: &str) -> Option<u32> {
    let directory = PathBuf::from(env::var_os("OUT_DIR")?);
    let (source, output) = (directory.join("trial.rs"), directory.join("libtrial.so"));
    fs::write(&source, TRIAL).ok()?;
    let mut rustc = Command::new(env::var_os("RUSTC")?);
    rustc.args(["--crate-name=trial", "--edition=2024", "--crate-type=cdylib", "-Cpanic=abort", "-Copt-level=1"]);
    rustc.arg("--target").arg(env::var_os("TARGET")?);
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut option = std::ffi::OsString::from("-Clinker=");
        option.push(linker);
        rustc.arg(option);
    }
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    rustc.args(flags.split('\x1f').filter(|flag| !flag.is_empty()));
    rustc.args(linker::passed(arguments).iter().map(|argument| format!("-Clink-arg={argument}")));
    rustc.arg("-o").arg(&output).arg(&source);
    let linked = rustc.output().ok()?;
    linked.status.success().then(|| fs::read(&output).map_or(0, |bytes| features(&bytes)))
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

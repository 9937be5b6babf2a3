//! Passes arguments to the linker. rustc usually calls a C compiler, which passes on what
//! follows `-Wl,` and adds start files of its own unless it is told not to. If rustc calls lld itself
//! (`scripts/dist-binaries`), arguments have no such prefix, and there are no start files.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Names of lld, without a directory.
const LLD: [&str; 3] = ["rust-lld", "ld.lld", "lld"];

/// A library with a function, whose name no linker script of this directory has.
const TRIAL: &str = "#![no_std]
#[panic_handler] fn panic(_: &core::panic::PanicInfo<'_>) -> ! { loop {} }
#[unsafe(no_mangle)] pub extern \"C\" fn trial() {}
";

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
    for_cdylib(passed(arguments));
}

/// Makes Cargo give these arguments to the program that links the library.
fn for_cdylib(arguments: impl IntoIterator<Item = impl std::fmt::Display>) {
    for argument in arguments {
        println!("cargo::rustc-cdylib-link-arg={argument}");
    }
}

/// Passes the arguments as [`pass`] does, if the linker knows them. GNU ld warns of an option that it does not know,
/// and gold refuses to link.
pub fn pass_if_known(arguments: &str) {
    if link_trial(&passed(&format!("--fatal-warnings,{arguments}"))).is_some() {
        pass(arguments);
    }
}

/// Arguments of the compiler that links, without which it would add start files.
pub fn without_start_files() -> &'static [&'static str] {
    if is_lld() { &[] } else { &["-nostartfiles"] }
}

/// Makes Cargo link the library without the compiler's start files, where it has its own `DT_INIT` and
/// `DT_FINI` (`src/hooks/entry_x86_64.rs`). It needs nothing else of them. They would look for handlers
/// that the library never registers when the process ends, by text of the C library that nothing else
/// needs then: two page faults of each process.
pub fn leave_start_files_out() {
    for_cdylib(without_start_files());
    pass("-init=sopin_init,-fini=sopin_fini");
}

/// Makes the linker put functions beside each other as the linker script `order` says, if it
/// understands such a script: GNU ld and lld do, mold does not.
pub fn order_functions(order: &str) {
    let path = Path::new(&env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join(order);
    println!("cargo::rerun-if-changed={}", path.display());
    // Compilers pass this on to their linkers, so the path may have commas.
    let arguments = ["-T".to_owned(), path.to_string_lossy().into_owned()];
    if link_trial(&arguments).is_some() {
        for_cdylib(arguments);
    }
}

/// Links a small library as rustc, with the linker and the flags that are in force, does with these
/// arguments; returns its path. A linker that does not know them refuses, or warns and leaves them
/// out.
pub fn link_trial(arguments: &[String]) -> Option<PathBuf> {
    let directory = PathBuf::from(env::var_os("OUT_DIR")?);
    let (source, output) = (directory.join("trial.rs"), directory.join("libtrial.so"));
    fs::write(&source, TRIAL).ok()?;
    let mut rustc = Command::new(env::var_os("RUSTC")?);
    rustc.args(["--crate-name=trial", "--edition=2024", "--crate-type=cdylib", "-Cpanic=abort", "-Copt-level=1"]);
    rustc.arg("--target").arg(env::var_os("TARGET")?);
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut option = OsString::from("-Clinker=");
        option.push(linker);
        rustc.arg(option);
    }
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    rustc.args(flags.split('\x1f').filter(|flag| !flag.is_empty()));
    let without_start_files = without_start_files().iter().map(|argument| (*argument).to_owned());
    let arguments = without_start_files.chain(arguments.iter().cloned());
    rustc.args(arguments.map(|argument| format!("-Clink-arg={argument}")));
    rustc.arg("-o").arg(&output).arg(&source);
    rustc.output().ok()?.status.success().then_some(output)
}

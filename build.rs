//! Linker arguments of the preloaded library.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

#[path = "build/branch_protection.rs"]
mod branch_protection;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-env-changed=CC");
    // Other objects' GOT slots point to our `__gmon_start__` for as long as they
    // are loaded, and fork handlers cannot be taken back.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    // Nothing of ours is bound lazily while a mapping is being replaced.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,now");
    // The C interface only grows while the major version is the same.
    let major = env::var("CARGO_PKG_VERSION_MAJOR").unwrap_or_default();
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libsopin.so.{major}");
    branch_protection::mark(link_unwinder_statically().as_deref());
}

/// Every process would have to load `libgcc_s.so.1` only so that a panic of
/// ours can be caught. Its static twin does the same; the linker finds it
/// through a linker script that takes the place of `-lgcc_s`. The archive, if
/// there is one.
fn link_unwinder_statically() -> Option<PathBuf> {
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let asked = Command::new(compiler).arg("-print-file-name=libgcc_eh.a").output();
    let answer = asked.ok()?;
    let path = PathBuf::from(String::from_utf8_lossy(&answer.stdout).trim().to_owned());
    // A compiler without the archive answers with the bare name, and the
    // library then needs libgcc_s.so.1 as any Rust library does.
    if !answer.status.success() || !path.is_absolute() {
        return None;
    }
    let directory = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    fs::write(directory.join("libgcc_s.so"), script_for(&path)).ok()?;
    println!("cargo::rustc-link-search=native={}", directory.display());
    Some(path)
}

fn script_for(archive: &Path) -> String {
    format!("INPUT({})\n", archive.display())
}

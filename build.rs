//! Linker arguments of the preloaded library.

use std::env;

#[path = "build/branch_protection.rs"]
mod branch_protection;
#[path = "build/linker.rs"]
mod linker;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-env-changed=CC");
    // Other objects' GOT slots point to our `__gmon_start__` for as long as they
    // are loaded, and fork handlers cannot be taken back.
    linker::pass("-z,nodelete");
    // Nothing of ours is bound lazily while a mapping is being replaced.
    linker::pass("-z,now");
    // The loader makes only whole pages of RELRO read-only, and that is what proves an object
    // relocated. lld pads RELRO to this size, by default to 4 KiB; pages of aarch64 have up to
    // 64.
    if env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("aarch64") {
        linker::pass("-z,common-page-size=65536");
    }
    if env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("x86_64") {
        linker::leave_start_files_out();
        // Each segment begins on a page of its own, also in the file. So RELRO and the writable data take
        // a page each, where they would take two if their first bytes lay in the middle of one. The loader
        // stores to all of these pages in every process, and the library copies them. Segments of aarch64
        // are aligned to 64 KiB, which is too much.
        linker::pass_if_known("-z,separate-loadable-segments");
    }
    linker::order_functions("build/start.ld");
    // The C interface only grows while the major version is the same.
    let major = env::var("CARGO_PKG_VERSION_MAJOR").unwrap_or_default();
    linker::pass(&format!("-soname,libsopin.so.{major}"));
    branch_protection::mark();
}

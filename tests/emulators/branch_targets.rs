//! Trials with objects that are built for the processor's check of branch targets
//! (`PROT_BTI` of aarch64): the library's mappings must have the bit if those of the loader
//! had it, and must not have it otherwise. An emulated processor checks them.
//!
//! The loader of glibc 2.41 sets the bit, that of 2.31 does not. Each trial is the same
//! without the library and with it, except that the libraries' files are truncated there,
//! which proves that the text is not theirs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::{Completion, Failed, Trial};

use super::common::process::{self, Outcome};
use super::common::{directives, library};
use super::{LIBRARY_FOR_AARCH64, TIMEOUT, VERSIONS, emulator, made};

/// The C libraries, the suffixes of their files, and whether their loaders set the bit.
const C_LIBRARIES: [(&str, &str, &str); 2] = [("2.31", "-2.31", "unchecked"), ("2.41", "", "checked")];
/// The names of trials, and the values of `SOPIN_STORE`; `None` without the library.
const CASES: [(&str, Option<&str>); 3] = [("native", None), ("stored", Some("store")), ("private", Some("off"))];

const MARKED: &str = "-mbranch-protection=standard";

pub fn trials(run_directory: &Path) -> Vec<Trial> {
    let mut trials = Vec::new();
    for version in VERSIONS {
        for (c_library, suffix, checks) in C_LIBRARIES {
            for (case, store) in CASES {
                let label = format!(
                    "qemu_{}::aarch64::branch_targets::glibc_{}::{case}",
                    version.replace('.', "_"),
                    c_library.replace('.', "_")
                );
                let directory = run_directory.join(label.replace("::", "-"));
                trials.push(Trial::ignorable_test(label, move || {
                    try_one(&emulator(version, "aarch64"), suffix, checks, store, &directory)
                }));
            }
        }
    }
    trials
}

fn try_one(
    emulator: &Path,
    suffix: &str,
    checks: &str,
    store: Option<&str>,
    directory: &Path,
) -> Result<Completion, Failed> {
    // Start files that are built for the check are those of 2.41.
    let [marking, of_program] = ["", suffix].map(|suffix| made().join(format!("aarch64{suffix}-cc")));
    let root = made().join(format!("root{suffix}/usr/aarch64-linux-gnu"));
    let preloaded = library::checkout().join(LIBRARY_FOR_AARCH64);
    for path in [emulator, &marking, &of_program, &root, &preloaded] {
        if !path.exists() {
            return Ok(Completion::ignored_with(format!("no {} (scripts/emulators)", path.display())));
        }
    }
    fs::create_dir(directory)?;
    build(&marking, &of_program, directory)?;
    let mut command = Command::new(emulator);
    command.current_dir(directory).arg("-L").arg(root);
    if let Some(store) = store {
        // "off", or a path.
        let store = if store == "off" { PathBuf::from(store) } else { directory.join(store) };
        command.arg("-E").arg(format!("SOPIN_STORE={}", store.display()));
        command.arg("-E").arg(format!("LD_PRELOAD={}", preloaded.display()));
    }
    command.args(["./main", checks, if store.is_some() { "truncated" } else { "whole" }]);
    let finished = process::run(&mut command, &directory.join("log"), TIMEOUT)?;
    if finished.outcome != Outcome::Exit(directives::PASSED) || !finished.stderr.is_empty() {
        return Err(format!("{command:?}\n{finished}").into());
    }
    fs::remove_dir_all(directory)?;
    Ok(Completion::Completed)
}

fn build(marking: &Path, of_program: &Path, directory: &Path) -> Result<(), Failed> {
    let source = library::checkout().join("tests/emulators/libbranches.c");
    let program = library::checkout().join("tests/emulators/branch_targets.c");
    let libraries: [(&str, &[&str]); 3] = [
        ("libmarked.so", &[MARKED]),
        ("libplain.so", &["-mbranch-protection=none"]),
        ("librelocated.so", &[MARKED, "-DTEXT_RELOCATION", "-Wl,-z,notext"]),
    ];
    let compile = |compiler: &Path, output: &str, flags: &[&str]| -> Result<(), Failed> {
        let mut command = Command::new(compiler);
        command.current_dir(directory).args(["-O1", "-g", "-D_GNU_SOURCE", "-I"]);
        command
            .arg(library::checkout().join("tests/fixtures"))
            .arg(&source)
            .args(flags)
            .args(["-lgcc_s", "-o", output]);
        if output == "main" {
            command.arg(&program).args(["-rdynamic", "-ldl", "-pthread"]);
        }
        let finished = process::run(&mut command, &directory.join("compiler.log"), TIMEOUT)?;
        (finished.outcome == Outcome::Exit(0)).then_some(()).ok_or_else(|| format!("{command:?}\n{finished}").into())
    };
    for (output, flags) in libraries {
        compile(marking, output, &[flags, &["-shared", "-fPIC", "-Wl,-Bsymbolic"]].concat())?;
    }
    compile(of_program, "main", &[MARKED])
}

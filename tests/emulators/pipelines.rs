//! Trials with a shell that starts several programs, each in an emulator of its own, as in
//! a container of another architecture: the library, with its default settings, must not
//! write a line for every program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::{Completion, Failed, Trial};

use super::common::library;
use super::common::process::{self, Outcome};
use super::{ARCHITECTURES, LIBRARY_FOR_AARCH64, TIMEOUT, VERSIONS, emulator, made};

/// Runs programs one after the other, at the same time, and in a child without exec.
const SCRIPT: &str = "ls programs | cat; for word in one two; do echo $word; done | cat | cat; (cat main) | cat";
/// The settings of the cases: a store in the user's directory, and none.
const CASES: [(&str, Option<&str>); 2] = [("stored", None), ("private", Some("off"))];

pub fn trials(run_directory: &Path) -> Vec<Trial> {
    let mut trials = Vec::new();
    for version in VERSIONS {
        for architecture in ARCHITECTURES {
            for (case, store) in CASES {
                let label = format!("qemu_{}::{architecture}::pipeline::{case}", version.replace('.', "_"));
                let directory = run_directory.join(label.replace("::", "-"));
                trials.push(Trial::ignorable_test(label, move || {
                    try_one(&emulator(version, architecture), architecture, store, &directory)
                }));
            }
        }
    }
    trials
}

fn try_one(emulator: &Path, architecture: &str, store: Option<&str>, directory: &Path) -> Result<Completion, Failed> {
    let (root, busybox) = (made().join("root/usr/aarch64-linux-gnu"), made().join("programs/usr/bin/busybox"));
    let preloaded = match architecture {
        "aarch64" => library::checkout().join(LIBRARY_FOR_AARCH64),
        native if native == std::env::consts::ARCH => library::path()?,
        other => return Ok(Completion::ignored_with(format!("not on {other}"))),
    };
    for path in [emulator, &root, &busybox, &preloaded] {
        if !path.exists() {
            return Ok(Completion::ignored_with(format!("no {} (scripts/emulators)", path.display())));
        }
    }
    let programs = directory.join("programs");
    fs::create_dir_all(&programs)?;
    for name in ["sh", "ls", "cat"] {
        let start: Vec<PathBuf> = match architecture {
            "aarch64" => vec![emulator.into(), "-L".into(), root.clone(), busybox.clone(), name.into()],
            _ => vec![emulator.into(), PathBuf::from("/bin").join(name)],
        };
        build_starter(&programs.join(name), &start, directory)?;
    }
    fs::write(directory.join("main"), "three\n")?;
    let mut command = Command::new(programs.join("sh"));
    command.current_dir(directory).args(["-c", SCRIPT]).env_clear();
    command.env("PATH", &programs).env("HOME", directory).env("LD_PRELOAD", &preloaded);
    command.envs(store.map(|store| ("SOPIN_STORE", store)));
    let finished = process::run(&mut command, &directory.join("log"), TIMEOUT)?;
    // The programs had the library, as the store shows, which it has filled.
    let had_library = store.is_some() || directory.join(".cache/sopin").exists();
    let is_right = had_library && finished.stdout == "cat\nls\nsh\none\ntwo\nthree\n";
    if finished.outcome != Outcome::Exit(0) || !is_right || !finished.stderr.is_empty() {
        return Err(format!("{command:?}\n{finished}").into());
    }
    Ok(Completion::Completed)
}

/// Makes a program that executes the words of `start` and then its own arguments.
fn build_starter(output: &Path, start: &[PathBuf], directory: &Path) -> Result<(), Failed> {
    let words: Vec<String> = start.iter().map(|word| format!("{:?}", word.display().to_string())).collect();
    let mut command = Command::new("cc");
    command.args(["-O1", "-static", "-o"]).arg(output).arg(format!("-DSTART={}", words.join(",")));
    command.arg(library::checkout().join("tests/emulators/emulated.c"));
    let finished = process::run(&mut command, &directory.join("compiler.log"), TIMEOUT)?;
    (finished.outcome == Outcome::Exit(0)).then_some(()).ok_or_else(|| format!("{command:?}\n{finished}").into())
}

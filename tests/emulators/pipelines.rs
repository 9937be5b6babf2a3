//! Trials with a shell that starts several programs, each in an emulator of its own, as in
//! a container of another architecture: the library, with its default settings, must not
//! write a line for every program. With musl, for which Debian has no shell, a program does so.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::{Completion, Failed, Trial};

use super::common::library;
use super::common::process::{self, Outcome};
use super::{ARCHITECTURES, LIBRARY_FOR_AARCH64, MUSL, TIMEOUT, VERSIONS, emulator, made, processor};

/// Runs programs one after the other, at the same time, and in a child without exec.
const SCRIPT: &str = "ls programs | cat; for word in one two; do echo $word; done | cat | cat; (cat main) | cat";
/// The settings of the cases: a store in the user's directory, and none.
const CASES: [(&str, Option<&str>); 2] = [("stored", None), ("private", Some("off"))];

pub fn trials(run_directory: &Path) -> Vec<Trial> {
    let mut trials = Vec::new();
    for version in VERSIONS {
        for architecture in ARCHITECTURES.into_iter().chain([MUSL]) {
            for (case, store) in CASES {
                let label = format!("qemu_{}::{architecture}::pipeline::{case}", version.replace('.', "_"));
                let directory = run_directory.join(label.replace("::", "-"));
                trials.push(Trial::ignorable_test(label, move || {
                    try_one(&emulator(version, processor(architecture)), architecture, store, &directory)
                }));
            }
        }
    }
    trials
}

fn try_one(emulator: &Path, architecture: &str, store: Option<&str>, directory: &Path) -> Result<Completion, Failed> {
    let busybox = made().join("programs/usr/bin/busybox");
    let root = made().join(if architecture == MUSL { "root-musl" } else { "root/usr/aarch64-linux-gnu" });
    let compiler = made().join("aarch64-musl-cc");
    let preloaded = match architecture {
        "aarch64" | MUSL => library::checkout().join(LIBRARY_FOR_AARCH64),
        native if native == std::env::consts::ARCH => library::path()?,
        other => return Ok(Completion::ignored_with(format!("not on {other}"))),
    };
    for path in [emulator, &root, &busybox, &compiler, &preloaded] {
        if !path.exists() {
            return Ok(Completion::ignored_with(format!("no {} (scripts/emulators)", path.display())));
        }
    }
    let programs = directory.join("programs");
    fs::create_dir_all(&programs)?;
    let (names, arguments, output): (&[&str], &[&str], _) = match architecture {
        MUSL => (&["relay"], &[], "one\ntwo\nthree\n"),
        _ => (&["sh", "ls", "cat"], &["-c", SCRIPT], "cat\nls\nsh\none\ntwo\nthree\n"),
    };
    for name in names {
        let start: Vec<PathBuf> = match architecture {
            MUSL => {
                let relay = directory.join("relay");
                let mut build = Command::new(&compiler);
                build.args(["-O1", "-o"]).arg(&relay).arg(library::checkout().join("tests/emulators/relay.c"));
                compile(&mut build, directory)?;
                vec![emulator.into(), "-L".into(), root.clone(), relay]
            }
            "aarch64" => vec![emulator.into(), "-L".into(), root.clone(), busybox.clone(), PathBuf::from(name)],
            _ => vec![emulator.into(), PathBuf::from("/bin").join(name)],
        };
        build_starter(&programs.join(name), &start, directory)?;
    }
    fs::write(directory.join("main"), "three\n")?;
    let mut command = Command::new(programs.join(names.first().unwrap_or(&"sh")));
    command.current_dir(directory).args(arguments).env_clear();
    command.env("PATH", &programs).env("HOME", directory).env("LD_PRELOAD", &preloaded);
    command.envs(store.map(|store| ("SOPIN_STORE", store)));
    let finished = process::run(&mut command, &directory.join("log"), TIMEOUT)?;
    if finished.outcome != Outcome::Exit(0) || finished.stdout != output || !finished.stderr.is_empty() {
        return Err(format!("{command:?}\n{finished}").into());
    }
    // The programs had the library, which says so if it is asked.
    command.env("SOPIN_LOG", "info");
    let talked = process::run(&mut command, &directory.join("talked"), TIMEOUT)?;
    if talked.stdout != output || !talked.stderr.starts_with("libsopin: ") {
        return Err(format!("{command:?}\n{talked}").into());
    }
    Ok(Completion::Completed)
}

/// Makes a program that executes the words of `start` and then its own arguments.
fn build_starter(output: &Path, start: &[PathBuf], directory: &Path) -> Result<(), Failed> {
    let words: Vec<String> = start.iter().map(|word| format!("{:?}", word.display().to_string())).collect();
    let mut command = Command::new("cc");
    command.args(["-O1", "-static", "-o"]).arg(output).arg(format!("-DSTART={}", words.join(",")));
    command.arg(library::checkout().join("tests/emulators/emulated.c"));
    compile(&mut command, directory)
}

fn compile(command: &mut Command, directory: &Path) -> Result<(), Failed> {
    let finished = process::run(command, &directory.join("compiler.log"), TIMEOUT)?;
    (finished.outcome == Outcome::Exit(0)).then_some(()).ok_or_else(|| format!("{command:?}\n{finished}").into())
}

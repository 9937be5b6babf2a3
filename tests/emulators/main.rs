//! Runs programs under user-mode emulators of two versions, for two architectures: they
//! work with the library, survive the truncation of their libraries, print nothing, and have
//! their branch targets checked exactly where they were checked without the library.
//!
//! `scripts/emulators` makes the library for aarch64 and fetches everything else. If it
//! has not been run to its end, trials are ignored.

#[path = "../common/mod.rs"]
mod common;

mod branch_targets;
mod musl;
mod pipelines;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::{Completion, Failed, Trial};

use common::process::{self, Outcome};
use common::{library, suite};

const TIMEOUT: Duration = Duration::from_secs(60);
const VERSIONS: [&str; 2] = ["7.2", "10.0"];
const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];
/// aarch64 with musl, where everything else is for glibc.
const MUSL: &str = "aarch64_musl";
const LIBRARY_FOR_AARCH64: &str = "target/aarch64-unknown-linux-gnu/release/libsopin.so";

fn main() -> ExitCode {
    suite::run(
        "emulators",
        |directory| {
            let all = [
                trials(directory),
                branch_targets::trials(directory),
                pipelines::trials(directory),
                musl::trials(directory)?,
            ];
            Ok(all.into_iter().flatten().collect())
        },
        || (),
    )
}

/// The settings of a program, and how it must end.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    is_preloaded: bool,
    /// Arguments of the emulator that set variables of the program.
    variables: &'static [&'static str],
    outcome: Outcome,
}

const PASSED: Outcome = Outcome::Exit(common::directives::PASSED);
const CASES: [Case; 4] = [
    Case { name: "unprotected", is_preloaded: false, variables: &[], outcome: Outcome::Signal(libc::SIGSEGV) },
    Case { name: "full", is_preloaded: true, variables: &["SOPIN_STORE=off"], outcome: PASSED },
    Case {
        name: "relocated",
        is_preloaded: true,
        variables: &["SOPIN_STORE=off", "SOPIN_MODE=relocated"],
        outcome: PASSED,
    },
    Case { name: "stored", is_preloaded: true, variables: &[], outcome: PASSED },
];

/// The compiler and the files for the programs of one architecture.
struct Architecture {
    compiler: PathBuf,
    library: PathBuf,
    /// The directory in which the emulator finds the loader and the C library, if they
    /// are not at their usual paths.
    root: Option<PathBuf>,
}

impl Architecture {
    fn new(name: &'static str) -> Result<Self, String> {
        let needed = |path: PathBuf| {
            let is_there = path.exists();
            is_there.then_some(path.clone()).ok_or_else(|| format!("no {} (scripts/emulators)", path.display()))
        };
        let made = made();
        if name == "x86_64" {
            return match std::env::consts::ARCH {
                "x86_64" => Ok(Self { compiler: "cc".into(), library: library::path()?, root: None }),
                other => Err(format!("not on {other}")),
            };
        }
        let (compiler, root) =
            if name == MUSL { ("aarch64-musl-cc", "root-musl") } else { ("aarch64-cc", "root/usr/aarch64-linux-gnu") };
        Ok(Self {
            compiler: needed(made.join(compiler))?,
            library: needed(library::checkout().join(LIBRARY_FOR_AARCH64))?,
            root: Some(needed(made.join(root))?),
        })
    }

    fn build(&self, directory: &Path) -> Result<(), String> {
        let tests = library::checkout().join("tests");
        let table = tests.join("fixtures/idle_relocated_pointer/libtable.c");
        let libraries = ["libstartup.so", "libthread.so", "libmain.so"];
        let builds =
            libraries.map(|library| (library, table.clone(), ["-shared", "-fPIC"].as_slice())).into_iter().chain([(
                "main",
                tests.join("emulators/program.c"),
                ["-pthread", "-ldl", "-Wl,-z,now,-rpath,$ORIGIN"].as_slice(),
            )]);
        for (output, source, flags) in builds {
            let mut command = Command::new(&self.compiler);
            command.current_dir(directory).args(["-O1", "-g", "-D_GNU_SOURCE", "-I"]).arg(tests.join("fixtures"));
            command.arg("-I").arg(library::checkout().join("include")).arg(source);
            if output == "main" {
                command.arg("libstartup.so");
            }
            command.args(flags).args(["-o", output]);
            let finished = process::run(&mut command, &directory.join("compiler.log"), TIMEOUT)
                .map_err(|error| format!("{}: {error}", self.compiler.display()))?;
            if finished.outcome != Outcome::Exit(0) {
                return Err(format!("{command:?}\n{finished}"));
            }
        }
        Ok(())
    }

    fn try_one(&self, emulator: &Path, case: Case, directory: &Path) -> Result<(), Failed> {
        fs::create_dir_all(directory.parent().unwrap_or(directory))?;
        fs::create_dir(directory)?;
        let programs = directory.join("programs");
        fs::create_dir(&programs)?;
        self.build(&programs)?;
        let mut command = Command::new(emulator);
        command.current_dir(&programs);
        if let Some(root) = &self.root {
            command.arg("-L").arg(root);
        }
        let store = format!("SOPIN_STORE={}", directory.join("store").display());
        let preload = format!("LD_PRELOAD={}", self.library.display());
        let preload = if case.is_preloaded { preload } else { "LD_PRELOAD=".to_owned() };
        for variable in [store.as_str(), &preload].iter().chain(case.variables) {
            command.args(["-E", variable]);
        }
        command.arg("./main");
        let finished = process::run(&mut command, &directory.join("log"), TIMEOUT)?;
        if finished.outcome != case.outcome || finished.to_string().contains("libsopin:") {
            return Err(format!("expected {}\n{command:?}\n{finished}", case.outcome).into());
        }
        Ok(fs::remove_dir_all(directory)?)
    }
}

fn made() -> PathBuf {
    library::checkout().join("target/emulators")
}

/// Returns the processor that is emulated for one of the architectures.
fn processor(architecture: &'static str) -> &'static str {
    if architecture == MUSL { "aarch64" } else { architecture }
}

/// Returns where the emulator of this version for `architecture` is, if it was made.
fn emulator(version: &str, architecture: &str) -> PathBuf {
    made().join(format!("qemu-{version}")).join(architecture)
}

fn trials(run_directory: &Path) -> Vec<Trial> {
    let mut trials = Vec::new();
    for name in ARCHITECTURES.into_iter().chain([MUSL]) {
        let architecture = Arc::new(Architecture::new(name));
        for version in VERSIONS {
            let emulator = emulator(version, processor(name));
            for case in CASES {
                let (architecture, emulator) = (Arc::clone(&architecture), emulator.clone());
                let label = format!("qemu_{}::{name}::{}", version.replace('.', "_"), case.name);
                let directory = run_directory.join(label.replace("::", "-"));
                trials.push(Trial::ignorable_test(label, move || match &*architecture {
                    _ if !emulator.exists() => {
                        Ok(Completion::ignored_with(format!("no {} (scripts/emulators)", emulator.display())))
                    }
                    Err(reason) => Ok(Completion::ignored_with(reason)),
                    Ok(architecture) => {
                        architecture.try_one(&emulator, case, &directory).map(|()| Completion::Completed)
                    }
                }));
            }
        }
    }
    trials
}

//! Trials of fixtures with musl for aarch64, for which there is no other machine: that objects
//! which register their unwinding information are pinned before their constructors run, and what
//! the library recognises of their code.
//!
//! The fixtures are compiled as their directives say, and run in the newer emulator. The older one
//! shows text as not executable, so the library leaves it in the file. Fixtures that execute
//! programs, trace them, or need the attributes of mappings cannot run there. Neither can those that
//! fork while other threads run: about one child of a thousand waits for ever for a mutex of the
//! emulator, which one of the other threads had at the fork.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use libtest_mimic::{Completion, Failed};

use super::common::directives::{Directives, Preload, Trial};
use super::common::needs::Need;
use super::common::process::{self, Outcome};
use super::common::toolchain::{self, CLibrary};
use super::common::{library, scratch};
use super::{LIBRARY_FOR_AARCH64, TIMEOUT, emulator, made};

const VERSION: &str = "10.0";
/// The fixtures whose trials are run.
const FIXTURES: [&str; 7] = [
    "atomics_setup",
    "early_pin",
    "frame_registrations",
    "lazy_binding",
    "startup_objects",
    "symbol_order",
    "thread_local_data",
];

struct Case {
    sources: PathBuf,
    directory: PathBuf,
    directives: Directives,
    built: OnceLock<Result<(), String>>,
}

/// Returns the trials of all fixtures.
///
/// # Errors
/// Those of reading the directives.
pub fn trials(run_directory: &Path) -> Result<Vec<libtest_mimic::Trial>, String> {
    let mut trials = Vec::new();
    for fixture in FIXTURES {
        let sources = library::checkout().join("tests/fixtures").join(fixture);
        let main = sources.join("main.c");
        let text = fs::read_to_string(&main).map_err(|error| format!("{}: {error}", main.display()))?;
        let mut directives = Directives::parse(&main, &text)?;
        // No emulator has a ptrace(2) by which a process could stop its threads.
        let is_ruled_out = |need: &Need| CLibrary::Musl.is_ruled_out_by(need) || *need == Need::Stops;
        directives.trials.retain(|trial| !trial.needs.iter().any(is_ruled_out));
        let directory = run_directory.join("musl").join(fixture);
        let case = Arc::new(Case { sources, directory, directives, built: OnceLock::new() });
        for (index, trial) in case.directives.trials.iter().enumerate() {
            let case = Arc::clone(&case);
            let label = format!("qemu_{}::aarch64_musl::{fixture}::{}", VERSION.replace('.', "_"), trial.label);
            trials.push(libtest_mimic::Trial::ignorable_test(label, move || {
                case.try_one(&case.directives.trials[index])
            }));
        }
    }
    Ok(trials)
}

impl Case {
    fn try_one(&self, trial: &Trial) -> Result<Completion, Failed> {
        let emulator = emulator(VERSION, "aarch64");
        let (compiler, root) = (made().join("aarch64-musl-cc"), made().join("root-musl"));
        let preloaded = library::checkout().join(LIBRARY_FOR_AARCH64);
        for path in [&emulator, &compiler, &root, &preloaded] {
            if !path.exists() {
                return Ok(Completion::ignored_with(format!("no {} (scripts/emulators)", path.display())));
            }
        }
        let built = self.directory.join(".build");
        self.built.get_or_init(|| self.build(&compiler, &built)).clone()?;
        let directory = self.directory.join(&trial.label);
        scratch::copy_tree(&built, &directory)?;
        let expand = |value: &str| {
            value.replace("{dir}", &directory.to_string_lossy()).replace("{lib}", &preloaded.to_string_lossy())
        };
        let mut variables = vec!["SOPIN_STORE=off".to_owned()];
        if trial.preload == Preload::Library {
            variables.push(format!("LD_PRELOAD={}", preloaded.display()));
        }
        variables.extend(trial.environment.iter().map(|(name, value)| format!("{name}={}", expand(value))));
        let mut command = Command::new(&emulator);
        command.current_dir(&directory).env_remove("LD_PRELOAD").arg("-L").arg(&root);
        for variable in &variables {
            command.args(["-E", variable]);
        }
        command.arg("./main").args(&trial.arguments);
        let finished = process::run(&mut command, &self.directory.join(format!("{}.log", trial.label)), TIMEOUT)?;
        trial.judge(&finished).map_err(|wrong| format!("{wrong}\n{command:?}\n{finished}"))?;
        fs::remove_dir_all(&directory)?;
        Ok(Completion::Completed)
    }

    fn build(&self, compiler: &Path, directory: &Path) -> Result<(), String> {
        fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        for build in &self.directives.builds {
            let mut command = Command::new(compiler);
            command.current_dir(directory).args(toolchain::FLAGS).arg("-I").arg(self.sources.join(".."));
            command.arg("-I").arg(library::checkout().join("include")).arg("-L.");
            if Path::new(&build.output).extension().is_some_and(|extension| extension == "so") {
                command.args(["-shared", "-fPIC"]);
            }
            command.args(["-o", &build.output]);
            for argument in &build.arguments {
                let source = self.sources.join(argument);
                if source.is_file() {
                    command.arg(source);
                } else {
                    command.arg(argument.replace("{dir}", &directory.to_string_lossy()));
                }
            }
            let finished = process::run(&mut command, &self.directory.join("compiler.log"), TIMEOUT)
                .map_err(|error| format!("{}: {error}", compiler.display()))?;
            if finished.outcome != Outcome::Exit(0) {
                return Err(format!("{command:?}\n{finished}"));
            }
        }
        Ok(())
    }
}

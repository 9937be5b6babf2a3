//! Compiles every folder of `tests/fixtures` and runs its trials.
//!
//! A fixture is a small C program with its libraries that proves one promise, and a
//! negative control that shows the same program failing without the library. This file
//! builds and judges; `common::directives` reads what a fixture asks for.
//! `tests/fixtures/README.md` describes how to write one.

mod common;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use libtest_mimic::{Completion, Failed};

use common::directives::{Build, Copy, Directives, Preload, Trial};
use common::needs::Need;
use common::toolchain::{self, CLibrary};
use common::turns::{self, Turns};
use common::{builds, library, process, ring, scratch, suite};

const COMPILE_TIMEOUT: Duration = Duration::from_secs(120);
/// Hundreds of trials wait for seconds until the store accepts a file, or until a control that hangs is given up.
const TRIALS_PER_PROCESSOR: usize = 3;
/// The turns of those that keep a processor busy.
static TURNS: Turns = Turns::new();

/// One folder. It is compiled when the first of its trials runs, so that a run with a
/// filter on the command line compiles only what it selects.
struct Case {
    name: String,
    c_library: CLibrary,
    sources: PathBuf,
    scratch: PathBuf,
    directives: Directives,
    built: OnceLock<Result<PathBuf, String>>,
    unmet_need: OnceLock<Option<String>>,
}

fn main() -> ExitCode {
    suite::run_overlapping(TRIALS_PER_PROCESSOR, "fixtures", trials, || ())
}

fn trials(run_directory: &Path) -> Result<Vec<libtest_mimic::Trial>, String> {
    let (mut trials, mut busy) = (Vec::new(), Vec::new());
    let builds = builds::to_make();
    for case in find_cases(&library::checkout().join("tests/fixtures"), run_directory)? {
        let case = Arc::new(case);
        if let Some(builds) = &builds {
            trials.extend(case.build_to_keep(builds));
            continue;
        }
        for index in 0..case.directives.trials.len() {
            let label = &case.directives.trials[index].label;
            let name = match case.c_library {
                CLibrary::Native => format!("{}::{label}", case.name),
                CLibrary::Musl => format!("{}::musl::{label}", case.name),
            };
            let list = if case.is_busy(&case.directives.trials[index]) { &mut busy } else { &mut trials };
            let case = Arc::clone(&case);
            list.push(libtest_mimic::Trial::ignorable_test(name, move || case.try_one(&case.directives.trials[index])));
        }
    }
    Ok(turns::spread(busy, trials))
}

fn find_cases(root: &Path, run_directory: &Path) -> Result<Vec<Case>, String> {
    let read_error = |path: &Path, error| format!("{}: {error}", path.display());
    let selected = env::var("SOPIN_TEST_FIXTURES").ok();
    let mut cases = Vec::new();
    for entry in fs::read_dir(root).map_err(|error| read_error(root, error))? {
        let sources = entry.map_err(|error| read_error(root, error))?.path();
        let main = sources.join("main.c");
        // A folder without main.c contains sources that several fixtures share.
        if !main.is_file() {
            continue;
        }
        let name = sources.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if selected.as_ref().is_some_and(|selected| selected.split(',').all(|one| one != name)) {
            continue;
        }
        let source = fs::read_to_string(&main).map_err(|error| read_error(&main, error))?;
        for c_library in [CLibrary::Native, CLibrary::Musl] {
            let mut directives = Directives::parse(&main, &source)?;
            if directives.needs.iter().any(|need| c_library.is_ruled_out_by(need)) {
                continue;
            }
            directives.trials.retain(|trial| !trial.needs.iter().any(|need| c_library.is_ruled_out_by(need)));
            let scratch = match c_library {
                CLibrary::Native => run_directory.join(&name),
                CLibrary::Musl => run_directory.join("musl").join(&name),
            };
            cases.push(Case {
                name: name.clone(),
                c_library,
                scratch,
                directives,
                sources: sources.clone(),
                built: OnceLock::new(),
                unmet_need: OnceLock::new(),
            });
        }
    }
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(cases)
}

impl Case {
    fn try_one(&self, trial: &Trial) -> Result<Completion, Failed> {
        let unmet = self
            .unmet_need
            .get_or_init(|| self.c_library.unmet().or_else(|| self.directives.needs.iter().find_map(Need::unmet)));
        if let Some(reason) = unmet {
            return Ok(Completion::ignored_with(reason));
        }
        if let Some(reason) = trial.needs.iter().find_map(Need::unmet) {
            return Ok(Completion::ignored_with(reason));
        }
        let mut is_first = false;
        let built = self.built.get_or_init(|| {
            is_first = true;
            self.build()
        });
        let built = built.as_ref().map_err(|error| {
            if is_first { error.as_str() } else { "the fixture was not built, as another of its trials shows" }
        })?;
        let directory = self.scratch.join(&trial.label);
        scratch::copy_tree(built, &directory).map_err(|error| error.to_string())?;
        let library = library::path();
        for copy in &self.directives.copies {
            self.copy(copy, trial, &library, &directory)?;
        }

        let _turn = self.is_busy(trial).then(|| TURNS.take());
        let mut command = Command::new("./main");
        command.current_dir(&directory);
        for argument in &trial.arguments {
            command.arg(number_of_rounds(argument)?.unwrap_or_else(|| argument.clone()));
        }
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("SOPIN_") {
                command.env_remove(name);
            }
        }
        command.env_remove("LD_PRELOAD");
        // Trials of the store name it. The others, including controls that load the
        // library, must neither find nor fill the store of the user who runs the tests.
        command.env("SOPIN_STORE", "off");
        if trial.preload != Preload::Nothing {
            let library = library.clone()?;
            command.env("SOPIN_TEST_LIB", &library);
            if trial.preload == Preload::Library {
                command.env("LD_PRELOAD", &library);
            }
        }
        for (name, value) in &trial.environment {
            command.env(name, expand(value, &library, &directory)?);
        }

        // It is open until the process has been started.
        let _ring = if trial.has_ring {
            command.env("SOPIN_TEST_UNSTOPPABLE", "1");
            Some(ring::inherited_by(&mut command)?)
        } else {
            None
        };

        let log = self.scratch.join(format!("{}.log", trial.label));
        let timeout = self.directives.timeout * process::patience()?;
        let finished = process::run(&mut command, &log, timeout).map_err(|error| format!("./main: {error}"))?;
        trial
            .judge(&finished)
            .map_err(|wrong| format!("{wrong}\n{command:?}\nin {}\n{finished}", directory.display()))?;
        // The directory is kept if the trial failed; keeping all of them would fill the
        // disk in large runs.
        fs::remove_dir_all(&directory).map_err(|error| error.to_string())?;
        Ok(Completion::Completed)
    }

    /// Returns whether a trial keeps a processor busy: the directives say so, or that it does something many times.
    fn is_busy(&self, trial: &Trial) -> bool {
        self.directives.is_busy || trial.arguments.iter().any(|argument| rounds(argument).is_some())
    }

    /// Returns a trial that compiles the fixture into a directory of `builds`. It is ignored if
    /// that fails, because the machine that uses the builds may have what is missing here.
    fn build_to_keep(self: &Arc<Self>, builds: &Path) -> Option<libtest_mimic::Trial> {
        let (case, builds) = (Arc::clone(self), builds.to_owned());
        let make = move || {
            fs::create_dir_all(&case.scratch)?;
            Ok(match builds::make(&builds::FIXTURES, &builds, &case.name, |directory| case.compile(directory)) {
                Ok(()) => Completion::Completed,
                Err(error) => Completion::ignored_with(error),
            })
        };
        let name = format!("{}::build", self.name);
        (self.c_library == CLibrary::Native).then(|| libtest_mimic::Trial::ignorable_test(name, make))
    }

    /// Returns a directory with what is compiled of the fixture, in which no trial runs.
    fn build(&self) -> Result<PathBuf, String> {
        // No label begins with a dot, so this is not the directory of a trial.
        let directory = self.scratch.join(".build");
        fs::create_dir_all(&self.scratch).map_err(|error| error.to_string())?;
        if self.c_library == CLibrary::Native
            && let Some(finished) = builds::finished(&builds::FIXTURES, &self.name)
        {
            return Ok(finished);
        }
        fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
        self.compile(&directory)?;
        Ok(directory)
    }

    fn compile(&self, directory: &Path) -> Result<(), String> {
        for build in &self.directives.builds {
            let mut command = self.compiler(build, directory)?;
            let log = self.scratch.join("compiler.log");
            let timeout = COMPILE_TIMEOUT * process::patience()?;
            let finished = process::run(&mut command, &log, timeout).map_err(|error| format!("cc: {error}"))?;
            if finished.outcome != process::Outcome::Exit(0) {
                return Err(format!("{command:?}\n{finished}"));
            }
        }
        Ok(())
    }

    fn compiler(&self, build: &Build, directory: &Path) -> Result<Command, String> {
        let output = directory.join(&build.output);
        let mut command = self.c_library.compiler(&self.scratch)?;
        command.args(toolchain::FLAGS).arg("-I").arg(self.sources.join(".."));
        command.arg("-I").arg(library::checkout().join("include"));
        // Libraries that were built before are beside the output.
        command.arg("-L").arg(directory);
        if Path::new(&build.output).extension().is_some_and(|e| e == "so") {
            command.args(["-shared", "-fPIC"]);
        }
        command.arg("-o").arg(&output);
        for argument in &build.arguments {
            let source = self.sources.join(argument);
            if source.is_file() {
                command.arg(source);
            } else {
                let argument = argument.replace("{dir}", &directory.to_string_lossy());
                // If there is no library, the compiler reports that.
                let library = library::path().unwrap_or_else(|_| PathBuf::from("libsopin.so"));
                command.arg(argument.replace("{lib}", &library.to_string_lossy()));
            }
        }
        if let Some(parent) = output.parent() {
            // For `build: plugins/one.so …`. If this fails, cc cannot write and reports
            // that.
            let _ = fs::create_dir_all(parent);
        }
        Ok(command)
    }

    fn copy(
        &self,
        copy: &Copy,
        trial: &Trial,
        library: &Result<PathBuf, String>,
        directory: &Path,
    ) -> Result<(), String> {
        let source = if copy.source == "{lib}" {
            match library {
                // A control may run although there is no library.
                Err(_) if trial.preload == Preload::Nothing => return Ok(()),
                library => library.clone()?,
            }
        } else if copy.source == "{ldso}" {
            self.c_library.loader()?
        } else if copy.source.starts_with('/') {
            PathBuf::from(&copy.source)
        } else {
            toolchain::found_by_compiler(&copy.source)?
        };
        let target = directory.join(&copy.name);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(|error| error.to_string())?;
        }
        fs::copy(&source, &target)
            .and_then(|_| process::wait_for_writers(&target))
            .map_err(|error| format!("{}: copy {}: {error}", self.name, source.display()))
    }
}

/// Returns the number in the argument `{N}`. `None` for other arguments.
fn rounds(argument: &str) -> Option<u32> {
    argument.strip_prefix('{')?.strip_suffix('}')?.parse().ok()
}

/// Returns for the argument `{N}` the number that is as many times less as everything may take
/// longer, but at least 1. `None` for other arguments.
fn number_of_rounds(argument: &str) -> Result<Option<String>, String> {
    rounds(argument).map(|number| Ok((number / process::patience()?).max(1).to_string())).transpose()
}

/// Replaces `{lib}` by the library under test and `{dir}` by the trial's directory. The
/// braces are used because `$LIB` and `$ORIGIN` have a meaning for the dynamic loader.
fn expand(value: &str, library: &Result<PathBuf, String>, directory: &Path) -> Result<String, String> {
    let value = value.replace("{dir}", &directory.to_string_lossy());
    if value.contains("{lib}") {
        return Ok(value.replace("{lib}", &library.clone()?.to_string_lossy()));
    }
    Ok(value)
}

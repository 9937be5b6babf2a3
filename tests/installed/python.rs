//! The Python package in `python/src`: its functions, and an extension module whose file is
//! rewritten between two calls, with and without `LD_PRELOAD`. `tests/python` tries the wheel.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Completion;

use super::Try;
use super::stage::Stage;
use crate::common::dialogue::Dialogue;
use crate::common::library::checkout;
use crate::common::needs::Need;
use crate::common::process::{self, Finished, Outcome};
use crate::common::protection::forget_settings;
use crate::common::rewrite::Rewrite;
use crate::common::ring;

pub const TRIALS: &[(&str, Try)] = &[
    ("python::imported_first", imported_first),
    ("python::imported_first_emptied", imported_first_emptied),
    ("python::preloaded", preloaded),
    ("python::imported_first_unstoppable", imported_first_unstoppable),
    ("python::imported_late_then_started", imported_late),
    ("python::imported_late_unstoppable", imported_late_unstoppable),
    ("python::not_imported_dies", not_imported_dies),
    ("python::functions", functions),
    ("python::functions_unstoppable", functions_unstoppable),
    ("python::functions_preloaded", functions_preloaded),
    ("python::functions_turned_off", functions_turned_off),
    ("python::no_library", no_library),
    ("python::threads", threads),
    ("python::threads_unstoppable", threads_unstoppable),
    ("python::threads_not_imported_dies", threads_not_imported_dies),
];

const TIMEOUT: Duration = Duration::from_secs(60);

/// The way in which the library is loaded into the interpreter.
#[derive(Clone, Copy, PartialEq)]
enum How {
    NotAtAll,
    Preloaded,
    /// By `import sopin`, before the extension or after it.
    Imported(&'static str),
    /// The same in a process of which the library does not stop the threads: it inherits an
    /// `io_uring(7)`.
    Unstoppable(&'static str),
}

impl How {
    const fn when(self) -> &'static str {
        match self {
            Self::Imported(when) | Self::Unstoppable(when) => when,
            Self::NotAtAll | Self::Preloaded => "never",
        }
    }

    /// Returns why it cannot be tried here.
    fn unmet(self) -> Option<String> {
        match self {
            Self::Imported(_) => Need::Stops.unmet(),
            Self::Unstoppable(_) => Need::IoUring.unmet(),
            Self::NotAtAll | Self::Preloaded => None,
        }
    }
}

/// An interpreter to be started.
struct Interpreter {
    command: Command,
    /// The ring that it inherits.
    _ring: Option<OwnedFd>,
}

/// Returns an interpreter that finds the module and, if the module searches for it, the
/// library.
fn python(stage: &Stage, how: How) -> Result<Interpreter, String> {
    python_of(Path::new("python3"), stage, how)
}

fn python_of(program: &Path, stage: &Stage, how: How) -> Result<Interpreter, String> {
    let mut command = Command::new(program);
    let mut ring = None;
    forget_settings(&mut command);
    command.env("PYTHONPATH", checkout().join("python/src")).env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("SOPIN_STORE", "off");
    let library = stage.path("lib/libsopin.so")?;
    match how {
        How::NotAtAll => {}
        How::Preloaded => {
            command.env("LD_PRELOAD", library);
        }
        How::Imported(_) => {
            command.env("SOPIN_LIBRARY", library);
        }
        How::Unstoppable(_) => {
            command.env("SOPIN_LIBRARY", library).env("SOPIN_TEST_UNSTOPPABLE", "1");
            ring = Some(ring::inherited_by(&mut command).map_err(|error| format!("io_uring_setup: {error}"))?);
        }
    }
    Ok(Interpreter { command, _ring: ring })
}

/// Returns a copy of an extension module of the interpreter, or why there is none.
pub fn extension(directory: &Path) -> Result<Result<PathBuf, String>, String> {
    let asked = Command::new("python3").args(["-c", "import _json; print(_json.__file__)"]).output();
    let Ok(answer) = asked else { return Ok(Err("no python3".to_owned())) };
    let path = PathBuf::from(String::from_utf8_lossy(&answer.stdout).trim());
    let Some(name) = path.file_name().filter(|_| path.is_file()) else {
        return Ok(Err("python3 has its extension modules built in".to_owned()));
    };
    // The copy is not in a directory in which the interpreter searches for modules of
    // this name.
    let copy = directory.join("extension").join(name);
    fs::create_dir_all(directory.join("extension")).map_err(|error| error.to_string())?;
    fs::copy(&path, &copy).map_err(|error| error.to_string())?;
    Ok(Ok(copy))
}

/// Calls the extension, rewrites its file, and calls it again.
fn rewritten(stage: &Stage, directory: &Path, how: How, rewrite: Rewrite) -> Result<Result<Finished, String>, String> {
    let copy = match extension(directory)? {
        Ok(copy) => copy,
        Err(reason) => return Ok(Err(reason)),
    };
    if let Some(reason) = how.unmet() {
        return Ok(Err(reason));
    }
    let Interpreter { mut command, _ring } = python(stage, how)?;
    command.arg(checkout().join("tests/installed/extension.py")).arg(&copy).arg(how.when());
    let mut dialogue =
        Dialogue::start(&mut command, &directory.join("python"), TIMEOUT).map_err(|error| error.to_string())?;
    dialogue.wait_for("ready", 1)?;
    rewrite.apply(&copy).map_err(|error| error.to_string())?;
    dialogue.say("again");
    dialogue.finish().map(Ok)
}

fn survives(stage: &Stage, directory: &Path, how: How, rewrite: Rewrite) -> Result<Completion, String> {
    match rewritten(stage, directory, how, rewrite)? {
        Err(reason) => Ok(Completion::ignored_with(reason)),
        Ok(finished) if finished.outcome == Outcome::Exit(42) && says_what_it_should(how, &finished.stderr) => {
            Ok(Completion::Completed)
        }
        Ok(finished) => Err(finished.to_string()),
    }
}

/// Returns whether stderr is empty, or has one line about objects loaded before the library whose
/// threads could not be stopped.
fn says_what_it_should(how: How, stderr: &str) -> bool {
    let is_report = |line: &str| {
        line.starts_with("libsopin: ") && line.contains(": pin writable ranges: code of the object may have run")
    };
    match how {
        How::Unstoppable(_) => stderr.lines().count() == 1 && stderr.lines().all(is_report),
        How::Imported(_) | How::Preloaded | How::NotAtAll => stderr.is_empty(),
    }
}

fn imported_first(stage: &Stage, directory: &Path) -> Result<Completion, String> {
    survives(stage, directory, How::Imported("first"), Rewrite::Traps)
}

fn imported_first_emptied(stage: &Stage, directory: &Path) -> Result<Completion, String> {
    survives(stage, directory, How::Imported("first"), Rewrite::Empty)
}

fn preloaded(stage: &Stage, directory: &Path) -> Result<Completion, String> {
    survives(stage, directory, How::Preloaded, Rewrite::Traps)
}

fn imported_first_unstoppable(stage: &Stage, directory: &Path) -> Result<Completion, String> {
    survives(stage, directory, How::Unstoppable("first"), Rewrite::Traps)
}

fn imported_late(stage: &Stage, directory: &Path) -> Result<Completion, String> {
    survives(stage, directory, How::Imported("late"), Rewrite::Empty)
}

fn imported_late_unstoppable(stage: &Stage, directory: &Path) -> Result<Completion, String> {
    // The relocated pages are private to the process and stay so if the file is not
    // truncated; text is pinned.
    survives(stage, directory, How::Unstoppable("late"), Rewrite::Traps)
}

fn not_imported_dies(stage: &Stage, directory: &Path) -> Result<Completion, String> {
    match rewritten(stage, directory, How::NotAtAll, Rewrite::SameBytes)? {
        Err(reason) => Ok(Completion::ignored_with(reason)),
        Ok(Finished { outcome: Outcome::Signal(7 | 11), .. }) => Ok(Completion::Completed),
        Ok(finished) => Err(format!("survived: {finished}")),
    }
}

/// Runs the module's own tests, each in a process of its own.
fn unit_tests(stage: &Stage, directory: &Path, how: How, mode: &str) -> Result<Completion, String> {
    if let Some(reason) = how.unmet() {
        return Ok(Completion::ignored_with(reason));
    }
    let Interpreter { mut command, _ring } = python(stage, how)?;
    command.arg(checkout().join("tests/installed/module_test.py")).env("SOPIN_MODE", mode).current_dir(directory);
    let log = directory.join("python");
    let finished = process::run(&mut command, &log, TIMEOUT).map_err(|error| format!("python3: {error}"))?;
    if finished.outcome == Outcome::Exit(0) && finished.stderr.contains("\nOK") {
        Ok(Completion::Completed)
    } else {
        Err(finished.to_string())
    }
}

fn functions(stage: &Stage, directory: &Path) -> Result<Completion, String> {
    unit_tests(stage, directory, How::Imported("first"), "full")
}

fn functions_unstoppable(stage: &Stage, directory: &Path) -> Result<Completion, String> {
    unit_tests(stage, directory, How::Unstoppable("first"), "full")
}

fn functions_preloaded(stage: &Stage, directory: &Path) -> Result<Completion, String> {
    unit_tests(stage, directory, How::Preloaded, "full")
}

fn functions_turned_off(stage: &Stage, directory: &Path) -> Result<Completion, String> {
    unit_tests(stage, directory, How::Imported("first"), "off")
}

fn no_library(stage: &Stage, directory: &Path) -> Result<Completion, String> {
    let Interpreter { mut command, _ring } = python(stage, How::NotAtAll)?;
    // A program that is merely not protected starts. What it asks of the library fails.
    let program = "import sopin\nprint('started', flush=True)\nsopin.start()";
    command.env("SOPIN_LIBRARY", directory.join("libsopin.so")).args(["-c", program]);
    let log = directory.join("python");
    let finished = process::run(&mut command, &log, TIMEOUT).map_err(|error| format!("python3: {error}"))?;
    let reason = format!("libsopin.so: {}/libsopin.so: cannot open", directory.display());
    let said = |what: &str| finished.stderr.lines().filter(|line| line.contains(what)).count() == 1;
    let warns = said(&format!("NotPinned: {reason}")) && said("this process is not protected");
    let is_right = finished.stdout == "started\n" && warns && said(&format!("ImportError: {reason}"));
    if finished.outcome == Outcome::Exit(1) && is_right { Ok(Completion::Completed) } else { Err(finished.to_string()) }
}

/// Imports the module beside threads that store to an extension's data.
fn threaded(stage: &Stage, directory: &Path, how: How) -> Result<Result<Finished, String>, String> {
    if let Some(reason) = how.unmet().or_else(|| Need::Program("cc".to_owned()).unmet()) {
        return Ok(Err(reason));
    }
    let library = directory.join("libcounts.so");
    let fixtures = checkout().join("tests/fixtures");
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-D_GNU_SOURCE", "-DTHREADS=1", "-shared", "-fPIC", "-pthread", "-o"]).arg(&library);
    cc.arg("-I").arg(&fixtures).arg(fixtures.join("lost_stores/libcounts.c"));
    let compiled = process::run(&mut cc, &directory.join("cc"), TIMEOUT).map_err(|error| format!("cc: {error}"))?;
    if compiled.outcome != Outcome::Exit(0) {
        return Err(compiled.to_string());
    }
    // It has numpy.
    let of_tests = checkout().join("target/test-python/bin/python3");
    let program = if of_tests.is_file() { of_tests } else { PathBuf::from("python3") };
    let Interpreter { mut command, _ring } = python_of(&program, stage, how)?;
    command.arg(checkout().join("tests/installed/threads.py")).arg(&library).arg(how.when());
    process::run(&mut command, &directory.join("python"), TIMEOUT).map(Ok).map_err(|error| format!("python3: {error}"))
}

fn loses_nothing(stage: &Stage, directory: &Path, how: How) -> Result<Completion, String> {
    match threaded(stage, directory, how)? {
        Err(reason) => Ok(Completion::ignored_with(reason)),
        Ok(finished) if finished.outcome == Outcome::Exit(42) && says_what_it_should(how, &finished.stderr) => {
            Ok(Completion::Completed)
        }
        Ok(finished) => Err(finished.to_string()),
    }
}

fn threads(stage: &Stage, directory: &Path) -> Result<Completion, String> {
    loses_nothing(stage, directory, How::Imported("late"))
}

fn threads_unstoppable(stage: &Stage, directory: &Path) -> Result<Completion, String> {
    loses_nothing(stage, directory, How::Unstoppable("late"))
}

fn threads_not_imported_dies(stage: &Stage, directory: &Path) -> Result<Completion, String> {
    match threaded(stage, directory, How::NotAtAll)? {
        Err(reason) => Ok(Completion::ignored_with(reason)),
        Ok(Finished { outcome: Outcome::Signal(7 | 11), .. }) => Ok(Completion::Completed),
        Ok(finished) => Err(format!("survived: {finished}")),
    }
}

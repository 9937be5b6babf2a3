//! Runs programs that this project did not write without and with the library, in both
//! modes. Their output must be the same, line by line.
//!
//! Every `*.sh` beside this file runs one of them and prints one line for each result,
//! without parts that differ from run to run anyway. Its first lines say what it needs
//! (`program.rs` has the reference). `make test` runs those that are quick and
//! installed; `make foreign` installs what is missing and runs all.

#[path = "../common/mod.rs"]
mod common;

mod differences;
mod program;

use std::env;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Completion, Failed, Trial};

use common::{library, suite};
use differences::unexpected;
use program::{MODES, Program};

/// If this variable is set, programs that take long are run as well; its value is not
/// read.
const EVERYTHING: &str = "SOPIN_EVERY_PROGRAM";

fn main() -> ExitCode {
    suite::run("foreign", trials, || {})
}

fn trials(directory: &Path) -> Result<Vec<Trial>, String> {
    let library = library::path()?;
    let mut trials = Vec::new();
    for program in program::all()? {
        let (directory, library) = (directory.join(&program.name), library.clone());
        let program = Arc::new(program);
        let name = program.name.clone();
        trials.push(Trial::ignorable_test(name, move || judge(&program, &directory, &library)));
    }
    trials.push(Trial::test("control_differences", differences_are_seen));
    Ok(trials)
}

fn differences_are_seen() -> Result<(), Failed> {
    let lines = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    for (with, complaints) in [("a b", 0), ("a c", 2), ("b a", 1), ("a", 1), ("a b b", 1)] {
        let found = unexpected("control", "full", &lines("a b"), &lines(with));
        if found.len() != complaints {
            return Err(format!("{with:?}: {found:?}").into());
        }
    }
    Ok(())
}

fn judge(program: &Program, directory: &Path, library: &Path) -> Result<Completion, Failed> {
    if !program.is_quick && env::var_os(EVERYTHING).is_none() {
        return Ok(Completion::ignored_with("make foreign runs it"));
    }
    if let Some(missing) = program.missing() {
        return Ok(Completion::ignored_with(missing));
    }
    let without = program.run(directory, None)?;
    if without.lines.len() < program.least {
        let said = without.lines.join("\n");
        return Err(
            format!("only {} results without the library:\n{said}\n{}", without.lines.len(), without.errors).into()
        );
    }
    let mut complaints = Vec::new();
    for mode in MODES {
        let with = program.run(directory, Some((library, mode)))?;
        complaints.extend(with.complaints(program, mode));
        complaints.extend(unexpected(&program.name, mode, &without.lines, &with.lines));
    }
    if complaints.is_empty() { Ok(Completion::Completed) } else { Err(complaints.join("\n").into()) }
}

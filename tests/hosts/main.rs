//! Real programs, with and without the library: the same output, a complete
//! census of what is pinned, and survival while every shared object of their
//! installation is rewritten in place. Each has negative controls: the same
//! program, unprotected, dies of the same rewriting.
//!
//! `make test` makes the installations (scripts/test-environments); without
//! one, its trials are ignored with the reason.

#[path = "../common/mod.rs"]
mod common;

mod census;
mod programs;
mod scenarios;

use std::fs;
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Completion, Trial};

use common::{process, scratch};
use programs::Program;
use scenarios::Scenario;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    match conclude(&arguments) {
        Ok(code) => code,
        Err(message) => {
            eprintln!("hosts: {message}");
            ExitCode::FAILURE
        }
    }
}

fn conclude(arguments: &Arguments) -> Result<ExitCode, String> {
    process::forbid_core_files().map_err(|error| format!("core files: {error}"))?;
    let run_directory = scratch::for_this_run("hosts").map_err(|error| error.to_string())?;
    let mut trials = Vec::new();
    for program in programs::all() {
        let program = Arc::new(program);
        for scenario in Scenario::all_for(&program) {
            let name = format!("{}::{scenario}", program.name);
            let (program, directory) = (Arc::clone(&program), run_directory.join(name.replace("::", ".")));
            trials.push(Trial::ignorable_test(name, move || try_one(&program, scenario, &directory)));
        }
    }
    let conclusion = libtest_mimic::run(arguments, trials);
    if !conclusion.has_failed() {
        fs::remove_dir_all(&run_directory).map_err(|error| error.to_string())?;
    }
    Ok(conclusion.exit_code())
}

fn try_one(
    program: &Program,
    scenario: Scenario,
    directory: &std::path::Path,
) -> Result<Completion, libtest_mimic::Failed> {
    if let Some(reason) = program.unmet_need() {
        return Ok(Completion::ignored_with(reason));
    }
    fs::create_dir(directory).map_err(|error| error.to_string())?;
    scenario.run(program, directory).map_err(|error| format!("{error}\nin {}", directory.display()))?;
    // Large, and only a failed trial's is worth looking at.
    fs::remove_dir_all(directory).map_err(|error| error.to_string())?;
    Ok(Completion::Completed)
}

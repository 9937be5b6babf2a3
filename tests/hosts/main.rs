//! Runs real programs with and without the library: they have the same output, a census
//! shows that every object is pinned, and they survive when every shared object of
//! their installation is rewritten in place. Each has negative controls: the same
//! program without protection dies of the same rewriting.
//!
//! `make test` makes the installations (scripts/test-environments). Trials without one
//! are ignored with the reason.

#[path = "../common/mod.rs"]
mod common;

mod census;
mod programs;
mod scenarios;

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Completion, Failed, Trial};

use common::suite;
use programs::Program;
use scenarios::Scenario;

/// A third of them wait for seconds until the store accepts a file.
const TRIALS_PER_PROCESSOR: usize = 2;

fn main() -> ExitCode {
    suite::run_overlapping(TRIALS_PER_PROCESSOR, "hosts", |run_directory| Ok(trials(run_directory)), || ())
}

fn trials(run_directory: &Path) -> Vec<Trial> {
    let mut trials = Vec::new();
    for program in programs::all() {
        let program = Arc::new(program);
        for scenario in Scenario::all_for(&program) {
            let name = format!("{}::{scenario}", program.name);
            let (program, directory) = (Arc::clone(&program), run_directory.join(name.replace("::", ".")));
            trials.push(Trial::ignorable_test(name, move || try_one(&program, scenario, &directory)));
        }
    }
    trials
}

fn try_one(program: &Program, scenario: Scenario, directory: &Path) -> Result<Completion, Failed> {
    if let Some(reason) = program.unmet_need() {
        return Ok(Completion::ignored_with(reason));
    }
    fs::create_dir(directory).map_err(|error| error.to_string())?;
    scenario.run(program, directory).map_err(|error| format!("{error}\nin {}", directory.display()))?;
    // The directory is large, and useful only if the trial failed.
    fs::remove_dir_all(directory).map_err(|error| error.to_string())?;
    Ok(Completion::Completed)
}

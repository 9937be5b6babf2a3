//! Test programs without the standard harness: a test that this machine cannot run is reported as
//! ignored, with the reason.

use std::process::ExitCode;

use libtest_mimic::{Completion, Trial};

use super::{at_once, missing};

/// A test, of the type of the functions that one program has.
#[derive(Clone)]
pub struct Case<T> {
    pub name: &'static str,
    /// Words of [`missing`].
    pub needs: &'static [&'static str],
    pub test: T,
}

/// Runs the cases that the command line selects. `try_one` calls a test, and returns a reason if
/// the machine cannot run it.
pub fn run<T: Copy + Send + 'static>(cases: Vec<Case<T>>, try_one: fn(T) -> Result<(), String>) -> ExitCode {
    run_at_once(None, cases, try_one)
}

/// Does so with several cases at a time on each processor, for those that mostly wait. `--test-threads` overrides it.
pub fn run_overlapping<T: Copy + Send + 'static>(
    cases_per_processor: usize,
    cases: Vec<Case<T>>,
    try_one: fn(T) -> Result<(), String>,
) -> ExitCode {
    run_at_once(Some(cases_per_processor), cases, try_one)
}

fn run_at_once<T: Copy + Send + 'static>(
    cases_per_processor: Option<usize>,
    cases: Vec<Case<T>>,
    try_one: fn(T) -> Result<(), String>,
) -> ExitCode {
    let complete = move |case: &Case<T>| match missing(case.needs).map_or_else(|| try_one(case.test), Err) {
        Ok(()) => Completion::Completed,
        Err(reason) => Completion::ignored_with(reason),
    };
    let trials = cases.into_iter().map(|case| Trial::ignorable_test(case.name, move || Ok(complete(&case)))).collect();
    libtest_mimic::run(&at_once::arguments(cases_per_processor), trials).exit_code()
}

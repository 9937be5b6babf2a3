//! `sopin status` on programs of other projects, in other places and as other users. A
//! test for which this machine has no program or rights is reported as ignored.

#![allow(clippy::needless_raw_string_hashes, reason = "snapbox writes snapshots so")]
#![allow(clippy::unnecessary_wraps, reason = "some tests find out only when they run that the machine cannot do it")]

#[path = "../common/mod.rs"]
mod common;
mod files;
mod layers;
mod loads;
mod places;
mod real;
mod sweeps;
mod users;

use std::process::ExitCode;

use common::missing;
use libtest_mimic::{Arguments, Completion, Trial};

#[derive(Clone)]
struct Case {
    name: &'static str,
    needs: &'static [&'static str],
    /// The test. It returns a reason if the machine cannot run it.
    test: fn() -> Result<(), String>,
}

fn main() -> ExitCode {
    let cases =
        [files::CASES, layers::CASES, loads::CASES, places::CASES, real::CASES, sweeps::CASES, users::CASES].concat();
    let trials = cases.into_iter().map(|case| Trial::ignorable_test(case.name, move || Ok(try_one(&case)))).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn try_one(case: &Case) -> Completion {
    match missing(case.needs).map_or_else(case.test, Err) {
        Ok(()) => Completion::Completed,
        Err(reason) => Completion::ignored_with(reason),
    }
}

//! `sopin status` on programs of other people, in other places and as other users.
//! What this machine has no program or rights for is reported as ignored.

#![allow(clippy::needless_raw_string_hashes, reason = "snapbox writes snapshots so")]
#![allow(clippy::unnecessary_wraps, reason = "other circumstances turn out not to be given")]

#[path = "../common/mod.rs"]
mod common;
mod loads;
mod places;
mod real;
mod sweeps;
mod users;

use std::process::ExitCode;

use common::missing;
use libtest_mimic::{Arguments, Completion, Trial};

/// A circumstance.
#[derive(Clone)]
struct Case {
    name: &'static str,
    needs: &'static [&'static str],
    /// The reason if the machine turns out not to be able to.
    test: fn() -> Result<(), String>,
}

fn main() -> ExitCode {
    let cases = [loads::CASES, places::CASES, real::CASES, sweeps::CASES, users::CASES].concat();
    let trials = cases.into_iter().map(|case| Trial::ignorable_test(case.name, move || Ok(try_one(&case)))).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn try_one(case: &Case) -> Completion {
    match missing(case.needs).map_or_else(case.test, Err) {
        Ok(()) => Completion::Completed,
        Err(reason) => Completion::ignored_with(reason),
    }
}

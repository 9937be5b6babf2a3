//! Programs of each kind: the warnings of `sopin run`, which runs them all the same,
//! and the output of `sopin check`, which does not run them. A kind for which this
//! machine has no compiler or rights is reported as ignored.

#![allow(clippy::needless_raw_string_hashes, reason = "snapbox writes snapshots so")]

#[path = "../common/mod.rs"]
mod common;
mod files;
mod loaders;
mod privileges;
mod scripts;

use std::process::ExitCode;

use common::{Installation, missing};
use libtest_mimic::{Arguments, Completion, Trial};
use snapbox::cmd::OutputAssert;

/// A kind of program.
#[derive(Clone)]
struct Case {
    name: &'static str,
    needs: &'static [&'static str],
    test: fn(&Installation),
}

fn main() -> ExitCode {
    let cases = [files::CASES, loaders::CASES, privileges::CASES, scripts::CASES].concat();
    let trials = cases.into_iter().map(|case| Trial::ignorable_test(case.name, move || Ok(try_one(&case)))).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn try_one(case: &Case) -> Completion {
    if let Some(reason) = missing(case.needs) {
        return Completion::ignored_with(reason);
    }
    (case.test)(&Installation::new());
    Completion::Completed
}

fn run(installation: &Installation, command: &[&str]) -> OutputAssert {
    installation.sopin().args(["run", "--"]).args(command).assert()
}

fn check(installation: &Installation, command: &[&str]) -> OutputAssert {
    installation.sopin().args(["check", "--"]).args(command).assert()
}

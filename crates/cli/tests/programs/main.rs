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

use common::{Installation, cases};
use snapbox::cmd::OutputAssert;

/// A kind of program.
type Case = cases::Case<fn(&Installation)>;

fn main() -> ExitCode {
    cases::run([files::CASES, loaders::CASES, privileges::CASES, scripts::CASES].concat(), |test| {
        test(&Installation::new());
        Ok(())
    })
}

fn run(installation: &Installation, command: &[&str]) -> OutputAssert {
    installation.sopin().args(["run", "--"]).args(command).assert()
}

fn check(installation: &Installation, command: &[&str]) -> OutputAssert {
    installation.sopin().args(["check", "--"]).args(command).assert()
}

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

use common::cases;

/// A test returns a reason if it finds out only when it runs that the machine cannot do it.
type Case = cases::Case<fn() -> Result<(), String>>;

fn main() -> ExitCode {
    let cases =
        [files::CASES, layers::CASES, loads::CASES, places::CASES, real::CASES, sweeps::CASES, users::CASES].concat();
    cases::run(cases, |test| test())
}

//! `sopin watch --pin`: processes survive what is written to the files of their objects, although
//! nobody started them with the library, because they are pinned before the file is opened for
//! writing; and nobody waits longer than promised, whatever becomes of the watch. Each test has its control:
//! the same without the watch.

#![allow(clippy::unnecessary_wraps, reason = "some tests find out only when they run that the machine cannot do it")]

mod bounds;
#[path = "../common/mod.rs"]
mod common;
mod company;
mod ends;
mod rewriters;
mod watching;

use std::process::ExitCode;

use common::cases;

/// A test returns a reason if it finds out only when it runs that the machine cannot do it.
type Case = cases::Case<fn() -> Result<(), String>>;

fn main() -> ExitCode {
    let cases = [bounds::CASES, company::CASES, ends::CASES, rewriters::CASES].concat();
    cases::run(cases, |test| test())
}

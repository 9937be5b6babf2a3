//! `sopin watch` beside real processes whose libraries real programs rewrite. A test that needs root's
//! rights is reported as ignored without them.

#[path = "../common/mod.rs"]
mod common;
mod endings;
mod floods;
mod outputs;
mod quiet;
mod rewriters;
mod unit;
mod users;
mod watcher;

use std::process::ExitCode;

use common::cases;

type Case = cases::Case<fn()>;

fn main() -> ExitCode {
    let all =
        [endings::CASES, floods::CASES, outputs::CASES, quiet::CASES, rewriters::CASES, unit::CASES, users::CASES];
    cases::run(all.concat(), |test| {
        test();
        Ok(())
    })
}

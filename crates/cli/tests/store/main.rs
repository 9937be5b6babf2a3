//! `sopin store` on stores that real programs have filled.

#![allow(clippy::needless_raw_string_hashes, reason = "snapbox writes snapshots so")]

#[path = "../common/mod.rs"]
mod common;
mod listing;
mod places;
mod pruning;
mod scene;
mod system;
mod verifying;

use std::process::ExitCode;

use common::cases;

type Case = cases::Case<fn()>;

/// Nearly all wait for seconds until the library copies files that have just been made.
const CASES_PER_PROCESSOR: usize = 4;

fn main() -> ExitCode {
    let all = [listing::CASES, places::CASES, pruning::CASES, system::CASES, verifying::CASES];
    cases::run_overlapping(CASES_PER_PROCESSOR, all.concat(), |test| {
        test();
        Ok(())
    })
}

//! The frame of a test program that makes its trials itself: a directory for this run,
//! which is kept for inspection if a trial has failed.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

use super::{process, scratch};

/// Runs the trials that `make` makes in the run's directory, as the command line says.
/// Calls `clean_up` when all trials are over and the directory still exists.
pub fn run(purpose: &str, make: impl FnOnce(&Path) -> Result<Vec<Trial>, String>, clean_up: impl FnOnce()) -> ExitCode {
    let arguments = Arguments::from_args();
    let conclude = || {
        process::forbid_core_files().map_err(|error| format!("core files: {error}"))?;
        let directory = scratch::for_this_run(purpose).map_err(|error| error.to_string())?;
        let conclusion = libtest_mimic::run(&arguments, make(&directory)?);
        clean_up();
        if !conclusion.has_failed() {
            fs::remove_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        }
        Ok(conclusion.exit_code())
    };
    conclude().unwrap_or_else(|message: String| {
        eprintln!("{purpose}: {message}");
        ExitCode::FAILURE
    })
}

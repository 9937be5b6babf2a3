//! The frame of a test program that makes its trials itself: a directory for this run,
//! which is kept for inspection if a trial has failed, and the number of trials at a time.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::Trial;

use super::{at_once, process, scratch};

/// Runs the trials that `make` makes in the run's directory, as the command line says.
/// Calls `clean_up` when all trials are over and the directory still exists.
pub fn run(purpose: &str, make: impl FnOnce(&Path) -> Result<Vec<Trial>, String>, clean_up: impl FnOnce()) -> ExitCode {
    run_at_once(None, purpose, make, clean_up)
}

/// Does so with several trials at a time on each processor, for trials that mostly wait: until the store accepts
/// a file that has changed, or until a program that hangs is given up. `--test-threads` overrides it.
pub fn run_overlapping(
    trials_per_processor: usize,
    purpose: &str,
    make: impl FnOnce(&Path) -> Result<Vec<Trial>, String>,
    clean_up: impl FnOnce(),
) -> ExitCode {
    run_at_once(Some(trials_per_processor), purpose, make, clean_up)
}

fn run_at_once(
    trials_per_processor: Option<usize>,
    purpose: &str,
    make: impl FnOnce(&Path) -> Result<Vec<Trial>, String>,
    clean_up: impl FnOnce(),
) -> ExitCode {
    let arguments = at_once::arguments(trials_per_processor);
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

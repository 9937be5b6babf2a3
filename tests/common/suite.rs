//! The frame of a test program that makes its trials itself: a directory for this run,
//! which is kept for inspection if a trial has failed, and the number of trials at a time.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::thread::available_parallelism;

use libtest_mimic::{Arguments, Trial};

use super::{process, scratch};

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
    let threads = available_parallelism().map_or(1, usize::from) * trials_per_processor;
    run_at_once(Some(threads), purpose, make, clean_up)
}

/// Runs the trials with this number of threads; with `None`, one for each processor.
fn run_at_once(
    threads: Option<usize>,
    purpose: &str,
    make: impl FnOnce(&Path) -> Result<Vec<Trial>, String>,
    clean_up: impl FnOnce(),
) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(threads);
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

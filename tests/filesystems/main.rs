//! One library on every file system that this machine offers, changed in place
//! under the process that uses it, and the changes that are harmless anyway.
//! How a truncation reaches the pages of a mapping, and which device and inode
//! the kernel shows for it, is each file system's own business.

#[path = "../common/mod.rs"]
mod common;

mod places;
mod trials;

use std::fs;
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use common::{process, scratch};
use trials::Verdict;

fn main() -> ExitCode {
    places::enter_namespace();
    let arguments = Arguments::from_args();
    match conclude(&arguments) {
        Ok(code) => code,
        Err(message) => {
            eprintln!("filesystems: {message}");
            ExitCode::FAILURE
        }
    }
}

fn conclude(arguments: &Arguments) -> Result<ExitCode, String> {
    process::forbid_core_files().map_err(|error| format!("core files: {error}"))?;
    let run_directory = scratch::for_this_run("filesystems").map_err(|error| error.to_string())?;
    let victim = run_directory.join("victim");
    trials::compile("victim.c", &victim)?;

    let mut trials = Vec::new();
    let places: Vec<_> = places::all().into_iter().map(Arc::new).collect();
    for place in &places {
        for case in trials::all_for(place) {
            let name = format!("{}::{case}", place.name);
            let (place, scratch, victim) = (Arc::clone(place), run_directory.clone(), victim.clone());
            trials.push(Trial::ignorable_test(name, move || judge(case.run(&place, &scratch, &victim))));
        }
    }
    let conclusion = libtest_mimic::run(arguments, trials);
    for place in &places {
        place.unmount();
    }
    if !conclusion.has_failed() {
        fs::remove_dir_all(&run_directory).map_err(|error| format!("{}: {error}", run_directory.display()))?;
    }
    Ok(conclusion.exit_code())
}

fn judge(result: Result<Verdict, String>) -> Result<Completion, Failed> {
    match result? {
        Verdict::Passed => Ok(Completion::Completed),
        Verdict::NotHere(reason) => Ok(Completion::ignored_with(reason)),
    }
}

//! Changes one library in place on every file system that this machine offers, while a
//! process uses it, and makes the changes that are always harmless. File systems differ
//! in how a truncation affects the pages of a mapping, and in which device and inode
//! the kernel shows for it.

#[path = "../common/mod.rs"]
mod common;

mod places;
mod trials;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Completion, Failed, Trial};

use common::suite;
use places::Place;
use trials::Verdict;

/// Those with a store wait for seconds until it accepts a file.
const TRIALS_PER_PROCESSOR: usize = 4;

fn main() -> ExitCode {
    places::enter_namespace();
    let places: Vec<_> = places::all().into_iter().map(Arc::new).collect();
    suite::run_overlapping(
        TRIALS_PER_PROCESSOR,
        "filesystems",
        |run_directory| trials(&places, run_directory),
        || places.iter().for_each(|place| place.unmount()),
    )
}

fn trials(places: &[Arc<Place>], run_directory: &Path) -> Result<Vec<Trial>, String> {
    let victim = run_directory.join("victim");
    trials::compile("victim.c", &victim)?;
    let mut trials = Vec::new();
    for place in places {
        for case in trials::all_for(place) {
            let name = format!("{}::{case}", place.name);
            let (place, scratch, victim) = (Arc::clone(place), run_directory.to_owned(), victim.clone());
            trials.push(Trial::ignorable_test(name, move || judge(case.run(&place, &scratch, &victim))));
        }
    }
    Ok(trials)
}

fn judge(result: Result<Verdict, String>) -> Result<Completion, Failed> {
    match result? {
        Verdict::Passed => Ok(Completion::Completed),
        Verdict::NotHere(reason) => Ok(Completion::ignored_with(reason)),
    }
}

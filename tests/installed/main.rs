//! Does what a user does: installs, compiles with the installed files, and copies a
//! file from `examples/`. Every example is tried, with a negative control if it
//! promises immunity. What this machine cannot try is ignored with the reason.

#[path = "../common/mod.rs"]
mod common;

mod deploying;
mod deployments;
mod programs;
mod python;
mod stage;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Completion, Failed, Trial};

use common::suite;
use stage::Stage;

/// The function of a trial. It receives the staged installation and a directory of its
/// own.
type Try = fn(&Stage, &Path) -> Result<Completion, String>;

fn main() -> ExitCode {
    suite::run("installed", |run_directory| Ok(trials(run_directory)), || ())
}

fn trials(run_directory: &Path) -> Vec<Trial> {
    let stage = Arc::new(Stage::new(run_directory.join("stage")));
    let all: [&[(&str, Try)]; 5] =
        [stage::TRIALS, programs::TRIALS, python::TRIALS, deployments::TRIALS, deploying::TRIALS];
    let trial = |(name, try_one): &(&'static str, Try)| {
        let (stage, try_one) = (Arc::clone(&stage), *try_one);
        let directory = run_directory.join(name.replace("::", "."));
        Trial::ignorable_test(*name, move || {
            std::fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
            try_one(&stage, &directory).map_err(|error| Failed::from(format!("{error}\nin {}", directory.display())))
        })
    };
    all.into_iter().flatten().map(trial).collect()
}

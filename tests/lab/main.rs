//! A laboratory of machines in QEMU, for tests that need a kernel of their own, or a
//! reset.
//!
//! `resets` fills stores and resets the machine meanwhile; what runs after that must
//! run correctly. `verity` checks that the copies in a store are sealed if the file
//! system can do that. `systems` runs suites on other kernels and on aarch64, `results`
//! stores their results in tests/lab/results, and `table` makes docs/lab.md from all of
//! them. `roots` runs the same suites beside other C libraries, on this machine's kernel.
//! The machines run one after the other, because each takes a whole CPU.
//!
//! `SOPIN_RESETS` is the number of resets (3). `make resets` does 50 and makes
//! docs/power-loss.md anew from `target/lab/resets.md`, which this test writes.
//! `SOPIN_LAB` names the systems of `systems` and `roots` in which suites run, and whose
//! results are stored. Without it, suites run in the roots that exist, and no result is
//! stored. `SOPIN_WRITE_TABLE` writes docs/lab.md.
//! `SOPIN_TEST_LIBRARY` names another library to try. Nothing here needs root.

#[path = "../common/mod.rs"]
mod common;

mod console;
mod emulator;
mod machine;
mod page;
mod resets;
mod results;
mod roots;
mod systems;
mod table;
mod verity;

use std::env;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::{Completion, Failed, Trial};

use common::suite;
use machine::Laboratory;

/// The function of a trial, which is called when the laboratory has been built.
type Run = Box<dyn FnOnce(&Laboratory) -> Result<(), String> + Send>;

/// The number of resets in an ordinary run of the tests: one of each kind.
const FEW_RESETS: usize = 3;

fn main() -> ExitCode {
    suite::run("lab", trials, || {})
}

fn trials(run_directory: &Path) -> Result<Vec<Trial>, String> {
    let resets = match env::var("SOPIN_RESETS") {
        Ok(number) => number.parse().map_err(|error| format!("SOPIN_RESETS={number}: {error}"))?,
        Err(_) => FEW_RESETS,
    };
    // The first trial that runs makes the system, so a run that only lists the trials
    // makes nothing.
    let laboratory = Arc::new(Mutex::new(Laboratory::new(run_directory)));
    let mut trials = systems::trials(run_directory, &laboratory);
    trials.extend(roots::trials(run_directory));
    trials.push(Trial::test("table::the_page_is_that_of_the_results", || table::compare().map_err(Failed::from)));
    let trial = |name: &str, run: Run| {
        let laboratory = Arc::clone(&laboratory);
        Trial::ignorable_test(name, move || {
            let mut laboratory = laboratory.lock().unwrap_or_else(PoisonError::into_inner);
            match laboratory.build()? {
                None => run(&laboratory).map(|()| Completion::Completed).map_err(Failed::from),
                Some(missing) => Ok(Completion::ignored_with(missing)),
            }
        })
    };
    trials.extend([
        trial("resets::no_program_gets_a_wrong_byte", Box::new(move |laboratory| resets::run(laboratory, resets))),
        trial("verity::copies_are_sealed", Box::new(verity::copies_are_sealed)),
        trial("verity::without_it_copies_can_be_truncated", Box::new(verity::control)),
    ]);
    Ok(trials)
}

//! Installs what is published as its users do, in minimal installations of Debian: the packages
//! contain what they should, upgrades and removals harm no running program, and the quick start
//! works where no compiler is.
//!
//! The trials use what `make dist` or `scripts/dist-packages` has put into `target/packages`,
//! and the roots of `scripts/package-roots`. What is missing is ignored with the reason.
//!
//! | module | responsible for |
//! |---|---|
//! | [`package`] | the packages: their names, their files, unpacking them |
//! | [`contents`] | what is in them |
//! | [`tools`] | what lintian, rpmlint and the shells say of them |
//! | [`sums`] | `SHA256SUMS` and the list of components |
//! | [`root`] | an installation of Debian for one trial, and programs that run in it |
//! | [`quick_start`] | from nothing to a protected program |
//! | [`upgrades`] | upgrades and removals under a running program |
//! | [`store`] | the triggers that fill the system's store, and its removal |

#[path = "../common/mod.rs"]
mod common;

mod contents;
mod package;
mod quick_start;
mod root;
mod store;
mod sums;
mod tools;
mod upgrades;

use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::{Completion, Failed, Trial};

use common::suite;

/// What a trial does. It receives a directory of its own, which exists.
type Try = Box<dyn FnOnce(&Path) -> Result<Completion, String> + Send>;

fn main() -> ExitCode {
    suite::run("packages-tests", |run_directory| Ok(trials(run_directory)), || ())
}

fn trials(run_directory: &Path) -> Vec<Trial> {
    let all = [
        contents::trials(),
        tools::trials(),
        sums::trials(),
        quick_start::trials(),
        upgrades::trials(),
        store::trials(),
    ];
    let trial = |(name, try_it): (String, Try)| {
        let directory = run_directory.join(name.replace("::", "."));
        Trial::ignorable_test(name, move || {
            std::fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
            try_it(&directory).map_err(|error| Failed::from(format!("{error}\nin {}", directory.display())))
        })
    };
    all.into_iter().flatten().map(trial).collect()
}

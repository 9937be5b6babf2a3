//! Starts a service by the programs that start services on real machines, with the files of
//! `examples/`, and rewrites the plugin that the service has loaded: the service lives on. Without
//! the library's lines in these files it dies.
//!
//! The managers are the real programs: systemd as process 1, `OpenRC`, runit, supervisor, two crons.
//! Each runs in a root of its own: an overlay over this machine's root, in namespaces.

#[path = "../common/mod.rs"]
mod common;

mod managers;
mod root;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::thread;

use libtest_mimic::{Completion, Failed, Trial};

use common::needs::Need;
use common::{library, protection, suite};
use managers::{ALL, Manager};

/// The managers mostly wait: for their services, and for periods of their own.
const TRIALS_PER_PROCESSOR: usize = 4;

fn main() -> ExitCode {
    suite::run_overlapping(TRIALS_PER_PROCESSOR, "services", |run_directory| Ok(trials(run_directory)), || ())
}

/// Returns the needs of every trial: what makes the roots.
fn unmet(words: &[&str]) -> Option<String> {
    let all = ["root", "namespaces", "cmd:chroot", "cmd:timeout", "filesystem:overlay"];
    let mut needs = all.iter().chain(words).map(|word| word.parse::<Need>());
    needs.find_map(|need| need.map_or_else(Some, |need| need.unmet()))
}

fn trials(run_directory: &Path) -> Vec<Trial> {
    let built = run_directory.join("built");
    // The programs are compiled once, by the first trial that is not ignored.
    let programs = Arc::new(std::sync::OnceLock::<Result<PathBuf, String>>::new());
    let trial = |manager: &'static Manager| {
        let (programs, built) = (Arc::clone(&programs), built.clone());
        let directory = run_directory.join(manager.name.replace("::", "."));
        Trial::ignorable_test(manager.name, move || {
            if let Some(reason) = unmet(manager.needs) {
                return Ok(Completion::ignored_with(reason));
            }
            let programs = programs.get_or_init(|| build(&built)).clone()?;
            manager
                .try_it(&programs, &directory)
                .map_err(|error| Failed::from(format!("{error}\nin {}", directory.display())))?;
            Ok(Completion::Completed)
        })
    };
    let mut trials: Vec<_> = ALL.iter().map(trial).collect();
    trials.push(Trial::ignorable_test("systemd::is_a_sandbox", move || match unmet(&["cmd:systemd-analyze"]) {
        Some(reason) => Ok(Completion::ignored_with(reason)),
        None => managers::is_a_sandbox().map_err(Failed::from),
    }));
    trials
}

/// Compiles the service and its plugin, and waits until the store accepts the plugin.
fn build(directory: &Path) -> Result<PathBuf, String> {
    fs::create_dir_all(directory).map_err(|error| error.to_string())?;
    let service = library::checkout().join("tests/services/service.c");
    let plugin = library::checkout().join("examples/c/plugin.c");
    let builds = [("service", service, &["-ldl"][..]), ("plugin.so", plugin, &["-shared", "-fPIC"])];
    for (output, source, flags) in builds {
        let mut command = Command::new("cc");
        command.args(["-O2", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-o"]).arg(directory.join(output));
        let compiled = command.arg(source).args(flags).output().map_err(|error| format!("cc: {error}"))?;
        if !compiled.status.success() {
            return Err(String::from_utf8_lossy(&compiled.stderr).into_owned());
        }
    }
    thread::sleep(protection::SETTLING_TIME);
    Ok(directory.to_owned())
}

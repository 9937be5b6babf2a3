//! Pins running programs from outside, by `sopin pin`: they survive what happens to the files of
//! their objects afterwards, and notice nothing of the stop. Programs that do not survive, or
//! that notice something, are the controls.
//!
//! | module | what is shown |
//! |---|---|
//! | [`counters`] | no store is lost |
//! | [`calls`] | blocking system calls return what they would have returned |
//! | [`moments`] | a stop comes when it does little harm to calls, and reports what it does |
//! | [`killed`] | the process survives the end of the tracer at any instant |
//! | [`events`] | a process that ends, forks or executes meanwhile is not held, and holds nothing |
//! | [`signals`] | a process that is stopped by a signal meanwhile stays stopped |
//! | [`states`] | processes under filters, limits, other users, stopped, traced, in namespaces |
//! | [`again`] | further pins, later loads, children, processes that have the library |
//! | [`files`] | objects whose files are gone or other ones, or that are unusual |
//! | [`subvolumes`] | two files that have the same numbers in the mappings |
//! | [`frozen`] | processes that the freezer of cgroups has frozen |
//! | [`in_kernel`] | threads that the kernel has made, and such as do not stop |
//! | [`servers`] | a file whose server does not answer |
//! | [`bounds`] | there is an end to what a process can make the command read and copy |
//! | [`priority`] | which thread makes the system calls |
//! | [`stores`] | which processes map copies of the store |
//! | [`processor`] | restartable sequences and registers; a list of objects that changes |
//! | [`programs`] | Python and Node.js, with everything that they have loaded rewritten |
//! | [`services`] | `PostgreSQL`, a JVM and other services, with the same, while clients check every answer |
//! | [`tools`] | debuggers and profilers find names, and the store knows who uses it |
//!
//! `SOPIN_PINS` is the number of pins of each trial that repeats them, as in `make pin-torture`.

#[path = "../common/mod.rs"]
mod common;
#[allow(dead_code, reason = "the trials of tests/hosts use the rest")]
#[path = "../hosts/programs.rs"]
mod hosts;

mod again;
mod bounds;
mod builds;
mod calls;
mod command;
mod counters;
mod events;
mod files;
mod frozen;
mod in_kernel;
mod killed;
mod memory;
mod moments;
mod priority;
mod processor;
mod programs;
mod servers;
mod services;
mod signals;
mod states;
mod stores;
mod subject;
mod subvolumes;
mod tasks;
mod tools;
mod untouched;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::{Completion, Failed, Trial};

use common::builds::to_make;
use common::needs::Need;
use common::{process, suite};

fn main() -> ExitCode {
    suite::run("pin", trials, || ())
}

/// What the trials of this run have in common.
pub struct Run {
    directory: PathBuf,
    built: PathBuf,
}

impl Run {
    /// Returns a program or library that was built.
    fn built(&self, name: &str) -> PathBuf {
        self.built.join(name)
    }
}

type RunCase = dyn Fn(&Run, &Path) -> Result<Completion, String> + Send + Sync;

/// A trial: its name, its needs, and what it does in a directory of its own.
pub struct Case {
    name: String,
    needs: Vec<&'static str>,
    run: Box<RunCase>,
}

impl Case {
    fn new(name: impl Into<String>, run: impl Fn(&Run, &Path) -> Result<(), String> + Send + Sync + 'static) -> Self {
        let run = move |common: &Run, own: &Path| run(common, own).map(|()| Completion::Completed);
        Self { name: name.into(), needs: Vec::new(), run: Box::new(run) }
    }

    /// Makes a trial that can find out that this machine cannot run it.
    fn ignorable(
        name: impl Into<String>,
        run: impl Fn(&Run, &Path) -> Result<Completion, String> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), needs: Vec::new(), run: Box::new(run) }
    }

    fn with_needs(self, needs: &[&'static str]) -> Self {
        Self { needs: needs.to_vec(), ..self }
    }
}

/// Numbers that differ from run to run.
struct Random(u64);

impl Random {
    fn new() -> Self {
        Self(u64::from(std::process::id()))
    }

    /// Returns the next number, which is below this one.
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Returns how many pins a trial makes: this many, or what `SOPIN_PINS` says.
fn pins(short: usize) -> usize {
    env::var("SOPIN_PINS").ok().and_then(|number| number.parse().ok()).unwrap_or(short)
}

/// Returns a limit of time as it is for the processors of this machine, which may be emulated.
fn limit(time: Duration) -> Duration {
    // A value that is not a number makes no trial: see `trials`.
    time * process::patience().unwrap_or(1)
}

/// Returns the time for one process, on a machine that has other work.
fn patience() -> Duration {
    limit(Duration::from_secs(120 + pins(0) as u64))
}

fn trials(run_directory: &Path) -> Result<Vec<Trial>, String> {
    process::patience()?;
    if let Some(all) = to_make() {
        return Ok(vec![Trial::test("builds", move || builds::make_finished(&all).map_err(Failed::from))]);
    }
    let own = run_directory.join("built");
    fs::create_dir(&own).map_err(|error| format!("{}: {error}", own.display()))?;
    let built = builds::in_directory(own)?;
    let run = Arc::new(Run { directory: run_directory.to_owned(), built });
    let cases = [
        counters::cases(),
        calls::cases(),
        moments::cases(),
        killed::cases(),
        events::cases(),
        signals::cases(),
        states::cases(),
        bounds::cases(),
        priority::cases(),
        stores::cases(),
        untouched::cases(),
        again::cases(),
        files::cases(),
        subvolumes::cases(),
        frozen::cases(),
        in_kernel::cases(),
        servers::cases(),
        processor::cases(),
        programs::cases(),
        services::cases(),
        tools::cases(),
    ];
    Ok(cases.into_iter().flatten().map(|case| trial(case, Arc::clone(&run))).collect())
}

fn trial(case: Case, run: Arc<Run>) -> Trial {
    Trial::ignorable_test(case.name.clone(), move || {
        for need in &case.needs {
            if let Some(reason) = need.parse::<Need>()?.unmet() {
                return Ok(Completion::ignored_with(reason));
            }
        }
        let own = run.directory.join(case.name.replace("::", "."));
        fs::create_dir(&own)?;
        (case.run)(&run, &own).map_err(|error| Failed::from(format!("{error}\nin {}", own.display())))
    })
}

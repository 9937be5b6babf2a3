//! Real programs die in known ways, the kernel writes their cores, and `sopin explain` has to say of
//! each whether a file that was rewritten in place has killed the program. There are as many that
//! have died of something else, in the same function and at the same kinds of addresses.
//!
//! | module | responsible for |
//! |---|---|
//! | [`cores`] | a program whose death leaves a core |
//! | [`hosts`] | the programs and their plug-ins |
//! | [`damage`] | what happens to the file of the plug-in |
//! | [`cases`] | the table of cases |
//! | [`gunicorn`] | the crash with which this project began |
//! | [`own`] | what programs do themselves, and the libraries that they really use |
//! | [`variants`] | the same core, which reaches the command in other ways |
//! | [`liars`] | cores that lie |
//! | [`dump`] | a core in parts that a trial may change |
//! | [`page`] | the table of verdicts in docs/explain.md |
//! | [`explained`] | the command and its verdict |
//!
//! A core is removed when its trial is over; after a trial that has failed it stays in
//! `target/crashes`.

#[path = "../common/mod.rs"]
mod common;
#[allow(dead_code, reason = "the trials of tests/hosts use the rest")]
#[path = "../hosts/programs.rs"]
mod real;

mod cases;
mod cores;
mod damage;
mod dump;
mod explained;
mod gunicorn;
mod hosts;
mod liars;
mod own;
mod page;
mod variants;

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Completion, Failed, Trial};

use common::suite;
use hosts::{Builds, Host};
use page::Page;

fn main() -> ExitCode {
    let page = Arc::new(Page::default());
    let written = Arc::clone(&page);
    let code = suite::run("crashes", |directory| trials(directory, &page), || ());
    match written.write() {
        Ok(()) => code,
        Err(message) => {
            eprintln!("crashes: {message}");
            ExitCode::FAILURE
        }
    }
}

/// The trials, each of which has a directory of its own.
struct Trials<'a> {
    run_directory: &'a Path,
    all: Vec<Trial>,
}

impl Trials<'_> {
    /// Adds a trial, which is ignored if `unmet_need` has a reason.
    fn add(
        &mut self,
        name: String,
        unmet_need: impl FnOnce() -> Option<String> + Send + 'static,
        test: impl FnOnce(&Path) -> Result<(), String> + Send + 'static,
    ) {
        let directory = self.run_directory.join(name.replace("::", "."));
        self.all.push(Trial::ignorable_test(name, move || match cores::unmet_need().or_else(unmet_need) {
            Some(reason) => Ok(Completion::ignored_with(reason)),
            None => in_directory(&directory, || test(&directory)),
        }));
    }
}

fn trials(run_directory: &Path, page: &Arc<Page>) -> Result<Vec<Trial>, String> {
    let builds = Arc::new(Builds::new(run_directory.join("builds"))?);
    let mut trials = Trials { run_directory, all: Vec::new() };
    for host in Host::ALL {
        for way in cases::all() {
            let (builds, page) = (Arc::clone(&builds), Arc::clone(page));
            trials.add(
                format!("{host}::{}", way.name()),
                move || host.unmet_need(),
                move |directory| page.check(way.description, host, way.try_on(host, &builds, directory)?),
            );
        }
    }
    for own in own::ALL {
        let builds = Arc::clone(&builds);
        trials.add(
            format!("own::{}", own.name),
            || own.host.unmet_need(),
            move |directory| (own.test)(&builds, directory),
        );
    }
    for program in own::programs() {
        let program = Arc::new(program);
        let needed = Arc::clone(&program);
        trials.add(
            format!("own::{}", program.name),
            move || needed.unmet_need(),
            move |directory| own::real(&program, directory),
        );
    }
    trials.add("gunicorn::under_load".to_owned(), gunicorn::unmet_need, gunicorn::dies_under_load);
    trials.add("gunicorn::idle".to_owned(), gunicorn::unmet_need, gunicorn::dies_after_an_idle_moment);
    for variant in variants::ALL {
        let builds = Arc::clone(&builds);
        trials.add(
            format!("variants::{}", variant.name),
            || variant.unmet_need(),
            move |directory| (variant.test)(&builds, directory),
        );
    }
    for liar in liars::ALL {
        let builds = Arc::clone(&builds);
        trials.add(
            format!("liars::{}", liar.name),
            || liar.unmet_need(),
            move |directory| liar.run(&builds, directory),
        );
    }
    trials.all.push(Trial::test("page::has_every_way", || Ok(page::has_every_way()?)));
    Ok(trials.all)
}

/// Runs a trial in a new directory, which stays if the trial fails.
fn in_directory(directory: &Path, trial: impl FnOnce() -> Result<(), String>) -> Result<Completion, Failed> {
    fs::create_dir(directory).map_err(|error| error.to_string())?;
    trial().map_err(|error| format!("{error}\nin {}", directory.display()))?;
    fs::remove_dir_all(directory).map_err(|error| error.to_string())?;
    Ok(Completion::Completed)
}

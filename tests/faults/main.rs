//! Makes every system call of the library fail, one at a time, at every occurrence,
//! with every error that its manual page lists: at startup, in the early pin, in
//! `dlopen`, `dlmopen` and `dlclose`, around `fork`, while the store is filled, and
//! when it has all copies. Whatever fails, the host's output is the same as without the
//! library, every byte of every segment is unchanged, and an object that was left is
//! reported with the error. In further trials, a seccomp filter kills for each of these
//! calls that the host itself does not need; the host survives.
//!
//! `make test` tries one error at a sixth of the occurrences, and filters in some
//! scenarios. `make faults` tries everything, and writes the table `target/faults.md`
//! and its summary, docs/faults.md.

#[path = "../common/mod.rs"]
mod common;

mod calls;
mod judge;
mod run;
mod scenarios;
mod summary;

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::{Arguments, Failed, Trial};

use common::directives::PASSED;
use common::needs::Need;
use common::process::Outcome;
use common::{library, process, scratch};
use judge::Reference;
use run::{Bench, Fault};
use scenarios::Scenario;
use summary::Summary;

/// If this variable is set, every error is tried at every occurrence; its value is not
/// read.
const EVERYTHING: &str = "SOPIN_EVERY_FAULT";
/// A trial ends after so many failures; further ones would hardly help its reader.
const MAX_FAILURES: usize = 12;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    match conclude(&arguments) {
        Ok(code) => code,
        Err(message) => {
            eprintln!("faults: {message}");
            ExitCode::FAILURE
        }
    }
}

fn conclude(arguments: &Arguments) -> Result<ExitCode, String> {
    process::forbid_core_files().map_err(|error| format!("core files: {error}"))?;
    let is_complete = env::var_os(EVERYTHING).is_some();
    let needs = [Need::Glibc, Need::Kernel(5, 3)];
    if let Some(reason) = needs.iter().find_map(Need::unmet) {
        println!("faults: skipped, {reason}");
        return Ok(ExitCode::SUCCESS);
    }
    let library = library::path()?;
    let run_directory = scratch::for_this_run("faults").map_err(|error| error.to_string())?;
    let bench = Arc::new(Bench::new(&run_directory)?);
    let summary = Arc::new(Mutex::new(Summary::default()));

    let mut trials = Vec::new();
    for scenario in scenarios::ALL {
        let (bench, summary, library) = (Arc::clone(&bench), Arc::clone(&summary), library.clone());
        trials.push(Trial::test(scenario.name, move || {
            let seen = try_all(&bench, scenario, &library, is_complete)?;
            summary.lock().unwrap_or_else(PoisonError::into_inner).extend(seen);
            Ok(())
        }));
    }
    let for_control = Arc::clone(&bench);
    trials.push(Trial::test("control_meddled", move || notices_wrong_bytes(&for_control)));
    trials.push(Trial::test("control_silent", move || notices_silence(&bench, &library)));
    let conclusion = libtest_mimic::run(arguments, trials);
    if arguments.list || conclusion.has_failed() {
        return Ok(conclusion.exit_code());
    }
    fs::remove_dir_all(&run_directory).map_err(|error| format!("{}: {error}", run_directory.display()))?;
    let summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
    if is_complete && conclusion.num_filtered_out == 0 {
        for (name, text) in [("faults.md", summary.table()), ("faults-summary.md", summary.page())] {
            let written = library::checkout().join("target").join(name);
            fs::write(&written, text).map_err(|error| format!("{}: {error}", written.display()))?;
        }
    }
    println!("faults: {}", summary.line());
    Ok(ExitCode::SUCCESS)
}

/// Tries every fault of a scenario, or one error at some occurrences.
fn try_all(bench: &Bench, scenario: &Scenario, library: &Path, is_complete: bool) -> Result<Summary, Failed> {
    let reference = Reference::new(bench, scenario, library)?;
    if reference.calls.is_empty() {
        return Err("the library made no call: nothing would be shown".into());
    }
    let (mut summary, mut failures) = (Summary::default(), Vec::new());
    for (index, call) in reference.calls.iter().enumerate() {
        let chosen = match is_complete {
            true => call.errors,
            false if is_in_sample(&reference.calls, index) => one_of(call.errors, index),
            false => &[],
        };
        for error in chosen {
            let fault = Fault { call, step: occurrence(&reference.calls, index), error: *error };
            let run = bench.run(scenario, Some(library), Some(fault))?;
            match reference.judge(&run, Some(fault)) {
                Ok(effect) => summary.add(scenario.name, call.name, *error, effect),
                Err(complaint) => {
                    let symbol = calls::symbol(*error);
                    failures.push(format!("{} fails with {symbol} at call {}: {complaint}", call.name, fault.step));
                }
            }
            if failures.len() == MAX_FAILURES {
                return Err(failures.join("\n").into());
            }
        }
    }
    if is_complete || scenario.is_tried_with_filters {
        failures.extend(try_filters(bench, scenario, library, &reference)?);
    }
    if failures.is_empty() { Ok(summary) } else { Err(failures.join("\n").into()) }
}

/// Tries a filter that kills for each call that the library makes and the host does not
/// need. Returns descriptions of what was wrong.
fn try_filters(
    bench: &Bench,
    scenario: &Scenario,
    library: &Path,
    reference: &Reference,
) -> Result<Vec<String>, Failed> {
    let (mut failures, mut tried) = (Vec::new(), 0);
    for (index, call) in reference.calls.iter().enumerate() {
        if occurrence(&reference.calls, index) != 1 {
            continue;
        }
        let natively = bench.run_killing(scenario, None, call)?;
        if natively.outcome != Outcome::Exit(PASSED) {
            continue;
        }
        tried += 1;
        let run = bench.run_killing(scenario, Some(library), call)?;
        if let Err(complaint) = reference.judge_killing(&run, &natively) {
            failures.push(format!("a filter kills for {}: {complaint}", call.name));
        }
    }
    if tried == 0 {
        return Err("no call that the host can do without: nothing would be shown".into());
    }
    Ok(failures)
}

/// Returns whether a call belongs to the sample: the first and the last occurrence of a
/// call, and every sixth of the others.
fn is_in_sample(calls: &[&calls::Call], index: usize) -> bool {
    let is_same = |other: &&calls::Call| other.number == calls[index].number;
    index.is_multiple_of(6) || !calls[..index].iter().any(is_same) || !calls[index + 1..].iter().any(is_same)
}

/// Returns the occurrence of a call among those of its kind, from 1.
fn occurrence(calls: &[&calls::Call], index: usize) -> usize {
    calls[..=index].iter().filter(|call| call.number == calls[index].number).count()
}

fn one_of(errors: &[i32], index: usize) -> &[i32] {
    if errors.is_empty() { errors } else { &errors[index % errors.len()..][..1] }
}

/// Checks that the tests notice a library that does not report what it leaves.
fn notices_silence(bench: &Bench, library: &Path) -> Result<(), Failed> {
    let startup = scenarios::ALL.first().ok_or("no scenario")?;
    let silent = Scenario { settings: &[("SOPIN_LOG", "off")], ..*startup };
    let reference = Reference::new(bench, &silent, library)?;
    let call = calls::find(libc::SYS_memfd_create).ok_or("no such call")?;
    // The first call is for an object that is left in any case.
    let fault = Fault { call, step: 2, error: libc::ENOMEM };
    let run = bench.run(&silent, Some(library), Some(fault))?;
    match reference.judge(&run, Some(fault)) {
        Err(complaint) if complaint.starts_with("not reported with memfd_create and ENOMEM") => Ok(()),
        other => Err(format!("not noticed: {other:?}").into()),
    }
}

/// Checks that the tests notice a library that changes a byte of the host's constants,
/// and one that loses a word of its data.
fn notices_wrong_bytes(bench: &Bench) -> Result<(), Failed> {
    let scenario = scenarios::ALL.first().ok_or("no scenario")?;
    let source = library::checkout().join("tests/faults/libmeddles.c");
    for (what, expected) in [("CONSTANTS", "wrong bytes"), ("DATA", "other words")] {
        let meddler = bench.host.join(format!("libmeddles_{what}.so"));
        let mut command = Command::new("cc");
        command.args(["-shared", "-fPIC", "-D_GNU_SOURCE"]).arg(format!("-DMEDDLE_WITH_{what}"));
        let status = command.arg("-o").arg(&meddler).arg(&source).status();
        if !status.map_err(|error| format!("cc: {error}"))?.success() {
            return Err("libmeddles.c does not compile".into());
        }
        let without = Reference::new(bench, scenario, &library::path()?)?;
        let run = bench.run(scenario, Some(&meddler), None)?;
        match without.judge(&run, None) {
            Err(complaint) if complaint.contains(expected) => {}
            other => return Err(format!("not noticed: {what}; {other:?}").into()),
        }
    }
    Ok(())
}

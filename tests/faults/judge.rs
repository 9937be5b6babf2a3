//! Judges whether a run with a fault has harmed the host, and whether the library has
//! reported what it left.

use std::collections::BTreeSet;
use std::path::Path;

use crate::calls::{self, Call};
use crate::common::directives::PASSED;
use crate::common::process::Outcome;
use crate::run::{Bench, Fault, Observed};
use crate::scenarios::Scenario;

/// Runs without faults, with which the others are compared.
pub struct Reference {
    /// The host's output without the library.
    stdout: String,
    /// Words of writable data that change without any fault.
    changed: BTreeSet<String>,
    sums: Vec<String>,
    exposed: BTreeSet<String>,
    /// The library's calls.
    pub calls: Vec<&'static Call>,
}

/// The effect of a fault on the objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// All objects that are pinned without the fault are pinned.
    Nothing,
    /// Something was left as it was, and the reason was reported.
    LeftAndSaid,
}

impl Reference {
    /// Runs the scenario without the library, and with it a few times.
    ///
    /// # Errors
    /// A description of what was wrong even without a fault.
    pub fn new(bench: &Bench, scenario: &Scenario, library: &Path) -> Result<Self, String> {
        let without = bench.run(scenario, None, None)?;
        let with = [(); 3].map(|()| bench.run(scenario, Some(library), None));
        let with = with.into_iter().collect::<Result<Vec<_>, _>>()?;
        let first = with.first().ok_or("no run")?;
        for run in with.iter().chain([&without]) {
            let is_right = run.outcome == Outcome::Exit(PASSED) && run.wrong.is_empty() && run.stdout == without.stdout;
            if !is_right {
                return Err(format!("without a fault: {run:?}"));
            }
        }
        if with.iter().any(|run| run.sums != first.sums || run.calls.len() != first.calls.len()) {
            return Err("runs without a fault differ".to_owned());
        }
        Ok(Self {
            changed: with.iter().chain([&without]).flat_map(|run| run.changed.iter().cloned()).collect(),
            sums: first.sums.clone(),
            exposed: first.exposed.clone(),
            calls: first.calls.clone(),
            stdout: without.stdout,
        })
    }

    /// Judges a run with a fault.
    ///
    /// # Errors
    /// A description of all that was wrong.
    pub fn judge(&self, run: &Observed, fault: Option<Fault>) -> Result<Effect, String> {
        let (operation, symbol) = fault.map_or(("", ""), |fault| (fault.call.operation(), calls::symbol(fault.error)));
        let mut complaints = Vec::new();
        if run.outcome != Outcome::Exit(PASSED) {
            complaints.push(format!("ended with {}", run.outcome));
        } else if run.stdout != self.stdout {
            complaints.push(format!("printed\n{}--- and without the library\n{}---", run.stdout, self.stdout));
        }
        if !run.wrong.is_empty() {
            complaints.push(format!("wrong bytes: {:?}", run.wrong));
        }
        let changed: Vec<_> = run.changed.difference(&self.changed).collect();
        if !changed.is_empty() {
            complaints.push(format!("other words than without a fault: {changed:?}"));
        }
        if run.sums != self.sums && run.outcome == Outcome::Exit(PASSED) {
            complaints.push(format!("sums of later objects: {:?}, without a fault {:?}", run.sums, self.sums));
        }
        if !run.broken_entries.is_empty() {
            complaints.push(format!("entries of the store are not whole: {:?}", run.broken_entries));
        }
        let pinned: Vec<_> = self.exposed.difference(&run.exposed).collect();
        if !pinned.is_empty() && run.outcome == Outcome::Exit(PASSED) {
            complaints.push(format!("pinned, and without a fault left alone: {pinned:?}"));
        }
        let left: Vec<_> = run.exposed.difference(&self.exposed).collect();
        for object in &left {
            let is_said = |message: &String| {
                is_report(message, object, symbol) && message.contains(operation)
                // The library reads only to find out whether a filter is in force; if
                // that fails, a filter may be in force.
                || operation == "read" && is_report(message, object, "")
                // The library has not been able to prove that its thread alone has the memory.
                || is_report(message, object, "") && message.contains("something may be storing to them")
            };
            // The library has reported that a sweep failed as a whole, and the next
            // sweep was too late for writable ranges.
            let is_late = run.messages.iter().any(|message| is_too_late(message, object))
                && run.messages.iter().any(|message| is_of_a_sweep(message, symbol));
            if !run.messages.iter().any(is_said) && !is_late {
                complaints.push(format!("not reported with {operation} and {symbol}: {object}"));
            }
        }
        if complaints.is_empty() {
            return Ok(if left.is_empty() { Effect::Nothing } else { Effect::LeftAndSaid });
        }
        complaints.extend(run.messages.iter().cloned());
        complaints.push(format!("the calls: {}", run.calls.iter().map(|call| call.name).collect::<Vec<_>>().join(" ")));
        Err(complaints.join("\n    "))
    }

    /// Judges a run under a filter that kills for a call of the library.
    ///
    /// # Errors
    /// Everything that differs from `natively`, a run without the library, and the
    /// objects that the library leaves without a report but does not leave without a
    /// filter.
    pub fn judge_killing(&self, run: &Observed, natively: &Observed) -> Result<(), String> {
        let mut complaints = Vec::new();
        if run.outcome != natively.outcome || run.stdout != natively.stdout {
            complaints.push(format!(
                "ended with {}, printed\n{}--- and without the library\n{}---",
                run.outcome, run.stdout, natively.stdout
            ));
        }
        if !run.wrong.is_empty() || !run.broken_entries.is_empty() {
            let entries = &run.broken_entries;
            complaints.push(format!("wrong bytes: {:?}, entries that are not whole: {entries:?}", run.wrong));
        }
        for object in run.exposed.difference(&self.exposed) {
            if !run.messages.iter().any(|message| is_report(message, object, "")) {
                complaints.push(format!("exposed and not reported: {object}"));
            }
        }
        if complaints.is_empty() {
            return Ok(());
        }
        complaints.extend(run.messages.iter().cloned());
        Err(complaints.join("\n    "))
    }
}

/// Returns whether the message says that this object, or all that were loaded together,
/// was left for this error.
fn is_report(message: &str, object: &str, symbol: &str) -> bool {
    let file_name = object.rsplit('/').next().unwrap_or(object);
    let name = if file_name == "main" { "the executable" } else { file_name };
    let about =
        [object, name, "the objects just loaded", "the settings cannot be read", "an object whose name cannot be read"];
    let left = ["left unmodified", ": exposed, ", ": relocated, "];
    // For the error that /proc/self/mem calls EIO, all other calls return EFAULT.
    let is_bad_address = symbol == "EIO" && message.contains("EFAULT");
    message.starts_with("libsopin: ")
        && left.iter().any(|words| message.contains(words))
        && (message.contains(symbol) || is_bad_address)
        && about.iter().any(|name| message.contains(name))
}

/// Returns whether the message says that code of the object has run by now.
fn is_too_late(message: &str, object: &str) -> bool {
    message.contains(object) && message.contains("pin writable ranges: code of the object may have run")
}

/// Returns whether the message says that a sweep failed as a whole for this error.
fn is_of_a_sweep(message: &str, symbol: &str) -> bool {
    let is_of_all = ["objects just loaded", "the settings cannot be read"].iter().any(|words| message.contains(words));
    is_of_all && (message.contains(symbol) || symbol == "EIO" && message.contains("EFAULT"))
}

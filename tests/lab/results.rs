//! What came of suites on a system: read from what a machine said, and kept as one JSON
//! object a line in `target/lab/results/SYSTEM.json`, which other recipes write as well.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::common::library;

/// What came of one suite on one system.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SuiteResult {
    /// The name that `scripts/lab` knows.
    pub system: String,
    /// The suite.
    pub suite: String,
    /// Tests that passed.
    pub passed: usize,
    /// Tests that failed.
    pub failed: usize,
    /// Tests that the system could not run.
    pub ignored: usize,
    /// What failed, and what else is to be known.
    pub note: String,
    /// The day, as `2026-11-26`.
    pub date: String,
}

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed,
    Ignored,
}

/// All that a machine said.
pub struct Results {
    /// By suite, in the order of the tests.
    suites: BTreeMap<String, Vec<(String, Verdict)>>,
    /// The lines of all tests, with the reasons of those ignored.
    lines: String,
    /// The kernel that ran.
    kernel: String,
    /// The suite that was being run when the machine ended, if it ended too early.
    interrupted: Option<String>,
}

impl Results {
    /// Reads the console of `guest/suites`.
    pub fn read(said: &str) -> Self {
        let mut found = Self {
            suites: BTreeMap::new(),
            lines: String::new(),
            kernel: String::new(),
            interrupted: Some(String::new()),
        };
        let mut suite = None;
        for line in said.lines() {
            if let Some(name) = line.strip_prefix("lab: suite ") {
                found.suites.entry(name.to_owned()).or_default();
                suite = Some(name.to_owned());
                found.interrupted = Some(name.to_owned());
            } else if let Some(release) = line.strip_prefix("lab: linux ") {
                release.clone_into(&mut found.kernel);
            } else if line == "lab: done" {
                found.interrupted = None;
            } else if let (Some(suite), Some((name, verdict))) = (&suite, test(line)) {
                let _ = writeln!(found.lines, "{suite}: {line}");
                found.suites.entry(suite.clone()).or_default().push((name, verdict));
            }
        }
        found
    }

    /// Whether everything passed that ran, and all of it ran.
    ///
    /// # Errors
    /// What failed, or that the machine did not come to its end.
    pub fn judge(&self) -> Result<(), String> {
        let failed: Vec<_> =
            self.suites.values().flatten().filter(|(_, verdict)| *verdict == Verdict::Failed).collect();
        if !failed.is_empty() {
            let names: Vec<_> = failed.iter().map(|(name, _)| name.as_str()).collect();
            return Err(format!("failed: {}", names.join(", ")));
        }
        if let Some((suite, _)) = self.suites.iter().find(|(_, tests)| tests.is_empty()) {
            return Err(format!("the suite {suite} ran no test"));
        }
        match &self.interrupted {
            None => Ok(()),
            Some(suite) => Err(format!("the machine ended in the suite {suite:?}")),
        }
    }

    fn result(&self, system: &str, suite: &str, date: &str) -> SuiteResult {
        let tests = self.suites.get(suite).map(Vec::as_slice).unwrap_or_default();
        let count = |wanted| tests.iter().filter(|(_, verdict)| *verdict == wanted).count();
        let mut note = format!("Linux {}", self.kernel);
        if self.interrupted.as_deref() == Some(suite) {
            note.push_str("; not all of it was run");
        }
        let failed: Vec<_> = tests.iter().filter(|(_, verdict)| *verdict == Verdict::Failed).collect();
        if !failed.is_empty() {
            let names: Vec<_> = failed.iter().map(|(name, _)| format!("`{name}`")).collect();
            let _ = write!(note, "; failed: {}", names.join(", "));
        }
        SuiteResult {
            system: system.to_owned(),
            suite: suite.to_owned(),
            passed: count(Verdict::Passed),
            failed: count(Verdict::Failed),
            ignored: count(Verdict::Ignored),
            note,
            date: date.to_owned(),
        }
    }
}

/// A line as the harness prints it: `test NAME ... ok`, blanks aligning the verdicts.
fn test(line: &str) -> Option<(String, Verdict)> {
    let (name, rest) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let verdict = match rest.split([',', ' ']).next()? {
        "ok" => Verdict::Passed,
        "FAILED" => Verdict::Failed,
        "ignored" => Verdict::Ignored,
        _ => return None,
    };
    Some((name.trim().to_owned(), verdict))
}

/// Keeps these results in place of those that the same suites gave before. `skipped` names
/// fixtures that were left out, separated by commas.
///
/// # Errors
/// Those of the files, and lines of an earlier run that are not understood.
pub fn save(system: &str, found: &Results, skipped: &str) -> Result<(), String> {
    let directory = directory();
    fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let date = today()?;
    let mut all = read(&directory.join(format!("{system}.json")))?;
    // What the kernel said belongs to whatever ran.
    for suite in found.suites.keys() {
        all.retain(|result| result.suite != *suite);
        let mut result = found.result(system, suite, &date);
        if suite == "fixtures" && !skipped.is_empty() {
            result.note.push_str("; not run: ");
            result.note.push_str(&skipped.replace(',', ", "));
        }
        all.push(result);
    }
    let mut lines = String::new();
    for result in &all {
        let line = serde_json::to_string(result).map_err(|error| error.to_string())?;
        let _ = writeln!(lines, "{line}");
    }
    for (file, contents) in [(format!("{system}.json"), &lines), (format!("{system}.tests"), &found.lines)] {
        let file = directory.join(file);
        fs::write(&file, contents).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(())
}

/// All results of all systems, in the order of their names.
///
/// # Errors
/// Those of the files, and lines that are not understood.
pub fn all() -> Result<Vec<SuiteResult>, String> {
    let directory = directory();
    let Ok(entries) = fs::read_dir(&directory) else { return Ok(Vec::new()) };
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    files.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>().map(|all| all.concat())
}

fn read(file: &std::path::Path) -> Result<Vec<SuiteResult>, String> {
    let Ok(lines) = fs::read_to_string(file) else { return Ok(Vec::new()) };
    lines
        .lines()
        .map(|line| serde_json::from_str(line).map_err(|error| format!("{}: {error}\n{line}", file.display())))
        .collect()
}

fn directory() -> PathBuf {
    library::checkout().join("target/lab/results")
}

fn today() -> Result<String, String> {
    let output = Command::new("date").args(["-u", "+%F"]).output().map_err(|error| format!("date: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

//! Results of suites on a system. They are read from the console of a machine and stored
//! as one JSON object per line in `tests/lab/results/SYSTEM.json`, which is committed.
//! Other recipes write such files too.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::common::library;

/// The result of one suite on one system.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SuiteResult {
    /// The system's name in `scripts/lab`.
    pub system: String,
    /// The suite.
    pub suite: String,
    /// The number of tests that passed.
    pub passed: usize,
    /// The number of tests that failed.
    pub failed: usize,
    /// The number of tests that the system could not run.
    pub ignored: usize,
    /// The kernel, the names of tests that failed, and what was not run.
    pub note: String,
    /// The day, as `2026-11-26`.
    pub date: String,
    /// The commit that was tested, with `+` after it if the checkout contained changes. Empty if
    /// it is not known.
    pub commit: String,
}

/// The suite that runs again what has failed in `fixtures`, and corrects the result of that.
pub const FAILED: &str = "failed";

/// The suites of this kind, each with the one that it corrects.
const CORRECTIONS: [(&str, &str); 2] = [(FAILED, "fixtures"), ("failed_pins", "pin")];

/// The words of a note that precede the names of tests that failed.
const NAMES_OF_FAILED: &str = "failed: ";

impl SuiteResult {
    fn failed_tests(&self) -> impl Iterator<Item = &str> {
        let names = self.note.split("; ").find_map(|part| part.strip_prefix(NAMES_OF_FAILED));
        names.into_iter().flat_map(|names| names.split(", ")).map(|name| name.trim_matches('`'))
    }

    fn note_failed(&mut self, names: &[&str]) {
        if !names.is_empty() {
            let _ = write!(self.note, "; {NAMES_OF_FAILED}`{}`", names.join("`, `"));
        }
    }

    /// Corrects a result by a later run of the tests that had failed.
    fn correct(&mut self, later: &[(String, Verdict)], commit: &str) {
        let had_failed = self.clone();
        let mut failed: Vec<&str> = had_failed.failed_tests().collect();
        for (name, verdict) in later {
            let Some(index) = failed.iter().position(|failed| failed == name) else { continue };
            match verdict {
                Verdict::Passed => self.passed += 1,
                Verdict::Ignored => self.ignored += 1,
                Verdict::Failed => continue,
            }
            self.failed -= 1;
            failed.remove(index);
        }
        let number = had_failed.failed - self.failed;
        let parts: Vec<_> = had_failed.note.split("; ").filter(|part| !part.starts_with(NAMES_OF_FAILED)).collect();
        self.note = parts.join("; ");
        if number != 0 {
            let _ = write!(self.note, "; {number} had failed, and were run again with {commit}");
        }
        self.note_failed(&failed);
    }
}

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed,
    Ignored,
}

/// Everything that a machine reported.
pub struct Results {
    /// The tests of each suite, in their order.
    suites: BTreeMap<String, Vec<(String, Verdict)>>,
    /// The lines about all tests.
    lines: String,
    /// The release of the kernel.
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

    /// Checks that every suite was run to its end, ran a test, and that no test failed.
    ///
    /// # Errors
    /// The names of failed tests, or the suite that was not run.
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

    fn result(&self, system: &str, suite: &str, date: &str, commit: &str) -> SuiteResult {
        let tests = self.suites.get(suite).map(Vec::as_slice).unwrap_or_default();
        let count = |wanted| tests.iter().filter(|(_, verdict)| *verdict == wanted).count();
        let mut note = format!("Linux {}", self.kernel);
        if self.interrupted.as_deref() == Some(suite) {
            note.push_str("; not all of it was run");
        }
        let mut result = SuiteResult {
            system: system.to_owned(),
            suite: suite.to_owned(),
            passed: count(Verdict::Passed),
            failed: count(Verdict::Failed),
            ignored: count(Verdict::Ignored),
            note,
            date: date.to_owned(),
            commit: commit.to_owned(),
        };
        let failed = tests.iter().filter(|(_, verdict)| *verdict == Verdict::Failed);
        result.note_failed(&failed.map(|(name, _)| name.as_str()).collect::<Vec<_>>());
        result
    }
}

/// Parses a line of the harness: `test NAME ... ok`, with blanks that align the verdicts.
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

/// Stores these results instead of earlier ones of the same suites. `commit` is what was tested,
/// `skipped` a list with commas of fixtures that were left out.
///
/// # Errors
/// Errors of the files, and lines of an earlier run that cannot be parsed.
pub fn save(system: &str, found: &Results, commit: &str, skipped: &str) -> Result<(), String> {
    let date = today()?;
    let file = directory().join(format!("{system}.json"));
    let mut all = read(&file)?;
    for (suite, tests) in &found.suites {
        if let Some((_, corrected)) = CORRECTIONS.iter().find(|(name, _)| name == suite) {
            all.iter_mut().filter(|result| result.suite == *corrected).for_each(|result| result.correct(tests, commit));
            continue;
        }
        all.retain(|result| result.suite != *suite);
        let mut result = found.result(system, suite, &date, commit);
        if suite == "fixtures" && !skipped.is_empty() {
            result.note.push_str("; not run: ");
            result.note.push_str(&skipped.replace(',', ", "));
        }
        all.push(result);
    }
    // `basic` is a part of `fixtures`.
    let is_whole = found.interrupted.as_deref() != Some("fixtures") && skipped.is_empty();
    if is_whole && found.suites.contains_key("fixtures") {
        all.retain(|result| result.suite != "basic");
    }
    all.sort_by(|one, other| one.suite.cmp(&other.suite));
    let mut lines = String::new();
    for result in &all {
        let line = serde_json::to_string(result).map_err(|error| error.to_string())?;
        let _ = writeln!(lines, "{line}");
    }
    write(&file, &lines)
}

/// Returns the fixtures of the tests that have failed, from the stored results of the system; separated
/// by commas.
///
/// # Errors
/// Errors of the file, and lines that cannot be parsed.
pub fn failed_fixtures(system: &str) -> Result<String, String> {
    let mut fixtures = failed_tests(system, "fixtures")?;
    for test in &mut fixtures {
        test.truncate(test.find("::").unwrap_or(test.len()));
    }
    fixtures.dedup();
    Ok(fixtures.join(","))
}

/// Returns the trials of `sopin pin` that have failed, from the stored results of the system; separated by
/// commas.
///
/// # Errors
/// Errors of the file, and lines that cannot be parsed.
pub fn failed_pins(system: &str) -> Result<String, String> {
    Ok(failed_tests(system, "pin")?.join(","))
}

fn failed_tests(system: &str, suite: &str) -> Result<Vec<String>, String> {
    let all = read(&directory().join(format!("{system}.json")))?;
    let tests = all.iter().filter(|result| result.suite == suite).flat_map(SuiteResult::failed_tests);
    Ok(tests.map(str::to_owned).collect())
}

/// Writes the lines about all tests to `target/lab/results/SYSTEM.tests`.
///
/// # Errors
/// Those of the file.
pub fn keep_lines(system: &str, found: &Results) -> Result<(), String> {
    let directory = library::checkout().join("target/lab/results");
    fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    write(&directory.join(format!("{system}.tests")), &found.lines)
}

/// Returns what is tested: `SOPIN_LAB_COMMIT`, which `scripts/lab` sets before it builds anything.
///
/// # Errors
/// The variable is not set.
pub fn commit() -> Result<String, String> {
    env::var("SOPIN_LAB_COMMIT").map_err(|error| format!("SOPIN_LAB_COMMIT: {error} (run scripts/lab)"))
}

/// Returns all results of all systems, in the order of their names.
///
/// # Errors
/// Errors of the files, and lines that cannot be parsed.
pub fn all() -> Result<Vec<SuiteResult>, String> {
    let directory = directory();
    let entries = fs::read_dir(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    files.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>().map(|all| all.concat())
}

fn read(file: &Path) -> Result<Vec<SuiteResult>, String> {
    let Ok(lines) = fs::read_to_string(file) else { return Ok(Vec::new()) };
    lines
        .lines()
        .map(|line| serde_json::from_str(line).map_err(|error| format!("{}: {error}\n{line}", file.display())))
        .collect()
}

fn write(file: &Path, contents: &str) -> Result<(), String> {
    fs::write(file, contents).map_err(|error| format!("{}: {error}", file.display()))
}

fn directory() -> PathBuf {
    library::checkout().join("tests/lab/results")
}

fn today() -> Result<String, String> {
    let output = Command::new("date").args(["-u", "+%F"]).output().map_err(|error| format!("date: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

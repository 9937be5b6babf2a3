//! Runs `sopin pin` and `sopin status`, and reads their JSON.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::common::process::{self, Outcome};
use crate::common::{library, protection};
use crate::limit;

/// The time after which a run of the command hangs.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The result of `sopin pin`.
#[derive(Debug)]
pub struct Pin {
    pub outcome: Outcome,
    /// The JSON; null if there is none.
    pub answer: Value,
    pub stderr: String,
}

/// Returns the command under test: `SOPIN_TEST_COMMAND`, or the release build of this checkout.
///
/// # Errors
/// There is no such file.
pub fn path() -> Result<PathBuf, String> {
    let wanted = std::env::var_os("SOPIN_TEST_COMMAND")
        .map_or_else(|| library::checkout().join("target/release/sopin"), PathBuf::from);
    wanted.canonicalize().map_err(|error| format!("{}: {error}; run `make build`", wanted.display()))
}

/// Returns `sopin pin --json PID`. The copies are in a store beside the trial.
///
/// # Errors
/// There is no command.
pub fn pin_command(pid: u32, directory: &Path) -> Result<Command, String> {
    let mut command = Command::new(path()?);
    protection::forget_settings(&mut command);
    command.env("SOPIN_STORE", directory.join("store"));
    command.args(["pin", "--json"]).arg(pid.to_string());
    Ok(command)
}

/// Runs a command that ends with that of `pin_command`, whose log files are in `directory`.
///
/// # Errors
/// It cannot be run, or hangs.
pub fn run(command: &mut Command, directory: &Path) -> Result<Pin, String> {
    // Several threads may use the directory.
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let log = directory.join(format!("pin{}.log", NUMBER.fetch_add(1, Ordering::Relaxed)));
    let finished = process::run(command, &log, limit(TIMEOUT)).map_err(|error| format!("{command:?}: {error}"))?;
    if finished.outcome == Outcome::TimedOut {
        return Err(format!("sopin pin hangs: {finished}"));
    }
    let answer = serde_json::from_str(&finished.stdout).unwrap_or(Value::Null);
    Ok(Pin { outcome: finished.outcome, answer, stderr: finished.stderr })
}

/// Runs `sopin pin --json PID`.
///
/// # Errors
/// It cannot be run, or hangs.
pub fn pin(pid: u32, directory: &Path) -> Result<Pin, String> {
    run(&mut pin_command(pid, directory)?, directory)
}

impl Pin {
    /// Returns the process's part of the answer.
    ///
    /// # Errors
    /// The process was not pinned.
    pub fn process(&self) -> Result<&Value, String> {
        self.answer["processes"].get(0).ok_or_else(|| self.describe("pinned no process"))
    }

    /// Returns a number of the process's part.
    ///
    /// # Errors
    /// The process was not pinned, or there is no such number.
    pub fn number(&self, name: &str) -> Result<u64, String> {
        self.process()?[name].as_u64().ok_or_else(|| self.describe(&format!("has no number {name:?}")))
    }

    /// Returns the objects of the process that were not out of their files' reach.
    ///
    /// # Errors
    /// The process was not pinned.
    pub fn objects(&self) -> Result<&[Value], String> {
        self.process()?["objects"].as_array().map(Vec::as_slice).ok_or_else(|| self.describe("has no objects"))
    }

    /// Checks that it has pinned the process whole, and at least one object.
    ///
    /// # Errors
    /// What is wrong.
    pub fn is_whole(&self) -> Result<(), String> {
        let left = self.objects()?.iter().any(|object| object["after"] != "full");
        if left || self.objects()?.is_empty() || self.outcome != Outcome::Exit(0) {
            return Err(self.describe("did not pin everything"));
        }
        Ok(())
    }

    /// Returns the code of the reason why the process was not pinned, if it was not.
    pub fn refusal(&self) -> Option<&str> {
        self.answer["not_pinned"].get(0)?["error"].as_str()
    }

    /// Returns a message for people.
    pub fn describe(&self, wrong: &str) -> String {
        format!("sopin pin {wrong}: {}\n{:#}\n{}", self.outcome, self.answer, self.stderr)
    }
}

/// Runs `sopin status --json PID` and returns the process's part, and the exit status.
///
/// # Errors
/// It cannot be run, or does not show the process.
pub fn status(pid: u32, directory: &Path) -> Result<(Value, Outcome), String> {
    let mut command = Command::new(path()?);
    protection::forget_settings(&mut command);
    command.env("SOPIN_STORE", directory.join("store")).args(["status", "--json"]).arg(pid.to_string());
    let finished = process::run(&mut command, &directory.join(format!("status{pid}.log")), limit(TIMEOUT))
        .map_err(|error| format!("{command:?}: {error}"))?;
    let answer: Value = serde_json::from_str(&finished.stdout).map_err(|error| format!("{error}: {finished}"))?;
    match answer["processes"].get(0) {
        Some(process) => Ok((process.clone(), finished.outcome)),
        None => Err(format!("sopin status shows no process: {finished}")),
    }
}

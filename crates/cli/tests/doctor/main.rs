//! `sopin doctor` on this machine, and where something is missing or refused. A test for which
//! this machine has no program or rights is reported as ignored.

#![allow(clippy::needless_raw_string_hashes, reason = "snapbox writes snapshots so")]
#![allow(clippy::unnecessary_wraps, reason = "some tests find out only when they run that the machine cannot do it")]

#[path = "../common/mod.rs"]
mod common;
mod confined;
mod here;
mod programs;
mod roots;

use std::process::ExitCode;

use common::cases;
use serde_json::Value;
use snapbox::cmd::Command;

/// A test returns a reason if it finds out only when it runs that the machine cannot do it.
type Case = cases::Case<fn() -> Result<(), String>>;

fn main() -> ExitCode {
    cases::run([here::CASES, programs::CASES, confined::CASES, roots::CASES].concat(), |test| test())
}

/// The answer in JSON.
struct Answer(Value);

impl Answer {
    /// Runs `doctor --json` as this command does, which may begin with other words, and checks
    /// what every answer promises.
    fn of(command: Command) -> Self {
        let output = command.args(["doctor", "--json"]).assert().stderr_eq("").get_output().clone();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        let verdicts =
            answer["subjects"].as_array().unwrap().iter().map(|subject| subject["verdict"].as_str().unwrap());
        let rank = |verdict: &str| ["ok", "limited", "no"].iter().position(|word| *word == verdict).unwrap();
        let worst = verdicts.max_by_key(|verdict| rank(verdict)).unwrap();
        assert_eq!(answer["verdict"], worst);
        assert_eq!(output.status.code(), Some(i32::from(worst != "ok")));
        Self(answer)
    }

    /// Returns a subject.
    fn subject(&self, name: &str) -> &Value {
        let subjects = self.0["subjects"].as_array().unwrap();
        subjects.iter().find(|subject| subject["subject"] == name).unwrap_or_else(|| panic!("no {name}"))
    }

    fn verdict(&self, name: &str) -> &str {
        self.subject(name)["verdict"].as_str().unwrap()
    }

    fn meaning(&self, name: &str) -> &str {
        self.subject(name)["meaning"].as_str().unwrap()
    }

    fn fact(&self, name: &str, fact: &str) -> &Value {
        &self.subject(name)["facts"][fact]
    }
}

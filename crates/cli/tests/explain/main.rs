//! `sopin explain CORE`: cores that the kernel and gdb make of a small program whose library is
//! rewritten. `tests/crashes` has programs of other projects, sopin-inspect tests what the hostile
//! bytes of a dump do. A test for which this machine has no program or rights, or whose kernel gives
//! cores to a program, is reported as ignored.

#![allow(clippy::needless_raw_string_hashes, reason = "snapbox writes snapshots so")]
#![allow(clippy::unnecessary_wraps, reason = "some tests find out only when they run that the machine cannot do it")]

#[path = "../common/mod.rs"]
mod common;
mod deaths;
mod dumps;
mod files;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use common::cases;
use common::victim::{PROGRAM, Running, Victim};
use serde_json::Value;

/// A test returns a reason if it finds out only when it runs that the machine cannot do it.
type Case = cases::Case<fn() -> Result<(), String>>;

fn main() -> ExitCode {
    cases::run([deaths::CASES, dumps::CASES, files::CASES].concat(), |test| test())
}

/// Words that have a process dump its core.
const DUMPS: [&str; 3] = ["sh", "-c", "ulimit -c unlimited; exec \"$0\""];

/// Returns a victim whose program jumps through the pointers of the library itself, not of a copy.
fn victim(flags: &[&str]) -> Victim {
    let victim = Victim::compiled(flags);
    let library = victim.library.to_str().unwrap();
    victim.installation.compile("program", PROGRAM, "cc", &["-fPIC", library]);
    victim
}

/// Starts the program of a victim so that it dumps its core.
fn start(victim: &Victim) -> Running {
    victim.start_under(&DUMPS)
}

/// Returns the core in the directory of a victim.
fn core(victim: &Victim) -> Result<PathBuf, String> {
    let is_core = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name == "core" || name.strip_prefix("core.").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let mut files = fs::read_dir(victim.installation.path("")).unwrap().map(|entry| entry.unwrap().path());
    files.find(is_core).ok_or_else(|| {
        let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
        assert_ne!(pattern.trim(), "core", "the kernel has written no core");
        format!("the kernel gives cores to others (core_pattern is {})", pattern.trim())
    })
}

/// Returns the core of a victim whose program dies because its library is rewritten.
fn rewritten(victim: &Victim) -> Result<PathBuf, String> {
    rewritten_under(victim, &DUMPS)
}

/// Does the same, and starts the program by these words.
fn rewritten_under(victim: &Victim, words: &[&str]) -> Result<PathBuf, String> {
    let running = victim.start_under(words);
    victim.rewrite(&running);
    assert!(!running.ends_well());
    core(victim)
}

/// Returns the answer in JSON, after a check of the exit status.
fn explain(victim: &Victim, arguments: &[&str], code: i32) -> Value {
    let command = victim.installation.sopin().arg("explain").arg("--json").args(arguments);
    let output = command.assert().code(code).stderr_eq("").get_output().clone();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["schema"], 1);
    answer
}

/// Returns the object whose path ends like this.
fn object<'a>(answer: &'a Value, ending: &str) -> &'a Value {
    common::victim::object(answer, ending)
}

fn sentence(answer: &Value) -> &str {
    answer["verdict"]["sentence"].as_str().unwrap()
}

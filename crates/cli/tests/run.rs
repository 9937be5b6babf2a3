//! `sopin run`: what the program gets, and what happens when there is none.

#![allow(clippy::needless_raw_string_hashes, reason = "snapbox writes snapshots so")]

mod common;

use common::{clean, install, sopin};
use snapbox::cmd::Command;
use snapbox::str;

fn run() -> (tempfile::TempDir, Command) {
    let prefix = tempfile::tempdir().unwrap();
    let command = clean(Command::new(install(prefix.path()))).arg("run");
    (prefix, command)
}

#[test]
fn the_program_runs_with_the_library_in_it() {
    let (prefix, run) = run();
    let script = "echo $LD_PRELOAD $SOPIN_MODE; grep -c sopin /proc/self/maps; exit 7";
    let library = prefix.path().join("lib/libsopin.so");
    let outcome = run.args(["--mode", "relocated", "--", "sh", "-c", script]).assert().code(7);
    let stdout = String::from_utf8(outcome.get_output().stdout.clone()).unwrap();
    let lines: Vec<_> = stdout.lines().collect();
    assert_eq!(lines[0], format!("{} relocated", library.display()));
    assert!(lines[1].parse::<u32>().unwrap() > 0, "{stdout}");
}

#[test]
fn a_program_that_is_not_there() {
    let (_prefix, run) = run();
    run.args(["--", "no-such-program"]).assert().code(127).stderr_eq(str![[r#"
sopin: no-such-program: no such program in PATH

"#]]);
}

#[test]
fn a_mode_that_the_library_would_not_understand() {
    sopin().args(["run", "--mode", "fulll", "true"]).assert().code(125).stderr_eq(str![[r#"
error: invalid value 'fulll' for '--mode <MODE>'
  [possible values: full, relocated, off]

For more information, try '--help'.

"#]]);
}

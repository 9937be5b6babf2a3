//! `sopin check`: the form of its output. `programs.rs` has the results for each kind
//! of program.

#![allow(clippy::needless_raw_string_hashes, reason = "snapbox writes snapshots so")]

mod common;

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::{self, Stdio};

use common::{Installation, clean_process, sopin};
use serde_json::Value;
use snapbox::str;

#[test]
fn the_answer_in_json() {
    let installation = Installation::new();
    installation.program("program", "cc", &[]);
    installation.script("script", "#!./program -x y\n");
    let output = installation.sopin().args(["check", "--json", "./script"]).assert().success();
    let answer: Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    assert_eq!(answer["schema"], 1);
    assert_eq!(answer["command"], "./script");
    assert_eq!(answer["engages"], true);
    assert_eq!(answer["library"], installation.library());
    assert_eq!(answer["files"][0]["kind"], "script");
    assert_eq!(answer["files"][0]["interpreter"], "./program");
    assert_eq!(answer["files"][0]["argument"], "-x y");
    assert_eq!(answer["files"][1]["kind"], "program");
    assert_eq!(answer["files"][1]["path"], "./program");
    assert_eq!(answer["files"][1]["loader"], answer["trial"]["loader"]);
    assert_eq!(answer["obstacles"], Value::Array(vec![]));
    let objects = answer["trial"]["objects"].as_array().unwrap();
    assert_eq!(objects[0], installation.library());
    assert!(objects.len() >= 2 && objects.iter().all(|object| object.as_str().unwrap().starts_with('/')));
    assert_eq!(answer["trial"]["starts"], true);
    assert_eq!(answer["trial"]["messages"], Value::Array(vec![]));
}

#[test]
fn the_negative_answer_in_json() {
    let installation = Installation::new();
    let flags = ["-nostdlib", "-ffreestanding", "-static"];
    installation.compile("program", "void _start(void) {}\n", "cc", &flags);
    let command = installation.sopin().env("SOPIN_MODE", "on").args(["check", "--json", "--", "./program", "--json"]);
    command.assert().code(1).stderr_eq("").stdout_eq(str![[r#"
{
  "schema": 1,
  "command": "./program",
  "engages": false,
  "library": "[ROOT]/lib/libsopin.so",
  "files": [
    {
      "kind": "program",
      "path": "./program",
      "machine": "[..]",
      "loader": null
    }
  ],
  "obstacles": [
    {
      "code": "static",
      "thing": "./program",
      "reason": "statically linked, so there is no loader that reads LD_PRELOAD"
    }
  ],
  "trial": null,
  "complaints": [
    "SOPIN_MODE: \"on\" is not understood; accepted: full, relocated, off; using full"
  ]
}

"#]]);
}

/// `--help` and sopin-check(1) promise these names.
#[test]
fn every_field_is_documented() {
    let installation = Installation::new();
    let output = installation.sopin().args(["check", "--json", "sh"]).assert().success();
    let answer: Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    let help = installation.sopin().args(["check", "--help"]).assert().success();
    let help = String::from_utf8_lossy(&help.get_output().stdout).into_owned();
    let (_, table) = help.split_once("JSON output").unwrap();
    let lines = table.lines().filter_map(|line| line.strip_prefix("  ")).take_while(|line| !line.starts_with("sopin "));
    let documented: Vec<_> = lines.filter_map(|line| line.split(' ').next()).filter(|name| !name.is_empty()).collect();
    let mut fields: Vec<_> = answer.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    let mut sorted = documented.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, fields);
}

/// The program's code does not run, nor that of its libraries, nor even what relocating
/// them would call.
#[test]
fn no_code_of_the_program_runs() {
    let installation = Installation::new();
    let leave_a_trace = |what: &str| {
        let path = installation.path(what).display().to_string();
        format!("__attribute__((constructor)) static void run(void) {{ creat(\"{path}\", 0644); }}\n")
    };
    let with = |what: &str, more: &str| format!("#include <fcntl.h>\n{}{more}", leave_a_trace(what));
    let shared = ["-shared", "-fPIC"];
    let resolver = "static int one(void) { return 1; }\n\
        static void *choose(void) { run(); return one; }\n\
        int needed(void) __attribute__((ifunc(\"choose\")));\n";
    let needed = installation.compile("libneeded.so", &with("needed-ran", resolver), "cc", &shared);
    let main = with("program-ran", "int needed(void);\nint main(void) { run(); return needed(); }\n");
    installation.compile("program", &main, "cc", &[needed.to_str().unwrap(), "-Wl,-z,now"]);
    let traces = ["needed-ran", "program-ran"].map(|trace| installation.path(trace));

    let check = installation.sopin().env("LD_BIND_NOW", "1").args(["check", "./program"]);
    let output = check.assert().success();
    let said = String::from_utf8_lossy(&output.get_output().stdout).into_owned();
    assert!(said.contains("and 3 other objects"), "{said}");
    assert!(traces.iter().all(|trace| !trace.exists()));

    installation.sopin().args(["run", "./program"]).assert().code(1);
    assert!(traces.iter().all(|trace| trace.exists()), "the program does leave them when it runs");
}

#[test]
fn messages_of_the_loader_are_passed_on() {
    let installation = Installation::new();
    installation.program("program", "cc", &[]);
    installation.file("broken.so", b"no library", 0o644);
    // The loader of sopin itself reads the same list and reports the error, so stderr
    // is not compared.
    let command = installation.sopin().env("LD_PRELOAD", "./broken.so").args(["check", "./program"]);
    command.assert().success().stdout_eq(str![[r#"
./program: would be protected
  file     ./program: program for [..], loaded by /lib[..]
  loader   maps [ROOT]/lib/libsopin.so and 2 other objects
  loader   says: ERROR: ld.so: object './broken.so' from LD_PRELOAD cannot be preloaded [..]

"#]]);
}

#[test]
fn settings_decide_whether_a_program_is_protected() {
    let installation = Installation::new();
    installation.program("program", "cc", &[]);
    let check = || installation.sopin().args(["check", "./program"]);
    check().env("SOPIN_MODE", "off").assert().code(1).stderr_eq("").stdout_eq(str![[r#"
./program: would not be protected
  file     ./program: program for [..], loaded by /lib[..]
  because  SOPIN_MODE: off, so the library would be loaded and pin nothing

"#]]);
    check().env("SOPIN_MODE", "relocated").assert().code(0);
    check().env("SOPIN_LOG", "loud").env("SOPIN_ONLY", "x").assert().code(0).stderr_eq("").stdout_eq(str![[r#"
./program: would be protected
  file     ./program: program for [..], loaded by /lib[..]
  loader   maps [ROOT]/lib/libsopin.so and 2 other objects
  setting  SOPIN_LOG: "loud" is not understood; accepted: off, error, warn, info, debug; using error
  setting  SOPIN_ONLY: "x" is not understood; accepted: colon-separated globs over absolute paths, each beginning with /, * or ?; ignoring it

"#]]);
}

/// Variables for other functions of the loader do not change the output.
#[test]
fn other_variables_of_the_loader_have_no_effect() {
    let installation = Installation::new();
    installation.program("program", "cc", &[]);
    let plain = installation.sopin().args(["check", "./program"]).assert().success();
    let mut command = installation.sopin().args(["check", "./program"]);
    for (name, value) in [("LD_VERBOSE", "1"), ("LD_WARN", "1"), ("LD_DEBUG", "none"), ("LD_BIND_NOW", "1")] {
        command = command.env(name, value);
    }
    let output = command.assert().success();
    assert_eq!(output.get_output().stdout, plain.get_output().stdout);
}

#[test]
fn a_command_is_required() {
    sopin().arg("check").assert().code(125).stdout_eq("").stderr_eq(str![[r#"
error: the following required arguments were not provided:
  <COMMAND>...

Usage: sopin check [OPTIONS] [--] COMMAND [ARGUMENT]...

For more information, try '--help'.

"#]]);
}

#[test]
fn stdout_that_is_full_is_an_error() {
    let installation = Installation::new();
    let mut command = process::Command::new(installation.path("bin/sopin"));
    clean_process(&mut command).args(["check", "sh"]).stdout(File::create("/dev/full").unwrap());
    let output = command.stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "sopin: stdout: No space left on device (os error 28)\n");
}

#[test]
fn a_closed_pipe_ends_it_as_it_ends_every_program() {
    let installation = Installation::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = process::Command::new(installation.path("bin/sopin"));
    let output = clean_process(&mut command).args(["check", "sh"]).stdout(writer).output().unwrap();
    assert_eq!((output.status.signal(), output.stderr), (Some(13), Vec::new()));
}

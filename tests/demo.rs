//! Does what `make demo` does, and asserts its results: a busy gunicorn whose shared
//! objects are rewritten in place dies without the library, and with it answers every
//! request. So it does if it was started without the library, and `sopin pin` has pinned
//! it while it was busy, or `sopin watch --pin` runs beside it. A user who may not trace
//! processes is not shown that; the command says why.
//!
//! It needs Python 3 with venv (`PYTHON` names another program than python3), and in
//! the first run the Python Package Index. The tests share the packages. Each has a
//! directory of its own for the rest, because otherwise one would wait for the other.

mod common;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use serde_json::{Value, json};

/// The fewest requests that a busy service must have answered while its objects were
/// rewritten in one way; even a busy machine reaches hundreds.
const BUSY: u64 = 50;
const CASES: [&str; 4] = ["same bytes", "other build", "emptied", "idle"];
/// The mode without the library in which the command pins the service.
const PINNED: &str = "full, sopin pin";
/// The mode without the library in which `sopin watch --pin` runs beside the service.
const WATCHED: &str = "full, sopin watch";

#[test]
fn gunicorn_survives_the_rewriting_of_all_its_objects() {
    let library = common::library::path().expect("the library under test");
    let (succeeded, results, said) = demonstrate(&library, &["--modes", "without", "relocated", "full", "full, memfd"]);
    assert!(succeeded, "{said}");
    let mut promised = all_cases(&results, &["full", "full, memfd"]);
    is_out_of_reach(&promised, &said);
    let without_store = promised.iter().filter(|result| result["mode"] == "full, memfd");
    assert!(without_store.into_iter().all(|result| result["copies_in_use"]["store"] == 0), "{said}");
    promised.push(find(&results, "idle", "relocated"));
    for result in promised {
        is_unharmed(result, &said);
    }
    for case in CASES {
        is_harmed(find(&results, case, "without"), &said);
    }
    uses_many_objects(&results, &said);
}

#[test]
fn gunicorn_survives_if_the_command_pins_it() {
    let library = common::library::path().expect("the library under test");
    let (succeeded, results, said) = demonstrate(&library, &["--modes", "without", PINNED, WATCHED]);
    assert!(succeeded, "{said}");
    if may_pin(&said) {
        let promised = all_cases(&results, &[PINNED]);
        is_out_of_reach(&promised, &said);
        is_pinned_once(find(&results, CASES[0], PINNED), &said);
        for result in promised {
            is_unharmed(result, &said);
        }
    }
    if may_watch(&said) {
        // It pins after the mappings were counted.
        for result in all_cases(&results, &[WATCHED]) {
            is_unharmed(result, &said);
        }
        is_watched(find(&results, "idle", WATCHED), &said);
    }
    for case in CASES {
        is_harmed(find(&results, case, "without"), &said);
    }
    uses_many_objects(&results, &said);
}

#[test]
fn gunicorn_with_threads_survives_if_it_is_pinned_while_it_is_busy() {
    let library = common::library::path().expect("the library under test");
    let (succeeded, results, said) =
        demonstrate(&library, &["--threads", "3", "--modes", "without", PINNED, "--cases", "emptied"]);
    assert!(succeeded, "{said}");
    if may_pin(&said) {
        let result = find(&results, "emptied", PINNED);
        is_pinned_once(result, &said);
        is_unharmed(result, &said);
    }
    is_harmed(find(&results, "emptied", "without"), &said);
}

/// Returns whether this user was permitted to pin the service. Root is.
fn may_pin(said: &str) -> bool {
    rustix::process::geteuid().is_root() || !said.contains(&format!("{PINNED}: not shown: "))
}

/// Returns whether this user was permitted to guard the service. Root is, but not in every container.
fn may_watch(said: &str) -> bool {
    !said.contains(&format!("{WATCHED}: not shown: "))
}

fn find<'a>(results: &'a [Value], case: &str, mode: &str) -> &'a Value {
    results
        .iter()
        .find(|result| result["case"] == case && result["mode"] == mode)
        .unwrap_or_else(|| panic!("no result for {case}, {mode}: {results:#?}"))
}

/// Returns the results of all cases in these modes.
fn all_cases<'a>(results: &'a [Value], modes: &[&str]) -> Vec<&'a Value> {
    modes.iter().flat_map(|mode| CASES.iter().map(move |case| find(results, case, mode))).collect()
}

/// Checks that the workers had mapped copies.
fn is_out_of_reach(results: &[&Value], said: &str) {
    assert!(results.iter().all(|result| copies(result) != 0), "read-only ranges followed their files: {said}");
}

/// Checks that the service had mapped the extensions of its packages, the interpreter's library and the modules that it
/// needs.
fn uses_many_objects(results: &[Value], said: &str) {
    assert!(results.iter().all(|result| result["objects_in_use"].as_u64() >= Some(10)), "{said}");
}

/// Checks that the master and four workers were pinned whole, and that no client noticed.
fn is_pinned_once(result: &Value, said: &str) {
    let pin = &result["pin"];
    let row = format!("{result}\n{said}");
    assert_eq!(pin["pids"].as_array().map(Vec::len), Some(5), "{row}");
    assert_eq!(pin["complaints"], json!([]), "{row}");
    assert_eq!(pin["failed"], 0, "{row}");
    assert!(pin["served"].as_u64() >= Some(8), "the service was not busy during the pin: {row}");
    assert!(pin["objects"].as_u64() >= Some(5 * 10), "{row}");
}

/// Checks that the master and four workers were pinned when the first file was opened for writing, and that no
/// writer went on before that.
fn is_watched(result: &Value, said: &str) {
    let watched = &result["watched"];
    let row = format!("{result}\n{said}");
    assert_eq!(watched["pids"].as_array().map(Vec::len), Some(5), "{row}");
    assert_eq!(watched["complaints"], json!([]), "{row}");
    assert!(watched["longest_delay_us"].as_u64() > Some(0), "{row}");
}

/// Checks that all processes are the same as before the rewriting, and have answered all requests.
fn is_unharmed(result: &Value, said: &str) {
    let row = format!("{result}\n{said}");
    assert_eq!(result["failed"], 0, "{row}");
    assert_eq!(result["killed"], json!({}), "{row}");
    assert_eq!(result["master_killed"], Value::Null, "{row}");
    assert_eq!(result["unharmed"], true, "a process is not the one from before: {row}");
    assert_eq!(result["all_answered"], true, "a worker serves no more: {row}");
    assert_eq!(result["library_said"], json!([]), "objects were left exposed: {row}");
    assert!(result["served"].as_u64() >= Some(if result["case"] == "idle" { 20 } else { BUSY }), "{row}");
}

/// Checks that a process was killed and requests failed.
fn is_harmed(result: &Value, said: &str) {
    let workers = result["killed"].as_object().map_or(0, serde_json::Map::len);
    let row = format!("{result}\n{said}");
    assert!(workers != 0 || result["master_killed"].is_string(), "survived without the library: {row}");
    assert_eq!(result["unharmed"], false, "{row}");
    assert!(result["failed"].as_u64() > Some(0), "{row}");
}

#[test]
fn the_demonstration_notices_a_command_that_does_nothing() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let command = scratch.path().join("sopin");
    let script = "#!/bin/sh\necho '{\"processes\": [], \"not_pinned\": []}'\n";
    std::fs::write(&command, script).expect("a script");
    std::fs::set_permissions(&command, Permissions::from_mode(0o755)).expect("an executable script");
    let library = common::library::path().expect("the library under test");
    let arguments = ["--command", &command.to_string_lossy(), "--modes", PINNED, "--cases", "emptied"];
    let (succeeded, results, said) = demonstrate(&library, &arguments);
    assert!(!succeeded, "{said}");
    is_harmed(find(&results, "emptied", PINNED), &said);
    for broken in ["pinned [] instead of [", "processes were lost", "requests failed", "nothing was mapped from copies"]
    {
        assert!(said.contains(&format!("BROKEN: emptied, {PINNED}: {broken}")), "no {broken:?} in {said}");
    }
}

#[test]
fn the_demonstration_notices_a_library_that_does_nothing() {
    let (_scratch, library) = inert_library();
    let (succeeded, results, said) =
        demonstrate(&library, &["--modes", "relocated", "full", "--cases", "other build", "idle"]);
    assert!(!succeeded, "{said}");
    assert_eq!(results.len(), 4, "{said}");
    for broken in ["other build, full: ", "idle, full: ", "idle, relocated: "] {
        assert!(said.contains(&format!("BROKEN: {broken}processes were lost")), "{said}");
        assert!(said.contains(&format!("BROKEN: {broken}requests failed")), "{said}");
    }
}

#[test]
fn gunicorn_soaks_for_a_short_time() {
    let library = common::library::path().expect("the library under test");
    let (succeeded, result, said) = run("soak", &library, &["--minutes", "0.25"]);
    assert!(succeeded, "{said}");
    assert!(result["rewritten"].as_u64() >= Some(1000), "{said}");
    assert!(result["served"].as_u64() >= Some(500), "{said}");
    assert_eq!((&result["failed"], &result["unharmed"]), (&json!(0), &json!(true)), "{said}");
    assert_eq!(result["after"].as_object().map(serde_json::Map::len), Some(5), "{said}");
}

#[test]
fn the_soak_notices_a_library_that_does_nothing() {
    let (_scratch, library) = inert_library();
    let (succeeded, result, said) = run("soak", &library, &["--minutes", "0.02"]);
    assert!(!succeeded && result["unharmed"] == json!(false), "{said}");
    assert!(said.contains("BROKEN: processes were lost") && said.contains("BROKEN: requests failed"), "{said}");
}

/// Runs the demonstration. Returns whether its promise was kept, its results, and all
/// its output.
fn demonstrate(library: &Path, arguments: &[&str]) -> (bool, Vec<Value>, String) {
    let (succeeded, results, said) = run("demo", library, arguments);
    (succeeded, serde_json::from_value(results).expect("a list of results"), said)
}

/// Makes an empty library. Returns it and its directory.
fn inert_library() -> (tempfile::TempDir, PathBuf) {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let library = scratch.path().join("libinert.so");
    let compiled = Command::new("cc").args(["-shared", "-x", "c", "/dev/null", "-o"]).arg(&library).status();
    assert!(compiled.expect("a C compiler").success());
    (scratch, library)
}

/// Runs a program of examples/gunicorn. Returns whether its promise was kept, its
/// report, and all its output.
fn run(program: &str, library: &Path, arguments: &[&str]) -> (bool, Value, String) {
    let packages = packages();
    let scratch = tempfile::tempdir_in(packages).expect("a directory");
    let report = scratch.path().join("demo.json");
    let output = Command::new(common::library::checkout().join("examples/gunicorn").join(program))
        .arg("--json")
        .arg(&report)
        .arg("--packages")
        .arg(packages)
        .arg("--root")
        .arg(scratch.path().join("root"))
        .args(arguments)
        .env("SOPIN_TEST_LIBRARY", library)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("the demonstration starts");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let report = std::fs::read(&report).unwrap_or_else(|error| panic!("no report: {error}\n{said}"));
    (output.status.success(), serde_json::from_slice(&report).expect("the report is JSON"), said)
}

/// Installs packages as `make demo` does, unless they are installed. Returns their directory.
fn packages() -> &'static Path {
    static DIRECTORY: LazyLock<PathBuf> = LazyLock::new(|| {
        let directory = common::library::checkout().join("target/demo");
        let python = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
        let output = Command::new(python)
            .args(["-c", PREPARE])
            .arg(&directory)
            .current_dir(common::library::checkout().join("examples/gunicorn"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .output()
            .expect("a Python starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}\nis there a Python with venv (Debian: apt-get install python3-venv)?");
        directory
    });
    &DIRECTORY
}

/// Prepares a directory as the demonstration does.
const PREPARE: &str = "import pathlib, sys, environment\n\
    root = pathlib.Path(sys.argv[1]).resolve()\n\
    with environment.alone(root):\n\
    \x20   environment.prepare(root)\n";

/// Returns how many mappings of copies a worker had.
fn copies(result: &Value) -> u64 {
    ["store", "memfd"].iter().filter_map(|kind| result["copies_in_use"][kind].as_u64()).sum()
}

//! Does what `make demo` does, and asserts what it shows: a busy gunicorn whose
//! shared objects are rewritten in place dies without the library, and with it
//! answers every request.

mod common;

use std::path::Path;
use std::process::Command;

use serde_json::Value;

#[test]
fn gunicorn_survives_the_rewriting_of_all_its_objects() {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
    let library = common::library::path().expect("the library under test");
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let report = scratch.path().join("demo.json");
    if let Err(reason) = can_set_up() {
        println!("skipped: {reason}");
        return;
    }
    let output = Command::new(checkout.join("examples/gunicorn/demo"))
        .arg("--json")
        .arg(&report)
        .env("SOPIN_TEST_LIBRARY", library)
        .output()
        .expect("the demonstration starts");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    let results: Vec<Value> =
        serde_json::from_slice(&std::fs::read(&report).expect("its report")).expect("its report is JSON");
    let find = |case: &str, mode: &str| {
        results
            .iter()
            .find(|result| result["case"] == case && result["mode"] == mode)
            .unwrap_or_else(|| panic!("no result for {case}, {mode}: {said}"))
    };

    for (case, mode) in [("busy", "full"), ("idle", "full"), ("idle", "relocated")] {
        let result = find(case, mode);
        assert_eq!(result["failed"], 0, "{said}");
        assert_eq!(result["killed"], serde_json::json!({}), "{said}");
        assert_eq!(result["server_survived"], true, "{said}");
        assert!(result["served"].as_u64() >= Some(20), "{said}");
    }
    for case in ["busy", "idle"] {
        let result = find(case, "without");
        let workers = result["killed"].as_object().map_or(0, serde_json::Map::len);
        assert!(workers != 0 || result["master_killed"].is_string(), "the unprotected server survived: {said}");
        assert!(result["failed"].as_u64() > Some(0), "{said}");
    }
}

/// Whether there is a Python that can make a virtual environment.
fn can_set_up() -> Result<(), String> {
    let python = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
    match Command::new(&python).args(["-c", "import venv, ensurepip"]).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(_) => Err(format!("{} has no venv (Debian: apt-get install python3-venv)", python.display())),
        Err(error) => Err(format!("{}: {error}", python.display())),
    }
}

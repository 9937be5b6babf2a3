//! Runs over all processes while processes start and end.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Case;
use crate::common::sopin;

pub const CASES: &[Case] = &[Case { name: "processes_that_vanish", needs: &["sleep"], test: processes_that_vanish }];

/// The number of processes that exist at one time, with neighbouring numbers.
const CROWD: usize = 60;

/// Spawns and kills processes until `stop` is set.
fn churn(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let spawn = || Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
        let mut crowd: Vec<Child> = (0..CROWD).map(|_| spawn()).collect();
        for child in &mut crowd {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

/// No run fails, and some processes end while they are examined.
fn processes_that_vanish() -> Result<(), String> {
    let stop = AtomicBool::new(false);
    let outcome = thread::scope(|scope| {
        scope.spawn(|| churn(&stop));
        let outcome = std::panic::catch_unwind(sweep_until_one_vanishes);
        stop.store(true, Ordering::Relaxed);
        outcome
    });
    outcome.map_err(|panic| std::panic::resume_unwind(panic))
}

fn sweep_until_one_vanishes() {
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut vanished = 0;
    let mut sweeps = 0;
    while vanished < 5 || sweeps < 20 {
        assert!(Instant::now() < deadline, "{sweeps} sweeps have seen {vanished} processes vanish");
        let output = sopin().args(["status", "--all", "--json"]).assert().stderr_eq("").get_output().clone();
        assert!(matches!(output.status.code(), Some(0 | 1 | 3 | 4)), "{output:?}");
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(answer["passed_over"]["failed"], 0, "{:#}", answer["not_inspected"]);
        // Processes of the crowd are being started and ended, and must not be reported
        // as damaged.
        for process in answer["processes"].as_array().unwrap() {
            assert!(process["name"] != "sleep" || process["damaged"] == 0, "{process:#}");
        }
        vanished += answer["passed_over"]["vanished"].as_u64().unwrap();
        sweeps += 1;
    }
}

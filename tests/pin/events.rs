//! A process that ends, executes another program, or makes tasks while it is pinned: the command
//! ends, and the process goes on as if nothing had happened (programs/events.c).

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::command::{self, Pin};
use crate::common::dialogue::Dialogue;
use crate::common::process::Outcome;
use crate::subject::passed;
use crate::{Case, Run, limit, patience, pins, tasks};

pub fn cases() -> Vec<Case> {
    let mut cases: Vec<_> = ["forks", "vforks", "threads", "all"]
        .into_iter()
        .map(|kind| Case::new(format!("events::{kind}"), move |run, directory| goes_on(run, directory, kind)))
        .collect();
    cases.push(Case::new("events::exits", exits));
    cases.push(Case::new("events::execs", execs));
    cases.push(Case::new("events::killed", killed));
    cases
}

fn start(run: &Run, directory: &Path, words: &[&str]) -> Result<Dialogue, String> {
    fs::create_dir_all(directory).map_err(|error| error.to_string())?;
    let mut command = Command::new(run.built("events"));
    command.args(words);
    let log = directory.join("events.log");
    let mut process = Dialogue::start(&mut command, &log, patience()).map_err(|error| error.to_string())?;
    process.wait_for("ready", 1)?;
    Ok(process)
}

/// Checks that the command has ended with a status that it documents.
fn has_ended(pin: &Pin) -> Result<(), String> {
    match pin.outcome {
        Outcome::Exit(0 | 1 | 3) if !pin.answer.is_null() => Ok(()),
        _ => Err(pin.describe("has no answer")),
    }
}

/// Pins processes that make tasks all the time, each once while it is exposed and once more.
fn goes_on(run: &Run, directory: &Path, kind: &str) -> Result<(), String> {
    for round in 0..pins(5) {
        let own = directory.join(round.to_string());
        let process = start(run, &own, &[kind])?;
        let pin = command::pin(process.id(), &own)?;
        pin.is_whole()?;
        tasks::none_is_traced(process.id()).map_err(|error| pin.describe(&error))?;
        has_ended(&command::pin(process.id(), &own)?)?;
        // What it does takes place with the pins, too.
        thread::sleep(Duration::from_millis(20));
        passed(&process.finish()?).map_err(|error| pin.describe(&error))?;
    }
    Ok(())
}

/// Pins processes that end at about that time.
fn exits(run: &Run, directory: &Path) -> Result<(), String> {
    for round in 0..pins(20) {
        let own = directory.join(round.to_string());
        let process = start(run, &own, &["exits", &(round * 8 % 160).to_string()])?;
        let pin = command::pin(process.id(), &own)?;
        has_ended(&pin)?;
        passed(&process.finish()?).map_err(|error| pin.describe(&error))?;
    }
    Ok(())
}

/// Pins a process that executes itself again and again, while its other thread is running.
fn execs(run: &Run, directory: &Path) -> Result<(), String> {
    let process = start(run, directory, &["execs", "401"])?;
    let mut pinned = 0;
    while process.count("ready") < 2 && pinned < pins(20) {
        match command::pin(process.id(), directory) {
            Ok(pin) => has_ended(&pin)?,
            Err(error) => return Err(error),
        }
        pinned += 1;
    }
    let finished = process.finish()?;
    passed(&finished).map_err(|error| format!("after {pinned} pins, {error}"))
}

/// Kills the process while it is traced.
fn killed(run: &Run, directory: &Path) -> Result<(), String> {
    let mut in_time = 0;
    let rounds = pins(12);
    for round in 0..rounds {
        let own = directory.join(round.to_string());
        let process = start(run, &own, &["all"])?;
        let pid = process.id();
        let is_over = AtomicBool::new(false);
        let (pin, was_traced) = thread::scope(|scope| {
            let killer = scope.spawn(|| {
                let deadline = Instant::now() + limit(Duration::from_secs(20));
                let is_traced = || tasks::is_any_traced(pid).unwrap_or(false);
                while !is_traced() && !is_over.load(Ordering::Relaxed) && Instant::now() < deadline {
                    std::hint::spin_loop();
                }
                thread::sleep(Duration::from_micros(300 * round as u64));
                let was_traced = is_traced();
                let _ = Pid::from_raw(pid.cast_signed()).map(|pid| kill_process(pid, Signal::KILL));
                was_traced
            });
            let pin = command::pin(pid, &own);
            is_over.store(true, Ordering::Relaxed);
            (pin, killer.join().unwrap_or(false))
        });
        let pin = pin?;
        has_ended(&pin)?;
        in_time += usize::from(was_traced);
        let finished = process.finish()?;
        if finished.outcome != Outcome::Signal(libc::SIGKILL) {
            return Err(pin.describe(&format!("the process {finished}")));
        }
    }
    if in_time == 0 { Err(format!("none of {rounds} processes was killed while it was traced")) } else { Ok(()) }
}

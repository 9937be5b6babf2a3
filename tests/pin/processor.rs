//! What only a stop at the wrong place could disturb: restartable sequences, registers, and
//! objects that are loaded and unloaded all the time.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use libtest_mimic::Completion;

use crate::command;
use crate::common::dialogue::Dialogue;
use crate::common::process::{Finished, Outcome};
use crate::subject::passed;
use crate::{Case, Run, patience, pins, tasks};

/// The exit status of a program in which something is wrong.
const WRONG: Outcome = Outcome::Exit(8);

pub fn cases() -> Vec<Case> {
    vec![
        Case::ignorable("processor::restartable_sequences", |run, own| pin_often(run, own, "restartable"))
            .with_needs(&["kernel>=5.13", "glibc>=2.35"]),
        Case::new("processor::control", unprotected_sequence).with_needs(&["glibc>=2.35", "cmd:gdb"]),
        // An older kernel does not show whether a thread that computes is in such a sequence.
        Case::ignorable("processor::registers", |run, own| pin_often(run, own, "registers"))
            .with_needs(&["kernel>=5.13"]),
        Case::new("loads::while_pinned", loads),
        Case::new("loads::control", careless_loads),
    ]
}

fn start(directory: &Path, command: &mut Command) -> Result<Dialogue, String> {
    fs::create_dir_all(directory).map_err(|error| error.to_string())?;
    let log = directory.join("program.log");
    let mut process = Dialogue::start(command, &log, patience()).map_err(|error| format!("{command:?}: {error}"))?;
    process.wait_for("ready", 1)?;
    Ok(process)
}

/// Pins many processes, each once.
fn pin_often(run: &Run, directory: &Path, program: &str) -> Result<Completion, String> {
    for round in 0..pins(12) {
        let own = directory.join(round.to_string());
        let process = match start(&own, &mut Command::new(run.built(program))) {
            Err(error) if error.contains("ended with exit:77") => {
                return Ok(Completion::ignored_with("the C library has not registered a restartable sequence"));
            }
            started => started?,
        };
        let pin = command::pin(process.id(), &own)?;
        pin.is_whole()?;
        tasks::none_is_traced(process.id())?;
        passed(&process.finish()?).map_err(|error| pin.describe(&error))?;
    }
    Ok(Completion::Completed)
}

/// gdb lets a thread call a function in the middle of a restartable sequence, which then goes on
/// without protection. The program notices that.
fn unprotected_sequence(run: &Run, directory: &Path) -> Result<(), String> {
    let mut last = None;
    for round in 0..5 {
        let own = directory.join(round.to_string());
        let process = start(&own, &mut Command::new(run.built("restartable")))?;
        let mut gdb = Command::new("gdb");
        gdb.args(["-nx", "-batch", "-p", &process.id().to_string()]).args(["-ex", "call (int)getpid()"]);
        let output = gdb.output().map_err(|error| format!("gdb: {error}"))?;
        let finished = process.finish()?;
        if finished.outcome == WRONG {
            return Ok(());
        }
        last = Some((finished, String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Err(format!("no sequence was seen to go on unprotected: {last:?}"))
}

/// Runs `loads` for as long as `meanwhile` takes.
fn run_loads(
    run: &Run,
    directory: &Path,
    mode: &[&str],
    meanwhile: impl FnOnce(&mut Dialogue) -> Result<(), String>,
) -> Result<Finished, String> {
    fs::create_dir_all(directory).map_err(|error| error.to_string())?;
    let library = directory.join("lib0.so");
    fs::copy(run.built("libplug.so"), &library).map_err(|error| error.to_string())?;
    let mut command = Command::new(run.built("loads"));
    command.args(mode).arg(&library);
    let mut process = start(directory, &mut command)?;
    meanwhile(&mut process)?;
    process.finish()
}

/// Pins a process that loads and unloads a library, and maps memory where it was.
fn loads(run: &Run, directory: &Path) -> Result<(), String> {
    let finished = run_loads(run, directory, &[], |process| {
        let (rounds, mut stopped) = (pins(60), 0);
        for _ in 0..rounds {
            let pin = command::pin(process.id(), directory)?;
            // An object may be gone when the process is stopped.
            if !matches!(pin.outcome, Outcome::Exit(0 | 1)) || process.is_over()? {
                return Err(pin.describe(&format!("failed, or the process died: {}", process.stdout())));
            }
            stopped += usize::from(pin.number("stops")? != 0);
        }
        // The library is not always loaded when the command looks.
        if stopped < rounds / 10 {
            return Err(format!("only {stopped} of {rounds} pins found an object that was exposed"));
        }
        tasks::none_is_traced(process.id())
    })?;
    passed(&finished)
}

/// The program notices a thread that replaces pages that it saw some time ago.
fn careless_loads(run: &Run, directory: &Path) -> Result<(), String> {
    for round in 0..5 {
        let own = directory.join(round.to_string());
        let finished = run_loads(run, &own, &["careless"], |process| {
            for _ in 0..100 {
                if process.is_over()? {
                    break;
                }
                thread::sleep(Duration::from_millis(50));
            }
            Ok(())
        })?;
        if matches!(finished.outcome, WRONG | Outcome::Signal(_)) {
            return Ok(());
        }
    }
    Err("no damage was seen".to_owned())
}

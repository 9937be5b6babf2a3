//! A process that is sent a signal of job control while it is being pinned is stopped afterwards,
//! as if it had not been pinned, and goes on when it is sent SIGCONT. Signals that it ignores
//! interrupt no call, although the kernel keeps them for a process that is traced.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::command;
use crate::common::dialogue::Dialogue;
use crate::common::process::{self, Finished, Outcome};
use crate::killed::begins_to_trace;
use crate::states::{await_state, send};
use crate::subject::{Subject, passed};
use crate::{Case, Random, Run, limit, patience, pins, tasks};

/// The longest time for one pin, and until a call is interrupted.
const LONGEST: Duration = Duration::from_secs(30);

/// How `sleepers` ends when a call was interrupted.
const INTERRUPTED: Outcome = Outcome::Exit(8);

pub fn cases() -> Vec<Case> {
    let stopped = |(name, signal)| {
        Case::new(format!("signals::stopped_while_pinned::{name}"), move |run, own| {
            stopped_while_pinned(run, own, signal)
        })
    };
    let mut cases: Vec<_> = [("SIGSTOP", Signal::STOP), ("SIGTSTP", Signal::TSTP)].map(stopped).into();
    cases.push(Case::new("signals::ignored_while_pinned", ignored_while_pinned));
    cases.push(Case::new("signals::control", handled));
    cases
}

/// Starts `sleepers` and sends it signals all the time, also during `action`. Returns how it ends.
fn sleep_among_signals(
    run: &Run,
    own: &Path,
    arguments: &[&str],
    action: impl FnOnce(u32) -> Result<(), String>,
) -> Result<Finished, String> {
    fs::create_dir_all(own).map_err(|error| error.to_string())?;
    let mut command = Command::new(run.built("sleepers"));
    let log = own.join("sleepers.log");
    let mut process = Dialogue::start(command.args(arguments), &log, patience()).map_err(|error| error.to_string())?;
    process.wait_for("ready", 1)?;
    let (id, is_over) = (process.id(), AtomicBool::new(false));
    let done = thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                // It may have ended already.
                let _ = [Signal::WINCH, Signal::URG, Signal::CHILD].map(|signal| send(id, signal));
                thread::sleep(Duration::from_micros(50));
            }
        });
        let done = action(id);
        is_over.store(true, Ordering::Relaxed);
        done
    });
    done?;
    process.finish()
}

fn ignored_while_pinned(run: &Run, directory: &Path) -> Result<(), String> {
    for round in 0..pins(12) {
        let own = directory.join(round.to_string());
        let mut pin = None;
        let finished = sleep_among_signals(run, &own, &[], |id| {
            pin = Some(command::pin(id, &own)?);
            Ok(())
        })?;
        let pin = pin.ok_or("no pin")?;
        pin.is_whole()?;
        passed(&finished).map_err(|error| pin.describe(&error))?;
    }
    Ok(())
}

/// The program notices signals that interrupt its threads. Most of them reach the first one, which does
/// not mind.
fn handled(run: &Run, directory: &Path) -> Result<(), String> {
    let wait = |id| {
        let process = Pid::from_raw(i32::try_from(id).unwrap_or_default()).ok_or("no process")?;
        process::ends_within(process, limit(LONGEST)).map(drop).map_err(|error| error.to_string())
    };
    let finished = sleep_among_signals(run, directory, &["handles"], wait)?;
    if finished.outcome == INTERRUPTED { Ok(()) } else { Err(format!("no call was interrupted: {finished}")) }
}

fn stopped_while_pinned(run: &Run, directory: &Path, signal: Signal) -> Result<(), String> {
    let mut subject = Subject::start(run, directory, &["threads", "2"])?;
    let (mut random, mut in_time) = (Random::new(), 0);
    let rounds = pins(10);
    for round in 0..rounds {
        if round != 0 {
            subject.load()?;
        }
        let mut pin = command::pin_command(subject.id(), directory)?;
        pin.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut pin = process::spawn(&mut pin).map_err(|error| error.to_string())?;
        let is_traced = begins_to_trace(&mut pin, subject.id())?;
        thread::sleep(Duration::from_micros(random.below(3000)));
        in_time += usize::from(is_traced && tasks::is_any_traced(subject.id())?);
        send(subject.id(), signal)?;
        let status = end(&mut pin)?;
        let wrong = |error: String| format!("round {round}, {in_time} signals in time: {error}");
        if !status.success() {
            return Err(wrong(format!("sopin pin: {status}")));
        }
        tasks::none_is_traced(subject.id()).map_err(wrong)?;
        await_state(subject.id(), 'T').map_err(wrong)?;
        subject.is_out_of_reach().map_err(wrong)?;
        send(subject.id(), Signal::CONT)?;
        subject.say("call", "called").map_err(wrong)?;
    }
    if in_time == 0 {
        return Err(format!("none of {rounds} signals came while the process was traced"));
    }
    subject.truncate_and_stop()
}

/// Waits until the command has ended.
fn end(pin: &mut Child) -> Result<ExitStatus, String> {
    let deadline = Instant::now() + limit(LONGEST);
    loop {
        if let Some(status) = pin.try_wait().map_err(|error| error.to_string())? {
            return Ok(status);
        }
        if Instant::now() > deadline {
            // A tracer that is killed releases what it traces.
            let _ = pin.kill();
            return Err(format!("sopin pin hangs: {:?}", pin.wait()));
        }
        thread::sleep(Duration::from_millis(1));
    }
}

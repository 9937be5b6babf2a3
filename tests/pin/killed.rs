//! The process survives when the command that pins it is killed or interrupted at any instant,
//! and the next pin completes what the first one has begun.
//!
//! One moment is not safe: when the command dies between two requests that stand next to each other,
//! the one that makes a task enter `mremap(2)` and the one that lets it go on, the process makes that
//! call while its other threads run, and what they store just then is lost. Under a seccomp filter it is
//! then the filter that sees the call, because its suspension ends with the command.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::command::{self, Pin};
use crate::common::process;
use crate::memory::Scene;
use crate::subject::Subject;
use crate::{Case, Random, Run, limit, patience, pins, tasks};

const WORDS: &[&str] = &["threads", "2"];
/// A filter kills the process if it makes a call of the command's.
const FILTERED: &[&str] = &["threads", "2", "kill"];

/// The time in which the command begins to trace the process.
const BEGINS: Duration = Duration::from_secs(20);

pub fn cases() -> Vec<Case> {
    let random = |name: &str, signal| {
        Case::new(format!("killed::at_random_times::{name}"), move |run, directory| {
            at_random_times(run, directory, signal)
        })
    };
    vec![
        Case::new("killed::between_requests", |run, directory| between_requests(run, directory, WORDS)),
        Case::new("killed::between_requests_under_a_filter", |run, directory| {
            between_requests(run, directory, FILTERED)
        })
        .with_needs(&["root"]),
        random("SIGKILL", Signal::KILL),
        random("SIGTERM", Signal::TERM),
        random("SIGINT", Signal::INT),
    ]
}

/// Kills the command at points that are distributed over all of its requests to ptrace(2).
fn between_requests(run: &Run, directory: &Path, words: &[&str]) -> Result<(), String> {
    let all = {
        let own = directory.join("all");
        let subject = Subject::start(run, &own, words)?;
        let (count, _) = kill_at(run, &subject, words, 0)?;
        subject.is_out_of_reach()?;
        subject.truncate_and_stop()?;
        count
    };
    let points = pins(30).min(all);
    let (mut died, mut lost) = (Vec::new(), 0);
    for point in 0..points {
        // The requests are entered and left, so that both are among the points.
        let nth = 1 + point * all / points + usize::from(point % 2 == 1 && all > 2 * points);
        let subject = Subject::start(run, &directory.join(nth.to_string()), words)?;
        let scene = Scene::of(subject.id())?;
        let (reached, is_exposed) = kill_at(run, &subject, words, nth)?;
        if reached != nth {
            // Another run may need fewer requests.
            subject.stop()?;
            continue;
        }
        match survives(subject, &scene) {
            Err(error) if error.contains("stores are lost") => lost += 1,
            Err(_) if is_exposed && words == FILTERED => {}
            Err(error) => died.push(format!("{nth} of {all}: {error}")),
            Ok(()) => {}
        }
    }
    if lost > 1 + points / 50 {
        died.push(format!("stores were lost at {lost} points"));
    }
    if died.is_empty() { Ok(()) } else { Err(format!("{} of {points} points\n{}", died.len(), died.join("\n"))) }
}

/// Runs the command under `killer` and returns how often it has entered or left ptrace(2), and whether a
/// task was at the entry of a call then that it was made to make.
fn kill_at(run: &Run, subject: &Subject, words: &[&str], nth: usize) -> Result<(usize, bool), String> {
    let pin = command::pin_command(subject.id(), &subject.directory)?;
    let mut command = Command::new(run.built("killer"));
    // The command may suspend a filter only if it is under none itself.
    command.args((words == FILTERED).then_some("unfiltered"));
    command.arg(nth.to_string()).arg(pin.get_program()).args(pin.get_args());
    for (name, value) in pin.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let finished = process::run(&mut command, &subject.directory.join("killer.log"), patience())
        .map_err(|error| error.to_string())?;
    let count = finished.stdout.lines().last().and_then(|line| line.parse().ok());
    let is_exposed = finished.stdout.lines().any(|line| line == "exposed");
    count.map(|count| (count, is_exposed)).ok_or_else(|| format!("killer {finished}"))
}

fn start(run: &Run, directory: &Path) -> Result<Subject, String> {
    Subject::start(run, directory, WORDS)
}

/// Checks that the process goes on with the signals that it had, and that the next pin is whole.
fn survives(subject: Subject, scene: &Scene) -> Result<(), String> {
    let died = |error: String, subject: &mut Subject| match subject.dialogue.is_over() {
        Ok(true) => format!("the process has died; {error}"),
        _ => error,
    };
    let mut subject = subject;
    let checked = tasks::none_is_traced(subject.id())
        .and_then(|()| subject.say("call", "called"))
        .and_then(|()| scene.has_same_tasks(subject.id()))
        .and_then(|()| subject.pin())
        .and_then(|pin| is_complete(&pin, &subject));
    checked.map_err(|error| died(error, &mut subject))?;
    subject.truncate_and_stop()
}

/// Checks that everything is pinned; there may have been nothing left to do.
fn is_complete(pin: &Pin, subject: &Subject) -> Result<(), String> {
    if !pin.objects()?.is_empty() {
        pin.is_whole()?;
    }
    subject.is_out_of_reach().map_err(|wrong| pin.describe(&wrong))
}

fn at_random_times(run: &Run, directory: &Path, signal: Signal) -> Result<(), String> {
    let (mut random, mut in_time, mut died) = (Random::new(), 0, Vec::new());
    let rounds = pins(12);
    for round in 0..rounds {
        let subject = start(run, &directory.join(round.to_string()))?;
        let scene = Scene::of(subject.id())?;
        let delay = Duration::from_micros(random.below(8000));
        let mut pin = command::pin_command(subject.id(), &subject.directory)?;
        let mut tracer =
            pin.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().map_err(|e| e.to_string())?;
        if begins_to_trace(&mut tracer, subject.id())? {
            thread::sleep(delay);
            in_time += usize::from(tasks::is_any_traced(subject.id()).unwrap_or(false));
        }
        if tracer.try_wait().map_err(|error| error.to_string())?.is_none() {
            // It has not been waited for, so the number is its own.
            let _ = kill_process(Pid::from_child(&tracer), signal);
            if !process::ends_within(Pid::from_child(&tracer), limit(BEGINS)).map_err(|error| error.to_string())? {
                let _ = tracer.kill();
                died.push(format!("round {round}: the command does not end"));
            }
            tracer.wait().map_err(|error| error.to_string())?;
        }
        if let Err(error) = survives(subject, &scene) {
            died.push(format!("round {round}, after {delay:?}: {error}"));
        }
    }
    if !died.is_empty() {
        return Err(format!("{} of {rounds}, {in_time} in time\n{}", died.len(), died.join("\n")));
    }
    if in_time == 0 { Err(format!("none of {rounds} signals came while the process was traced")) } else { Ok(()) }
}

/// Waits until the process is traced. Returns `false` if the command ends before.
///
/// # Errors
/// The process has ended.
pub fn begins_to_trace(tracer: &mut Child, pid: u32) -> Result<bool, String> {
    let deadline = Instant::now() + limit(BEGINS);
    while Instant::now() < deadline {
        if tasks::is_any_traced(pid)? {
            return Ok(true);
        }
        if tracer.try_wait().map_err(|error| error.to_string())?.is_some() {
            return Ok(false);
        }
    }
    Ok(false)
}

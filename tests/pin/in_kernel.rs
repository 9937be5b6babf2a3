//! Threads that do not execute the program's instructions: a worker of the kernel's, which cannot make
//! the system calls of a pin; and threads that do not stop as long as they wait for a page, or for the
//! answer of a file system, during which the other threads must not stand still for long.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Completion;

use crate::command;
use crate::common::dialogue::Dialogue;
use crate::common::process::{Finished, Outcome};
use crate::common::protection;
use crate::memory::{self, Scene, Vma};
use crate::subject::{Subject, passed};
use crate::{Case, Run, limit, patience, tasks};

/// The longest stop of a process that has a worker, in microseconds. A call of one of its threads
/// that does not return is given up after 10 s.
const LONGEST_STOP: u64 = 2_000_000;

/// The longest time for which such threads may hinder the others.
const LONGEST_PAUSE: Duration = Duration::from_millis(1500);

pub fn cases() -> Vec<Case> {
    vec![
        // Its threads make no system calls, and an older kernel does not show that they are in no
        // restartable sequence.
        Case::ignorable("in_kernel::worker", worker).with_needs(&["io_uring", "kernel>=5.13"]),
        Case::ignorable("in_kernel::late_fault", late_fault),
        Case::ignorable("in_kernel::unanswered", unanswered).with_needs(&["root", "filesystem:fuse"]),
        Case::ignorable("in_kernel::answered_late", answered_late).with_needs(&["root", "filesystem:fuse"]),
    ]
}

/// Starts a host, or returns why this machine cannot run it.
fn start(run: &Run, directory: &Path, words: &[&str]) -> Result<Result<Subject, Completion>, String> {
    match Subject::start(run, directory, words) {
        Err(error) if error.contains("ended with exit:77") => {
            Ok(Err(Completion::ignored_with(format!("the kernel refuses {words:?}"))))
        }
        started => Ok(Ok(started?)),
    }
}

/// The worker is in a system call, the other thread is not. The request to `io_uring` keeps the
/// writable ranges from being pinned, and nothing else.
fn worker(run: &Run, directory: &Path) -> Result<Completion, String> {
    let mut subject = match start(run, directory, &["worker", "busy"])? {
        Err(ignored) => return Ok(ignored),
        Ok(subject) => subject,
    };
    if tasks::all(subject.id())?.len() != 2 {
        return Err(format!("there has to be one worker: {:?}", tasks::all(subject.id())));
    }
    let is_text = |vma: &Vma| vma.mode.contains('x') && Path::new(&vma.path) == subject.newest();
    let text = memory::mappings(subject.id())?.into_iter().find(is_text).ok_or("no text")?;
    let scene = Scene::of(subject.id())?;
    let pin = subject.pin()?;
    tasks::none_is_traced(subject.id())?;
    scene.is_still(subject.id()).map_err(|wrong| pin.describe(&wrong))?;
    if pin.number("longest_stop_us")? > LONGEST_STOP {
        return Err(pin.describe("stopped the process for a long time"));
    }
    if memory::mappings(subject.id())?.contains(&text) {
        return Err(pin.describe("left the text of the library"));
    }
    let newest = subject.newest().to_string_lossy().into_owned();
    let reason = pin.objects()?.iter().find(|object| object["path"] == newest).map(|object| object["reason"].clone());
    if !reason.is_some_and(|reason| reason.as_str().is_some_and(|reason| reason.contains("io_uring"))) {
        return Err(pin.describe("has to say that it left the data because of io_uring"));
    }
    subject.say("call", "called")?;
    subject.stop()?;
    Ok(Completion::Completed)
}

/// The pin is given up, and the command that `sopin pin` starts does not keep the thread.
fn late_fault(run: &Run, directory: &Path) -> Result<Completion, String> {
    let mut subject = match start(run, directory, &["threads", "1", "gauge", "fault"])? {
        Err(ignored) => return Ok(ignored),
        Ok(subject) => subject,
    };
    let mut command = Command::new(command::path()?);
    protection::forget_settings(&mut command);
    command.env("SOPIN_STORE", directory.join("store")).arg("pin").arg(subject.id().to_string());
    command.args(["--", "sh", "-c", "echo started; read line; exit 42"]);
    let log = directory.join("command.log");
    let mut command = Dialogue::start(&mut command, &log, patience()).map_err(|error| error.to_string())?;
    command.wait_for("started", 1)?;
    let stderr = fs::read_to_string(log.with_extension("stderr")).map_err(|error| error.to_string())?;
    if !stderr.contains("did not stop in time") {
        return Err(format!("sopin pin has to refuse: {stderr:?}"));
    }
    subject.dialogue.say("resolve");
    tasks::none_is_traced(subject.id())?;
    subject.dialogue.wait_for("resolved", 1)?;
    if command.is_over()? {
        return Err("the command has ended too early".to_owned());
    }
    command.say("end");
    passed(&command.finish()?)?;
    subject.pin_whole()?;
    subject.truncate()?;
    has_short_pause(&subject.finish()?)?;
    Ok(Completion::Completed)
}

/// Checks that the host has passed, and that its threads have not stood still for long.
fn has_short_pause(finished: &Finished) -> Result<(), String> {
    passed(finished)?;
    let pause = finished.stdout.lines().find_map(|line| line.strip_prefix("longest ")?.parse::<u64>().ok());
    match pause.map(Duration::from_millis) {
        Some(pause) if pause <= limit(LONGEST_PAUSE) => Ok(()),
        _ => Err(format!("the other threads stood still for {pause:?}")),
    }
}

/// Many threads wait for an answer that does not come. The process is refused.
fn unanswered(run: &Run, directory: &Path) -> Result<Completion, String> {
    let subject = match start(run, directory, &["gauge", "unanswered", "600000"])? {
        Err(ignored) => return Ok(ignored),
        Ok(subject) => subject,
    };
    let pin = subject.pin()?;
    if pin.refusal() != Some("does-not-stop") || pin.outcome != Outcome::Exit(3) {
        return Err(pin.describe("has to refuse a process that does not stop"));
    }
    has_short_pause(&subject.finish()?)?;
    Ok(Completion::Completed)
}

/// The answer comes while the command tries again.
fn answered_late(run: &Run, directory: &Path) -> Result<Completion, String> {
    let subject = match start(run, directory, &["gauge", "unanswered", "1000"])? {
        Err(ignored) => return Ok(ignored),
        Ok(subject) => subject,
    };
    let pin = subject.pin()?;
    pin.is_whole()?;
    tasks::none_is_traced(subject.id())?;
    subject.is_out_of_reach().map_err(|wrong| pin.describe(&wrong))?;
    subject.truncate()?;
    has_short_pause(&subject.finish()?)?;
    Ok(Completion::Completed)
}

//! Processes in particular states: each is pinned and then survives the truncation of its
//! libraries, or is refused and is unharmed. For each state there is a control that is not pinned
//! and dies.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Completion;
use rustix::process::{Pid, Signal, kill_process};

use crate::command::{self, Pin};
use crate::common::dialogue::Dialogue;
use crate::common::process::Outcome;
use crate::memory::Scene;
use crate::subject::{Subject, passed};
use crate::{Case, Run, limit, patience, tasks};

/// The number of a user without rights.
const NOBODY: &str = "65534";
/// The options by which `setpriv` becomes that user.
pub const AS_NOBODY: [&str; 5] = ["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"];

/// States that do not keep a process from being pinned.
const PINNED: [(&str, &[&str]); 6] = [
    ("idle", &[]),
    ("threads", &["threads", "3"]),
    ("no_descriptors_left", &["nofile"]),
    ("small_address_space", &["as"]),
    ("write_xor_execute", &["mdwe"]),
    ("not_dumpable", &["nondumpable"]),
];

/// States of which only root makes a process, or which only root can pin.
const PINNED_BY_ROOT: [(&str, &[&str]); 6] = [
    ("other_user", &["user", NOBODY]),
    ("filter::errno", &["errno"]),
    ("filter::trap", &["trap"]),
    ("filter::kill", &["kill"]),
    ("filter::strict", &["strict"]),
    ("filter::kill_threads", &["threads", "2", "kill"]),
];

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, words) in PINNED {
        cases.push(Case::ignorable(format!("states::{name}"), move |run, own| is_pinned(run, own, words)));
    }
    // An older kernel passes no descriptors to such a process.
    let first_thread_ended = |run: &Run, own: &Path| is_pinned(run, own, &["threads", "1", "leader_exits"]);
    cases.push(Case::ignorable("states::first_thread_ended", first_thread_ended).with_needs(&["kernel>=6.9"]));
    for (name, words) in PINNED_BY_ROOT {
        let case = Case::ignorable(format!("states::{name}"), move |run, own| is_pinned(run, own, words));
        cases.push(case.with_needs(&["root"]));
    }
    for (name, words) in PINNED_BY_ROOT.iter().filter(|(name, _)| name.starts_with("filter::")) {
        let case = Case::new(format!("states::without_capability::{name}"), move |run, own| {
            is_refused(run, own, words, "filtered", &["--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"])
        });
        cases.push(case.with_needs(&["root", "cmd:setpriv"]));
    }
    cases.extend([
        Case::new("states::no_data_left", |run, own| is_explained(run, own, "data")),
        Case::new("states::no_more_descriptors_permitted", |run, own| is_explained(run, own, "nofile_hard")),
        Case::new("states::inaccessible_page", inaccessible_page),
        Case::new("states::stopped", stopped),
        Case::new("states::traced", traced),
        Case::new("states::statically_linked", |run, own| statically_linked(run, own, &["threads", "2"])),
        Case::ignorable("states::of_32_bits", of_32_bits),
        Case::new("states::denied", |run, own| is_refused(run, own, &[], "denied", &AS_NOBODY))
            .with_needs(&["root", "cmd:setpriv"]),
        Case::new("states::same_user", |run, own| same_user(run, own, &AS_NOBODY)).with_needs(&["root", "cmd:setpriv"]),
        Case::ignorable("namespaces::chroot", |run, own| {
            let root = own.join("root");
            fs::create_dir(&root).map_err(|error| error.to_string())?;
            is_pinned(run, own, &["chroot", &root.to_string_lossy()])
        })
        .with_needs(&["root"]),
        Case::ignorable("namespaces::hidden_store", |run, own| {
            is_pinned(run, own, &["threads", "1", "hide", &own.to_string_lossy()])
        })
        .with_needs(&["root"]),
        Case::new("namespaces::container", container).with_needs(&["root", "cmd:unshare"]),
    ]);
    cases
}

/// Pins a host in this state; another one that is not pinned dies.
fn is_pinned(run: &Run, directory: &Path, words: &[&str]) -> Result<Completion, String> {
    let subject = match Subject::start(run, &directory.join("pinned"), words) {
        Err(error) if error.contains("ended with exit:77") => {
            return Ok(Completion::ignored_with(format!("the kernel refuses {words:?}")));
        }
        started => started?,
    };
    subject.pin_whole()?;
    subject.truncate_and_stop()?;
    Subject::start(run, &directory.join("control"), words)?.truncate_and_die()?;
    Ok(Completion::Completed)
}

/// Checks that the command, started by `setpriv`, refuses to pin the process and leaves it as it
/// was.
fn is_refused(run: &Run, directory: &Path, words: &[&str], code: &str, privileges: &[&str]) -> Result<(), String> {
    let subject = Subject::start(run, directory, words)?;
    let scene = Scene::of(subject.id())?;
    let pin = command::run(&mut with_privileges(subject.id(), directory, privileges)?, directory)?;
    if pin.refusal() != Some(code) || pin.outcome != Outcome::Exit(3) {
        return Err(pin.describe(&format!("has to refuse with {code:?}")));
    }
    tasks::none_is_traced(subject.id())?;
    scene.is_still(subject.id())?;
    subject.stop()
}

/// Returns `sopin pin --json PID`, started by `setpriv`, without a store.
///
/// # Errors
/// There is no command.
pub fn with_privileges(pid: u32, directory: &Path, privileges: &[&str]) -> Result<Command, String> {
    let pin = command::pin_command(pid, directory)?;
    let mut command = Command::new("setpriv");
    command.args(privileges).arg("--").arg(pin.get_program()).args(pin.get_args()).env("SOPIN_STORE", "off");
    Ok(command)
}

/// A user pins the own process, without privileges.
fn same_user(run: &Run, directory: &Path, privileges: &[&str]) -> Result<(), String> {
    let mut host = Command::new("setpriv");
    host.args(privileges).arg("--").arg(run.built("host"));
    let subject = Subject::start_by(host, run, directory, &["threads", "1"])?;
    let pin = command::run(&mut with_privileges(subject.id(), directory, privileges)?, directory)?;
    pin.is_whole()?;
    subject.is_out_of_reach()?;
    subject.truncate_and_stop()
}

/// Where a limit keeps the command from pinning, it says so, and does no harm.
fn is_explained(run: &Run, directory: &Path, word: &str) -> Result<(), String> {
    let subject = Subject::start(run, directory, &["threads", "1", word])?;
    let scene = Scene::of(subject.id())?;
    let pin = subject.pin()?;
    tasks::none_is_traced(subject.id())?;
    let is_explained = |pin: &Pin| match pin.objects() {
        Ok(objects) => objects.iter().all(|object| object["after"] == "full" || object["reason"].is_string()),
        Err(_) => pin.refusal().is_some(),
    };
    if !is_explained(&pin) {
        return Err(pin.describe("does not say why"));
    }
    scene.is_still(subject.id()).map_err(|wrong| pin.describe(&wrong))?;
    if pin.is_whole().is_ok() { subject.truncate_and_stop() } else { subject.stop() }
}

/// A page of an object that the process has made inaccessible is replaced, too, and has its bytes
/// when it is accessible again.
fn inaccessible_page(run: &Run, directory: &Path) -> Result<(), String> {
    let subject = Subject::start(run, directory, &["threads", "1", "protect"])?;
    let scene = Scene::of(subject.id())?;
    let pin = subject.pin()?;
    pin.is_whole()?;
    scene.is_still(subject.id()).map_err(|wrong| pin.describe(&wrong))?;
    subject.truncate_and_stop()
}

/// Sends a signal to a process.
///
/// # Errors
/// It has ended.
pub fn send(pid: u32, signal: Signal) -> Result<(), String> {
    let pid = Pid::from_raw(pid.cast_signed()).ok_or("no process 0")?;
    kill_process(pid, signal).map_err(|error| error.to_string())
}

/// A process that SIGSTOP has stopped stays so.
fn stopped(run: &Run, directory: &Path) -> Result<(), String> {
    let mut subject = Subject::start(run, directory, &["threads", "2"])?;
    send(subject.id(), Signal::STOP)?;
    await_state(subject.id(), 'T')?;
    // The scene includes that state, of all threads.
    subject.pin_whole()?;
    send(subject.id(), Signal::CONT)?;
    subject.say("call", "called")?;
    subject.truncate_and_stop()
}

/// Waits until all threads of a process are in a state.
///
/// # Errors
/// It has ended, or they do not get into it.
pub fn await_state(pid: u32, state: char) -> Result<(), String> {
    let deadline = Instant::now() + limit(Duration::from_secs(10));
    while tasks::all(pid)?.iter().any(|task| task.state != state) {
        if Instant::now() > deadline {
            return Err(format!("the process does not get into state {state}: {:?}", tasks::all(pid)));
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// A process that is traced is refused, and pinned when it is not any more.
fn traced(run: &Run, directory: &Path) -> Result<(), String> {
    let subject = Subject::start(run, directory, &["threads", "1"])?;
    let mut intruder = Command::new(run.built("intruder"));
    intruder.args(["hold", &subject.id().to_string()]);
    let log = directory.join("intruder.log");
    let mut intruder = Dialogue::start(&mut intruder, &log, patience()).map_err(|error| error.to_string())?;
    intruder.wait_for("held", 1)?;
    let pin = subject.pin()?;
    if pin.refusal() != Some("traced") || pin.outcome != Outcome::Exit(3) {
        return Err(pin.describe("has to refuse a traced process"));
    }
    intruder.finish()?;
    subject.pin_whole()?;
    subject.truncate_and_stop()
}

/// A static program has one object, whose counters are not disturbed.
///
/// # Errors
/// It is not pinned whole, or is disturbed.
pub fn statically_linked(run: &Run, directory: &Path, words: &[&str]) -> Result<(), String> {
    let mut command = Command::new(run.built("static_host"));
    command.args(words);
    let log = directory.join("host.log");
    let mut process = Dialogue::start(&mut command, &log, patience()).map_err(|error| error.to_string())?;
    process.wait_for("ready", 1)?;
    let scene = Scene::of(process.id())?;
    let pin = command::pin(process.id(), directory)?;
    pin.is_whole()?;
    tasks::none_is_traced(process.id())?;
    scene.is_still(process.id()).map_err(|wrong| pin.describe(&wrong))?;
    process.say("stop");
    passed(&process.finish()?)
}

/// A program of 32 bits is refused.
fn of_32_bits(run: &Run, directory: &Path) -> Result<Completion, String> {
    let mut command = Command::new(run.built("program32"));
    let Ok(mut process) = Dialogue::start(&mut command, &directory.join("program32.log"), patience()) else {
        return Ok(Completion::ignored_with("no program of 32 bits can be compiled and run here"));
    };
    process.wait_for("ready", 1)?;
    let scene = Scene::of(process.id())?;
    let pin = command::pin(process.id(), directory)?;
    if pin.refusal() != Some("other-machine") || pin.outcome != Outcome::Exit(3) {
        return Err(pin.describe("has to refuse a program of 32 bits"));
    }
    tasks::none_is_traced(process.id())?;
    scene.is_still(process.id())?;
    passed(&process.finish()?)?;
    Ok(Completion::Completed)
}

/// A process in mount, PID, network and IPC namespaces of its own, whose root is elsewhere.
fn container(run: &Run, directory: &Path) -> Result<(), String> {
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--pid", "--net", "--ipc", "--fork", "--kill-child", "--"]).arg(run.built("host"));
    let mut subject =
        Subject::start_by(unshare, run, directory, &["threads", "2", "hide", &directory.to_string_lossy()])?;
    let parent = subject.id();
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).map_err(|e| e.to_string())?;
    subject.names(children.trim().parse().map_err(|error| format!("children {children:?}: {error}"))?);
    subject.pin_whole()?;
    subject.truncate_and_stop()
}

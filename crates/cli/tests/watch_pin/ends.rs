//! What the end of the watch, or of the process that guards, does to those who wait: they go on.

use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use rustix::process::Signal;

use super::Case;
use super::bounds::Unstoppable;
use super::watching::{Watch, ruin, send, survives, wait_until};
use crate::common::clean_process;
use crate::common::victim::Victim;

pub const CASES: &[Case] = &[
    Case { name: "ends::the_watch_is_killed", needs: &["root", "cc"], test: || killed(Watch::pid, Signal::KILL) },
    Case { name: "ends::the_guard_is_killed", needs: &["root", "cc"], test: || killed(Watch::guard, Signal::KILL) },
    Case { name: "ends::the_watch_is_terminated", needs: &["root", "cc"], test: || killed(Watch::pid, Signal::TERM) },
    Case { name: "ends::a_dead_guard_ends_the_watch", needs: &["root", "cc"], test: guard_dies },
    Case { name: "ends::the_watch_is_stopped", needs: &["root", "cc"], test: watch_stopped },
    Case { name: "ends::the_guard_is_stopped", needs: &["root", "cc"], test: guard_stopped },
    Case { name: "ends::the_guard_does_not_answer", needs: &["root", "cc"], test: not_answering },
    Case { name: "ends::no_core_dump", needs: &["root", "cc"], test: no_core_dump },
    Case { name: "ends::nothing_reads_the_output", needs: &["root", "cc"], test: not_read },
    Case { name: "ends::without_rights", needs: &["root"], test: without_rights },
];

/// Opens a file for writing in a thread, and returns it when it waits for an answer.
fn waiting_writer(file: &Path) -> JoinHandle<Instant> {
    let file = file.to_owned();
    let (sender, id) = std::sync::mpsc::channel();
    let thread = thread::spawn(move || {
        sender.send(nix::unistd::gettid()).unwrap();
        fs::OpenOptions::new().append(true).open(file).unwrap();
        Instant::now()
    });
    let stat = format!("/proc/self/task/{}/stat", id.recv().unwrap());
    wait_until("the writer does not wait", || fs::read_to_string(&stat).unwrap().contains(") D "));
    thread
}

fn killed(whom: fn(&Watch) -> u32, signal: Signal) -> Result<(), String> {
    let victim = Victim::new();
    let unstoppable = Unstoppable::start(&victim);
    let watch = Watch::start(&victim);
    let writer = waiting_writer(&victim.library);
    let begun = Instant::now();
    send(whom(&watch), signal);
    let time = writer.join().unwrap().saturating_duration_since(begun);
    assert!(time < Duration::from_millis(700), "{time:?}");
    // From now on nobody waits.
    for _ in 0..100 {
        fs::OpenOptions::new().append(true).open(&victim.library).unwrap();
    }
    assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
    assert!(unstoppable.survives(), "nothing was written");
    Ok(())
}

/// A supervisor that starts the watch again must see that it does not guard any more.
fn guard_dies() -> Result<(), String> {
    let victim = Victim::new();
    let running = victim.start();
    let mut watch = Watch::start(&victim);
    send(watch.guard(), Signal::KILL);
    assert_eq!(watch.wait().code(), Some(3));
    assert!(survives(running));
    Ok(())
}

/// The guard is a process of its own and goes on.
fn watch_stopped() -> Result<(), String> {
    let victim = Victim::new();
    let running = victim.start();
    let watch = Watch::start(&victim);
    send(watch.pid(), Signal::STOP);
    let time = ruin(&victim.library);
    assert!(time < Duration::from_secs(2), "{time:?}");
    assert!(survives(running));
    send(watch.pid(), Signal::CONT);
    watch.wait_for("open", |_| true);
    assert!(watch.end(Signal::INT).success());
    Ok(())
}

/// The watch makes it go on.
fn guard_stopped() -> Result<(), String> {
    let victim = Victim::new();
    let running = victim.start();
    let watch = Watch::start(&victim);
    send(watch.guard(), Signal::STOP);
    let time = ruin(&victim.library);
    assert!(time < Duration::from_secs(2), "{time:?}");
    assert!(survives(running));
    watch.wait_for("guard", |line| line["what"] == "continued");
    Ok(())
}

/// A debugger stops the thread that answers. The watch ends the guard, and whoever waits goes on.
fn not_answering() -> Result<(), String> {
    let victim = Victim::new();
    let running = victim.start();
    let mut watch = Watch::start(&victim);
    let mut tasks = fs::read_dir(format!("/proc/{}/task", watch.guard())).unwrap().flatten();
    let answers = tasks.find(|task| fs::read_to_string(task.path().join("comm")).unwrap() == "answers\n").unwrap();
    let answers = nix::unistd::Pid::from_raw(answers.file_name().to_str().unwrap().parse().unwrap());
    ptrace::seize(answers, ptrace::Options::empty()).unwrap();
    ptrace::interrupt(answers).unwrap();
    let (library, begun) = (victim.library.clone(), Instant::now());
    let reader = thread::spawn(move || fs::File::open(library).unwrap());
    reader.join().unwrap();
    let time = begun.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(8)).contains(&time), "{time:?}");
    // The thread is there until its tracer has waited for it.
    while waitpid(answers, Some(WaitPidFlag::__WALL)).is_ok() {}
    assert_eq!(watch.wait().code(), Some(3));
    assert!(survives(running));
    Ok(())
}

/// The program that makes a core dump of the guard would open libraries, and wait for the guard.
fn no_core_dump() -> Result<(), String> {
    let victim = Victim::new();
    let running = victim.start();
    let watch = Watch::start(&victim);
    let limits = fs::read_to_string(format!("/proc/{}/limits", watch.guard())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().filter(|word| *word == "1").count(), 2, "{core}");
    assert!(survives(running));
    Ok(())
}

/// What the guard cannot report, it leaves out, and goes on.
fn not_read() -> Result<(), String> {
    let victim = Victim::new();
    let running = victim.start();
    let watch = Watch::start(&victim);
    // A stopped watch does not read what the guard reports.
    send(watch.pid(), Signal::STOP);
    for _ in 0..3 {
        assert!(ruin(&victim.library) < Duration::from_secs(2));
    }
    assert!(survives(running));
    send(watch.pid(), Signal::KILL);
    Ok(())
}

fn without_rights() -> Result<(), String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sopin"));
    clean_process(&mut command).args(["watch", "--pin"]).uid(65534).gid(65534);
    let mut child = match command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn() {
        Ok(child) => child,
        // The checkout may be in a directory that only root may enter.
        Err(error) => return Err(format!("another user cannot start the command: {error}")),
    };
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3), "{said}");
    assert!(said.contains("--pin") && said.contains("CAP_SYS_ADMIN"), "{said}");
    Ok(())
}

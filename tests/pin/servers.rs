//! A file whose server does not answer. The command waits for it while the process runs, and no longer
//! once it is interrupted.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use std::{fs, io};

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};

use crate::command;
use crate::common::process;
use crate::subject::Subject;
use crate::{Case, Run, limit, tasks};

/// The time in which the server is ready, and in which the command begins to wait for it.
const BEGINS: Duration = Duration::from_secs(20);
/// The longest time from the interruption to the end of the command.
const ENDS: Duration = Duration::from_secs(15);

pub fn cases() -> Vec<Case> {
    vec![Case::new("servers::interrupted", interrupted).with_needs(&["root", "filesystem:fuse", "cmd:bindfs"])]
}

/// A directory that a server shows as another one, until this is dropped.
struct Served {
    server: Child,
    shown: PathBuf,
}

impl Served {
    fn start(directory: &Path, shown: &Path) -> Result<Self, String> {
        fs::create_dir_all(shown).map_err(|error| error.to_string())?;
        let started = Command::new("bindfs").arg("-f").args([directory, shown]).stdin(Stdio::null()).spawn();
        let served = Self { server: started.map_err(|error| format!("bindfs: {error}"))?, shown: shown.to_owned() };
        wait_until("bindfs is ready", || {
            let mounts = fs::read_to_string("/proc/self/mounts")?;
            Ok(mounts.lines().any(|line| line.split(' ').nth(1).is_some_and(|path| Path::new(path) == shown)))
        })?;
        Ok(served)
    }

    fn signal(&self, signal: Signal) -> Result<(), String> {
        kill_process(Pid::from_child(&self.server), signal).map_err(|error| error.to_string())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.signal(Signal::CONT);
        let _ = unmount(&self.shown, UnmountFlags::DETACH);
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn wait_until(what: &str, is_so: impl Fn() -> io::Result<bool>) -> Result<(), String> {
    let end = Instant::now() + limit(BEGINS);
    while !is_so().map_err(|error| format!("{what}: {error}"))? {
        if Instant::now() > end {
            return Err(format!("waited for a long time until {what}"));
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn interrupted(run: &Run, directory: &Path) -> Result<(), String> {
    let mut subject = Subject::start(run, directory, &["threads", "2"])?;
    let source = directory.join("source");
    fs::create_dir(&source).map_err(|error| error.to_string())?;
    fs::copy(subject.newest(), source.join("lib.so")).map_err(|error| error.to_string())?;
    let served = Served::start(&source, &directory.join("served"))?;
    subject.say(&format!("load {}", served.shown.join("lib.so").display()), "loaded")?;
    served.signal(Signal::STOP)?;
    let mut command = command::pin_command(subject.id(), directory)?;
    let log = directory.join("interrupted.stderr");
    let stderr = fs::File::create(&log).map_err(|error| error.to_string())?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let ended = waits(child.id()).and_then(|()| {
        tasks::none_is_traced(subject.id())?;
        kill_process(Pid::from_child(&child), Signal::TERM).map_err(|error| error.to_string())?;
        process::ends_within(Pid::from_child(&child), limit(ENDS)).map_err(|error| error.to_string())
    });
    // It goes on now, if it has not ended.
    drop(served);
    let status = child.wait().map_err(|error| error.to_string())?;
    let said = fs::read_to_string(&log).map_err(|error| error.to_string())?;
    if !ended? || status.code() != Some(3) || !said.contains("does not answer; gave up") {
        return Err(format!("the command has not given up: {status}, {said:?}"));
    }
    subject.say("call", "called")?;
    subject.stop()
}

/// Waits until the command has waited for a server for a while.
fn waits(command: u32) -> Result<(), String> {
    let looks = Cell::new(0);
    wait_until("the command waits for the server", || {
        let is_waiting = tasks::state(command).map_err(io::Error::other)? == 'D';
        looks.set(if is_waiting { looks.get() + 1 } else { 0 });
        Ok(looks.get() == 30)
    })
}

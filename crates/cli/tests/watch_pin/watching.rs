//! A watch that guards a victim, and what it says.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::common::clean_process;
use crate::common::victim::{Victim, children};

/// The longest time for anything that is waited for here.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running `sopin watch --pin --json`.
pub struct Watch {
    child: Child,
    lines: Arc<Mutex<Vec<Value>>>,
    reader: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts a watch of the files below a victim's directory, and waits until it guards the library.
    pub fn start(victim: &Victim) -> Self {
        Self::start_for(std::slice::from_ref(victim))
    }

    /// Does so for several victims.
    pub fn start_for(victims: &[Victim]) -> Self {
        Self::start_with(victims, &[])
    }

    /// Does so with variables.
    pub fn start_with(victims: &[Victim], variables: &[(&str, &Path)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sopin"));
        clean_process(&mut command).args(["watch", "--pin", "--json"]).envs(variables.iter().copied());
        for victim in victims {
            command.arg("--mapping").arg(victim.installation.path(""));
        }
        let mut watch = Self::begin(&mut command);
        for victim in victims {
            watch.wait_for_mark(&victim.library);
        }
        watch
    }

    fn begin(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let lines: Arc<Mutex<Vec<Value>>> = Arc::default();
        let (stdout, said) = (child.stdout.take().unwrap(), Arc::clone(&lines));
        let reader = thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                said.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        Self { child, lines, reader: Some(reader) }
    }

    /// Waits until the kernel shows that the guard has marked a file.
    pub fn wait_for_mark(&mut self, file: &Path) {
        let inode = format!("ino:{:x} ", fs::metadata(file).unwrap().ino());
        // FAN_OPEN_PERM; the other groups of the watch have other masks.
        let is_mark =
            |line: &str| line.starts_with("fanotify ") && line.contains(&inode) && line.contains(" mask:10000 ");
        wait_until("the file is not marked", || {
            assert!(self.child.try_wait().unwrap().is_none(), "the watch has ended");
            children(self.pid()).first().is_some_and(|guard| {
                let files = fs::read_dir(format!("/proc/{guard}/fdinfo")).into_iter().flatten().flatten();
                let mut texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
                texts.any(|text| text.lines().any(is_mark))
            })
        });
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the process that guards.
    pub fn guard(&self) -> u32 {
        children(self.pid())[0]
    }

    /// Returns the lines about an event that it has said so far.
    pub fn said(&self, event: &str) -> Vec<Value> {
        self.lines.lock().unwrap().iter().filter(|line| line["event"] == event).cloned().collect()
    }

    /// Waits for a line about an event of which this is true.
    pub fn wait_for(&self, event: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let mut found = None;
        wait_until(&format!("it does not say {event}"), || {
            found = self.said(event).into_iter().find(&is_it);
            found.is_some()
        });
        found.unwrap()
    }

    /// Ends it by a signal, and waits for that.
    pub fn end(mut self, signal: Signal) -> ExitStatus {
        send(self.pid(), signal);
        self.wait()
    }

    pub fn wait(&mut self) -> ExitStatus {
        let status = self.child.wait().unwrap();
        self.reader.take().map(JoinHandle::join);
        status
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn send(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

/// Waits until something is true.
pub fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_true() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Returns the numbers of the processes in a list of a line.
pub fn pids(line: &Value, list: &str) -> Vec<u32> {
    let list = line[list].as_array().unwrap_or_else(|| panic!("no {list}: {line}"));
    list.iter().map(|process| u32::try_from(process["pid"].as_u64().unwrap()).unwrap()).collect()
}

/// Overwrites a file with bytes with which no process can live, and returns how long the open took.
pub fn ruin(file: &Path) -> Duration {
    let bytes = vec![0xff; usize::try_from(fs::metadata(file).unwrap().len()).unwrap()];
    let begun = Instant::now();
    let opened = fs::OpenOptions::new().write(true).open(file).unwrap();
    let time = begun.elapsed();
    std::io::Write::write_all(&mut &opened, &bytes).unwrap();
    time
}

/// Sends a victim on. Returns whether it ends as it should.
pub fn survives(running: crate::common::victim::Running) -> bool {
    running.ends_well()
}

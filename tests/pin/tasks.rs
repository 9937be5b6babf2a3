//! The tasks of a process, as `/proc` shows them.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::limit;

/// Returns a line of `/proc/PID/status` without its name.
///
/// # Errors
/// The process has ended, or there is no such line.
pub fn status_line(path: &str, name: &str) -> Result<String, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.map(|line| line.trim().to_owned()).ok_or_else(|| format!("{path}: no {name}"))
}

/// Returns the state of the process's first thread, a letter.
///
/// # Errors
/// The process has ended.
pub fn state(pid: u32) -> Result<char, String> {
    let line = status_line(&format!("/proc/{pid}/status"), "State")?;
    line.chars().next().ok_or_else(|| "an empty state".to_owned())
}

/// Returns whether a thread of the process is traced.
///
/// # Errors
/// The process has ended.
pub fn is_any_traced(pid: u32) -> Result<bool, String> {
    Ok(all(pid)?.into_iter().any(|task| task.tracer != "0"))
}

/// Checks that no thread is traced, or stopped by ptrace(2).
///
/// # Errors
/// One is, or the process has ended.
pub fn none_is_traced(pid: u32) -> Result<(), String> {
    let deadline = Instant::now() + limit(Duration::from_secs(5));
    loop {
        let traced = all(pid)?.into_iter().find(|task| task.tracer != "0" || task.state == 't');
        match traced {
            None => return Ok(()),
            // The kernel detaches the tasks of a tracer that was killed when that is reaped.
            Some(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(2)),
            Some(task) => return Err(format!("a thread of {pid} is left traced: {task:?}")),
        }
    }
}

/// What `/proc` shows of a thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    pub id: String,
    pub state: char,
    pub tracer: String,
    /// The signals that are blocked, ignored, caught and pending.
    pub signals: Vec<String>,
    switches: String,
}

/// Returns all threads of a process that have not ended.
///
/// # Errors
/// The process has ended.
pub fn all(pid: u32) -> Result<Vec<Task>, String> {
    let directory = format!("/proc/{pid}/task");
    let entries = fs::read_dir(&directory).map_err(|error| format!("{directory}: {error}"))?;
    let ids = entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()));
    let mut tasks: Vec<_> = ids.filter_map(|id| task(&directory, id)).collect();
    tasks.sort_by(|a, b| a.id.cmp(&b.id));
    if tasks.is_empty() { Err(format!("{pid} has ended")) } else { Ok(tasks) }
}

fn task(directory: &str, id: String) -> Option<Task> {
    let text = fs::read_to_string(format!("{directory}/{id}/status")).ok()?;
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let signals = ["SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd"].into_iter().filter_map(value);
    Some(Task {
        state: value("State")?.chars().next()?,
        tracer: value("TracerPid")?.to_owned(),
        signals: signals.map(str::to_owned).collect(),
        switches: ["voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"]
            .map(|name| value(name).unwrap_or(""))
            .join(" "),
        id,
    })
}

/// Waits until no thread has run for a while: all of them are blocked in system calls.
///
/// # Errors
/// The process has ended, or its threads do not become idle.
pub fn settle(pid: u32) -> Result<(), String> {
    let deadline = Instant::now() + limit(Duration::from_secs(20));
    let mut before = all(pid)?;
    let mut since = Instant::now();
    while Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
        let now = all(pid)?;
        // A parent in vfork(2) is in state D.
        if now != before || now.iter().any(|task| !matches!(task.state, 'S' | 'D' | 'Z')) {
            before = now;
            since = Instant::now();
        }
        if since.elapsed() >= Duration::from_millis(50) {
            return Ok(());
        }
    }
    Err(format!("{pid} does not become idle: {before:?}"))
}

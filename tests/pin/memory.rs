//! What a process has mapped and opened, before and after a pin. This parses `/proc/PID/maps`
//! itself, because the parser of the command is under test.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::{states, tasks};

/// One line of `/proc/PID/maps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vma {
    pub start: u64,
    pub end: u64,
    pub mode: String,
    /// The device number, and the number of the inode.
    pub file: (String, String),
    pub path: String,
}

/// Returns all mappings of a process.
///
/// # Errors
/// It has ended, or a line is not as in proc(5).
pub fn mappings(pid: u32) -> Result<Vec<Vma>, String> {
    // The first thread may have ended; the others show the same.
    let task = tasks::all(pid)?.into_iter().rev().find(|task| task.state != 'Z').ok_or("no thread lives")?;
    let path = format!("/proc/{pid}/task/{}/maps", task.id);
    let maps = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    maps.lines().map(|line| parse(line).ok_or_else(|| format!("{path}: not understood: {line}"))).collect()
}

/// Parses `START-END MODE OFFSET DEVICE INODE   PATH`.
fn parse(line: &str) -> Option<Vma> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let mode = fields.next()?[..3].to_owned();
    let [start, end] = [start, end].map(|address| u64::from_str_radix(address, 16).ok());
    let file = (fields.nth(1)?.to_owned(), fields.next()?.to_owned());
    Some(Vma { start: start?, end: end?, mode, file, path: fields.next().unwrap_or("").trim().to_owned() })
}

/// Returns how many bytes of the process map this file, in ranges that are longer than the one
/// page that shows debuggers where the object came from. Inaccessible pages do not count: on aarch64
/// the loader leaves such between the segments.
///
/// # Errors
/// Those of [`mappings`].
pub fn exposed(pid: u32, file: &Path) -> Result<u64, String> {
    let page = rustix::param::page_size() as u64;
    let all: Vec<_> = mappings(pid)?.into_iter().filter(|vma| is_of(file, vma)).collect();
    let bytes = all.iter().map(|vma| vma.end - vma.start).sum();
    Ok(if bytes == page && all.iter().all(|vma| !vma.mode.contains('w')) { 0 } else { bytes })
}

fn is_of(file: &Path, vma: &Vma) -> bool {
    Path::new(&vma.path) == file && vma.mode != "---"
}

/// What a pin must leave as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scene {
    /// Which addresses can be accessed how.
    layout: Vec<(u64, u64, String)>,
    /// The descriptors, and what they are open on.
    descriptors: BTreeMap<String, PathBuf>,
    /// Each thread's number and its signals.
    tasks: Vec<(String, Vec<String>)>,
    /// The state of the first thread, if it is stopped or has ended.
    state: char,
}

impl Scene {
    /// Takes it of a process that is doing nothing else.
    ///
    /// # Errors
    /// The process has ended.
    pub fn of(pid: u32) -> Result<Self, String> {
        Self::without(pid, |_| false)
    }

    /// Takes it without certain mappings.
    fn without(pid: u32, is_left_out: impl Fn(&Vma) -> bool) -> Result<Self, String> {
        let mut layout: Vec<(u64, u64, String)> = Vec::new();
        for vma in mappings(pid)?.into_iter().filter(|vma| !is_left_out(vma)) {
            match layout.last_mut() {
                Some((_, end, mode)) if *end == vma.start && *mode == vma.mode => *end = vma.end,
                _ => layout.push((vma.start, vma.end, vma.mode)),
            }
        }
        let tasks = tasks::all(pid)?;
        let state = tasks::state(pid)?;
        Ok(Self {
            layout,
            descriptors: descriptors(pid)?,
            tasks: tasks.into_iter().map(|task| (task.id, task.signals)).collect(),
            // Threads run and sleep as they like.
            state: if "TZ".contains(state) { state } else { 'S' },
        })
    }

    /// Checks that the process has the same threads, which block and handle the same signals.
    ///
    /// # Errors
    /// What differs.
    pub fn has_same_tasks(&self, pid: u32) -> Result<(), String> {
        let now = Self::of(pid)?.tasks;
        if now == self.tasks { Ok(()) } else { Err(format!("threads: {:?} before, {now:?} now", self.tasks)) }
    }

    /// Checks that the process is in the same scene.
    ///
    /// # Errors
    /// What differs.
    pub fn is_still(&self, pid: u32) -> Result<(), String> {
        // A pinned object has one more page, to which nothing points: the witness.
        let page = rustix::param::page_size() as u64;
        let was_there = |vma: &Vma| self.layout.iter().any(|(start, end, _)| *start <= vma.start && vma.start < *end);
        let is_witness = |vma: &Vma| {
            vma.end - vma.start == page && vma.path.starts_with('/') && !vma.mode.contains('w') && !was_there(vma)
        };
        if self.state == 'T' {
            // A task that is detached wakes up in the kernel (__ptrace_unlink), and stops again before it
            // returns to the program.
            states::await_state(pid, 'T')?;
        }
        let now = Self::without(pid, is_witness)?;
        if now == *self {
            return Ok(());
        }
        let missing = |from: &Self, others: &Self| -> Vec<String> {
            let ranges = others.layout.iter().filter(|range| !from.layout.contains(range));
            ranges.map(|(start, end, mode)| format!("{start:x}-{end:x} {mode}")).collect()
        };
        let (new, gone) = (missing(self, &now), missing(&now, self));
        Err(format!(
            "the pin has left something\nnew ranges: {new:?}\ngone: {gone:?}\ndescriptors: {:?} before, {:?} now\n\
             threads: {:?} before, {:?} now\nstate: {} before, {} now",
            self.descriptors, now.descriptors, self.tasks, now.tasks, self.state, now.state
        ))
    }
}

/// Returns what a process has mapped and opened: the paths, as `/proc` shows them.
///
/// # Errors
/// The process has ended.
pub fn names(pid: u32) -> Result<Vec<PathBuf>, String> {
    let mapped = mappings(pid)?.into_iter().map(|vma| vma.path.into());
    Ok(mapped.chain(descriptors(pid)?.into_values()).collect())
}

fn descriptors(pid: u32) -> Result<BTreeMap<String, PathBuf>, String> {
    let task = tasks::all(pid)?.into_iter().rev().find(|task| task.state != 'Z').ok_or("no thread lives")?;
    let directory = format!("/proc/{pid}/task/{}/fd", task.id);
    let entries = fs::read_dir(&directory).map_err(|error| format!("{directory}: {error}"))?;
    Ok(entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.file_name().to_string_lossy().into_owned(), fs::read_link(entry.path()).ok()?))
        })
        .collect())
}

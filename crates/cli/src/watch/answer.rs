//! The lines of the command, as in JSON. The names stay the same while `schema` does.

use std::time::SystemTime;

use serde::{Serialize, Serializer};

use super::guard::report::{GuardedProcess, Went};
use super::index::Inode;
use super::writer::Writer;

/// Version of the structure. It changes when a field changes its meaning or is removed; new
/// fields do not change it.
pub const SCHEMA: u32 = 1;
/// The most processes that are listed for a rewriting.
pub const LISTED: usize = 100;

/// One line.
#[derive(Clone, Debug, Serialize)]
pub struct WatchLine {
    /// [`SCHEMA`]
    pub schema: u32,
    /// When it happened.
    #[serde(serialize_with = "rfc3339")]
    pub time: SystemTime,
    /// The event.
    #[serde(flatten)]
    pub news: News,
}

/// An event, with its facts.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum News {
    /// A file was rewritten in place.
    Rewrite(RewriteAnswer),
    /// Something else was lost, and may have been a rewriting.
    Lost(Lost),
    /// A process has opened a file for writing, and those that map it were to be pinned first.
    Open(OpenAnswer),
    /// Such a process went on before that.
    WentOn(WentOnAnswer),
    /// Something has happened to the guard.
    Guard(GuardAnswer),
}

/// An open for writing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OpenAnswer {
    /// The file.
    pub file: String,
    /// The process that has opened it.
    pub writer: Writer,
    /// Duration of pinning, in microseconds. The writer waited for this time, but for 2 seconds at most.
    pub delay_us: u64,
    /// True if the writer went on before that.
    pub late: bool,
    /// The processes that were pinned.
    pub pinned: Vec<GuardedProcess>,
    /// Those that were not, or not with all of their objects.
    pub left: Vec<GuardedProcess>,
}

/// An open for writing that went on before those that map the file were pinned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WentOnAnswer {
    /// The file.
    pub file: String,
    /// The process that has opened it.
    pub writer: Writer,
    /// Why.
    pub reason: Went,
}

/// An event about the process that guards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GuardAnswer {
    /// `continued` or `refused`.
    pub what: &'static str,
    /// The error with which the kernel has refused an open.
    pub error: Option<String>,
}

/// A rewriting, and what became of the processes that had mapped the file.
#[derive(Clone, Debug, Serialize)]
pub struct RewriteAnswer {
    /// The file.
    pub file: String,
    /// Its device and inode number, as `stat(2)` shows them.
    pub device: u64,
    /// The same.
    pub inode: u64,
    /// True if the writer has not ended yet.
    pub ongoing: bool,
    /// The process that has written.
    pub writer: Writer,
    /// Number of processes in each state.
    pub full: usize,
    /// The same.
    pub relocated: usize,
    /// The same.
    pub exposed: usize,
    /// The same.
    pub damaged: usize,
    /// The same.
    pub ended: usize,
    /// The same.
    pub not_inspected: usize,
    /// The processes, the worst state first; 100 at most.
    pub processes: Vec<ConcernedProcess>,
    /// Number of processes that are not listed.
    pub unlisted: usize,
}

/// A process that had mapped the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConcernedProcess {
    /// Its process id.
    pub pid: u32,
    /// The name of its first thread.
    pub name: String,
    /// Its state after the rewriting.
    pub state: ProcessState,
    /// Number of words that have reverted to what is in the file.
    pub reverted_words: usize,
    /// Bytes of pages behind the end of the file.
    pub bytes_beyond_end: u64,
    /// The reason for which it could not be inspected, or its relocated words not be compared with the file; or null.
    pub reason: Option<String>,
}

/// The states of a process after the rewriting, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProcessState {
    /// The object is damaged in it.
    Damaged,
    /// It has ended since.
    Ended,
    /// It could not be inspected.
    NotInspected,
    /// The object's writable or relocated memory maps the file.
    Exposed,
    /// Only its text and constants map the file.
    Relocated,
    /// No memory of the object maps the file.
    Full,
}

/// A loss of events or lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// `kernel-queue`, `rewritings`, `output`, `alerts`
    pub what: &'static str,
    /// Number of those that were lost; null if that is not known.
    pub count: Option<u64>,
}

impl WatchLine {
    /// Makes a line.
    pub fn new(time: SystemTime, news: News) -> Self {
        Self { schema: SCHEMA, time, news }
    }

    /// Makes a line about what was lost just now.
    pub fn lost(what: &'static str, count: Option<u64>) -> Self {
        Self::new(SystemTime::now(), News::Lost(Lost { what, count }))
    }

    /// Returns the line as JSON.
    pub fn json(&self) -> String {
        // Nothing in it can fail to be serialised: no map has keys that are no strings.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl RewriteAnswer {
    /// Makes an answer without processes.
    pub fn new(file: String, inode: Inode, ongoing: bool, writer: Writer) -> Self {
        Self {
            file,
            device: inode.device,
            inode: inode.number,
            ongoing,
            writer,
            full: 0,
            relocated: 0,
            exposed: 0,
            damaged: 0,
            ended: 0,
            not_inspected: 0,
            processes: Vec::new(),
            unlisted: 0,
        }
    }

    /// Adds a process, and counts it.
    pub fn add(&mut self, process: ConcernedProcess) {
        *self.count_mut(process.state) += 1;
        self.processes.push(process);
    }

    /// Returns the number of processes in a state.
    fn count_mut(&mut self, state: ProcessState) -> &mut usize {
        match state {
            ProcessState::Damaged => &mut self.damaged,
            ProcessState::Ended => &mut self.ended,
            ProcessState::NotInspected => &mut self.not_inspected,
            ProcessState::Exposed => &mut self.exposed,
            ProcessState::Relocated => &mut self.relocated,
            ProcessState::Full => &mut self.full,
        }
    }
}

fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*time))
}

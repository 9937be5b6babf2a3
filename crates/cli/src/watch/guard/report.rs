//! The reports of the guard to `sopin watch`, each a line of JSON.

use serde::{Deserialize, Serialize};

use crate::watch::answer::{GuardAnswer, News, OpenAnswer, WentOnAnswer};
use crate::watch::writer::Writer;

/// A report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum GuardReport {
    /// It guards so many files from now on.
    Ready {
        /// The files that are marked.
        files: usize,
    },
    /// The thread that answers has answered, or has waited for a question, since the last time.
    Alive,
    /// It cannot guard.
    Failed {
        /// The reason.
        reason: String,
    },
    /// A process has opened a file for writing when those that map it were pinned.
    Open(GuardedOpen),
    /// A process went on before that.
    WentOn(EarlyOpen),
    /// The kernel has refused an open, because it could not open the file for the guard.
    Refused {
        /// The error.
        reason: String,
    },
    /// Something had stopped the guard, and the watch has made it go on.
    GuardContinued,
    /// The guard has ended.
    GuardEnded {
        /// How.
        reason: String,
    },
}

impl GuardReport {
    /// Returns what is to be printed about it.
    pub fn news(self) -> Option<News> {
        let guard = |what, error| Some(News::Guard(GuardAnswer { what, error }));
        let writer = |pid, name: String, command| {
            let has_ended = name.is_empty();
            Writer {
                pid: Some(pid),
                name: Some(name).filter(|_| !has_ended),
                command,
                unknown: has_ended.then_some("ended"),
            }
        };
        match self {
            Self::Open(GuardedOpen { path, pid, name, command, delay_us, late, pinned, left }) => {
                let writer = writer(pid, name, command);
                Some(News::Open(OpenAnswer { file: path, writer, delay_us, late, pinned, left }))
            }
            Self::WentOn(EarlyOpen { path, pid, name, went }) => {
                Some(News::WentOn(WentOnAnswer { file: path, writer: writer(pid, name, Vec::new()), reason: went }))
            }
            Self::Refused { reason } => guard("refused", Some(reason)),
            Self::GuardContinued => guard("continued", None),
            Self::Ready { .. } | Self::Alive | Self::Failed { .. } | Self::GuardEnded { .. } => None,
        }
    }
}

/// An open for writing that went on before others were pinned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlyOpen {
    /// The file.
    pub path: String,
    /// The process that has opened it.
    pub pid: u32,
    /// The name of the process.
    pub name: String,
    /// The reason.
    pub went: Went,
}

/// The reason for which an open went on before others were pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Went {
    /// The time was up.
    Late,
    /// It was just being pinned itself, and could not be stopped where it waited.
    Target,
    /// Too many others waited.
    Crowded,
    /// The guard has been busy for long with a process or a file that does not answer.
    Stuck,
}

/// An open for writing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardedOpen {
    /// The file.
    pub path: String,
    /// The process that has opened it.
    pub pid: u32,
    /// The name of the process.
    pub name: String,
    /// The arguments that it was started with.
    pub command: Vec<String>,
    /// The time for which it had to wait, in microseconds.
    pub delay_us: u64,
    /// True if it went on before the processes were pinned.
    pub late: bool,
    /// The processes that were pinned for it.
    pub pinned: Vec<GuardedProcess>,
    /// The processes that map the file and were not pinned, or not with all of their objects.
    pub left: Vec<GuardedProcess>,
}

/// A process that maps a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardedProcess {
    /// Its process id.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// The reason for which it was left; `None` if it was pinned.
    pub reason: Option<String>,
}

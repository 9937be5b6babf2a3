//! The result of pinning one process. Serialised it is a part of the JSON output of `sopin pin`,
//! whose names stay what they are while its `schema` does; text that is no UTF-8 has U+FFFD where
//! it is not.

use serde::Serialize;
use sopin_inspect::object::ObjectState;
use sopin_inspect::process::Trouble;

/// One process.
#[derive(Debug, Serialize)]
pub struct PinReport {
    /// Its process id.
    pub pid: u32,
    /// Its effective user.
    pub uid: u32,
    /// The name of its first thread.
    pub name: String,
    /// The arguments that it was started with.
    pub command: Vec<String>,
    /// Whether it has the library loaded.
    pub has_library: bool,
    /// The objects that were not out of their files' reach before. Others are not listed.
    pub objects: Vec<PinnedObject>,
    /// Number of all objects.
    pub objects_in_all: usize,
    /// Number of tasks that were stopped: threads, and processes that share the memory.
    pub tasks: usize,
    /// How often the process was stopped.
    pub stops: u32,
    /// The longest stop, in microseconds.
    pub longest_stop_us: u64,
    /// Number of system calls that the stops had interrupted and that were made to go on.
    pub calls_repaired: usize,
    /// Those of them whose timeout began anew, although more than 10 ms of it had passed.
    pub timeouts_restarted: usize,
    /// Number of system calls that returned a part of a transfer because of the stops.
    pub transfers_cut_short: usize,
    /// What could not be determined.
    pub errors: Vec<String>,
}

impl PinReport {
    /// Returns how many of the listed objects are in this state afterwards.
    pub fn count(&self, state: ObjectState) -> usize {
        self.objects.iter().filter(|object| object.after == state).count()
    }
}

/// One object that was not out of its file's reach.
#[derive(Debug, Serialize)]
pub struct PinnedObject {
    /// The file that it was loaded from.
    pub path: String,
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
    /// Its state before.
    pub before: ObjectState,
    /// Its state afterwards, or the expected one after a dry run.
    pub after: ObjectState,
    /// Bytes of it that were replaced.
    pub bytes: u64,
    /// Why it is not in a better state; null if it is full.
    pub reason: Option<String>,
}

/// Why a process was not pinned at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PinRefusal {
    /// It could not be inspected.
    Inspection(Trouble),
    /// It is the process that would have to stop itself.
    Own,
    /// Another process traces it.
    Traced(u32),
    /// The kernel does not permit tracing it.
    NotPermitted,
    /// It is a 32-bit program, or one for another machine, which an emulator runs.
    OtherMachine,
    /// A seccomp filter would see the system calls that it is made to make.
    Filtered,
    /// Something in it makes it impossible, in words.
    Unsuitable(&'static str),
    /// The freezer of cgroups has frozen it.
    Frozen,
    /// It did not stop in time.
    DoesNotStop,
    /// It did not begin a system call in time.
    DoesNotRun,
    /// A step failed that must not fail.
    Failed(String),
}

impl PinRefusal {
    /// Returns the reason in words, for people.
    pub fn reason(&self) -> String {
        match self {
            Self::Inspection(trouble) => trouble.reason().to_owned(),
            Self::Own => "it is this command".to_owned(),
            Self::Traced(tracer) => format!("process {tracer} traces it"),
            Self::NotPermitted => "tracing it is not permitted".to_owned(),
            Self::OtherMachine => "it is not a 64-bit program of this machine".to_owned(),
            Self::Filtered => "a seccomp filter is in force".to_owned(),
            Self::Unsuitable(reason) => (*reason).to_owned(),
            Self::Frozen => "its cgroup is frozen".to_owned(),
            Self::DoesNotStop => "it did not stop in time".to_owned(),
            Self::DoesNotRun => "it did not go on in time: its cgroup is frozen, or it gets no processor".to_owned(),
            Self::Failed(reason) => reason.clone(),
        }
    }

    /// Returns the code of the reason, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Inspection(trouble) => trouble.code(),
            Self::Own => "own",
            Self::Traced(_) => "traced",
            Self::NotPermitted => "denied",
            Self::OtherMachine => "other-machine",
            Self::Filtered => "filtered",
            Self::Unsuitable(_) => "unsuitable",
            Self::Frozen => "frozen",
            Self::DoesNotStop => "does-not-stop",
            Self::DoesNotRun => "does-not-run",
            Self::Failed(_) => "failed",
        }
    }

    /// Returns what the user can do about it, if there is something.
    pub fn way_out(&self) -> Option<&'static str> {
        match self {
            Self::Traced(_) => Some("end the debugger or strace first"),
            Self::Filtered => Some("run as root, with CAP_SYS_ADMIN, or start the program under sopin run"),
            Self::Frozen => Some("thaw it first (systemctl thaw, docker unpause)"),
            Self::DoesNotStop => Some("try again"),
            Self::DoesNotRun => Some("thaw it first, or try again"),
            Self::Unsuitable(_) => Some("start the program under sopin run"),
            Self::Inspection(_) | Self::Own | Self::NotPermitted | Self::OtherMachine | Self::Failed(_) => None,
        }
    }
}

impl From<Trouble> for PinRefusal {
    fn from(trouble: Trouble) -> Self {
        Self::Inspection(trouble)
    }
}

//! The answer, as in JSON. The names stay the same while `schema` does.

use serde::Serialize;
use sopin_inspect::report::ProcessReport;

/// Version of the structure. It changes when a field changes its meaning or is removed; new
/// fields do not change it.
pub const SCHEMA: u32 = 1;

/// The whole answer.
#[derive(Debug, Serialize)]
pub struct StatusAnswer {
    /// [`SCHEMA`]
    pub schema: u32,
    /// The inspected processes, ascending by pid.
    pub processes: Vec<ProcessReport>,
    /// The requested processes that could not be inspected.
    pub not_inspected: Vec<NotInspected>,
    /// The number of processes that `--all` passed over, by reason.
    pub passed_over: PassedOver,
    /// What to do about permissions; null if nothing was denied.
    pub remedy: Option<String>,
}

/// The processes that `--all` passed over.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct PassedOver {
    /// They have no memory of their own.
    pub kernel_threads: usize,
    /// They have ended.
    pub zombies: usize,
    /// They ended while they were inspected.
    pub vanished: usize,
    /// This user may not inspect them.
    pub denied: usize,
    /// Other errors.
    pub failed: usize,
}

/// A process that could not be inspected.
#[derive(Debug, Serialize)]
pub struct NotInspected {
    /// Its process id.
    pub pid: u32,
    /// `vanished`, `denied`, `kernel-thread`, `zombie`, `failed`
    pub error: &'static str,
    /// The reason in words.
    pub reason: String,
}

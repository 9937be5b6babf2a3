//! The answer, as in JSON. The names stay what they are while `schema` does.

use serde::Serialize;
use sopin_inspect::report::ProcessReport;

/// Version of the structure: another one when something changes its meaning or
/// goes; new fields do not change it.
pub const SCHEMA: u32 = 1;

/// All of it.
#[derive(Debug, Serialize)]
pub struct StatusAnswer {
    /// [`SCHEMA`]
    pub schema: u32,
    /// What was inspected, ascending by pid.
    pub processes: Vec<ProcessReport>,
    /// What was asked for and could not be inspected.
    pub not_inspected: Vec<NotInspected>,
    /// How many processes of a sweep were passed over, and why.
    pub passed_over: PassedOver,
    /// What to do about permissions; null if nothing was denied.
    pub remedy: Option<String>,
}

/// Counts of a sweep.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct PassedOver {
    /// They have no memory of their own.
    pub kernel_threads: usize,
    /// They have ended.
    pub zombies: usize,
    /// They ended while they were looked at.
    pub vanished: usize,
    /// They may not be looked at.
    pub denied: usize,
    /// Anything else.
    pub failed: usize,
}

/// A process that could not be inspected.
#[derive(Debug, Serialize)]
pub struct NotInspected {
    /// Its number.
    pub pid: u32,
    /// `vanished`, `denied`, `kernel-thread`, `zombie`, `failed`
    pub error: &'static str,
    /// The same in words.
    pub reason: String,
}

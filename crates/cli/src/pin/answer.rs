//! The answer, as in JSON. The names stay the same while `schema` does.

use serde::Serialize;
use sopin_inspect::object::ObjectState;
use sopin_inspect::process::Trouble;
use sopin_reach::report::{PinRefusal, PinReport};

use crate::exit::Exit;
use crate::status::answer::PassedOver;

/// Version of the structure. It changes when a field changes its meaning or is removed; new
/// fields do not change it.
pub const SCHEMA: u32 = 1;

/// The code of [`NotPinned::interrupted`].
pub const INTERRUPTED: &str = "interrupted";

/// The whole answer.
#[derive(Debug, Default, Serialize)]
pub struct PinAnswer {
    /// [`SCHEMA`]
    pub schema: u32,
    /// Whether the command only predicts what it would do.
    pub dry_run: bool,
    /// The pinned processes, in the order in which they were pinned.
    pub processes: Vec<PinReport>,
    /// The selected processes that were not pinned.
    pub not_pinned: Vec<NotPinned>,
    /// The number of processes that were passed over, by reason.
    pub passed_over: PassedOver,
    /// What to do about permissions; null if nothing was denied.
    pub remedy: Option<String>,
}

/// A selected process that was not pinned.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct NotPinned {
    /// Its process id.
    pub pid: u32,
    /// The name of its first thread; null if that is not known.
    pub name: Option<String>,
    /// The reason as a code: those of [`PinRefusal::code`], `tracer` and `interrupted`.
    pub error: &'static str,
    /// The reason in words.
    pub reason: String,
    /// What the user can do about it; null if there is nothing, or if it is in `remedy`.
    pub way_out: Option<&'static str>,
}

impl NotPinned {
    /// Makes the entry for a refusal.
    pub fn new(pid: u32, name: Option<&str>, refusal: &PinRefusal) -> Self {
        Self {
            pid,
            name: name.map(str::to_owned),
            error: refusal.code(),
            reason: refusal.reason(),
            way_out: refusal.way_out(),
        }
    }

    /// Makes the entry for a process that was not reached before the user has ended the command.
    pub fn interrupted(pid: u32, name: &str) -> Self {
        Self {
            pid,
            name: Some(name.to_owned()),
            error: INTERRUPTED,
            reason: "the command was interrupted before".to_owned(),
            way_out: None,
        }
    }

    /// Makes the entry for the process that traces this command: stopping it would stop this
    /// command, which then could not resume it.
    pub fn own_tracer(pid: u32, name: &str) -> Self {
        Self {
            pid,
            name: Some(name.to_owned()),
            error: "tracer",
            reason: "it traces this command".to_owned(),
            way_out: Some("run sopin pin without the debugger or strace"),
        }
    }
}

impl PinAnswer {
    /// Makes an answer without processes.
    pub fn new(dry_run: bool) -> Self {
        Self { schema: SCHEMA, dry_run, ..Self::default() }
    }

    /// Adds a refusal. Processes that were selected by what they are, not by number, are only
    /// counted if they have ended, or if `--all` has selected them and tracing is denied.
    pub fn refuse(&mut self, pid: u32, name: &str, is_named: bool, is_all: bool, refusal: &PinRefusal) {
        let counted = match refusal {
            PinRefusal::Inspection(Trouble::Vanished) if !is_named => &mut self.passed_over.vanished,
            PinRefusal::Inspection(Trouble::Zombie) if !is_named => &mut self.passed_over.zombies,
            PinRefusal::NotPermitted | PinRefusal::Inspection(Trouble::Denied) if is_all && !is_named => {
                &mut self.passed_over.denied
            }
            _ => return self.not_pinned.push(NotPinned::new(pid, Some(name), refusal)),
        };
        *counted += 1;
    }

    /// Returns whether access to a process was denied.
    pub fn is_denied(&self) -> bool {
        let denied = PinRefusal::NotPermitted.code();
        self.passed_over.denied != 0 || self.not_pinned.iter().any(|process| process.error == denied)
    }

    /// Returns the exit status. Objects that are left exposed take precedence over processes
    /// that were not pinned at all.
    pub fn exit(&self) -> Exit {
        if self.processes.iter().any(|process| left(process) != 0) {
            Exit::Negative
        } else if !self.not_pinned.is_empty() || self.passed_over.denied != 0 || self.passed_over.failed != 0 {
            Exit::Uninspected
        } else {
            Exit::Success
        }
    }
}

/// Returns how many objects of a process are left in their files' reach.
pub fn left(process: &PinReport) -> usize {
    process.count(ObjectState::Exposed) + process.count(ObjectState::Damaged)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use sopin_reach::report::PinnedObject;

    /// Returns an object that was in the first state before, and is in the second now.
    pub fn object(path: &str, before: ObjectState, after: ObjectState, reason: Option<&str>) -> PinnedObject {
        let reason = reason.map(str::to_owned);
        PinnedObject { path: path.to_owned(), start: 0x1000, end: 0x5000, before, after, bytes: 0x4000, reason }
    }

    /// Returns the report of a process with these objects.
    pub fn report(pid: u32, objects: Vec<PinnedObject>) -> PinReport {
        PinReport {
            pid,
            uid: 33,
            name: "gunicorn".to_owned(),
            command: ["gunicorn", "app:app"].map(str::to_owned).into(),
            has_library: false,
            objects,
            objects_in_all: 54,
            tasks: 3,
            stops: 2,
            longest_stop_us: 11_649,
            calls_repaired: 2,
            timeouts_restarted: 1,
            transfers_cut_short: 3,
            errors: Vec::new(),
        }
    }

    #[test]
    fn exposed_objects_take_precedence_over_refusals() {
        let mut answer = PinAnswer::new(false);
        assert_eq!(answer.exit(), Exit::Success);
        answer.processes.push(report(7, vec![object("/a", ObjectState::Exposed, ObjectState::Relocated, None)]));
        assert_eq!(answer.exit(), Exit::Success, "SOPIN_MODE=relocated wants no more");
        answer.refuse(8, "java", true, false, &PinRefusal::Traced(9));
        assert_eq!(answer.exit(), Exit::Uninspected);
        for state in [ObjectState::Exposed, ObjectState::Damaged] {
            answer.processes.push(report(7, vec![object("/a", ObjectState::Exposed, state, Some("x"))]));
            assert_eq!(answer.exit(), Exit::Negative);
            answer.processes.pop();
        }
    }

    #[test]
    fn who_was_asked_for_decides_whether_a_refusal_is_listed() {
        let vanished = PinRefusal::Inspection(Trouble::Vanished);
        for (refusal, is_named, is_all, is_listed, exit) in [
            (&vanished, true, false, true, Exit::Uninspected),
            (&vanished, false, false, false, Exit::Success),
            (&PinRefusal::NotPermitted, true, false, true, Exit::Uninspected),
            (&PinRefusal::NotPermitted, false, false, true, Exit::Uninspected),
            (&PinRefusal::NotPermitted, false, true, false, Exit::Uninspected),
            (&PinRefusal::Filtered, false, true, true, Exit::Uninspected),
        ] {
            let mut answer = PinAnswer::new(false);
            answer.refuse(8, "java", is_named, is_all, refusal);
            assert_eq!(!answer.not_pinned.is_empty(), is_listed, "{refusal:?} {is_named} {is_all}");
            assert_eq!(answer.exit(), exit, "{refusal:?} {is_named} {is_all}");
            assert_eq!(answer.is_denied(), *refusal == PinRefusal::NotPermitted);
        }
    }

    #[test]
    fn refusals_have_a_code_a_reason_and_a_way_out() {
        let mut answer = PinAnswer::new(false);
        answer.refuse(8, "java", true, false, &PinRefusal::Traced(9));
        answer.not_pinned.push(NotPinned::own_tracer(9, "strace"));
        let json = serde_json::to_value(&answer).unwrap();
        let expected = serde_json::json!([
            {"pid": 8, "name": "java", "error": "traced", "reason": "process 9 traces it",
             "way_out": "end the debugger or strace first"},
            {"pid": 9, "name": "strace", "error": "tracer", "reason": "it traces this command",
             "way_out": "run sopin pin without the debugger or strace"},
        ]);
        assert_eq!(json["not_pinned"], expected);
        assert_eq!(json["remedy"], serde_json::Value::Null);
    }
}

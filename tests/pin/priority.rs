//! The thread that makes the system calls is one that the scheduler does not let wait: all others stand
//! still meanwhile.

use std::collections::BTreeMap;
use std::path::Path;

use crate::subject::Subject;
use crate::{Case, Run, states, tasks};

/// `SCHED_IDLE`, and the nice value of the hosts.
const IDLE: &str = "5";
const NICE: &str = "19";

pub fn cases() -> Vec<Case> {
    let case = |name: &str, words: &'static [&'static str]| {
        Case::new(format!("priority::{name}"), move |run, own| makes_calls(run, own, words))
    };
    vec![
        // New threads are like the first one, so the second one is the only ordinary one.
        case("idle_policy", &["sleeps", "idle_policy", "sleeps", "sleeps"]),
        case("nice", &["sleeps", "nice", "sleeps", "sleeps"]),
        // The others are in no system call.
        case("idle_policy_beside_work", &["threads", "2", "idle_policy"]).with_needs(&["kernel>=5.13"]),
        // There is no better one, and it stays as it is.
        case("idle_policy_alone", &["idle_policy"]),
    ]
}

/// Pins a host of which some threads get little time, and checks that another one, if there is one,
/// makes the system calls.
fn makes_calls(run: &Run, directory: &Path, words: &[&str]) -> Result<(), String> {
    let subject = Subject::start(run, directory, words)?;
    if words.contains(&"sleeps") {
        // A thread that is just beginning blocks signals.
        states::await_state(subject.id(), 'S')?;
    }
    let (before, scheduling) = (switches(subject.id())?, scheduling_of(subject.id())?);
    let pin = subject.pin_whole()?;
    let after = switches(subject.id())?;
    let made = |id: &String| after.get(id).copied().unwrap_or_default() - before.get(id).copied().unwrap_or_default();
    let most = after.keys().max_by_key(|id| made(id)).ok_or("no thread")?;
    let is_slow = |id: &String| scheduling.get(id).is_some_and(|(policy, nice)| policy == IDLE || nice == NICE);
    if is_slow(most) && !after.keys().all(is_slow) || !after.keys().any(is_slow) {
        return Err(pin.describe(&format!("let {most} make the calls: {before:?} {after:?} {scheduling:?}")));
    }
    if scheduling_of(subject.id())? != scheduling {
        return Err(pin.describe("left a thread with another policy or nice value"));
    }
    subject.truncate_and_stop()
}

/// Returns how often each thread has slept. It does at the entry and the exit of each call that it is
/// made to make.
fn switches(pid: u32) -> Result<BTreeMap<String, u64>, String> {
    let of = |task: tasks::Task| {
        let path = format!("/proc/{pid}/task/{}/status", task.id);
        let number = tasks::status_line(&path, "voluntary_ctxt_switches")?;
        Ok((task.id, number.parse().map_err(|error| format!("{number:?}: {error}"))?))
    };
    tasks::all(pid)?.into_iter().map(of).collect()
}

/// Returns the policy and the nice value of each thread (proc(5), fields 41 and 19 of `stat`).
fn scheduling_of(pid: u32) -> Result<BTreeMap<String, (String, String)>, String> {
    let of = |task: tasks::Task| {
        let path = format!("/proc/{pid}/task/{}/stat", task.id);
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let fields: Vec<&str> = text.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let field =
            |number: usize| fields.get(number - 3).map(|field| (*field).to_owned()).ok_or(format!("{path}: {text}"));
        Ok((task.id, (field(41)?, field(19)?)))
    };
    tasks::all(pid)?.into_iter().map(of).collect()
}

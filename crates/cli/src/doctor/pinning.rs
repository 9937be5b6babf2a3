//! The subject `pin`: `sopin pin` is tried on a process of this command's. The two are siblings,
//! so Yama judges them as it would judge `sopin pin` in a shell.

use std::fs;
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use super::answer::{Subject, SubjectVerdict};
use super::children;
use super::probes::Probe;
use super::start::milliseconds;
use super::surroundings::DoctorSurroundings;

/// The bit of CAP_SYS_PTRACE in a set of capabilities (`capabilities(7)`).
const CAP_SYS_PTRACE: u64 = 1 << 19;

/// How the trial has ended.
struct Attempt {
    /// The code that `sopin pin --json` has for the refusal; `None` if the process was pinned.
    error: Option<String>,
    /// The reason in words.
    reason: String,
    remedy: String,
    milliseconds: Option<f64>,
}

impl Attempt {
    fn failed(reason: String) -> Self {
        let remedy = children::remedy(&reason).to_owned();
        Self { error: Some("failed".to_owned()), reason, remedy, milliseconds: None }
    }
}

/// Tries to pin, and judges whom this user could pin.
pub fn pin(here: &DoctorSurroundings) -> Subject {
    let yama = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").ok().and_then(|text| text.trim().parse().ok());
    let capable = here.status.as_ref().map(|status| status.effective & CAP_SYS_PTRACE != 0);
    let attempt = match &here.status {
        Some(_) => attempt(),
        None => Attempt::failed("the command finds processes only through /proc".to_owned()),
    };
    // The kernel lets no process that is filtered itself suspend the filter of another, and a filter's
    // refusal looks like that of a security module.
    let is_filtered = here.status.as_ref().is_some_and(|status| status.is_filtered);
    let outside = "run it as root outside of the seccomp filter, for a container on its host".to_owned();
    let remedy = if is_filtered { outside } else { attempt.remedy };
    let attempt = Attempt { remedy, ..attempt };
    judge(&attempt, yama, capable, rustix::process::geteuid().as_raw())
}

fn judge(attempt: &Attempt, yama: Option<u32>, capable: Option<bool>, uid: u32) -> Subject {
    let facts = json!({
        "uid": uid,
        "yama": yama,
        "cap_sys_ptrace": capable,
        "error": attempt.error,
        "milliseconds": attempt.milliseconds,
    });
    if attempt.error.is_some() {
        let meaning = format!("sopin pin could not pin a process of this user: {}", attempt.reason);
        return Subject::new("pin", SubjectVerdict::No, meaning, facts).with_remedy(&attempt.remedy);
    }
    if capable == Some(true) {
        let meaning = "sopin pin has pinned a process of this user, and may pin those of other users in its user \
                       namespace (CAP_SYS_PTRACE)";
        return Subject::new("pin", SubjectVerdict::Ok, meaning, facts);
    }
    let meaning = "sopin pin has pinned a process of this user; it may not pin those of other users";
    Subject::new("pin", SubjectVerdict::Limited, meaning, facts)
        .with_remedy("run sopin pin as root for services of other users")
}

fn attempt() -> Attempt {
    let mut command = children::own_command();
    command.args(["doctor", "--probe", Probe::Wait.word()]);
    let target = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut target = match target {
        Ok(target) => target,
        Err(error) => return Attempt::failed(format!("it could not be started: {error}")),
    };
    let attempt = match children::await_output(&mut target) {
        Ok(()) => pin_child(&target),
        Err(reason) => Attempt::failed(reason),
    };
    children::end(&mut target);
    attempt
}

fn pin_child(target: &Child) -> Attempt {
    let mut command = children::own_command();
    // What the user's variables exclude is no reason against pinning.
    command.env_remove("SOPIN_EXCLUDE").env_remove("SOPIN_ONLY").env_remove("SOPIN_PRIVATE_LIMIT");
    command.args(["pin", "--json", "--store", "off", "--mode", "full"]).arg(target.id().to_string());
    let ended = match children::run(&mut command) {
        Ok(ended) => ended,
        Err(reason) => return Attempt::failed(reason),
    };
    let Ok(answer) = serde_json::from_str::<Value>(&ended.stdout) else {
        let said = ended.stderr.lines().next().unwrap_or_default();
        return Attempt::failed(format!("{} {said}", ended.fate()).trim_end().to_owned());
    };
    Attempt { milliseconds: Some(milliseconds(ended.took)), ..read(&answer) }
}

/// Reads the JSON of `sopin pin`.
fn read(answer: &Value) -> Attempt {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let is_left = |object: &&Value| !matches!(object["after"].as_str(), Some("full" | "relocated"));
    if let Some(objects) = answer["processes"][0]["objects"].as_array() {
        return match objects.iter().find(is_left) {
            None if objects.is_empty() => Attempt::failed("it found no objects in it".to_owned()),
            None => Attempt { error: None, reason: String::new(), remedy: String::new(), milliseconds: None },
            Some(object) => Attempt::failed(format!("{}: {}", text(&object["path"]), text(&object["reason"]))),
        };
    }
    let refusal = &answer["not_pinned"][0];
    let reason = text(&refusal["reason"]);
    let way_out = text(&refusal["way_out"]);
    let remedy = if way_out.is_empty() { text(&answer["remedy"]) } else { way_out };
    Attempt { error: Some(text(&refusal["error"])), reason, remedy, milliseconds: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_read() {
        let refused = read(&json!({
            "processes": [],
            "not_pinned": [{ "pid": 7, "error": "denied", "reason": "not permitted", "way_out": null }],
            "remedy": "run as root",
        }));
        assert_eq!((refused.error.as_deref(), refused.remedy.as_str()), (Some("denied"), "run as root"));
        let subject = judge(&refused, Some(1), Some(false), 1000);
        assert_eq!((subject.verdict, subject.remedy.as_deref()), (SubjectVerdict::No, Some("run as root")));
        assert_eq!((&subject.facts["yama"], &subject.facts["error"]), (&json!(1), &json!("denied")));
    }

    #[test]
    fn capabilities_decide_about_other_users() {
        let with = |objects: Value| read(&json!({ "processes": [{ "objects": objects }], "not_pinned": [] }));
        let pinned = with(json!([{ "path": "/a", "after": "full", "reason": null }]));
        let left = with(json!([{ "path": "/a", "after": "exposed", "reason": "why" }]));
        assert_eq!((left.error.as_deref(), left.reason.as_str()), (Some("failed"), "/a: why"));
        assert_eq!(with(json!([])).error.as_deref(), Some("failed"));
        assert_eq!(judge(&pinned, Some(0), Some(true), 0).verdict, SubjectVerdict::Ok);
        assert_eq!(judge(&pinned, None, Some(false), 1000).verdict, SubjectVerdict::Limited);
    }
}

//! Blocking system calls return what they would have returned without the pin, and a timeout
//! begins anew at most (programs/calls.c).

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Completion;
use serde_json::Value;

use crate::command;
use crate::common::dialogue::Dialogue;
use crate::common::process::Outcome;
use crate::subject::passed;
use crate::{Case, Run, limit, patience, tasks};

/// Most of the time the trials sleep, so several run at the same time.
const AT_ONCE: usize = 6;

/// The timeout of the calls that have one. This and all other times of theirs are longer on processors
/// that are emulated.
const PERIOD: Duration = Duration::from_secs(1);

/// The part of it that has passed before the process is pinned.
const BEFORE: Duration = Duration::from_millis(400);

/// The longest time of a call whose timeout has not begun anew, after [`BEFORE`].
const NOT_ANEW: Duration = Duration::from_millis(1350);

/// The longest time from the end of a timeout to the end of the call.
const LATE: Duration = Duration::from_millis(100);

/// The shortest time of a call, because clocks may differ.
const NOT_EARLY: Duration = Duration::from_millis(990);

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for mode in ["alone", "beside"] {
        for has_timeout in [false, true] {
            let group = if has_timeout { "timeouts" } else { "waits" };
            cases.push(Case::ignorable(format!("calls::{group}::{mode}"), move |run, directory| {
                let chosen = |situation: &Situation| situation.has("timeout") == has_timeout;
                try_all(run, directory, chosen, |situation, own| situation.is_unchanged(run, own, mode))
            }));
        }
    }
    cases.push(Case::ignorable("calls::control", |run, directory| {
        let chosen = |situation: &Situation| situation.has("interrupted");
        try_all(run, directory, chosen, |situation, own| situation.is_interrupted(run, own))
    }));
    cases
}

/// A line of `calls list`.
struct Situation {
    name: String,
    flags: Vec<String>,
}

/// What the program says that a call has returned.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Returned {
    result: i64,
    errno: i32,
    took: Duration,
}

fn all(run: &Run) -> Result<Vec<Situation>, String> {
    let output = Command::new(run.built("calls")).arg("list").output().map_err(|error| format!("calls: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    Ok(text.lines().map(words).map(|mut words| Situation { name: words.remove(0), flags: words }).collect())
}

/// Tries all chosen situations, several at the same time.
fn try_all(
    run: &Run,
    directory: &Path,
    chosen: impl Fn(&Situation) -> bool,
    try_one: impl Fn(&Situation, &Path) -> Result<bool, String> + Sync,
) -> Result<Completion, String> {
    let situations: Vec<_> = all(run)?.into_iter().filter(chosen).collect();
    let next = AtomicUsize::new(0);
    let (failures, unknown) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let work = || {
        while let Some(situation) = situations.get(next.fetch_add(1, Ordering::Relaxed)) {
            let own = directory.join(&situation.name);
            let tried = fs::create_dir(&own).map_err(|error| error.to_string()).and_then(|()| try_one(situation, &own));
            match tried {
                Ok(true) => {}
                Ok(false) => lock(&unknown).push(situation.name.clone()),
                Err(error) => lock(&failures).push(format!("{}: {error}", situation.name)),
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(work);
        }
    });
    let (failures, unknown) = (lock(&failures), lock(&unknown));
    if !failures.is_empty() {
        return Err(format!("{} of {} failed\n{}", failures.len(), situations.len(), failures.join("\n")));
    }
    if unknown.len() == situations.len() {
        return Ok(Completion::ignored_with(format!("the kernel has none of {unknown:?}")));
    }
    Ok(Completion::Completed)
}

fn lock(list: &Mutex<Vec<String>>) -> std::sync::MutexGuard<'_, Vec<String>> {
    list.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Situation {
    fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|own| own == flag)
    }

    /// Pins a process in the second of two calls, which has to return what the first one did.
    /// Returns `false` if the kernel does not have the call.
    fn is_unchanged(&self, run: &Run, directory: &Path, mode: &str) -> Result<bool, String> {
        // Load of the machine can make a call late, or make the timeout end before the stop, but not each
        // time, and hardly if all takes longer.
        for attempt in 0..3 {
            let own = directory.join(attempt.to_string());
            match self.is_unchanged_once(run, &own, mode, 1 << attempt) {
                Err(Flaw::Late(_)) if attempt < 2 => {}
                Err(Flaw::Late(reason) | Flaw::Wrong(reason)) => return Err(reason),
                Ok(is_known) => return Ok(is_known),
            }
        }
        unreachable!("the loop ends by returning")
    }

    /// All times are `scale` times as long.
    fn is_unchanged_once(&self, run: &Run, directory: &Path, mode: &str, scale: u32) -> Result<bool, Flaw> {
        let Some(mut process) = self.wait_in_second_call(run, directory, mode, scale)? else { return Ok(false) };
        let limit = |time| limit(time) * scale;
        let begin = Instant::now();
        let pin = command::pin(process.id(), directory)?;
        let took = begin.elapsed();
        if self.has("stores") {
            let is_explained = |object: &Value| object["after"] == "full" || object["reason"].is_string();
            if !pin.objects()?.iter().all(is_explained) {
                return Err(Flaw::Wrong(pin.describe("does not say why")));
            }
        } else {
            pin.is_whole()?;
        }
        tasks::none_is_traced(process.id()).map_err(|error| pin.describe(&error))?;
        if self.has("interrupted") && pin.number("calls_repaired")? == 0 {
            let flaw = if self.has("timeout") { Flaw::Late } else { Flaw::Wrong };
            return Err(flaw(pin.describe("repaired no call")));
        }
        if !self.has("timeout") && !self.has("transfer") {
            // The call has not been interrupted.
            thread::sleep(Duration::from_millis(20));
            if returned(&process).len() != 1 {
                return Err(Flaw::Wrong(pin.describe(&format!("ended the call: {:?}", returned(&process)))));
            }
        }
        process.say("");
        let waited = process.stdout();
        let finished = process.finish()?;
        passed(&finished).map_err(|error| pin.describe(&error))?;
        let [first, second] = &lines(&finished.stdout)[..] else {
            return Err(Flaw::Wrong(format!("not two results: {waited}{finished}")));
        };
        let short = self.has("transfer") && 0 < second.result && second.result < first.result;
        if (first.result, first.errno) != (second.result, second.errno) && !short {
            return Err(Flaw::Wrong(pin.describe(&format!("changed {first:?} to {second:?}"))));
        }
        // The rest that the program transfers may be cut short, too.
        let cut_short = pin.number("transfers_cut_short")?;
        if (cut_short != 0) != short || cut_short > pin.number("stops")? {
            return Err(Flaw::Wrong(pin.describe(&format!("cut a call short: {first:?}, {second:?}"))));
        }
        if self.has("timeout") {
            let latest = if pin.number("timeouts_restarted")? == 0 {
                limit(NOT_ANEW)
            } else {
                // It begins anew with each stop, the last of which is at the end.
                limit(BEFORE + PERIOD + LATE) + took
            };
            if second.took < limit(NOT_EARLY) {
                return Err(Flaw::Wrong(pin.describe(&format!("made a timeout end early: {second:?}"))));
            }
            if second.took > latest {
                return Err(Flaw::Late(pin.describe(&format!("made a timeout end after {second:?}"))));
            }
        }
        Ok(true)
    }

    /// Stops a process in the second of two calls, without repair. The call returns `EINTR`.
    fn is_interrupted(&self, run: &Run, directory: &Path) -> Result<bool, String> {
        let process = self.wait_in_second_call(run, &directory.join("0"), "alone", 1)?;
        let Some(mut process) = process else { return Ok(false) };
        let mut stop = Command::new(run.built("intruder"));
        let status = stop.args(["stop", &process.id().to_string()]).status().map_err(|error| error.to_string())?;
        process.say("");
        let finished = process.finish()?;
        match &lines(&finished.stdout)[..] {
            [_, second] if status.success() && (second.result, second.errno) == (-1, libc::EINTR) => Ok(true),
            other => Err(format!("a stop has to interrupt it, but it returned {other:?}; it {finished}")),
        }
    }

    /// Starts the program, lets the first call end undisturbed, and waits until the second one
    /// blocks. Returns `None` if the kernel does not have the call.
    fn wait_in_second_call(
        &self,
        run: &Run,
        directory: &Path,
        mode: &str,
        scale: u32,
    ) -> Result<Option<Dialogue>, String> {
        let limit = |time| limit(time) * scale;
        // The program's directory has no other files, because one call waits for what happens there.
        let place = directory.join("place");
        fs::create_dir_all(&place).map_err(|error| error.to_string())?;
        let mut command = Command::new(run.built("calls"));
        command.args([&self.name, mode, &limit(PERIOD).as_secs().to_string()]).current_dir(&place);
        let mut process = Dialogue::start(&mut command, &directory.join("calls.log"), patience())
            .map_err(|error| error.to_string())?;
        let unless_unknown = |process: Dialogue, error| {
            let finished = process.finish()?;
            if finished.outcome == Outcome::Exit(77) { Ok(None) } else { Err(error) }
        };
        if let Err(error) = process.wait_for("waiting", 1) {
            return unless_unknown(process, error);
        }
        if !self.has("timeout") {
            tasks::settle(process.id())?;
        }
        process.say("");
        if let Err(error) = process.wait_for("waiting", 2) {
            return unless_unknown(process, error);
        }
        if self.has("timeout") {
            thread::sleep(limit(BEFORE));
        } else {
            tasks::settle(process.id())?;
        }
        Ok(Some(process))
    }
}

/// What is wrong with a pin.
enum Flaw {
    /// A timeout took longer than it may, or had ended when the process was stopped.
    Late(String),
    Wrong(String),
}

impl From<String> for Flaw {
    fn from(reason: String) -> Self {
        Self::Wrong(reason)
    }
}

fn returned(process: &Dialogue) -> Vec<Returned> {
    lines(&process.stdout())
}

fn lines(stdout: &str) -> Vec<Returned> {
    let parse = |line: &str| {
        let mut words = line.strip_prefix("returned ")?.split(' ');
        Some(Returned {
            result: words.next()?.parse().ok()?,
            errno: words.next()?.parse().ok()?,
            took: Duration::from_millis(words.next()?.parse().ok()?),
        })
    };
    stdout.lines().filter_map(parse).collect()
}

//! The subject `trial`: a harmless program is started with the library, and what the library
//! logs about its objects is counted.

use std::env;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use sopin_core::mode::Mode;

use super::answer::{Subject, SubjectVerdict};
use super::children::{self, Ended};
use super::harmless::Harmless;
use super::surroundings::DoctorSurroundings;
use crate::library::Library;
use crate::trial::NOT_FOR_A_TRIAL;

/// The most messages that are kept.
const MOST_MESSAGES: usize = 32;

/// The library's lines about the objects, counted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Log {
    full: usize,
    relocated: usize,
    /// Left exposed.
    left: usize,
    /// The reasons why objects are not full, each once, and the lines that others have printed.
    messages: Vec<String>,
}

impl Log {
    /// Reads what was printed on stderr with `SOPIN_LOG=info`.
    fn read(text: &str) -> Self {
        let mut log = Self::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let Some(said) = line.strip_prefix("libsopin: ") else {
                log.note(line);
                continue;
            };
            // `<object>: <level>, <bytes> bytes, <time> us[: <operation>: <reason>]`
            if said.contains(": full, ") {
                log.full += 1;
            } else if let Some((_, rest)) = said.split_once(": relocated, ") {
                log.relocated += 1;
                if let Some((_, reason)) = rest.split_once(" us: ") {
                    log.note(reason);
                }
            } else if let Some(said) = said.strip_suffix("; left unmodified") {
                log.left += 1;
                log.note(said.split_once(": ").map_or(said, |(_, reason)| reason));
            } else if said.starts_with("SOPIN_") || said.contains(": left ") {
                log.note(said);
            }
        }
        log
    }

    fn note(&mut self, message: &str) {
        if self.messages.len() < MOST_MESSAGES && self.messages.iter().all(|known| known != message) {
            self.messages.push(message.to_owned());
        }
    }

    fn objects(&self) -> usize {
        self.full + self.relocated + self.left
    }
}

/// Starts the program, and judges what the library reports.
pub fn trial(here: &DoctorSurroundings) -> Subject {
    let (library, harmless) = match (&here.library, &here.harmless) {
        (Ok(library), Some(harmless)) => (library, harmless),
        (Err(_), _) => return untried("not made, because the library was not found", SubjectVerdict::No),
        (_, None) => return untried("not made, because there is no program with a loader", SubjectVerdict::Limited),
    };
    let mode = here.settings.as_ref().map_or(Mode::Full, |settings| settings.mode);
    if mode == Mode::Off {
        return untried("not made, because SOPIN_MODE is off and the library would pin nothing", SubjectVerdict::No)
            .with_remedy("unset SOPIN_MODE");
    }
    let program = harmless.path.display().to_string();
    let ended = match children::run(&mut command(here, library, harmless)) {
        Ok(ended) => ended,
        Err(reason) => {
            return untried(&format!("{program}: {reason}"), SubjectVerdict::No).with_remedy(children::remedy(&reason));
        }
    };
    let log = Log::read(&ended.stderr);
    let facts = facts(Some(&program), Some(&ended), &log);
    let said = log.messages.first().cloned().unwrap_or_else(|| "the library has printed nothing".to_owned());
    if !ended.status.success() {
        let is_fine_without = children::run(Command::new(&harmless.path).env_remove("LD_PRELOAD"));
        let meaning = if is_fine_without.is_ok_and(|ended| ended.status.success()) {
            format!("{program} does not run with the library: {}: {said}", ended.fate())
        } else {
            format!("{program} runs neither with the library nor without it: {}", ended.fate())
        };
        return Subject::new("trial", SubjectVerdict::No, meaning, facts)
            .with_remedy("use the library of make dist-binaries, which is made for every C library");
    }
    if log.objects() == 0 {
        return Subject::new(
            "trial",
            SubjectVerdict::No,
            format!("{program} has run without the library: {said}"),
            facts,
        )
        .with_remedy("sopin check COMMAND says what is in the way");
    }
    let Log { full, relocated, left, .. } = log;
    let objects = log.objects();
    if left != 0 {
        let meaning = format!("{program} has run with the library, which has left {left} of {objects} objects: {said}");
        return Subject::new(
            "trial",
            if full + relocated == 0 { SubjectVerdict::No } else { SubjectVerdict::Limited },
            meaning,
            facts,
        )
        .with_remedy("SOPIN_LOG=info says more, libsopin(7) what to do");
    }
    if relocated != 0 && mode == Mode::Full {
        let meaning = format!("{program} has run, but {relocated} of {objects} objects are only relocated: {said}");
        return Subject::new("trial", SubjectVerdict::Limited, meaning, facts)
            .with_remedy("give the user a store or the process more private memory, see the lines store and memory");
    }
    if let Some(complaint) = here.complaints.first() {
        let meaning = format!("{program} has run with the library, but {complaint}");
        return Subject::new("trial", SubjectVerdict::Limited, meaning, facts).with_remedy("correct the value");
    }
    let reached = if mode == Mode::Full { "full" } else { "relocated, as SOPIN_MODE says" };
    let meaning = format!("{program} has run with the library: its {objects} objects were {reached}");
    Subject::new("trial", SubjectVerdict::Ok, meaning, facts)
}

fn untried(meaning: &str, verdict: SubjectVerdict) -> Subject {
    Subject::new("trial", verdict, meaning, facts(None, None, &Log::default()))
}

fn facts(program: Option<&str>, ended: Option<&Ended>, log: &Log) -> serde_json::Value {
    json!({
        "program": program,
        "status": ended.and_then(|ended| ended.status.code()),
        "full": log.full,
        "relocated": log.relocated,
        "left": log.left,
        "milliseconds": ended.map(|ended| milliseconds(ended.took)),
        "messages": log.messages,
    })
}

/// Returns a duration in milliseconds, for JSON.
pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Returns the command that starts the program as `sopin run` would, except that no store is made.
fn command(here: &DoctorSurroundings, library: &Library, harmless: &Harmless) -> Command {
    let mut command = Command::new(&harmless.path);
    // Other libraries would be judged, too.
    command.env("LD_PRELOAD", library.path()).env("SOPIN_LOG", "info").env_remove("SOPIN_LOG_FILE");
    for variable in NOT_FOR_A_TRIAL.iter().chain(&["SOPIN_EXCLUDE", "SOPIN_ONLY"]) {
        command.env_remove(variable);
    }
    if !here.stores.would_be_used_as_it_is() && env::var_os("SOPIN_STORE").is_none_or(|value| value != "off") {
        command.env("SOPIN_STORE", "off");
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_library_are_counted() {
        let log = Log::read(
            "libsopin: /usr/bin/true: full, 40960 bytes, 167 us\n\
             libsopin: /a: relocated, 8192 bytes, 58 us: copy to private memory: too much\n\
             libsopin: /b: relocated, 8192 bytes, 58 us: copy to private memory: too much\n\
             libsopin: /c: open /proc/self/maps: ENOENT (No such file or directory); left unmodified\n\
             libsopin: sweep: 5 objects new, 5 of them ready to be pinned\n\
             ERROR: ld.so: object '/x.so' from LD_PRELOAD cannot be preloaded: ignored.\n",
        );
        let messages = [
            "copy to private memory: too much",
            "open /proc/self/maps: ENOENT (No such file or directory)",
            "ERROR: ld.so: object '/x.so' from LD_PRELOAD cannot be preloaded: ignored.",
        ];
        assert_eq!(log, Log { full: 1, relocated: 2, left: 1, messages: messages.map(str::to_owned).to_vec() });
    }
}

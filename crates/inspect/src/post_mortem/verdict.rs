//! The verdict: whether the process died because a file was rewritten in place. This module is pure.
//!
//! Two questions are asked of each object: was it rewritten, and does the crash come of it?
//!
//! | the object | the crash | verdict |
//! |---|---|---|
//! | has reverted words | is a jump to the value of one, or an access there | rewritten, certain |
//! | has lost pages, or is a mapping behind whose file's end the access was | SIGBUS there | rewritten, certain |
//! | has any of these, or had become another build while it was mapped | was in it, or in a call from there | rewritten, likely |
//! | the same | has nothing to do with it that shows | cannot be told |
//! | the same | is none: the process was dumped alive | rewritten, likely |
//! | could not be examined | has the signature of a pointer without base | cannot be told |
//! | all are intact | any | nothing |

mod unsuspected;

use super::crash::{BUS_ADRERR, Crash, SIGBUS, SIGILL, SIGTRAP};
use super::examination::ObjectFinding;
use super::objects::DumpedObject;

/// Addresses below this are no pointers without a base, but null pointers with an offset.
const NULL: u64 = 4096;
/// Functions have no addresses without a base below this: an object begins with its header.
const LOWEST_CODE: u64 = 64;
/// A pointer to a structure with a word points at most so far in front of the word, in bytes.
const STRUCTURE: u64 = 256;
/// Addresses without a base are below this: objects are smaller.
const SMALL: u64 = 1 << 32;
/// The largest distance from a datum to an access that is attributed to a pointer to it.
const NEAR: u64 = 1 << 16;

/// The answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// A file was rewritten in place, or truncated, while it was mapped.
    Rewritten,
    /// Nothing points to that.
    #[default]
    Nothing,
    /// It cannot be told.
    Unknown,
}

/// The certainty that a file was rewritten, and that the process died because of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Certainty {
    /// The dump shows no other explanation, and does not prove this one.
    Likely,
    /// The dump proves it.
    Certain,
}

/// The verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CrashVerdict {
    /// The answer.
    pub answer: Answer,
    /// Its certainty; `None` unless a file was rewritten.
    pub certainty: Option<Certainty>,
    /// Index of the object that it is about.
    pub object: Option<usize>,
    /// One sentence.
    pub sentence: String,
    /// The user's next step to learn more; empty if there is none.
    pub way_out: String,
}

/// An object and what was found out about it.
pub struct ExaminedObject {
    /// The object.
    pub object: DumpedObject,
    /// The finding.
    pub finding: ObjectFinding,
}

impl ExaminedObject {
    fn path(&self) -> String {
        String::from_utf8_lossy(self.object.origin()).into_owned()
    }
}

/// The connection of a crash with an object; the strongest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Connection {
    /// Nothing connects them.
    Unseen,
    /// A return address in the object was on the stack.
    Called,
    /// The thread was in the object, or came from there.
    Inside,
    /// A register of the thread points to a reverted word, or just in front of it.
    Pointed,
    /// A register of the thread holds the value of a reverted word.
    Held(u64),
    /// The loader looked for a symbol where the object's tables are without the base.
    Tables(u64),
    /// The thread jumped to, or accessed, the value of a reverted word.
    Word(u64),
}

/// The names and words in files by which the verdict connects a crash with an object.
pub trait Names {
    /// Returns what an object has at an address without the base: `distill_params`, `the PLT entry of
    /// qsort`.
    fn name(&self, index: usize, address: u64) -> Option<String>;

    /// Returns whether there is a call in front of this address in an object.
    fn follows_call(&self, index: usize, address: u64) -> bool;

    /// Returns whether a relocated word of an object's file holds this address; `None` if that cannot
    /// be found out.
    fn holds(&self, index: usize, address: u64) -> Option<bool>;
}

/// Judges by the first of the faults of a process, and by another one only where that proves what
/// the first leaves open: the others are mostly faults of the handler. Returns the index of the
/// fault, too.
pub fn judge_all(faults: &[Crash], examined: &[ExaminedObject], names: &impl Names) -> (usize, CrashVerdict) {
    let mut verdicts = faults.iter().map(|fault| judge(fault, examined, names)).enumerate();
    let Some(first) = verdicts.next() else { return (0, judge(&Crash::default(), examined, names)) };
    if first.1.answer == Answer::Rewritten {
        return first;
    }
    verdicts.find(|(_, verdict)| verdict.certainty == Some(Certainty::Certain)).unwrap_or(first)
}

/// Judges by one fault.
pub fn judge(crash: &Crash, examined: &[ExaminedObject], names: &impl Names) -> CrashVerdict {
    if let Some(verdict) = behind_end(crash, examined) {
        return verdict;
    }
    let suspects = examined.iter().enumerate().filter(|(_, suspect)| suspect.finding.is_suspicious());
    let is_in_loader = examined
        .iter()
        .any(|found| found.object.is_loader() && found.object.range(crash.registers.instruction).is_some());
    let connected = suspects.map(|(index, suspect)| (connection(crash, index, suspect, is_in_loader, names), index));
    let weight = |index: usize| examined.get(index).map_or(0, |suspect| suspect.finding.reverted.len());
    let worst = connected.max_by_key(|(connection, index)| (*connection, weight(*index)));
    match worst {
        Some((connection, index)) => match examined.get(index) {
            Some(suspect) => rewritten(crash, connection, index, suspect, names),
            None => CrashVerdict::default(),
        },
        None => unsuspected::judge(crash, examined, names),
    }
}

/// Returns the verdict where the thread has touched a page behind the end of a mapped file.
fn behind_end(crash: &Crash, examined: &[ExaminedObject]) -> Option<CrashVerdict> {
    let address = crash.address.filter(|_| crash.signal == SIGBUS && crash.code == Some(BUS_ADRERR))?;
    let (index, found) = examined.iter().enumerate().find(|(_, found)| found.object.range(address).is_some())?;
    let ObjectFinding { lost, beyond_end, .. } = found.finding;
    let path = found.path();
    let is_short = lost != 0 || beyond_end != 0;
    let is_certain = is_short && found.object.is_object;
    let certainty = if is_certain { Certainty::Certain } else { Certainty::Likely };
    let died = if is_certain { "died" } else { "probably died" };
    let words = reverted(&found.finding);
    let words = if words.is_empty() { words } else { format!("; {words}") };
    let sentence = if found.object.is_object {
        format!(
            "This process {died} because {path} was truncated after it was loaded: it touched {address:#x}, a page \
             behind the end of the file{words}."
        )
    } else if is_short {
        format!(
            "This process {died} because {path}, a file that the program has mapped itself, is shorter than its mapping: \
             it touched {address:#x}, a page behind the end of the file."
        )
    } else {
        let sentence = format!(
            "It cannot be told whether {path} was truncated: the program has mapped it itself and touched {address:#x} \
             when the file had no page there, or the disk could not be read."
        );
        return Some(CrashVerdict {
            answer: Answer::Unknown,
            object: Some(index),
            sentence,
            ..CrashVerdict::default()
        });
    };
    Some(CrashVerdict {
        answer: Answer::Rewritten,
        certainty: Some(certainty),
        object: Some(index),
        sentence,
        way_out: String::new(),
    })
}

fn connection(
    crash: &Crash,
    index: usize,
    suspect: &ExaminedObject,
    is_in_loader: bool,
    names: &impl Names,
) -> Connection {
    let finding = &suspect.finding;
    let span = suspect.object.span();
    let is_in = crash.is_in(span);
    if !crash.is_own_fault() {
        return Connection::Unseen;
    }
    let has = |value: u64| finding.reverted.iter().any(|word| word.value == Some(value));
    if let Some(target) = crash.jump() {
        // Linkers leave 0 in words: LLVM's in those that are relative to the base, all in those of
        // symbols. The table of GLOB_DAT is used by the object's own code alone.
        let is_of_word = has(target) && (target != 0 || finding.zeroed != 0 || is_in);
        let is_of_unlisted = finding.has_reverted_dynamic || finding.clean != 0 || finding.is_other_build;
        if is_of_word || (target >= LOWEST_CODE && is_of_unlisted && names.holds(index, target) == Some(true)) {
            return Connection::Word(target);
        }
    }
    if let Some(address) = crash.access().filter(|address| *address < SMALL) {
        let values = finding.reverted.iter().filter_map(|word| word.value);
        let near = values.filter(|value| *value <= address && address - value < NEAR);
        let near = near.filter(|value| *value >= NULL || is_in).max();
        // The addresses of the tables are in the dynamic section.
        let is_table = finding.has_reverted_dynamic && (LOWEST_CODE..span.1 - span.0).contains(&address);
        if is_in_loader && is_table {
            return Connection::Tables(address);
        }
        if let Some(value) = near {
            return Connection::Word(value);
        }
    }
    let held = crash.held();
    let words = &finding.reverted;
    let is_value = |value: &&u64| (NULL..SMALL).contains(*value) && has(**value);
    if let Some(value) = held.iter().find(is_value) {
        return Connection::Held(*value);
    }
    let points = |register: &u64| {
        let next = words.get(words.partition_point(|word| word.address < *register));
        next.is_some_and(|word| word.address - register < STRUCTURE)
    };
    // The thread has executed what the file had and has now, so that it is no other build's.
    let is_own_trap = matches!(crash.signal, SIGILL | SIGTRAP) && crash.jump().is_none() && !finding.is_other_build;
    // If the file is another build now, it is not known which words have reverted.
    let is_in_data = |register: &u64| finding.is_other_build && finding.data.contains(register);
    if held.iter().any(|register| points(register) || is_in_data(register)) {
        Connection::Pointed
    } else if is_in && !is_own_trap {
        Connection::Inside
    } else if !is_own_trap && crash.near_in(span).any(|address| names.follows_call(index, address)) {
        Connection::Called
    } else {
        Connection::Unseen
    }
}

fn rewritten(
    crash: &Crash,
    connection: Connection,
    index: usize,
    suspect: &ExaminedObject,
    names: &impl Names,
) -> CrashVerdict {
    let finding = &suspect.finding;
    let path = suspect.path();
    let seen = evidence(finding);
    let is_of_value = matches!(connection, Connection::Word(value) | Connection::Tables(value) if value >= LOWEST_CODE);
    let is_certain = finding.is_damaged() && is_of_value;
    let certainty = if is_certain { Certainty::Certain } else { Certainty::Likely };
    let rewritten = format!("{path} was rewritten in place after it was loaded: {seen}");
    let died = if is_certain { "This process died because" } else { "This process probably died because" };
    let what = |value: u64| names.name(index, value).unwrap_or_else(|| "an address".to_owned());
    let sentence = match connection {
        Connection::Word(value) if crash.jump().is_some() => {
            let name = what(value);
            let target = if value < LOWEST_CODE {
                "what such a word holds".to_owned()
            } else {
                format!("{name} without its load address")
            };
            format!("{died} {rewritten}; the jump to {value:#x} is {target}.")
        }
        Connection::Word(value) => {
            let (address, name) = (crash.address.unwrap_or(value), what(value));
            let target = if value < NULL {
                "comes of such a word".to_owned()
            } else {
                format!("is one to {name} without its load address")
            };
            format!("{died} {rewritten}; the access to {address:#x} {target}.")
        }
        _ if crash.is_alive => format!("This process was damaged when it was dumped: {rewritten}."),
        _ if !crash.is_own_fault() => {
            format!("This process was damaged, but another process has ended it: {rewritten}.")
        }
        Connection::Held(value) => {
            format!(
                "{died} {rewritten}; the thread had {value:#x} in a register, which is {} without its load address.",
                what(value)
            )
        }
        Connection::Tables(value) => format!(
            "{died} {rewritten}; the loader looked for a symbol at {value:#x}, where its tables are without their load \
             address."
        ),
        Connection::Pointed => {
            format!("{died} {rewritten}; a register of the thread pointed to what the loader had stored there.")
        }
        Connection::Inside => format!("{died} {rewritten}; it died in that object."),
        Connection::Called => {
            format!("{died} {rewritten}; it died in a call from that object.")
        }
        Connection::Unseen => {
            format!(
                "{path} was rewritten in place after it was loaded: {seen}; it cannot be told whether the process died of that."
            )
        }
    };
    if connection == Connection::Unseen && !crash.is_alive {
        return CrashVerdict { answer: Answer::Unknown, object: Some(index), sentence, ..CrashVerdict::default() };
    }
    CrashVerdict {
        answer: Answer::Rewritten,
        certainty: Some(certainty),
        object: Some(index),
        sentence,
        way_out: String::new(),
    }
}

/// Returns what shows that an object was rewritten.
fn evidence(finding: &ObjectFinding) -> String {
    let mut seen = Vec::new();
    let words = reverted(finding);
    if !words.is_empty() {
        seen.push(words);
    }
    if finding.lost != 0 {
        seen.push(format!(
            "{} KiB of its relocated pages were behind the end of the file",
            finding.lost.div_ceil(1024)
        ));
    }
    if finding.has_reverted_dynamic && finding.reverted.is_empty() {
        seen.push("its dynamic section had its values from the file again".to_owned());
    }
    if finding.is_other_build {
        seen.push("the file had become another build".to_owned());
    }
    if finding.clean != 0 {
        seen.push(format!("gdb found no page private that has its {} relocated words", finding.clean));
    }
    seen.join(", ")
}

fn reverted(finding: &ObjectFinding) -> String {
    match finding.reverted.len() {
        0 => String::new(),
        1 => "1 relocated word had its value from the file again".to_owned(),
        count => format!("{count} relocated words had their values from the file again"),
    }
}

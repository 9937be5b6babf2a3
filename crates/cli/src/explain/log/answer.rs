//! The answer, as in JSON. The names stay the same while `schema` does.

use serde::Serialize;
use sopin_inspect::kernel_log::{
    CrashEvent, LogSign, LogVerdict, LoggedCrash, LoggedObject, error_words, syndrome_words,
};

use super::groups::{CrashGroup, CrashGroups, OtherCrashes};
use super::search::{AddressCandidate, AddressSearch, SmallAddress, UnreadFile};
use crate::output;

/// Version of the structure. It changes when a field changes its meaning or is removed; new
/// fields do not change it.
pub const SCHEMA: u32 = 1;

/// The whole answer.
#[derive(Debug, Serialize)]
pub struct LogAnswer {
    /// [`SCHEMA`]
    pub schema: u32,
    /// The worst of the crashes.
    pub verdict: LogVerdict,
    /// Number of lines that were read.
    pub lines: u64,
    /// Number of crashes that they report.
    pub crashes: u64,
    /// Number of lines that the kernel says it has left out.
    pub suppressed: u64,
    /// The crashes, those that are the same together; those that prove most come first.
    pub groups: Vec<LoggedCrashes>,
    /// Numbers of crashes that are in no group, because there were too many different ones.
    pub others: OtherCrashes,
    /// The search for the addresses; null if the user named no place to search in.
    pub searched: Option<Searched>,
    /// The user's next steps for the crashes that may come of a rewritten file.
    pub next: Vec<String>,
}

/// Crashes that are the same.
#[derive(Debug, Serialize)]
pub struct LoggedCrashes {
    /// The name of the program's thread.
    pub program: String,
    /// Number of crashes in the group.
    pub count: u64,
    /// The process ids, at most 16.
    pub pids: Vec<u32>,
    /// The text in front of the kernel's words in the first line, usually the time.
    pub first: Option<String>,
    /// The same of the last.
    pub last: Option<String>,
    /// The kernel's words, of the first.
    pub message: String,
    /// The signal, where it is known.
    pub signal: Option<u32>,
    /// The address of the instruction.
    pub ip: Option<u64>,
    /// The address that was accessed.
    pub address: Option<u64>,
    /// The meaning of the error code or of the syndrome register.
    pub error: Vec<&'static str>,
    /// The object at the instruction.
    pub object: Option<ObjectAtInstruction>,
    /// The kind of crash that the line shows.
    pub sign: LogSign,
    /// The strength of the evidence in the line and in the searched objects.
    pub verdict: LogVerdict,
    /// The verdict in words.
    pub reason: String,
    /// The address without base, if it may be one.
    pub small_address: Option<u64>,
    /// The objects with pointers that would revert to it, at most 64.
    pub candidates: Vec<AddressCandidate>,
    /// Number of all such objects.
    pub candidate_count: usize,
}

/// The object that the kernel has named.
#[derive(Debug, Serialize)]
pub struct ObjectAtInstruction {
    /// The name of its file.
    pub name: String,
    /// The first byte of the VMA.
    pub start: u64,
    /// Its size in bytes.
    pub size: u64,
    /// True if the instruction is in it: older kernels name the next object above.
    pub has_instruction: bool,
}

/// The search for the addresses in objects.
#[derive(Debug, Serialize)]
pub struct Searched {
    /// Number of objects that were searched.
    pub objects: usize,
    /// The files that could not be searched, at most 16.
    pub unread: Vec<UnreadFile>,
    /// Number of all files that could not be searched.
    pub unread_count: usize,
}

impl LogAnswer {
    /// Makes the answer.
    pub fn new(groups: CrashGroups, lines: u64, suppressed: u64, search: AddressSearch) -> Self {
        let others = groups.others;
        let groups: Vec<LoggedCrashes> =
            groups.into_sorted().into_iter().map(|group| LoggedCrashes::new(group, &search)).collect();
        let mut verdict = groups.iter().map(|group| group.verdict).max().unwrap_or(LogVerdict::Nothing);
        // Their addresses were not looked for.
        if others.signature != 0 && !search.is_requested {
            verdict = LogVerdict::Signature;
        } else if others.signature + others.possible != 0 {
            verdict = verdict.max(LogVerdict::Possible);
        }
        let in_groups: u64 = groups.iter().map(|group| group.count).sum();
        let crashes = in_groups + others.signature + others.possible + others.nothing;
        let AddressSearch { is_requested, objects, unread, unread_count, .. } = search;
        let searched = is_requested.then_some(Searched { objects, unread, unread_count });
        let next = next(&groups, is_requested);
        Self { schema: SCHEMA, verdict, lines, crashes, suppressed, groups, others, searched, next }
    }
}

impl LoggedCrashes {
    fn new(group: CrashGroup, search: &AddressSearch) -> Self {
        let CrashGroup { crash, last, count, pids } = group;
        let (candidates, candidate_count) =
            SmallAddress::of(&crash).map(|address| search.candidates(address)).unwrap_or_default();
        let sign = crash.sign();
        let is_searched = search.is_requested;
        let verdict = match sign.verdict() {
            // An object that has the address was not among them, or has changed.
            LogVerdict::Signature if is_searched && candidate_count == 0 => LogVerdict::Possible,
            verdict => verdict,
        };
        let error = match (crash.error, crash.syndrome) {
            (Some(error), _) => error_words(error),
            (None, Some(syndrome)) => syndrome_words(syndrome),
            (None, None) => Vec::new(),
        };
        Self {
            reason: reason(&crash, is_searched, &candidates, candidate_count),
            signal: crash.signal(),
            small_address: crash.small_address(),
            object: crash.object.as_ref().map(|object| named(object, crash.ip)),
            program: crash.program,
            first: crash.when,
            message: crash.message,
            ip: crash.ip,
            address: crash.address,
            count,
            pids,
            last,
            error,
            sign,
            verdict,
            candidates,
            candidate_count,
        }
    }
}

fn named(object: &LoggedObject, ip: Option<u64>) -> ObjectAtInstruction {
    let has_instruction = ip.is_some_and(|ip| object.has(ip));
    ObjectAtInstruction { name: object.name.clone(), start: object.start, size: object.size, has_instruction }
}

/// Returns the verdict in words.
fn reason(crash: &LoggedCrash, is_searched: bool, candidates: &[AddressCandidate], count: usize) -> String {
    let address = crash.small_address().unwrap_or_default();
    let only = candidates.first().filter(|_| count == 1);
    let only = only.and_then(|candidate| Some((candidate.names.first()?.name.as_deref()?, candidate)));
    let text = match (crash.sign(), only) {
        (LogSign::Jump, Some((name, candidate))) => {
            return format!(
                "the program jumped to {address:#x}, which is {} in {} without its load base: a pointer in that object \
                 holds it after its file was rewritten in place",
                output::shown(name),
                output::shown(&candidate.path)
            );
        }
        (LogSign::Jump, None) if is_searched && count == 0 => {
            return format!(
                "the program jumped to {address:#x}, which looks like an address without its load base, but no pointer \
                 of the searched objects would revert to it: the object is another one, or has other contents by now"
            );
        }
        (LogSign::Jump, None) => {
            return format!(
                "the program jumped to {address:#x}, where nothing is mapped: it looks like the address of a function \
                 without its load base, which a pointer holds after its file was rewritten in place"
            );
        }
        (LogSign::Access, _) => {
            return format!(
                "the program accessed {address:#x}, where nothing is mapped: it may be the address of data without its \
                 load base, or a null pointer with a large index"
            );
        }
        (LogSign::NullCall, _) => {
            "a call of a null pointer, as in many other bugs; a pointer to an imported function is null in the file, \
             too, which only a core dump or sopin status can show"
        }
        (LogSign::NullAccess, _) => {
            "an access through a null pointer, as in many other bugs; a pointer to an imported variable is null in the \
             file, too, which only a core dump or sopin status can show"
        }
        (LogSign::LowJump, _) => "the program jumped to an address that is too small for code",
        (LogSign::Elsewhere, _) => {
            "no object has this address without its load base; a program into which the text of another build has \
             come can die of anything, which the line does not show"
        }
        (LogSign::Bus, _) => {
            "SIGBUS comes of a page behind the end of a file that was shortened, or of a failing disk; the log does not \
             have the address"
        }
        (LogSign::InvalidOpcode, _) => {
            "the processor does not know the instruction: the text of another build has come into the program, or the \
             program has ended itself (ud2)"
        }
        (LogSign::OwnTrap, _) => "the program has ended itself by ud2, the instruction of an assertion",
        (LogSign::OtherTrap, _) => "an exception of the processor that is no page fault",
        (LogSign::BrokenMemory, _) => "the memory of the machine is broken",
        (LogSign::Incomplete, _) if matches!(crash.event, CrashEvent::Exception(..)) => {
            "the line does not have the address; for an instruction fetch the line `pc :` that follows has it"
        }
        (LogSign::Incomplete, _) => "the line is not complete",
    };
    text.to_owned()
}

/// Returns the user's next steps for the crashes that may come of a rewritten file.
fn next(groups: &[LoggedCrashes], is_searched: bool) -> Vec<String> {
    let mut next = Vec::new();
    let open = || groups.iter().filter(|group| group.verdict != LogVerdict::Nothing);
    if open().any(|group| group.sign == LogSign::Incomplete && group.message.contains("unhandled exception")) {
        next.push("give all lines of the crash: dmesg | sopin explain --log -".to_owned());
    }
    if !is_searched && open().any(|group| group.small_address.is_some()) {
        next.push(
            "find the object: add --in DIRECTORY, --package NAME, or --pid PID of a process of the same program"
                .to_owned(),
        );
    }
    if open().any(|group| group.candidate_count > 1) {
        next.push(
            "find out which of the objects the program had loaded, and which was changed before the crash".to_owned(),
        );
    }
    if let Some(group) = open().next() {
        let pid = group.pids.first().map_or_else(|| "PID".to_owned(), ToString::to_string);
        // The kernel logs the number of the thread.
        next.push(format!("explain the core dump, if one was kept: coredumpctl dump {pid} | sopin explain -"));
        next.push("look for damage in processes that still run: sopin status --all".to_owned());
    }
    next
}

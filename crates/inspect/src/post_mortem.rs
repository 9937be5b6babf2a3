//! Finds out what a core dump shows about the objects of a dead process, and whether the process died because
//! a file was rewritten in place.
//!
//! | module | responsible for |
//! |---|---|
//! | [`system`] | the files of the system on which the process has died |
//! | `crash` | the signal, and where the thread was |
//! | `call_sites` | whether an address is one that a call returns to |
//! | `signal_frames` | faults that the program has caught itself |
//! | `objects` | which mappings belong to an object |
//! | `candidate_file` | a file of an object |
//! | `pages` | whether a page is the file's |
//! | `examination` | the words and pages of one object |
//! | [`verdict`] | the verdict |
//! | [`report`] | the result |
//!
//! Core dump and files are hostile input: these modules trust no number in them.

mod call_sites;
mod candidate_file;
mod crash;
mod examination;
mod objects;
mod pages;
pub mod report;
mod signal_frames;
pub mod system;
pub mod verdict;

pub use candidate_file::build_id_at;

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Write as _;

use crate::core_dump::{CoreDump, DumpMachine};
use crate::image::LoadHeader;
use crate::loader::Auxv;
use crate::memory::{Bytes, FileBytes};
use crate::names::{self, ObjectFile as NamedFile};
use crate::small_addresses::{NamedAddress, NamedKind, names_at, words_holding};

use call_sites::LONGEST_CALL;
use candidate_file::CandidateFile;
use crash::Crash;
use examination::DumpExaminer;
use objects::{DumpedObject, ListState};
use report::{
    AddressReport, CrashReport, DeadObject, DeadObjectDamage, DeadProcess, DumpReport, Explanation, PlaceReport,
    VerdictReport, WordReport,
};
use system::System;
use verdict::{Answer, CrashVerdict, ExaminedObject, Names};

/// Bytes of a page, where the dump does not say it.
const PAGE: u64 = 4096;
/// The most objects in which an address is looked up.
const MOST_LOOKED_UP: usize = 4096;

/// Explains a dump.
pub fn explain<B: Bytes>(dump: &CoreDump<B>, system: &System, lists_all_words: bool) -> Explanation {
    let page = dump.notes.auxv.as_ref().and_then(Auxv::page).unwrap_or(PAGE);
    let (objects, list) = objects::find(dump, system, page);
    let examination = DumpExaminer { dump, system, page, is_glibc: has_glibc(&objects), list };
    let ending = Crash::read(dump).unwrap_or_default();
    let caught = ending.caught(dump);
    let faults = if caught.is_empty() { vec![ending.clone()] } else { caught.clone() };
    let is_of_interest = |object: &DumpedObject| {
        let has = |fault: &Crash| fault.address.is_some_and(|address| object.range(address).is_some());
        object.is_object || faults.iter().any(has)
    };
    let examined: Vec<ExaminedObject> = objects
        .into_iter()
        .filter(is_of_interest)
        .map(|object| ExaminedObject { finding: examination.examine(&object), object })
        .collect();
    let names = Looked { machine: dump.machine, examined: &examined, system, known: RefCell::default() };
    let (fault, verdict) = judge(dump, &faults, &examined, &names);
    let crash = faults.get(fault).cloned().unwrap_or_default();
    let mut errors = Vec::new();
    if dump.notes.is_cut {
        errors.push("the notes of the dump are cut off".to_owned());
    }
    if dump.is_cut() {
        errors.push("the dump is cut off: memory that it should have is missing".to_owned());
    }
    if list == ListState::Unread {
        errors.push("the loader's list of objects could not be read".to_owned());
    }
    let small = [("instruction", crash.jump()), ("address", crash.access())];
    let small = small.into_iter().filter_map(|(what, value)| Some((what, value.filter(|value| *value < 1 << 32)?)));
    Explanation {
        verdict: verdict_report(&verdict, &examined),
        crash: crash_report(&ending, &examined),
        registers: crash.registers.named(dump.machine).collect(),
        caught: (!caught.is_empty()).then(|| crash_report(&crash, &examined)),
        addresses: small.flat_map(|(what, value)| names.addresses(what, value)).collect(),
        process: process(dump, &examined),
        dump: DumpReport {
            origin: dump.notes.origin,
            machine: dump.machine.name(),
            page,
            cut: dump.is_cut() || dump.notes.is_cut,
        },
        objects: examined.iter().map(|found| object_report(found, system, lists_all_words)).collect(),
        errors,
    }
}

fn judge<B: Bytes>(
    dump: &CoreDump<B>,
    faults: &[Crash],
    examined: &[ExaminedObject],
    names: &Looked,
) -> (usize, CrashVerdict) {
    let unknown = |sentence: &str| CrashVerdict {
        answer: Answer::Unknown,
        sentence: format!("It cannot be told whether a file was rewritten in place, because {sentence}."),
        ..CrashVerdict::default()
    };
    if dump.notes.threads.is_empty() {
        return (0, unknown("the dump does not say how the process ended"));
    }
    if dump.notes.files.is_none() {
        return (0, unknown("the dump does not say which files were mapped (NT_FILE)"));
    }
    verdict::judge_all(faults, examined, names)
}

fn process<B: Bytes>(dump: &CoreDump<B>, examined: &[ExaminedObject]) -> DeadProcess {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let protected = examined.iter().filter(|found| found.finding.is_protected).count();
    DeadProcess {
        pid: dump.notes.pid,
        uid: dump.notes.uid,
        name: text(&dump.notes.name),
        arguments: text(&dump.notes.arguments),
        threads: dump.notes.threads.len(),
        protected,
    }
}

fn has_glibc(objects: &[DumpedObject]) -> bool {
    objects.iter().any(|object| {
        let name = object.names().0.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        name.starts_with(b"libc.so.") || name.starts_with(b"libc-2.") || name.starts_with(b"ld-linux")
    })
}

fn verdict_report(verdict: &CrashVerdict, examined: &[ExaminedObject]) -> VerdictReport {
    let object = verdict.object.and_then(|index| examined.get(index));
    VerdictReport {
        answer: verdict.answer,
        certainty: verdict.certainty,
        object: object.map(|found| String::from_utf8_lossy(found.object.origin()).into_owned()),
        sentence: verdict.sentence.clone(),
        way_out: Some(verdict.way_out.clone()).filter(|way_out| !way_out.is_empty()),
    }
}

fn crash_report(crash: &Crash, examined: &[ExaminedObject]) -> CrashReport {
    let place = |address: u64| {
        let found = examined.iter().find(|found| found.object.range(address).is_some());
        PlaceReport {
            address,
            object: found.map(|found| String::from_utf8_lossy(found.object.origin()).into_owned()),
            offset: found.and_then(|found| address.checked_sub(found.object.base?)),
        }
    };
    CrashReport {
        signal: crash.signal,
        name: crash.name(),
        code: crash.code,
        address: crash.address,
        thread: crash.thread,
        instruction: place(crash.registers.instruction),
        caller: crash.caller.map(place),
        stack: crash.registers.stack,
        sender: crash.sender,
        alive: crash.is_alive,
    }
}

fn object_report(found: &ExaminedObject, system: &System, lists_all: bool) -> DeadObject {
    let (object, finding) = (&found.object, &found.finding);
    let (start, end) = object.span();
    DeadObject {
        path: String::from_utf8_lossy(object.origin()).into_owned(),
        deleted: object.names().1 && !object.is_copy(),
        base: object.base,
        start,
        end,
        data: !object.is_object,
        protected: finding.is_protected,
        file: finding.relation,
        mapped_build_id: hex(&finding.mapped_build_id),
        file_build_id: hex(&finding.file_build_id),
        intact_words: finding.intact,
        missing_words: finding.missing,
        bytes_beyond_end: finding.beyond_end,
        damage: finding.is_suspicious().then(|| DeadObjectDamage {
            reverted_words: finding.reverted.len(),
            bytes_lost: finding.lost,
            clean_words: finding.clean,
            dynamic: finding.has_reverted_dynamic,
            other_build: finding.is_other_build,
            words: word_reports(found, system, lists_all),
        }),
        unjudged: finding.unjudged.clone(),
    }
}

fn hex(build_id: &[u8]) -> Option<String> {
    let mut digits = String::new();
    for byte in build_id {
        let _ = write!(digits, "{byte:02x}");
    }
    Some(digits).filter(|digits| !digits.is_empty())
}

fn word_reports(found: &ExaminedObject, system: &System, lists_all: bool) -> Vec<WordReport> {
    let finding = &found.finding;
    if finding.reverted.is_empty() {
        return Vec::new();
    }
    let Some(file) = finding.open(&found.object, system) else { return Vec::new() };
    let named = NamedFile::of(&file.bytes, file.size);
    let finder = named.as_ref().and_then(NamedFile::finder);
    names::reports(&finding.reverted, lists_all, finder.as_ref())
}

/// Names of addresses without base, each looked up once.
struct Looked<'a> {
    machine: DumpMachine,
    examined: &'a [ExaminedObject],
    system: &'a System,
    known: RefCell<HashMap<(usize, u64), Vec<NamedAddress>>>,
}

impl Looked<'_> {
    fn file(&self, index: usize) -> Option<CandidateFile> {
        let found = self.examined.get(index)?;
        found.finding.open(&found.object, self.system)
    }

    /// Returns what an object has at an address without base, from its file or from its separate
    /// debugging information.
    fn names(&self, index: usize, address: u64) -> Vec<NamedAddress> {
        if let Some(known) = self.known.borrow().get(&(index, address)) {
            return known.clone();
        }
        let finding = self.examined.get(index).map(|found| &found.finding);
        let mut names = self.file(index).and_then(|file| names_at(&file.bytes, address).ok()).unwrap_or_default();
        if names.iter().all(|name| name.name.is_none()) {
            let debug = finding.and_then(|finding| self.system.debug_file(&finding.mapped_build_id));
            let debug = debug.map(|file| FileBytes::from(std::os::fd::OwnedFd::from(file)));
            let better = debug.and_then(|file| names_at(&file, address).ok()).unwrap_or_default();
            if better.iter().any(|name| name.name.is_some()) {
                names = better;
            }
        }
        self.known.borrow_mut().insert((index, address), names.clone());
        names
    }

    /// Returns the objects that have a name for an address, or a relocated word that holds it.
    fn addresses(&self, what: &'static str, address: u64) -> Vec<AddressReport> {
        let mut found = Vec::new();
        for (index, examined) in self.examined.iter().enumerate().take(MOST_LOOKED_UP) {
            let Some(file) = self.file(index) else { continue };
            let words = words_holding(&file.bytes, address).map_or(0, |words| words.count);
            let reverted = examined.finding.reverted.iter().filter(|word| word.value == Some(address)).count();
            if address < PAGE && reverted == 0 {
                continue;
            }
            // A name alone says little: every object has something at a small address.
            if words == 0 && reverted == 0 {
                continue;
            }
            let names = self.names(index, address);
            found.push(AddressReport {
                what,
                address,
                object: String::from_utf8_lossy(examined.object.origin()).into_owned(),
                names,
                words,
                reverted,
            });
        }
        found.sort_by_key(|report| std::cmp::Reverse(report.reverted));
        found
    }
}

impl Names for Looked<'_> {
    fn name(&self, index: usize, address: u64) -> Option<String> {
        let names = self.names(index, address);
        let found = names.first()?;
        let name = found.name.as_deref();
        let behind = if found.offset == 0 { String::new() } else { format!("+{:#x}", found.offset) };
        Some(match (found.kind, name) {
            (NamedKind::Plt, Some(name)) => format!("the PLT entry of {name}"),
            (_, Some(name)) => format!("{name}{behind}"),
            (NamedKind::Function, None) => "a function without a name".to_owned(),
            _ => return None,
        })
    }

    fn follows_call(&self, index: usize, address: u64) -> bool {
        let found = self.examined.get(index);
        let place = found.and_then(|found| address.checked_sub(found.object.base?));
        let (Some(place), Some(file)) = (place, self.file(index)) else { return false };
        let is_code = |segment: &&LoadHeader| {
            segment.is_executable && place.checked_sub(segment.address).is_some_and(|at| at < segment.file_size)
        };
        let Some(offset) = file.image.headers.segments.iter().find(is_code).and(file.image.headers.offset_of(place))
        else {
            return false;
        };
        let Some(start) = offset.checked_sub(LONGEST_CALL as u64) else { return false };
        file.bytes.read_array(start).is_ok_and(|code| call_sites::ends_with_call(self.machine, code))
    }

    fn holds(&self, index: usize, address: u64) -> Option<bool> {
        let file = self.file(index)?;
        words_holding(&file.bytes, address).ok().map(|words| words.count != 0)
    }
}

#[cfg(test)]
mod tests;

//! The result of examining a core dump. Serialised it is a part of the JSON output of `sopin
//! explain`, whose names stay the same while its `schema` does. In text that is no UTF-8, U+FFFD replaces
//! the wrong bytes.

use std::collections::BTreeMap;

use serde::Serialize;

use super::examination::FileRelation;
use super::verdict::{Answer, Certainty};
use crate::core_dump::DumpOrigin;
use crate::small_addresses::NamedAddress;

pub use super::examination::FileRelation as Relation;
pub use crate::report::WordReport;

/// Everything that a dump shows.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// The verdict.
    pub verdict: VerdictReport,
    /// The end of the process.
    pub crash: CrashReport,
    /// The registers of the thread at the fault, by their names.
    pub registers: BTreeMap<&'static str, u64>,
    /// The fault that the program has caught itself, before it ended; null if there is none.
    pub caught: Option<CrashReport>,
    /// The objects whose relocated words hold the address of the crash, if it is a small one.
    pub addresses: Vec<AddressReport>,
    /// The process.
    pub process: DeadProcess,
    /// The dump.
    pub dump: DumpReport,
    /// The objects, and the file of data that the process died in.
    pub objects: Vec<DeadObject>,
    /// Sentences about facts that could not be determined.
    pub errors: Vec<String>,
}

/// The verdict.
#[derive(Debug, Serialize)]
pub struct VerdictReport {
    /// The answer.
    pub answer: Answer,
    /// The certainty of the answer; null unless a file was rewritten.
    pub certainty: Option<Certainty>,
    /// The file that it is about, if it is about one.
    pub object: Option<String>,
    /// The verdict in one sentence.
    pub sentence: String,
    /// A step by which the user can learn more; null if there is none.
    pub way_out: Option<String>,
}

/// An address, and the object that it lies in.
#[derive(Debug, Serialize)]
pub struct PlaceReport {
    /// The address.
    pub address: u64,
    /// The file that is mapped there.
    pub object: Option<String>,
    /// The address without the base of that object.
    pub offset: Option<u64>,
}

/// The end of a process: the signal, and the thread that got it.
#[derive(Debug, Serialize)]
pub struct CrashReport {
    /// The number of the signal; 0 if there was none.
    pub signal: i32,
    /// The name of the signal; null for one that dumps no core.
    pub name: Option<&'static str>,
    /// `si_code`
    pub code: Option<i32>,
    /// The address that could not be accessed or executed; null if the kernel has told none.
    pub address: Option<u64>,
    /// The thread that got the signal.
    pub thread: u32,
    /// Its instruction pointer.
    pub instruction: PlaceReport,
    /// The return address of the call that led there, if there is no code.
    pub caller: Option<PlaceReport>,
    /// Its stack pointer.
    pub stack: u64,
    /// The process that has sent the signal; null if none has.
    pub sender: Option<u32>,
    /// True if the process may live on: gdb has made the dump.
    pub alive: bool,
}

/// An object whose relocated words hold a small address, in the file or in the memory of the process.
#[derive(Debug, Serialize)]
pub struct AddressReport {
    /// `instruction`: the thread jumped there; `address`: it accessed that.
    pub what: &'static str,
    /// The address.
    pub address: u64,
    /// The object.
    pub object: String,
    /// The functions or data that it has at that address.
    pub names: Vec<NamedAddress>,
    /// Number of relocated words that hold it in the file.
    pub words: usize,
    /// Number of relocated words that held it in the memory of the process.
    pub reverted: usize,
}

/// The process.
#[derive(Debug, Serialize)]
pub struct DeadProcess {
    /// Its process id.
    pub pid: Option<u32>,
    /// Its user.
    pub uid: Option<u32>,
    /// The name of its first thread.
    pub name: String,
    /// The beginning of its arguments.
    pub arguments: String,
    /// Number of its threads.
    pub threads: usize,
    /// Number of its objects that map copies of libsopin.so.
    pub protected: usize,
}

/// The dump.
#[derive(Debug, Serialize)]
pub struct DumpReport {
    /// The writer of the dump.
    pub origin: DumpOrigin,
    /// `x86_64` or `aarch64`
    pub machine: &'static str,
    /// Bytes of a page.
    pub page: u64,
    /// True if it ends before the end that its headers give.
    pub cut: bool,
}

/// One object, or a file of data.
#[derive(Debug, Serialize)]
pub struct DeadObject {
    /// The file that was mapped.
    pub path: String,
    /// True if its path ended with the mark of a file that has no name any more.
    pub deleted: bool,
    /// Load bias; null if that is not known.
    pub base: Option<u64>,
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
    /// It is no object, but a file that the program has mapped itself.
    pub data: bool,
    /// It maps a copy that libsopin.so has made.
    pub protected: bool,
    /// The relation of the file on the disk to the object that was loaded.
    pub file: FileRelation,
    /// The build-id in the dump: of the file as it was when the process died.
    pub mapped_build_id: Option<String>,
    /// The build-id of the file on the disk.
    pub file_build_id: Option<String>,
    /// Number of relocated words that hold what they should.
    pub intact_words: usize,
    /// Number of relocated words that the dump does not have.
    pub missing_words: usize,
    /// Bytes of mapped pages behind the present end of the file.
    pub bytes_beyond_end: u64,
    /// The damage; null if there is none.
    pub damage: Option<DeadObjectDamage>,
    /// The reason for which its relocations were not compared; null if they were.
    pub unjudged: Option<String>,
}

/// The damage in an object.
#[derive(Debug, Serialize)]
pub struct DeadObjectDamage {
    /// Number of words that had their values from the file again.
    pub reverted_words: usize,
    /// Bytes of relocated pages that could not be read: they lay behind the end of the file.
    pub bytes_lost: u64,
    /// Number of relocated words in ranges that gdb has left out because no page was private.
    pub clean_words: usize,
    /// The dynamic section had its values from the file again.
    pub dynamic: bool,
    /// The file had become another build while it was mapped.
    pub other_build: bool,
    /// Some of the words, from every section, or all of them with `--verbose`.
    pub words: Vec<WordReport>,
}

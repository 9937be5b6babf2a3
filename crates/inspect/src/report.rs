//! The result of inspecting a process. Serialised it is a part of the JSON output of `sopin
//! status`, whose names stay what they are while its `schema` does; text that is no UTF-8 has
//! U+FFFD where it is not.

use serde::Serialize;
use sopin_core::vmas::FileId;

use crate::disk::Disk;
use crate::object::ObjectState;

/// One process.
#[derive(Debug, Serialize)]
pub struct ProcessReport {
    /// Its process id.
    pub pid: u32,
    /// Its effective user.
    pub uid: u32,
    /// The name of its first thread.
    pub name: String,
    /// The arguments that it was started with.
    pub command: Vec<String>,
    /// The library in it; null if it is not loaded.
    pub shim: Option<Shim>,
    /// Number of objects in each state.
    pub full: usize,
    /// The same.
    pub relocated: usize,
    /// The same.
    pub exposed: usize,
    /// The same.
    pub damaged: usize,
    /// KiB of the objects' contents that are out of the files' reach.
    pub pinned_kib: u64,
    /// `loader`, or `maps` if the loader's list could not be read: the program is static, or
    /// reading its memory is not permitted.
    pub source: &'static str,
    /// The objects.
    pub objects: Vec<ObjectReport>,
    /// Mapped files that are no objects; left out unless they are requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<Vec<DataFileReport>>,
    /// What could not be determined.
    pub errors: Vec<String>,
}

/// A file that the process maps, that is no object, and that could be rewritten: all its mappings
/// of one kind.
#[derive(Debug, Serialize)]
pub struct DataFileReport {
    /// Its path, without the mark of a deleted file.
    pub path: String,
    /// KiB of address space.
    pub mapped_kib: u64,
    /// Number of mappings.
    pub mappings: usize,
    /// `MAP_SHARED`
    pub shared: bool,
    /// Whether the process may store to the pages.
    pub writable: bool,
    /// Whether no path leads to it any more: only what has it open can change it.
    pub deleted: bool,
    /// The user id of its owner; null if that could not be determined: the file could not be opened,
    /// or a server answers for its file system, which is not asked.
    pub owner: Option<u32>,
    /// Its group id; null likewise.
    pub group: Option<u32>,
    /// Its permissions, four octal digits; null likewise.
    pub mode: Option<String>,
    /// Whether others than the process's user and root may write to it, or it belongs to another
    /// user, which may be root; null likewise.
    pub others: Option<bool>,
    /// What the process suffers when the file is truncated or written to.
    pub consequence: &'static str,
}

/// The library in a process.
#[derive(Clone, Debug, Serialize)]
pub struct Shim {
    /// Its path.
    pub path: String,
    /// Its version, if it publishes that.
    pub version: Option<String>,
    /// The mode in force, if it publishes that.
    pub mode: Option<&'static str>,
}

/// One object.
#[derive(Debug, Serialize)]
pub struct ObjectReport {
    /// The file that it was loaded from.
    pub path: String,
    /// That file, as `/proc/PID/maps` shows it; `None` if no mapping of it is left.
    #[serde(skip)]
    pub loaded_from: Option<FileId>,
    /// Its state.
    pub state: ObjectState,
    /// Whether it maps a file in a layer of a container's image, which needs no copy: what is
    /// written to such a file goes to another one.
    pub image_layer: bool,
    /// Load bias; null if that is not known.
    pub base: Option<u64>,
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
    /// 0, or a number for a namespace of `dlmopen(3)`.
    pub namespace: usize,
    /// KiB of its contents that are out of the file's reach.
    pub pinned_kib: u64,
    /// Why it is not in a better state; null if it is full.
    pub reason: Option<String>,
    /// The state of its file.
    pub file: Disk,
    /// The damage; null if there is none.
    pub damage: Option<DamageReport>,
    /// Why its relocations were not compared; null if they were, or need not be.
    pub unjudged: Option<String>,
}

/// What is damaged in an object.
#[derive(Debug, Serialize)]
pub struct DamageReport {
    /// Number of words that have reverted to what is in the file.
    pub reverted_words: usize,
    /// Bytes of pages behind the end of the file.
    pub bytes_beyond_end: u64,
    /// The loader's stores are lost, and the file is of another version, so which
    /// words they were is not known.
    pub other_version: bool,
    /// Some of the words, from every section, or all of them with `--verbose`.
    pub words: Vec<WordReport>,
}

/// A word that has reverted.
#[derive(Debug, Serialize)]
pub struct WordReport {
    /// Its address in the process.
    pub address: u64,
    /// The section it is in.
    pub section: Option<String>,
    /// The symbol before it.
    pub symbol: Option<String>,
    /// The distance to that symbol, in bytes.
    pub offset: Option<u64>,
    /// Its value; null if that cannot be read.
    pub value: Option<u64>,
    /// The value that it should have; null if only the loader knows it.
    pub expected: Option<u64>,
}

//! What `sopin store fill` has done, for people and for programs.

use std::fmt;

use serde::Serialize;

use super::candidate::{FillCandidate, FillRefusal};
use crate::output::{BAD, shown};
use crate::store::human;
use crate::store::printing::SCHEMA;

/// The answer. Its names are those of the JSON output; sizes are in bytes.
#[derive(Serialize)]
pub struct FillAnswer {
    schema: u32,
    /// The store.
    path: String,
    pub added: Vec<Added>,
    /// Number of copies that the store had already.
    pub were_there: usize,
    /// Bytes that were added.
    pub size: u64,
    pub skipped: Skipped,
    pub failed: Vec<Failed>,
}

#[derive(Serialize)]
pub struct Added {
    path: String,
    size: u64,
}

/// Number of files of directories and processes that were not copied, by reason.
#[derive(Default, Serialize)]
pub struct Skipped {
    not_objects: usize,
    not_for_everybody: usize,
    elsewhere: usize,
    need_no_copy: usize,
    /// On file systems that do not date every change of a file, or sparse.
    not_suited: usize,
    vanished: usize,
    pub changing: usize,
}

/// A file that should have been copied and was not.
#[derive(Debug, Serialize)]
pub struct Failed {
    name: String,
    reason: String,
    way_out: String,
}

impl Failed {
    /// Makes a failure for a file or process with this name.
    pub fn new(name: impl fmt::Display, reason: impl fmt::Display, way_out: &str) -> Self {
        Self { name: name.to_string(), reason: reason.to_string(), way_out: way_out.to_owned() }
    }
}

impl Skipped {
    /// Counts a skipped file. Returns false if the kernel has refused a call, which is not a
    /// reason to skip a file.
    pub fn count(&mut self, refusal: &FillRefusal) -> bool {
        *match refusal {
            FillRefusal::NotAnObject(_) => &mut self.not_objects,
            FillRefusal::NotForEverybody(_) => &mut self.not_for_everybody,
            FillRefusal::Elsewhere => &mut self.elsewhere,
            FillRefusal::NeedsNoCopy => &mut self.need_no_copy,
            FillRefusal::NotSuited(_) => &mut self.not_suited,
            FillRefusal::Vanished => &mut self.vanished,
            FillRefusal::Failed(_) => return false,
        } += 1;
        true
    }
}

impl FillAnswer {
    /// Makes an answer for the store at `path`, in which nothing was done yet.
    pub fn new(path: String) -> Self {
        Self {
            schema: SCHEMA,
            path,
            added: Vec::new(),
            were_there: 0,
            size: 0,
            skipped: Skipped::default(),
            failed: Vec::new(),
        }
    }

    /// Counts a copy that was added.
    pub fn add(&mut self, candidate: &FillCandidate) {
        let size = candidate.identity.size;
        self.added.push(Added { path: candidate.path().to_string_lossy().into_owned(), size });
        self.size += size;
    }
}

impl fmt::Display for FillAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", shown(&self.path))?;
        let Skipped { not_objects, not_for_everybody, elsewhere, need_no_copy, not_suited, vanished, changing } =
            self.skipped;
        let skipped = [
            (not_for_everybody, "not readable by everybody"),
            (elsewhere, "not at that path from here"),
            (need_no_copy, "not writable, so no copy is needed"),
            (not_suited, "on a file system that does not date every change, or full of holes"),
            (vanished, "replaced or removed"),
            (changing, "still changing"),
            (not_objects, "not an object of this machine"),
        ];
        for (count, reason) in skipped.into_iter().filter(|(count, _)| *count > 0) {
            writeln!(f, "  {} skipped: {reason}", human::count(count, "file", "files"))?;
        }
        for Failed { name, reason, way_out } in &self.failed {
            let separator = if way_out.is_empty() { "" } else { "; " };
            writeln!(f, "  {BAD}not copied{BAD:#}: {}: {reason}{separator}{way_out}", shown(name))?;
        }
        let added = human::count(self.added.len(), "copy", "copies");
        writeln!(f, "{added} added, {}; {} there already", human::bytes(self.size), self.were_there)
    }
}

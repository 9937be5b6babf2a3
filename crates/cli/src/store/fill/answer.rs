//! What `sopin store fill` has done, for people and for programs.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::candidate::{FillCandidate, FillRefusal};
use crate::output::{BAD, shown};
use crate::store::human;
use crate::store::printing::SCHEMA;

/// For how many reasons, and how many paths for each, people see what was left out.
const SHOWN_REASONS: usize = 10;
const SHOWN_PATHS: usize = 3;

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
    skipped: Skipped,
    left_out: BTreeSet<LeftOut>,
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
    changing: usize,
}

/// An object of a directory or process that was skipped, though programs may load it.
#[derive(PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct LeftOut {
    path: String,
    reason: String,
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
            left_out: BTreeSet::new(),
            failed: Vec::new(),
        }
    }

    /// Counts a copy that was added.
    pub fn add(&mut self, candidate: &FillCandidate) {
        let size = candidate.identity.size;
        self.added.push(Added { path: candidate.path().to_string_lossy().into_owned(), size });
        self.size += size;
    }

    /// Counts a skipped file, and notes it if programs may load it. Returns false if the kernel has
    /// refused a call, which is not a reason to skip a file.
    pub fn skip(&mut self, path: String, refusal: &FillRefusal) -> bool {
        let skipped = &mut self.skipped;
        let (count, is_left_out) = match refusal {
            FillRefusal::NotAnObject(_) => (&mut skipped.not_objects, false),
            FillRefusal::NotForEverybody(_) => (&mut skipped.not_for_everybody, true),
            FillRefusal::Elsewhere => (&mut skipped.elsewhere, true),
            FillRefusal::NeedsNoCopy => (&mut skipped.need_no_copy, false),
            FillRefusal::NotSuited(_) => (&mut skipped.not_suited, true),
            FillRefusal::Vanished => (&mut skipped.vanished, false),
            FillRefusal::Changing => (&mut skipped.changing, true),
            FillRefusal::Failed(_) => return false,
        };
        // Several processes may map one object.
        let is_new = !is_left_out || self.left_out.insert(LeftOut { path, reason: refusal.to_string() });
        *count += usize::from(is_new);
        true
    }

    /// Writes the reasons why objects were left out, each with some of the objects.
    fn write_left_out(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut by_reason: Vec<(&str, Vec<&str>)> = Vec::new();
        for LeftOut { path, reason } in &self.left_out {
            match by_reason.iter_mut().find(|(known, _)| known == reason) {
                Some((_, paths)) => paths.push(path),
                None => by_reason.push((reason, vec![path])),
            }
        }
        let others = by_reason.split_off(by_reason.len().min(SHOWN_REASONS));
        for (reason, paths) in by_reason {
            writeln!(f, "  {} skipped: {reason}", human::count(paths.len(), "object", "objects"))?;
            for path in paths.iter().take(SHOWN_PATHS) {
                writeln!(f, "    {}", shown(path))?;
            }
            if let more @ 1.. = paths.len().saturating_sub(SHOWN_PATHS) {
                writeln!(f, "    and {more} more (--json lists them)")?;
            }
        }
        let others: usize = others.iter().map(|(_, paths)| paths.len()).sum();
        if others > 0 {
            writeln!(
                f,
                "  {} skipped for other reasons (--json lists them)",
                human::count(others, "object", "objects")
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for FillAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", shown(&self.path))?;
        self.write_left_out(f)?;
        let Skipped { not_objects, need_no_copy, vanished, .. } = self.skipped;
        let skipped = [
            (need_no_copy, "not writable, so no copy is needed"),
            (vanished, "replaced or removed"),
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
        writeln!(f, "{added} added, {}; {} there already", human::bytes(self.size), self.were_there)?;
        if self.left_out.is_empty() {
            return Ok(());
        }
        writeln!(f, "Programs copy the skipped objects to the stores of their users, as without a system's store.")
    }
}

//! The answer of `sopin status`, for people: a table with a line for each
//! process, lines for its objects, and what was passed over.

use std::fmt;

use anstyle::Style;

use sopin_inspect::disk::{Disk, DiskState};
use sopin_inspect::object::ObjectState;
use sopin_inspect::report::{DamageReport, ObjectReport, ProcessReport, WordReport};

use super::answer::{PassedOver, StatusAnswer};
use super::files;
use crate::output::{DOUBTFUL, shown};
use crate::process_table::{Cell, ProcessTable, command, style_of};

/// The answer as text.
pub struct StatusPage<'a> {
    /// The answer.
    pub answer: &'a StatusAnswer,
    /// Whether there is a line for each object and for every damaged word.
    pub is_verbose: bool,
    /// Whether only processes with the library were requested.
    pub is_selective: bool,
    /// The number of columns of the terminal; `None` if it is not for a terminal.
    pub columns: Option<usize>,
}

/// The columns except the last, which has the command. All hold numbers, so they are aligned to
/// the right.
const COLUMNS: [&str; 7] = ["PID", "SHIM", "FULL", "RELOCATED", "EXPOSED", "DAMAGED", "PINNED-KIB"];

impl fmt::Display for StatusPage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<_> = self.answer.processes.iter().map(cells).collect();
        // With --verbose commands are not cut, as with `ps -ww`.
        let table = ProcessTable::new(COLUMNS, &rows, self.columns.filter(|_| !self.is_verbose));
        if !rows.is_empty() {
            table.heading(f)?;
        }
        for (process, row) in self.answer.processes.iter().zip(&rows) {
            table.row(f, row, &command(&process.name, &process.command))?;
            self.objects(f, process)?;
            files::write(f, process.files.as_deref().unwrap_or_default(), process.uid, self.is_verbose)?;
        }
        files::explain(f, &self.answer.processes)?;
        self.remarks(f)
    }
}

impl StatusPage<'_> {
    fn objects(&self, f: &mut fmt::Formatter<'_>, process: &ProcessReport) -> fmt::Result {
        let is_shown = |object: &&ObjectReport| self.is_verbose || object.state == ObjectState::Damaged;
        let width = process.objects.iter().filter(is_shown).map(|object| state_of(object).len().max(9)).max();
        for object in &process.objects {
            if is_shown(&object) {
                let (style, state, width) = (style_of(object.state), state_of(object), width.unwrap_or_default());
                write!(f, "    {style}{state:<width$}{style:#} {:>7} KiB  {}", object.pinned_kib, shown(&object.path))?;
                writeln!(f, "{}", remarks(object))?;
            }
            if let Some(damage) = &object.damage {
                self.damage(f, damage)?;
            }
        }
        for error in process.errors.iter().filter(|_| self.is_verbose) {
            writeln!(f, "    {DOUBTFUL}note{DOUBTFUL:#}      {}", shown(error))?;
        }
        Ok(())
    }

    fn damage(&self, f: &mut fmt::Formatter<'_>, damage: &DamageReport) -> fmt::Result {
        if damage.bytes_beyond_end != 0 {
            let kib = damage.bytes_beyond_end >> 10;
            writeln!(f, "              {kib} KiB lie behind the end of the file: touching them is SIGBUS")?;
        }
        if damage.other_version {
            writeln!(
                f,
                "              relocations are lost; the file is of another version now, so which is not known"
            )?;
        }
        if damage.reverted_words != 0 {
            let count = damage.reverted_words;
            let words = if count == 1 { "relocated word is" } else { "relocated words are" };
            writeln!(f, "              {count} {words} again what the file has:")?;
        }
        let mut words: Vec<&WordReport> = damage.words.iter().collect();
        if !self.is_verbose {
            words.dedup_by_key(|word| &word.section);
        }
        for word in &words {
            writeln!(f, "                {}", WordLine(word))?;
        }
        if let Some(more) = damage.reverted_words.checked_sub(words.len()).filter(|more| *more != 0) {
            writeln!(
                f,
                "                and {more} more{}",
                if self.is_verbose { "" } else { " (--verbose lists them)" }
            )?;
        }
        Ok(())
    }

    /// Writes what is not in the table.
    fn remarks(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StatusAnswer { processes, not_inspected, passed_over, remedy, .. } = self.answer;
        if processes.is_empty() && self.is_selective {
            writeln!(f, "No process has libsopin.so loaded; sopin status --all shows the others.")?;
        }
        for process in not_inspected {
            writeln!(f, "{DOUBTFUL}{}{DOUBTFUL:#}: could not be inspected: {}", process.pid, shown(&process.reason))?;
        }
        let PassedOver { vanished, denied, failed, .. } = *passed_over;
        let mut counted = |count: usize, what: &str| match count {
            0 => Ok(()),
            1 => writeln!(f, "1 process {what}."),
            count => writeln!(f, "{count} processes {what}."),
        };
        counted(vanished, "ended meanwhile")?;
        counted(failed, "could not be inspected")?;
        if let Some(remedy) = remedy {
            counted(denied, &format!("could not be inspected (permission denied): {remedy}"))?;
            if denied == 0 {
                writeln!(f, "Permission denied: {remedy}.")?;
            }
        }
        Ok(())
    }
}

/// Returns a row: each cell with its style.
fn cells(process: &ProcessReport) -> [Cell; COLUMNS.len()] {
    let plain = Style::new();
    let count = |state: ObjectState, count: usize| {
        let style = if count == 0 { plain } else { style_of(state) };
        (count.to_string(), style)
    };
    [
        (process.pid.to_string(), plain),
        (if process.shim.is_some() { "yes" } else { "no" }.to_owned(), plain),
        count(ObjectState::Full, process.full),
        count(ObjectState::Relocated, process.relocated),
        count(ObjectState::Exposed, process.exposed),
        count(ObjectState::Damaged, process.damaged),
        (process.pinned_kib.to_string(), plain),
    ]
}

/// Returns the words for the state of an object.
fn state_of(object: &ObjectReport) -> &'static str {
    match (object.state, object.image_layer) {
        (ObjectState::Full, true) => "full (image layer)",
        (state, _) => state.word(),
    }
}

/// Returns the remarks about an object that follow its path.
fn remarks(object: &ObjectReport) -> String {
    let reason = object.reason.as_deref().map(shown);
    let namespace = (object.namespace != 0).then(|| format!("namespace {}", object.namespace));
    let unjudged = object.unjudged.as_ref().filter(|_| object.damage.is_none());
    let unjudged = unjudged.map(|why| format!("not checked for damage: {}", shown(why)));
    let file = Some(fate(&object.file)).filter(|words| !words.is_empty()).map(str::to_owned);
    let all: Vec<String> = [file, reason, namespace, unjudged].into_iter().flatten().collect();
    if all.is_empty() { String::new() } else { format!(": {}", all.join("; ")) }
}

/// Returns the words for the state of a file; empty if it is unchanged.
fn fate(file: &Disk) -> &'static str {
    match (file.state, file.certain) {
        (DiskState::Unchanged, _) => "",
        (DiskState::Rewritten, true) => "rewritten on disk since it was loaded",
        (DiskState::Rewritten, false) => "changed on disk after its process was started",
        (DiskState::Replaced, _) => "replaced on disk by another file",
        (DiskState::Deleted, _) => "deleted on disk",
        (DiskState::Unknown, _) => "its file cannot be looked at",
    }
}

/// A word that has reverted.
pub struct WordLine<'a>(pub &'a WordReport);

impl fmt::Display for WordLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WordReport { address, section, symbol, offset, value, expected } = self.0;
        write!(f, "{address:#x} in {}", section.as_deref().map_or_else(|| "no section".to_owned(), shown))?;
        match (symbol, offset) {
            (Some(symbol), Some(0)) => write!(f, ", {}", shown(symbol))?,
            (Some(symbol), Some(offset)) => write!(f, ", {}+{offset:#x}", shown(symbol))?,
            _ => {}
        }
        match value {
            Some(value) => write!(f, ": holds {value:#x}")?,
            None => write!(f, ": cannot be read")?,
        }
        match expected {
            Some(expected) => write!(f, ", should hold {expected:#x}"),
            None => write!(f, ", should hold an address"),
        }
    }
}

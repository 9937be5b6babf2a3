//! The table of what each rewriter does, as Markdown, and its comparison with another
//! such table.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::common::protection::Protection;
use crate::table::{self, Rewriter};
use crate::trial::Fate;

/// The results of this run.
#[derive(Default)]
pub struct Page {
    fates: BTreeMap<(&'static str, &'static str), Fate>,
}

const HEAD: &str = "\
# What rewriting does to a running process

Each row is a program that gives an installed shared object other bytes. The test runs it while a process is busy in that
object. A program that puts a new file in the object's place harms no process. A program that changes the mapped file
destroys every process that uses the file. With `SOPIN_MODE=full`, the default, the process continues with what it had
loaded, and computes the same results. `relocated` protects what the loader has relocated and lets text follow the file:
enough for an idle process and a file that gets the same bytes again, not for a busy process as in this table.

Made by `make rewriters` from real runs";

const COLUMNS: &str = "\
| | the mapped file | without sopin | `relocated` | `full` |
|---|---|---|---|---|
";

impl Page {
    /// Adds the result of a trial.
    pub fn add(&mut self, rewriter: &'static str, protection: Protection, fate: Fate) {
        self.fates.insert((rewriter, column(protection)), fate);
    }

    /// Returns the page. `versions` describes the tools.
    pub fn render(&self, versions: &str) -> String {
        let mut page = format!("{HEAD} ({versions}).\n\n{COLUMNS}");
        for rewriter in table::ALL {
            let _ = writeln!(page, "{}", self.row(rewriter));
        }
        page
    }

    fn row(&self, rewriter: &Rewriter) -> String {
        let note = if rewriter.note.is_empty() { String::new() } else { format!(", {}", rewriter.note) };
        let fates = crate::PROTECTIONS.map(|protection| self.fates.get(&(rewriter.name, column(protection))));
        let file = fates.iter().flatten().next().map_or("not tried", |fate| {
            if fate.has_kept_inode { "is changed" } else { "stays; a new one takes its place" }
        });
        let [without, relocated, full] =
            fates.map(|fate| fate.map_or_else(|| "not tried".to_owned(), ToString::to_string));
        format!("| `{}`{note} | {file} | {without} | {relocated} | {full} |", rewriter.name)
    }

    /// Checks that `text`, an earlier page, agrees with this run: the same rewriters,
    /// with the same effects on the file and on the process in mode `full`.
    ///
    /// # Errors
    /// The rows that differ.
    pub fn compare(&self, text: &str) -> Result<(), String> {
        let parts = |row: &str| -> Option<[String; 3]> {
            let cells: Vec<_> = row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
            Some([cells.first()?.clone(), cells.get(1)?.clone(), cells.get(4)?.clone()])
        };
        let documented: Vec<_> = text.lines().filter(|line| line.starts_with("| `")).filter_map(parts).collect();
        let mut wrong = String::new();
        for rewriter in table::ALL {
            let was_tried = self.fates.contains_key(&(rewriter.name, column(Protection::Full)));
            let row = self.row(rewriter);
            if was_tried && !parts(&row).is_some_and(|parts| documented.contains(&parts)) {
                let _ = write!(wrong, "\n{row}");
            }
        }
        if documented.len() != table::ALL.len() {
            let _ = write!(wrong, "\n{} rows, and there are {} rewriters", documented.len(), table::ALL.len());
        }
        if wrong.is_empty() { Ok(()) } else { Err(format!("docs/rewriters.md does not say what was seen:{wrong}")) }
    }
}

fn column(protection: Protection) -> &'static str {
    protection.mode().unwrap_or("")
}

//! The table in docs/explain.md: each program, each way of dying, and the verdict of the command.
//! Every trial checks its own cell. `SOPIN_NEW_TABLE=1` writes the table anew after a run of all
//! trials.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use crate::cases;
use crate::common::library::checkout;
use crate::explained::Verdict;
use crate::hosts::Host;

const BEGIN: &str = "<!-- tests/crashes writes from here -->";
const END: &str = "<!-- to here -->";

/// The verdicts of this run.
#[derive(Default)]
pub struct Page {
    verdicts: Mutex<BTreeMap<(&'static str, String), Verdict>>,
}

fn path() -> PathBuf {
    checkout().join("docs/explain.md")
}

fn is_made_anew() -> bool {
    env::var_os("SOPIN_NEW_TABLE").is_some()
}

/// Returns the text before, in and behind the table.
fn parts() -> Result<[String; 3], String> {
    let text = fs::read_to_string(path()).map_err(|error| format!("{}: {error}", path().display()))?;
    let parts = text.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?)));
    let (before, (table, behind)) = parts.ok_or_else(|| format!("{} has no table", path().display()))?;
    Ok([before, table, behind].map(str::to_owned))
}

/// Returns the cells of each row of the table.
fn rows() -> Result<Vec<Vec<String>>, String> {
    let [_, table, _] = parts()?;
    let rows = table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| The "));
    Ok(rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect())
}

fn column(host: Host) -> usize {
    Host::ALL.iter().position(|other| *other == host).unwrap_or_default()
}

impl Page {
    /// Notes a verdict, and checks that the table has it.
    ///
    /// # Errors
    /// The table has another one.
    pub fn check(&self, description: &'static str, host: Host, verdict: Verdict) -> Result<(), String> {
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        verdicts.insert((description, host.to_string()), verdict);
        if is_made_anew() {
            return Ok(());
        }
        let rows = rows()?;
        let row = rows.iter().find(|row| row[0] == description);
        let cell = row.and_then(|row| row.get(1 + column(host)));
        if cell.is_some_and(|cell| *cell == verdict.to_string()) {
            return Ok(());
        }
        Err(format!("{}: the row {description:?} has {cell:?} for {host}, and {verdict:?} was seen", path().display()))
    }

    /// Writes the table anew, if that is wanted and every verdict is known.
    ///
    /// # Errors
    /// Those of the file system; a verdict is not known.
    pub fn write(&self) -> Result<(), String> {
        if !is_made_anew() {
            return Ok(());
        }
        let verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = String::from("\n\n| The program, after its plug-in's file was rewritten or not, ... |");
        for host in Host::ALL {
            let _ = write!(table, " {} |", host.title());
        }
        let _ = write!(table, "\n|---|{}", "---|".repeat(Host::ALL.len()));
        for way in cases::all() {
            let _ = write!(table, "\n| {} |", way.description);
            for host in Host::ALL {
                let verdict = verdicts.get(&(way.description, host.to_string()));
                let verdict = verdict.ok_or_else(|| format!("{}: no verdict for {host}", way.description))?;
                let _ = write!(table, " {verdict} |");
            }
        }
        let [before, _, behind] = parts()?;
        fs::write(path(), format!("{before}{BEGIN}{table}\n\n{END}{behind}"))
            .map_err(|error| format!("{}: {error}", path().display()))
    }
}

/// Checks that the table has exactly one row for each way, in the same order.
///
/// # Errors
/// It has not.
pub fn has_every_way() -> Result<(), String> {
    let documented: Vec<_> = rows()?.into_iter().map(|row| row[0].clone()).collect();
    let tried: Vec<_> = cases::all().map(|way| way.description.to_owned()).collect();
    if documented == tried || is_made_anew() {
        return Ok(());
    }
    Err(format!("{} has the rows\n{documented:#?}\nand the ways are\n{tried:#?}", path().display()))
}

//! `sopin store list`.

use std::fmt;

use serde::Serialize;
use sopin_core::sys;
use sopin_store::Freshness;

use super::entry::{self, Details, EntryDirectory};
use super::human::{self, Table};
use super::open_store::OpenStore;
use super::printing::{SCHEMA, print};
use super::users::Users;
use crate::exit::{Exit, Failure};
use crate::output::{DOUBTFUL, shown};

/// Process ids that are written out in a row of the table.
const PIDS_SHOWN: usize = 3;

/// The answer. Its names are those of the JSON output; paths that are no UTF-8
/// have U+FFFD where they are not. Sizes are in bytes, times in seconds since the
/// epoch.
#[derive(Serialize)]
struct ListAnswer {
    schema: u32,
    stores: Vec<ListedEntry>,
    processes_not_inspected: usize,
}

#[derive(Serialize)]
struct ListedEntry {
    path: String,
    entries: Vec<Row>,
    totals: Totals,
}

#[derive(Serialize)]
struct Row {
    key: String,
    file: Option<String>,
    origin: Option<String>,
    state: &'static str,
    size: u64,
    allocated: u64,
    /// The part of `allocated` that other files share, for instance the origins; null where the
    /// file system does not report that.
    shared: Option<u64>,
    /// Whether it is known to be on the disk.
    on_disk: bool,
    /// Whether it has fs-verity.
    verity: bool,
    last_use: Option<i64>,
    users: Vec<u32>,
    #[serde(skip)]
    age: i64,
}

#[derive(Default, Serialize)]
struct Totals {
    entries: usize,
    size: u64,
    allocated: u64,
    shared: u64,
    in_use: usize,
    outdated: usize,
}

/// Prints the entries of the stores.
///
/// # Errors
/// 3 when a store cannot be listed.
pub fn list(stores: &[OpenStore], json: bool) -> Result<Exit, Failure> {
    let mut all = Vec::new();
    for store in stores {
        let entries =
            entry::all(store).map_err(|error| Failure::new(Exit::Uninspected, store.path.display(), error))?;
        all.push((store, entries));
    }
    let users = Users::find(all.iter().flat_map(|(_, entries)| entries));
    let listed = all.iter().map(|(store, entries)| ListedEntry::new(store, entries, &users)).collect();
    let answer = ListAnswer { schema: SCHEMA, stores: listed, processes_not_inspected: users.not_inspected };
    print(json, &answer)?;
    Ok(Exit::Success)
}

impl ListedEntry {
    fn new(store: &OpenStore, entries: &[EntryDirectory], users: &Users) -> Self {
        let now = sys::realtime_seconds();
        let mut totals = Totals::default();
        let mut rows = Vec::new();
        for entry in entries {
            let Details { shared, has_verity } = entry.details();
            let row = Row {
                key: entry.key.to_string_lossy().into_owned(),
                file: entry.copy.as_ref().map(|(name, _)| name.to_string_lossy().into_owned()),
                origin: entry.origin.as_ref().map(|path| path.to_string_lossy().into_owned()),
                state: entry.state(),
                size: entry.size(),
                allocated: entry.allocated(),
                shared,
                on_disk: entry.is_on_disk(),
                verity: has_verity,
                last_use: entry.last_use(),
                users: users.of(entry),
                age: now - entry.last_use().unwrap_or(now),
            };
            totals.entries += 1;
            totals.size += row.size;
            totals.allocated += row.allocated;
            totals.shared += row.shared.unwrap_or(0);
            totals.in_use += usize::from(!row.users.is_empty());
            totals.outdated += usize::from(matches!(entry.freshness, Freshness::Superseded | Freshness::Gone));
            rows.push(row);
        }
        rows.sort_by(|a, b| (&a.origin, &a.key).cmp(&(&b.origin, &b.key)));
        Self { path: store.path.to_string_lossy().into_owned(), entries: rows, totals }
    }
}

impl fmt::Display for ListAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.stores.is_empty() {
            return writeln!(f, "There is no store yet.");
        }
        for (index, store) in self.stores.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{store}")?;
        }
        if self.processes_not_inspected > 0 {
            let processes = human::count(self.processes_not_inspected, "process", "processes");
            let way_out = if rustix::process::geteuid().is_root() { "" } else { "; root may" };
            writeln!(f, "\n{DOUBTFUL}{processes}{DOUBTFUL:#} could not be looked at{way_out}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ListedEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", shown(&self.path))?;
        if !self.entries.is_empty() {
            let rows = self.entries.iter().map(Row::cells).collect();
            let columns = [
                ("SIZE", true),
                ("ON DISK", true),
                ("LAST USE", true),
                ("USED BY", false),
                ("STATE", false),
                ("ORIGIN", false),
            ];
            write!(f, "{}", Table { columns, rows })?;
        }
        let Totals { entries, size, allocated, shared, in_use, outdated } = self.totals;
        let entries = human::count(entries, "entry", "entries");
        write!(f, "{entries}, {} ({} on disk", human::bytes(size), human::bytes(allocated))?;
        if shared > 0 {
            write!(f, ", {} of them shared with other files", human::bytes(shared))?;
        }
        writeln!(f, "), {in_use} in use, {outdated} outdated")
    }
}

impl Row {
    fn cells(&self) -> [String; 6] {
        let age = self.last_use.map_or_else(|| "never".to_owned(), |_| human::age(self.age));
        let origin = self.origin.as_ref().unwrap_or(&self.key);
        [human::bytes(self.size), human::bytes(self.allocated), age, self.users(), self.state.to_owned(), shown(origin)]
    }

    fn users(&self) -> String {
        let mut words: Vec<String> = self.users.iter().take(PIDS_SHOWN).map(u32::to_string).collect();
        if self.users.len() > PIDS_SHOWN {
            words.push(format!("+{}", self.users.len() - PIDS_SHOWN));
        }
        if words.is_empty() { "-".to_owned() } else { words.join(",") }
    }
}

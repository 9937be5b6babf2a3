//! `sopin store prune`. The library's own rule decides which entries are needed, with the
//! user's time instead of thirty days and with no grace period for outdated entries. An entry
//! is removed as the library removes it, so that programs may start at the same time. Entries
//! that differ from their origins are removed too.
//!
//! In the system's store no process records uses or holds locks. There the mappings of
//! processes show which entries are in use, and entries that are not outdated stay unless a
//! time is given.

use std::ffi::{CString, OsStr};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use serde::Serialize;
use sopin_core::sys;
use sopin_store::{Allowance, Freshness, TEMPORARY, remove_entry, remove_unless_in_use};

use super::bytes::{self, Compared};
use super::entry::{self, EntryDirectory, is_entry, word};
use super::open_store::{OpenStore, names};
use super::printing::{SCHEMA, print};
use super::users::Users;
use super::{human, verify};
use crate::exit::{Exit, Failure};
use crate::output::{self, BAD, DOUBTFUL, shown};

/// The answer. Its names are those of the JSON output; sizes are in bytes.
#[derive(Serialize)]
struct PruneAnswer {
    schema: u32,
    dry_run: bool,
    stores: Vec<Pruned>,
    /// Number of processes whose mappings could not be read. While there are any, every entry
    /// of the system's store counts as in use.
    processes_not_inspected: usize,
}

#[derive(Default, Serialize)]
struct Pruned {
    path: String,
    #[serde(skip)]
    dry_run: bool,
    removed: Vec<Removed>,
    /// Entries that could not be removed.
    failed: Vec<String>,
    kept: usize,
    /// Number of the kept entries that are unneeded and mapped.
    kept_in_use: usize,
    /// Bytes that were removed.
    size: u64,
}

#[derive(Serialize)]
struct Removed {
    name: String,
    origin: Option<String>,
    reason: String,
    size: u64,
}

/// The rules for what is kept.
struct Rules {
    allowance: Allowance,
    /// The processes that map entries; only for the system's store.
    users: Option<Users>,
}

impl Rules {
    fn of(store: &OpenStore, older_than: Option<Duration>) -> rustix::io::Result<Self> {
        let unused = older_than.map(|time| i64::try_from(time.as_secs()).unwrap_or(i64::MAX));
        let is_system = store.store.is_system();
        let current = unused.unwrap_or(if is_system { i64::MAX } else { Allowance::USUAL.current });
        let unknown = if is_system { current } else { current.min(Allowance::USUAL.unknown) };
        let users = if is_system { Some(Users::find(&entry::all(store)?)) } else { None };
        Ok(Self { allowance: Allowance { current, outdated: 0, unknown }, users })
    }

    fn not_inspected(&self) -> usize {
        self.users.as_ref().map_or(0, |users| users.not_inspected)
    }
}

/// Removes entries and prints which.
///
/// # Errors
/// 3 when a store cannot be listed.
pub fn prune(stores: &[OpenStore], older_than: Option<Duration>, dry_run: bool, json: bool) -> Result<Exit, Failure> {
    let mut answer = PruneAnswer { schema: SCHEMA, dry_run, stores: Vec::new(), processes_not_inspected: 0 };
    for store in stores {
        let failed = |error: Errno| Failure::new(Exit::Uninspected, store.path.display(), error);
        let rules = Rules::of(store, older_than).map_err(failed)?;
        answer.processes_not_inspected += rules.not_inspected();
        let path = store.path.to_string_lossy().into_owned();
        let mut one = Pruned { path, dry_run, ..Pruned::default() };
        one.prune(store, &rules).map_err(failed)?;
        answer.stores.push(one);
    }
    let is_done = answer.stores.iter().all(|store| store.failed.is_empty());
    print(json, &answer)?;
    Ok(if is_done { Exit::Success } else { Exit::Negative })
}

impl Pruned {
    fn prune(&mut self, store: &OpenStore, rules: &Rules) -> rustix::io::Result<()> {
        let all = names(&store.directory)?;
        let progress = output::progress(all.len());
        for name in all {
            progress.inc(1);
            let c_name = CString::new(name.as_bytes()).unwrap_or_default();
            let shown_name = name.to_string_lossy().into_owned();
            if !is_entry(&name) {
                self.prune_unfinished(store, &c_name, shown_name);
                continue;
            }
            match EntryDirectory::read(store, &name) {
                Ok(None) | Err(Errno::NOENT) => {}
                Ok(Some(entry)) => {
                    progress.set_message(shown(&entry.title()));
                    self.prune_entry(store, &entry, &c_name, rules);
                }
                Err(error) => {
                    let reason = if error == Errno::NOTDIR { "not a directory".to_owned() } else { error.to_string() };
                    self.remove(store, &c_name, Removed { name: shown_name, origin: None, reason, size: 0 });
                }
            }
        }
        progress.finish_and_clear();
        Ok(())
    }

    fn prune_unfinished(&mut self, store: &OpenStore, c_name: &CString, name: String) {
        let status = rustix::fs::statat(&store.directory, c_name, AtFlags::SYMLINK_NOFOLLOW);
        if let Ok(status) = status
            && name.starts_with(TEMPORARY)
            && verify::is_abandoned(&status)
        {
            let size = status.st_size.cast_unsigned();
            self.remove(store, c_name, Removed { name, origin: None, reason: "unfinished".to_owned(), size });
        }
    }

    fn prune_entry(&mut self, store: &OpenStore, entry: &EntryDirectory, key: &CString, rules: &Rules) {
        let removed = |reason: String| Removed {
            name: entry.key.to_string_lossy().into_owned(),
            origin: entry.origin.as_ref().map(|path| path.to_string_lossy().into_owned()),
            reason,
            size: entry.size(),
        };
        if verify::fault(entry, store).is_some() {
            // No process begins to use it, and those that map it keep it.
            return self.remove(store, key, removed("damaged".to_owned()));
        }
        let Some(last_use) = entry.last_use() else { return };
        let unused = sys::realtime_seconds() - last_use;
        let reason = match entry.freshness {
            _ if entry.version.is_none() => Some("its process has ended".to_owned()),
            freshness if unused < rules.allowance.of(freshness) => None,
            freshness @ (Freshness::Superseded | Freshness::Gone) => Some(word(freshness).to_owned()),
            Freshness::Current | Freshness::Unknown => Some(format!("unused for {}", human::age(unused))),
        };
        let is_kept_for_use = reason.is_some();
        if let Some(reason) = reason
            && self.remove_unless_in_use(store, entry, key, rules)
        {
            let removed = removed(reason);
            return if self.dry_run { self.note(removed) } else { self.check_removed(store, entry, removed) };
        }
        // A program in a later boot would find that it is damaged, and make it anew.
        if let Compared::Different(_) = bytes::compare(entry, !self.dry_run && store.is_owned()) {
            return self.remove(store, key, removed("damaged".to_owned()));
        }
        self.kept += 1;
        self.kept_in_use += usize::from(is_kept_for_use);
    }

    /// Removes an entry that no process maps, and returns whether it has, or would have in a
    /// dry run.
    fn remove_unless_in_use(&self, store: &OpenStore, entry: &EntryDirectory, key: &CString, rules: &Rules) -> bool {
        match &rules.users {
            Some(users) if users.not_inspected > 0 || !users.of(entry).is_empty() => return false,
            Some(_) if !self.dry_run => remove_entry(store.store.directory(), key),
            Some(_) => {}
            None if self.dry_run => return !is_in_use(entry),
            None => return remove_unless_in_use(store.store.directory(), key),
        }
        true
    }

    fn remove(&mut self, store: &OpenStore, name: &CString, removed: Removed) {
        if self.dry_run {
            return self.note(removed);
        }
        let key = OsStr::from_bytes(name.to_bytes());
        let before = EntryDirectory::read(store, key);
        remove_entry(store.store.directory(), name);
        match before {
            Ok(Some(entry)) => self.check_removed(store, &entry, removed),
            _ if rustix::fs::statat(&store.directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok() => {
                self.failed.push(removed.name);
            }
            _ => self.note(removed),
        }
    }

    /// Checks that an entry is gone. It can remain if it contains a directory, or if the store
    /// is on a read-only mount.
    fn check_removed(&mut self, store: &OpenStore, entry: &EntryDirectory, removed: Removed) {
        // A program may have made it anew since, or may be about to.
        let is_still_there = EntryDirectory::read(store, &entry.key)
            .is_ok_and(|now| now.is_some_and(|now| now.still_contains_some_of(entry)));
        if is_still_there { self.failed.push(removed.name) } else { self.note(removed) }
    }

    fn note(&mut self, removed: Removed) {
        self.size += removed.size;
        self.removed.push(removed);
    }
}

/// Returns whether a process maps it, by the same lock as the library when it removes an entry.
/// A process that begins to use the entry at this moment uses private memory instead.
fn is_in_use(entry: &EntryDirectory) -> bool {
    let Some((name, _)) = &entry.copy else { return false };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    entry
        .directory()
        .and_then(|directory| rustix::fs::openat(directory, name, flags, Mode::empty()))
        .is_ok_and(|file| rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err())
}

impl fmt::Display for PruneAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.stores.is_empty() {
            return writeln!(f, "There is no store yet.");
        }
        self.stores.iter().try_for_each(|store| write!(f, "{store}"))?;
        if self.processes_not_inspected > 0 {
            let processes = human::count(self.processes_not_inspected, "process", "processes");
            writeln!(
                f,
                "{DOUBTFUL}{processes}{DOUBTFUL:#} could not be looked at, so every entry counts as in use; root with CAP_SYS_PTRACE may look at all"
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Pruned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", shown(&self.path))?;
        for Removed { name, origin, reason, size } in &self.removed {
            writeln!(f, "  {reason}, {}: {}", human::bytes(*size), shown(origin.as_ref().unwrap_or(name)))?;
        }
        for name in &self.failed {
            writeln!(f, "  {BAD}not removed{BAD:#}: {}; look at it, and remove it yourself", shown(name))?;
        }
        let verb = if self.dry_run { "would be removed" } else { "removed" };
        let entries = human::count(self.removed.len(), "entry", "entries");
        write!(f, "{entries} {verb}, {}; {} kept", human::bytes(self.size), self.kept)?;
        match self.kept_in_use {
            0 => writeln!(f),
            in_use => writeln!(f, " ({in_use} for being in use)"),
        }
    }
}

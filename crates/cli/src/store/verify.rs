//! `sopin store verify`: checks that a store contains only what the library would put there. It
//! compares bytes with the origin's if that still is the version that was copied.

use std::ffi::{CStr, OsStr};
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use indicatif::ProgressBar;
use rustix::fs::{AtFlags, Stat};
use rustix::io::Errno;
use serde::Serialize;
use sopin_core::sys;
use sopin_store::{ABANDONED_SECONDS, DEBUG, LINK, LOOKED, NEXT, NEXT_OWN, TEMPORARY};

use super::bytes::{self, Compared};
use super::entry::{EntryDirectory, is_entry, is_regular};
use super::human;
use super::open_store::{OpenStore, names};
use super::printing::{SCHEMA, print};
use crate::exit::{Exit, Failure};
use crate::output::{self, BAD, GOOD, shown};

/// What the user can do about a problem in a user's store, and in the system's.
const WAYS_OUT: [WayOut; 2] = [
    WayOut {
        pruned: "sopin store prune removes it",
        made_anew: "sopin store prune removes it, and it is made anew when it is needed",
    },
    WayOut {
        pruned: "sopin store prune --system removes it",
        made_anew: "sopin store prune --system removes it, and sopin store fill makes it anew",
    },
];

struct WayOut {
    pruned: &'static str,
    made_anew: &'static str,
}

/// The answer. Its names are those of the JSON output.
#[derive(Serialize)]
struct VerifyAnswer {
    schema: u32,
    stores: Vec<Verified>,
}

#[derive(Serialize)]
struct Verified {
    path: String,
    entries: usize,
    /// Number of entries whose bytes were compared with the origin's.
    compared: usize,
    problems: Vec<Problem>,
}

#[derive(Serialize)]
struct Problem {
    /// Its path below the store.
    name: String,
    origin: Option<String>,
    reason: String,
    way_out: &'static str,
}

/// The problem, and what the user can do about it.
type Wrong = (String, &'static str);

/// Prints the problems.
///
/// # Errors
/// 3 when a store cannot be listed.
pub fn verify(stores: &[OpenStore], json: bool) -> Result<Exit, Failure> {
    let mut verified = Vec::new();
    for store in stores {
        let checked = Verified::check(store);
        verified.push(checked.map_err(|error| Failure::new(Exit::Uninspected, store.path.display(), error))?);
    }
    let is_intact = verified.iter().all(|store| store.problems.is_empty());
    print(json, &VerifyAnswer { schema: SCHEMA, stores: verified })?;
    Ok(if is_intact { Exit::Success } else { Exit::Negative })
}

impl Verified {
    fn check(store: &OpenStore) -> rustix::io::Result<Self> {
        let path = store.path.to_string_lossy().into_owned();
        let mut verified = Self { path, entries: 0, compared: 0, problems: Vec::new() };
        let all = names(&store.directory)?;
        let progress = output::progress(all.len());
        for name in all {
            if is_entry(&name) {
                verified.check_key(store, &name, &progress);
            } else if let Some((reason, way_out)) = check_other(store, &name) {
                let name = name.to_string_lossy().into_owned();
                verified.problems.push(Problem { name, origin: None, reason, way_out });
            }
            progress.inc(1);
        }
        progress.finish_and_clear();
        Ok(verified)
    }

    fn check_key(&mut self, store: &OpenStore, key: &OsStr, progress: &ProgressBar) {
        let made_anew = ways_out(store).made_anew;
        let (origin, wrong) = match EntryDirectory::read(store, key) {
            // A program that made room has removed it meanwhile.
            Ok(None) | Err(Errno::NOENT) => return,
            Err(Errno::NOTDIR | Errno::LOOP) => (None, Some(("it is not a directory".to_owned(), made_anew))),
            Err(error) => (None, Some((format!("it cannot be read: {error}"), made_anew))),
            Ok(Some(entry)) => {
                self.entries += 1;
                progress.set_message(shown(&entry.title()));
                let reason = fault(&entry, store).or_else(|| self.check_bytes(&entry, store));
                let wrong = reason.map(|reason| (reason, made_anew));
                (entry.origin.as_ref().map(|path| path.to_string_lossy().into_owned()), wrong)
            }
        };
        if let Some((reason, way_out)) = wrong {
            self.problems.push(Problem { name: key.to_string_lossy().into_owned(), origin, reason, way_out });
        }
    }

    fn check_bytes(&mut self, entry: &EntryDirectory, store: &OpenStore) -> Option<String> {
        let found = bytes::compare(entry, store.is_owned());
        self.compared += usize::from(found != Compared::Not);
        match found {
            Compared::Not | Compared::Equal => None,
            Compared::Different(reason) => Some(reason),
        }
    }
}

fn ways_out(store: &OpenStore) -> &'static WayOut {
    &WAYS_OUT[usize::from(store.store.is_system())]
}

/// Returns what is wrong with an entry, without reading its contents. The library does not use
/// such an entry.
pub fn fault(entry: &EntryDirectory, store: &OpenStore) -> Option<String> {
    let directory = rustix::fs::fstat(entry.directory().ok()?).ok()?;
    let user = store.store.owner().id();
    if directory.st_uid != user {
        return Some(format!("its directory belongs to user {}", directory.st_uid));
    }
    if directory.st_mode & 0o022 != 0 {
        return Some(format!("others can write to its directory (mode {:04o})", directory.st_mode & 0o7777));
    }
    let is_other = |name: &OsStr, status: &Stat| name.as_bytes() != LINK.to_bytes() && !is_debug_link(name, status);
    let others = entry.contents().filter(|(name, status)| is_other(name, status));
    let others: Vec<&OsStr> = others.map(|(name, _)| name).collect();
    let Some((name, status)) = &entry.copy else {
        return match others.as_slice() {
            [] if sys::realtime_seconds() - directory.st_mtime <= ABANDONED_SECONDS => None,
            [] => Some("it holds no copy".to_owned()),
            [only] => Some(format!("{} is not a regular file", shown(&only.to_string_lossy()))),
            several => Some(format!("it holds {} files", several.len())),
        };
    };
    if others.len() > 1 {
        return Some(format!("it holds {} files", others.len()));
    }
    if entry.version.is_some_and(|version| !version.may_be_named(name.as_bytes())) {
        return Some(format!("{} is not the name that the key is for", shown(&name.to_string_lossy())));
    }
    if status.st_uid != user {
        return Some(format!("the copy belongs to user {}", status.st_uid));
    }
    if status.st_mode & 0o7777 != 0o444 {
        return Some(format!("the copy has mode {:04o} instead of 0444", status.st_mode & 0o7777));
    }
    let (size, expected) = (entry.size(), entry.version?.identity.size);
    (size != expected).then(|| format!("the copy has {size} bytes instead of {expected}"))
}

/// Returns whether it is the symbolic link to the directory with debugging information.
fn is_debug_link(name: &OsStr, status: &Stat) -> bool {
    name.as_bytes() == DEBUG.to_bytes() && rustix::fs::FileType::from_raw_mode(status.st_mode).is_symlink()
}

/// Returns what is wrong with a name that is not a key.
fn check_other(store: &OpenStore, name: &OsStr) -> Option<Wrong> {
    let status = rustix::fs::statat(&store.directory, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    let is_link = rustix::fs::FileType::from_raw_mode(status.st_mode).is_symlink();
    let is_called = |mark: &CStr| name.as_bytes() == mark.to_bytes();
    if (is_link && (is_called(NEXT) || is_called(NEXT_OWN))) || (is_regular(&status) && is_called(LOOKED)) {
        return None;
    }
    if name.as_bytes().starts_with(TEMPORARY.as_bytes()) {
        return is_abandoned(&status)
            .then(|| ("left behind by a process that was killed".to_owned(), ways_out(store).pruned));
    }
    Some(("sopin has not put it there".to_owned(), "move it away, if it is needed"))
}

/// Returns whether an unfinished copy is abandoned, so that no process writes to it any more.
pub fn is_abandoned(status: &Stat) -> bool {
    sys::realtime_seconds() - status.st_mtime > ABANDONED_SECONDS
}

impl fmt::Display for VerifyAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.stores.is_empty() {
            return writeln!(f, "There is no store yet.");
        }
        self.stores.iter().try_for_each(|store| write!(f, "{store}"))
    }
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = human::count(self.entries, "entry", "entries");
        let (style, verdict) = match self.problems.len() {
            0 => (GOOD, "intact".to_owned()),
            problems => (BAD, human::count(problems, "problem", "problems")),
        };
        let Self { path, compared, .. } = self;
        writeln!(f, "{}: {style}{verdict}{style:#} ({entries}, {compared} compared with their origins)", shown(path))?;
        for Problem { name, origin, reason, way_out } in &self.problems {
            writeln!(f, "  {}: {reason}; {way_out}", shown(name))?;
            if let Some(origin) = origin {
                writeln!(f, "    a copy of {}", shown(origin))?;
            }
        }
        Ok(())
    }
}

//! What has become of the file that an object was loaded from.
//!
//! The library's store names the version that was loaded, so there the answer is
//! exact. Elsewhere the kernel keeps only times: what was changed after the
//! program was started has been changed since for those objects that were loaded
//! at the start; others may have been loaded after the change. A change of the
//! status alone (ctime: chmod, link, or a rewrite that has put the mtime back, as
//! `cp -p` does) cannot be told from one of the contents.

use rustix::io::Errno;
use serde::Serialize;

use super::files::{Version, View};
use super::maps::{Copy, Mapping, StoreKey};
use super::object::{Backing, Object};

/// Nanoseconds by which the start of a process and the time of a file may seem
/// interchanged: both come from clocks that tick up to 100 times a second.
const GRANULARITY: i128 = 20_000_000;

/// What has become of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// Nothing.
    Unchanged,
    /// The same inode has other contents, or was written anew with the same.
    Rewritten,
    /// Its path leads to another file now.
    Replaced,
    /// Its path leads nowhere.
    Deleted,
    /// It cannot be looked at.
    Unknown,
}

/// What is known of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// What has become of it.
    pub state: Fate,
    /// False if `rewritten` may as well be a change of mode, links or times, or
    /// have come before the object was loaded.
    pub certain: bool,
    /// Seconds since 1970 at which it was changed last.
    pub changed: Option<i64>,
}

impl Disk {
    const fn of(state: Fate) -> Self {
        Self { state, certain: true, changed: None }
    }

    /// For people; empty if there is nothing to say.
    pub fn words(&self) -> &'static str {
        match (self.state, self.certain) {
            (Fate::Unchanged, _) => "",
            (Fate::Rewritten, true) => "rewritten on disk since it was loaded",
            (Fate::Rewritten, false) => "may have been rewritten on disk since it was loaded",
            (Fate::Replaced, _) => "replaced on disk by another file",
            (Fate::Deleted, _) => "deleted on disk",
            (Fate::Unknown, _) => "its file cannot be looked at",
        }
    }
}

/// Looks at the file of an object in a program that was started at `start`
/// (nanoseconds since 1970).
pub fn look(object: &Object, view: &View, start: i128) -> Disk {
    let key = object.parts.iter().find_map(|part| match part.backing {
        Backing::Copy(Copy::Stored(key)) => Some(key),
        _ => None,
    });
    let Some(original) = object.original else {
        // Only the loader's name is left of it.
        return match key {
            Some(key) if object.name.starts_with(b"/") => by_name(view.at_path(&object.name), &key),
            _ => Disk::of(Fate::Unknown),
        };
    };
    let now = match mapped(original, view) {
        Ok(now) => now,
        Err(fate) => return Disk::of(fate),
    };
    key.map_or_else(|| by_time(&now, start, object.is_from_start), |key| by_key(&now, &key))
}

/// The file that is mapped, if its path still leads to it.
fn mapped(original: &Mapping, view: &View) -> Result<Version, Fate> {
    let mapped = view.mapped(original).version;
    let (path, may_be_deleted) = original.names();
    let is_it = |found: &Version| match mapped {
        Ok(mapped) => mapped.is_same_file(found),
        // Without permission for map_files there is only the number.
        Err(_) => found.inode == original.file.inode,
    };
    match view.at_path(&original.path) {
        Ok(found) if is_it(&found) => return Ok(found),
        Ok(_) => return Err(Fate::Replaced),
        Err(Errno::NOENT | Errno::NOTDIR) if !may_be_deleted => return Err(Fate::Deleted),
        Err(Errno::NOENT | Errno::NOTDIR) => {}
        Err(_) => return mapped.map_err(|_| Fate::Unknown),
    }
    match view.at_path(path) {
        Err(Errno::NOENT | Errno::NOTDIR) => Err(Fate::Deleted),
        Ok(_) => Err(Fate::Replaced),
        Err(_) => Err(Fate::Unknown),
    }
}

fn by_name(found: Result<Version, Errno>, key: &StoreKey) -> Disk {
    match found {
        Ok(now) if (now.device, now.inode) == (key.device, key.inode) => by_key(&now, key),
        Ok(_) => Disk::of(Fate::Replaced),
        Err(Errno::NOENT | Errno::NOTDIR) => Disk::of(Fate::Deleted),
        Err(_) => Disk::of(Fate::Unknown),
    }
}

fn by_key(now: &Version, key: &StoreKey) -> Disk {
    let is_other = (now.size, now.modified) != (key.size, key.modified);
    let state = if is_other || now.changed != key.changed { Fate::Rewritten } else { Fate::Unchanged };
    Disk { state, certain: state == Fate::Unchanged || is_other, changed: Some(seconds(now.changed)) }
}

fn by_time(now: &Version, start: i128, is_from_start: bool) -> Disk {
    let is_after = |time: i128| time > start + GRANULARITY;
    let state = if is_after(now.changed) || is_after(now.modified) { Fate::Rewritten } else { Fate::Unchanged };
    let certain = state == Fate::Unchanged || (is_from_start && is_after(now.modified));
    Disk { state, certain, changed: Some(seconds(now.changed)) }
}

#[allow(clippy::cast_possible_truncation, reason = "fits for 292 thousand million years")]
fn seconds(nanoseconds: i128) -> i64 {
    nanoseconds.div_euclid(1_000_000_000) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i128 = 1_000_000_000;
    const NOW: Version = Version { device: 1, inode: 2, size: 3, modified: 100 * SECOND, changed: 100 * SECOND };

    fn state(disk: Disk) -> (Fate, bool) {
        (disk.state, disk.certain)
    }

    #[test]
    fn times_tell_what_they_can() {
        assert_eq!(state(by_time(&NOW, 200 * SECOND, true)), (Fate::Unchanged, true));
        assert_eq!(state(by_time(&NOW, 50 * SECOND, true)), (Fate::Rewritten, true));
        assert_eq!(state(by_time(&NOW, 50 * SECOND, false)), (Fate::Rewritten, false), "loaded later, perhaps");
        let touched = Version { modified: 10 * SECOND, ..NOW };
        assert_eq!(state(by_time(&touched, 50 * SECOND, true)), (Fate::Rewritten, false), "a chmod, perhaps");
        assert_eq!(by_time(&NOW, 100 * SECOND - GRANULARITY, true).state, Fate::Unchanged);
        assert_eq!(by_time(&NOW, 0, true).changed, Some(100));
    }

    #[test]
    fn the_store_knows_exactly() {
        let key = StoreKey { device: 1, inode: 2, size: 3, modified: NOW.modified, changed: NOW.changed };
        assert_eq!(state(by_key(&NOW, &key)), (Fate::Unchanged, true));
        assert_eq!(state(by_key(&Version { modified: 7, ..NOW }, &key)), (Fate::Rewritten, true));
        assert_eq!(state(by_key(&Version { size: 4, ..NOW }, &key)), (Fate::Rewritten, true));
        assert_eq!(state(by_key(&Version { changed: 7, ..NOW }, &key)), (Fate::Rewritten, false));
        assert_eq!(by_name(Ok(Version { inode: 9, ..NOW }), &key).state, Fate::Replaced);
        assert_eq!(by_name(Ok(NOW), &key).state, Fate::Unchanged);
        assert_eq!(by_name(Err(Errno::NOENT), &key).state, Fate::Deleted);
        assert_eq!(by_name(Err(Errno::ACCESS), &key).state, Fate::Unknown);
    }
}

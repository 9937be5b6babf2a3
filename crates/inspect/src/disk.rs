//! What has become of the file that an object was loaded from.
//!
//! If the object is mapped from the library's store, the entry names the version that was
//! loaded, so the result is exact. Damage proves that the file was truncated. Otherwise there
//! are only times, and they prove nothing: the process may have called exec or dlopen after the
//! change, and a change of mode or links (ctime) looks like a rewrite that has restored the
//! mtime, as `cp -p` does. All that can be reported is that the file was changed after the
//! process was started.

use rustix::io::Errno;
use serde::Serialize;
use sopin_store::Identity;

use crate::files::View;
use crate::maps::{Mapping, PinnedCopy};
use crate::object::{InspectedObject, PartBacking};

/// Nanoseconds by which the start of a process and the time of a file may appear in the wrong
/// order: both come from clocks with ticks of up to 10 ms.
const GRANULARITY: i128 = 20_000_000;

/// The state of the file that an object was loaded from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskState {
    /// It is the version that was loaded.
    Unchanged,
    /// The same inode has other contents, or was written anew with the same.
    Rewritten,
    /// Its path leads to another file now.
    Replaced,
    /// Its path leads nowhere.
    Deleted,
    /// It cannot be examined.
    Unknown,
}

/// What is known of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// Its state.
    pub state: DiskState,
    /// False if all that is known is that the file was changed, in its contents or
    /// its mode, links or times, after the process was started.
    pub certain: bool,
    /// Seconds since 1970 at which it was changed last.
    pub changed: Option<i64>,
}

impl Disk {
    const fn of(state: DiskState) -> Self {
        Self { state, certain: true, changed: None }
    }
}

/// Examines the file of an object in a program that was started at `start` (nanoseconds since
/// 1970).
pub fn look(object: &InspectedObject, view: &View, start: i128) -> Disk {
    let key = object.parts.iter().find_map(|part| match part.backing {
        PartBacking::Copy(PinnedCopy::Stored(key)) => Some(key),
        _ => None,
    });
    let Some(original) = object.original else {
        // Only the loader's name of the file is left.
        return match key {
            Some(key) if object.name.starts_with(b"/") => by_name(view.at_name(&object.name), &key),
            _ => Disk::of(DiskState::Unknown),
        };
    };
    let now = match mapped(original, view) {
        Ok(now) => now,
        Err(fate) => return Disk::of(fate),
    };
    key.map_or_else(|| by_time(&now, start), |key| by_key(&now, &key))
}

/// Returns the file that is mapped, if its path still leads to it.
fn mapped(original: &Mapping, view: &View) -> Result<Identity, DiskState> {
    let mapped = view.mapped(original).identity;
    let (path, may_be_deleted) = original.names();
    let is_it = |found: &Identity| match mapped {
        Ok(mapped) => (mapped.device, mapped.inode) == (found.device, found.inode),
        // Without permission for map_files only the inode number is known.
        Err(_) => found.inode == original.file.inode,
    };
    match view.at_path(&original.path) {
        Ok(found) if is_it(&found) => return Ok(found),
        Err(errno) if !is_nothing(errno) => return mapped.map_err(|_| DiskState::Unknown),
        Ok(_) if !may_be_deleted => return Err(DiskState::Replaced),
        Err(_) if !may_be_deleted => return Err(DiskState::Deleted),
        // Then the kernel has appended the mark.
        Ok(_) | Err(_) => {}
    }
    Err(match view.at_path(path) {
        Ok(_) => DiskState::Replaced,
        Err(errno) if is_nothing(errno) => DiskState::Deleted,
        Err(_) => DiskState::Unknown,
    })
}

/// Returns the path that leads to the file, or led to it.
pub fn path<'a>(original: &'a Mapping, view: &View) -> &'a [u8] {
    let (path, may_be_deleted) = original.names();
    let is_called_so = || view.at_path(&original.path).is_ok_and(|found| found.inode == original.file.inode);
    if may_be_deleted && is_called_so() { &original.path } else { path }
}

fn is_nothing(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NOTDIR)
}

fn by_name(found: Result<Identity, Errno>, key: &Identity) -> Disk {
    match found {
        Ok(now) if (now.device, now.inode) == (key.device, key.inode) => by_key(&now, key),
        Ok(_) => Disk::of(DiskState::Replaced),
        Err(errno) if is_nothing(errno) => Disk::of(DiskState::Deleted),
        Err(_) => Disk::of(DiskState::Unknown),
    }
}

fn by_key(now: &Identity, key: &Identity) -> Disk {
    let is_other = (now.size, now.modified) != (key.size, key.modified);
    let state = if is_other || now.changed != key.changed { DiskState::Rewritten } else { DiskState::Unchanged };
    Disk { state, certain: state == DiskState::Unchanged || is_other, changed: Some(seconds(now.changed)) }
}

fn by_time(now: &Identity, start: i128) -> Disk {
    let is_after = |time: i128| time > start + GRANULARITY;
    let state =
        if is_after(now.changed) || is_after(now.modified) { DiskState::Rewritten } else { DiskState::Unchanged };
    Disk { state, certain: state == DiskState::Unchanged, changed: Some(seconds(now.changed)) }
}

#[allow(clippy::cast_possible_truncation, reason = "fits for 292 thousand million years")]
fn seconds(nanoseconds: i128) -> i64 {
    nanoseconds.div_euclid(1_000_000_000) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i128 = 1_000_000_000;
    const NOW: Identity = Identity { device: 1, inode: 2, size: 3, modified: 100 * SECOND, changed: 100 * SECOND };

    fn state(disk: Disk) -> (DiskState, bool) {
        (disk.state, disk.certain)
    }

    #[test]
    fn times_show_only_that_a_file_was_changed() {
        assert_eq!(state(by_time(&NOW, 200 * SECOND)), (DiskState::Unchanged, true));
        assert_eq!(state(by_time(&NOW, 50 * SECOND)), (DiskState::Rewritten, false));
        let touched = Identity { modified: 10 * SECOND, ..NOW };
        assert_eq!(state(by_time(&touched, 50 * SECOND)), (DiskState::Rewritten, false), "a chmod, perhaps");
        assert_eq!(by_time(&NOW, 100 * SECOND - GRANULARITY).state, DiskState::Unchanged);
        assert_eq!(by_time(&NOW, 0).changed, Some(100));
    }

    #[test]
    fn the_store_knows_exactly() {
        let key = Identity { device: 1, inode: 2, size: 3, modified: NOW.modified, changed: NOW.changed };
        assert_eq!(state(by_key(&NOW, &key)), (DiskState::Unchanged, true));
        assert_eq!(state(by_key(&Identity { modified: 7, ..NOW }, &key)), (DiskState::Rewritten, true));
        assert_eq!(state(by_key(&Identity { size: 4, ..NOW }, &key)), (DiskState::Rewritten, true));
        assert_eq!(state(by_key(&Identity { changed: 7, ..NOW }, &key)), (DiskState::Rewritten, false));
        assert_eq!(by_name(Ok(Identity { inode: 9, ..NOW }), &key).state, DiskState::Replaced);
        assert_eq!(by_name(Ok(NOW), &key).state, DiskState::Unchanged);
        assert_eq!(by_name(Err(Errno::NOENT), &key).state, DiskState::Deleted);
        assert_eq!(by_name(Err(Errno::ACCESS), &key).state, DiskState::Unknown);
    }
}

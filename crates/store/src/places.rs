//! Opens the directories of stores, and decides whether a directory may be one.

use core::ffi::CStr;
use core::ops::ControlFlow::{self, Break, Continue};

use sopin_core::cause::{Cause, Operation};
use sopin_core::credentials::User;
use sopin_core::search_dirs::{SearchDirs, StorePath};
use sopin_core::sys::{self, Errno, Fd, FileSystem};

use crate::proven_path;
use sopin_core::listing::{DIRECTORY_TO_LIST, DIRECTORY_TO_PASS};

/// The system's store. Only root writes to it, with `sopin store fill`; every user can read it.
pub const SYSTEM: &CStr = c"/var/lib/sopin";

/// After how many nanoseconds a process looks again for the system's store that was missing.
const LOOK_AGAIN_NS: u64 = 1_000_000_000;

/// The first nanosecond of the monotonic clock, in which no process has looked.
const LONG_AGO: u64 = 1;

/// `ST_NOEXEC` of `statfs(2)`.
const NOEXEC: i64 = 8;

/// What happens if a directory does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// It is made.
    IsMade,
    /// Nothing: a command that only reads must not make directories.
    StaysMissing,
}

/// A directory that was proven to be the store of a user. Later it is enough to recognise it,
/// because the proof is about the directory and not about the path.
#[derive(Clone, Copy, Default)]
pub struct Known {
    /// `None` before a directory was proven.
    found: Option<ProvenDirectory>,
    /// When the system's store was last missing, by the monotonic clock in nanoseconds; 0 if it was
    /// there, or if the clock cannot be read; [`LONG_AGO`] if it was missing for the first time.
    missing_at: u64,
}

#[derive(Clone, Copy)]
struct ProvenDirectory {
    user: u32,
    place: usize,
    device: u64,
    inode: u64,
}

impl ProvenDirectory {
    fn of(store: &Fd, user: User, place: usize) -> Option<Self> {
        let status = sys::fstat(store.raw()).ok()?;
        Some(Self { user: user.id(), place, device: status.st_dev, inode: status.st_ino })
    }
}

impl Known {
    /// Makes a value without a proven directory.
    pub const fn new() -> Self {
        Self { found: None, missing_at: 0 }
    }
}

/// Opens the store of `user`: the one that is `known`, or the first usable one of `dirs`, which
/// is made if it does not exist.
pub fn open(dirs: &SearchDirs, user: User, known: &mut Known) -> Result<Fd, Cause> {
    if let Some(store) = reopen(dirs, user, known) {
        return Ok(store);
    }
    let (mut store, mut first_cause) = (None, None);
    let _ = try_each(dirs, user, Missing::IsMade, |place, _, opened| match opened {
        Ok(opened) => {
            store = Some((place, opened));
            Break(())
        }
        Err(cause) => {
            first_cause.get_or_insert(cause);
            Continue(())
        }
    });
    let Some((place, store)) = store else {
        return Err(first_cause.unwrap_or(Cause::words(Operation::OpenStore, "there is no place for it")));
    };
    known.found = ProvenDirectory::of(&store, user, place);
    Ok(store)
}

fn reopen(dirs: &SearchDirs, user: User, known: &Known) -> Option<Fd> {
    let found = known.found.filter(|found| found.user == user.id())?;
    let store = sys::openat(&Fd::CWD, dirs.path(found.place, user)?, DIRECTORY_TO_PASS, 0).ok()?;
    is_same(&store, &found).then_some(store)
}

/// Opens all directories in turn, the likeliest first, and passes each with its number and path
/// to `each`, until that breaks.
pub fn try_each(
    dirs: &SearchDirs,
    user: User,
    missing: Missing,
    mut each: impl FnMut(usize, &CStr, Result<Fd, Cause>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    for StorePath { number, path, may_make } in dirs.paths(user) {
        let may_make = if missing == Missing::IsMade { may_make.max(1) } else { 0 };
        each(number, path, open_users(path, user, may_make))?;
    }
    Continue(())
}

/// Opens the system's store; `None` if there is none. It is used only if no one but root can
/// have written to it.
///
/// A process that loads many objects looks for a missing store once in [`LOOK_AGAIN_NS`], but twice at
/// first: the first look needs no clock, whose first reading costs the start of a small program more.
pub fn open_system(known: &mut Known) -> Result<Option<Fd>, Cause> {
    let now = if known.missing_at == 0 { LONG_AGO } else { sys::monotonic_ns() };
    if was_missing_lately(known.missing_at, now) {
        return Ok(None);
    }
    let store = match sys::openat(&Fd::CWD, SYSTEM, DIRECTORY_TO_LIST, 0) {
        Ok(store) => store,
        Err(Errno(libc::ENOENT)) => {
            known.missing_at = now;
            return Ok(None);
        }
        Err(errno) => return Err(Cause::call(Operation::OpenSystemStore, errno)),
    };
    known.missing_at = 0;
    if known.found.is_some_and(|found| is_same(&store, &found)) {
        return Ok(Some(store));
    }
    drop(store);
    let store = open_proven(SYSTEM, User::ROOT, 0)?;
    known.found = ProvenDirectory::of(&store, User::ROOT, 0);
    Ok(Some(store))
}

/// Opens the user's store at `path`, of which the last `may_make` directories are made if they
/// do not exist.
fn open_users(path: &CStr, user: User, may_make: usize) -> Result<Fd, Cause> {
    let store = open_proven(path, user, may_make)?;
    let same = |other: &Fd| match (sys::fstat(store.raw()), sys::fstat(other.raw())) {
        (Ok(one), Ok(other)) => (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino),
        _ => true,
    };
    if sys::openat(&Fd::CWD, SYSTEM, DIRECTORY_TO_PASS, 0).is_ok_and(|system| same(&system)) {
        return Err(Cause::words(Operation::UseStore, "it is the system's store, which `sopin store fill` writes"));
    }
    Ok(store)
}

/// Opens a store that only `owner` can have written.
pub fn open_proven(path: &CStr, owner: User, may_make: usize) -> Result<Fd, Cause> {
    let path = proven_path::prove(path, owner.id(), may_make)?;
    let path = CStr::from_bytes_with_nul(&path).unwrap_or(c"/");
    let store = sys::openat(&Fd::CWD, path, DIRECTORY_TO_LIST, 0).map_err(Operation::OpenStore.failed())?;
    if !is_private(&store, owner.id()) {
        return Err(Cause::words(Operation::UseStore, "it belongs to another user or others can write to it"));
    }
    let file_system = FileSystem::of(&store).map_err(Operation::FstatfsOfStore.failed())?;
    if file_system.flags & NOEXEC != 0 {
        return Err(Cause::words(Operation::UseStore, "its file system is mounted noexec"));
    }
    if file_system.is_remote() {
        return Err(Cause::words(Operation::UseStore, "its file system is remote"));
    }
    if !file_system.is_kept_by_this_kernel() {
        return Err(Cause::words(Operation::UseStore, "its file system is not known to keep what is written"));
    }
    Ok(store)
}

/// Returns whether the system's store was missing at a time that is less than [`LOOK_AGAIN_NS`] ago.
fn was_missing_lately(missing_at: u64, now: u64) -> bool {
    missing_at != 0 && now.checked_sub(missing_at).is_some_and(|passed| passed < LOOK_AGAIN_NS)
}

fn is_same(store: &Fd, found: &ProvenDirectory) -> bool {
    sys::fstat(store.raw()).is_ok_and(|status| {
        (status.st_dev, status.st_ino) == (found.device, found.inode) && is_private_status(&status, found.user)
    })
}

/// Returns whether an open directory belongs to `user` and no other user can write to it.
pub fn is_private(directory: &Fd, user: u32) -> bool {
    sys::fstat(directory.raw()).is_ok_and(|status| is_private_status(&status, user))
}

/// Returns whether `status` is that of a directory which belongs to `user` and to which no other user
/// can write.
pub fn is_private_status(status: &libc::stat, user: u32) -> bool {
    status.st_mode & libc::S_IFMT == libc::S_IFDIR && status.st_uid == user && status.st_mode & 0o022 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_store_is_looked_for_again() {
        assert!(was_missing_lately(7, 7) && was_missing_lately(7, 6 + LOOK_AGAIN_NS));
        assert!(!was_missing_lately(7, 7 + LOOK_AGAIN_NS));
        // It was there, or the clock cannot be read now or could not be read then.
        assert!(!was_missing_lately(0, 1) && !was_missing_lately(7, 0) && !was_missing_lately(0, 0));
    }
}

//! Removes entries that no process needs any more. Processes that map an entry keep it when it is
//! unlinked.
//!
//! Whether an entry is needed depends on its freshness, that is on what has become of its
//! origin:
//!
//! | origin | kept when no process maps it |
//! |---|---|
//! | still that version | 30 days after its last use |
//! | superseded or gone | not at all |
//! | unknown | a day; an hour while the store is large |
//!
//! So the store is about as large as the objects on disk that are in use, plus what containers
//! whose files cannot be seen have used within a day. Looking for unneeded entries costs some
//! system calls for each entry, so all processes together do it once in ten minutes at most, and
//! one look examines a bounded number of entries. The next one, in a large store after a minute,
//! goes on where it has stopped (`part`).

use core::ffi::CStr;
use core::sync::atomic::{AtomicI64, Ordering};

use sopin_core::object::file_name;
use sopin_core::pages::PageVec;
use sopin_core::sys::{self, Errno, Fd};

use crate::copy::TEMPORARY;
use crate::mark;
use crate::name::{Key, Version};
use crate::origin::{self, Freshness};
use crate::part::{self, ListingPart, NEXT};
use crate::removal::{ABANDONED_SECONDS, remove_unless_in_use};
use crate::{older_versions, own};
use sopin_core::listing::{DIRECTORY_TO_LIST, DIRECTORY_TO_PASS, for_each_name};

/// The name of the file whose access time records when a process last looked for unneeded
/// entries.
pub const LOOKED: &CStr = c".looked";

const HOUR: i64 = 60 * 60;
/// Seconds between two looks for unneeded entries.
const LOOK_SECONDS: i64 = 10 * 60;
/// The same where one look does not examine all entries.
const PART_SECONDS: i64 = 60;
/// Number of entries that one look examines: those of a user who has several programs, and a dozen
/// milliseconds.
const ENTRIES_AT_ONCE: usize = 1024;
/// Bytes from which on a store counts as large.
const LARGE: u64 = 4 << 30;

/// The number of seconds for which an entry that no process maps is kept after its last use.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// While its origin is still that version.
    pub current: i64,
    /// When its origin is superseded or gone.
    pub outdated: i64,
    /// When the freshness is unknown.
    pub unknown: i64,
}

impl Allowance {
    /// The allowance of the library. The minute is for a process that has just added an entry
    /// and has not locked it yet.
    pub const USUAL: Self = Self { current: 30 * 24 * HOUR, outdated: 60, unknown: 24 * HOUR };
    /// The allowance while the store is large.
    const SHORT: Self = Self { unknown: HOUR, ..Self::USUAL };

    /// Returns the seconds for an entry of this freshness.
    pub fn of(&self, freshness: Freshness) -> i64 {
        match freshness {
            Freshness::Current => self.current,
            Freshness::Superseded | Freshness::Gone => self.outdated,
            Freshness::Unknown => self.unknown,
        }
    }
}

/// A clock that shows an earlier time than this, 2026-01-01, has not been set yet, as on a
/// board without a battery. Its times prove nothing.
const EARLIEST: i64 = 1_767_225_600;
/// Seconds by which the clock may be stepped without making the ages of entries wrong.
const STEP: i64 = HOUR;

/// When this process last looked for unneeded entries, in seconds since the epoch. It may be
/// unable to write the mark in the store.
#[unsafe(link_section = ".data.sopin")]
static LAST_LOOK: AtomicI64 = AtomicI64::new(0);

/// Makes room before an entry is added: removes older versions of the same file and, from time
/// to time, unneeded entries.
pub fn make_room(store: &Fd, key: &Key, origin: Option<&CStr>) {
    older_versions::replace(store, key, origin);
    own::clean(store);
    if is_time_to_look(store) {
        remove_unneeded(store, key);
    }
}

/// Returns whether an access time has to be set again: it is more than so many seconds
/// ago, or in the future. Always false while the clock is not set.
pub(super) fn is_out_of_date(time: i64, seconds: i64) -> bool {
    let now = sys::realtime_seconds();
    now >= EARLIEST && !(0..=seconds).contains(&(now - time))
}

/// Returns whether no process has looked for unneeded entries lately; if so, notes that this
/// process does now.
fn is_time_to_look(store: &Fd) -> bool {
    let now = sys::realtime_seconds();
    if now < EARLIEST {
        return false;
    }
    // Cleaning must go on after the clock was set back.
    let is_past = |last: i64, seconds: i64| !(0..seconds).contains(&(now - last));
    if !is_past(LAST_LOOK.load(Ordering::Relaxed), PART_SECONDS) {
        return false;
    }
    LAST_LOOK.store(now, Ordering::Relaxed);
    let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let Ok(mark) = sys::openat(store, LOOKED, flags, 0) else {
        if let Ok(mark) = sys::openat(store, LOOKED, flags | libc::O_CREAT | libc::O_EXCL, 0o444) {
            let _ = note_look(&mark);
        }
        return true;
    };
    let Ok(status) = sys::fstat(mark.raw()) else { return false };
    let is_past = is_past(status.st_atime, LOOK_SECONDS)
        || (is_past(status.st_atime, PART_SECONDS) && part::is_under_way(store, NEXT));
    if !is_past || note_look(&mark).is_err() {
        return false;
    }
    let was_stepped = was_stepped(&status, now);
    if was_stepped {
        renew(store);
    }
    !was_stepped
}

/// Notes that a process looks now: sets the access time to the present time, and the
/// modification time to the time since the machine was started, with some bits that identify
/// this boot.
fn note_look(mark: &Fd) -> sys::Result<()> {
    let since_boot = i64::try_from(sys::since_boot_ns() / 1_000_000_000).unwrap_or(0);
    let boot = mark::boot_bits().unwrap_or(0);
    sys::touch_and_set_modified(mark, libc::timespec { tv_sec: since_boot, tv_nsec: boot })
}

/// Returns whether the clock was stepped since the last look in this boot. If so, the clock
/// shows another interval than the time since the start of the machine.
fn was_stepped(looked: &libc::stat, now: i64) -> bool {
    let since_boot = i64::try_from(sys::since_boot_ns() / 1_000_000_000).unwrap_or(0);
    let by_clock = now.saturating_sub(looked.st_atime);
    let is_this_boot = mark::boot_bits() == Some(looked.st_mtime_nsec);
    is_this_boot && !(-STEP..=STEP).contains(&by_clock.saturating_sub(since_boot - looked.st_mtime))
}

/// Counts all entries as used now, because the clock by which their ages were measured was
/// stepped.
fn renew(store: &Fd) {
    let _ = for_each_entry(store, |name, _| {
        let Ok(directory) = sys::openat(store, name, DIRECTORY_TO_LIST, 0) else { return };
        let _ = for_each_name(&directory, |file| {
            let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
            if let Ok(copy) = sys::openat(&directory, file, flags, 0) {
                let _ = sys::touch(&copy);
            }
        });
    });
}

/// Removes the unneeded entries of the next part, except the one that is being added.
pub(super) fn remove_unneeded(store: &Fd, key: &Key) {
    remove_unneeded_of(store, key, ENTRIES_AT_ONCE);
}

/// Does the same for a part of at most so many names.
pub(super) fn remove_unneeded_of(store: &Fd, key: &Key, most: usize) {
    let Ok(mut buffer) = PageVec::zeroed(libc::PATH_MAX as usize) else { return };
    let Ok(mut part) = ListingPart::open(store, NEXT, most) else { return };
    let (now, mut bytes) = (sys::realtime_seconds(), 0_u64);
    let _ = part.for_each_name(|name| {
        let size = Version::parse(name.to_bytes()).map_or(0, |version| version.identity.size);
        bytes = bytes.saturating_add(size);
    });
    let allowance = if part.bytes_in_all(bytes) > LARGE { Allowance::SHORT } else { Allowance::USUAL };
    // A listing that fails half way is not an error: the rest is examined another time.
    let _ = part.for_each_name(|name| {
        if let Some(version) = Version::parse(name.to_bytes()) {
            if name != key.as_c_str() && is_unneeded(store, name, &version, &allowance, now, &mut buffer) {
                remove_unless_in_use(store, name);
            }
        } else if is_abandoned(store, name, now) {
            let _ = sys::unlinkat(store, name, 0);
        }
    });
    part.finish(bytes);
}

/// Returns whether a file is an unfinished copy to which no process writes any more.
fn is_abandoned(store: &Fd, name: &CStr, now: i64) -> bool {
    name.to_bytes().starts_with(TEMPORARY.as_bytes())
        && sys::fstatat(store, name, libc::AT_SYMLINK_NOFOLLOW)
            .is_ok_and(|status| now - status.st_mtime > ABANDONED_SECONDS)
}

/// Returns whether an entry may be removed if no process maps it.
fn is_unneeded(store: &Fd, name: &CStr, version: &Version, allowance: &Allowance, now: i64, buffer: &mut [u8]) -> bool {
    let entry = match sys::openat(store, name, DIRECTORY_TO_PASS, 0) {
        Ok(entry) => entry,
        // Another file has taken the place of the directory.
        Err(Errno(libc::ENOTDIR | libc::ELOOP)) => {
            let status = sys::fstatat(store, name, libc::AT_SYMLINK_NOFOLLOW);
            return status.is_ok_and(|status| now - status.st_mtime > ABANDONED_SECONDS);
        }
        Err(_) => return false,
    };
    let origin = origin::read(&entry, buffer);
    // The copy has the origin's name.
    let copy = origin.and_then(|origin| {
        let file_name = file_name(origin.path.to_bytes_with_nul());
        sys::fstatat(&entry, CStr::from_bytes_with_nul(file_name).ok()?, libc::AT_SYMLINK_NOFOLLOW).ok()
    });
    let last_use = match copy {
        Some(status) => Some(status.st_atime),
        None => last_use_of_any(store, name),
    };
    let Some(unused) = last_use.map(|time| now - time) else { return false };
    // The origin is examined only if the result depends on it.
    unused > allowance.outdated
        && (unused > allowance.current
            || unused > allowance.of(origin.map_or(Freshness::Unknown, |origin| origin.freshness(&version.identity))))
}

/// Calls `each` with every key in the store.
fn for_each_entry(store: &Fd, mut each: impl FnMut(&CStr, Version)) -> sys::Result<()> {
    // A separate descriptor, so that the position of the store's own stays the same.
    let listing = sys::openat(store, c".", DIRECTORY_TO_LIST, 0)?;
    for_each_name(&listing, |name| {
        if let Some(version) = Version::parse(name.to_bytes()) {
            each(name, version);
        }
    })
}

/// Returns the latest access time in an entry, in seconds since the epoch; for an abandoned
/// entry without a copy, a time long ago.
fn last_use_of_any(store: &Fd, name: &CStr) -> Option<i64> {
    let directory = sys::openat(store, name, DIRECTORY_TO_LIST, 0).ok()?;
    let mut latest = None;
    for_each_name(&directory, |file| {
        let status = sys::fstatat(&directory, file, libc::AT_SYMLINK_NOFOLLOW);
        if let Ok(status) = status
            && status.st_mode & libc::S_IFMT == libc::S_IFREG
        {
            latest = latest.max(Some(status.st_atime));
        }
    })
    .ok()?;
    if latest.is_some() {
        return latest;
    }
    let made = sys::fstat(directory.raw()).ok()?.st_mtime;
    (sys::realtime_seconds() - made > ABANDONED_SECONDS).then_some(0)
}

//! Which files of a container no process can write to: those of its image.
//!
//! On an overlay file system that is the root of a container, writing to a file of a lower
//! layer copies it to the upper layer first, as a new inode: the file that is mapped stays what
//! it is, and needs no copy. A file of which this is shown now was never copied up, so every
//! mapping of it is one of the lower file.
//!
//! 1. The overlay must be one that an engine of containers has mounted ([`mount`]). The lower
//!    directory of another may be a user's work tree. Without an upper layer, nothing on it can
//!    be written to.
//! 2. The file must have been born, and its inode changed last, before the container was made:
//!    before the root directory of the upper layer was born. A file that was copied up or is new
//!    was born after it, unless the clock was set back in between.
//! 3. So the kernel must also show that the file is in a lower layer ([`signs`], Linux 6.6). Where
//!    it shows nothing, the file must be older than the container by more than the clock can be
//!    wrong by a time zone, as it may be before it is first set after a boot. A clock that was
//!    days ahead when the container was made, and was set right since, makes files of the
//!    container look like those of its image there: docs/limits.md documents this.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::pages::read_whole;
use crate::sys::{self, Fd, FileSystem, Result};

mod mount;
mod signs;

use mount::EngineMount;
use signs::Shown;

/// Seconds by which a file must be older than the container where the kernel shows nothing.
const MARGIN: i64 = 26 * 60 * 60;

/// The layers of the image that a process runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageLayers {
    /// The root's mount.
    mount: u64,
    kind: Kind,
    /// When the container was made: when the upper layer's root directory was born.
    made: Moment,
}

/// What is known of a root directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It is not proven to be that of a container.
    Unknown,
    /// It has no upper layer.
    OnlyLower,
    /// The kernel shows for a file that it is in the upper layer.
    Shown,
    /// Only times show where a file is.
    ByTimes,
}

impl ImageLayers {
    /// Returns the layers of the image of this process; `None` outside a container, where the
    /// root is not an overlay, or where neither can be proven. The caller holds the registry's
    /// lock.
    pub fn of_this_process() -> Option<Self> {
        let root = open_root().ok()?;
        let here = Status::of(&root).ok()?;
        let kind = match VERDICT.of(&here) {
            Some(known) => known,
            None => VERDICT.note(&here, Self::kind_of_own(&root, &here).unwrap_or(Kind::Unknown)),
        };
        Self::with(&here, kind)
    }

    fn kind_of_own(root: &Fd, here: &Status) -> Option<Kind> {
        // Reading all mounts takes longer.
        FileSystem::of(root).ok().filter(FileSystem::is_overlay)?;
        let mounts = sys::open_own_proc_file(c"/proc/self/mountinfo", c"/proc/thread-self/mountinfo").ok()?;
        kind_of(root, here, &read_whole(&mounts).ok()?)
    }

    /// Returns the layers of the image of a process whose root directory this is, opened for
    /// reading, and whose `/proc/PID/mountinfo` has these contents.
    pub fn of_root(root: &Fd, mounts: &[u8]) -> Option<Self> {
        let here = Status::of(root).ok()?;
        Self::with(&here, kind_of(root, &here, mounts)?)
    }

    fn with(here: &Status, kind: Kind) -> Option<Self> {
        let made = here.born.unwrap_or_default();
        // A container from the future was made before the clock was set back.
        let is_possible = match kind {
            Kind::Unknown => false,
            Kind::OnlyLower => true,
            Kind::Shown | Kind::ByTimes => made.seconds <= sys::realtime_seconds(),
        };
        is_possible.then_some(Self { mount: here.mount, kind, made })
    }

    /// Returns whether a file, which is open for reading, is in one of these layers.
    pub fn have(&self, file: &Fd) -> bool {
        let Ok(status) = Status::of(file) else { return false };
        let shown = || match self.kind {
            Kind::Shown => signs::shown_for(file, status.inode),
            Kind::Unknown | Kind::OnlyLower | Kind::ByTimes => Shown::Nothing,
        };
        self.have_with(&status, shown)
    }

    /// Returns whether an open file is on the same mount as these layers, in one of them or in the
    /// container's own.
    pub fn have_on_their_mount(&self, file: &Fd) -> bool {
        Status::of(file).is_ok_and(|status| status.mount == self.mount)
    }

    fn have_with(&self, status: &Status, shown: impl FnOnce() -> Shown) -> bool {
        if status.mount != self.mount || self.kind == Kind::OnlyLower {
            return status.mount == self.mount;
        }
        let Some(last) = status.born.map(|born| born.max(status.changed)) else { return false };
        last < self.made
            && match shown() {
                Shown::Lower => true,
                Shown::Upper => false,
                Shown::Nothing => last.seconds < self.made.seconds - MARGIN,
            }
    }
}

/// Opens the root directory, for reading if that is permitted.
fn open_root() -> Result<Fd> {
    let open = |flags| sys::open(c"/", flags | libc::O_DIRECTORY, 0);
    open(libc::O_RDONLY).or_else(|_| open(libc::O_PATH))
}

/// Returns what is known of the overlay whose root directory this is; `None` if it is not one that
/// an engine has mounted.
fn kind_of(root: &Fd, here: &Status, mounts: &[u8]) -> Option<Kind> {
    if !here.is_mount_root {
        return None;
    }
    let has_id = |line: &&[u8]| {
        let id = line.split(|byte| *byte == b' ').next();
        id.and_then(|id| core::str::from_utf8(id).ok()?.parse().ok()) == Some(here.mount)
    };
    let line = mounts.split(|byte| *byte == b'\n').find(has_id)?;
    Some(match EngineMount::of_line(line)? {
        EngineMount { has_upper: false } => Kind::OnlyLower,
        EngineMount { .. } if here.born.is_none() => return None,
        EngineMount { .. } if signs::are_shown_for_root(root) => Kind::Shown,
        EngineMount { .. } => Kind::ByTimes,
    })
}

/// Returns whether an engine of containers seems to have made the root directory of this process, as
/// its mounts show. That says nothing about files: see [`ImageLayers`].
pub fn is_root_of_an_engine() -> bool {
    let mounts = sys::open(c"/proc/self/mountinfo", libc::O_RDONLY, 0).and_then(|file| read_whole(&file));
    mounts.is_ok_and(|mounts| {
        let is_root = |line: &&[u8]| line.split(|byte| *byte == b' ').nth(4) == Some(b"/");
        // The last of several mounts at one place covers the others.
        mounts.split(|byte| *byte == b'\n').rfind(is_root).is_some_and(mount::seems_an_engines)
    })
}

/// The verdict on the root of this process, kept for as long as the root stays the same.
struct CachedVerdict {
    mount: AtomicU64,
    inode: AtomicU64,
    verdict: AtomicU64,
}

#[unsafe(link_section = ".data.sopin")]
static VERDICT: CachedVerdict =
    CachedVerdict { mount: AtomicU64::new(0), inode: AtomicU64::new(0), verdict: AtomicU64::new(0) };

impl CachedVerdict {
    /// Returns the verdict on a root; `None` if that is not the one that is kept.
    fn of(&self, root: &Status) -> Option<Kind> {
        let is_known = self.mount.load(Ordering::Relaxed) == root.mount
            && self.inode.load(Ordering::Relaxed) == root.inode
            && root.mount != 0;
        is_known.then(|| match self.verdict.load(Ordering::Relaxed) {
            1 => Kind::OnlyLower,
            2 => Kind::Shown,
            3 => Kind::ByTimes,
            _ => Kind::Unknown,
        })
    }

    /// Notes the verdict for a root. The caller holds the registry's lock.
    fn note(&self, root: &Status, verdict: Kind) -> Kind {
        self.mount.store(root.mount, Ordering::Relaxed);
        self.inode.store(root.inode, Ordering::Relaxed);
        let code = match verdict {
            Kind::Unknown => 0,
            Kind::OnlyLower => 1,
            Kind::Shown => 2,
            Kind::ByTimes => 3,
        };
        self.verdict.store(code, Ordering::Relaxed);
        verdict
    }
}

/// A time of a file, since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Moment {
    seconds: i64,
    nanoseconds: u32,
}

impl From<libc::statx_timestamp> for Moment {
    fn from(time: libc::statx_timestamp) -> Self {
        Self { seconds: time.tv_sec, nanoseconds: time.tv_nsec }
    }
}

/// Where and when a file was made.
#[derive(Clone, Copy, Debug)]
struct Status {
    mount: u64,
    inode: u64,
    /// `None` if the file system does not note it.
    born: Option<Moment>,
    /// When its inode changed last.
    changed: Moment,
    is_mount_root: bool,
}

impl Status {
    fn of(file: &Fd) -> Result<Self> {
        let needed = libc::STATX_CTIME | libc::STATX_INO | libc::STATX_MNT_ID;
        let status = sys::statx(file, needed, libc::STATX_BTIME)?;
        let has_birth = status.stx_mask & libc::STATX_BTIME != 0;
        Ok(Self {
            mount: status.stx_mnt_id,
            inode: status.stx_ino,
            born: has_birth.then(|| status.stx_btime.into()),
            changed: status.stx_ctime.into(),
            is_mount_root: status.stx_attributes & libc::STATX_ATTR_MOUNT_ROOT as u64 != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MADE: Moment = Moment { seconds: 1_800_000_000, nanoseconds: 500 };
    const OLD: Moment = Moment { seconds: MADE.seconds - MARGIN - 1, nanoseconds: 900 };
    const JUST_BEFORE: Moment = Moment { nanoseconds: 499, ..MADE };

    fn file(mount: u64, born: impl Into<Option<Moment>>, changed: Moment) -> Status {
        Status { mount, inode: 1, born: born.into(), changed, is_mount_root: false }
    }

    fn layers(kind: Kind) -> ImageLayers {
        ImageLayers { mount: 7, kind, made: MADE }
    }

    #[test]
    fn without_signs_only_what_is_much_older_than_the_container_is_in_its_image() {
        let has = |status: Status| layers(Kind::ByTimes).have_with(&status, || Shown::Nothing);
        assert!(has(file(7, OLD, OLD)));
        let near = Moment { seconds: MADE.seconds - MARGIN, ..MADE };
        // The file is on another mount, was copied up, was changed since, is too near in time to
        // decide, or nobody knows when it was born.
        for other in
            [file(8, OLD, OLD), file(7, MADE, MADE), file(7, OLD, MADE), file(7, near, OLD), file(7, None, OLD)]
        {
            assert!(!has(other), "{other:?}");
        }
    }

    #[test]
    fn signs_and_times_must_agree() {
        let has = |status: Status, shown| layers(Kind::Shown).have_with(&status, || shown);
        assert!(has(file(7, JUST_BEFORE, JUST_BEFORE), Shown::Lower));
        assert!(!has(file(7, MADE, JUST_BEFORE), Shown::Lower) && !has(file(7, JUST_BEFORE, MADE), Shown::Lower));
        assert!(!has(file(8, OLD, OLD), Shown::Lower));
        // A clock that was set back makes files of the container look old.
        assert!(!has(file(7, OLD, OLD), Shown::Upper));
        assert!(!has(file(7, JUST_BEFORE, JUST_BEFORE), Shown::Nothing) && has(file(7, OLD, OLD), Shown::Nothing));
    }

    #[test]
    fn without_an_upper_layer_nothing_can_be_written() {
        let has = |status: Status| layers(Kind::OnlyLower).have_with(&status, || unreachable!());
        assert!(has(file(7, None, MADE)) && !has(file(8, OLD, OLD)));
    }

    #[test]
    #[cfg_attr(miri, ignore = "asks the kernel")]
    fn the_status_of_the_root_is_known_or_refused() {
        let root = open_root().unwrap();
        if let Ok(status) = Status::of(&root) {
            assert!(status.is_mount_root && status.inode != 0);
        }
        assert_eq!(ImageLayers::of_root(&root, b""), None);
    }
}

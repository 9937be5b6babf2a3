//! What an entry's modification time says: whether its bytes are known to be on
//! the disk.
//!
//! After a power loss a file that was never synchronised can have its full size and hold zeros.
//! Synchronising every new entry would make the host wait for the disk. Instead an entry
//! records in which boot it was written, and is believed in that boot: the page cache holds its
//! bytes, provided that the disk accepts them when they are written back. In a later boot it is
//! first compared with its file, and then records that it is on the disk. An entry that records
//! neither is compared too.
//!
//! Without a build-id an entry is compared in every boot, so a mark that it is on the disk is of no
//! use to it. It records the boot in which it was last compared, also in the system's store, whose
//! entries are all on the disk. There only root can change a mark, so after a reboot each process
//! compares such an entry until root has had it compared (`sopin store fill` or `verify`).
//!
//! | modification time | believed |
//! |---|---|
//! | derived from the kernel's boot id: it was written or compared then | in that boot |
//! | derived from the entry's inode number: it was synchronised, compared after a reboot, or has fs-verity | if it has the object's build-id |
//! | anything else | not before it was compared |
//!
//! In a later boot it is not enough that the bytes of the entry are on the disk, because a
//! crash can leave new bytes in the *file* under its old times (`fdatasync(2)` writes no
//! times). The build-id distinguishes the two versions.
//!
//! Whole seconds are enough: a file system with inodes of 128 bytes keeps no more.
//! The inode number is part of the second kind so that a copy of the entry, as a
//! backup makes one, does not claim to be on the disk.

use core::sync::atomic::{AtomicU64, Ordering};

use sopin_core::build_id::BuildId;
use sopin_core::sys::{self, Fd, Result};

/// A modification time with one of these meanings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    seconds: i64,
    nanoseconds: i64,
}

impl Mark {
    /// Returns the mark of an entry that was written in this boot; `None` if the boot id cannot
    /// be read.
    pub fn this_boot() -> Option<Self> {
        boot().map(Self::of)
    }

    /// Returns the mark of an entry with this inode number that is on the disk.
    pub fn on_disk(inode: u64) -> Self {
        Self::of(hash(b"on disk", &inode.to_le_bytes()))
    }

    /// Returns the mark of an entry that was compared with its file in this boot, if it differs from
    /// [`Mark::on_disk`].
    pub fn of_compared(has_build_id: bool) -> Option<Self> {
        if has_build_id { None } else { Self::this_boot() }
    }

    /// Makes a time of a hash: 31 bits of seconds, because some file systems have no more, and
    /// nanoseconds.
    fn of(hash: u64) -> Self {
        const NANOSECONDS: u64 = 1_000_000_000;
        Self { seconds: (hash >> 33).cast_signed(), nanoseconds: ((hash & 0xffff_ffff) % NANOSECONDS).cast_signed() }
    }

    /// Writes the mark on an entry.
    pub fn put_on(self, entry: &Fd) -> Result<()> {
        sys::set_modified(entry, libc::timespec { tv_sec: self.seconds, tv_nsec: self.nanoseconds })
    }

    fn is(self, (seconds, nanoseconds): (i64, i64)) -> bool {
        seconds == self.seconds && (nanoseconds == self.nanoseconds || nanoseconds == 0)
    }
}

/// Returns whether the entry with this status is known to hold the bytes of its file, given
/// how its build-id compares with the object's.
pub fn is_believed(status: &libc::stat, build_id: BuildId) -> bool {
    let modified = (status.st_mtime, status.st_mtime_nsec);
    says_on_disk(status.st_ino, modified) && build_id == BuildId::Same
        || Mark::this_boot().is_some_and(|mark| mark.is(modified))
}

/// Returns whether an entry with this inode number, modified at this time in seconds and
/// nanoseconds, says that it is on the disk.
pub fn says_on_disk(inode: u64, modified: (i64, i64)) -> bool {
    Mark::on_disk(inode).is(modified)
}

/// Marks an entry that was just compared with its file, or that was just copied from it and
/// synchronised. An entry without its mark is compared again.
pub fn note_compared(entry: &Fd, has_build_id: bool) -> Result<()> {
    match Mark::of_compared(has_build_id) {
        Some(mark) => mark.put_on(entry),
        None => note_on_disk(entry),
    }
}

/// Marks an entry that was compared as being on the disk. Its pages are written back first, in
/// case another program has copied the entry; a journal that holds the new time then holds the
/// pages too.
fn note_on_disk(entry: &Fd) -> Result<()> {
    let status = sys::fstat(entry.raw())?;
    if says_on_disk(status.st_ino, (status.st_mtime, status.st_mtime_nsec)) {
        return Ok(());
    }
    sys::write_back(entry)?;
    Mark::on_disk(status.st_ino).put_on(entry)
}

/// Returns some bits that identify this boot and fit into nanoseconds; `None` if the boot id
/// cannot be read.
pub fn boot_bits() -> Option<i64> {
    boot().map(|boot| (boot & 0x1fff_ffff).cast_signed())
}

/// A hash of the kernel's boot id, read once in a process; 0 before that.
#[unsafe(link_section = ".data.sopin")]
static BOOT: AtomicU64 = AtomicU64::new(0);

fn boot() -> Option<u64> {
    /// A UUID as text.
    const LEN: usize = 36;
    let known = BOOT.load(Ordering::Relaxed);
    if known != 0 {
        return Some(known);
    }
    let file = sys::open(c"/proc/sys/kernel/random/boot_id", libc::O_RDONLY, 0).ok()?;
    let mut id = [0; LEN];
    let is_whole = sys::pread(&file, &mut id, 0) == Ok(LEN);
    let boot = hash(b"boot", &id);
    is_whole.then(|| BOOT.store(boot, Ordering::Relaxed))?;
    Some(boot)
}

/// Returns the FNV-1a hash of 64 bits.
fn hash(kind: &[u8], bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    kind.iter().chain(bytes).fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(inode: u64, modified: (i64, i64)) -> libc::stat {
        // SAFETY: an all-zero `stat` is a valid value of that C struct.
        let mut status: libc::stat = unsafe { core::mem::zeroed() };
        (status.st_ino, (status.st_mtime, status.st_mtime_nsec)) = (inode, modified);
        status
    }

    fn time(mark: Mark) -> (i64, i64) {
        (mark.seconds, mark.nanoseconds)
    }

    #[test]
    fn a_mark_of_the_disk_is_valid_for_one_entry() {
        assert!(says_on_disk(7, time(Mark::on_disk(7))));
        assert!(!says_on_disk(8, time(Mark::on_disk(7))));
        assert!(!says_on_disk(7, time(Mark::of(hash(b"boot", b"x")))));
    }

    #[test]
    fn a_mark_is_known_by_whole_seconds() {
        let (seconds, nanoseconds) = time(Mark::on_disk(7));
        assert!(says_on_disk(7, (seconds, 0)));
        assert!(!says_on_disk(7, (seconds, nanoseconds ^ 1)) && !says_on_disk(7, (seconds + 1, 0)));
    }

    #[test]
    #[cfg_attr(miri, ignore = "reads /proc")]
    fn an_entry_of_this_boot_is_believed() {
        for build_id in [BuildId::Same, BuildId::Absent] {
            assert!(is_believed(&status(7, time(Mark::this_boot().unwrap())), build_id));
            assert!(!is_believed(&status(7, time(Mark::of(hash(b"boot", b"of another boot")))), build_id));
            assert!(!is_believed(&status(7, (1_800_000_000, 0)), build_id));
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "reads /proc")]
    fn an_entry_on_the_disk_is_believed_if_its_build_id_is_the_objects() {
        assert!(is_believed(&status(7, time(Mark::on_disk(7))), BuildId::Same));
        assert!(!is_believed(&status(7, time(Mark::on_disk(7))), BuildId::Absent));
    }

    #[test]
    fn marks_are_times_that_file_systems_can_store() {
        for number in 0..1000_u64 {
            let mark = Mark::on_disk(number);
            assert!((0..1 << 31).contains(&mark.seconds) && (0..1_000_000_000).contains(&mark.nanoseconds));
        }
    }
}

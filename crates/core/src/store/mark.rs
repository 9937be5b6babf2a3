//! What an entry's modification time says: whether its bytes are known to be on
//! the disk.
//!
//! After a power loss a file that was never synchronised can have its full size
//! and hold zeros. Synchronising every new entry would stop the host for the
//! disk, so instead an entry says in which boot it was written, and is believed
//! in that boot: the page cache has it. In a later one it is compared with its
//! file first, and then says that it is on the disk. An entry that says neither
//! is compared too.
//!
//! | modification time | believed |
//! |---|---|
//! | derived from the kernel's boot id | in that boot |
//! | derived from the entry's inode number | always: it was synchronised, compared after a reboot, or has fs-verity |
//! | anything else | not before it was compared |
//!
//! The inode number is part of the second kind so that a copy of the entry, as a
//! backup makes one, does not claim to be on the disk.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::sys::{self, Fd, Result};

/// A modification time that says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    seconds: i64,
    nanoseconds: i64,
}

impl Mark {
    /// Written in this boot; `None` if the kernel does not tell which it is.
    pub fn this_boot() -> Option<Self> {
        boot().map(Self::of)
    }

    /// On the disk, for the entry with this inode number.
    pub fn on_disk(inode: u64) -> Self {
        Self::of(hash(b"on disk", &inode.to_le_bytes()))
    }

    /// 31 bits of seconds, since not every file system has more, and nanoseconds.
    fn of(hash: u64) -> Self {
        const NANOSECONDS: u64 = 1_000_000_000;
        Self { seconds: (hash >> 33).cast_signed(), nanoseconds: ((hash & 0xffff_ffff) % NANOSECONDS).cast_signed() }
    }

    /// Writes the mark on an entry.
    pub fn put_on(self, entry: &Fd) -> Result<()> {
        sys::set_times(entry, libc::timespec { tv_sec: self.seconds, tv_nsec: self.nanoseconds })
    }

    fn is_on(self, status: &libc::stat) -> bool {
        (status.st_mtime, status.st_mtime_nsec) == (self.seconds, self.nanoseconds)
    }
}

/// The modification time, in seconds and nanoseconds, of an entry with this inode
/// number that is known to be on the disk: for who looks after a store.
pub fn time_of_entry_on_disk(inode: u64) -> (i64, i64) {
    let Mark { seconds, nanoseconds } = Mark::on_disk(inode);
    (seconds, nanoseconds)
}

/// Whether the bytes of the entry with this status are known to be those that
/// were written to it.
pub fn is_believed(status: &libc::stat) -> bool {
    is_on_disk(status) || Mark::this_boot().is_some_and(|mark| mark.is_on(status))
}

/// Whether an entry with this status says that it is on the disk.
pub fn is_on_disk(status: &libc::stat) -> bool {
    Mark::on_disk(status.st_ino).is_on(status)
}

/// A hash of the kernel's boot id, read once in a process; 0 before that.
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

/// FNV-1a, 64 bits.
fn hash(kind: &[u8], bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    kind.iter().chain(bytes).fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(inode: u64, mark: Mark) -> libc::stat {
        // SAFETY: an all-zero `stat` is a valid value of that C struct.
        let mut status: libc::stat = unsafe { core::mem::zeroed() };
        (status.st_ino, status.st_mtime, status.st_mtime_nsec) = (inode, mark.seconds, mark.nanoseconds);
        status
    }

    #[test]
    fn a_mark_of_the_disk_is_one_entrys_own() {
        assert!(is_on_disk(&status(7, Mark::on_disk(7))));
        assert!(!is_on_disk(&status(8, Mark::on_disk(7))));
        assert!(!is_on_disk(&status(7, Mark::of(hash(b"boot", b"x")))));
    }

    #[test]
    #[cfg_attr(miri, ignore = "reads /proc")]
    fn an_entry_of_this_boot_is_believed() {
        assert!(is_believed(&status(7, Mark::this_boot().unwrap())));
        assert!(!is_believed(&status(7, Mark::of(hash(b"boot", b"of another boot")))));
        assert!(!is_believed(&status(7, Mark { seconds: 1_800_000_000, nanoseconds: 0 })));
    }

    #[test]
    fn marks_are_times_that_file_systems_can_store() {
        for number in 0..1000_u64 {
            let mark = Mark::on_disk(number);
            assert!((0..1 << 31).contains(&mark.seconds) && (0..1_000_000_000).contains(&mark.nanoseconds));
        }
    }
}

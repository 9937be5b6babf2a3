//! Which files of a container nobody can write to: those of its image.
//!
//! On an overlay file system that is the root of a container, writing to a file
//! of a lower layer copies it to the upper layer first, as a new inode: the file
//! that is mapped stays what it is, and needs no copy. The kernel does not say
//! which layer a file is in. But a file of a lower layer was born before the
//! container was made, which is when the root directory of its upper layer was
//! born, and a file that was copied up or is new was born after that.
//!
//! Times say so only if the clock did not go back in between, which happens when
//! it is first set after a boot, by as much as a time zone. So a file must be
//! older than the container by more than that. Overlays that are mounted elsewhere
//! are not believed: their lower directory may be somebody's work tree.

use crate::sys::{self, Fd, FileSystem, Result};

/// Seconds by which a file must be older than the container.
const MARGIN: i64 = 26 * 60 * 60;

/// The layers of the image that this process runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageLayers {
    /// The root's mount.
    mount: u64,
    /// When the container was made, in seconds since the epoch.
    made: i64,
}

impl ImageLayers {
    /// Those of this process; `None` outside a container, where the root is no
    /// overlay, or where that cannot be proven.
    pub fn of_this_process() -> Option<Self> {
        let root = sys::open(c"/", libc::O_PATH | libc::O_DIRECTORY, 0).ok()?;
        if !FileSystem::of(&root).ok()?.is_overlay() {
            return None;
        }
        let here = Birth::of(&root).ok()?;
        // In a chroot below the root of the namespace the first process, which
        // made the container, sees another root.
        let first = sys::open(c"/proc/1/root", libc::O_PATH | libc::O_DIRECTORY, 0).ok()?;
        let is_root = here.is_mount_root && Birth::of(&first).ok()? == here;
        is_root.then_some(Self { mount: here.mount, made: here.seconds })
    }

    /// Whether a file is in one of them.
    pub fn have(&self, file: &Fd) -> bool {
        Birth::of(file).is_ok_and(|birth| self.have_born(&birth))
    }

    fn have_born(&self, birth: &Birth) -> bool {
        birth.mount == self.mount && birth.seconds.max(birth.changed) < self.made - MARGIN
    }
}

/// When and where a file was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Birth {
    mount: u64,
    inode: u64,
    /// Seconds since the epoch.
    seconds: i64,
    /// When its inode changed last, likewise.
    changed: i64,
    is_mount_root: bool,
}

impl Birth {
    fn of(file: &Fd) -> Result<Self> {
        let needed = libc::STATX_BTIME | libc::STATX_CTIME | libc::STATX_INO | libc::STATX_MNT_ID;
        let status = sys::statx(file, needed)?;
        Ok(Self {
            mount: status.stx_mnt_id,
            inode: status.stx_ino,
            seconds: status.stx_btime.tv_sec,
            changed: status.stx_ctime.tv_sec,
            is_mount_root: status.stx_attributes & libc::STATX_ATTR_MOUNT_ROOT as u64 != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_much_older_than_the_container_is_in_its_image() {
        let layers = ImageLayers { mount: 7, made: 1_800_000_000 };
        let old = layers.made - MARGIN - 1;
        let file = |mount, seconds, changed| Birth { mount, inode: 1, seconds, changed, is_mount_root: false };
        assert!(layers.have_born(&file(7, old, old)));
        // On another mount, copied up, changed since, or too near to tell.
        for other in [
            file(8, old, old),
            file(7, layers.made + 5, layers.made + 5),
            file(7, old, layers.made + 5),
            file(7, layers.made - MARGIN, old),
        ] {
            assert!(!layers.have_born(&other), "{other:?}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "asks the kernel")]
    fn the_birth_of_the_root_is_known_or_refused() {
        let root = sys::open(c"/", libc::O_PATH, 0).unwrap();
        if let Ok(birth) = Birth::of(&root) {
            assert!(birth.is_mount_root && birth.inode != 0);
        }
    }
}

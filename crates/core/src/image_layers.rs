//! Which files of a container no process can write to: those of its image.
//!
//! On an overlay file system that is the root of a container, writing to a file of a lower
//! layer copies it to the upper layer first, as a new inode: the file that is mapped stays what
//! it is, and needs no copy. The kernel does not say which layer a file is in. But the birth
//! times show it. The root directory of the upper layer was born when the container was made: a
//! file of a lower layer was born before that, and a file that was copied up or is new was born
//! after it.
//!
//! Times prove this only if the clock was not set back in between. It can be, by as much as a
//! time zone, when it is first set after a boot. So a file must be older than the container by
//! more than that, and the container's own birth must not be in the future. A clock that was
//! days ahead when the container was made, and was set right since, makes files of the
//! container look like those of its image once that time has come: docs/limits.md documents
//! this.
//!
//! Not every overlay is the root of a container. The lower directory of another overlay may be
//! a user's work tree, and its upper directory may have been filled before it was mounted. So
//! the overlay must also be the root of the first process, and every lower directory must be
//! where container engines keep the layers of images.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::pages::{PageVec, read_whole};
use crate::slices;
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
    /// Returns the layers of the image of this process; `None` outside a container, where the
    /// root is not an overlay, or where neither can be proven.
    pub fn of_this_process() -> Option<Self> {
        let root = sys::open(c"/", libc::O_PATH | libc::O_DIRECTORY, 0).ok()?;
        let here = Birth::of(&root).ok()?;
        let is_image = match VERDICT.of(&here) {
            Some(known) => known,
            None => VERDICT.note(&here, Self::is_image(&root, &here) == Some(true)),
        };
        // The clock may have been set since.
        let is_from_the_past = here.seconds <= sys::realtime_seconds();
        (is_image && is_from_the_past).then_some(Self { mount: here.mount, made: here.seconds })
    }

    fn is_image(root: &Fd, here: &Birth) -> Option<bool> {
        if !here.is_mount_root || !FileSystem::of(root).ok()?.is_overlay() {
            return Some(false);
        }
        // In a chroot below the root of the namespace the first process, which
        // made the container, sees another root.
        let first = sys::open(c"/proc/1/root", libc::O_PATH | libc::O_DIRECTORY, 0).ok()?;
        if Birth::of(&first).ok()? != *here {
            return Some(false);
        }
        let mounts = sys::open_own_proc_file(c"/proc/self/mountinfo", c"/proc/thread-self/mountinfo").ok()?;
        let mounts: PageVec<u8> = read_whole(&mounts).ok()?;
        Some(mounts.split(|byte| *byte == b'\n').any(|line| is_mount_of_layers(line, here.mount)))
    }

    /// Returns whether a file is in one of these layers.
    pub fn have(&self, file: &Fd) -> bool {
        Birth::of(file).is_ok_and(|birth| self.have_born(&birth))
    }

    fn have_born(&self, birth: &Birth) -> bool {
        birth.mount == self.mount && birth.seconds.max(birth.changed) < self.made - MARGIN
    }
}

/// Where engines keep layers, in the paths of lower directories: Docker; Podman,
/// Buildah and CRI-O; containerd.
const LAYERS: [&[u8]; 3] =
    [b"/overlay2/", b"/containers/storage/overlay/", b"/io.containerd.snapshotter.v1.overlayfs/snapshots/"];

/// Returns whether a line of `/proc/PID/mountinfo` (`proc_pid_mountinfo(5)`) is that of this
/// mount, with layers of an image for all its lower directories.
fn is_mount_of_layers(line: &[u8], mount: u64) -> bool {
    let id = line.split(|byte| *byte == b' ').next();
    id.and_then(|id| core::str::from_utf8(id).ok()?.parse().ok()) == Some(mount) && has_layers(line)
}

/// Returns whether all lower directories of the mount of such a line are layers of an image.
fn has_layers(line: &[u8]) -> bool {
    let options = line.split(|byte| *byte == b' ').next_back().unwrap_or_default();
    let lower = options.split(|byte| *byte == b',').find_map(|option| option.strip_prefix(b"lowerdir="));
    let is_layer = |directory: &[u8]| LAYERS.iter().any(|part| slices::contains(directory, part));
    lower.is_some_and(|lower| {
        // Two colons stand before directories that hold data only.
        !lower.is_empty() && lower.split(|byte| *byte == b':').filter(|directory| !directory.is_empty()).all(is_layer)
    })
}

/// Returns whether an engine of containers has made the root directory of this process, as
/// its mounts show. That says nothing about files: see [`ImageLayers`].
pub fn is_root_of_an_engine() -> bool {
    let mounts = sys::open(c"/proc/self/mountinfo", libc::O_RDONLY, 0).and_then(|file| read_whole(&file));
    mounts.is_ok_and(|mounts| {
        let is_root = |line: &&[u8]| line.split(|byte| *byte == b' ').nth(4) == Some(b"/");
        // The last of several mounts at one place covers the others.
        mounts.split(|byte| *byte == b'\n').rfind(is_root).is_some_and(has_layers)
    })
}

/// The verdict on the root of this process, kept for as long as the root stays the same.
struct CachedVerdict {
    mount: AtomicU64,
    inode: AtomicU64,
    is_image: AtomicU64,
}

static VERDICT: CachedVerdict =
    CachedVerdict { mount: AtomicU64::new(0), inode: AtomicU64::new(0), is_image: AtomicU64::new(0) };

impl CachedVerdict {
    fn of(&self, root: &Birth) -> Option<bool> {
        let is_known = self.mount.load(Ordering::Relaxed) == root.mount
            && self.inode.load(Ordering::Relaxed) == root.inode
            && root.mount != 0;
        is_known.then(|| self.is_image.load(Ordering::Relaxed) != 0)
    }

    /// Notes the verdict for a root. The caller holds the registry's lock.
    fn note(&self, root: &Birth, is_image: bool) -> bool {
        self.mount.store(root.mount, Ordering::Relaxed);
        self.inode.store(root.inode, Ordering::Relaxed);
        self.is_image.store(is_image.into(), Ordering::Relaxed);
        is_image
    }
}

/// When and where a file was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Birth {
    mount: u64,
    inode: u64,
    /// Seconds since the epoch.
    seconds: i64,
    /// When its inode changed last, in seconds since the epoch.
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
        // The file is on another mount, was copied up, was changed since, or is too near in
        // time to decide.
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
    fn only_the_layers_of_engines_are_an_images() {
        let mount = |lower: &str| {
            let upper = "upperdir=/var/lib/docker/overlay2/a/diff,workdir=/var/lib/docker/overlay2/a/work";
            std::format!("36 25 0:41 / / rw,relatime - overlay overlay rw,lowerdir={lower},{upper}")
        };
        let is = |lower: &str, id| is_mount_of_layers(mount(lower).as_bytes(), id);
        let docker = "/var/lib/docker/overlay2/l/ABC:/var/lib/docker/overlay2/l/DEF";
        assert!(is(docker, 36) && !is(docker, 37));
        assert!(is("/var/lib/containers/storage/overlay/l/ABC", 36));
        assert!(is("/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/7/fs", 36));
        for other in ["/srv/tree", "/var/lib/docker/overlay2/l/ABC:/srv/tree", "l/ABC", ""] {
            assert!(!is(other, 36), "{other}");
        }
        assert!(!is_mount_of_layers(b"36 25 8:1 / / rw - ext4 /dev/sda1 rw", 36) && !is_mount_of_layers(b"", 36));
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

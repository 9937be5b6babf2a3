//! Kinds of file systems, and what each kind guarantees about its files.
//!
//! Every answer is about a *kind* of file system, by its magic number (`statfs(2)`,
//! include/uapi/linux/magic.h). For kinds that are not listed the functions assume the worst.
//! That a file system is mounted read-only proves nothing: its superblock can be remounted, and
//! another mount, another machine or the server of its storage can write to it.

use super::{Fd, Result, raw};

const EXT: i64 = 0xef53;
const XFS: i64 = 0x5846_5342;
const BTRFS: i64 = 0x9123_683e;
const F2FS: i64 = 0xf2f5_2010;
const BCACHEFS: i64 = 0xca45_1a4e;
const ZFS: i64 = 0x2fc1_2fc1;
const TMPFS: i64 = 0x0102_1994;
const OVERLAYFS: i64 = 0x794c_7630;

/// squashfs, EROFS, ISO 9660, cramfs.
const WITHOUT_WRITES: [i64; 4] = [0x7371_7368, 0xe0f5_e1e2, 0x9660, 0x28cd_3d45];

/// NFS, SMB, CIFS, SMB2, AFS, Ceph, 9P, FUSE.
const REMOTE: [i64; 8] = [0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42, 0x5346_414f, 0x00c3_6400, 0x0102_1997, 0x6573_5546];

/// The kernel's `struct statfs` on 64-bit architectures, as far as it is used;
/// the C library's hides `f_flags`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct FileSystem {
    /// Magic number, `f_type` of `statfs(2)`.
    pub kind: i64,
    sizes_and_id: [u64; 7],
    name_and_fragment: [i64; 2],
    /// `ST_*` of `statfs(2)`.
    pub flags: i64,
    spare: [i64; 4],
}

impl FileSystem {
    /// Calls `fstatfs(2)` for the file system of an open file.
    pub fn of(fd: &Fd) -> Result<Self> {
        let mut answer = Self::default();
        // SAFETY: the kernel writes a `struct statfs` (include/uapi/asm-generic/statfs.h),
        // whose layout the live local has.
        unsafe { raw!(libc::SYS_fstatfs, fd.raw(), &raw mut answer) }?;
        Ok(answer)
    }

    /// Returns whether its format has no way to write to a file, and `st_dev` shows that it is
    /// on a block device other than a loop device. An image file that is mounted through a loop
    /// device or without any device (EROFS since Linux 6.12) can be rewritten like any other
    /// file.
    fn cannot_be_written(&self, device: u64) -> bool {
        const LOOP_MAJOR: u32 = 7;
        const NONE_MAJOR: u32 = 0;
        WITHOUT_WRITES.contains(&self.kind) && ![LOOP_MAJOR, NONE_MAJOR].contains(&libc::major(device))
    }

    /// Returns whether another machine or process decides about its contents.
    pub fn is_remote(&self) -> bool {
        REMOTE.contains(&self.kind)
    }

    /// Returns whether it is an overlay of directories (Documentation/filesystems/overlayfs.rst).
    pub fn is_overlay(&self) -> bool {
        self.kind == OVERLAYFS
    }

    /// Returns whether this machine's kernel alone decides about the contents of its files, so
    /// that a copy that is stored there does not change.
    pub fn is_kept_by_this_kernel(&self) -> bool {
        [EXT, XFS, BTRFS, F2FS, BCACHEFS, ZFS, TMPFS, OVERLAYFS].contains(&self.kind)
    }

    /// Returns whether every change of a file's content moves its `st_ctim`, once its dirty
    /// pages have been written back: the file system notes a store through a shared mapping
    /// when a clean page is stored to (`file_update_time` in its `page_mkwrite`). tmpfs never
    /// cleans a page, and ZFS notes such stores late. An overlay shows one inode number for a
    /// file of a lower layer and for what it was copied up to, and does not show which file
    /// systems are below it.
    pub fn updates_ctime_on_every_change(&self) -> bool {
        [EXT, XFS, BTRFS, F2FS, BCACHEFS].contains(&self.kind)
    }

    /// Returns whether fs-verity can be enabled for its files, provided that the administrator
    /// has chosen that when making the file system. btrfs does not count: there the first such
    /// file changes the format of the whole file system.
    pub fn may_offer_verity(&self) -> bool {
        [EXT, F2FS].contains(&self.kind)
    }

    /// Returns whether no process can ever write to `file`, which is on it and has `device` as
    /// its `st_dev`.
    pub fn forbids_writes_to(&self, file: &Fd, device: u64) -> bool {
        self.cannot_be_written(device) || [EXT, F2FS, BTRFS].contains(&self.kind) && has_verity(file)
    }
}

/// The kernel's `struct fsverity_enable_arg` (include/uapi/linux/fsverity.h).
#[repr(C)]
#[derive(Default)]
struct EnableVerity {
    version: u32,
    hash_algorithm: u32,
    block_size: u32,
    salt_size: u32,
    salt: u64,
    signature_size: u32,
    reserved: u32,
    signature: u64,
    reserved_words: [u64; 11],
}

/// `_IOW('f', 133, struct fsverity_enable_arg)`
pub(super) const FS_IOC_ENABLE_VERITY: u64 = 0x4080_6685;
/// `_IOR('f', 1, long)`
pub(super) const FS_IOC_GETFLAGS: u64 = 0x8008_6601;

/// Makes a file immutable for as long as it exists (`FS_IOC_ENABLE_VERITY`, Linux 5.4). The
/// descriptor must be for reading only, and no process may have the file open for writing.
pub fn enable_verity(fd: &Fd) -> Result<()> {
    const SHA256: u32 = 1;
    let argument = EnableVerity { version: 1, hash_algorithm: SHA256, block_size: 4096, ..EnableVerity::default() };
    // SAFETY: the kernel only reads the live struct, whose size is the one in the request's
    // number.
    unsafe { raw!(libc::SYS_ioctl, fd.raw(), FS_IOC_ENABLE_VERITY, &raw const argument) }.map(drop)
}

/// Returns whether a file's content is protected by fs-verity (`FS_IOC_GETFLAGS`).
pub fn has_verity(fd: &Fd) -> bool {
    const FS_VERITY_FL: u64 = 0x0010_0000;
    // The kernel writes an int, although the request's number has the size of a long.
    let mut flags = 0_u64;
    // SAFETY: the kernel writes at most a long to the live word.
    let asked = unsafe { raw!(libc::SYS_ioctl, fd.raw(), FS_IOC_GETFLAGS, &raw mut flags) };
    asked.is_ok() && flags & FS_VERITY_FL != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys;

    #[test]
    #[cfg_attr(miri, ignore = "asks the C library")]
    fn statfs_has_the_layout_of_the_c_library() {
        let path = c"/proc/self";
        let ours = FileSystem::of(&sys::open(path, libc::O_PATH, 0).unwrap()).unwrap();
        // SAFETY: an all-zero `statvfs` is valid, and the call fills it.
        let theirs = unsafe {
            let mut theirs: libc::statvfs = core::mem::zeroed();
            assert_eq!(libc::statvfs(path.as_ptr(), &raw mut theirs), 0);
            theirs
        };
        assert_eq!(ours.kind, 0x9fa0);
        // The C library takes ST_VALID off.
        assert_eq!(ours.flags.cast_unsigned() & !0x20, theirs.f_flag);
        assert_eq!(size_of::<FileSystem>(), size_of::<libc::statfs>());
    }

    #[test]
    fn the_argument_has_the_size_that_its_request_says() {
        assert_eq!(size_of::<EnableVerity>(), 0x80);
    }

    #[test]
    fn an_image_in_a_file_can_be_rewritten() {
        for kind in WITHOUT_WRITES {
            let format = FileSystem { kind, ..FileSystem::default() };
            assert!(format.cannot_be_written(libc::makedev(8, 1)) && format.cannot_be_written(libc::makedev(253, 0)));
            assert!(!format.cannot_be_written(libc::makedev(7, 3)) && !format.cannot_be_written(libc::makedev(0, 48)));
        }
    }

    #[test]
    fn unknown_file_systems_get_the_careful_answer() {
        let unknown = FileSystem { kind: 0x1234, ..FileSystem::default() };
        assert!(
            !unknown.cannot_be_written(libc::makedev(8, 1))
                && !unknown.is_kept_by_this_kernel()
                && !unknown.updates_ctime_on_every_change()
        );
        assert!(!unknown.may_offer_verity());
        for kind in REMOTE {
            let remote = FileSystem { kind, ..FileSystem::default() };
            assert!(
                !remote.is_kept_by_this_kernel()
                    && !remote.updates_ctime_on_every_change()
                    && !remote.cannot_be_written(libc::makedev(8, 1))
            );
        }
    }
}

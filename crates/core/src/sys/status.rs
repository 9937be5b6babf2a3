//! What the kernel reports about a file: `stat(2)`, `fstat(2)`, `fstatat(2)` and `statx(2)`.

use core::ffi::{CStr, c_int, c_long};
use core::sync::atomic::{AtomicU8, Ordering};

use super::{Errno, Fd, Result, gate, raw};

/// The C library's `struct stat`.
pub type Status = libc::stat;

/// Calls `fstat(2)`, or the system call that the C library makes in its place.
pub fn fstat(fd: c_int) -> Result<libc::stat> {
    // SAFETY: an all-zero `stat` is a valid value of that C struct.
    let mut status: libc::stat = unsafe { core::mem::zeroed() };
    if fstat_number() == libc::SYS_fstat {
        // SAFETY: the kernel fills the struct, which lives until the call returns.
        unsafe { raw!(libc::SYS_fstat, fd, &raw mut status) }?;
    } else {
        let empty = c"".as_ptr();
        // SAFETY: the struct is live until the call returns, and the path is a live C string.
        unsafe { raw!(libc::SYS_newfstatat, fd, empty, &raw mut status, libc::AT_EMPTY_PATH) }?;
    }
    Ok(status)
}

/// Returns the number of the call that the C library makes for `fstat(3)`: glibc 2.33 to 2.38
/// use `newfstatat(2)` (source: sysdeps/unix/sysv/linux/fstat64.c). While the gate is
/// open, no filter kills for either of them. Then it returns the number of `fstat(2)`, and does not look up
/// the version of the C library.
pub(super) fn fstat_number() -> c_long {
    static IS_RELATIVE: AtomicU8 = AtomicU8::new(UNKNOWN);
    const UNKNOWN: u8 = 2;
    if !gate::is_closed() {
        return libc::SYS_fstat;
    }
    let is_relative = match IS_RELATIVE.load(Ordering::Relaxed) {
        UNKNOWN => {
            let is_relative = glibc_minor_version().is_some_and(|minor| (33..39).contains(&minor));
            IS_RELATIVE.store(is_relative.into(), Ordering::Relaxed);
            is_relative
        }
        known => known == 1,
    };
    if is_relative { libc::SYS_newfstatat } else { libc::SYS_fstat }
}

/// Returns the N of glibc 2.N, the C library of this process; `None` with another one, or
/// under Miri.
pub fn glibc_minor_version() -> Option<u32> {
    /// `<bits/confname.h>`. The answer is "glibc 2.36", for example; musl knows no such name.
    const CS_GNU_LIBC_VERSION: c_int = 2;
    if cfg!(miri) {
        return None;
    }
    let mut buffer = [0_u8; 32];
    // SAFETY: the C library writes at most the length that is passed, with the NUL, and the
    // buffer lives until the call returns.
    let len = unsafe { libc::confstr(CS_GNU_LIBC_VERSION, buffer.as_mut_ptr().cast(), buffer.len()) };
    let minor = buffer.get(..len)?.split(|byte| *byte == b'.').nth(1)?;
    minor
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .try_fold(0, |sum: u32, digit| sum.checked_mul(10)?.checked_add((digit - b'0').into()))
}

/// Calls `stat(2)`.
pub fn stat(path: &CStr) -> Result<libc::stat> {
    fstatat(&Fd::CWD, path, 0)
}

/// Calls `fstatat(2)`.
pub fn fstatat(directory: &Fd, path: &CStr, flags: c_int) -> Result<libc::stat> {
    // SAFETY: an all-zero `stat` is a valid value of that C struct.
    let mut status: libc::stat = unsafe { core::mem::zeroed() };
    let (directory, path) = (directory.raw(), path.as_ptr());
    // SAFETY: path and struct are live for the duration of the call.
    unsafe { raw!(libc::SYS_newfstatat, directory, path, &raw mut status, flags) }?;
    Ok(status)
}

/// Calls `statx(2)` for an open file; `ENOSYS` if the kernel or the file system does not report
/// all of the `needed` fields (`STATX_*`). It need not report those that are `welcome`.
pub fn statx(fd: &Fd, needed: u32, welcome: u32) -> Result<libc::statx> {
    // SAFETY: an all-zero `statx` is a valid value of that C struct.
    let mut status: libc::statx = unsafe { core::mem::zeroed() };
    let (empty, flags) = (c"".as_ptr(), libc::AT_EMPTY_PATH);
    // SAFETY: the path and the struct are live for the duration of the call.
    unsafe { raw!(libc::SYS_statx, fd.raw(), empty, flags, needed | welcome, &raw mut status) }?;
    if status.stx_mask & needed == needed { Ok(status) } else { Err(Errno(libc::ENOSYS)) }
}

/// What identifies the file at a path, and whether it is the root of a mount.
#[derive(Clone, Copy, Debug)]
pub struct PathIdentity {
    /// `st_dev`
    pub device: u64,
    /// `st_ino`
    pub inode: u64,
    /// Whether it is the root of a mount; `None` from Linux before 5.8.
    pub is_mount_root: Option<bool>,
}

/// Calls `statx(2)`, which follows links, or `stat(2)` where the kernel has no `statx(2)`.
pub fn path_identity(path: &CStr) -> Result<PathIdentity> {
    const STATX_INO: u32 = 0x100;
    const STATX_ATTR_MOUNT_ROOT: u64 = 0x2000;
    // SAFETY: an all-zero `statx` is a valid value of that C struct.
    let mut status: libc::statx = unsafe { core::mem::zeroed() };
    // SAFETY: the path and the struct are live for the duration of the call.
    match unsafe { raw!(libc::SYS_statx, libc::AT_FDCWD, path.as_ptr(), 0, STATX_INO, &raw mut status) } {
        Ok(_) => Ok(PathIdentity {
            device: libc::makedev(status.stx_dev_major, status.stx_dev_minor),
            inode: status.stx_ino,
            is_mount_root: (status.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT != 0)
                .then_some(status.stx_attributes & STATX_ATTR_MOUNT_ROOT != 0),
        }),
        // Linux before 4.11 has no such call, and filters that do not know it refuse it.
        Err(Errno(libc::ENOSYS | libc::EPERM)) => {
            let status = stat(path)?;
            Ok(PathIdentity { device: status.st_dev, inode: status.st_ino, is_mount_root: None })
        }
        Err(errno) => Err(errno),
    }
}

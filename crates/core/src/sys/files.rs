//! Descriptors and files.

use core::ffi::{CStr, c_int, c_void};

use super::{Errno, Result, raw};

/// A descriptor that is closed when dropped.
#[derive(Debug)]
pub struct Fd(c_int);

impl Fd {
    /// The working directory, for calls that take a directory.
    pub const CWD: Self = Self(libc::AT_FDCWD);

    /// The number, for calls that want one.
    pub fn raw(&self) -> c_int {
        self.0
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        if self.0 < 0 {
            return;
        }
        // SAFETY: the descriptor is owned by this value. An error of close
        // leaves nothing to do: Linux frees the number in any case.
        let _ = unsafe { raw!(libc::SYS_close, self.0) };
    }
}

/// `open(2)`; `O_CLOEXEC` is always added.
pub fn open(path: &CStr, flags: c_int, mode: u32) -> Result<Fd> {
    openat(&Fd::CWD, path, flags, mode)
}

/// `openat(2)`; `O_CLOEXEC` is always added.
pub fn openat(directory: &Fd, path: &CStr, flags: c_int, mode: u32) -> Result<Fd> {
    let flags = flags | libc::O_CLOEXEC;
    // SAFETY: the path is a valid C string for the duration of the call.
    let fd = unsafe { raw!(libc::SYS_openat, directory.raw(), path.as_ptr(), flags, mode) }?;
    Ok(Fd(fd as c_int))
}

/// `memfd_create(2)`; falls back to the flags that kernels before 6.3 know.
pub fn memfd_create(name: &CStr) -> Result<Fd> {
    let base = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    let create = |flags: u32| {
        // SAFETY: the name is a valid C string for the duration of the call.
        unsafe { raw!(libc::SYS_memfd_create, name.as_ptr(), flags) }
    };
    // MFD_EXEC keeps working where sysctl vm.memfd_noexec is 1.
    let fd = match create(base | libc::MFD_EXEC) {
        Err(Errno(libc::EINVAL)) => create(base),
        other => other,
    }?;
    Ok(Fd(fd as c_int))
}

/// `pread(2)` into `buffer`; the number of bytes read.
pub fn pread(fd: &Fd, buffer: &mut [u8], offset: u64) -> Result<usize> {
    let (pointer, len) = (buffer.as_mut_ptr(), buffer.len());
    // SAFETY: the kernel writes at most `len` bytes into the live buffer.
    unsafe { raw!(libc::SYS_pread64, fd.raw(), pointer, len, offset) }
}

/// `read(2)` into `buffer`; the number of bytes read.
pub fn read(fd: &Fd, buffer: &mut [u8]) -> Result<usize> {
    let (pointer, len) = (buffer.as_mut_ptr(), buffer.len());
    // SAFETY: the kernel writes at most `len` bytes into the live buffer.
    unsafe { raw!(libc::SYS_read, fd.raw(), pointer, len) }
}

/// `write(2)` of `bytes`, once.
pub fn write(fd: c_int, bytes: &[u8]) -> Result<usize> {
    // SAFETY: the kernel only reads the live slice.
    unsafe { raw!(libc::SYS_write, fd, bytes.as_ptr(), bytes.len()) }
}

/// `pwrite(2)` straight from the address range `[address, address + len)`,
/// which need not be readable: the kernel answers `EFAULT` or a short count.
pub fn pwrite_from(fd: &Fd, address: usize, len: usize, offset: u64) -> Result<usize> {
    // SAFETY: the kernel only reads the range, and checks every page of it.
    unsafe { raw!(libc::SYS_pwrite64, fd.raw(), address as *const c_void, len, offset) }
}

/// `flock(2)`.
pub fn flock(fd: &Fd, operation: c_int) -> Result<()> {
    // SAFETY: integers only.
    unsafe { raw!(libc::SYS_flock, fd.raw(), operation) }.map(drop)
}

/// What `fstatfs(2)` tells of the file system of an open file.
pub fn fstatfs(fd: &Fd) -> Result<libc::statfs> {
    // SAFETY: an all-zero `statfs` is a valid value of that C struct.
    let mut status: libc::statfs = unsafe { core::mem::zeroed() };
    // SAFETY: the kernel fills the struct, which lives until the call returns.
    unsafe { raw!(libc::SYS_fstatfs, fd.raw(), &raw mut status) }?;
    Ok(status)
}

/// Makes `to` share the blocks of `from` (`ioctl_ficlone(2)`).
pub fn clone_file(from: &Fd, to: &Fd) -> Result<()> {
    const FICLONE: u64 = 0x4004_9409;
    // SAFETY: the argument of FICLONE is a descriptor.
    unsafe { raw!(libc::SYS_ioctl, to.raw(), FICLONE, from.raw()) }.map(drop)
}

/// `copy_file_range(2)` from and to the files' own positions.
pub fn copy_file_range(from: &Fd, to: &Fd, len: usize) -> Result<usize> {
    let none = core::ptr::null::<c_void>();
    // SAFETY: no offsets are passed.
    unsafe { raw!(libc::SYS_copy_file_range, from.raw(), none, to.raw(), none, len, 0) }
}

/// `sendfile(2)` from and to the files' own positions.
pub fn sendfile(from: &Fd, to: &Fd, len: usize) -> Result<usize> {
    let none = core::ptr::null::<c_void>();
    // SAFETY: no offset is passed.
    unsafe { raw!(libc::SYS_sendfile, to.raw(), from.raw(), none, len) }
}

/// Sets the access time of an open file to now, and nothing else.
pub fn touch(fd: &Fd) -> Result<()> {
    let now = libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_NOW };
    let same = libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT };
    let (times, no_path) = ([now, same], core::ptr::null::<c_void>());
    // SAFETY: two live timespecs; without a path the descriptor is meant.
    unsafe { raw!(libc::SYS_utimensat, fd.raw(), no_path, times.as_ptr(), 0) }.map(drop)
}

/// `fcntl(2)` with an integer argument.
pub fn fcntl(fd: c_int, command: c_int, argument: c_int) -> Result<usize> {
    // SAFETY: commands with an integer argument touch no memory of ours.
    unsafe { raw!(libc::SYS_fcntl, fd, command, argument) }
}

/// `fstat(2)`.
pub fn fstat(fd: c_int) -> Result<libc::stat> {
    // SAFETY: an all-zero `stat` is a valid value of that C struct.
    let mut status: libc::stat = unsafe { core::mem::zeroed() };
    // SAFETY: the kernel fills the struct, which lives until the call returns.
    unsafe { raw!(libc::SYS_fstat, fd, &raw mut status) }?;
    Ok(status)
}

/// `stat(2)`.
pub fn stat(path: &CStr) -> Result<libc::stat> {
    fstatat(&Fd::CWD, path, 0)
}

/// `fstatat(2)`.
pub fn fstatat(directory: &Fd, path: &CStr, flags: c_int) -> Result<libc::stat> {
    // SAFETY: an all-zero `stat` is a valid value of that C struct.
    let mut status: libc::stat = unsafe { core::mem::zeroed() };
    let (directory, path) = (directory.raw(), path.as_ptr());
    // SAFETY: path and struct are live for the duration of the call.
    unsafe { raw!(libc::SYS_newfstatat, directory, path, &raw mut status, flags) }?;
    Ok(status)
}

/// `poll(2)` on one descriptor without waiting; the events that hold.
pub fn poll_now(fd: c_int, events: i16) -> Result<i16> {
    let mut entry = libc::pollfd { fd, events, revents: 0 };
    let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let no_mask = core::ptr::null::<c_void>();
    // SAFETY: one live pollfd and a live timespec; no signal mask is passed.
    unsafe { raw!(libc::SYS_ppoll, &raw mut entry, 1, &raw const zero, no_mask, 8) }?;
    Ok(entry.revents)
}

/// `ioctl(2)` whose argument points to `argument`.
///
/// # Safety
/// `T` must be the type that `request` reads and writes.
pub unsafe fn ioctl<T>(fd: &Fd, request: u64, argument: &mut T) -> Result<usize> {
    // SAFETY: the pointer is live and, per the caller, of the right type.
    unsafe { raw!(libc::SYS_ioctl, fd.raw(), request, &raw mut *argument) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_from_unmapped_memory_is_an_error() {
        let fd = memfd_create(c"test").unwrap();
        assert_eq!(pwrite_from(&fd, 8, 1, 0), Err(Errno(libc::EFAULT)));
    }
}

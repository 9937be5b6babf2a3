//! Descriptors and files.

use core::ffi::{CStr, c_int, c_void};
use core::sync::atomic::{AtomicBool, Ordering};

use super::{Errno, Result, ThreadIds, raw};

/// A descriptor that is closed when dropped.
#[derive(Debug)]
pub struct Fd(c_int);

impl Fd {
    /// The working directory, for calls that take a directory.
    pub const CWD: Self = Self(libc::AT_FDCWD);

    /// Moves the file to a number above 2. In a daemon that has closed its standard streams the
    /// kernel assigns their numbers again, and a message of another thread must not end up in a
    /// file that the library writes.
    pub fn above_stderr(self) -> Result<Self> {
        if self.0 > 2 {
            return Ok(self);
        }
        let other = Self(fcntl(self.0, libc::F_DUPFD_CLOEXEC, 3)? as c_int);
        drop(self);
        // Another thread may have written to the file in between.
        // SAFETY: the call takes a descriptor and integers, and touches no memory of this
        // process.
        unsafe { raw!(libc::SYS_ftruncate, other.raw(), 0) }?;
        Ok(other)
    }

    /// Returns the number; the caller must close it.
    pub fn into_raw(self) -> c_int {
        let number = self.0;
        core::mem::forget(self);
        number
    }

    /// Takes over a descriptor that [`Fd::into_raw`] has returned.
    pub fn from_raw(number: c_int) -> Self {
        Self(number)
    }

    /// Returns the number, for system calls.
    pub fn raw(&self) -> c_int {
        self.0
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        if self.0 < 0 {
            return;
        }
        // SAFETY: this value owns the descriptor, so nothing else uses its number. Linux frees
        // the number even if close fails.
        let _ = unsafe { raw!(libc::SYS_close, self.0) };
    }
}

/// Calls `open(2)`; `O_CLOEXEC` is always added.
pub fn open(path: &CStr, flags: c_int, mode: u32) -> Result<Fd> {
    openat(&Fd::CWD, path, flags, mode)
}

/// Calls `openat(2)`; `O_CLOEXEC` is always added.
pub fn openat(directory: &Fd, path: &CStr, flags: c_int, mode: u32) -> Result<Fd> {
    let flags = flags | libc::O_CLOEXEC;
    // SAFETY: the path is a valid C string for the duration of the call.
    let fd = unsafe { raw!(libc::SYS_openat, directory.raw(), path.as_ptr(), flags, mode) }?;
    Ok(Fd(fd as c_int))
}

/// Opens a file in which the kernel describes the calling process, by its path below
/// `/proc/self`. Once the main thread has exited, nothing can be read there; then it opens the
/// path below `/proc/thread-self` (Linux 3.17), which takes the kernel longer to find.
///
/// An emulator (qemu-user) generates the files below `/proc/self`. Elsewhere it passes on the
/// kernel's files, which describe the emulator itself. A generated file has a size; those of
/// the kernel have none.
pub fn open_own_proc_file(of_process: &CStr, of_thread: &CStr) -> Result<Fd> {
    open_proc_file_of(ThreadIds::ask(), of_process, of_thread)
}

/// Opens such a file for the calling thread, whose ids are known.
pub fn open_proc_file_of(caller: ThreadIds, of_process: &CStr, of_thread: &CStr) -> Result<Fd> {
    if !caller.is_main_thread() {
        if let Ok(file) = open(of_process, libc::O_RDONLY, 0)
            && super::fstat(file.raw()).is_ok_and(|status| status.st_size != 0)
        {
            return Ok(file);
        }
        match open(of_thread, libc::O_RDONLY, 0) {
            Err(Errno(libc::ENOENT)) => {}
            other => return other,
        }
    }
    open(of_process, libc::O_RDONLY, 0)
}

/// Calls `memfd_create(2)` with the flags that the kernel knows: those of Linux before 6.3
/// once it has refused the newer one.
pub fn memfd_create(name: &CStr) -> Result<Fd> {
    static KNOWS_MFD_EXEC: AtomicBool = AtomicBool::new(true);
    let base = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    let create = |flags: u32| {
        // SAFETY: the name is a valid C string for the duration of the call.
        unsafe { raw!(libc::SYS_memfd_create, name.as_ptr(), flags) }
    };
    // MFD_EXEC keeps working where sysctl vm.memfd_noexec is 1. Relaxed: a thread that does not
    // know yet makes one call more.
    let newer = if KNOWS_MFD_EXEC.load(Ordering::Relaxed) { libc::MFD_EXEC } else { 0 };
    let fd = match create(base | newer) {
        Err(Errno(libc::EINVAL)) if newer != 0 => {
            let fd = create(base)?;
            KNOWS_MFD_EXEC.store(false, Ordering::Relaxed);
            fd
        }
        other => other?,
    };
    Fd(fd as c_int).above_stderr()
}

/// Calls `pread(2)` into `buffer`; returns the number of bytes read.
pub fn pread(fd: &Fd, buffer: &mut [u8], offset: u64) -> Result<usize> {
    let (pointer, len) = (buffer.as_mut_ptr(), buffer.len());
    // SAFETY: the kernel writes at most `len` bytes into the live buffer.
    unsafe { raw!(libc::SYS_pread64, fd.raw(), pointer, len, offset) }
}

/// Calls `read(2)` into `buffer`; returns the number of bytes read.
pub fn read(fd: &Fd, buffer: &mut [u8]) -> Result<usize> {
    let (pointer, len) = (buffer.as_mut_ptr(), buffer.len());
    // SAFETY: the kernel writes at most `len` bytes into the live buffer.
    unsafe { raw!(libc::SYS_read, fd.raw(), pointer, len) }
}

/// Fills `buffer` from `offset` on as far as the file reaches; returns the part that is filled.
pub fn pread_all<'a>(fd: &Fd, buffer: &'a mut [u8], offset: u64) -> Result<&'a [u8]> {
    let mut done = 0;
    while done < buffer.len() {
        match pread(fd, buffer.get_mut(done..).unwrap_or_default(), offset + done as u64)? {
            0 => break,
            len => done += len,
        }
    }
    Ok(buffer.get(..done).unwrap_or_default())
}

/// Calls `write(2)` with `bytes`, once.
pub fn write(fd: c_int, bytes: &[u8]) -> Result<usize> {
    // SAFETY: the kernel only reads the live slice.
    unsafe { raw!(libc::SYS_write, fd, bytes.as_ptr(), bytes.len()) }
}

/// Calls `write(2)` directly from the address range `[address, address + len)`, which need not
/// be readable, as for [`pwrite_from`].
pub fn write_from(fd: &Fd, address: usize, len: usize) -> Result<usize> {
    // SAFETY: the kernel only reads the range, and checks every page of it.
    unsafe { raw!(libc::SYS_write, fd.raw(), address as *const c_void, len) }
}

/// Returns `RLIMIT_FSIZE` of this process: a write beyond it raises SIGXFSZ.
pub fn file_size_limit() -> Result<u64> {
    let mut limit = [0_u64; 2];
    let none = core::ptr::null::<c_void>();
    // SAFETY: the kernel writes two words, and `limit` is a live local of that size.
    unsafe { raw!(libc::SYS_prlimit64, 0, libc::RLIMIT_FSIZE, none, limit.as_mut_ptr()) }?;
    let [soft, _] = limit;
    Ok(soft)
}

/// Calls `pwrite(2)` directly from the address range `[address, address + len)`, which need not
/// be readable: the kernel answers `EFAULT` or a short count.
pub fn pwrite_from(fd: &Fd, address: usize, len: usize, offset: u64) -> Result<usize> {
    // SAFETY: the kernel only reads the range, and checks every page of it.
    unsafe { raw!(libc::SYS_pwrite64, fd.raw(), address as *const c_void, len, offset) }
}

/// Calls `sendfile(2)`: the kernel copies at most `len` bytes of `from`, from `offset` on, to the
/// position of `to`, which it moves.
pub fn sendfile(to: &Fd, from: &Fd, offset: u64, len: usize) -> Result<usize> {
    let mut offset = offset;
    // SAFETY: the kernel reads and writes the offset, which is a live local, and touches no other memory
    // of this process.
    unsafe { raw!(libc::SYS_sendfile, to.raw(), from.raw(), &raw mut offset, len) }
}

/// Calls `fchmod(2)`.
pub fn fchmod(fd: &Fd, mode: u32) -> Result<()> {
    // SAFETY: the call takes a descriptor and integers, and touches no memory of this process.
    unsafe { raw!(libc::SYS_fchmod, fd.raw(), mode) }.map(drop)
}

/// Calls `fsync(2)`, which for a directory writes the names in it.
pub fn fsync(fd: &Fd) -> Result<()> {
    // SAFETY: the call takes a descriptor and integers, and touches no memory of this process.
    unsafe { raw!(libc::SYS_fsync, fd.raw()) }.map(drop)
}

/// Calls `fdatasync(2)`.
pub fn fdatasync(fd: &Fd) -> Result<()> {
    // SAFETY: the call takes a descriptor and integers, and touches no memory of this process.
    unsafe { raw!(libc::SYS_fdatasync, fd.raw()) }.map(drop)
}

/// Calls `flock(2)`.
pub fn flock(fd: &Fd, operation: c_int) -> Result<()> {
    // SAFETY: the call takes a descriptor and integers, and touches no memory of this process.
    unsafe { raw!(libc::SYS_flock, fd.raw(), operation) }.map(drop)
}

/// `_IOW(0x94, 9, int)`
pub(super) const FICLONE: u64 = 0x4004_9409;

/// Makes `to` share the blocks of `from` (`ioctl_ficlone(2)`).
pub fn clone_file(from: &Fd, to: &Fd) -> Result<()> {
    // SAFETY: the argument of FICLONE is a descriptor.
    unsafe { raw!(libc::SYS_ioctl, to.raw(), FICLONE, from.raw()) }.map(drop)
}

/// `_IOWR('f', 11, struct fiemap)`
pub(super) const FS_IOC_FIEMAP: u64 = 0xc020_660b;

/// The kernel's `struct fiemap_extent` (include/uapi/linux/fiemap.h).
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Extent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved: [u64; 2],
    flags: u32,
    reserved_flags: [u32; 3],
}

/// The kernel's `struct fiemap`, with room for some extents.
#[repr(C)]
#[derive(Default)]
struct ExtentMap {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    room: u32,
    reserved: u32,
    extents: [Extent; 32],
}

/// Writes the dirty pages of a file back and waits for them, without flushing the disk's cache.
/// `FIEMAP_FLAG_SYNC` does that first (`filemap_write_and_wait`, fs/ioctl.c). An overlay passes
/// it to the file below, even where it is mounted volatile and ignores other requests to
/// synchronise.
pub fn write_back(fd: &Fd) -> Result<()> {
    const FIEMAP_FLAG_SYNC: u32 = 1;
    // Without room for extents none are listed.
    let mut map = ExtentMap { length: u64::MAX, flags: FIEMAP_FLAG_SYNC, ..ExtentMap::default() };
    // SAFETY: the kernel reads and writes the header of the live struct.
    let synchronised = unsafe { raw!(libc::SYS_ioctl, fd.raw(), FS_IOC_FIEMAP, &raw mut map) };
    match synchronised.map(drop).or_else(|_| fdatasync(fd)) {
        // A file system that has nothing to synchronise (squashfs).
        Err(Errno(libc::EINVAL | libc::EROFS)) => Ok(()),
        other => other,
    }
}

/// Returns the number of bytes of an open file whose blocks other files share; an error where
/// the file system does not report that.
pub fn shared_bytes(fd: c_int) -> Result<u64> {
    const LAST: u32 = 1;
    const SHARED: u32 = 0x2000;
    let (mut shared, mut start) = (0, 0);
    loop {
        let mut map = ExtentMap { start, length: u64::MAX - start, ..ExtentMap::default() };
        map.room = map.extents.len() as u32;
        // SAFETY: the kernel reads the header and fills at most `room` extents
        // of the live struct.
        unsafe { raw!(libc::SYS_ioctl, fd, FS_IOC_FIEMAP, &raw mut map) }?;
        let found = map.extents.get(..map.mapped as usize).unwrap_or_default();
        shared += found.iter().filter(|extent| extent.flags & SHARED != 0).map(|extent| extent.length).sum::<u64>();
        match found.last() {
            Some(last) if last.flags & LAST == 0 => start = last.logical + last.length,
            _ => return Ok(shared),
        }
    }
}

/// Sets the access time of an open file to now, and nothing else.
pub fn touch(fd: &Fd) -> Result<()> {
    set_times(fd, libc::UTIME_NOW, libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT })
}

/// Sets the modification time of an open file, and nothing else.
pub fn set_modified(fd: &Fd, modified: libc::timespec) -> Result<()> {
    set_times(fd, libc::UTIME_OMIT, modified)
}

/// Sets the access time of an open file to now, and its modification time.
pub fn touch_and_set_modified(fd: &Fd, modified: libc::timespec) -> Result<()> {
    set_times(fd, libc::UTIME_NOW, modified)
}

fn set_times(fd: &Fd, accessed: i64, modified: libc::timespec) -> Result<()> {
    let accessed = libc::timespec { tv_sec: 0, tv_nsec: accessed };
    let (times, no_path) = ([accessed, modified], core::ptr::null::<c_void>());
    // SAFETY: the kernel reads two timespecs, which are live locals; a null path makes it use
    // the descriptor.
    unsafe { raw!(libc::SYS_utimensat, fd.raw(), no_path, times.as_ptr(), 0) }.map(drop)
}

/// `F_SETSIG` of `fcntl(2)`.
pub(super) const F_SETSIG: c_int = 10;

/// `O_LARGEFILE` of the kernel, which open(2) sets for every program of 64 bits. That of the C library is 0.
pub const LARGE_FILE: c_int = if cfg!(target_arch = "aarch64") { 0o400_000 } else { 0o100_000 };

/// Returns with which flags a descriptor's file was opened (`F_GETFL` of `fcntl(2)`). No file system is asked.
pub fn open_flags(fd: c_int) -> Result<c_int> {
    fcntl(fd, libc::F_GETFL, 0).map(|flags| flags as c_int)
}

/// Calls `fcntl(2)` with an integer argument.
pub fn fcntl(fd: c_int, command: c_int, argument: c_int) -> Result<usize> {
    // SAFETY: commands with an integer argument touch no memory of this process.
    unsafe { raw!(libc::SYS_fcntl, fd, command, argument) }
}

/// Returns whether any process has the file open for writing or in a shared writable mapping:
/// then the kernel refuses a read lease (`F_SETLEASE` of `fcntl(2)`). It fails if that cannot
/// be determined; only the file's owner and a process with CAP_LEASE can request a lease.
pub fn has_writer(fd: &Fd) -> Result<bool> {
    // The lease is released at once. If a process opens the file for writing in between, the
    // kernel sends this process a signal, so it must be one whose default action is to be
    // ignored.
    fcntl(fd.raw(), F_SETSIG, libc::SIGURG)?;
    match fcntl(fd.raw(), libc::F_SETLEASE, libc::F_RDLCK) {
        Ok(_) => {
            let words = [fd.raw(), libc::F_SETLEASE, libc::F_UNLCK].map(super::Argument::word);
            // SAFETY: the call takes a descriptor and integers, and touches no memory.
            unsafe { super::call_ungated(libc::SYS_fcntl, super::padded(words)) }.map(|_| false)
        }
        Err(Errno(libc::EAGAIN)) => Ok(true),
        Err(errno) => Err(errno),
    }
}

/// Calls `poll(2)` on one descriptor without waiting; returns the events that hold.
pub fn poll_now(fd: c_int, events: i16) -> Result<i16> {
    let mut entry = libc::pollfd { fd, events, revents: 0 };
    let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let no_mask = core::ptr::null::<c_void>();
    // SAFETY: the pollfd and the timespec are live locals, and no signal mask is passed.
    unsafe { raw!(libc::SYS_ppoll, &raw mut entry, 1, &raw const zero, no_mask, 8) }?;
    Ok(entry.revents)
}

/// Calls `ioctl(2)` with a pointer to `argument`.
///
/// # Safety
/// `T` must be the type that `request` reads and writes. Where `argument` holds addresses that
/// the request writes to, they must be those of writable memory that nothing else uses.
pub unsafe fn ioctl<T>(fd: &Fd, request: u64, argument: &mut T) -> Result<usize> {
    // SAFETY: the reference is exclusive and points to the type that the request uses, and
    // addresses in it are writable: this function's contract.
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

    #[test]
    #[cfg_attr(miri, ignore = "makes a ring")]
    fn a_ring_is_no_file_that_was_opened() {
        let flags = |fd: &Fd| open_flags(fd.raw()).unwrap() & (libc::O_ACCMODE | LARGE_FILE);
        let file = open(c"/dev/null", libc::O_RDWR, 0).unwrap();
        assert_eq!(flags(&file), libc::O_RDWR | LARGE_FILE);
        assert_eq!(flags(&file.above_stderr().unwrap()), libc::O_RDWR | LARGE_FILE);
        let mut parameters = [0_u32; 30];
        // SAFETY: the kernel writes to a `struct io_uring_params`, which has 120 bytes.
        let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) };
        // The kernel may have none, or refuse it.
        if ring >= 0 {
            let ring = Fd::from_raw(ring as c_int);
            assert_eq!(flags(&ring), libc::O_RDWR);
            // F_SETFL changes neither.
            fcntl(ring.raw(), libc::F_SETFL, LARGE_FILE | libc::O_WRONLY | libc::O_NONBLOCK).unwrap();
            assert_eq!(flags(&ring), libc::O_RDWR);
        }
    }
}

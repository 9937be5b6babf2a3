//! Raw system calls, each returning the kernel's error instead of setting it.
//!
//! They go through `syscall(2)` and not through the C library's functions of
//! the same name, because those may be interposed by the host (a sanitizer, a
//! memory profiler, a `fakechroot`) and must not be entered from inside the
//! loader. Wrappers that cannot break memory safety are safe functions; those
//! that map, unmap or write through an address are `unsafe`.

use core::ffi::{CStr, c_int, c_long, c_void};
use core::fmt;

/// An error number as in `errno(3)`, never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

/// `(number, symbol, text)` of the errors that the calls used here can give
/// (their man pages, section 2, plus what seccomp filters commonly inject).
const NAMES: &[(i32, &str, &str)] = &[
    (libc::EPERM, "EPERM", "Operation not permitted"),
    (libc::ENOENT, "ENOENT", "No such file or directory"),
    (libc::ESRCH, "ESRCH", "No such process"),
    (libc::EINTR, "EINTR", "Interrupted system call"),
    (libc::EIO, "EIO", "Input/output error"),
    (libc::ENXIO, "ENXIO", "No such device or address"),
    (libc::EBADF, "EBADF", "Bad file descriptor"),
    (libc::EAGAIN, "EAGAIN", "Resource temporarily unavailable"),
    (libc::ENOMEM, "ENOMEM", "Cannot allocate memory"),
    (libc::EACCES, "EACCES", "Permission denied"),
    (libc::EFAULT, "EFAULT", "Bad address"),
    (libc::EBUSY, "EBUSY", "Device or resource busy"),
    (libc::EEXIST, "EEXIST", "File exists"),
    (libc::ENODEV, "ENODEV", "No such device"),
    (libc::ENOTDIR, "ENOTDIR", "Not a directory"),
    (libc::EISDIR, "EISDIR", "Is a directory"),
    (libc::EINVAL, "EINVAL", "Invalid argument"),
    (libc::ENFILE, "ENFILE", "Too many open files in system"),
    (libc::EMFILE, "EMFILE", "Too many open files"),
    (libc::ENOTTY, "ENOTTY", "Inappropriate ioctl for device"),
    (libc::ETXTBSY, "ETXTBSY", "Text file busy"),
    (libc::EFBIG, "EFBIG", "File too large"),
    (libc::ENOSPC, "ENOSPC", "No space left on device"),
    (libc::EROFS, "EROFS", "Read-only file system"),
    (libc::EPIPE, "EPIPE", "Broken pipe"),
    (libc::ENAMETOOLONG, "ENAMETOOLONG", "File name too long"),
    (libc::ENOSYS, "ENOSYS", "Function not implemented"),
    (libc::ELOOP, "ELOOP", "Too many levels of symbolic links"),
    (libc::EOVERFLOW, "EOVERFLOW", "Value too large for defined data type"),
    (libc::EOPNOTSUPP, "EOPNOTSUPP", "Operation not supported"),
    (libc::EDQUOT, "EDQUOT", "Disk quota exceeded"),
];

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(number, ..)| *number == self.0) {
            Some((_, symbol, text)) => write!(f, "{symbol} ({text})"),
            None => write!(f, "errno {}", self.0),
        }
    }
}

/// Result of a system call.
pub type Result<T> = core::result::Result<T, Errno>;

/// The thread's `errno`, to be put back by [`set_errno`] before the host sees it.
pub fn errno() -> i32 {
    // SAFETY: __errno_location returns the calling thread's own errno, valid
    // for the life of the thread.
    unsafe { *libc::__errno_location() }
}

/// Sets the thread's `errno`.
pub fn set_errno(value: i32) {
    // SAFETY: as in `errno`.
    unsafe { *libc::__errno_location() = value }
}

/// An argument of a system call. `syscall(2)` is variadic and takes words: an
/// `int` would leave the upper half of its word to chance.
trait Word {
    fn word(self) -> usize;
}

macro_rules! integer_words {
    ($($integer:ty),*) => {$(
        impl Word for $integer {
            #[expect(clippy::allow_attributes, reason = "which casts lose a sign depends on the type")]
            #[allow(clippy::cast_sign_loss)]
            fn word(self) -> usize {
                self as usize
            }
        }
    )*};
}
integer_words!(i32, u32, i64, u64, usize);

impl<T> Word for *const T {
    fn word(self) -> usize {
        self.expose_provenance()
    }
}

impl<T> Word for *mut T {
    fn word(self) -> usize {
        self.expose_provenance()
    }
}

/// Makes a system call with the arguments widened to words.
macro_rules! raw {
    ($number:expr $(, $argument:expr)* $(,)?) => {{
        let value: c_long = libc::syscall($number $(, Word::word($argument))*);
        if value == -1 { Err(Errno(errno())) } else { Ok(value.cast_unsigned() as usize) }
    }};
}

/// Size of a page in bytes.
pub fn page_size() -> usize {
    // SAFETY: getauxval only reads the process's auxiliary vector.
    match unsafe { libc::getauxval(libc::AT_PAGESZ) } as usize {
        0 => 4096,
        size => size,
    }
}

/// Whether the program runs with more privileges than its caller
/// (`AT_SECURE`, see `getauxval(3)`): then the environment is not to be trusted.
pub fn is_secure_execution() -> bool {
    // SAFETY: getauxval only reads the process's auxiliary vector.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// A descriptor that is closed when dropped.
#[derive(Debug)]
pub struct Fd(c_int);

impl Fd {
    /// The number, for calls that want one.
    pub fn raw(&self) -> c_int {
        self.0
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: the descriptor is owned by this value. An error of close
        // leaves nothing to do: Linux frees the number in any case.
        let _ = unsafe { raw!(libc::SYS_close, self.0) };
    }
}

/// `open(2)`; `O_CLOEXEC` is always added.
pub fn open(path: &CStr, flags: c_int, mode: u32) -> Result<Fd> {
    let flags = flags | libc::O_CLOEXEC;
    // SAFETY: the path is a valid C string for the duration of the call.
    let fd = unsafe { raw!(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, mode) }?;
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
    // SAFETY: an all-zero `stat` is a valid value of that C struct.
    let mut status: libc::stat = unsafe { core::mem::zeroed() };
    let (path, flags) = (path.as_ptr(), 0);
    // SAFETY: path and struct are live for the duration of the call.
    unsafe { raw!(libc::SYS_newfstatat, libc::AT_FDCWD, path, &raw mut status, flags) }?;
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

/// The calling process's id, from the kernel (no cache, right after `clone`).
pub fn getpid() -> i32 {
    // SAFETY: getpid has no arguments and cannot fail.
    unsafe { libc::syscall(libc::SYS_getpid) as i32 }
}

/// The calling thread's id.
pub fn gettid() -> i32 {
    // SAFETY: gettid has no arguments and cannot fail.
    unsafe { libc::syscall(libc::SYS_gettid) as i32 }
}

/// Sleeps for at most `nanoseconds`; returns early on a signal.
pub fn nap(nanoseconds: i64) {
    let time = libc::timespec { tv_sec: 0, tv_nsec: nanoseconds };
    let none = core::ptr::null::<c_void>();
    // SAFETY: a live timespec; the remaining time is not asked for.
    let _ = unsafe { raw!(libc::SYS_nanosleep, &raw const time, none) };
}

/// Monotonic time in nanoseconds.
pub fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // The C library's function, unlike its neighbours here: it reads the vDSO
    // and is not interposed in a way that could re-enter the loader.
    // SAFETY: the call fills the live timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// `ioctl(2)` whose argument points to `argument`.
///
/// # Safety
/// `T` must be the type that `request` reads and writes.
pub unsafe fn ioctl<T>(fd: &Fd, request: u64, argument: &mut T) -> Result<usize> {
    // SAFETY: the pointer is live and, per the caller, of the right type.
    unsafe { raw!(libc::SYS_ioctl, fd.raw(), request, &raw mut *argument) }
}

/// Copies `len` bytes from any address of process `pid` to `to` with
/// `process_vm_readv(2)`; the number of bytes copied. A page that cannot be
/// read gives `EFAULT` or a short count, never a signal.
///
/// # Safety
/// `[to, to + len)` must be writable memory of the caller that nothing else uses.
pub unsafe fn copy_process_memory(pid: i32, to: *mut u8, from: usize, len: usize) -> Result<usize> {
    let local = libc::iovec { iov_base: to.cast(), iov_len: len };
    let remote = libc::iovec { iov_base: from as *mut c_void, iov_len: len };
    let (local, remote) = (&raw const local, &raw const remote);
    // SAFETY: two live iovecs; the kernel writes only to the caller's buffer.
    unsafe { raw!(libc::SYS_process_vm_readv, pid, local, 1, remote, 1, 0) }
}

/// `mmap(2)`; the address.
///
/// # Safety
/// With `MAP_FIXED`, replacing `[address, address + len)` must be sound.
pub unsafe fn mmap(
    address: usize,
    len: usize,
    protection: c_int,
    flags: c_int,
    file: Option<(&Fd, u64)>,
) -> Result<usize> {
    let (fd, offset) = file.map_or((-1, 0), |(fd, offset)| (fd.raw(), offset));
    // SAFETY: per the caller.
    unsafe { raw!(libc::SYS_mmap, address, len, protection, flags, fd, offset) }
}

/// `munmap(2)`.
///
/// # Safety
/// Nothing may use the range afterwards.
pub unsafe fn munmap(address: usize, len: usize) -> Result<()> {
    // SAFETY: per the caller.
    unsafe { raw!(libc::SYS_munmap, address, len) }.map(drop)
}

/// `mprotect(2)`.
///
/// # Safety
/// No reference may rely on an access that the new protection forbids.
pub unsafe fn mprotect(address: usize, len: usize, protection: c_int) -> Result<()> {
    // SAFETY: per the caller.
    unsafe { raw!(libc::SYS_mprotect, address, len, protection) }.map(drop)
}

/// `mremap(2)` that moves `[from, from + len)` over `[to, to + len)`.
///
/// # Safety
/// The source must be unused, and replacing the target must be sound.
pub unsafe fn mremap_onto(from: usize, len: usize, to: usize) -> Result<()> {
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: per the caller.
    unsafe { raw!(libc::SYS_mremap, from, len, len, flags, to) }.map(drop)
}

/// `mremap(2)` that grows `[from, from + old)` to `new` bytes; the new address.
///
/// # Safety
/// Nothing may use the old address afterwards.
pub unsafe fn mremap_grow(from: usize, old: usize, new: usize) -> Result<usize> {
    let flags = libc::MREMAP_MAYMOVE;
    // SAFETY: per the caller.
    unsafe { raw!(libc::SYS_mremap, from, old, new, flags) }
}

/// All signals of the calling thread blocked, including the C library's own
/// (32 and 33), until dropped. The kernel's mask is 64 bits.
pub struct SignalsBlocked(u64);

impl SignalsBlocked {
    /// Blocks. If the kernel refuses (only a seccomp filter can), nothing is
    /// blocked and nothing will be restored.
    pub fn new() -> Result<Self> {
        let (all, mut old) = (u64::MAX, 0_u64);
        let how = libc::SIG_BLOCK;
        // SAFETY: two live 8-byte masks, as the size argument says.
        unsafe { raw!(libc::SYS_rt_sigprocmask, how, &raw const all, &raw mut old, 8) }?;
        Ok(Self(old))
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        let none = core::ptr::null::<c_void>();
        let how = libc::SIG_SETMASK;
        // SAFETY: one live 8-byte mask; the old one is not asked for.
        let _ = unsafe { raw!(libc::SYS_rt_sigprocmask, how, &raw const self.0, none, 8) };
    }
}

/// Takes a pending signal `number` off the calling thread, if there is one.
pub fn discard_pending_signal(number: c_int) {
    let mask = 1_u64 << (number - 1);
    let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let none = core::ptr::null::<c_void>();
    let (mask, zero) = (&raw const mask, &raw const zero);
    // SAFETY: a live 8-byte mask and timespec; no siginfo is asked for.
    let _ = unsafe { raw!(libc::SYS_rt_sigtimedwait, mask, none, zero, 8) };
}

/// Whether signal `number` is pending for the calling thread.
pub fn is_signal_pending(number: c_int) -> bool {
    let mut pending = 0_u64;
    // SAFETY: one live 8-byte mask.
    let asked = unsafe { raw!(libc::SYS_rt_sigpending, &raw mut pending, 8) };
    asked.is_ok() && pending & (1 << (number - 1)) != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn errors_have_names() {
        assert_eq!(Errno(libc::ENOMEM).to_string(), "ENOMEM (Cannot allocate memory)");
        assert_eq!(Errno(9999).to_string(), "errno 9999");
    }

    #[test]
    fn names_agree_with_the_c_library() {
        for (number, _, text) in NAMES {
            // SAFETY: strerror returns a string that stays valid until the
            // next call in this thread.
            let theirs = unsafe { CStr::from_ptr(libc::strerror(*number)) };
            assert_eq!(theirs.to_str(), Ok(*text));
        }
    }

    #[test]
    fn reading_unmapped_memory_is_an_error_not_a_signal() {
        let mut byte = 0;
        // SAFETY: the target is a live local.
        let read = unsafe { copy_process_memory(getpid(), &raw mut byte, 8, 1) };
        assert_eq!(read, Err(Errno(libc::EFAULT)));
    }

    #[test]
    fn writing_from_unmapped_memory_is_an_error() {
        let fd = memfd_create(c"test").unwrap();
        assert_eq!(pwrite_from(&fd, 8, 1, 0), Err(Errno(libc::EFAULT)));
    }
}

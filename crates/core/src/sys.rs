//! Raw system calls, each returning the kernel's error instead of setting it.
//!
//! They are made here ([`call_ungated`]) and not by the C library's functions of
//! the same name, because those may be interposed by the host (a sanitizer, a
//! memory profiler, a `fakechroot`) and must not be entered from inside the
//! loader. Wrappers that cannot break memory safety are safe functions; those
//! that map, unmap or write through an address are `unsafe`.

use core::ffi::{c_long, c_void};
use core::fmt;
use core::num::NonZero;

mod clock;
mod directories;
mod file_systems;
mod files;
pub mod gate;
mod helper;
mod identity;
mod inode_details;
#[cfg(miri)]
mod interpreted;
mod kept;
#[cfg(not(miri))]
mod kernel_entry;
mod mapping;
mod registered_rings;
mod signals;
mod sole_user;
mod status;
pub mod tracing;

#[cfg(miri)]
pub use interpreted::call_ungated;
#[cfg(not(miri))]
pub use kernel_entry::call_ungated;

pub use clock::*;
pub use directories::*;
pub use file_systems::*;
pub use files::*;
pub use helper::*;
pub use identity::*;
pub use inode_details::*;
pub use kept::*;
pub use mapping::*;
pub use registered_rings::*;
pub use signals::*;
pub use sole_user::*;
pub use status::*;

/// An error number as in `errno(3)`, never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

/// The number, and the symbol with a text, of the errors that the calls used here can give
/// (their man pages, section 2, plus what seccomp filters commonly inject). Each pointer
/// here is one that the loader relocates in every process.
const NAMES: &[(i32, &str)] = &[
    (libc::EPERM, "EPERM (Operation not permitted)"),
    (libc::ENOENT, "ENOENT (No such file or directory)"),
    (libc::ESRCH, "ESRCH (No such process)"),
    (libc::EINTR, "EINTR (Interrupted system call)"),
    (libc::EIO, "EIO (Input/output error)"),
    (libc::ENXIO, "ENXIO (No such device or address)"),
    (libc::EBADF, "EBADF (Bad file descriptor)"),
    (libc::EAGAIN, "EAGAIN (Resource temporarily unavailable)"),
    (libc::ENOMEM, "ENOMEM (Cannot allocate memory)"),
    (libc::EACCES, "EACCES (Permission denied)"),
    (libc::EFAULT, "EFAULT (Bad address)"),
    (libc::EBUSY, "EBUSY (Device or resource busy)"),
    (libc::EEXIST, "EEXIST (File exists)"),
    (libc::EXDEV, "EXDEV (Invalid cross-device link)"),
    (libc::ENODEV, "ENODEV (No such device)"),
    (libc::ENOTDIR, "ENOTDIR (Not a directory)"),
    (libc::EISDIR, "EISDIR (Is a directory)"),
    (libc::EINVAL, "EINVAL (Invalid argument)"),
    (libc::ENFILE, "ENFILE (Too many open files in system)"),
    (libc::EMFILE, "EMFILE (Too many open files)"),
    (libc::ENOTTY, "ENOTTY (Inappropriate ioctl for device)"),
    (libc::ETXTBSY, "ETXTBSY (Text file busy)"),
    (libc::EFBIG, "EFBIG (File too large)"),
    (libc::ENOSPC, "ENOSPC (No space left on device)"),
    (libc::EROFS, "EROFS (Read-only file system)"),
    (libc::ESPIPE, "ESPIPE (Illegal seek)"),
    (libc::EMLINK, "EMLINK (Too many links)"),
    (libc::EPIPE, "EPIPE (Broken pipe)"),
    (libc::EDEADLK, "EDEADLK (Resource deadlock avoided)"),
    (libc::ENAMETOOLONG, "ENAMETOOLONG (File name too long)"),
    (libc::ENOLCK, "ENOLCK (No locks available)"),
    (libc::ENOTEMPTY, "ENOTEMPTY (Directory not empty)"),
    (libc::ENOSYS, "ENOSYS (Function not implemented)"),
    (libc::ELOOP, "ELOOP (Too many levels of symbolic links)"),
    (libc::EOVERFLOW, "EOVERFLOW (Value too large for defined data type)"),
    (libc::EDESTADDRREQ, "EDESTADDRREQ (Destination address required)"),
    (libc::EOPNOTSUPP, "EOPNOTSUPP (Operation not supported)"),
    (libc::EDQUOT, "EDQUOT (Disk quota exceeded)"),
];

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == gate::NOT_MADE {
            return f.write_str("not done, since a seccomp filter may kill for it");
        }
        match NAMES.iter().find(|(number, _)| *number == self.0) {
            Some((_, text)) => f.write_str(text),
            None => write!(f, "errno {}", self.0),
        }
    }
}

/// Result of a system call.
pub type Result<T> = core::result::Result<T, Errno>;

/// Returns the thread's `errno`. The caller restores it with [`set_errno`] before the host can
/// see a change.
pub fn errno() -> i32 {
    // SAFETY: __errno_location returns the calling thread's own errno, valid
    // for the life of the thread.
    unsafe { *libc::__errno_location() }
}

/// Returns a number that identifies the calling thread, without a system call: the address of
/// its `errno`, which no two threads share.
pub fn thread_identity() -> usize {
    // SAFETY: __errno_location has no preconditions, and this function only takes the address.
    unsafe { libc::__errno_location() }.addr()
}

/// Sets the thread's `errno`.
pub fn set_errno(value: i32) {
    // SAFETY: __errno_location returns the calling thread's own errno, to which no other thread
    // writes.
    unsafe { *libc::__errno_location() = value }
}

/// An argument of a system call, as the register that it is passed in.
trait Argument {
    fn word(self) -> usize;
}

macro_rules! integer_words {
    ($($integer:ty),*) => {$(
        impl Argument for $integer {
            #[expect(clippy::allow_attributes, reason = "which casts lose a sign depends on the type")]
            #[allow(clippy::cast_sign_loss)]
            fn word(self) -> usize {
                self as usize
            }
        }
    )*};
}
integer_words!(i32, u32, i64, u64, usize);

impl<T> Argument for *const T {
    fn word(self) -> usize {
        self.expose_provenance()
    }
}

impl<T> Argument for *mut T {
    fn word(self) -> usize {
        self.expose_provenance()
    }
}

/// Makes a system call with the arguments widened to words.
macro_rules! raw {
    ($number:expr $(, $argument:expr)* $(,)?) => {
        $crate::sys::call($number, $crate::sys::padded([$($crate::sys::Argument::word($argument)),*]))
    };
}
use raw;

/// Returns the arguments of a call with zeros behind them. The kernel does not look at more
/// arguments than the call has.
fn padded<const N: usize>(arguments: [usize; N]) -> [usize; 6] {
    core::array::from_fn(|index| arguments.get(index).copied().unwrap_or_default())
}

/// Makes a system call, unless the [`gate`] is closed to it.
///
/// # Safety
/// The arguments must satisfy the contract of [`call_ungated`] for this number.
unsafe fn call(number: c_long, arguments: [usize; 6]) -> Result<usize> {
    if !gate::passes(number, &arguments) {
        return Err(gate::NOT_MADE);
    }
    // SAFETY: the arguments are sound for this call: this function's contract.
    unsafe { call_ungated(number, arguments) }
}

/// Returns the size of a page in bytes.
pub fn page_size() -> usize {
    page_divisor().get()
}

/// Returns the size of a page in bytes as a divisor, which the compiler knows not to be 0.
pub fn page_divisor() -> NonZero<usize> {
    const USUAL: NonZero<usize> = NonZero::new(4096).unwrap();
    // x86-64 has no other size.
    if cfg!(any(miri, target_arch = "x86_64")) {
        return USUAL;
    }
    // SAFETY: getauxval only reads the process's auxiliary vector.
    NonZero::new(unsafe { libc::getauxval(libc::AT_PAGESZ) } as usize).unwrap_or(USUAL)
}

/// Returns an address in the topmost page of the main thread's stack, where the kernel
/// has put the program's name; 0 if unknown.
pub fn stack_top() -> usize {
    // SAFETY: getauxval only reads the process's auxiliary vector.
    unsafe { libc::getauxval(libc::AT_EXECFN) as usize }
}

/// Returns the address of the executable's program headers; 0 if it is unknown.
pub fn executable_headers() -> usize {
    // SAFETY: getauxval only reads the process's auxiliary vector.
    unsafe { libc::getauxval(libc::AT_PHDR) as usize }
}

/// Returns the number of the executable's program headers; 0 if it is unknown.
pub fn executable_header_count() -> usize {
    // SAFETY: getauxval only reads the process's auxiliary vector.
    unsafe { libc::getauxval(libc::AT_PHNUM) as usize }
}

/// Returns the load bias of the interpreter that the kernel has mapped for the executable; 0
/// without one, as when the interpreter was started as a program.
pub fn interpreter_base() -> usize {
    // SAFETY: getauxval only reads the process's auxiliary vector.
    unsafe { libc::getauxval(libc::AT_BASE) as usize }
}

/// Returns the address at which the kernel has mapped the vDSO; 0 without one.
pub fn vdso_address() -> usize {
    // SAFETY: getauxval only reads the process's auxiliary vector.
    unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) as usize }
}

/// Returns whether the program runs with more privileges than its caller (`AT_SECURE`, see
/// `getauxval(3)`): then the library must not trust the environment.
pub fn is_secure_execution() -> bool {
    // SAFETY: getauxval only reads the process's auxiliary vector.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Returns the calling process's id, from the kernel (no cache, right after `clone`).
pub fn getpid() -> i32 {
    // SAFETY: getpid has no arguments.
    let id = unsafe { raw!(libc::SYS_getpid) };
    // The call cannot fail by itself. If a seccomp filter refuses it, the C library's function
    // answers.
    id.map_or(-1, |id| id as i32)
}

/// Returns the calling thread's id.
pub fn gettid() -> i32 {
    // SAFETY: gettid has no arguments.
    let id = unsafe { raw!(libc::SYS_gettid) };
    id.map_or(-1, |id| id as i32)
}

/// The ids of a thread and its process, as system calls use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadIds {
    /// The process's id.
    pub process: i32,
    /// The thread's id.
    pub thread: i32,
}

impl ThreadIds {
    /// Asks the kernel for the ids of the calling thread.
    pub fn ask() -> Self {
        Self { process: getpid(), thread: gettid() }
    }

    /// Returns whether the thread is the first one of its process.
    pub const fn is_main_thread(self) -> bool {
        self.process == self.thread
    }
}

/// Sleeps for at most `nanoseconds`; returns early on a signal. It calls `futex(2)`, which
/// every filter permits under which threads can wait for the loader's lock.
pub fn nap(nanoseconds: i64) {
    let time = libc::timespec { tv_sec: 0, tv_nsec: nanoseconds };
    let (word, operation) = (0_u32, libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG);
    let none = core::ptr::null::<c_void>();
    // SAFETY: the kernel only reads the word and the timespec, which are live locals.
    let _ = unsafe { raw!(libc::SYS_futex, &raw const word, operation, 0, &raw const time, none, 0) };
}

/// Returns whether the word at `address` can be read. It calls `futex(2)`, which fails with
/// EFAULT where the word cannot be read, and which the loader calls too.
pub fn is_readable(address: usize) -> bool {
    let time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let (word, operation) = (address & !3, libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG);
    let none = core::ptr::null::<c_void>();
    // SAFETY: the kernel checks the address and only reads the word; the timespec is a live
    // local.
    let waited = unsafe { raw!(libc::SYS_futex, word, operation, 0, &raw const time, none, 0) };
    waited != Err(Errno(libc::EFAULT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::ffi::CStr;
    use std::string::ToString;

    #[test]
    #[cfg_attr(miri, ignore = "asks the kernel")]
    fn unmapped_memory_cannot_be_read() {
        let zero = 0_u32;
        assert!(is_readable((&raw const zero).addr()) && is_readable(NAMES.as_ptr().addr()));
        assert!(!is_readable(8));
    }

    #[test]
    fn errors_have_names() {
        assert_eq!(Errno(libc::ENOMEM).to_string(), "ENOMEM (Cannot allocate memory)");
        assert_eq!(Errno(9999).to_string(), "errno 9999");
    }

    #[test]
    #[cfg_attr(miri, ignore = "calls strerror(3)")]
    fn names_agree_with_the_c_library() {
        for (number, text) in NAMES {
            // SAFETY: strerror returns a string that stays valid until the
            // next call in this thread.
            let theirs = unsafe { CStr::from_ptr(libc::strerror(*number)) };
            assert!(text.ends_with(&std::format!(" ({})", theirs.to_str().unwrap())), "{text}");
        }
    }
}

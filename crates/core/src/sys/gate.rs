//! Which system calls the library makes under a seccomp filter.
//!
//! A filter can kill the process for a call (`SECCOMP_RET_KILL_PROCESS` of `seccomp(2)`, which
//! systemd's `SystemCallFilter=` uses), and no system call shows beforehand whether it would.
//! So once [`close`] was called, the library makes a call only if the dynamic loader makes it
//! too whenever it loads an object, or if its kind was passed to `close`. Any other call fails
//! with [`NOT_MADE`], as it would under a filter that returns an error.
//!
//! Filters check the number, and some check an argument that selects what the call does. A
//! *kind* is a number with such an argument.

use core::ffi::{c_int, c_long};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::Errno;

/// Error of a call that was not made because the filter in force may kill the process for it.
/// No call of this crate returns this error otherwise.
pub const NOT_MADE: Errno = Errno(libc::ECANCELED);

/// A set of kinds of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kinds(u64);

impl Kinds {
    /// The empty set.
    pub const NONE: Self = Self(0);
    /// What a filter permits that was in force when the program was started. The loader has
    /// read at an offset and determined a limit by then, so those calls pass. Writing and
    /// opening a file for writing are assumed to pass, without proof: nearly every program
    /// writes, and a filter that checks how files are opened usually raises a signal, whose
    /// handler cannot survive the exec.
    pub const AT_STARTUP: Self = Self(0b11110);
    /// The set of all kinds.
    pub const ALL: Self = Self((1 << KINDS.len()) - 1);

    /// The number of kinds.
    pub const COUNT: usize = KINDS.len();

    /// The kind of blocking signals, which is the first.
    pub const BLOCKING_SIGNALS: usize = 0;
    /// The kind of waiting for a child.
    pub const WAITING: usize = 5;

    /// Returns this set with the kind of this number added.
    #[must_use]
    pub const fn with(self, index: usize) -> Self {
        Self(self.0 | 1 << index)
    }

    /// Returns whether the kind of this number is in the set.
    pub const fn has(self, index: usize) -> bool {
        self.0 & 1 << index != 0
    }
}

/// A kind of call, with arguments that have no effect.
struct CallKind {
    number: c_long,
    /// The index of an argument and the value that it must have.
    selector: Option<(usize, usize)>,
    harmless: [usize; 6],
}

const fn kind(number: c_long, harmless: [usize; 6]) -> CallKind {
    CallKind { number, selector: None, harmless }
}

/// Returns a call on a descriptor, whose second argument says what is done.
const fn request(number: c_long, request: usize) -> CallKind {
    CallKind { number, selector: Some((1, request)), harmless: [BAD, request, 0, 0, 0, 0] }
}

/// A number that is neither a descriptor nor an address.
const BAD: usize = usize::MAX;
/// A process id that no process has: `i32::MIN`. Calls that look for the process fail with ESRCH.
const NOBODY: usize = 1 << 31;
/// Every kind of call of this crate that the loader does not make for every object. The
/// harmless arguments are bad descriptors and addresses, so that a call has no effect on any
/// kernel.
const KINDS: [CallKind; 62] = [
    kind(libc::SYS_rt_sigprocmask, [libc::SIG_BLOCK as usize, 0, 0, 8, 0, 0]),
    kind(libc::SYS_pread64, [BAD, 0, 0, 0, 0, 0]),
    kind(libc::SYS_write, [BAD, 0, 0, 0, 0, 0]),
    kind(libc::SYS_openat, [BAD, 0, libc::O_RDWR as usize, 0, 0, 0]),
    kind(libc::SYS_prlimit64, [0, libc::RLIMIT_FSIZE as usize, 0, 0, 0, 0]),
    kind(libc::SYS_wait4, [NOBODY, 0, libc::WNOHANG as usize, 0, 0, 0]),
    kind(libc::SYS_getpid, [0; 6]),
    kind(libc::SYS_gettid, [0; 6]),
    kind(libc::SYS_clock_gettime, [BAD, 0, 0, 0, 0, 0]),
    kind(libc::SYS_process_vm_readv, [0, 0, 0, 0, 0, 0]),
    kind(libc::SYS_mremap, [1, 0, 0, 0, 0, 0]),
    kind(libc::SYS_memfd_create, [0; 6]),
    kind(libc::SYS_pwrite64, [BAD, 0, 0, 0, 0, 0]),
    kind(libc::SYS_sendfile, [BAD, BAD, 0, 0, 0, 0]),
    request(libc::SYS_fcntl, libc::F_ADD_SEALS as usize),
    request(libc::SYS_fcntl, libc::F_DUPFD_CLOEXEC as usize),
    request(libc::SYS_fcntl, super::F_SETSIG as usize),
    request(libc::SYS_fcntl, libc::F_SETLEASE as usize),
    kind(libc::SYS_ftruncate, [BAD, 0, 0, 0, 0, 0]),
    kind(libc::SYS_fstat, [BAD, 0, 0, 0, 0, 0]),
    kind(libc::SYS_newfstatat, [BAD, 0, 0, 0, 0, 0]),
    kind(libc::SYS_statx, [BAD, 0, 0, 0, 0, 0]),
    kind(libc::SYS_fstatfs, [BAD, 0, 0, 0, 0, 0]),
    kind(libc::SYS_flistxattr, [BAD, 0, 0, 0, 0, 0]),
    kind(libc::SYS_name_to_handle_at, [BAD, 0, 0, 0, BAD, 0]),
    kind(libc::SYS_flock, [BAD, libc::LOCK_SH as usize, 0, 0, 0, 0]),
    kind(libc::SYS_fsync, [BAD, 0, 0, 0, 0, 0]),
    kind(libc::SYS_fdatasync, [BAD, 0, 0, 0, 0, 0]),
    kind(libc::SYS_fchmod, [BAD, 0, 0, 0, 0, 0]),
    kind(libc::SYS_mkdirat, [BAD, 0, 0, 0, 0, 0]),
    kind(libc::SYS_unlinkat, [BAD, 0, 0, 0, 0, 0]),
    kind(libc::SYS_linkat, [BAD, 0, BAD, 0, 0, 0]),
    kind(libc::SYS_symlinkat, [0, BAD, 0, 0, 0, 0]),
    kind(libc::SYS_readlinkat, [BAD, 0, 0, 0, 0, 0]),
    kind(libc::SYS_getdents64, [BAD, 0, 0, 0, 0, 0]),
    kind(libc::SYS_lseek, [BAD, 0, 0, 0, 0, 0]),
    kind(libc::SYS_utimensat, [BAD, 0, 0, 0, 0, 0]),
    kind(libc::SYS_ppoll, [0, 1, 0, 0, 0, 0]),
    kind(libc::SYS_rt_sigpending, [0, 8, 0, 0, 0, 0]),
    kind(libc::SYS_rt_sigtimedwait, [0, 0, 0, 8, 0, 0]),
    kind(libc::SYS_getresuid, [0; 6]),
    kind(libc::SYS_getresgid, [0; 6]),
    kind(libc::SYS_capget, [0; 6]),
    kind(libc::SYS_prctl, [libc::PR_GET_DUMPABLE as usize, 0, 0, 0, 0, 0]),
    request(libc::SYS_ioctl, super::PROCMAP_QUERY as usize),
    request(libc::SYS_ioctl, super::FS_IOC_FIEMAP as usize),
    request(libc::SYS_ioctl, super::FICLONE as usize),
    request(libc::SYS_ioctl, super::FS_IOC_GETFLAGS as usize),
    request(libc::SYS_ioctl, super::FS_IOC_ENABLE_VERITY as usize),
    // What may be permitted depends on the flags, so this is tried by a helper that only ends.
    kind(libc::SYS_clone, [0; 6]),
    kind(libc::SYS_ptrace, [super::tracing::SEIZE as usize, NOBODY, 0, 0, 0, 0]),
    kind(libc::SYS_kcmp, [NOBODY, NOBODY, super::tracing::KCMP_VM as usize, 0, 0, 0]),
    kind(libc::SYS_rt_sigaction, [BAD, 0, 0, 8, 0, 0]),
    kind(libc::SYS_setitimer, [BAD, BAD, 0, 0, 0, 0]),
    kind(libc::SYS_getpriority, [BAD, 0, 0, 0, 0, 0]),
    kind(libc::SYS_setpriority, [BAD, 0, 0, 0, 0, 0]),
    kind(libc::SYS_sched_getscheduler, [BAD, 0, 0, 0, 0, 0]),
    kind(libc::SYS_sched_setscheduler, [BAD, 0, BAD, 0, 0, 0]),
    CallKind {
        number: libc::SYS_madvise,
        selector: Some((2, super::POPULATE_WRITE)),
        harmless: [BAD, 0, super::POPULATE_WRITE, 0, 0, 0],
    },
    // Filters distinguish this call from those that make namespaces. It changes nothing, wherever it is made.
    CallKind {
        number: libc::SYS_unshare,
        selector: Some((0, super::MEMORY)),
        harmless: [super::MEMORY, 0, 0, 0, 0, 0],
    },
    request(libc::SYS_fcntl, libc::F_GETFL as usize),
    kind(libc::SYS_io_uring_enter, [BAD, 0, 0, 0, 0, 0]),
];

#[unsafe(link_section = ".data.sopin")]
static IS_CLOSED: AtomicBool = AtomicBool::new(false);
static PASSING: KnownKinds = KnownKinds::new(Kinds::ALL);

/// A set of kinds that threads share.
pub struct KnownKinds(AtomicU64);

impl KnownKinds {
    /// Makes a shared set with these kinds.
    pub const fn new(kinds: Kinds) -> Self {
        Self(AtomicU64::new(kinds.0))
    }

    /// Returns the set.
    pub fn get(&self) -> Kinds {
        Kinds(self.0.load(Ordering::Relaxed))
    }

    /// Replaces it.
    pub fn set(&self, kinds: Kinds) {
        self.0.store(kinds.0, Ordering::Relaxed);
    }
}

/// Closes the gate: from now on the library makes only calls that the loader makes whenever it
/// loads an object, and those of the kinds `passing`.
pub fn close(passing: Kinds) {
    PASSING.set(passing);
    IS_CLOSED.store(passing != Kinds::ALL, Ordering::Release);
}

/// Returns whether the gate is closed.
pub fn is_closed() -> bool {
    IS_CLOSED.load(Ordering::Relaxed)
}

/// Returns whether the gate passes a call.
pub fn passes(number: c_long, arguments: &[usize]) -> bool {
    if !IS_CLOSED.load(Ordering::Acquire) {
        return true;
    }
    let passing = PASSING.get();
    is_loaders(number, arguments)
        || KINDS.iter().position(|kind| kind.is(number, arguments)).is_some_and(|index| passing.has(index))
}

/// Returns whether the gate passes all calls of this number, whatever their arguments.
pub fn passes_number(number: c_long) -> bool {
    passes(number, &[])
}

/// Makes a call without effect of the kind with this number, and returns whether the kernel
/// accepts it: a filter may refuse it, and so may an old kernel.
pub fn try_kind(index: usize) -> bool {
    let Some(CallKind { number, harmless, .. }) = KINDS.get(index) else { return false };
    if *number == libc::SYS_clone {
        return super::try_helper();
    }
    // SAFETY: the descriptors and addresses are invalid and the lengths are 0, so the kernel
    // writes to no memory.
    let result = unsafe { super::call_ungated(*number, *harmless) };
    !matches!(result, Err(Errno(libc::EPERM | libc::EACCES | libc::ENOSYS)))
}

impl CallKind {
    fn is(&self, number: c_long, arguments: &[usize]) -> bool {
        self.number == number
            && self.selector.is_none_or(|(index, value)| arguments.get(index).is_some_and(|given| *given == value))
    }
}

/// Returns whether the loader makes this call whenever it loads an object, or when it waits for
/// its lock.
fn is_loaders(number: c_long, arguments: &[usize]) -> bool {
    match number {
        libc::SYS_read | libc::SYS_close | libc::SYS_mmap | libc::SYS_munmap | libc::SYS_mprotect | libc::SYS_futex => {
            true
        }
        libc::SYS_openat => {
            let changes = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | (libc::O_TMPFILE & !libc::O_DIRECTORY);
            arguments.get(2).is_some_and(|flags| *flags as c_int & changes == libc::O_RDONLY)
        }
        number => number == super::fstat_number(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn the_calls_of_the_loader_always_pass() {
        let open = |flags: c_int| is_loaders(libc::SYS_openat, &[BAD, 0, flags.cast_unsigned() as usize, 0]);
        assert!(open(libc::O_RDONLY | libc::O_CLOEXEC) && open(libc::O_RDONLY | libc::O_DIRECTORY));
        assert!(!open(libc::O_RDWR) && !open(libc::O_WRONLY | libc::O_APPEND));
        assert!(!open(libc::O_TMPFILE | libc::O_RDONLY) && !open(libc::O_CREAT) && !open(libc::O_TRUNC));
        assert!(is_loaders(super::super::fstat_number(), &[]));
        assert!(!is_loaders(libc::SYS_pread64, &[]) && !is_loaders(libc::SYS_mremap, &[]));
    }

    #[test]
    fn numbers_of_kinds_are_right() {
        let numbers = [(Kinds::BLOCKING_SIGNALS, libc::SYS_rt_sigprocmask), (Kinds::WAITING, libc::SYS_wait4)];
        assert!(numbers.into_iter().all(|(index, number)| KINDS[index].number == number));
        let at_startup: Vec<_> = (0..Kinds::COUNT).filter(|index| Kinds::AT_STARTUP.has(*index)).collect();
        let known = [libc::SYS_pread64, libc::SYS_write, libc::SYS_openat, libc::SYS_prlimit64];
        assert!(at_startup.iter().map(|index| KINDS[*index].number).eq(known));
    }

    #[test]
    fn each_request_is_a_separate_kind() {
        let index_of = |number, arguments: &[usize]| KINDS.iter().position(|kind| kind.is(number, arguments));
        let query = index_of(libc::SYS_ioctl, &[3, super::super::PROCMAP_QUERY as usize, 0]);
        assert!(query.is_some() && query != index_of(libc::SYS_ioctl, &[3, super::super::FICLONE as usize, 0]));
        assert_eq!(index_of(libc::SYS_ioctl, &[3, 0x5401, 0]), None);
        assert_eq!(index_of(libc::SYS_reboot, &[]), None);
    }

    #[test]
    #[cfg_attr(miri, ignore = "makes the calls")]
    fn harmless_calls_are_not_refused() {
        for index in 0..Kinds::COUNT {
            assert!(try_kind(index), "{index}");
        }
    }
}

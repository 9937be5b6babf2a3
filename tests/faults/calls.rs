//! The system calls that the library makes, and the errors that their manual pages list
//! (man-pages 6.0, section 2).

#[allow(clippy::wildcard_imports, reason = "a table of constants")]
use libc::*;

/// A system call.
#[derive(Debug)]
pub struct Call {
    /// Its name in the manual.
    pub name: &'static str,
    pub number: c_long,
    /// Its possible errors. The list is empty if its page says that it always succeeds.
    pub errors: &'static [i32],
}

const fn call(name: &'static str, number: c_long, errors: &'static [i32]) -> Call {
    Call { name, number, errors }
}

/// Every call that the library may make. Any other call fails the tests, because it
/// needs its errors here.
pub const ALL: &[Call] = &[
    call("capget", SYS_capget, &[EFAULT, EINVAL, EPERM, ESRCH]),
    call("clock_gettime", SYS_clock_gettime, &[EFAULT, EINVAL, ENODEV, EOPNOTSUPP]),
    // The library makes this call only under a filter, where a child finds out which
    // calls the filter allows.
    call("clone", SYS_clone, &[EAGAIN, ENOMEM]),
    call("close", SYS_close, &[EBADF, EINTR, EIO, ENOSPC, EDQUOT]),
    call(
        "copy_file_range",
        SYS_copy_file_range,
        &[EBADF, EFBIG, EINVAL, EIO, EISDIR, ENOMEM, ENOSPC, EOPNOTSUPP, EOVERFLOW, EPERM, ETXTBSY, EXDEV],
    ),
    call("exit_group", SYS_exit_group, &[]),
    call(
        "fchmod",
        SYS_fchmod,
        &[EBADF, EIO, EPERM, EROFS, EACCES, EFAULT, ELOOP, ENAMETOOLONG, ENOENT, ENOMEM, ENOTDIR],
    ),
    call(
        "fcntl",
        SYS_fcntl,
        &[EACCES, EAGAIN, EBADF, EBUSY, EDEADLK, EFAULT, EINTR, EINVAL, EMFILE, ENOLCK, ENOTDIR, EPERM],
    ),
    call("fdatasync", SYS_fdatasync, &[EBADF, EDQUOT, EINTR, EINVAL, EIO, ENOSPC, EROFS]),
    call("flock", SYS_flock, &[EBADF, EINTR, EINVAL, ENOLCK, EWOULDBLOCK]),
    call("fstat", SYS_fstat, &[EBADF, EFAULT, ENOMEM, EOVERFLOW]),
    call("flistxattr", SYS_flistxattr, &[EBADF, EFAULT, EOPNOTSUPP, ERANGE]),
    call("fstatfs", SYS_fstatfs, &[EBADF, EFAULT, EINTR, EIO, ENOMEM, ENOSYS, EOVERFLOW]),
    call("fsync", SYS_fsync, &[EBADF, EDQUOT, EINTR, EINVAL, EIO, ENOSPC, EROFS]),
    call("ftruncate", SYS_ftruncate, &[EBADF, EFBIG, EINTR, EINVAL, EIO, EPERM, ETXTBSY]),
    call("futex", SYS_futex, &[EACCES, EAGAIN, EFAULT, EINTR, EINVAL, ENFILE, ENOSYS, ETIMEDOUT]),
    call("getdents64", SYS_getdents64, &[EBADF, EFAULT, EINVAL, ENOENT, ENOTDIR]),
    call("getpid", SYS_getpid, &[]),
    call("getresgid", SYS_getresgid, &[EFAULT]),
    call("getresuid", SYS_getresuid, &[EFAULT]),
    call("gettid", SYS_gettid, &[]),
    // io_uring_enter(2) of liburing. For EBADF and EINVAL no ring is registered.
    call(
        "io_uring_enter",
        SYS_io_uring_enter,
        &[EAGAIN, EBADF, EBADFD, EBADR, EBUSY, EEXIST, EFAULT, EINTR, EINVAL, ENXIO, EOPNOTSUPP],
    ),
    // The errors are those of ioctl(2), of ioctl_ficlone(2), and of
    // FS_IOC_ENABLE_VERITY (Documentation/filesystems/fsverity.rst). ENOENT of
    // PROCMAP_QUERY is missing, because it is a result and not an error: the address is
    // not mapped.
    call(
        "ioctl",
        SYS_ioctl,
        &[
            EACCES, EBADF, EBUSY, EEXIST, EFAULT, EFBIG, EINTR, EINVAL, EIO, EISDIR, ENOTTY, EOPNOTSUPP, EPERM, EROFS,
            ETXTBSY, EXDEV,
        ],
    ),
    call(
        "linkat",
        SYS_linkat,
        &[
            EACCES,
            EBADF,
            EDQUOT,
            EEXIST,
            EFAULT,
            EINVAL,
            EIO,
            ELOOP,
            EMLINK,
            ENAMETOOLONG,
            ENOENT,
            ENOMEM,
            ENOSPC,
            ENOTDIR,
            EPERM,
            EROFS,
            EXDEV,
        ],
    ),
    call("lseek", SYS_lseek, &[EBADF, EINVAL, ENXIO, EOVERFLOW, ESPIPE]),
    call("madvise", SYS_madvise, &[EACCES, EAGAIN, EBADF, EFAULT, EHWPOISON, EINVAL, EIO, ENOMEM, EPERM]),
    call("memfd_create", SYS_memfd_create, &[EFAULT, EINVAL, EMFILE, ENFILE, ENOMEM, EPERM]),
    call(
        "mkdirat",
        SYS_mkdirat,
        &[
            EACCES,
            EBADF,
            EDQUOT,
            EEXIST,
            EFAULT,
            EINVAL,
            ELOOP,
            EMLINK,
            ENAMETOOLONG,
            ENOENT,
            ENOMEM,
            ENOSPC,
            ENOTDIR,
            EPERM,
            EROFS,
        ],
    ),
    call("mmap", SYS_mmap, &[EACCES, EAGAIN, EBADF, EEXIST, EINVAL, ENFILE, ENODEV, ENOMEM, EOVERFLOW, EPERM, ETXTBSY]),
    call("mprotect", SYS_mprotect, &[EACCES, EINVAL, ENOMEM]),
    call("mremap", SYS_mremap, &[EAGAIN, EFAULT, EINVAL, ENOMEM]),
    call("munmap", SYS_munmap, &[EINVAL, ENOMEM]),
    call("name_to_handle_at", SYS_name_to_handle_at, &[EBADF, EFAULT, EINVAL, ENOENT, ENOTDIR, EOPNOTSUPP, EOVERFLOW]),
    call(
        "newfstatat",
        SYS_newfstatat,
        &[EACCES, EBADF, EFAULT, EINVAL, ELOOP, ENAMETOOLONG, ENOENT, ENOMEM, ENOTDIR, EOVERFLOW],
    ),
    call(
        "openat",
        SYS_openat,
        &[
            EACCES,
            EBADF,
            EBUSY,
            EDQUOT,
            EEXIST,
            EFAULT,
            EFBIG,
            EINTR,
            EINVAL,
            EISDIR,
            ELOOP,
            EMFILE,
            ENAMETOOLONG,
            ENFILE,
            ENODEV,
            ENOENT,
            ENOMEM,
            ENOSPC,
            ENOTDIR,
            ENXIO,
            EOPNOTSUPP,
            EOVERFLOW,
            EPERM,
            EROFS,
            ETXTBSY,
            EWOULDBLOCK,
        ],
    ),
    call("ppoll", SYS_ppoll, &[EFAULT, EINTR, EINVAL, ENOMEM]),
    call("prctl", SYS_prctl, &[EACCES, EBADF, EBUSY, EFAULT, EINVAL, ENODEV, ENXIO, EOPNOTSUPP, EPERM]),
    call("pread64", SYS_pread64, &[EAGAIN, EBADF, EFAULT, EINTR, EINVAL, EIO, EISDIR, ENXIO, EOVERFLOW, ESPIPE]),
    call("prlimit64", SYS_prlimit64, &[EFAULT, EINVAL, EPERM, ESRCH]),
    call("process_vm_readv", SYS_process_vm_readv, &[EFAULT, EINVAL, ENOMEM, EPERM, ESRCH]),
    call(
        "pwrite64",
        SYS_pwrite64,
        &[
            EAGAIN,
            EBADF,
            EDESTADDRREQ,
            EDQUOT,
            EFAULT,
            EFBIG,
            EINTR,
            EINVAL,
            EIO,
            ENOSPC,
            ENXIO,
            EOVERFLOW,
            EPERM,
            EPIPE,
            ESPIPE,
        ],
    ),
    call("read", SYS_read, &[EAGAIN, EBADF, EFAULT, EINTR, EINVAL, EIO, EISDIR]),
    call(
        "readlinkat",
        SYS_readlinkat,
        &[EACCES, EBADF, EFAULT, EINVAL, EIO, ELOOP, ENAMETOOLONG, ENOENT, ENOMEM, ENOTDIR],
    ),
    call("rt_sigpending", SYS_rt_sigpending, &[EFAULT]),
    call("rt_sigprocmask", SYS_rt_sigprocmask, &[EFAULT, EINVAL]),
    call("rt_sigtimedwait", SYS_rt_sigtimedwait, &[EAGAIN, EINTR, EINVAL]),
    call("sendfile", SYS_sendfile, &[EAGAIN, EBADF, EFAULT, EINVAL, EIO, ENOMEM, EOVERFLOW, ESPIPE]),
    call("statx", SYS_statx, &[EACCES, EBADF, EFAULT, EINVAL, ELOOP, ENAMETOOLONG, ENOENT, ENOMEM, ENOTDIR]),
    call(
        "symlinkat",
        SYS_symlinkat,
        &[
            EACCES,
            EBADF,
            EDQUOT,
            EEXIST,
            EFAULT,
            EINVAL,
            EIO,
            ELOOP,
            ENAMETOOLONG,
            ENOENT,
            ENOMEM,
            ENOSPC,
            ENOTDIR,
            EPERM,
            EROFS,
        ],
    ),
    call(
        "unlinkat",
        SYS_unlinkat,
        &[
            EACCES,
            EBADF,
            EBUSY,
            EFAULT,
            EINVAL,
            EIO,
            EISDIR,
            ELOOP,
            ENAMETOOLONG,
            ENOENT,
            ENOMEM,
            ENOTDIR,
            ENOTEMPTY,
            EPERM,
            EROFS,
        ],
    ),
    call("unshare", SYS_unshare, &[EINVAL, ENOMEM, ENOSPC, EPERM, EUSERS]),
    call(
        "utimensat",
        SYS_utimensat,
        &[EACCES, EBADF, EFAULT, EINVAL, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, EPERM, EROFS, ESRCH],
    ),
    call("wait4", SYS_wait4, &[ECHILD, EINTR, EINVAL, ESRCH]),
    call(
        "write",
        SYS_write,
        &[EAGAIN, EBADF, EDESTADDRREQ, EDQUOT, EFAULT, EFBIG, EINTR, EINVAL, EIO, ENOSPC, EPERM, EPIPE],
    ),
];

/// Returns the call with this number.
pub fn find(number: i64) -> Option<&'static Call> {
    ALL.iter().find(|call| call.number == number)
}

impl Call {
    /// Returns the name of the operation that a report contains for it.
    pub fn operation(&self) -> &'static str {
        match self.name {
            "openat" => "open",
            "newfstatat" | "fstat" => "stat",
            "pread64" => "read",
            "pwrite64" => "pwrite",
            name => name,
        }
    }
}

/// Returns the symbol of an error, as in `errno(3)`.
pub fn symbol(error: i32) -> &'static str {
    macro_rules! symbols {
        ($($name:ident)*) => {
            match error {
                $($name => stringify!($name),)*
                _ => "an unknown error",
            }
        };
    }
    symbols!(
        EACCES EAGAIN EBADF EBADFD EBADR EBUSY EDEADLK EDESTADDRREQ EDQUOT EEXIST EFAULT EFBIG EINTR EINVAL EIO EISDIR
        ELOOP EMFILE EMLINK ENAMETOOLONG ENFILE ENODEV ENOENT ENOLCK ENOMEM ENOSPC ENOSYS ENOTDIR ENOTEMPTY ENOTTY ENXIO
        EOPNOTSUPP EOVERFLOW EPERM EPIPE EROFS ESPIPE ESRCH ETXTBSY EXDEV
    )
}

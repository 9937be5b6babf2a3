//! Finds out whether a thread has an `io_uring(7)` of which `/proc` shows nothing.

use core::ffi::c_int;

use super::gate::NOT_MADE;
use super::{Errno, raw};

/// Returns whether an `io_uring(7)` is registered with the calling thread. Such a ring needs no descriptor
/// (`IORING_REGISTER_RING_FDS`, since Linux 5.18). With IORING_SETUP_REGISTERED_FD_ONLY, since Linux 6.5, it
/// never has one, and no mapping either: its queues are in memory of the program, which may be data of an object.
///
/// The kernel names the error for each index (`io_uring_enter` in io_uring/io_uring.c): EBADF if no ring has it;
/// EINVAL if the thread has used none, and if the kernel is older. Under a seccomp filter that may kill for the
/// call it is not made, and the result is false. It is so of a thread that may not make the call.
pub fn has_registered_ring() -> bool {
    /// `IORING_ENTER_REGISTERED_RING`
    const BY_INDEX: c_int = 1 << 4;
    /// `IO_RINGFD_REG_MAX`
    const MOST: c_int = 16;
    for index in 0..MOST {
        // SAFETY: the call submits nothing and waits for nothing, so the kernel uses no memory of this process.
        match unsafe { raw!(libc::SYS_io_uring_enter, index, 0, 0, BY_INDEX, 0, 0) } {
            Err(Errno(libc::EBADF)) => {}
            Err(NOT_MADE | Errno(libc::EINVAL | libc::ENOSYS | libc::EPERM | libc::EACCES)) => return false,
            Ok(_) | Err(_) => return true,
        }
    }
    false
}

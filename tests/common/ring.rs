//! A ring of `io_uring(7)` that a process inherits.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Words of `struct io_uring_params`.
const PARAMETERS: usize = 30;

/// Makes a ring that the process of `command` inherits, if it is started while the ring is open.
///
/// # Errors
/// Those of `io_uring_setup(2)`.
pub fn inherited_by(command: &mut Command) -> io::Result<OwnedFd> {
    let mut parameters = [0_u32; PARAMETERS];
    // SAFETY: the kernel reads and writes the 120 bytes of the structure, which are those of the
    // local variable.
    let number = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) };
    let number = i32::try_from(number).ok().filter(|number| *number >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just opened the descriptor, and nothing else knows its number.
    let ring = unsafe { OwnedFd::from_raw_fd(number) };
    let number = ring.as_raw_fd();
    let keep = move || {
        // SAFETY: fcntl with F_SETFD uses the numbers only.
        let kept = unsafe { libc::fcntl(number, libc::F_SETFD, 0) };
        if kept == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec the closure makes one system call.
    unsafe { command.pre_exec(keep) };
    Ok(ring)
}

//! System calls that a stop has interrupted. Most of them the kernel makes again by itself, with
//! what is left of a timeout. A few end with `EINTR` (`signal(7)`), although no signal was
//! delivered; those are made again here.

use crate::registers::{IO_PGETEVENTS, Registers};

const EINTR: i64 = -4;
/// `IORING_ENTER_EXT_ARG` of `linux/io_uring.h`: a structure that has a timeout.
const EXTENDED: u64 = 8;

/// A system call that the kernel ends with `EINTR` when the task is stopped, and does not make
/// again.
struct Interruptible {
    /// Its number.
    number: i64,
    /// Where its timeout is, if it has one.
    timeout: Timeout,
}

/// Where a system call has its timeout, and how the kernel writes an infinite one.
pub enum Timeout {
    /// It has none, or one that is a point in time.
    None,
    /// The argument of this number is milliseconds, infinite if negative.
    Milliseconds(usize),
    /// The argument of this number is a pointer, infinite if null.
    Pointer(usize),
    /// It has one if this bit of the argument of this number is set.
    Flag(usize, u64),
    /// It is an option of the socket, so it is finite if the call was interrupted.
    OfSocket,
}

/// The calls that the kernel does not make again by itself.
const INTERRUPTIBLE: &[Interruptible] = &[
    #[cfg(target_arch = "x86_64")]
    Interruptible { number: libc::SYS_epoll_wait, timeout: Timeout::Milliseconds(3) },
    Interruptible { number: libc::SYS_epoll_pwait, timeout: Timeout::Milliseconds(3) },
    Interruptible { number: libc::SYS_epoll_pwait2, timeout: Timeout::Pointer(3) },
    Interruptible { number: libc::SYS_rt_sigtimedwait, timeout: Timeout::Pointer(2) },
    Interruptible { number: libc::SYS_semop, timeout: Timeout::None },
    Interruptible { number: libc::SYS_semtimedop, timeout: Timeout::Pointer(3) },
    Interruptible { number: libc::SYS_io_uring_enter, timeout: Timeout::Flag(3, EXTENDED) },
    Interruptible { number: libc::SYS_io_getevents, timeout: Timeout::Pointer(4) },
    Interruptible { number: IO_PGETEVENTS, timeout: Timeout::Pointer(4) },
    Interruptible { number: libc::SYS_accept, timeout: Timeout::OfSocket },
    Interruptible { number: libc::SYS_accept4, timeout: Timeout::OfSocket },
    Interruptible { number: libc::SYS_connect, timeout: Timeout::OfSocket },
    Interruptible { number: libc::SYS_read, timeout: Timeout::OfSocket },
    Interruptible { number: libc::SYS_readv, timeout: Timeout::OfSocket },
    Interruptible { number: libc::SYS_recvfrom, timeout: Timeout::OfSocket },
    Interruptible { number: libc::SYS_recvmsg, timeout: Timeout::OfSocket },
    Interruptible { number: libc::SYS_recvmmsg, timeout: Timeout::OfSocket },
    Interruptible { number: libc::SYS_write, timeout: Timeout::OfSocket },
    Interruptible { number: libc::SYS_writev, timeout: Timeout::OfSocket },
    Interruptible { number: libc::SYS_sendto, timeout: Timeout::OfSocket },
    Interruptible { number: libc::SYS_sendmsg, timeout: Timeout::OfSocket },
    Interruptible { number: libc::SYS_sendmmsg, timeout: Timeout::OfSocket },
];

/// Returns where a system call has its timeout that the kernel does not make again.
pub fn timeout_of(number: i64) -> Option<&'static Timeout> {
    INTERRUPTIBLE.iter().find(|call| call.number == number).map(|call| &call.timeout)
}

/// What has become of an interrupted call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Nothing had to be done.
    None,
    /// It is made again.
    Again,
    /// It is made again, and its timeout begins anew.
    AgainWithTimeout,
}

/// Sets the registers of a task that has stopped such that it makes an interrupted system call
/// again, if the kernel does not. `has_signal`: a signal is waiting that the task does not block,
/// and that ends the call anyway.
pub fn repair(registers: &mut Registers, has_signal: impl FnOnce() -> bool) -> Repair {
    let Some(number) = registers.call() else { return Repair::None };
    let Some(call) = INTERRUPTIBLE.iter().find(|call| call.number == number) else { return Repair::None };
    if registers.result() != EINTR || has_signal() {
        return Repair::None;
    }
    let argument = |index| registers.argument(index);
    let has_timeout = match call.timeout {
        Timeout::None => false,
        // Negative: for ever. Zero never waits.
        Timeout::Milliseconds(index) => (argument(index) as u32).cast_signed() >= 0,
        Timeout::Pointer(index) => argument(index) != 0,
        Timeout::OfSocket => true,
        Timeout::Flag(index, bit) => argument(index) & bit != 0,
    };
    *registers = registers.calling_again();
    if has_timeout { Repair::AgainWithTimeout } else { Repair::Again }
}

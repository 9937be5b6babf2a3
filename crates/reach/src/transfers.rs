//! System calls that transfer data and that a stop may cut short: they return how much they have
//! transferred before (`signal(7)`). Nothing can make them go on, because the program would see
//! only the result of the last part.
//!
//! Before a stop it is only known that a task sleeps in such a call, not whether it has
//! transferred something. After the stop it is exact: the call has returned, and less than what
//! was requested, although the descriptor waits until everything is transferred. Only a signal, an
//! error or an end of the data at that very moment looks the same.

use rustix::net::sockopt;
use sopin_core::registers::Registers;

use crate::descriptor::{FileKind, TaskDescriptor};
use crate::memory::{word_at, words_at};
use crate::task::Task;

/// `PIPE_BUF`: a pipe takes so many bytes as a whole.
const WHOLE: u64 = 4096;
/// `MAX_RW_COUNT` of the kernel: no call transfers more.
const MOST: u64 = 0x7fff_f000;
/// `IOV_MAX`
const MOST_PARTS: u64 = 1024;

const MSG_DONTWAIT: u64 = libc::MSG_DONTWAIT as u64;
const MSG_WAITALL: u64 = libc::MSG_WAITALL as u64;
const MSG_WAITFORONE: u64 = libc::MSG_WAITFORONE as u64;

/// A system call that transfers data. The descriptor is its first argument.
struct Transfer {
    number: i64,
    amount: Amount,
    /// Which argument has the flags of a socket's call.
    flags: Option<usize>,
    direction: sockopt::Timeout,
}

/// The arguments of a system call, by their numbers, that contain the amount to transfer.
enum Amount {
    /// Bytes.
    Bytes(usize),
    /// Bytes of a file, of which there may be less; behind `in` and the pointer to the position.
    OfFile(usize),
    /// A pointer to parts, and how many.
    Parts(usize, usize),
    /// A pointer to a `struct msghdr`.
    Message(usize),
    /// A number of messages.
    Messages(usize),
}

use Amount::{Bytes, Message, Messages, OfFile, Parts};
use sockopt::Timeout::{Recv, Send};

const TRANSFERS: &[Transfer] = &[
    Transfer { number: libc::SYS_write, amount: Bytes(2), flags: None, direction: Send },
    Transfer { number: libc::SYS_writev, amount: Parts(1, 2), flags: None, direction: Send },
    Transfer { number: libc::SYS_sendto, amount: Bytes(2), flags: Some(3), direction: Send },
    Transfer { number: libc::SYS_sendmsg, amount: Message(1), flags: Some(2), direction: Send },
    Transfer { number: libc::SYS_sendmmsg, amount: Messages(2), flags: Some(3), direction: Send },
    Transfer { number: libc::SYS_sendfile, amount: OfFile(3), flags: None, direction: Send },
    Transfer { number: libc::SYS_recvfrom, amount: Bytes(2), flags: Some(3), direction: Recv },
    Transfer { number: libc::SYS_recvmsg, amount: Message(1), flags: Some(2), direction: Recv },
    Transfer { number: libc::SYS_recvmmsg, amount: Messages(2), flags: Some(3), direction: Recv },
];

/// Returns whether a task that sleeps in this system call may have transferred a part of what was
/// requested.
pub fn may_be_partial(process: u32, task: i32, number: i64, arguments: [u64; 6]) -> bool {
    let argument = |index: usize| arguments.get(index).copied().unwrap_or_default();
    wanted(process, task, number, argument).is_some_and(Wanted::is_divisible)
}

/// Returns whether the stop has ended a transfer of a task before it was complete.
pub fn is_cut_short(task: &Task, registers: &Registers) -> bool {
    let Some(done) = u64::try_from(registers.result()).ok().filter(|done| *done != 0) else { return false };
    let Some(number) = registers.call() else { return false };
    wanted(task.process, task.id, number, |index| registers.argument(index)).is_some_and(|wanted| wanted.exceeds(done))
}

/// Takes back what a transfer that was cut short has left behind: `recvmmsg(2)` notes the error
/// that has ended it (`do_recvmmsg` in net/socket.c), which here is one of the kernel's own, and the
/// next call on the socket would return it.
pub fn clean_up(task: &Task, registers: &Registers) {
    if registers.call() == Some(libc::SYS_recvmmsg) {
        TaskDescriptor::of(task.process, task.id, registers.argument(0)).take_error();
    }
}

/// The transfer that a system call completes before it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    amount: u64,
    kind: FileKind,
    /// The amount is a number of messages, not of bytes.
    is_messages: bool,
    /// For `sendfile`: what is left of the file.
    rest: Option<u64>,
}

impl Wanted {
    /// Returns whether a part may be transferred before the rest.
    fn is_divisible(self) -> bool {
        let whole = if self.kind == FileKind::Pipe && !self.is_messages { WHOLE } else { 1 };
        self.amount > whole && self.rest != Some(0)
    }

    /// Returns whether more was requested than this.
    fn exceeds(self, done: u64) -> bool {
        done < self.amount && self.rest != Some(0)
    }
}

/// Returns what a system call is to transfer; `None` if it returns with any part, or transfers
/// everything or nothing.
fn wanted(process: u32, task: i32, number: i64, argument: impl Fn(usize) -> u64) -> Option<Wanted> {
    let transfer = TRANSFERS.iter().find(|transfer| transfer.number == number)?;
    let flags = transfer.flags.map_or(0, &argument);
    let is_messages = matches!(transfer.amount, Messages(_));
    let waits_for_all = match (transfer.direction, is_messages) {
        (Send, _) => true,
        (Recv, true) => flags & MSG_WAITFORONE == 0,
        (Recv, false) => flags & MSG_WAITALL != 0,
    };
    let descriptor = TaskDescriptor::of(process, task, argument(0));
    if !waits_for_all || flags & MSG_DONTWAIT != 0 || !descriptor.waits()? {
        return None;
    }
    let kind = descriptor.kind()?;
    let is_stepwise = match kind {
        FileKind::Pipe | FileKind::Device => matches!(transfer.amount, Bytes(_) | Parts(..)),
        FileKind::StreamSocket => true,
        FileKind::MessageSocket => is_messages,
        FileKind::Other => false,
    };
    if !is_stepwise {
        return None;
    }
    // The thread's, because a first thread that has ended has no memory.
    let memory = task.cast_unsigned();
    let (amount, rest) = match transfer.amount {
        Bytes(index) => (argument(index), None),
        Messages(index) => (argument(index).min(MOST_PARTS), None),
        OfFile(index) => (argument(index), Some(rest_of_file(process, task, memory, &argument)?)),
        Parts(pointer, count) => (sum(memory, argument(pointer), argument(count))?, None),
        Message(index) => {
            // `msg_iov` and `msg_iovlen` of `struct msghdr`
            let header = words_at(memory, argument(index).checked_add(16)?, 2)?;
            (sum(memory, *header.first()?, *header.get(1)?)?, None)
        }
    };
    Some(Wanted { amount: amount.min(MOST), kind, is_messages, rest })
}

/// Returns how many bytes of its file a `sendfile` has not sent.
fn rest_of_file(process: u32, task: i32, memory: u32, argument: &impl Fn(usize) -> u64) -> Option<u64> {
    let file = TaskDescriptor::of(process, task, argument(1));
    match argument(2) {
        0 => file.rest(),
        pointer => Some(file.size()?.saturating_sub(word_at(memory, pointer)?)),
    }
}

/// Returns the sum of the lengths of parts (`struct iovec`).
fn sum(memory: u32, pointer: u64, count: u64) -> Option<u64> {
    let words = words_at(memory, pointer, 2 * usize::try_from(count.min(MOST_PARTS)).ok()?)?;
    Some(words.iter().skip(1).step_by(2).fold(0_u64, |sum, len| sum.saturating_add(*len)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    use std::os::fd::{AsRawFd, OwnedFd};

    /// Returns what a call with these arguments behind the descriptor is to transfer.
    fn of(number: i64, descriptor: &impl AsRawFd, rest: [u64; 3]) -> Option<Wanted> {
        let own = std::process::id();
        let descriptor = descriptor.as_raw_fd().cast_unsigned().into();
        let arguments = [descriptor, rest[0], rest[1], rest[2]];
        wanted(own, own.cast_signed(), number, |index| arguments[index])
    }

    fn sockets(kind: SocketType) -> (OwnedFd, OwnedFd) {
        rustix::net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap()
    }

    fn amount(wanted: Option<Wanted>) -> Option<u64> {
        wanted.map(|wanted| wanted.amount)
    }

    #[test]
    fn the_amount_is_found_wherever_a_call_has_it() {
        let (stream, _other) = sockets(SocketType::STREAM);
        let parts = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 70 }; 3];
        // SAFETY: all bytes zero are a valid `msghdr`.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        (header.msg_iov, header.msg_iovlen) = (parts.as_ptr().cast_mut(), 2);
        let (parts, header) = (parts.as_ptr().addr() as u64, (&raw const header).addr() as u64);
        assert_eq!(amount(of(libc::SYS_write, &stream, [0, 70, 0])), Some(70));
        assert_eq!(amount(of(libc::SYS_writev, &stream, [parts, 3, 0])), Some(210));
        assert_eq!(amount(of(libc::SYS_sendto, &stream, [0, 70, 0])), Some(70));
        assert_eq!(amount(of(libc::SYS_sendmsg, &stream, [header, 0, 0])), Some(140));
        assert_eq!(amount(of(libc::SYS_sendmmsg, &stream, [0, 7, 0])), Some(7));
        assert_eq!(amount(of(libc::SYS_recvfrom, &stream, [0, 70, MSG_WAITALL])), Some(70));
        assert_eq!(amount(of(libc::SYS_recvmsg, &stream, [header, MSG_WAITALL, 0])), Some(140));
        assert_eq!(amount(of(libc::SYS_recvmmsg, &stream, [0, 7, 0])), Some(7));
        assert_eq!(of(libc::SYS_writev, &stream, [8, 3, 0]), None, "no memory is there");
        assert_eq!(of(libc::SYS_getpid, &stream, [0, 70, 0]), None);
    }

    #[test]
    fn a_call_that_returns_with_any_part_is_never_cut_short() {
        let (stream, _other) = sockets(SocketType::STREAM);
        assert_eq!(of(libc::SYS_recvfrom, &stream, [0, 70, 0]), None);
        assert_eq!(of(libc::SYS_recvmmsg, &stream, [0, 7, MSG_WAITFORONE]), None);
        assert_eq!(of(libc::SYS_sendto, &stream, [0, 70, MSG_DONTWAIT]), None);
        assert_eq!(of(libc::SYS_read, &stream, [0, 70, 0]), None);
        rustix::io::ioctl_fionbio(&stream, true).unwrap();
        assert_eq!(of(libc::SYS_write, &stream, [0, 70, 0]), None);
    }

    #[test]
    fn what_is_transferred_as_a_whole_is_never_cut_short() {
        let (messages, _other) = sockets(SocketType::SEQPACKET);
        assert_eq!(of(libc::SYS_sendto, &messages, [0, 70, 0]), None);
        assert_eq!(amount(of(libc::SYS_sendmmsg, &messages, [0, 7, 0])), Some(7));
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert_eq!(of(libc::SYS_write, &file, [0, 70, 0]), None);
        let (_, pipe) = std::io::pipe().unwrap();
        let is_divisible = |len| of(libc::SYS_write, &pipe, [0, len, 0]).unwrap().is_divisible();
        assert_eq!((is_divisible(4096), is_divisible(4097)), (false, true));
    }

    #[test]
    fn a_file_that_is_sent_to_its_end_is_complete() {
        let (stream, _other) = sockets(SocketType::STREAM);
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let (number, size) = (file.as_raw_fd().cast_unsigned().into(), file.metadata().unwrap().len());
        let positions = [size - 1, size];
        let [before, end] = [&raw const positions[0], &raw const positions[1]].map(|position| position.addr() as u64);
        let sending = |pointer| of(libc::SYS_sendfile, &stream, [number, pointer, 1 << 40]).unwrap();
        for (pointer, rest) in [(0, size), (before, 1), (end, 0)] {
            assert_eq!((sending(pointer).amount, sending(pointer).rest), (MOST, Some(rest)));
            assert_eq!((sending(pointer).exceeds(5), sending(pointer).is_divisible()), (rest != 0, rest != 0));
        }
        assert!(!sending(0).exceeds(MOST));
    }
}

//! The system call that a task is in, as `/proc` shows it while the task sleeps.

use crate::line::Line;
use crate::sys;

/// A system call that a task is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CurrentCall {
    /// Its number.
    pub number: i64,
    /// Its arguments.
    pub arguments: [u64; 6],
    /// The stack pointer.
    pub stack: u64,
    /// The address of the instruction behind it.
    pub instruction: u64,
}

/// Bytes of the longest text: a number and eight words, each with `0x` and a space.
const TEXT: usize = 256;

impl CurrentCall {
    /// Reads the system call in which a task sleeps. `None` if the task is running.
    pub fn read(process: i32, task: i32) -> Option<Self> {
        let path = Line::<64>::format_raw(format_args!("/proc/{process}/task/{task}/syscall\0"));
        let file = sys::open(path.as_c_str(), libc::O_RDONLY, 0).ok()?;
        let mut buffer = [0; TEXT];
        Self::parse(core::str::from_utf8(sys::pread_all(&file, &mut buffer, 0).ok()?).ok()?)
    }

    /// Parses the number, the arguments, the stack pointer and the instruction; the text may be only
    /// "running".
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let number = words.next()?.parse().ok()?;
        let mut rest = words.map(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok());
        let mut next = || rest.next().flatten();
        let arguments = [next()?, next()?, next()?, next()?, next()?, next()?];
        Some(Self { number, arguments, stack: next()?, instruction: next()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    #[cfg_attr(miri, ignore = "reads /proc")]
    fn the_system_call_of_a_thread_is_read() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let (end, wait) = std::os::unix::net::UnixStream::pair().unwrap();
        let thread = std::thread::spawn(move || {
            sender.send(sys::gettid()).unwrap();
            std::io::Read::read(&mut &wait, &mut [0]).unwrap()
        });
        let (own, id) = (sys::getpid(), receiver.recv().unwrap());
        let deadline = Instant::now() + Duration::from_secs(20);
        let is_waiting = || CurrentCall::read(own, id).is_some_and(|call| call.number != libc::SYS_futex);
        while !is_waiting() && Instant::now() < deadline {
            std::thread::yield_now();
        }
        let call = CurrentCall::read(own, id).unwrap();
        assert!([libc::SYS_read, libc::SYS_recvfrom].contains(&call.number), "{call:?}");
        assert!(call.instruction > call.stack >> 40 && call.stack != 0);
        assert_eq!(call.arguments[2], 1, "the length");
        drop(end);
        assert_eq!(thread.join().unwrap(), 0);
    }
}

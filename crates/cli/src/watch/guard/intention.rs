//! Finds out what a process is about to do with a file that it opens. The permission event of the kernel does
//! not say whether the file is opened for writing. The process sleeps in the system call meanwhile, and
//! `/proc/PID/syscall` shows the call and its arguments.
//!
//! The same table serves programs of 32 bits: the numbers of their calls that open files are, for
//! programs of 64 bits, those of calls that open none.

use std::fs::File;
use std::os::unix::fs::FileExt;

use nix::libc;
use sopin_core::current_call::CurrentCall;

/// Numbers of the calls of 32-bit programs, which `libc` does not name in a program of 64 bits.
#[cfg(target_arch = "x86_64")]
mod compat {
    pub const OPEN: i64 = 5;
    pub const CREAT: i64 = 8;
    pub const EXECVE: i64 = 11;
    pub const OPENAT: i64 = 295;
    pub const OPEN_BY_HANDLE_AT: i64 = 342;
    pub const EXECVEAT: i64 = 358;
}
#[cfg(not(target_arch = "x86_64"))]
mod compat {
    pub const OPEN: i64 = 5;
    pub const CREAT: i64 = 8;
    pub const EXECVE: i64 = 11;
    pub const OPENAT: i64 = 322;
    pub const OPEN_BY_HANDLE_AT: i64 = 371;
    pub const EXECVEAT: i64 = 387;
}

/// The mark of a call of the x32 interface.
const X32: i64 = 0x4000_0000;

/// The use that a process is about to make of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intention {
    /// It only reads or executes it.
    Reads,
    /// It may write to it, or the call does not show that it does not.
    MayWrite,
    /// The flags are at this address of its memory.
    AtAddress(u64),
}

impl Intention {
    /// Finds out what a thread is about to do that waits for an answer; `None` if it does not sleep yet,
    /// because it has just asked, or waits for a processor. Reads only `/proc/TID`, which waits for nothing
    /// that the thread could hold.
    pub fn of(thread: i32) -> Option<Self> {
        if let Some(call) = CurrentCall::read(thread, thread) {
            return Some(Self::in_call(&call));
        }
        let text = std::fs::read(format!("/proc/{thread}/syscall"));
        // One that has gone to sleep since is seen the next time. One that has no number here is not seen.
        if text.is_ok_and(|text| !text.starts_with(b"-1")) { None } else { Some(Self::MayWrite) }
    }

    /// Reads what is at the address. The memory may be a file's whose server does not answer, so this may
    /// wait for ever.
    pub fn read(self, thread: i32) -> Self {
        let Self::AtAddress(address) = self else { return self };
        let mut word = [0; size_of::<u64>()];
        let memory = File::open(format!("/proc/{thread}/mem"));
        let read = memory.and_then(|memory| memory.read_exact_at(&mut word, address));
        read.map_or(Self::MayWrite, |()| Self::with_flags(u64::from_ne_bytes(word)))
    }

    fn in_call(call: &CurrentCall) -> Self {
        let [_, second, third, ..] = call.arguments;
        match call.number & !X32 {
            #[cfg(target_arch = "x86_64")]
            libc::SYS_open => Self::with_flags(second),
            compat::OPEN => Self::with_flags(second),
            libc::SYS_openat | libc::SYS_open_by_handle_at | compat::OPENAT | compat::OPEN_BY_HANDLE_AT => {
                Self::with_flags(third)
            }
            libc::SYS_openat2 => Self::AtAddress(third),
            libc::SYS_execve | libc::SYS_execveat | compat::EXECVE | compat::EXECVEAT => Self::Reads,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_creat => Self::MayWrite,
            compat::CREAT => Self::MayWrite,
            // io_uring, and whatever else opens files.
            _ => Self::MayWrite,
        }
    }

    /// The file of a call that is given O_RDONLY is emptied all the same with O_TRUNC.
    fn with_flags(flags: u64) -> Self {
        let writing = u64::from((libc::O_ACCMODE | libc::O_TRUNC).cast_unsigned());
        if flags & writing == 0 { Self::Reads } else { Self::MayWrite }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(number: i64, arguments: [u64; 3]) -> Intention {
        let [first, second, third] = arguments;
        let arguments = [first, second, third, 0, 0, 0];
        Intention::in_call(&CurrentCall { number, arguments, stack: 1, instruction: 2 })
    }

    fn bits(flags: i32) -> u64 {
        u64::from(flags.cast_unsigned())
    }

    #[test]
    fn the_flags_of_the_call_decide() {
        for (flags, intention) in [
            (libc::O_RDONLY | libc::O_CLOEXEC, Intention::Reads),
            (libc::O_RDONLY | libc::O_CREAT, Intention::Reads),
            (libc::O_RDONLY | libc::O_TRUNC, Intention::MayWrite),
            (libc::O_WRONLY, Intention::MayWrite),
            (libc::O_RDWR | libc::O_CLOEXEC, Intention::MayWrite),
        ] {
            assert_eq!(of(libc::SYS_openat, [0, u64::MAX, bits(flags)]), intention, "{flags:#x}");
            assert_eq!(of(libc::SYS_open_by_handle_at, [0, u64::MAX, bits(flags)]), intention, "{flags:#x}");
            assert_eq!(of(compat::OPEN, [u64::MAX, bits(flags), u64::MAX]), intention, "{flags:#x}");
            assert_eq!(of(compat::OPENAT, [0, u64::MAX, bits(flags)]), intention, "{flags:#x}");
        }
        #[cfg(target_arch = "x86_64")]
        {
            assert_eq!(of(libc::SYS_open | X32, [u64::MAX, 0, u64::MAX]), Intention::Reads);
            assert_eq!(of(libc::SYS_creat, [u64::MAX, 0, 0]), Intention::MayWrite);
        }
        assert_eq!(of(libc::SYS_openat2, [0, 1, 4096]), Intention::AtAddress(4096));
        assert_eq!(of(libc::SYS_execve, [u64::MAX; 3]), Intention::Reads);
        assert_eq!(of(libc::SYS_io_uring_enter, [0; 3]), Intention::MayWrite);
    }

    #[test]
    fn flags_in_memory_are_read() {
        let own = nix::unistd::gettid().as_raw();
        for (flags, intention) in [(libc::O_RDONLY, Intention::Reads), (libc::O_RDWR, Intention::MayWrite)] {
            let how = [bits(flags), 0, 0];
            let address = std::ptr::from_ref(&how).addr() as u64;
            assert_eq!(Intention::AtAddress(address).read(own), intention);
        }
        assert_eq!(Intention::AtAddress(8).read(own), Intention::MayWrite, "nothing is mapped there");
        assert_eq!(Intention::of(i32::MAX), Some(Intention::MayWrite));
        // The own call would be shown, although it does not sleep.
        let (sender, receiver) = std::sync::mpsc::channel();
        let is_running = std::sync::atomic::AtomicBool::new(true);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                sender.send(nix::unistd::gettid().as_raw()).unwrap();
                while is_running.load(std::sync::atomic::Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
            let thread = receiver.recv().unwrap();
            std::thread::sleep(std::time::Duration::from_millis(20));
            let intention = Intention::of(thread);
            is_running.store(false, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(intention, None, "it is running");
        });
    }
}

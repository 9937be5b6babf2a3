//! aarch64: when a task stops in an interrupted system call that the kernel makes again, the
//! kernel has already set the registers such that the task executes the `svc` again. Where the
//! kernel does not, `x0` is the result. The registers show neither in which call the task was nor
//! that it was in one, and the first argument is not among them; so these are read before the stop,
//! from `/proc/PID/task/TID/syscall`.
//!
//! Some calls the kernel makes again as `restart_syscall(2)`, which waits for what is left of their
//! timeout (arch/arm64/kernel/signal.c: `do_signal`). It sets that number only behind the stop, and only
//! if the task goes on from the same stop. A task that has made other calls since gets it from here.

use super::{read_general, write_general};
use crate::current_call::CurrentCall;
use crate::sys::tracing;
use crate::sys::{Errno, Result};
use crate::thread_status::ThreadStatus;

/// `svc #0; ret`
pub const CALL: &[u8] = &[0x01, 0, 0, 0xd4, 0xc0, 0x03, 0x5f, 0xd6];
/// `mov x8, #139; svc #0`: the return from a signal handler.
pub const RETURN_FROM_SIGNAL: &[&[u8]] = &[&[0x68, 0x11, 0x80, 0xd2, 0x01, 0, 0, 0xd4]];

/// The number of a system call that does not exist, and for which the kernel does nothing. For -1 it
/// would replace the first argument by a result, before the task stops at the entry of the call
/// (arch/arm64/kernel/syscall.c: `el0_svc_common`).
pub const NO_CALL: i64 = 0x7fff_ffff;

/// Bytes of `svc`.
const CALL_LEN: u64 = 4;
/// The bits BTYPE of PSTATE.
const BRANCH_TYPE: u64 = 3 << 10;
/// `NT_ARM_SYSTEM_CALL` of `elf.h`: the number of the system call in which a task is.
const SYSTEM_CALL: usize = 0x404;

/// `SYS_io_pgetevents`, for which libc has no constant.
pub const IO_PGETEVENTS: i64 = 292;

/// A result by which the kernel decides to make a call again (`ERESTARTSYS`); programs never see it.
const RESTART: i64 = -512;
/// `FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME`
const FUTEX_FLAGS: u64 = 128 | 256;
const FUTEX_WAIT: u64 = 0;
const FUTEX_WAIT_BITSET: u64 = 9;

/// The system call in which a task was before it was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallBefore {
    /// Its number.
    pub number: i64,
    /// Its first argument.
    pub first_argument: u64,
    /// The address of the instruction behind it.
    pub instruction: u64,
    /// The stack pointer.
    pub stack: u64,
    /// How often the task has gone to sleep, the last time in this call.
    pub sleeps: u64,
}

impl CallBefore {
    /// Reads the system call that a task sleeps in.
    pub fn read(process: i32, task: i32) -> Option<Self> {
        let sleeps = sleeps_of(process, task)?;
        let CurrentCall { number, arguments: [first_argument, ..], stack, instruction } =
            CurrentCall::read(process, task)?;
        let before = Self { number, first_argument, instruction, stack, sleeps };
        (sleeps_of(process, task) == Some(sleeps)).then_some(before)
    }

    /// Returns whether the task, which has stopped, may have ended the call since.
    pub fn may_have_ended(&self, process: i32, task: i32) -> bool {
        // It sleeps once more in the stop.
        sleeps_of(process, task) != Some(self.sleeps + 1)
    }
}

/// Returns how often a task has gone to sleep.
fn sleeps_of(process: i32, task: i32) -> Option<u64> {
    ThreadStatus::of_thread(process, task).ok()?.sleeps
}

/// How the kernel continues the system call that a stop has interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interrupted {
    /// It has ended with the result in `x0`. This was the first argument.
    Ended(u64),
    /// The kernel makes it again from its beginning.
    Again,
    /// The kernel makes it again with what is left of its timeout.
    AgainWithRest,
}

/// The general registers of a task, and the system call that it is in.
#[derive(Clone, Copy)]
pub struct Registers {
    general: libc::user_regs_struct,
    call: i32,
    /// How the kernel continues the system call in which the task was before it was stopped.
    interrupted: Option<Interrupted>,
}

impl Registers {
    /// Reads those of a task that has stopped. `EXDEV` if the task executes 32-bit code.
    ///
    /// # Errors
    /// Those of `ptrace(2)`.
    pub fn read(task: i32) -> Result<Self> {
        let general = read_general(task)?;
        let mut call = [0; 4];
        tracing::register_set(task, SYSTEM_CALL, &mut call)?;
        let call = i32::from_ne_bytes(call);
        Ok(Self { general, call, interrupted: None })
    }

    /// Sets those of a task that has stopped.
    ///
    /// # Errors
    /// Those of `ptrace(2)`.
    pub fn write(&self, task: i32) -> Result<()> {
        write_general(task, &self.general)?;
        tracing::set_register_set(task, SYSTEM_CALL, &self.call.to_ne_bytes())
    }

    /// Sets the number of the system call at whose entry a task has stopped. The stack pointer is this
    /// one already.
    ///
    /// # Errors
    /// Those of `ptrace(2)`.
    pub fn replace_call(task: i32, number: i64, _stack: u64) -> Result<()> {
        let number = i32::try_from(number).map_err(|_| Errno(libc::EINVAL))?;
        tracing::set_register_set(task, SYSTEM_CALL, &number.to_ne_bytes())
    }

    /// Returns the address of the next instruction.
    pub fn instruction(&self) -> u64 {
        self.general.pc
    }

    /// Sets the address of the next instruction.
    pub fn set_instruction(&mut self, address: u64) {
        self.general.pc = address;
    }

    /// Returns the stack pointer.
    pub fn stack(&self) -> u64 {
        self.general.sp
    }

    /// Sets the stack pointer.
    pub fn set_stack(&mut self, address: u64) {
        self.general.sp = address;
    }

    /// Notes in which system call the task was before the stop. `has_run`: it may have ended that call since,
    /// and begun another one at the same place, whose first argument is not known.
    pub fn note_call(&mut self, before: CallBefore, has_run: bool) {
        let general = &self.general;
        let is_at = |instruction| {
            (before.number.cast_unsigned(), instruction, before.stack) == (general.regs[8], general.pc, general.sp)
        };
        self.interrupted = if is_at(before.instruction) {
            (!has_run).then_some(Interrupted::Ended(before.first_argument))
        } else if is_at(before.instruction.wrapping_sub(CALL_LEN)) && before.first_argument == general.regs[0] {
            Some(if self.keeps_timeout() { Interrupted::AgainWithRest } else { Interrupted::Again })
        } else {
            None
        };
    }

    /// Returns whether the kernel knows what is left of the timeout of a call that it makes again:
    /// relative ones of these calls.
    fn keeps_timeout(&self) -> bool {
        let [_, second, _, fourth, ..] = self.general.regs;
        match self.general.regs[8].cast_signed() {
            libc::SYS_nanosleep => true,
            libc::SYS_clock_nanosleep => second & libc::TIMER_ABSTIME as u64 == 0,
            libc::SYS_futex => fourth != 0 && [FUTEX_WAIT, FUTEX_WAIT_BITSET].contains(&(second & !FUTEX_FLAGS)),
            _ => false,
        }
    }

    /// Returns the number of the system call in which the task has stopped.
    pub fn call(&self) -> Option<i64> {
        self.interrupted.map(|_| self.general.regs[8].cast_signed())
    }

    /// Returns the result of a system call.
    pub fn result(&self) -> i64 {
        match self.interrupted {
            Some(Interrupted::Again | Interrupted::AgainWithRest) => RESTART,
            Some(Interrupted::Ended(_)) | None => self.general.regs[0].cast_signed(),
        }
    }

    /// Returns an argument of the system call.
    pub fn argument(&self, index: usize) -> u64 {
        match (index, self.interrupted) {
            (0, Some(Interrupted::Ended(first))) => first,
            _ => self.general.regs.get(index).copied().unwrap_or_default(),
        }
    }

    /// Returns these registers such that the task makes a system call at `address`, where
    /// [`CALL`] is. Behind the call it would return to `return_to` with this `stack`.
    #[must_use]
    pub fn calling(&self, address: u64, stack: u64, return_to: u64, number: i64, arguments: [u64; 6]) -> Self {
        let mut general = self.general;
        for (register, argument) in general.regs.iter_mut().zip(arguments) {
            *register = argument;
        }
        general.regs[8] = number.cast_unsigned();
        general.regs[30] = return_to;
        (general.pc, general.sp) = (address, stack);
        // It may have been stopped behind an indirect branch, whose target would be checked.
        general.pstate &= !BRANCH_TYPE;
        // No call that the kernel could make again.
        Self { general, call: -1, interrupted: None }
    }

    /// Returns these registers such that the task makes the system call again in which it has
    /// stopped, from its beginning.
    #[must_use]
    pub fn calling_again(&self) -> Self {
        let mut general = self.general;
        general.pc = general.pc.wrapping_sub(CALL_LEN);
        general.regs[0] = self.argument(0);
        Self { general, call: -1, interrupted: None }
    }

    /// Returns the registers with which a task goes on that is stopped where signals are delivered, but
    /// in another stop than the one in which these were read.
    #[must_use]
    pub fn in_another_stop(&self) -> Self {
        let mut general = self.general;
        if self.interrupted == Some(Interrupted::AgainWithRest) {
            general.regs[8] = libc::SYS_restart_syscall.cast_unsigned();
        }
        Self { general, ..*self }
    }

    /// Returns `x0` to `x30`, the stack pointer, the next instruction and the processor's state.
    pub fn sigcontext(&self) -> [u64; 34] {
        let mut words = [0; 34];
        for (word, register) in words.iter_mut().zip(self.general.regs) {
            *word = register;
        }
        [words[31], words[32], words[33]] = [self.general.sp, self.general.pc, self.general.pstate];
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SVC: u64 = 0x1_0000;

    /// A call of this number with the arguments 7, 1 and so on, whose `svc` is at [`SVC`].
    fn before(number: i64) -> CallBefore {
        CallBefore { number, first_argument: 7, instruction: SVC + CALL_LEN, stack: 0x2_0000, sleeps: 3 }
    }

    /// The registers of a task that has stopped there after such a call.
    fn stopped(number: i64, instruction: u64, result: i64, second: u64) -> Registers {
        // SAFETY: the structure consists of integers, for which any bytes are valid.
        let mut general: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        general.regs[0] = result.cast_unsigned();
        general.regs[1] = second;
        general.regs[3] = 1;
        general.regs[8] = number.cast_unsigned();
        (general.pc, general.sp) = (instruction, 0x2_0000);
        Registers { general, call: -1, interrupted: None }
    }

    #[test]
    fn an_interrupted_call_is_made_again_with_its_first_argument() {
        let mut registers = stopped(libc::SYS_epoll_pwait, SVC + CALL_LEN, -4, 1);
        assert_eq!(registers.call(), None);
        registers.note_call(before(libc::SYS_epoll_pwait), false);
        assert_eq!((registers.call(), registers.result()), (Some(libc::SYS_epoll_pwait), -4));
        assert_eq!((registers.argument(0), registers.argument(1)), (7, 1));
        let again = registers.calling_again();
        assert_eq!((again.instruction(), again.general.regs[0], again.general.regs[1]), (SVC, 7, 1));
    }

    #[test]
    fn a_call_that_may_be_another_one_is_not_made_again() {
        let mut registers = stopped(libc::SYS_recvfrom, SVC + CALL_LEN, -4, 1);
        registers.note_call(before(libc::SYS_recvfrom), true);
        assert_eq!(registers.call(), None);
        for other in [
            CallBefore { number: libc::SYS_read, ..before(libc::SYS_recvfrom) },
            CallBefore { instruction: SVC + 64, ..before(libc::SYS_recvfrom) },
            CallBefore { stack: 0, ..before(libc::SYS_recvfrom) },
        ] {
            registers.note_call(other, false);
            assert_eq!(registers.call(), None, "{other:?}");
        }
    }

    #[test]
    fn what_is_left_of_a_timeout_is_kept_in_another_stop() {
        let absolute = libc::TIMER_ABSTIME as u64;
        let number_afterwards = |number, second, fourth| {
            let mut registers = stopped(number, SVC, 7, second);
            registers.general.regs[3] = fourth;
            registers.note_call(before(number), true);
            assert_eq!((registers.call(), registers.result()), (Some(number), RESTART));
            assert_eq!(registers.sigcontext()[8], number.cast_unsigned());
            registers.in_another_stop().general.regs[8].cast_signed()
        };
        let restart = libc::SYS_restart_syscall;
        assert_eq!(number_afterwards(libc::SYS_nanosleep, 1, 1), restart);
        assert_eq!(number_afterwards(libc::SYS_clock_nanosleep, 0, 1), restart);
        assert_eq!(number_afterwards(libc::SYS_clock_nanosleep, absolute, 1), libc::SYS_clock_nanosleep);
        assert_eq!(number_afterwards(libc::SYS_futex, FUTEX_FLAGS | FUTEX_WAIT_BITSET, 1), restart);
        assert_eq!(number_afterwards(libc::SYS_futex, FUTEX_WAIT, 0), libc::SYS_futex);
        assert_eq!(number_afterwards(libc::SYS_read, 1, 1), libc::SYS_read);
    }

    #[test]
    fn a_task_that_is_about_to_make_another_call_is_not_in_one() {
        let mut registers = stopped(libc::SYS_nanosleep, SVC, 8, 1);
        registers.note_call(before(libc::SYS_nanosleep), false);
        assert_eq!(registers.call(), None);
        assert_eq!(registers.in_another_stop().general.regs[8].cast_signed(), libc::SYS_nanosleep);
    }
}

//! x86-64: a task that is stopped in an interrupted system call has its number in `orig_rax` and
//! the result in `rax`. If that is one of the kernel's own errors (`ERESTARTSYS` and others), the
//! kernel makes the call again when the task resumes, provided that both are still there.

use super::{read_general, write_general};
use crate::sys::Result;

/// `syscall; ret`
pub const CALL: &[u8] = &[0x0f, 0x05, 0xc3];
/// `mov $15, %rax; syscall` in its two encodings: the return from a signal handler.
pub const RETURN_FROM_SIGNAL: &[&[u8]] =
    &[&[0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05], &[0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05]];

/// The number of a system call that does not exist, and for which the kernel does nothing.
pub const NO_CALL: i64 = -1;

/// Bytes of `syscall`.
const CALL_LEN: u64 = 2;

/// `SYS_io_pgetevents`, for which libc has no constant.
pub const IO_PGETEVENTS: i64 = 333;

/// The general registers of a task.
#[derive(Clone, Copy)]
pub struct Registers(libc::user_regs_struct);

impl Registers {
    /// Reads those of a task that has stopped. `EXDEV` if the task executes 32-bit code.
    ///
    /// # Errors
    /// Those of `ptrace(2)`.
    pub fn read(task: i32) -> Result<Self> {
        read_general(task).map(Self)
    }

    /// Sets those of a task that has stopped.
    ///
    /// # Errors
    /// Those of `ptrace(2)`.
    pub fn write(&self, task: i32) -> Result<()> {
        write_general(task, &self.0)
    }

    /// Sets the number of the system call at whose entry a task has stopped, and the stack pointer,
    /// both by one request.
    ///
    /// # Errors
    /// Those of `ptrace(2)`.
    pub fn replace_call(task: i32, number: i64, stack: u64) -> Result<()> {
        let general = read_general(task)?;
        let orig_rax = number.cast_unsigned();
        write_general(task, &libc::user_regs_struct { orig_rax, rsp: stack, ..general })
    }

    /// Returns the address of the next instruction.
    pub fn instruction(&self) -> u64 {
        self.0.rip
    }

    /// Sets the address of the next instruction.
    pub fn set_instruction(&mut self, address: u64) {
        self.0.rip = address;
    }

    /// Returns the stack pointer.
    pub fn stack(&self) -> u64 {
        self.0.rsp
    }

    /// Sets the stack pointer.
    pub fn set_stack(&mut self, address: u64) {
        self.0.rsp = address;
    }

    /// Returns the number of the system call in which the task has stopped.
    pub fn call(&self) -> Option<i64> {
        let number = self.0.orig_rax.cast_signed();
        (number >= 0).then_some(number)
    }

    /// Returns the result of a system call.
    pub fn result(&self) -> i64 {
        self.0.rax.cast_signed()
    }

    /// Returns an argument of the system call.
    pub fn argument(&self, index: usize) -> u64 {
        let Self(registers) = self;
        let all = [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9];
        all.get(index).copied().unwrap_or_default()
    }

    /// Returns these registers such that the task makes a system call at `address`, where
    /// [`CALL`] is. Behind the call it would execute [`CALL`]'s return with this `stack`.
    #[must_use]
    pub fn calling(&self, address: u64, stack: u64, _return_to: u64, number: i64, arguments: [u64; 6]) -> Self {
        let [rdi, rsi, rdx, r10, r8, r9] = arguments;
        let rax = number.cast_unsigned();
        Self(libc::user_regs_struct {
            rip: address,
            rsp: stack,
            rax,
            rdi,
            rsi,
            rdx,
            r10,
            r8,
            r9,
            // No call that the kernel could make again.
            orig_rax: u64::MAX,
            ..self.0
        })
    }

    /// Returns these registers such that the task makes the system call again in which it has
    /// stopped, from its beginning.
    #[must_use]
    pub fn calling_again(&self) -> Self {
        Self(libc::user_regs_struct {
            rip: self.0.rip.wrapping_sub(CALL_LEN),
            rax: self.0.orig_rax,
            orig_rax: u64::MAX,
            ..self.0
        })
    }

    /// Returns the registers with which a task goes on that is stopped where signals are delivered, but
    /// in another stop than the one in which these were read: they are the same, because the kernel decides
    /// by them alone how to make an interrupted call again.
    #[must_use]
    pub fn in_another_stop(&self) -> Self {
        *self
    }

    /// Returns the words of `struct sigcontext` up to the instruction flags, and the segments.
    pub fn sigcontext(&self) -> [u64; 19] {
        let Self(r) = self;
        let segments = (r.cs & 0xffff) | (r.gs & 0xffff) << 16 | (r.fs & 0xffff) << 32 | (r.ss & 0xffff) << 48;
        [
            r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15, r.rdi, r.rsi, r.rbp, r.rbx, r.rdx, r.rax, r.rcx,
            r.rsp, r.rip, r.eflags, segments,
        ]
    }
}

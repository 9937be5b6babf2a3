//! The lines that the kernel logs when a signal ends a process, on x86-64 and aarch64. This module
//! parses text that any user may have written; it reads no files and holds one crash at a time, so a
//! journal of any length can pass through it.
//!
//! | lines | printed by |
//! |---|---|
//! | `NAME[PID]: segfault at A ip I sp S error E in O[B+N]` | `show_signal_msg`, arch/x86/mm/fault.c; the oldest kernels have `rip`, `rsp` |
//! | the same with `in O[F,B+N]` | `print_vma_addr`, mm/memory.c: newer kernels print the offset in the file, too |
//! | the same with ` likely on CPU 1 (core 1, socket 0)` | `show_signal_msg` of newer kernels |
//! | `Code: ...` behind these | `show_opcodes`, arch/x86/kernel/dumpstack.c |
//! | `traps: NAME[PID] trap T ip:I sp:S error:E in O[B+N]`, `traps: NAME[PID] general protection fault ip:...` | `show_signal`, arch/x86/kernel/traps.c; `traps: ` and `fault` are not in older kernels |
//! | `NAME[PID]: unhandled T (SIGNAL) at 0xA, esr 0xE, in O[B+N]` | `__do_user_fault`, arch/arm64/mm/fault.c of older kernels: 4.14, and without the object 3.10 and 4.9 |
//! | `NAME[PID]: unhandled exception: C, ESR 0xE, T in O[B+N]` | `arm64_show_signal`, arch/arm64/kernel/traps.c of newer kernels: 4.19 and 6.8 |
//! | `pc : ...` behind these | `__show_regs`, arch/arm64/kernel/process.c |
//! | `audit: type=1701 audit(...): ... pid=P comm="N" exe="X" sig=S res=1` | `audit_core_dumps`, kernel/auditsc.c |
//! | `X: NAME: potentially unexpected fatal signal S.` | `print_fatal_signal`, kernel/signal.c, with `kernel.print-fatal-signals` |
//! | `MCE: Killing NAME:PID due to hardware memory corruption fault at A` | `do_sigbus`, arch/x86/mm/fault.c |
//!
//! `do_sigbus` prints nothing else: on x86-64 a page behind the end of its file leaves no line of its
//! own. Lines of `type=1701`, of `print-fatal-signals` and of systemd are used for SIGBUS alone,
//! because the other signals have a better line.
//!
//! `print_vma_addr` names the object at the instruction. Older kernels name the next one above if there
//! is none (`find_vma`), so that a jump to a tiny address seems to be in the program.

mod judgement;
mod lines;
mod prefix;

pub use judgement::{HIGHEST_CODE, LOWEST_CODE, LOWEST_DATUM, LogSign, LogVerdict, error_words, syndrome_words};

/// `SIGBUS` on both architectures (include/uapi/asm-generic/signal.h).
pub const SIGBUS: u32 = 7;
/// The most lines that may lie between a crash and the lines that continue it.
const MOST_BETWEEN: usize = 16;

/// The event that the kernel has logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CrashEvent {
    /// A page fault, on x86-64.
    Segfault,
    /// An exception of the processor, on x86-64: `invalid opcode`, `general protection fault`...
    Trap(String),
    /// An exception of the processor, on aarch64, in the kernel's words; older kernels have the signal.
    Exception(String, Option<u32>),
    /// A process was ended by this signal, and no more is known.
    Ended(u32),
    /// Memory that is broken.
    BrokenMemory,
}

/// A part of an object, as the kernel names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedObject {
    /// The name of its file, without directories.
    pub name: String,
    /// The first byte of the VMA, and its size.
    pub start: u64,
    /// Bytes of the VMA.
    pub size: u64,
    /// The offset in the file, which newer kernels print.
    pub offset: Option<u64>,
}

impl LoggedObject {
    /// Returns whether an address lies in it.
    pub fn has(&self, address: u64) -> bool {
        address.checked_sub(self.start).is_some_and(|at| at < self.size)
    }
}

/// A process that has ended, from one line and the lines that continue it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedCrash {
    /// The name of the thread, at most 15 bytes; for a line of systemd the unit.
    pub program: String,
    /// The thread that has crashed (`task_pid_nr`), in the root namespace; in a program with one thread it
    /// is the process.
    pub pid: Option<u32>,
    /// The text in front of the kernel's words, usually the time.
    pub when: Option<String>,
    /// The event that the line reports.
    pub event: CrashEvent,
    /// The address of the instruction.
    pub ip: Option<u64>,
    /// The address that was accessed.
    pub address: Option<u64>,
    /// The error code of a page fault (arch/x86/include/asm/trap_pf.h).
    pub error: Option<u64>,
    /// The syndrome register of aarch64 (arch/arm64/include/asm/esr.h).
    pub syndrome: Option<u64>,
    /// The object at the instruction, if the kernel has named one.
    pub object: Option<LoggedObject>,
    /// The bytes at the instruction, if the kernel has printed them.
    pub code: Vec<u8>,
    /// The kernel's words.
    pub message: String,
}

impl LoggedCrash {
    /// Returns the number of the signal, where the line has it or implies it.
    pub fn signal(&self) -> Option<u32> {
        match &self.event {
            CrashEvent::Segfault => Some(11),
            CrashEvent::BrokenMemory => Some(SIGBUS),
            CrashEvent::Ended(signal) => Some(*signal),
            CrashEvent::Exception(_, signal) => *signal,
            CrashEvent::Trap(name) => match name.as_str() {
                "invalid opcode" => Some(4),
                "int3" | "debug" => Some(5),
                "stack segment" | "segment not present" | "alignment check" => Some(SIGBUS),
                "divide error"
                | "divide_error"
                | "x87 FPU exception"
                | "SIMD exception"
                | "fpu exception"
                | "simd exception"
                | "coprocessor segment overrun" => Some(8),
                _ => Some(11),
            },
        }
    }
}

/// A reader of the log.
#[derive(Debug, Default)]
pub struct KernelLog {
    pending: Option<LoggedCrash>,
    between: usize,
    suppressed: u64,
}

impl KernelLog {
    /// Takes a line. Returns the crash before it when the line begins another one.
    pub fn line(&mut self, line: &str) -> Option<LoggedCrash> {
        let (when, message) = prefix::split(line);
        if let Some(mut crash) = lines::crash(message) {
            crash.when = when.map(str::to_owned);
            self.between = 0;
            return self.pending.replace(crash);
        }
        self.suppressed = self.suppressed.saturating_add(lines::suppressed(message));
        self.between += 1;
        if let Some(pending) = self.pending.as_mut().filter(|_| self.between <= MOST_BETWEEN) {
            lines::continue_crash(pending, message);
        }
        None
    }

    /// Returns the last crash.
    pub fn finish(&mut self) -> Option<LoggedCrash> {
        self.pending.take()
    }

    /// Returns how many lines the kernel says that it has left out: it prints at most 10 of its kind in
    /// 5 seconds.
    pub fn suppressed(&self) -> u64 {
        self.suppressed
    }
}

#[cfg(test)]
mod tests;

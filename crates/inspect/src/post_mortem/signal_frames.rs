//! Finds the faults that a program has caught itself. A JVM or CPython's faulthandler handles SIGSEGV,
//! reports it, and then aborts or raises the signal again, so that the dump shows a signal that the
//! process has sent to itself. The frame that the kernel has written for the handler is still on the
//! thread's stack, with the signal and the registers at the fault. Handlers that were installed
//! without SA_SIGINFO get no `siginfo`; then this module derives the signal from the trap's number and address.

use crate::core_dump::{CoreDump, DumpMachine, Fault, ThreadRegisters};
use crate::memory::{Bytes, half_at, word_at};

use super::crash::{SI_KERNEL, SIGBUS, SIGFPE, SIGILL, SIGSEGV};

/// `si_code` for an address at which nothing is mapped, and for an invalid operand
/// (`asm-generic/siginfo.h`).
const SEGV_MAPERR: i32 = 1;
const ILL_ILLOPN: i32 = 2;
/// The distance from the stack pointer up to which frames are searched for, in bytes: the default size of the
/// stack of a first thread. Handlers of a JVM fault in turn, megabytes away from the first fault.
const REACH: usize = 8 << 20;
/// The most frames that are returned: a handler can fault itself.
const MOST: usize = 64;

/// `struct rt_sigframe` of x86-64 (`arch/x86/include/asm/sigframe.h`): a return address, a
/// `ucontext` whose `sigcontext` is at 40, and a `siginfo`. Offsets from the return address.
mod x86_64 {
    pub const SIZE: usize = 440;
    pub const FLAGS: usize = 8;
    pub const LINK: usize = 16;
    pub const GENERAL: usize = 48;
    pub const STACK: usize = GENERAL + 8 * 15;
    pub const INSTRUCTION: usize = GENERAL + 8 * 16;
    pub const STATE: usize = GENERAL + 8 * 17;
    pub const SEGMENTS: usize = GENERAL + 8 * 18;
    pub const TRAP: usize = GENERAL + 8 * 20;
    pub const CR2: usize = GENERAL + 8 * 22;
    pub const SIGINFO: usize = 312;
    /// The highest value of `uc_flags` (UC_FP_XSTATE, UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS).
    pub const MOST_FLAGS: u64 = 7;
    /// The bit that is always set in RFLAGS.
    pub const ALWAYS: u64 = 2;
    /// Where `sigcontext` has the registers that [`super::ThreadRegisters`] has in the order of ptrace(2).
    pub const ORDER: [usize; 15] = [7, 6, 5, 4, 10, 11, 3, 2, 1, 0, 13, 14, 12, 9, 8];
    /// The selector of 64-bit user code (`__USER_CS`).
    pub const USER_CODE: u64 = 0x33;
    /// The numbers of traps: an invalid instruction, a general protection fault, a page fault.
    pub const INVALID: u64 = 6;
    pub const PROTECTION: u64 = 13;
    pub const PAGE_FAULT: u64 = 14;
}

/// `struct rt_sigframe` of aarch64 (`arch/arm64/kernel/signal.c`): a `siginfo`, and a `ucontext`
/// whose `sigcontext` is at 176.
mod aarch64 {
    pub const SIZE: usize = RECORDS + 8;
    pub const LINK: usize = 128 + 8;
    pub const FAULT: usize = 128 + 176;
    pub const GENERAL: usize = FAULT + 8;
    pub const STACK: usize = GENERAL + 8 * 31;
    pub const INSTRUCTION: usize = STACK + 8;
    pub const STATE: usize = INSTRUCTION + 8;
    pub const RECORDS: usize = FAULT + 288;
    /// FPSIMD_MAGIC: the first of the records behind the registers.
    pub const FPSIMD: u32 = 0x4650_8001;
}

/// Returns the faults for which the thread with this stack pointer is in a handler, the first one
/// first: the others are faults in the handlers.
pub fn find<B: Bytes>(dump: &CoreDump<B>, stack: u64) -> Vec<(Fault, ThreadRegisters)> {
    let mut bytes = vec![0; REACH];
    let got = dump.read_some(stack & !7, &mut bytes).unwrap_or(0);
    bytes.truncate(got);
    let parse = match dump.machine {
        DumpMachine::X86_64 => on_x86_64,
        DumpMachine::Aarch64 => on_aarch64,
    };
    let places = (0..bytes.len()).step_by(8);
    let mut found: Vec<_> = places.filter_map(|place| parse(bytes.get(place..)?)).take(MOST).collect();
    found.reverse();
    found
}

/// The contents of the place where a frame has its `siginfo`.
enum Siginfo {
    /// That of a fault.
    Fault(Fault),
    /// That of a signal that a process has sent.
    Sent,
    /// Nothing: the handler was installed without SA_SIGINFO.
    Absent,
}

fn siginfo(bytes: &[u8]) -> Option<Siginfo> {
    let number = |at: usize| half_at(bytes, at).map(u32::cast_signed);
    let fault = Fault { signal: number(0)?, code: number(8)?, address: word_at(bytes, 16)? };
    let is_signal = (1..=64).contains(&fault.signal) && number(4)? == 0;
    let is_fault = matches!(fault.signal, SIGSEGV | SIGBUS | SIGILL | SIGFPE);
    Some(match fault.code {
        1..=128 if is_signal && is_fault => Siginfo::Fault(fault),
        -60..=128 if is_signal => Siginfo::Sent,
        _ => Siginfo::Absent,
    })
}

fn on_x86_64(bytes: &[u8]) -> Option<(Fault, ThreadRegisters)> {
    use x86_64::{
        ALWAYS, CR2, FLAGS, GENERAL, INSTRUCTION, INVALID, LINK, MOST_FLAGS, ORDER, PAGE_FAULT, PROTECTION, SEGMENTS,
        SIGINFO, SIZE, STACK, STATE, TRAP, USER_CODE,
    };
    let bytes = bytes.get(..SIZE)?;
    let word = |at: usize| word_at(bytes, at);
    let (trap, state, instruction) = (word(TRAP)?, word(STATE)?, word(INSTRUCTION)?);
    let is_frame = word(SEGMENTS)? & 0xffff == USER_CODE
        && word(FLAGS)? <= MOST_FLAGS
        && word(LINK)? == 0
        && state & ALWAYS != 0
        && state >> 32 == 0;
    if !is_frame {
        return None;
    }
    let fault = match (siginfo(bytes.get(SIGINFO..)?)?, trap) {
        (Siginfo::Fault(fault), PAGE_FAULT) if word(CR2)? != fault.address => return None,
        (Siginfo::Fault(fault), 0..=31) => fault,
        (Siginfo::Absent, PAGE_FAULT) => Fault { signal: SIGSEGV, code: SEGV_MAPERR, address: word(CR2)? },
        (Siginfo::Absent, PROTECTION) => Fault { signal: SIGSEGV, code: SI_KERNEL, address: 0 },
        (Siginfo::Absent, INVALID) => Fault { signal: SIGILL, code: ILL_ILLOPN, address: instruction },
        _ => return None,
    };
    let mut general = [0; 31];
    for (index, value) in ORDER.iter().zip(&mut general) {
        *value = word(GENERAL + 8 * index)?;
    }
    Some((fault, ThreadRegisters { instruction, stack: word(STACK)?, link: None, general }))
}

fn on_aarch64(bytes: &[u8]) -> Option<(Fault, ThreadRegisters)> {
    use aarch64::{FAULT, FPSIMD, GENERAL, INSTRUCTION, LINK, RECORDS, SIZE, STACK, STATE};
    let bytes = bytes.get(..SIZE)?;
    let word = |at: usize| word_at(bytes, at);
    // The lowest bits of the state are the mode: 0 for 64-bit user code.
    let is_user = |state: u64| state.trailing_zeros() >= 5;
    let is_frame =
        half_at(bytes, RECORDS)? == FPSIMD && word(LINK)? == 0 && is_user(word(STATE)?) && word(STATE)? >> 32 == 0;
    if !is_frame {
        return None;
    }
    let fault = match siginfo(bytes)? {
        Siginfo::Fault(fault) if word(FAULT)? == fault.address => fault,
        Siginfo::Absent if word(FAULT)? != 0 => Fault { signal: SIGSEGV, code: SEGV_MAPERR, address: word(FAULT)? },
        _ => return None,
    };
    let mut general = [0; 31];
    for (index, value) in general.iter_mut().enumerate() {
        *value = word(GENERAL + 8 * index)?;
    }
    let registers = ThreadRegisters {
        instruction: word(INSTRUCTION)?,
        stack: word(STACK)?,
        link: general.last().copied(),
        general,
    };
    Some((fault, registers))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(bytes: &mut [u8], at: usize, value: u64) {
        bytes[at..at + 8].copy_from_slice(&value.to_ne_bytes());
    }

    fn with_siginfo(bytes: &mut [u8], at: usize, signal: u64, code: u64, address: u64) {
        put(bytes, at, signal);
        put(bytes, at + 8, code);
        put(bytes, at + 16, address);
    }

    #[test]
    fn a_frame_of_x86_64_is_recognised() {
        let mut bytes = vec![0xff; 500];
        for (at, value) in [
            (x86_64::FLAGS, 7),
            (x86_64::LINK, 0),
            (x86_64::INSTRUCTION, 0xad0),
            (x86_64::STATE, 0x1_0202),
            (x86_64::STACK, 0x7fff_0000),
            (x86_64::SEGMENTS, 0x2b_0000_0000_0033),
            (x86_64::TRAP, 14),
            (x86_64::CR2, 0xad0),
        ] {
            put(&mut bytes, at, value);
        }
        // A handler without SA_SIGINFO.
        let (fault, registers) = on_x86_64(&bytes).unwrap();
        assert_eq!((fault.signal, fault.address), (SIGSEGV, 0xad0));
        assert_eq!((registers.instruction, registers.stack), (0xad0, 0x7fff_0000));
        with_siginfo(&mut bytes, x86_64::SIGINFO, 7, 2, 0xad0);
        assert_eq!(on_x86_64(&bytes).unwrap().0, Fault { signal: SIGBUS, code: 2, address: 0xad0 });
        with_siginfo(&mut bytes, x86_64::SIGINFO, 11, 1, 0xad8);
        assert_eq!(on_x86_64(&bytes), None, "another address");
        with_siginfo(&mut bytes, x86_64::SIGINFO, 15, 0, 0);
        assert_eq!(on_x86_64(&bytes), None, "SIGTERM, while the last trap was a page fault");
        assert_eq!(on_x86_64(&bytes[..300]), None);
        assert_eq!(on_x86_64(&[0; 500]), None);
    }

    #[test]
    fn a_frame_of_aarch64_is_recognised() {
        let mut bytes = vec![0xff; 700];
        for (at, value) in [
            (aarch64::LINK, 0),
            (aarch64::FAULT, 0xad0),
            (aarch64::GENERAL + 8 * 30, 0x40_0000),
            (aarch64::INSTRUCTION, 0xad0),
            (aarch64::STATE, 0x6000_0000),
            (aarch64::RECORDS, aarch64::FPSIMD.into()),
        ] {
            put(&mut bytes, at, value);
        }
        assert_eq!(on_aarch64(&bytes).unwrap().0.signal, SIGSEGV);
        with_siginfo(&mut bytes, 0, 7, 2, 0xad0);
        let (fault, registers) = on_aarch64(&bytes).unwrap();
        assert_eq!((fault.signal, registers.link, registers.instruction), (7, Some(0x40_0000), 0xad0));
        put(&mut bytes, aarch64::FAULT, 1);
        assert_eq!(on_aarch64(&bytes), None);
        assert_eq!(on_aarch64(&[0; 700]), None);
    }
}

//! Finds the faults that a program has caught itself. A JVM or CPython's faulthandler handles SIGSEGV,
//! reports it, and then aborts or raises the signal again, so that the dump shows a signal that the
//! process has sent to itself. The frame that the kernel has written for the handler is still on the
//! thread's stack, with the signal and the registers at the fault.

use crate::core_dump::{CoreDump, Fault, Machine, Registers};
use crate::memory::{Bytes, half_at, word_at};

use super::crash::{SIGBUS, SIGFPE, SIGILL, SIGSEGV};

/// How far from the stack pointer a frame is looked for, in bytes.
const REACH: usize = 1 << 20;
/// The most frames that are returned: a handler can fault itself.
const MOST: usize = 16;

/// `struct rt_sigframe` of x86-64 (`arch/x86/include/asm/sigframe.h`): a return address, a
/// `ucontext` whose `sigcontext` is at 40, and a `siginfo`. Offsets from the return address.
mod x86_64 {
    pub const SIZE: usize = 440;
    pub const GENERAL: usize = 48;
    pub const STACK: usize = GENERAL + 8 * 15;
    pub const INSTRUCTION: usize = GENERAL + 8 * 16;
    pub const SEGMENTS: usize = GENERAL + 8 * 18;
    pub const TRAP: usize = GENERAL + 8 * 20;
    pub const CR2: usize = GENERAL + 8 * 22;
    pub const SIGINFO: usize = 312;
    /// Where `sigcontext` has the registers that [`super::Registers`] has in the order of ptrace(2).
    pub const ORDER: [usize; 15] = [7, 6, 5, 4, 10, 11, 3, 2, 1, 0, 13, 14, 12, 9, 8];
    /// The selector of 64-bit user code (`__USER_CS`).
    pub const USER_CODE: u64 = 0x33;
    /// The number of a page fault.
    pub const PAGE_FAULT: u64 = 14;
}

/// `struct rt_sigframe` of aarch64 (`arch/arm64/kernel/signal.c`): a `siginfo`, and a `ucontext`
/// whose `sigcontext` is at 176.
mod aarch64 {
    pub const SIZE: usize = 128 + 176 + 8 * 35;
    pub const FAULT: usize = 128 + 176;
    pub const GENERAL: usize = FAULT + 8;
    pub const STACK: usize = GENERAL + 8 * 31;
    pub const INSTRUCTION: usize = STACK + 8;
    pub const STATE: usize = INSTRUCTION + 8;
}

/// Returns the faults for which the thread with this stack pointer is in a handler, the innermost
/// first.
pub fn find<B: Bytes>(dump: &CoreDump<B>, stack: u64) -> Vec<(Fault, Registers)> {
    let mut bytes = vec![0; REACH];
    let got = dump.read_some(stack & !7, &mut bytes).unwrap_or(0);
    bytes.truncate(got);
    let parse = match dump.machine {
        Machine::X86_64 => on_x86_64,
        Machine::Aarch64 => on_aarch64,
    };
    let places = (0..bytes.len()).step_by(8);
    places.filter_map(|place| parse(bytes.get(place..)?)).take(MOST).collect()
}

fn siginfo(bytes: &[u8]) -> Option<Fault> {
    let number = |at: usize| half_at(bytes, at).map(u32::cast_signed);
    let fault = Fault { signal: number(0)?, code: number(8)?, address: word_at(bytes, 16)? };
    let is_fault = matches!(fault.signal, SIGSEGV | SIGBUS | SIGILL | SIGFPE);
    (is_fault && number(4)? == 0 && (1..=128).contains(&fault.code)).then_some(fault)
}

fn on_x86_64(bytes: &[u8]) -> Option<(Fault, Registers)> {
    use x86_64::{CR2, GENERAL, INSTRUCTION, ORDER, PAGE_FAULT, SEGMENTS, SIGINFO, SIZE, STACK, TRAP, USER_CODE};
    let bytes = bytes.get(..SIZE)?;
    let fault = siginfo(bytes.get(SIGINFO..)?)?;
    let word = |at: usize| word_at(bytes, at);
    let trap = word(TRAP)?;
    if word(SEGMENTS)? & 0xffff != USER_CODE || trap > 31 || (trap == PAGE_FAULT && word(CR2)? != fault.address) {
        return None;
    }
    let mut general = [0; 31];
    for (index, value) in ORDER.iter().zip(&mut general) {
        *value = word(GENERAL + 8 * index)?;
    }
    Some((fault, Registers { instruction: word(INSTRUCTION)?, stack: word(STACK)?, link: None, general }))
}

fn on_aarch64(bytes: &[u8]) -> Option<(Fault, Registers)> {
    use aarch64::{FAULT, GENERAL, INSTRUCTION, SIZE, STACK, STATE};
    let bytes = bytes.get(..SIZE)?;
    let fault = siginfo(bytes)?;
    let word = |at: usize| word_at(bytes, at);
    // The lowest bits of the state are the mode: 0 for 64-bit user code.
    if word(FAULT)? != fault.address || word(STATE)? & 0x1f != 0 || word(STATE)? >> 32 != 0 {
        return None;
    }
    let mut general = [0; 31];
    for (index, value) in general.iter_mut().enumerate() {
        *value = word(GENERAL + 8 * index)?;
    }
    let registers =
        Registers { instruction: word(INSTRUCTION)?, stack: word(STACK)?, link: general.last().copied(), general };
    Some((fault, registers))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(bytes: &mut [u8], at: usize, value: u64) {
        bytes[at..at + 8].copy_from_slice(&value.to_ne_bytes());
    }

    #[test]
    fn a_frame_of_x86_64_is_recognised() {
        let mut bytes = vec![0; 500];
        put(&mut bytes, x86_64::SIGINFO, 11);
        put(&mut bytes, x86_64::SIGINFO + 8, 1);
        put(&mut bytes, x86_64::SIGINFO + 16, 0xad0);
        put(&mut bytes, x86_64::INSTRUCTION, 0xad0);
        put(&mut bytes, x86_64::STACK, 0x7fff_0000);
        put(&mut bytes, x86_64::SEGMENTS, 0x2b_0000_0000_0033);
        put(&mut bytes, x86_64::TRAP, 14);
        put(&mut bytes, x86_64::CR2, 0xad0);
        let (fault, registers) = on_x86_64(&bytes).unwrap();
        assert_eq!((fault.signal, fault.address), (11, 0xad0));
        assert_eq!((registers.instruction, registers.stack), (0xad0, 0x7fff_0000));
        put(&mut bytes, x86_64::CR2, 0xad8);
        assert_eq!(on_x86_64(&bytes), None, "another address");
        assert_eq!(on_x86_64(&bytes[..300]), None);
    }

    #[test]
    fn a_frame_of_aarch64_is_recognised() {
        let mut bytes = vec![0; 600];
        put(&mut bytes, 0, 7);
        put(&mut bytes, 8, 2);
        put(&mut bytes, 16, 0xad0);
        put(&mut bytes, aarch64::FAULT, 0xad0);
        put(&mut bytes, aarch64::GENERAL + 8 * 30, 0x40_0000);
        put(&mut bytes, aarch64::INSTRUCTION, 0xad0);
        let (fault, registers) = on_aarch64(&bytes).unwrap();
        assert_eq!((fault.signal, registers.link, registers.instruction), (7, Some(0x40_0000), 0xad0));
        put(&mut bytes, aarch64::FAULT, 1);
        assert_eq!(on_aarch64(&bytes), None);
    }
}

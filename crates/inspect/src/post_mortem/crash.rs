//! The end of a process: the signal, the thread that got it, and the addresses at which that thread was.

use super::signal_frames;
use crate::core_dump::{CoreDump, DumpOrigin, DumpedRange, Fault, ThreadRegisters};
use crate::memory::{Bytes, word_at};

/// Numbers of signals, the same on x86-64 and aarch64 (`asm-generic/signal.h`).
pub const SIGILL: i32 = 4;
/// The same.
pub const SIGTRAP: i32 = 5;
/// The same.
pub const SIGABRT: i32 = 6;
/// The same.
pub const SIGBUS: i32 = 7;
/// The same.
pub const SIGFPE: i32 = 8;
/// The same.
pub const SIGSEGV: i32 = 11;
/// The same.
const SIGSTOP: i32 = 19;

/// `si_code` of SIGBUS for an address behind the end of a file, or for an error of the disk.
pub const BUS_ADRERR: i32 = 2;
/// `si_code` of a signal that the kernel has raised without saying where, as for an address that is
/// not canonical.
pub const SI_KERNEL: i32 = 128;

/// Number of bytes of the stack that are kept. The loader's resolver alone puts 2.7 KiB of registers there.
const NEAR: usize = 4096;

/// The names of signals that end a process with a core dump (`signal(7)`).
const NAMES: [(i32, &str); 11] = [
    (3, "SIGQUIT"),
    (SIGILL, "SIGILL"),
    (SIGTRAP, "SIGTRAP"),
    (SIGABRT, "SIGABRT"),
    (SIGBUS, "SIGBUS"),
    (SIGFPE, "SIGFPE"),
    (SIGSEGV, "SIGSEGV"),
    (SIGSTOP, "SIGSTOP"),
    (24, "SIGXCPU"),
    (25, "SIGXFSZ"),
    (31, "SIGSYS"),
];

/// The end of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Crash {
    /// The signal; 0 if there was none.
    pub signal: i32,
    /// `si_code`, if the dump has it.
    pub code: Option<i32>,
    /// The address that the thread could not access or execute, if the kernel has told it.
    pub address: Option<u64>,
    /// The thread.
    pub thread: u32,
    /// Its registers.
    pub registers: ThreadRegisters,
    /// The return address of the call that led to an instruction pointer at which there is no code.
    pub caller: Option<u64>,
    /// The words on the stack next to its pointer, among which are return addresses.
    pub near: Vec<u64>,
    /// True if there is no code at the instruction pointer.
    pub is_lost: bool,
    /// True if the process may live on: gdb has made the dump of it.
    pub is_alive: bool,
    /// The process that has sent the signal, if a process has.
    pub sender: Option<u32>,
}

impl Crash {
    /// Reads it from a dump; `None` if that has no thread.
    pub fn read<B: Bytes>(dump: &CoreDump<B>) -> Option<Self> {
        let notes = &dump.notes;
        let thread = notes.threads.first()?;
        let signal = i32::from(thread.signal);
        let fault = notes.fault.filter(|fault| signal == 0 || fault.signal == signal);
        let mut crash = Self::of(dump, fault, &thread.registers);
        crash.thread = thread.id;
        if fault.is_none() {
            crash.signal = signal;
        }
        let sender = fault.filter(|fault| fault.code <= 0).map(|fault| fault.address & 0xffff_ffff);
        let sender = sender.and_then(|pid| u32::try_from(pid).ok());
        crash.sender = sender.filter(|pid| *pid != 0 && *pid != notes.pid.unwrap_or(thread.id));
        crash.is_alive = notes.origin == DumpOrigin::Gdb
            && (crash.signal == 0 || crash.signal == SIGSTOP || crash.signal == SIGTRAP);
        Some(crash)
    }

    /// Returns the faults that the program has caught, and then ended itself for, the first one first.
    pub fn caught<B: Bytes>(&self, dump: &CoreDump<B>) -> Vec<Self> {
        let is_by_itself = self.is_own_fault() && self.code.is_none_or(|code| code <= 0 || self.signal == SIGABRT);
        if !is_by_itself {
            return Vec::new();
        }
        let frames = signal_frames::find(dump, self.registers.stack).into_iter();
        frames
            .map(|(fault, registers)| Self { thread: self.thread, ..Self::of(dump, Some(fault), &registers) })
            .collect()
    }

    fn of<B: Bytes>(dump: &CoreDump<B>, fault: Option<Fault>, registers: &ThreadRegisters) -> Self {
        let is_located = |fault: &Fault| fault.code > 0 && fault.code != SI_KERNEL && is_synchronous(fault.signal);
        let ThreadRegisters { instruction, stack, link, .. } = *registers;
        let is_lost = !dump.range(instruction).is_some_and(DumpedRange::is_executable)
            && !dump.notes.files.iter().flatten().any(|file| file.start <= instruction && instruction < file.end);
        let mut near = vec![0; NEAR];
        let got = dump.read_some(stack & !7, &mut near).unwrap_or(0);
        near.truncate(got);
        let near = near.chunks_exact(8).filter_map(|word| word_at(word, 0)).collect();
        Self {
            signal: fault.map_or(0, |fault| fault.signal),
            code: fault.map(|fault| fault.code),
            address: fault.filter(is_located).map(|fault| fault.address),
            registers: *registers,
            caller: if is_lost && fault.is_none_or(|fault| is_synchronous(fault.signal)) {
                link.or_else(|| dump.word(stack).ok())
            } else {
                None
            },
            near,
            is_lost,
            ..Self::default()
        }
    }

    /// Returns the signal's name.
    pub fn name(&self) -> Option<&'static str> {
        NAMES.iter().find(|(number, _)| *number == self.signal).map(|(_, name)| *name)
    }

    /// Returns whether the process has died of this: not one that lives, nor one that another
    /// process has ended.
    pub fn is_own_fault(&self) -> bool {
        !self.is_alive && self.sender.is_none()
    }

    /// Returns the address that the thread jumped to, if there is no code.
    pub fn jump(&self) -> Option<u64> {
        let is_fault = matches!(self.signal, SIGSEGV | SIGBUS | SIGILL);
        (self.is_lost && is_fault).then_some(self.registers.instruction)
    }

    /// Returns the address of an access to data that failed.
    pub fn access(&self) -> Option<u64> {
        self.address.filter(|_| self.jump().is_none() && matches!(self.signal, SIGSEGV | SIGBUS))
    }

    /// Returns the words near the stack pointer that lie in this range, if the thread has faulted: some
    /// are return addresses.
    pub fn near_in(&self, (start, end): (u64, u64)) -> impl Iterator<Item = u64> {
        let is_fault = is_synchronous(self.signal);
        self.near.iter().copied().filter(move |word| is_fault && start <= *word && *word < end)
    }

    /// Returns the general registers, if the thread has faulted.
    pub fn held(&self) -> &[u64] {
        if is_synchronous(self.signal) { &self.registers.general } else { &[] }
    }

    /// Returns whether the thread was in this range of addresses, or has jumped from there.
    pub fn is_in(&self, (start, end): (u64, u64)) -> bool {
        let places = [Some(self.registers.instruction), self.caller];
        places.into_iter().flatten().any(|place| start <= place && place < end)
    }
}

/// Returns whether the kernel raises a signal because of what a thread has executed.
fn is_synchronous(signal: i32) -> bool {
    matches!(signal, SIGILL | SIGBUS | SIGFPE | SIGSEGV | SIGTRAP)
}

//! The notes of a core dump (`fs/binfmt_elf.c`): threads, the signal, the mapped files, the
//! auxiliary vector. They are read one at a time, because each thread brings kilobytes of registers
//! that are of no use here.

use object::elf::{NT_AUXV, NT_FILE, NT_PRPSINFO, NT_PRSTATUS, NT_SIGINFO};

use super::DumpMachine;
use crate::loader::Auxv;
use crate::memory::{Bytes, half_at, word_at};

/// Bytes of an `Elf64_Nhdr`.
const HEADER: usize = 12;
/// Longest name of a note's owner that is read.
const MAX_OWNER: u64 = 32;
/// Longest NT_FILE that is read, in bytes; kernels write at most 4 MiB (`MAX_FILE_NOTE_SIZE`).
const MAX_FILES: u64 = 64 << 20;
/// Longest other note that is read.
const MAX_NOTE: u64 = 1 << 16;
/// More notes than a dump has: some ten for each thread.
const MOST_NOTES: usize = 1 << 20;
/// The most threads that are kept.
const MOST_THREADS: usize = 1 << 16;

/// Offset of the registers in `struct elf_prstatus`.
const REGISTERS: usize = 112;

/// A thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thread {
    /// Its id.
    pub id: u32,
    /// The signal that it was stopped with; 0 if there was none.
    pub signal: u16,
    /// Its registers.
    pub registers: ThreadRegisters,
}

/// The registers that say where a thread was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadRegisters {
    /// The instruction pointer.
    pub instruction: u64,
    /// The stack pointer.
    pub stack: u64,
    /// aarch64: the link register, which has the return address of a call.
    pub link: Option<u64>,
    /// The general registers, in the order of [`ThreadRegisters::named`].
    pub general: [u64; 31],
}

impl ThreadRegisters {
    /// Returns the registers with the names that gdb has for them.
    pub fn named(&self, machine: DumpMachine) -> impl Iterator<Item = (&'static str, u64)> {
        let (names, own) = match machine {
            DumpMachine::X86_64 => (&X86_64_NAMES[..], ["rip", "rsp"]),
            DumpMachine::Aarch64 => (&AARCH64_NAMES[..], ["pc", "sp"]),
        };
        let own = own.into_iter().zip([self.instruction, self.stack]);
        own.chain(names.iter().copied().zip(self.general))
    }
}

/// The order of `struct user_regs_struct` and of `struct user_pt_regs`.
const X86_64_NAMES: [&str; 15] =
    ["r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi"];
const AARCH64_NAMES: [&str; 31] = [
    "x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15", "x16", "x17",
    "x18", "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28", "x29", "x30",
];

/// What NT_SIGINFO says of the signal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// `si_signo`
    pub signal: i32,
    /// `si_code`
    pub code: i32,
    /// `si_addr`: for SIGSEGV, SIGBUS, SIGILL, SIGFPE and SIGTRAP that the kernel has raised. For a
    /// signal of another process, its pid and uid are here.
    pub address: u64,
}

/// A line of NT_FILE: a mapping of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappedRange {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
    /// Offset in the file of the first byte.
    pub offset: u64,
    /// The path; with " (deleted)" behind it if the file had no name any more.
    pub path: std::rc::Rc<[u8]>,
}

/// The writer of a dump.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DumpOrigin {
    /// The kernel, also by way of systemd-coredump.
    #[default]
    Kernel,
    /// gdb: its `gcore`, of a process that may live on.
    Gdb,
}

/// Everything that the notes say.
#[derive(Default)]
pub struct DumpNotes {
    /// The threads; the kernel puts the one that has got the signal first.
    pub threads: Vec<Thread>,
    /// The signal.
    pub fault: Option<Fault>,
    /// The mappings of files, ascending; `None` if the dump has no NT_FILE.
    pub files: Option<Vec<MappedRange>>,
    /// The auxiliary vector.
    pub auxv: Option<Auxv>,
    /// The process id.
    pub pid: Option<u32>,
    /// The user id.
    pub uid: Option<u32>,
    /// The name of the first thread (`pr_fname`).
    pub name: Vec<u8>,
    /// The first 79 bytes of the arguments (`pr_psargs`).
    pub arguments: Vec<u8>,
    /// The writer of the dump.
    pub origin: DumpOrigin,
    /// The notes end before their size says so.
    pub is_cut: bool,
}

/// Reads the notes at these places: offset and size in the dump.
pub fn read(file: &impl Bytes, machine: DumpMachine, places: &[(u64, u64)]) -> DumpNotes {
    let mut notes = DumpNotes::default();
    let mut budget = MOST_NOTES;
    for (offset, size) in places {
        let mut at = *offset;
        let end = offset.saturating_add(*size);
        while at.saturating_add(HEADER as u64) <= end && budget != 0 {
            budget -= 1;
            let Some(next) = read_note(file, machine, at, end, &mut notes) else {
                notes.is_cut = true;
                break;
            };
            at = next;
        }
    }
    notes
}

/// Reads the note at `at`. Returns where the next one begins; `None` if it is cut off.
fn read_note(file: &impl Bytes, machine: DumpMachine, at: u64, end: u64, notes: &mut DumpNotes) -> Option<u64> {
    let header: [u8; HEADER] = file.read_array(at).ok()?;
    let (owner_size, size, kind) = (half_at(&header, 0)?, half_at(&header, 4)?, half_at(&header, 8)?);
    let owner_at = at + HEADER as u64;
    let content = owner_at.checked_add(u64::from(owner_size).next_multiple_of(4))?;
    let next = content.checked_add(u64::from(size).next_multiple_of(4))?;
    // The last note may lack its padding.
    if content.checked_add(u64::from(size))? > end {
        return None;
    }
    let owner = file.read_exact(owner_at, usize::try_from(u64::from(owner_size).min(MAX_OWNER)).ok()?).ok()?;
    let owner = owner.split(|byte| *byte == 0).next().unwrap_or_default();
    if owner == b"GDB" {
        notes.origin = DumpOrigin::Gdb;
    }
    if owner != b"CORE" {
        return Some(next);
    }
    let limit = if kind == NT_FILE { MAX_FILES } else { MAX_NOTE };
    let bytes = |limit: u64| file.read_exact(content, usize::try_from(u64::from(size).min(limit)).ok()?).ok();
    match kind {
        NT_PRSTATUS if notes.threads.len() < MOST_THREADS => {
            notes.threads.extend(thread(machine, &bytes(limit)?));
        }
        NT_SIGINFO => {
            let found = fault(&bytes(limit)?);
            // gdb writes one for each thread; the first is that of the current one.
            notes.fault = notes.fault.or(found);
        }
        NT_AUXV if notes.auxv.is_none() => notes.auxv = Some(Auxv::new(bytes(limit)?)),
        NT_FILE if notes.files.is_none() => {
            notes.files = Some(files(&bytes(limit)?)?);
        }
        NT_PRPSINFO => {
            // gdb writes it in front of the threads, the kernel behind the first.
            if notes.threads.is_empty() {
                notes.origin = DumpOrigin::Gdb;
            }
            let bytes = bytes(limit)?;
            let text = |range: std::ops::Range<usize>| {
                let text = bytes.get(range).unwrap_or_default();
                text.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
            };
            (notes.uid, notes.pid) = (half_at(&bytes, 16), half_at(&bytes, 24));
            (notes.name, notes.arguments) = (text(40..56), text(56..136));
            while notes.arguments.last() == Some(&b' ') {
                notes.arguments.pop();
            }
        }
        _ => {}
    }
    Some(next)
}

/// Parses a `struct elf_prstatus` (`linux/elfcore.h`) with the registers of `asm/user.h`.
fn thread(machine: DumpMachine, bytes: &[u8]) -> Option<Thread> {
    let register = |index: usize| word_at(bytes, REGISTERS + 8 * index);
    let mut general = [0; 31];
    let registers = match machine {
        DumpMachine::X86_64 => {
            // r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi, orig_rax, rip,
            // cs, eflags, rsp
            for (index, value) in general.iter_mut().take(15).enumerate() {
                *value = register(index)?;
            }
            ThreadRegisters { instruction: register(16)?, stack: register(19)?, link: None, general }
        }
        DumpMachine::Aarch64 => {
            // x0 to x30, sp, pc
            for (index, value) in general.iter_mut().enumerate() {
                *value = register(index)?;
            }
            ThreadRegisters { instruction: register(32)?, stack: register(31)?, link: register(30), general }
        }
    };
    let signal = u16::from_ne_bytes(*bytes.get(12..)?.first_chunk()?);
    Some(Thread { id: half_at(bytes, 32)?, signal, registers })
}

fn fault(bytes: &[u8]) -> Option<Fault> {
    let number = |at: usize| half_at(bytes, at).map(u32::cast_signed);
    let fault = Fault { signal: number(0)?, code: number(8)?, address: word_at(bytes, 16)? };
    (fault.signal != 0).then_some(fault)
}

/// Parses NT_FILE: number of mappings, unit of the offsets, for each mapping start, end and offset,
/// and then the paths, each with a NUL behind it. The kernel's unit is a page, gdb's a byte.
fn files(bytes: &[u8]) -> Option<Vec<MappedRange>> {
    let (count, unit) = (word_at(bytes, 0)?, word_at(bytes, 8)?);
    let count = usize::try_from(count).ok()?;
    let (lines, names) = bytes.get(16..)?.split_at_checked(count.checked_mul(24)?)?;
    let mut files: Vec<MappedRange> = Vec::new();
    for (line, name) in lines.chunks_exact(24).zip(names.split(|byte| *byte == 0)) {
        let (start, end, offset) = (word_at(line, 0)?, word_at(line, 8)?, word_at(line, 16)?);
        let Some(offset) = offset.checked_mul(unit) else { continue };
        if start >= end || offset.checked_add(end - start).is_none() {
            continue;
        }
        // Neighbours mostly map the same file.
        let path = match files.last() {
            Some(last) if *last.path == *name => last.path.clone(),
            _ => name.into(),
        };
        files.push(MappedRange { start, end, offset, path });
    }
    files.sort_by_key(|file| file.start);
    Some(files)
}

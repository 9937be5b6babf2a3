//! Judges from one logged crash whether the program died because a file was rewritten in place. Pure: it has only
//! the line, and its verdict says where the line does not suffice.
//!
//! A pointer that has lost its relocation holds an address without base. Such an address is tiny, and
//! nothing is mapped there: the kernel forbids mappings below `vm.mmap_min_addr`, and puts objects far
//! above. The processor faults when it fetches the instruction, so that the address of the fault is
//! the address of the instruction.
//!
//! | the instruction | is at | verdict |
//! |---|---|---|
//! | fetched | 0 | nothing: a call of a null pointer |
//! | fetched | below [`LOWEST_CODE`] | nothing: no object has code there |
//! | fetched | below [`HIGHEST_CODE`], and nothing is mapped there | signature |
//! | reads or writes | below [`LOWEST_DATUM`] | nothing: a null pointer and the offset of a member |
//! | reads or writes | below [`HIGHEST_CODE`], and nothing is mapped there | possible |
//!
//! A process in which the text of another build appears can die of anything. `invalid opcode` is the
//! usual end, and also that of a program that ends itself (`ud2`).

use super::{CrashEvent, LoggedCrash, SIGBUS};

/// No object has code below this: the ELF header, the program headers and the tables for the loader
/// come first. Of 3163 objects of a Debian system, the first code is at 0x530, and in all but five at
/// 0x1000 or above, because linkers give code pages of its own (`-z separate-code`, binutils 2.31).
pub const LOWEST_CODE: u64 = 0x400;
/// Nothing that is called is above this: the largest of these objects ends at 0x705_d109.
pub const HIGHEST_CODE: u64 = 1 << 28;
/// A null pointer and the offset of a member give an address below this.
pub const LOWEST_DATUM: u64 = 0x1000;

/// Bits of the error code (arch/x86/include/asm/trap_pf.h).
const PROTECTION: u64 = 1;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const RESERVED: u64 = 1 << 3;
const FETCH: u64 = 1 << 4;
const KEY: u64 = 1 << 5;
const SHADOW_STACK: u64 = 1 << 6;
const ENCLAVE: u64 = 1 << 15;

/// Exception classes of aarch64 (arch/arm64/include/asm/esr.h): a fetch and an access of a program.
const INSTRUCTION_ABORT: u64 = 0x20;
const DATA_ABORT: u64 = 0x24;

/// `ud2` and `ud1`, by which compilers end a program (`__builtin_trap`).
const TRAPS: [[u8; 2]; 2] = [[0x0f, 0x0b], [0x0f, 0xb9]];

/// The strength of the evidence in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogVerdict {
    /// It does not point to a file that was rewritten.
    Nothing,
    /// It may be one, and the line does not show it.
    Possible,
    /// It is what a lost relocation looks like.
    Signature,
}

/// The kind of crash that a line shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogSign {
    /// A jump to a tiny address at which objects have code.
    Jump,
    /// An access at a tiny address at which objects have data.
    Access,
    /// A call of a null pointer.
    NullCall,
    /// A jump to an address that is too small for code.
    LowJump,
    /// An access through a null pointer.
    NullAccess,
    /// A jump or an access at an address at which no object has anything without its base.
    Elsewhere,
    /// SIGBUS: perhaps a page behind the end of its file.
    Bus,
    /// An instruction that the processor does not know.
    InvalidOpcode,
    /// An instruction by which a program ends itself.
    OwnTrap,
    /// Another exception of the processor.
    OtherTrap,
    /// Memory that is broken.
    BrokenMemory,
    /// The line lacks the address.
    Incomplete,
}

impl LogSign {
    /// Returns how much it proves.
    pub fn verdict(self) -> LogVerdict {
        match self {
            Self::Jump => LogVerdict::Signature,
            Self::Access | Self::Bus | Self::InvalidOpcode | Self::Incomplete => LogVerdict::Possible,
            Self::NullCall
            | Self::LowJump
            | Self::NullAccess
            | Self::Elsewhere
            | Self::OwnTrap
            | Self::OtherTrap
            | Self::BrokenMemory => LogVerdict::Nothing,
        }
    }
}

impl LoggedCrash {
    /// Returns what the crash shows.
    pub fn sign(&self) -> LogSign {
        match &self.event {
            CrashEvent::Segfault => self.page_fault(),
            CrashEvent::Trap(name) if name == "invalid opcode" => {
                let is_own = self.code.get(..2).is_some_and(|code| TRAPS.iter().any(|trap| trap == code));
                if is_own { LogSign::OwnTrap } else { LogSign::InvalidOpcode }
            }
            CrashEvent::Trap(_) => LogSign::OtherTrap,
            CrashEvent::Exception(kind, signal) => self.exception(kind, *signal),
            CrashEvent::Ended(SIGBUS) => LogSign::Bus,
            CrashEvent::Ended(_) => LogSign::Incomplete,
            CrashEvent::BrokenMemory => LogSign::BrokenMemory,
        }
    }

    /// Returns the address without base that a lost relocation would have left, if the crash may come of one.
    pub fn small_address(&self) -> Option<u64> {
        match self.sign() {
            LogSign::Jump => self.ip.or(self.address),
            LogSign::Access => self.address,
            _ => None,
        }
    }

    /// A processor or a hypervisor without the bit for fetches reports a read at the address of the
    /// instruction.
    fn page_fault(&self) -> LogSign {
        let (Some(ip), Some(address)) = (self.ip, self.address) else { return LogSign::Incomplete };
        self.fault(address, ip == address, self.error.is_some_and(|error| error & PROTECTION != 0))
    }

    fn exception(&self, kind: &str, signal: Option<u32>) -> LogSign {
        if signal == Some(SIGBUS) {
            return LogSign::Bus;
        }
        if kind.to_ascii_lowercase().contains("undefined instruction") {
            return LogSign::InvalidOpcode;
        }
        let Some(syndrome) = self.syndrome else { return LogSign::OtherTrap };
        let is_unmapped = (0x04..=0x07).contains(&(syndrome & 0x3f));
        match syndrome >> 26 & 0x3f {
            INSTRUCTION_ABORT => match self.address.or(self.ip) {
                Some(address) => self.fault(address, true, !is_unmapped),
                None => LogSign::Incomplete,
            },
            DATA_ABORT => match self.address {
                Some(address) => self.fault(address, false, !is_unmapped),
                None if is_unmapped => LogSign::Incomplete,
                None => LogSign::Elsewhere,
            },
            _ => LogSign::OtherTrap,
        }
    }

    fn fault(&self, address: u64, is_jump: bool, is_mapped: bool) -> LogSign {
        let is_in_object = self.object.as_ref().is_some_and(|object| object.has(address));
        match address {
            0 if is_jump => LogSign::NullCall,
            _ if is_mapped || is_in_object || address >= HIGHEST_CODE => LogSign::Elsewhere,
            _ if is_jump && address < LOWEST_CODE => LogSign::LowJump,
            _ if is_jump => LogSign::Jump,
            _ if address < LOWEST_DATUM => LogSign::NullAccess,
            _ => LogSign::Access,
        }
    }
}

/// Returns the meaning of the error code of a page fault on x86-64.
pub fn error_words(error: u64) -> Vec<&'static str> {
    let access = match error & (FETCH | WRITE) {
        0 => "read",
        WRITE => "write",
        _ => "instruction fetch",
    };
    let mut words = vec![access];
    words.push(if error & USER != 0 { "in user mode" } else { "in kernel mode" });
    words.push(if error & PROTECTION == 0 { "no page is mapped there" } else { "the page forbids it" });
    let more = [
        (RESERVED, "a reserved bit is set in the page table"),
        (KEY, "a protection key forbids it"),
        (SHADOW_STACK, "of a shadow stack"),
        (ENCLAVE, "of an enclave"),
    ];
    words.extend(more.iter().filter(|(bit, _)| error & bit != 0).map(|(_, word)| *word));
    words
}

/// Returns the meaning of the syndrome register on aarch64.
pub fn syndrome_words(syndrome: u64) -> Vec<&'static str> {
    let class = syndrome >> 26 & 0x3f;
    let mut words = match class {
        INSTRUCTION_ABORT => vec!["instruction fetch"],
        DATA_ABORT if syndrome & 1 << 6 != 0 => vec!["write"],
        DATA_ABORT => vec!["read"],
        _ => return vec!["another exception"],
    };
    words.push(match syndrome & 0x3f {
        0x04..=0x07 => "no page is mapped there",
        0x09..=0x0b | 0x0d..=0x0f => "the page forbids it",
        0x10 | 0x14..=0x17 => "the memory reports an error",
        0x21 => "the address is not aligned",
        _ => "another fault",
    });
    words
}

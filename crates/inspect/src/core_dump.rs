//! Reads an ELF core dump (`elf(5)`, `core(5)`): what the process was, how it ended, which files
//! it had mapped, and the memory that was dumped. A dump is hostile input: this module trusts no
//! number in it, and what it keeps is bounded. It does not judge.
//!
//! Kernels, gdb and systemd write dumps differently:
//!
//! | dump | its peculiarities |
//! |---|---|
//! | of the kernel | a PT_LOAD header for each VMA; what `coredump_filter` leaves out has no bytes |
//! | of gdb (`gcore`) | a PT_LOAD header only for what was dumped; notes in another order |
//! | of systemd-coredump | the kernel's, cut off at `ExternalSizeMax` |

mod memory;
mod notes;

use object::elf::{EM_AARCH64, EM_X86_64, ET_CORE, PT_LOAD, PT_NOTE};
use rustix::io::Errno;

use crate::image::{ELF_HEADER, PROGRAM_HEADER};
use crate::memory::{Bytes, half_at, word_at};

pub use memory::{Content, DumpedRange};
pub use notes::{DumpOrigin, Fault, MappedRange, Thread, ThreadRegisters};

/// `e_phnum` where the number of headers is in the first section header (PN_XNUM).
const EXTENDED: u16 = 0xffff;
/// More program headers than any dump has: one for each VMA, of which a process has at most 65,530
/// unless `vm.max_map_count` was raised.
const MAX_HEADERS: u64 = 1 << 21;
/// Bytes of an `Elf64_Shdr`.
const SECTION_HEADER: u64 = 64;
/// Program headers end in front of this offset: every writer puts them at the beginning.
const MAX_START: u64 = 1 << 28;
/// Headers read at a time.
const BATCH: u64 = 4096;

/// The machine of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpMachine {
    /// EM_X86_64
    X86_64,
    /// EM_AARCH64
    Aarch64,
}

impl DumpMachine {
    /// Returns its name, as `uname -m` prints it.
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }
}

/// The reason for which a dump cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DumpFlaw {
    /// It cannot be read.
    Read(Errno),
    /// It is no ELF file.
    Foreign,
    /// It is an ELF file, but no core dump.
    NotADump,
    /// It is a dump of a machine or a word size that this program does not know.
    OtherMachine,
    /// Its headers make no sense.
    Malformed,
    /// It is cut off within its headers.
    Cut,
}

impl std::fmt::Display for DumpFlaw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Read(errno) => write!(f, "{}", std::io::Error::from(*errno)),
            Self::Foreign => f.write_str("not an ELF file"),
            Self::NotADump => f.write_str("an ELF file, but no core dump"),
            Self::OtherMachine => f.write_str("a core dump of another machine than x86-64 and aarch64"),
            Self::Malformed => f.write_str("its headers make no sense"),
            Self::Cut => f.write_str("it is cut off within its headers"),
        }
    }
}

/// A core dump.
pub struct CoreDump<'a, B> {
    file: &'a B,
    /// The machine of the process.
    pub machine: DumpMachine,
    /// The ranges of memory that have a header, ascending by address.
    ranges: Vec<DumpedRange>,
    /// Bytes of the dump's file.
    size: u64,
    /// The notes.
    pub notes: notes::DumpNotes,
}

impl<'a, B: Bytes> CoreDump<'a, B> {
    /// Reads the headers and the notes of a dump of `size` bytes.
    ///
    /// # Errors
    /// The flaw of the dump.
    pub fn read(file: &'a B, size: u64) -> Result<Self, DumpFlaw> {
        let header = FileHeader::read(file)?;
        let (ranges, note_places) = headers(file, header.start, header.count(file)?)?;
        let notes = notes::read(file, header.machine, &note_places);
        Ok(Self { file, machine: header.machine, ranges, size, notes })
    }
}

/// Returns where a dump ends, of which the first `size` bytes have been read, as its headers say;
/// `None` if more bytes are needed for that.
///
/// # Errors
/// When the bytes are not those of a dump.
pub fn extent(file: &impl Bytes, size: u64) -> Result<Option<u64>, DumpFlaw> {
    if size < ELF_HEADER as u64 {
        return Ok(None);
    }
    let header = FileHeader::read(file)?;
    if header.count == EXTENDED {
        // The kernel puts the section header behind everything else (fs/binfmt_elf.c).
        return Ok(Some(header.sections.saturating_add(SECTION_HEADER)));
    }
    let end = header.start.saturating_add(u64::from(header.count) * PROGRAM_HEADER as u64);
    if end > MAX_START {
        return Err(DumpFlaw::Malformed);
    }
    if size < end {
        return Ok(None);
    }
    let (ranges, notes) = headers(file, header.start, header.count.into())?;
    let ends = ranges.iter().map(|range| range.offset + range.file_size);
    Ok(ends.chain(notes.iter().map(|(offset, size)| offset.saturating_add(*size))).max())
}

/// The fields of the ELF header that this module uses.
struct FileHeader {
    machine: DumpMachine,
    /// Offset of the program headers in the dump.
    start: u64,
    /// Number of program headers, or [`EXTENDED`].
    count: u16,
    /// Offset of the section headers in the dump.
    sections: u64,
}

impl FileHeader {
    fn read(file: &impl Bytes) -> Result<Self, DumpFlaw> {
        let mut header = [0; ELF_HEADER];
        let got = file.read_some(0, &mut header).map_err(DumpFlaw::Read)?;
        if !header.starts_with(b"\x7fELF") {
            return Err(DumpFlaw::Foreign);
        }
        if got < ELF_HEADER {
            return Err(DumpFlaw::Cut);
        }
        let order = if cfg!(target_endian = "little") { 1 } else { 2 };
        if header[4..6] != [2, order] {
            return Err(DumpFlaw::OtherMachine);
        }
        let short = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        if short(16) != ET_CORE {
            return Err(DumpFlaw::NotADump);
        }
        let machine = match short(18) {
            EM_X86_64 => DumpMachine::X86_64,
            EM_AARCH64 => DumpMachine::Aarch64,
            _ => return Err(DumpFlaw::OtherMachine),
        };
        let word = |at: usize| word_at(&header, at).ok_or(DumpFlaw::Malformed);
        if usize::from(short(54)) != PROGRAM_HEADER {
            return Err(DumpFlaw::Malformed);
        }
        Ok(Self { machine, start: word(32)?, count: short(56), sections: word(40)? })
    }

    fn count(&self, file: &impl Bytes) -> Result<u64, DumpFlaw> {
        let count = if self.count == EXTENDED {
            // `sh_info` of the first section header.
            let at = self.sections.checked_add(44).ok_or(DumpFlaw::Malformed)?;
            u64::from(u32::from_ne_bytes(file.read_array(at).map_err(|_| DumpFlaw::Cut)?))
        } else {
            u64::from(self.count)
        };
        if count == 0 || count > MAX_HEADERS { Err(DumpFlaw::Malformed) } else { Ok(count) }
    }
}

/// Reads the program headers: the ranges of memory, and where the notes are.
#[allow(clippy::type_complexity, reason = "a pair that is taken apart at once")]
fn headers(file: &impl Bytes, start: u64, count: u64) -> Result<(Vec<DumpedRange>, Vec<(u64, u64)>), DumpFlaw> {
    let (mut ranges, mut notes) = (Vec::new(), Vec::new());
    let mut done = 0;
    while done < count {
        let taken = BATCH.min(count - done);
        let place = start.checked_add(done * PROGRAM_HEADER as u64).ok_or(DumpFlaw::Malformed)?;
        let len = usize::try_from(taken).unwrap_or(0) * PROGRAM_HEADER;
        let bytes = file.read_exact(place, len).map_err(|_| DumpFlaw::Cut)?;
        for header in bytes.chunks_exact(PROGRAM_HEADER) {
            let word = |offset| word_at(header, offset).ok_or(DumpFlaw::Malformed);
            let (kind, flags) = (half_at(header, 0), half_at(header, 4).unwrap_or(0));
            let (offset, address, file_size, size) = (word(8)?, word(16)?, word(32)?, word(40)?);
            if kind == Some(PT_LOAD) && size != 0 {
                // The last page of the address space (vsyscall) ends in front of the wrap.
                let end = address.checked_add(size).ok_or(DumpFlaw::Malformed)?;
                offset.checked_add(file_size).ok_or(DumpFlaw::Malformed)?;
                ranges.push(DumpedRange { start: address, end, offset, file_size: file_size.min(size), flags });
            } else if kind == Some(PT_NOTE) {
                notes.push((offset, file_size));
            }
        }
        done += taken;
    }
    if ranges.is_empty() && notes.is_empty() {
        return Err(DumpFlaw::Malformed);
    }
    ranges.sort_by_key(|range: &DumpedRange| range.start);
    Ok((ranges, notes))
}

#[cfg(test)]
pub(crate) mod tests;

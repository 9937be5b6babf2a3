//! The memory in a core dump. It distinguishes what was dumped, what the dump leaves out, and what
//! is missing because the dump's file was cut short.

use object::elf::{PF_R, PF_W, PF_X};
use rustix::io::Errno;

use super::CoreDump;
use crate::memory::Bytes;

/// A range of memory that has a header in the dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DumpedRange {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
    /// Offset of its first byte in the dump.
    pub offset: u64,
    /// Number of its bytes that belong in the dump; the dump's file may be cut off before.
    pub file_size: u64,
    /// PF_R, PF_W and PF_X.
    pub flags: u32,
}

impl DumpedRange {
    /// Returns whether the process could store to it when it was dumped.
    pub fn is_writable(&self) -> bool {
        self.flags & PF_W != 0
    }

    /// Returns whether the process could execute it.
    pub fn is_executable(&self) -> bool {
        self.flags & PF_X != 0
    }

    /// Returns whether the process could access it at all.
    pub fn is_accessible(&self) -> bool {
        self.flags & (PF_R | PF_W | PF_X) != 0
    }
}

/// Says whether a dump has the byte at an address. The number is one past the last address for which the same is true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Its bytes. Pages that the kernel could not read, because they lie behind the end of their
    /// file, are zeroes (`dump_user_range`, fs/coredump.c).
    Dumped(u64),
    /// No bytes: `coredump_filter`, or gdb's rules, left them out.
    Omitted(u64),
    /// They were dumped, but the dump's file is cut off in front of them.
    Cut(u64),
    /// There is no header for it: nothing was mapped, or gdb has left it out.
    Unknown(u64),
}

impl<B: Bytes> CoreDump<'_, B> {
    /// Returns the ranges of memory, ascending by address.
    pub fn ranges(&self) -> &[DumpedRange] {
        &self.ranges
    }

    /// Returns the range that contains an address.
    pub fn range(&self, address: u64) -> Option<&DumpedRange> {
        let count = self.ranges.partition_point(|range| range.start <= address);
        self.ranges.get(count.checked_sub(1)?).filter(|range| address < range.end)
    }

    /// Returns what the dump has of an address.
    pub fn content(&self, address: u64) -> Content {
        let Some(range) = self.range(address) else {
            let next = self.ranges.partition_point(|range| range.start <= address);
            return Content::Unknown(self.ranges.get(next).map_or(u64::MAX, |range| range.start));
        };
        let dumped_end = range.start + range.file_size;
        if address >= dumped_end {
            return Content::Omitted(range.end);
        }
        let left = self.size.saturating_sub(range.offset).min(range.file_size);
        let present_end = range.start + left;
        if address < present_end { Content::Dumped(present_end) } else { Content::Cut(dumped_end) }
    }

    /// Returns whether the dump's file ends in front of bytes that its headers promise.
    pub fn is_cut(&self) -> bool {
        self.ranges.iter().any(|range| range.offset + range.file_size > self.size)
    }
}

impl<B: Bytes> Bytes for CoreDump<'_, B> {
    fn read_some(&self, at: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let Some(address) = at.checked_add(done as u64) else { break };
            let (Some(range), Content::Dumped(end)) = (self.range(address), self.content(address)) else { break };
            let len = rest.len().min(usize::try_from(end - address).unwrap_or(usize::MAX));
            let Some(rest) = rest.get_mut(..len) else { break };
            let got = self.file.read_some(range.offset + (address - range.start), rest)?;
            done += got;
            if got < len {
                break;
            }
        }
        if done == 0 && !buffer.is_empty() { Err(Errno::IO) } else { Ok(done) }
    }
}

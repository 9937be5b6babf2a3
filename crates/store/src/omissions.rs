//! Which parts of a large file a copy leaves out: debugging information, which no process maps. In
//! builds for debugging it is most of the file. Copying it would take time, memory and disk.
//!
//! ```text
//! file   | ELF header, segments | .debug_*   | .symtab .strtab .gnu_debug* | section headers           |
//! copy   | the same bytes       | a hole     | the same bytes              | .debug_*: NOBITS, 0 bytes |
//! ```
//!
//! A program that opens the copy must not take the hole for debugging information. So the section
//! headers of the copy say that these sections have no bytes (`SHT_NOBITS` of `elf(5)`), as those of
//! a separate file with debugging information say of the others. Readers of ELF files then find an
//! object without debugging information, and its symbols. What names functions and unwinds stacks
//! is always copied: `.symtab`, `.eh_frame`, `.debug_frame`.
//!
//! The price is that tools which open the file that `/proc/PID/maps` names, such as perf, find no line
//! numbers. Debuggers open the file that the loader names. So nothing is left out where that
//! saves little, nor of executables: for these, Rust's own backtraces open the copy too.
//!
//! What a process may map is always copied, and never differs from the file: no hole touches a page
//! of a segment, whatever the page size, and nothing is left out of a file whose section headers
//! could be mapped. This module must not depend on anything but the bytes of the file, because
//! a later boot decides by them what an entry must contain.

use core::ops::Range;

use sopin_core::pages::PageVec;
use sopin_core::sys::{self, Fd};

/// Holes begin and end at multiples of this: the largest page.
const ALIGNMENT: u64 = 64 << 10;
/// The bytes from which on debugging information is left out. Less is copied in some hundredths of
/// a second, and line numbers are worth that.
const WORTHWHILE: u64 = 64 << 20;
/// Bytes of program headers, section headers and names that are read at most.
const ROOM: usize = 32 << 10;

const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const SHT_PROGBITS: u32 = 1;
const SHT_NOBITS: u32 = 8;
const SHF_ALLOC: u64 = 2;
/// Where a section header has the section's type and length (`Elf64_Shdr`).
const TYPE: u64 = 4;
const LEN: u64 = 32;

/// The parts of a file that a copy leaves out.
#[derive(Default)]
pub struct Omissions {
    /// The holes, in ascending order.
    holes: PageVec<(u64, u64)>,
    /// The offsets of the headers of sections that have no bytes in the copy.
    headers: PageVec<u64>,
}

impl Omissions {
    /// Finds what to leave out of a copy of `file`, which has `size` bytes: nothing if it is not
    /// worth the trouble.
    pub fn worthwhile(file: &Fd, size: u64) -> Self {
        if size < WORTHWHILE {
            return Self::default();
        }
        let omissions = Self::find(file, size);
        if omissions.bytes() < WORTHWHILE { Self::default() } else { omissions }
    }

    /// Finds what `entry`, a copy of `file`, may lack.
    pub fn of_entry(entry: &Fd, file: &Fd, size: u64) -> Self {
        if size < WORTHWHILE {
            return Self::default();
        }
        let omissions = Self::find(file, size);
        let mut word = [0; 4];
        let first = omissions.headers.first().map(|at| sys::pread_all(entry, &mut word, *at + TYPE));
        // A file system that shares blocks has made a copy of everything.
        let is_whole = !matches!(first, Some(Ok(word)) if word == SHT_NOBITS.to_ne_bytes());
        if is_whole { Self::default() } else { omissions }
    }

    fn find(file: &Fd, size: u64) -> Self {
        let Ok(mut buffer) = PageVec::zeroed(2 * ROOM) else { return Self::default() };
        Sections::read(file, size, &mut buffer).and_then(|sections| sections.omissions(size)).unwrap_or_default()
    }

    /// Returns whether a copy has all bytes of its file.
    pub fn is_empty(&self) -> bool {
        self.holes.is_empty() && self.headers.is_empty()
    }

    fn bytes(&self) -> u64 {
        self.holes.iter().map(|(start, end)| end - start).sum()
    }

    /// Returns the next bytes at or behind `offset` that are copied; they may end behind the file.
    pub fn next_copied(&self, offset: u64) -> Range<u64> {
        let mut start = offset;
        for (hole_start, hole_end) in self.holes.iter() {
            if start < *hole_start {
                return start..*hole_start;
            }
            start = start.max(*hole_end);
        }
        start..u64::MAX
    }

    /// Changes the bytes at `offset` of the file to those of the copy.
    pub fn apply(&self, bytes: &mut [u8], offset: u64) {
        let mut put = |at: u64, value: &[u8]| {
            for (place, value) in (at..).zip(value) {
                let index = place.checked_sub(offset).and_then(|index| usize::try_from(index).ok());
                if let Some(byte) = index.and_then(|index| bytes.get_mut(index)) {
                    *byte = *value;
                }
            }
        };
        for header in self.headers.iter() {
            put(*header + TYPE, &SHT_NOBITS.to_ne_bytes());
            put(*header + LEN, &[0; 8]);
        }
    }
}

/// What an ELF file says of its parts (`elf(5)`). Only the files of this machine's own objects are
/// read, so words have its byte order.
struct Sections<'a> {
    programs: &'a [u8],
    headers: &'a [u8],
    names: &'a [u8],
    /// Where program headers and section headers are.
    tables: [Range<u64>; 2],
}

impl<'a> Sections<'a> {
    /// Reads the headers into `buffer`. `None` if the file is not an ELF file or is unusual.
    fn read(file: &Fd, size: u64, buffer: &'a mut [u8]) -> Option<Self> {
        let mut start = [0; size_of::<libc::Elf64_Ehdr>()];
        sys::pread_all(file, &mut start, 0).ok().filter(|read| read.starts_with(b"\x7fELF\x02"))?;
        let (programs, headers) = (word(&start, 32)?, word(&start, 40)?);
        let (program_size, program_count) = (half(&start, 54)?, half(&start, 56)?);
        let (header_size, header_count, names) = (half(&start, 58)?, half(&start, 60)?, half(&start, 62)?);
        // The words to be changed are aligned, so that none of them lies in two pages.
        let is_usual = program_size == size_of::<libc::Elf64_Phdr>()
            && header_size == size_of::<libc::Elf64_Shdr>()
            && headers.is_multiple_of(8);
        let (program_bytes, header_bytes) = (program_size * program_count, header_size * header_count);
        let (tables, text) = buffer.split_at_mut_checked(ROOM)?;
        let (program_room, rest) = tables.split_at_mut_checked(program_bytes)?;
        let program_headers = sys::pread_all(file, program_room, programs).ok()?;
        let section_headers = sys::pread_all(file, rest.get_mut(..header_bytes)?, headers).ok()?;
        let of_names = section_headers.get(names * header_size..)?;
        let len = usize::try_from(word(of_names, 32)?).ok()?;
        let text = sys::pread_all(file, text.get_mut(..len)?, word(of_names, 24)?).ok()?;
        let place = |offset: u64, len: usize| Some(offset..offset.checked_add(len as u64).filter(|end| *end <= size)?);
        let tables = [place(programs, program_bytes)?, place(headers, header_bytes)?];
        let is_whole = program_headers.len() == program_bytes && section_headers.len() == header_bytes;
        (is_usual && is_whole && text.len() == len).then_some(Self {
            programs: program_headers,
            headers: section_headers,
            names: text,
            tables,
        })
    }

    /// Returns what may be left out. `None` if that is nothing, or if there is no memory.
    fn omissions(&self, size: u64) -> Option<Omissions> {
        let mut omissions = Omissions::default();
        let [programs, headers] = &self.tables;
        let is_executable = self.program_headers(PT_INTERP).next().is_some();
        if is_executable || self.segments().any(|segment| overlap(&segment, headers)) {
            return None;
        }
        for (index, header) in self.headers.chunks_exact(size_of::<libc::Elf64_Shdr>()).enumerate() {
            let Some(section) = self.omissible(header).filter(|range| !range.is_empty()) else { continue };
            // No linker makes a file in which other parts lie in such a section. All of them are left
            // out or none, because a part of debugging information misleads its readers.
            let is_alone = section.end <= size
                && !overlap(&section, programs)
                && !overlap(&section, headers)
                && self.kept_sections().all(|kept| !overlap(&section, &kept));
            if !is_alone {
                return None;
            }
            omissions.headers.push(headers.start + (index * size_of::<libc::Elf64_Shdr>()) as u64).ok()?;
            // The last page of a segment may hold the beginning of the section, or all of it.
            let hole = self.segments().fold(section, without);
            if !hole.is_empty() {
                add(&mut omissions.holes, hole)?;
            }
        }
        for (start, end) in omissions.holes.iter_mut() {
            // The copy gets its size from the last bytes that are written.
            let last = size.saturating_sub(1).min(*end);
            (*start, *end) = (start.next_multiple_of(ALIGNMENT), last / ALIGNMENT * ALIGNMENT);
        }
        omissions.holes.retain(|(start, end)| start < end);
        (!omissions.holes.is_empty()).then_some(omissions)
    }

    fn program_headers(&self, kind: u32) -> impl Iterator<Item = &[u8]> {
        let headers = self.programs.chunks_exact(size_of::<libc::Elf64_Phdr>());
        headers.filter(move |header| single(header, 0) == Some(kind))
    }

    /// Returns the parts of the file that the loader maps, in the largest pages.
    fn segments(&self) -> impl Iterator<Item = Range<u64>> {
        self.program_headers(PT_LOAD).map(|header| {
            let (offset, len) = (word(header, 8).unwrap_or_default(), word(header, 32).unwrap_or(u64::MAX));
            let end = offset.saturating_add(len).checked_next_multiple_of(ALIGNMENT).unwrap_or(u64::MAX);
            offset / ALIGNMENT * ALIGNMENT..end
        })
    }

    /// Returns the bytes of a section that may be left out.
    fn omissible(&self, header: &[u8]) -> Option<Range<u64>> {
        let name = self.names.get(single(header, 0)? as usize..)?;
        let has_debugging_information =
            [&b".debug_"[..], b".zdebug_", b".gdb_index\0"].iter().any(|n| name.starts_with(n));
        let is_omissible = has_debugging_information
            && !name.starts_with(b".debug_frame\0")
            && single(header, 4)? == SHT_PROGBITS
            && word(header, 8)? & SHF_ALLOC == 0;
        is_omissible.then(|| bytes_of(header)).flatten()
    }

    /// Returns the bytes of all other sections.
    fn kept_sections(&self) -> impl Iterator<Item = Range<u64>> {
        let headers = self.headers.chunks_exact(size_of::<libc::Elf64_Shdr>());
        headers.filter(|header| self.omissible(header).is_none() && single(header, 4) != Some(SHT_NOBITS)).map(
            |header| {
                // If a header makes no sense, nothing is left out.
                bytes_of(header).unwrap_or(0..u64::MAX)
            },
        )
    }
}

fn bytes_of(header: &[u8]) -> Option<Range<u64>> {
    let (offset, len) = (word(header, 24)?, word(header, 32)?);
    Some(offset..offset.checked_add(len)?)
}

fn half(bytes: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?)))
}

fn single(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

const fn overlap(left: &Range<u64>, right: &Range<u64>) -> bool {
    left.start < right.end && right.start < left.end
}

/// Returns the part of `range` behind or before `kept`; nothing if `kept` lies inside it.
fn without(range: Range<u64>, kept: Range<u64>) -> Range<u64> {
    if !overlap(&range, &kept) {
        range
    } else if kept.start <= range.start {
        kept.end.min(range.end)..range.end
    } else if kept.end >= range.end {
        range.start..kept.start
    } else {
        range.end..range.end
    }
}

/// Adds a hole to those that are sorted. A hole that begins close behind another one continues it:
/// between sections there are only bytes for their alignment. `None` if the sections are not in the
/// order of their headers, as linkers write them, or if there is no memory.
fn add(holes: &mut PageVec<(u64, u64)>, hole: Range<u64>) -> Option<()> {
    const PADDING: u64 = 64;
    match holes.last_mut() {
        Some((_, end)) if hole.start < *end => None,
        Some((_, end)) if hole.start - *end < PADDING => {
            *end = hole.end;
            Some(())
        }
        _ => holes.push((hole.start, hole.end)).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::vec::Vec;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::test_runner::Config;

    const NAMES: &[u8] = b"\0.text\0.debug_info\0.debug_frame\0.zdebug_line\0";
    const SIZE: u64 = 1 << 26;

    /// Bytes of a file that often are next to each other, or the same.
    fn place() -> impl Strategy<Value = (u64, u64)> {
        (0_u64..64, 0_u64..0x2000, 0_u64..64, 0_u64..0x2000)
            .prop_map(|(start, more, len, less)| ((start << 20) + more, (len << 19) + less))
    }

    fn program_header((offset, len): (u64, u64)) -> [u8; 56] {
        let mut header = [0; 56];
        header[..4].copy_from_slice(&PT_LOAD.to_ne_bytes());
        header[8..16].copy_from_slice(&offset.to_ne_bytes());
        header[32..40].copy_from_slice(&len.to_ne_bytes());
        header
    }

    fn section_header(name: usize, (offset, len): (u64, u64)) -> [u8; 64] {
        let mut header = [0; 64];
        header[..4].copy_from_slice(&(name as u32).to_ne_bytes());
        header[4..8].copy_from_slice(&SHT_PROGBITS.to_ne_bytes());
        header[24..32].copy_from_slice(&offset.to_ne_bytes());
        header[32..40].copy_from_slice(&len.to_ne_bytes());
        header
    }

    proptest! {
        #![proptest_config(Config { failure_persistence: None, ..Config::default() })]

        #[test]
        #[cfg_attr(miri, ignore = "takes long")]
        fn what_a_segment_maps_is_copied_unchanged(
            segments in vec(place(), 0..4),
            sections in vec((proptest::sample::select(std::vec![1_usize, 7, 7, 7, 19, 32]), place()), 0..5),
            headers in (0..SIZE / 8).prop_map(|at| at * 8),
        ) {
            let programs: Vec<u8> = segments.iter().flat_map(|place| program_header(*place)).collect();
            let table: Vec<u8> = sections.iter().flat_map(|(name, place)| section_header(*name, *place)).collect();
            let place = headers..headers + table.len() as u64;
            let parts = Sections { programs: &programs, headers: &table, names: NAMES, tables: [64..64 + 56 * 4, place] };
            let omissions = parts.omissions(SIZE).unwrap_or_default();
            for page in [0x1000, 0x4000, 0x1_0000] {
                for (offset, len) in &segments {
                    let mapped = offset / page * page..(offset + len).next_multiple_of(page);
                    if mapped.is_empty() { continue; }
                    for (start, end) in omissions.holes.iter() {
                        prop_assert!(!overlap(&(*start..*end), &mapped), "{start:#x} {mapped:#x?}");
                    }
                    for at in omissions.headers.iter() {
                        prop_assert!(!overlap(&(*at..at + 64), &mapped), "{at:#x} {mapped:#x?}");
                    }
                }
            }
            // Every byte of a hole is one of debugging information, or pads it.
            let mut at = 0;
            while at < SIZE {
                let copied = omissions.next_copied(at);
                for (start, end) in omissions.holes.iter() {
                    prop_assert!(!overlap(&(*start..*end), &copied));
                    prop_assert!(start < end && *end < SIZE && start % ALIGNMENT == 0 && end % ALIGNMENT == 0);
                    let inside = |(name, (offset, len)): &(usize, (u64, u64))| {
                        *name != 1 && *name != 19 && *start < offset + len && *offset < *end
                    };
                    prop_assert!(sections.iter().any(inside));
                }
                for (name, (offset, len)) in &sections {
                    let is_kept = *name == 1 || *name == 19;
                    let hole = omissions.holes.iter().any(|(start, end)| *len > 0 && overlap(&(*start..*end), &(*offset..offset + len)));
                    prop_assert!(!is_kept || !hole);
                }
                at = copied.end;
            }
        }
    }
}

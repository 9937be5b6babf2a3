//! Program headers and dynamic section of a 64-bit ELF object of this machine's byte order,
//! from a file or from memory. This module trusts none of what it reads.

use object::elf::{
    DF_TEXTREL, DT_FLAGS, DT_NULL, DT_TEXTREL, EM_AARCH64, EM_X86_64, PF_W, PF_X, PT_DYNAMIC, PT_GNU_RELRO, PT_LOAD,
    PT_NOTE, PT_PHDR,
};
use rustix::io::Errno;
use sopin_core::build_id::{self, ROOM};

use crate::memory::{Bytes, half_at, word_at};

/// Bytes of an `Elf64_Ehdr`.
pub const ELF_HEADER: usize = 64;
/// Bytes of an `Elf64_Phdr`.
pub const PROGRAM_HEADER: usize = 56;
/// Bytes of an `Elf64_Dyn`.
const DYNAMIC_ENTRY: usize = 16;
/// More program headers than any linker makes.
const MAX_HEADERS: usize = 256;
/// PT_NOTE segments that are kept; linkers make one or two.
const MAX_NOTES: usize = 8;
/// Longest dynamic section that is read, in bytes: one with some thousands of DT_NEEDED.
const MAX_DYNAMIC: u64 = 1 << 16;
/// `\x7fELF`, 64 bits, this machine's byte order.
const IDENTITY: [u8; 6] = [0x7f, b'E', b'L', b'F', 2, if cfg!(target_endian = "little") { 1 } else { 2 }];

/// A PT_LOAD header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadHeader {
    /// `p_vaddr`
    pub address: u64,
    /// `p_memsz`
    pub size: u64,
    /// `p_filesz`
    pub file_size: u64,
    /// `p_offset`
    pub offset: u64,
    /// PF_W is set: it holds .data and RELRO.
    pub is_writable: bool,
    /// PF_X is set: it holds code.
    pub is_executable: bool,
}

/// The parsed program headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// The PT_LOAD headers, ascending.
    pub segments: Vec<LoadHeader>,
    /// Address and size of the dynamic section.
    pub dynamic: Option<(u64, u64)>,
    /// Address and size of PT_GNU_RELRO.
    pub relro: Option<(u64, u64)>,
    /// Address of the program headers themselves.
    pub own: Option<u64>,
    /// Offset and size in the file of the first PT_NOTE segments.
    pub notes: Vec<(u64, u64)>,
}

/// Why an object cannot be examined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It cannot be read.
    Read(Errno),
    /// It is not an ELF object.
    Foreign,
    /// It is an ELF object for a machine that this program does not know.
    OtherMachine,
    /// Its headers contradict themselves.
    Malformed,
}

impl From<Errno> for Flaw {
    fn from(errno: Errno) -> Self {
        Self::Read(errno)
    }
}

impl std::fmt::Display for Flaw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Read(errno) => write!(f, "{}", std::io::Error::from(*errno)),
            Self::Foreign => f.write_str("not an ELF file"),
            Self::OtherMachine => f.write_str("an ELF file of another machine or word size"),
            Self::Malformed => f.write_str("its headers make no sense"),
        }
    }
}

/// The numbers of the examined relocation types on one machine (`elf.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelocationTypes {
    /// Word = base + addend.
    pub relative: u32,
    /// Word = symbol + addend.
    pub absolute: u32,
    /// Word = symbol.
    pub global: u32,
    /// Word = function, with lazy binding only when it is called first.
    pub jump: u32,
    /// Word = what the function at base + addend returns.
    pub indirect: u32,
}

const X86_64: RelocationTypes = RelocationTypes { relative: 8, absolute: 1, global: 6, jump: 7, indirect: 37 };
const AARCH64: RelocationTypes =
    RelocationTypes { relative: 1027, absolute: 257, global: 1025, jump: 1026, indirect: 1032 };

/// Reads the ELF header at `at`: the machine, and the program headers.
///
/// # Errors
/// What is wrong with the object.
pub fn read(bytes: &impl Bytes, at: u64) -> Result<(RelocationTypes, Headers), Flaw> {
    // Linkers write the program headers directly behind the ELF header.
    let mut beginning = vec![0; ELF_HEADER + 15 * PROGRAM_HEADER];
    let got = bytes.read_some(at, &mut beginning)?;
    beginning.truncate(got);
    if got == 0 {
        return Err(Flaw::Read(Errno::IO));
    }
    if !beginning.starts_with(&IDENTITY) {
        let is_elf = beginning.starts_with(&IDENTITY[..4]);
        return Err(if is_elf { Flaw::OtherMachine } else { Flaw::Foreign });
    }
    let short = |offset: usize| beginning.get(offset..).and_then(|rest| rest.first_chunk()).copied();
    let machine = match short(18).map(u16::from_ne_bytes).ok_or(Flaw::Malformed)? {
        EM_X86_64 => X86_64,
        EM_AARCH64 => AARCH64,
        _ => return Err(Flaw::OtherMachine),
    };
    let offset = word_at(&beginning, 32).ok_or(Flaw::Malformed)?;
    let count = short(56).map(u16::from_ne_bytes).ok_or(Flaw::Malformed)?;
    let len = usize::from(count) * PROGRAM_HEADER;
    let start = usize::try_from(offset).map_err(|_| Flaw::Malformed)?;
    if short(54).map(u16::from_ne_bytes).map(usize::from) != Some(PROGRAM_HEADER) {
        return Err(Flaw::Malformed);
    }
    match beginning.get(start..).and_then(|rest| rest.get(..len)) {
        Some(headers) => Ok((machine, Headers::parse(headers)?)),
        None if usize::from(count) <= MAX_HEADERS => {
            let place = at.checked_add(offset).ok_or(Flaw::Malformed)?;
            Ok((machine, Headers::parse(&bytes.read_exact(place, len)?)?))
        }
        None => Err(Flaw::Malformed),
    }
}

impl Headers {
    /// Parses an array of `Elf64_Phdr`.
    ///
    /// # Errors
    /// When there is no segment, or one overflows, or they are not ascending.
    pub fn parse(bytes: &[u8]) -> Result<Self, Flaw> {
        let mut headers = Self::default();
        for header in bytes.chunks_exact(PROGRAM_HEADER) {
            let half = |offset| half_at(header, offset).ok_or(Flaw::Malformed);
            let word = |offset| word_at(header, offset).ok_or(Flaw::Malformed);
            let (kind, flags, address, size) = (half(0)?, half(4)?, word(16)?, word(40)?);
            match kind {
                PT_LOAD if size != 0 => {
                    let segment = LoadHeader {
                        address,
                        size,
                        file_size: word(32)?.min(size),
                        offset: word(8)?,
                        is_writable: flags & PF_W != 0,
                        is_executable: flags & PF_X != 0,
                    };
                    let ends = |at: u64| at.checked_add(size).is_some_and(|end| end < 1 << 63);
                    let is_next = headers.segments.last().is_none_or(|last| last.address + last.size <= address);
                    if !ends(address) || !ends(segment.offset) || !is_next {
                        return Err(Flaw::Malformed);
                    }
                    headers.segments.push(segment);
                }
                PT_DYNAMIC => headers.dynamic = Some((address, size)),
                PT_GNU_RELRO => headers.relro = Some((address, size)),
                PT_PHDR => headers.own = Some(address),
                PT_NOTE if headers.notes.len() < MAX_NOTES => headers.notes.push((word(8)?, word(32)?)),
                _ => {}
            }
        }
        if headers.segments.is_empty() { Err(Flaw::Malformed) } else { Ok(headers) }
    }

    /// Returns the first address of the object and one past its last, in whole pages.
    pub fn span(&self, page: u64) -> (u64, u64) {
        let start = self.segments.first().map_or(0, |segment| segment.address);
        let end = self.segments.last().map_or(0, |segment| segment.address + segment.size);
        (start & !(page - 1), end.next_multiple_of(page))
    }

    /// Returns the offset in the file of the byte that is loaded at an address; `None` if the
    /// byte is not from the file.
    pub fn offset_of(&self, address: u64) -> Option<u64> {
        let within =
            |segment: &&LoadHeader| address.checked_sub(segment.address).is_some_and(|at| at < segment.file_size);
        let segment = self.segments.iter().find(within)?;
        Some(segment.offset + (address - segment.address))
    }

    /// Returns whether the library finds a build-id in an object that was loaded from a file with these
    /// headers. It looks into the beginning of notes, in memory: the loader does not map others.
    pub fn show_build_id_in(&self, file: &impl Bytes) -> bool {
        let is_loaded = |offset: u64, size: u64| {
            let within = |segment: &LoadHeader| {
                let start = offset.checked_sub(segment.offset);
                start.and_then(|start| start.checked_add(size)).is_some_and(|end| end <= segment.file_size)
            };
            self.segments.iter().any(within)
        };
        let mut loaded = self.notes.iter().filter(|(offset, size)| is_loaded(*offset, *size));
        loaded.any(|(offset, size)| build_id_in(file, *offset, (*size).min(ROOM as u64)).is_some())
    }
}

/// Returns the build-id in notes of this size, which begin at an offset.
pub fn build_id_in(bytes: &impl Bytes, offset: u64, size: u64) -> Option<Vec<u8>> {
    let mut notes = vec![0; usize::try_from(size).ok()?];
    let got = bytes.read_some(offset, &mut notes).ok()?;
    build_id::find(notes.get(..got)?).map(<[u8]>::to_vec)
}

/// The entries of a dynamic section, up to DT_NULL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DynamicEntries(pub Vec<(u64, u64)>);

impl DynamicEntries {
    /// Reads the section of `size` bytes at `at`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(bytes: &impl Bytes, at: u64, size: u64) -> Result<Self, Flaw> {
        let len = usize::try_from(size.min(MAX_DYNAMIC)).map_err(|_| Flaw::Malformed)?;
        Ok(Self::parse(&bytes.read_exact(at, len)?))
    }

    /// Reads the section of a file with these headers; empty without one.
    ///
    /// # Errors
    /// When it is not in the file, or cannot be read.
    pub fn of_file(file: &impl Bytes, headers: &Headers) -> Result<Self, Flaw> {
        let Some((address, size)) = headers.dynamic else { return Ok(Self::default()) };
        Self::read(file, headers.offset_of(address).ok_or(Flaw::Malformed)?, size)
    }

    fn parse(bytes: &[u8]) -> Self {
        let entries = bytes.chunks_exact(DYNAMIC_ENTRY);
        let pairs = entries.filter_map(|entry| Some((word_at(entry, 0)?, word_at(entry, 8)?)));
        Self(pairs.take_while(|(tag, _)| *tag != u64::from(DT_NULL)).collect())
    }

    /// Returns the value with this tag.
    pub fn get(&self, tag: u32) -> Option<u64> {
        self.0.iter().find(|(found, _)| *found == u64::from(tag)).map(|(_, value)| *value)
    }

    /// Returns whether read-only segments are relocated too.
    pub fn has_text_relocations(&self) -> bool {
        self.get(DT_TEXTREL).is_some() || self.get(DT_FLAGS).is_some_and(|flags| flags & u64::from(DF_TEXTREL) != 0)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::memory::tests::Array;

    /// Returns a program header.
    pub fn header(kind: u32, flags: u32, offset: u64, address: u64, file_size: u64, size: u64) -> Vec<u8> {
        let words = [offset, address, address, file_size, size, 0x1000];
        let halves = [kind, flags].into_iter().flat_map(u32::to_ne_bytes);
        halves.chain(words.into_iter().flat_map(u64::to_ne_bytes)).collect()
    }

    /// Returns the program headers of an ordinary object.
    pub fn ordinary() -> Vec<u8> {
        let text = header(PT_LOAD, 5, 0, 0, 0x1800, 0x1800);
        let data = header(PT_LOAD, 6, 0x1800, 0x2800, 0x400, 0x2000);
        [
            text,
            data,
            header(PT_DYNAMIC, 6, 0x1900, 0x2900, 0x100, 0x100),
            header(PT_GNU_RELRO, 4, 0, 0x2800, 0x800, 0x800),
        ]
        .concat()
    }

    /// Returns the beginning of an ordinary object.
    pub fn file() -> Vec<u8> {
        let mut bytes = vec![0; ELF_HEADER];
        bytes[..6].copy_from_slice(&IDENTITY);
        bytes[18..20].copy_from_slice(&EM_X86_64.to_ne_bytes());
        bytes[32..40].copy_from_slice(&(ELF_HEADER as u64).to_ne_bytes());
        bytes[54..56].copy_from_slice(&56_u16.to_ne_bytes());
        let headers = ordinary();
        bytes[56] = u8::try_from(headers.len() / PROGRAM_HEADER).unwrap();
        bytes.extend(headers);
        bytes
    }

    #[test]
    fn an_object_is_read_from_its_beginning() {
        let (machine, headers) = read(&Array(0x7000, file()), 0x7000).unwrap();
        assert_eq!((machine, headers), (X86_64, Headers::parse(&ordinary()).unwrap()));
        let mut other = file();
        other[18] = 3;
        assert_eq!(read(&Array(0, other), 0), Err(Flaw::OtherMachine));
        for cut in 1..file().len() {
            assert!(read(&Array(0, file()[..cut].to_vec()), 0).is_err(), "{cut}");
        }
    }

    #[test]
    fn segments_span_whole_pages() {
        let headers = Headers::parse(&ordinary()).unwrap();
        assert_eq!(headers.span(0x1000), (0, 0x5000));
        assert_eq!(headers.span(0x10000), (0, 0x10000));
        assert_eq!(headers.dynamic, Some((0x2900, 0x100)));
        assert_eq!(headers.offset_of(0x2900), Some(0x1900));
        assert_eq!(headers.offset_of(0x2c00), None, "the part without bytes in the file");
        assert!(headers.segments[1].is_writable && !headers.segments[0].is_writable);
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(Headers::parse(&[]), Err(Flaw::Malformed));
        for (offset, address, size) in [(0, u64::MAX, 2), (u64::MAX, 0, 2), (0, 1 << 62, 1 << 62)] {
            let bytes = header(PT_LOAD, 5, offset, address, size, size);
            assert_eq!(Headers::parse(&bytes), Err(Flaw::Malformed), "{offset:x} {address:x} {size:x}");
        }
        let descending = [header(PT_LOAD, 5, 0, 0x2000, 8, 8), header(PT_LOAD, 5, 0, 0x1000, 8, 8)].concat();
        assert_eq!(Headers::parse(&descending), Err(Flaw::Malformed));
    }

    #[test]
    fn objects_of_another_kind_are_reported() {
        let read = |bytes: Vec<u8>| read(&Array(0, bytes), 0).map(drop);
        assert_eq!(read(b"#!/bin/sh\n".to_vec()), Err(Flaw::Foreign));
        assert_eq!(read(b"\x7fELF\x01\x01\x01".to_vec()), Err(Flaw::OtherMachine));
        assert_eq!(read(IDENTITY.to_vec()), Err(Flaw::Malformed));
        assert_eq!(read(Vec::new()), Err(Flaw::Read(Errno::IO)));
    }

    #[test]
    fn a_build_id_counts_if_the_loader_maps_its_note() {
        let id = [4_u32, 8, 3].into_iter().flat_map(u32::to_ne_bytes).chain(*b"GNU\0").chain([7; 8]);
        let mut bytes = vec![0; 0x3000];
        for (place, byte) in id.enumerate() {
            // Notes in text, behind the end of it in the file, and behind all segments.
            for start in [0x400, 0x17f0, 0x2c00] {
                bytes[start + place] = byte;
            }
        }
        let shows = |notes: &[(u64, u64)]| {
            let notes = notes.iter().flat_map(|(offset, size)| header(PT_NOTE, 4, *offset, *offset, *size, *size));
            let headers = Headers::parse(&notes.chain(ordinary()).collect::<Vec<_>>()).unwrap();
            headers.show_build_id_in(&Array(0, bytes.clone()))
        };
        assert!(shows(&[(0x400, 24)]) && shows(&[(0x500, 24), (0x400, 24)]));
        assert!(!shows(&[]) && !shows(&[(0x500, 24)]), "no build-id");
        assert!(!shows(&[(0x17f0, 24)]) && !shows(&[(0x2c00, 24)]), "not mapped, or only in part");
        // The library reads no more of a segment than this.
        assert!(shows(&[(0x400, 0x1000)]) && !shows(&[(0x400 - ROOM as u64, 0x1000)]));
        assert!(!shows(&[(u64::MAX, 24)]) && !shows(&[(0x400, u64::MAX)]));
    }

    #[test]
    fn this_program_can_be_read() {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let place = crate::memory::FileBytes::from(std::os::fd::OwnedFd::from(file));
        let (_, headers) = super::read(&place, 0).unwrap();
        let (address, size) = headers.dynamic.unwrap();
        let dynamic = DynamicEntries::read(&place, headers.offset_of(address).unwrap(), size).unwrap();
        assert!(dynamic.get(object::elf::DT_STRTAB).is_some() && dynamic.get(object::elf::DT_NULL).is_none());
    }
}

//! An ELF object as the loader left it: its segments and the parts of its
//! dynamic section that decide how it may be pinned.
//!
//! Everything is copied out of the object through [`ProcessMemory`] and checked;
//! nothing here trusts that the object is intact. Field names are those of
//! `elf(5)`.

use libc::{Elf64_Phdr, PF_W, PF_X, PT_DYNAMIC, PT_GNU_RELRO, PT_LOAD, PT_NOTE};

use crate::build_id::{self, BuildIdBytes};
use crate::memory::{Along, ProcessMemory};
use crate::sys;

mod dynamic;
mod references;

pub use dynamic::Dynamic;
pub use references::{Bound, NAME as SYMBOL_NAME, Reference};

/// Linux's `elf.h`; libc has no constant of that name.
const PT_GNU_PROPERTY: u32 = 0x6474_e553;

/// Largest number of PT_LOAD segments of an object that can be pinned; the
/// linkers make 2 to 10.
pub const MAX_SEGMENTS: usize = 16;
/// PT_NOTE segments that are read; the linkers make one or two.
const MAX_NOTES: usize = 4;
/// Program headers read at a time; most objects have 7 to 14. What is left of about 1000 bytes is
/// read with them, see [`Object::take_build_id`].
const HEADER_BATCH: usize = 18;
/// Bytes of an object's name that are worth reading along with its headers.
pub const NAME_START: usize = 64;

/// Addresses `[start, end)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Span {
    /// Returns whether `address` lies inside.
    pub const fn contains(&self, address: usize) -> bool {
        self.start <= address && address < self.end
    }

    /// Returns the addresses that lie in both.
    pub fn intersection(&self, other: &Self) -> Self {
        let start = self.start.max(other.start);
        Self { start, end: self.end.min(other.end).max(start) }
    }

    /// Returns the number of bytes.
    pub const fn len(&self) -> usize {
        self.end - self.start
    }

    /// Returns whether there are no addresses in it.
    pub const fn is_empty(&self) -> bool {
        self.end <= self.start
    }
}

/// A PT_LOAD segment in memory, rounded out to whole pages but for one that
/// the next segment begins in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// The pages it touches.
    pub span: Span,
    /// Offset in the file of the first of them.
    pub offset: u64,
    /// PF_W is set: it holds .data and RELRO.
    pub writable: bool,
    /// PF_X is set.
    pub executable: bool,
}

impl Segment {
    /// Returns the offset in the file that the loader maps at `address`, which lies inside.
    pub const fn offset_of(&self, address: usize) -> u64 {
        self.offset.wrapping_add((address - self.span.start) as u64)
    }
}

/// Why an object cannot be described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectError {
    /// The kernel refused to read a part of it.
    Read(sys::Errno),
    /// More than [`MAX_SEGMENTS`] PT_LOAD headers.
    TooManySegments,
    /// PT_LOAD headers that are missing, overflow, or are not in ascending order.
    Malformed,
}

impl From<sys::Errno> for ObjectError {
    fn from(error: sys::Errno) -> Self {
        Self::Read(error)
    }
}

/// A loaded object.
#[derive(Clone, Copy, Debug)]
pub struct Object {
    /// Load bias: what is added to a `p_vaddr`.
    pub base: usize,
    /// All pages from the first to the last segment, gaps included.
    pub span: Span,
    segments: [Segment; MAX_SEGMENTS],
    segment_count: usize,
    /// PT_GNU_RELRO as the loader applies it: start and end rounded down.
    pub relro: Span,
    /// The dynamic section, empty without one.
    pub dynamic: Span,
    /// The PT_GNU_PROPERTY note, empty without one.
    pub property: Span,
    notes: [Notes; MAX_NOTES],
    /// The build-id and the notes that have it, if they were read with the program headers.
    pub build_id: Option<(Notes, BuildIdBytes)>,
}

/// One PT_NOTE segment or several neighbours; empty where there are fewer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Where it is in memory.
    pub span: Span,
    /// Where it is in the file.
    pub offset: u64,
}

impl Object {
    /// Reads the `count` program headers at `headers`, as `dl_iterate_phdr(3)`
    /// gives them, of the object loaded at `base`.
    pub fn read(
        memory: &ProcessMemory,
        base: usize,
        headers: usize,
        count: usize,
    ) -> core::result::Result<Self, ObjectError> {
        Self::read_along(memory, base, headers, count, &mut Along::nothing())
    }

    /// Does the same, and reads the beginning of a name along with the first headers.
    pub fn read_along(
        memory: &ProcessMemory,
        base: usize,
        headers: usize,
        count: usize,
        along: &mut Along<NAME_START>,
    ) -> core::result::Result<Self, ObjectError> {
        let mut object = Self {
            base,
            span: Span { start: usize::MAX, end: 0 },
            segments: [Segment::default(); MAX_SEGMENTS],
            segment_count: 0,
            relro: Span::default(),
            dynamic: Span::default(),
            property: Span::default(),
            notes: [Notes::default(); MAX_NOTES],
            build_id: None,
        };
        let mut index = 0;
        while index < count {
            let mut batch = [EMPTY_HEADER; HEADER_BATCH];
            let taken = HEADER_BATCH.min(count - index);
            let address = headers + index * size_of::<Elf64_Phdr>();
            let wanted = taken * size_of::<Elf64_Phdr>();
            let len = (wanted + rest_of_page(address + wanted)).min(size_of_val(&batch));
            // SAFETY: the batch is a live local with room for `len` bytes, and any bytes are a valid
            // header.
            unsafe { memory.copy_along(batch.as_mut_ptr().cast(), address, len, along) }?;
            for header in batch.iter().take(taken) {
                object.add_header(header)?;
            }
            index += taken;
            if index == count {
                object.take_build_id(bytes_of(&batch).get(..len).unwrap_or_default(), address);
            }
        }
        if object.segment_count == 0 {
            return Err(ObjectError::Malformed);
        }
        Ok(object)
    }

    /// Takes the build-id if its notes are among the `bytes` that were read at `address`. Linkers
    /// place notes right behind the program headers, so that one read serves for both. Like
    /// [`build_id::compare`], it looks no further into notes than [`build_id::ROOM`].
    fn take_build_id(&mut self, bytes: &[u8], address: usize) {
        let found = self.notes().find_map(|notes| {
            let start = notes.span.start.checked_sub(address)?;
            let content = bytes.get(start..start.checked_add(notes.span.len().min(build_id::ROOM))?)?;
            Some((notes, BuildIdBytes::new(build_id::find(content)?)?))
        });
        self.build_id = found;
    }

    fn add_header(&mut self, header: &Elf64_Phdr) -> core::result::Result<(), ObjectError> {
        let start = self.base.wrapping_add(header.p_vaddr as usize);
        let end = start.checked_add(header.p_memsz as usize).ok_or(ObjectError::Malformed)?;
        let page = sys::page_size();
        let (down, up) = (start & !(page - 1), end.checked_next_multiple_of(page).ok_or(ObjectError::Malformed)?);
        match header.p_type {
            PT_LOAD if header.p_memsz != 0 => {
                self.end_previous_segment(down, up)?;
                let slot = self.segments.get_mut(self.segment_count).ok_or(ObjectError::TooManySegments)?;
                *slot = Segment {
                    span: Span { start: down, end: up },
                    offset: header.p_offset & !(page as u64 - 1),
                    writable: header.p_flags & PF_W != 0,
                    executable: header.p_flags & PF_X != 0,
                };
                self.segment_count += 1;
                self.span.start = self.span.start.min(down);
                self.span.end = self.span.end.max(up);
            }
            PT_DYNAMIC => self.dynamic = Span { start, end },
            PT_GNU_PROPERTY => self.property = Span { start, end },
            PT_NOTE => self.add_notes(Notes { span: Span { start, end }, offset: header.p_offset }),
            // glibc's _dl_protect_relro and musl's reloc_all round both ends down.
            PT_GNU_RELRO => self.relro = Span { start: down, end: (end & !(page - 1)).max(down) },
            _ => {}
        }
        Ok(())
    }

    /// Adds a PT_NOTE segment. Notes that directly follow others in memory and in the file are
    /// read together with those.
    fn add_notes(&mut self, notes: Notes) {
        for slot in &mut self.notes {
            let is_next = slot.span.end == notes.span.start
                && slot.offset.checked_add(slot.span.len() as u64) == Some(notes.offset);
            if slot.span.is_empty() {
                *slot = notes;
                return;
            }
            if is_next {
                slot.span.end = notes.span.end;
                return;
            }
        }
    }

    /// Ends the previous segment where the next one begins. The loader maps segments in the
    /// order of their headers, which is that of their addresses, so a page that both touch
    /// belongs to the later one.
    fn end_previous_segment(&mut self, start: usize, end: usize) -> core::result::Result<(), ObjectError> {
        let previous = self.segment_count.checked_sub(1).and_then(|index| self.segments.get_mut(index));
        let Some(Segment { span, .. }) = previous else { return Ok(()) };
        if start < span.start || end < span.end {
            return Err(ObjectError::Malformed);
        }
        span.end = span.end.min(start);
        Ok(())
    }

    /// Returns the PT_LOAD segments, in the order of the headers, none overlapping.
    pub fn segments(&self) -> &[Segment] {
        self.segments.get(..self.segment_count).unwrap_or_default()
    }

    /// Returns whether `address` lies in memory to which code may store: in a writable segment,
    /// and not in RELRO.
    pub fn has_writable(&self, address: usize) -> bool {
        let in_writable = self.segments().iter().any(|segment| segment.writable && segment.span.contains(address));
        in_writable && !self.relro.contains(address)
    }

    /// Returns the first PT_NOTE segments, neighbours as one.
    pub fn notes(&self) -> impl Iterator<Item = Notes> {
        self.notes.into_iter().filter(|notes| !notes.span.is_empty())
    }

    /// Returns the absolute address meant by a pointer of the dynamic section: glibc
    /// adds the load bias in place, musl does not.
    fn absolute(&self, pointer: u64) -> usize {
        let pointer = pointer as usize;
        if self.span.contains(pointer) { pointer } else { self.base.wrapping_add(pointer) }
    }
}

const EMPTY_HEADER: Elf64_Phdr =
    Elf64_Phdr { p_type: 0, p_flags: 0, p_offset: 0, p_vaddr: 0, p_paddr: 0, p_filesz: 0, p_memsz: 0, p_align: 0 };

/// Returns how many bytes behind `end`, up to which memory is read, are in the same page as the
/// last of them: they can be read too. Miri knows allocations and no pages, and permits no read of
/// what lies behind one.
fn rest_of_page(end: usize) -> usize {
    if cfg!(miri) { 0 } else { end.wrapping_neg() & (sys::page_size() - 1) }
}

/// Returns the bytes of headers.
fn bytes_of(headers: &[Elf64_Phdr]) -> &[u8] {
    // SAFETY: the slice is as large as that of the headers, which are integers without padding
    // between them, so all its bytes are initialised; it borrows them.
    unsafe { core::slice::from_raw_parts(headers.as_ptr().cast(), size_of_val(headers)) }
}

/// Returns the part of a path behind the last slash.
pub fn file_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests;

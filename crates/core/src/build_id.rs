//! The build-id of an object (`ld --build-id`): a hash of what the linker has
//! written, in a note that the loader maps with the object.
//!
//! Image builders give all files the same times. Then a copy of another version of a file can
//! have the same inode number, size and times as the right one, but it has another build-id.

use crate::memory::ProcessMemory;
use crate::object::{Notes, Object};
use crate::sys::{self, Errno, Fd, Result};

const NT_GNU_BUILD_ID: u32 = 3;
const OWNER: &[u8] = b"GNU\0";
/// Bytes of a PT_NOTE segment that are read. The build-id is near the beginning: at most a
/// property note precedes it.
pub const ROOM: usize = 512;

/// How the build-id of a copy compares with that of the object in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildId {
    /// The copy has the object's build-id.
    Same,
    /// The copy has another build-id, or none.
    Other,
    /// The object has no build-id.
    Absent,
}

/// A build-id of usual length: MD5, UUID, SHA-1 or xxhash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildIdBytes {
    bytes: [u8; 20],
    len: u8,
}

impl BuildIdBytes {
    /// Keeps a build-id; `None` if it is longer.
    pub fn new(build_id: &[u8]) -> Option<Self> {
        let mut bytes = [0; 20];
        bytes.get_mut(..build_id.len())?.copy_from_slice(build_id);
        Some(Self { bytes, len: build_id.len() as u8 })
    }

    /// Returns the bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len.into()).unwrap_or_default()
    }
}

/// Compares the build-id of `copy`, an open copy of an object's file, with that of `object` in
/// memory.
pub fn compare(copy: &Fd, object: &Object, memory: &ProcessMemory) -> Result<BuildId> {
    if let Some((notes, build_id)) = &object.build_id {
        return has_notes(copy, *notes, build_id.as_bytes());
    }
    for notes in object.notes() {
        let mut mapped = [0; ROOM];
        let len = notes.span.len().min(ROOM);
        // SAFETY: the buffer has room for `len` bytes.
        match unsafe { memory.copy(mapped.as_mut_ptr(), notes.span.start, len) } {
            Ok(()) => {}
            // Notes that no PT_LOAD segment covers are not mapped.
            Err(Errno(libc::EFAULT)) => continue,
            Err(errno) => return Err(errno),
        }
        let mapped = mapped.get(..len).unwrap_or_default();
        if let Some(build_id) = find(mapped) {
            return has_notes(copy, notes, build_id);
        }
    }
    Ok(BuildId::Absent)
}

/// Returns whether `copy` has this build-id in the notes that have it in memory.
fn has_notes(copy: &Fd, notes: Notes, build_id: &[u8]) -> Result<BuildId> {
    let mut stored = [0; ROOM];
    let stored = stored.get_mut(..notes.span.len().min(ROOM)).unwrap_or_default();
    let len = sys::pread(copy, stored, notes.offset)?;
    let is_same = find(stored.get(..len).unwrap_or_default()) == Some(build_id);
    Ok(if is_same { BuildId::Same } else { BuildId::Other })
}

/// Returns the build-id among notes (`Elf64_Nhdr` of `elf(5)`); names and descriptors
/// begin at multiples of 4 bytes, as all notes of `GNU` that the linkers write
/// keep on 64-bit targets too: descriptors of 8-byte notes have lengths that do.
pub fn find(notes: &[u8]) -> Option<&[u8]> {
    let mut rest = notes;
    loop {
        let (name_len, tail) = word(rest)?;
        let (descriptor_len, tail) = word(tail)?;
        let (kind, tail) = word(tail)?;
        let (name_len, descriptor_len) = (name_len as usize, descriptor_len as usize);
        let descriptor = tail.get(name_len.checked_next_multiple_of(4)?..)?;
        if kind == NT_GNU_BUILD_ID && tail.get(..name_len) == Some(OWNER) {
            return descriptor.get(..descriptor_len);
        }
        rest = descriptor.get(descriptor_len.checked_next_multiple_of(4)?..)?;
    }
}

fn word(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (word, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_ne_bytes(*word), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn note(kind: u32, name: &[u8], descriptor: &[u8]) -> Vec<u8> {
        let mut note = Vec::new();
        for word in [name.len() as u32, descriptor.len() as u32, kind] {
            note.extend(word.to_ne_bytes());
        }
        for part in [name, descriptor] {
            note.extend(part);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        note
    }

    #[test]
    fn a_build_id_is_found_among_notes() {
        let id = [7; 20];
        let property = note(5, OWNER, &[0; 16]);
        assert_eq!(find(&note(NT_GNU_BUILD_ID, OWNER, &id)), Some(&id[..]));
        assert_eq!(find(&[property.clone(), note(NT_GNU_BUILD_ID, OWNER, &id)].concat()), Some(&id[..]));
        // A note of this type that another vendor than GNU defines.
        assert_eq!(find(&[property, note(NT_GNU_BUILD_ID, b"Go\0", &id)].concat()), None);
    }

    #[test]
    fn bytes_that_are_not_a_note_have_no_build_id() {
        let cut = note(NT_GNU_BUILD_ID, OWNER, &[7; 20]);
        for len in 0..cut.len() {
            assert_eq!(find(&cut[..len]), None, "{len}");
        }
        assert_eq!(find(&[0xff; 64]), None);
        assert_eq!(find(&[0; 64]), None);
    }

    #[test]
    #[cfg_attr(miri, ignore = "opens a memfd")]
    fn a_copy_is_compared_with_what_is_mapped() {
        let (notes, other) = (note(NT_GNU_BUILD_ID, OWNER, &[7; 20]), note(NT_GNU_BUILD_ID, OWNER, &[8; 20]));
        let place = Notes { span: crate::object::Span { start: 0, end: notes.len() }, offset: 100 };
        for (stored, expected) in [(&notes, BuildId::Same), (&other, BuildId::Other), (&Vec::new(), BuildId::Other)] {
            let copy = sys::memfd_create(c"build-id").unwrap();
            sys::pwrite_from(&copy, stored.as_ptr().addr(), stored.len(), 100).unwrap();
            assert_eq!(has_notes(&copy, place, find(&notes).unwrap()), Ok(expected));
        }
    }
}

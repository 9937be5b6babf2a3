//! Protection bits of executable ranges that neither `PROCMAP_QUERY` nor
//! `/proc/PID/maps` show, and that a mapping which takes their place must have too.
//!
//! There is one: `PROT_BTI` of aarch64, which makes an indirect branch fault
//! unless it goes to a landing instruction. The loader sets it for an object that
//! says in its GNU property note that it was built for it
//! (`sysdeps/aarch64/dl-bti.c` of glibc), and the kernel for the loader itself
//! (`arch_elf_adjust_prot`). This module reads the same note and comes to the same
//! result. `PROT_MTE`, aarch64's other bit, cannot be on these ranges: the kernel
//! allows tags for anonymous memory and tmpfs only (`arch_validate_flags`,
//! VM_MTE_ALLOWED), so a private mapping of another file never has it, and one of
//! a file on tmpfs only after an `mprotect` of the program's own, which
//! [`crate::attributes`] sees.
//!
//! Everything but what the processor can do is compiled and tested everywhere.

use crate::memory::OwnMemory;
use crate::object::Object;
use crate::plan::Replacement;
use crate::vmas::Protection;

#[cfg_attr(target_arch = "aarch64", path = "branch_protection/aarch64.rs")]
#[cfg_attr(not(target_arch = "aarch64"), path = "branch_protection/other.rs")]
mod processor;

/// `NT_GNU_PROPERTY_TYPE_0`
const NOTE_TYPE: u32 = 5;
/// `GNU_PROPERTY_AARCH64_FEATURE_1_AND`
const AARCH64_FEATURES: u32 = 0xc000_0000;
/// `GNU_PROPERTY_AARCH64_FEATURE_1_BTI`
const BTI: u32 = 1;
/// Longest note that is read, in bytes: the kernel's limit (`NOTE_DATA_SZ` in
/// `fs/binfmt_elf.c`). The linkers write 32.
const MAX_NOTE: usize = 1024;

/// Returns the bits that the executable ranges of `object` have beside those that
/// `/proc/PID/maps` shows. None if its note cannot be read: glibc and the kernel
/// set none either.
fn hidden_bits(memory: &OwnMemory, object: &Object) -> Protection {
    let Some(bits) = processor::branch_target_bits() else { return 0 };
    let mut note = [0; MAX_NOTE];
    let len = object.property.len().min(MAX_NOTE);
    // SAFETY: the buffer is a live local with room for `len` bytes.
    let read = unsafe { memory.copy(note.as_mut_ptr(), object.property.start, len) };
    let is_built_for_it = read.is_ok() && requires_branch_targets(note.get(..len).unwrap_or_default());
    if is_built_for_it { bits } else { 0 }
}

/// Gives those `replacements` of the ranges of `object` that are executable the
/// bits that the ranges have.
pub fn keep(memory: &OwnMemory, object: &Object, replacements: &mut [Replacement]) {
    if processor::branch_target_bits().is_none() {
        return;
    }
    let bits = hidden_bits(memory, object);
    for range in replacements.iter_mut().filter(|range| range.protection & libc::PROT_EXEC != 0) {
        range.protection |= bits;
    }
}

/// Returns whether a PT_GNU_PROPERTY segment with these bytes has the property of
/// aarch64 that all indirect branches go to landing instructions.
fn requires_branch_targets(segment: &[u8]) -> bool {
    features(segment).is_some_and(|features| features & BTI != 0)
}

/// Returns the value of the property of aarch64. `None` if there is none or the note is
/// not of the known form: properties are sorted by type and padded to 8 bytes.
fn features(segment: &[u8]) -> Option<u32> {
    let (header, rest) = segment.split_first_chunk::<12>()?;
    let (descriptor, rest) = (word(header, 4)?, rest.strip_prefix(b"GNU\0")?);
    if word(header, 0)? != 4 || word(header, 8)? != NOTE_TYPE {
        return None;
    }
    let mut properties = rest.get(..descriptor as usize)?;
    while let Some((header, rest)) = properties.split_first_chunk::<8>() {
        let (kind, size) = (word(header, 0)?, word(header, 4)? as usize);
        let value = rest.get(..size)?;
        if kind == AARCH64_FEATURES {
            return value.try_into().ok().map(u32::from_ne_bytes);
        }
        properties = rest.get(size.checked_next_multiple_of(8)?..)?;
    }
    None
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn note(properties: &[(u32, &[u8])]) -> Vec<u8> {
        let mut descriptor = Vec::new();
        for (kind, value) in properties {
            descriptor.extend(kind.to_ne_bytes());
            descriptor.extend((value.len() as u32).to_ne_bytes());
            descriptor.extend(*value);
            descriptor.resize(descriptor.len().next_multiple_of(8), 0);
        }
        let mut note = Vec::new();
        for word in [4, descriptor.len() as u32, NOTE_TYPE] {
            note.extend(word.to_ne_bytes());
        }
        note.extend(b"GNU\0");
        note.extend(descriptor);
        note
    }

    fn features_word(features: u32) -> [u8; 4] {
        features.to_ne_bytes()
    }

    #[test]
    fn finds_the_property_among_others() {
        let (bti, pac) = (features_word(BTI), features_word(2));
        assert!(requires_branch_targets(&note(&[(AARCH64_FEATURES, &bti)])));
        assert!(requires_branch_targets(&note(&[(1, &[0; 8]), (AARCH64_FEATURES, &bti)])));
        assert!(requires_branch_targets(&note(&[(2, &[]), (0xb000_0000, &[1; 5]), (AARCH64_FEATURES, &bti)])));
        assert!(!requires_branch_targets(&note(&[(AARCH64_FEATURES, &pac)])));
        // That of x86-64.
        assert!(!requires_branch_targets(&note(&[(0xc000_0002, &bti)])));
        assert!(!requires_branch_targets(&note(&[])));
    }

    #[test]
    fn a_note_that_is_cut_or_lies_about_sizes_has_no_property() {
        let whole = note(&[(1, &[0; 8]), (AARCH64_FEATURES, &features_word(BTI))]);
        for len in 0..whole.len() {
            assert!(!requires_branch_targets(&whole[..len]), "{len}");
        }
        let with = |at: usize, value: u32| {
            let mut note = whole.clone();
            note[at..at + 4].copy_from_slice(&value.to_ne_bytes());
            note
        };
        // Sizes of name, descriptor and first property; another kind of note.
        for (at, value) in
            [(0, 5), (4, u32::MAX), (8, 1), (20, u32::MAX), (20, 9), (20, u32::MAX - 7), (36, 3), (36, 5)]
        {
            assert!(!requires_branch_targets(&with(at, value)), "{value} at {at}");
        }
        assert!(!requires_branch_targets(&[0xff; 64]) && !requires_branch_targets(&[0; 64]));
    }
}

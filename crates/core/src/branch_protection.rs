//! Protection bits of executable ranges that neither `PROCMAP_QUERY` nor
//! `/proc/PID/maps` show, and that a mapping which takes their place must have too.
//!
//! There is one: `PROT_BTI` of aarch64, which makes an indirect branch fault
//! unless it goes to a landing instruction. An object says in its GNU property note that
//! it was built for that. Whether its ranges have the bit depends on what has mapped them:
//!
//! | mapped by | the bit is set |
//! |---|---|
//! | the loader of glibc 2.33 or newer | if the note says so (`sysdeps/aarch64/dl-bti.c`), until it removes it when it has relocated text (`_dl_relocate_object`) |
//! | an older glibc | never; 2.32 sets it for some objects only |
//! | musl | never |
//! | the kernel, for the loader itself | if the note says so (`arch_elf_adjust_prot`) |
//! | the kernel, for the executable | when the loader asks for it afterwards, which a seccomp filter may refuse |
//!
//! A replacement must not have the bit if the range does not: code that is marked by mistake
//! would fault only with this library. `/proc/PID/smaps` shows the bit, but reading that text
//! takes too long for every object. So this module reads the note and asks which C library
//! the process has. Where the library reads that text ([`crate::attributes`]), it corrects the
//! bit ([`set`]).
//!
//! `PROT_MTE`, aarch64's other bit, cannot be on these ranges: the kernel
//! allows tags for anonymous memory and tmpfs only (`arch_validate_flags`,
//! VM_MTE_ALLOWED), so a private mapping of another file never has it, and one of
//! a file on tmpfs only after an `mprotect` of the program's own, which
//! [`crate::attributes`] sees. A guarded control stack (GCS) is a state of a thread and has
//! no bit on code.
//!
//! Everything but what the processor can do is compiled and tested everywhere.

use crate::memory::ProcessMemory;
use crate::object::Object;
use crate::plan::Replacement;
use crate::sys;
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

/// Gives those `replacements` of the ranges of `object` that are executable the bits that the
/// ranges have, as far as the note and the C library show.
pub fn keep(memory: &ProcessMemory, object: &Object, has_text_relocations: bool, replacements: &mut [Replacement]) {
    if processor::branch_target_bits().is_none() {
        return;
    }
    // There is no interpreter if the program was started by the loader's name.
    let is_interpreter = object.base != 0 && object.base == sys::interpreter_base();
    let has = is_set_by_note(sys::glibc_minor_version(), is_interpreter, has_text_relocations)
        && is_built_for_it(memory, object);
    for range in replacements {
        set(range, has);
    }
}

/// Gives `range` the bits, or takes them from it, if it is executable.
pub fn set(range: &mut Replacement, has: bool) {
    let Some(bits) = processor::branch_target_bits() else { return };
    if range.protection & libc::PROT_EXEC != 0 {
        range.protection = range.protection & !bits | if has { bits } else { 0 };
    }
}

/// Returns whether `object` may lack the bits that [`keep`] has given its `replacements`:
/// the kernel has mapped the executable without them, and if a seccomp filter refuses the
/// loader's `mprotect(2)`, the loader goes on (`_dl_bti_protect`).
pub fn is_in_doubt(object: &Object, replacements: &[Replacement]) -> bool {
    let Some(bits) = processor::branch_target_bits() else { return false };
    sys::gate::is_closed()
        && object.span.contains(sys::executable_headers())
        && replacements.iter().any(|range| range.protection & bits != 0)
}

/// Returns the bits for an executable page that no code executes: all that the processor knows.
pub fn strictest_bits() -> Protection {
    processor::branch_target_bits().unwrap_or(0)
}

/// Returns whether the ranges of an object have the bits if its note says so, in a process
/// with glibc 2.`glibc`, or with another C library.
fn is_set_by_note(glibc: Option<u32>, is_interpreter: bool, has_text_relocations: bool) -> bool {
    is_interpreter || glibc.is_some_and(|minor| minor >= 33) && !has_text_relocations
}

/// Returns what the note of `object` says. False if it cannot be read: glibc and the kernel set
/// no bits either.
fn is_built_for_it(memory: &ProcessMemory, object: &Object) -> bool {
    let mut note = [0; MAX_NOTE];
    let len = object.property.len().min(MAX_NOTE);
    // SAFETY: the buffer is a live local with room for `len` bytes.
    let read = unsafe { memory.copy(note.as_mut_ptr(), object.property.start, len) };
    read.is_ok() && requires_branch_targets(note.get(..len).unwrap_or_default())
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
    fn only_what_has_mapped_an_object_sets_the_bits() {
        let ordinary = |glibc| is_set_by_note(glibc, false, false);
        assert!(ordinary(Some(33)) && ordinary(Some(41)));
        assert!(!ordinary(Some(31)) && !ordinary(Some(32)) && !ordinary(None));
        // The loader sets its own protection again when it has relocated text.
        assert!(!is_set_by_note(Some(41), false, true));
        // The kernel maps the loader, of every C library.
        assert!(is_set_by_note(Some(31), true, false) && is_set_by_note(None, true, false));
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

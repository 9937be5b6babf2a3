//! The words of an object that the loader has bound to symbols, with their present
//! values: they show which addresses in other objects the object was given.

use libc::{Elf64_Rela, Elf64_Sym};

use super::{Dynamic, Object};
use crate::memory::ProcessMemory;
use crate::sys::{Errno, Result};

/// Relocations read at a time.
const BATCH: usize = 32;
/// Longest name of a symbol that [`Reference::name`] reads, in bytes; names of C++ may be
/// longer, and none of those is a name of the C library.
pub const NAME: usize = 64;

/// The present value of a word that was relocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// A word with the address that the loader has bound it to. With lazy binding it holds an
    /// address in the object itself until the function is called.
    Address(usize),
    /// A variable of another object, copied into this executable.
    Copied,
    /// Something else, such as a part of an instruction.
    Unknown,
}

/// A relocation that names a symbol, other than one of thread-local storage.
#[derive(Clone, Copy, Debug)]
pub struct Reference {
    /// The present value of the word.
    pub bound: Bound,
    /// Whether the object may have overwritten the word since it was relocated.
    pub is_writable: bool,
    symbol: Elf64_Sym,
    name: usize,
}

impl Reference {
    /// Returns whether the object itself has no definition of the symbol.
    pub const fn is_undefined(&self) -> bool {
        self.symbol.st_shndx == 0
    }

    /// Returns whether the symbol is weak, so that the word is null if no object defines it.
    pub const fn is_weak(&self) -> bool {
        const STB_WEAK: u8 = 2;
        self.symbol.st_info >> 4 == STB_WEAK
    }

    /// Returns the name of the symbol; empty if it is longer than [`NAME`].
    pub fn name<'a>(&self, memory: &ProcessMemory, buffer: &'a mut [u8; NAME]) -> Result<&'a [u8]> {
        match memory.read_string(self.name, buffer) {
            Err(Errno(libc::ENAMETOOLONG)) => Ok(&[]),
            name => name,
        }
    }
}

/// A kind of relocation, by the value that it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RelocationKind {
    /// The address of a symbol, in a word of the object's data.
    Word,
    /// The same, in a word that is bound when the function is called first.
    Slot,
    /// A copy of the symbol's variable.
    Copy,
    /// A value for thread-local storage, which lies outside of all objects.
    ThreadLocal,
    /// Anything else.
    Other,
}

impl RelocationKind {
    /// Returns the kind of a relocation type of the psABI supplements.
    const fn of(relocation: u32) -> Self {
        if cfg!(target_arch = "aarch64") {
            match relocation {
                257 | 1025 => Self::Word,
                1024 => Self::Copy,
                1026 => Self::Slot,
                1028..=1031 => Self::ThreadLocal,
                _ => Self::Other,
            }
        } else {
            match relocation {
                1 | 6 => Self::Word,
                5 => Self::Copy,
                7 => Self::Slot,
                16..=18 | 36 => Self::ThreadLocal,
                _ => Self::Other,
            }
        }
    }
}

impl Dynamic {
    /// Calls `each` with every reference of `object` to a symbol. `EINVAL` if its tables
    /// contradict themselves.
    pub fn for_each_reference<E: From<Errno>>(
        &self,
        memory: &ProcessMemory,
        object: &Object,
        mut each: impl FnMut(&Reference) -> core::result::Result<(), E>,
    ) -> core::result::Result<(), E> {
        for table in self.relocations {
            if !table.is_empty() && !object.span.contains(table.end - 1) {
                return Err(Errno(libc::EINVAL).into());
            }
            let mut address = table.start;
            while address < table.end {
                let mut batch = [Elf64_Rela { r_offset: 0, r_info: 0, r_addend: 0 }; BATCH];
                let count = BATCH.min((table.end - address) / size_of::<Elf64_Rela>());
                if count == 0 {
                    break;
                }
                let len = count * size_of::<Elf64_Rela>();
                // SAFETY: the batch has room for `count` relocations, and any bytes are
                // valid ones.
                unsafe { memory.copy(batch.as_mut_ptr().cast(), address, len) }?;
                for relocation in batch.iter().take(count) {
                    if let Some(reference) = self.reference(memory, object, relocation)? {
                        each(&reference)?;
                    }
                }
                address += len;
            }
        }
        Ok(())
    }

    fn reference(&self, memory: &ProcessMemory, object: &Object, relocation: &Elf64_Rela) -> Result<Option<Reference>> {
        let (index, kind) = ((relocation.r_info >> 32) as usize, RelocationKind::of(relocation.r_info as u32));
        if index == 0 || kind == RelocationKind::ThreadLocal {
            return Ok(None);
        }
        let at = self.symbols.wrapping_add(index.wrapping_mul(size_of::<Elf64_Sym>()));
        let symbol = memory.read::<Elf64_Sym>(at)?;
        let name = self.strings.wrapping_add(symbol.st_name as usize);
        let place = object.base.wrapping_add(relocation.r_offset as usize);
        let bound = match kind {
            RelocationKind::Word | RelocationKind::Slot => Bound::Address(memory.read::<u64>(place)? as usize),
            RelocationKind::Copy => Bound::Copied,
            RelocationKind::ThreadLocal | RelocationKind::Other => Bound::Unknown,
        };
        let is_writable = kind == RelocationKind::Word && object.has_writable(place);
        Ok(Some(Reference { bound, is_writable, symbol, name }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;
    use std::vec::Vec;

    /// Returns what `object`, which contains `here`, refers to: name, and whether the word is
    /// bound to an address outside of it.
    fn references(here: usize) -> Vec<(String, bool)> {
        unsafe extern "C" fn collect(info: *mut libc::dl_phdr_info, _: usize, data: *mut libc::c_void) -> i32 {
            // SAFETY: `data` is the vector passed below, `info` is the loader's.
            let (found, info) = unsafe { (&mut *data.cast::<Vec<(usize, usize, usize)>>(), &*info) };
            found.push((info.dlpi_addr as usize, info.dlpi_phdr.addr(), info.dlpi_phnum.into()));
            0
        }
        let (memory, mut listed) = (ProcessMemory::own(), Vec::new());
        // SAFETY: the callback gets the vector it expects.
        unsafe { libc::dl_iterate_phdr(Some(collect), (&raw mut listed).cast()) };
        let mut objects =
            listed.into_iter().filter_map(|(base, headers, count)| Object::read(&memory, base, headers, count).ok());
        let object = objects.find(|object| object.span.contains(here)).unwrap();
        let mut found = Vec::new();
        Dynamic::read(&memory, &object)
            .unwrap()
            .for_each_reference::<Errno>(&memory, &object, |reference| {
                let mut buffer = [0; NAME];
                let name = reference.name(&memory, &mut buffer)?;
                let is_outside = matches!(reference.bound, Bound::Address(address) if !object.span.contains(address));
                found.push((String::from_utf8_lossy(name).into_owned(), is_outside));
                Ok(())
            })
            .unwrap();
        found
    }

    #[test]
    #[cfg_attr(miri, ignore = "asks the dynamic loader")]
    fn finds_what_this_program_has_called() {
        let found = references(finds_what_this_program_has_called as *const () as usize);
        assert!(found.contains(&("dl_iterate_phdr".into(), true)), "{found:?}");
    }
}

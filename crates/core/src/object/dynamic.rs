//! What an object's dynamic section says (`elf(5)`, "Dynamic tags"). Entries are
//! copied out and read up to DT_NULL; a section that does not end is cut.

use super::{Object, Span};
use crate::crti::INIT_LEN;
use crate::memory::{Along, ProcessMemory};
use crate::sys::{Errno, Result};

const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;
const DT_PLTRELSZ: u64 = 2;
const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;
const DT_RELA: u64 = 7;
const DT_RELASZ: u64 = 8;
const DT_INIT: u64 = 12;
const DT_SONAME: u64 = 14;
const DT_REL: u64 = 17;
const DT_TEXTREL: u64 = 22;
const DT_JMPREL: u64 = 23;
const DT_BIND_NOW: u64 = 24;
const DT_INIT_ARRAY: u64 = 25;
const DT_INIT_ARRAYSZ: u64 = 27;
const DT_FLAGS: u64 = 30;
const DT_PREINIT_ARRAYSZ: u64 = 33;
const DT_RELR: u64 = 36;
const DT_FLAGS_1: u64 = 0x6fff_fffb;
const DF_TEXTREL: u64 = 4;
const DF_BIND_NOW: u64 = 8;
const DF_1_NOW: u64 = 1;

/// Entries of a dynamic section that are read at most; the linkers make 20 to 60 besides one
/// DT_NEEDED per library.
const MAX_DYNAMIC_ENTRIES: usize = 4096;
/// Dynamic entries read at a time.
const DYNAMIC_BATCH: usize = 32;

/// What the dynamic section says.
#[allow(clippy::struct_excessive_bools, reason = "each is an entry that is there or not")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dynamic {
    /// DT_TEXTREL or DF_TEXTREL: read-only segments hold relocated words.
    pub has_text_relocations: bool,
    /// DT_REL, DT_RELA, DT_RELR or DT_JMPREL is there.
    pub has_relocations: bool,
    /// Address of the DT_INIT function, 0 without one.
    pub init: usize,
    /// Address of DT_INIT_ARRAY, 0 without one.
    pub init_array: usize,
    /// Bytes of DT_INIT_ARRAY, 0 without one.
    pub init_array_size: usize,
    /// DT_PREINIT_ARRAY is not empty. The loader runs the executable's before
    /// anything else.
    pub has_preinit_array: bool,
    /// DT_BIND_NOW, DF_BIND_NOW or DF_1_NOW: the loader binds every symbol when it loads the
    /// object.
    pub is_bound_now: bool,
    /// DT_RELA and DT_JMPREL, empty without one.
    pub(super) relocations: [Span; 2],
    /// Address of the symbol table, 0 without one.
    pub(super) symbols: usize,
    /// Address of the string table, 0 without one.
    pub(super) strings: usize,
    /// DT_SONAME, as an offset into the string table.
    soname: Option<u64>,
}

impl Dynamic {
    /// Reads the dynamic section of `object`; all defaults if it has none.
    pub fn read(memory: &ProcessMemory, object: &Object) -> Result<Self> {
        Self::read_along(memory, object, &mut Along::nothing())
    }

    /// Does the same, and reads the beginning of code along with the first entries.
    pub fn read_along(memory: &ProcessMemory, object: &Object, along: &mut Along<INIT_LEN>) -> Result<Self> {
        let mut dynamic = Self::default();
        let (mut tables, mut sizes) = ([0; 2], [0; 2]);
        for_each_entry(memory, object, along, |tag, value| {
            let [table, procedure_table] = &mut tables;
            let [size, procedure_size] = &mut sizes;
            match tag {
                DT_RELA => *table = object.absolute(value),
                DT_RELASZ => *size = value as usize,
                DT_JMPREL => *procedure_table = object.absolute(value),
                DT_PLTRELSZ => *procedure_size = value as usize,
                DT_SYMTAB => dynamic.symbols = object.absolute(value),
                DT_BIND_NOW => dynamic.is_bound_now = true,
                DT_FLAGS => dynamic.is_bound_now |= value & DF_BIND_NOW != 0,
                DT_FLAGS_1 => dynamic.is_bound_now |= value & DF_1_NOW != 0,
                _ => {}
            }
            match tag {
                DT_TEXTREL => dynamic.has_text_relocations = true,
                DT_FLAGS => dynamic.has_text_relocations |= value & DF_TEXTREL != 0,
                DT_REL | DT_RELA | DT_RELR | DT_JMPREL => dynamic.has_relocations = true,
                DT_INIT => dynamic.init = object.absolute(value),
                DT_INIT_ARRAY => dynamic.init_array = object.absolute(value),
                DT_INIT_ARRAYSZ => dynamic.init_array_size = value as usize,
                DT_PREINIT_ARRAYSZ => dynamic.has_preinit_array = value != 0,
                DT_STRTAB => dynamic.strings = object.absolute(value),
                DT_SONAME => dynamic.soname = Some(value),
                _ => {}
            }
            Ok(())
        })?;
        for ((span, start), size) in dynamic.relocations.iter_mut().zip(tables).zip(sizes) {
            if start != 0 {
                *span = Span { start, end: start.saturating_add(size) };
            }
        }
        Ok(dynamic)
    }

    /// Returns whether the object has code that the loader runs when it is loaded.
    pub const fn has_constructors(&self) -> bool {
        self.init != 0 || self.init_array_size != 0 || self.has_preinit_array
    }

    /// Returns the address of the DT_SONAME.
    pub fn soname_address(&self) -> Option<usize> {
        self.soname.map(|offset| self.strings.wrapping_add(offset as usize))
    }

    /// Returns the DT_SONAME, read into `buffer`.
    pub fn soname<'a>(&self, memory: &ProcessMemory, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
        memory.read_string(self.soname_address()?, buffer).ok()
    }

    /// Calls `each` with every DT_NEEDED name of `object`.
    pub fn for_each_needed<E: From<Errno>>(
        &self,
        memory: &ProcessMemory,
        object: &Object,
        mut each: impl FnMut(&[u8]) -> core::result::Result<(), E>,
    ) -> core::result::Result<(), E> {
        for_each_entry(memory, object, &mut Along::nothing(), |tag, value| {
            if tag != DT_NEEDED {
                return Ok(());
            }
            let mut buffer = [0; 512];
            each(memory.read_string(self.strings.wrapping_add(value as usize), &mut buffer)?)
        })
    }
}

/// Calls `each` with tag and value of every entry up to DT_NULL. The beginning of code is read
/// along with the first ones.
fn for_each_entry<E: From<Errno>>(
    memory: &ProcessMemory,
    object: &Object,
    along: &mut Along<INIT_LEN>,
    mut each: impl FnMut(u64, u64) -> core::result::Result<(), E>,
) -> core::result::Result<(), E> {
    let entry_size = size_of::<[u64; 2]>();
    let mut entries = [[0_u64; 2]; DYNAMIC_BATCH];
    let mut address = object.dynamic.start;
    // The memory behind the section may be unreadable.
    while address < object.dynamic.end.min(object.dynamic.start + MAX_DYNAMIC_ENTRIES * entry_size) {
        let batch = DYNAMIC_BATCH.min((object.dynamic.end - address) / entry_size);
        if batch == 0 {
            break;
        }
        // SAFETY: `entries` is a live local with room for `batch` entries, and any bytes are
        // valid entries.
        unsafe { memory.copy_along(entries.as_mut_ptr().cast(), address, batch * entry_size, along) }?;
        for [tag, value] in entries.iter().take(batch) {
            if *tag == DT_NULL {
                return Ok(());
            }
            each(*tag, *value)?;
        }
        address += batch * entry_size;
    }
    Ok(())
}

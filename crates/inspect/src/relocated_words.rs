//! The words of an object to which the loader stores, from the relocation tables of its file.
//! Only words are included in which a reversion to the file's contents can be recognised. Words
//! whose right value may be the file's are left out: thread-local offsets, copies of data, and
//! references to weak symbols without definition.

use object::elf::{DT_JMPREL, DT_PLTRELSZ, DT_RELA, DT_RELASZ, DT_SYMTAB, SHN_UNDEF, STB_WEAK};

use crate::image::{DynamicEntries, Flaw, Headers, RelocationTypes};
use crate::memory::{Bytes, half_at, word_at};

/// The table of relative relocations in a few bits each (`elf.h`).
const DT_RELRSZ: u32 = 35;
const DT_RELR: u32 = 36;
/// Bytes of an `Elf64_Rela`, and of an `Elf64_Sym`.
pub(crate) const RELA: usize = 24;
pub(crate) const SYMBOL: usize = 24;
/// More bytes than the table of any object has.
pub(crate) const MAX_TABLE: u64 = 256 << 20;
/// More relocated words than any object has: each word of a malicious file could stand for 63.
const MAX_PLACES: usize = 1 << 24;

/// What the loader stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelocatedValue {
    /// Base + this.
    Relative(u64),
    /// Base + the value in the file (RELR).
    Compact,
    /// The address of a symbol, in the object's data.
    Symbol,
    /// The same, in the table that the object's own code uses (GLOB_DAT).
    Global,
    /// The address of a function, or base + the value in the file until it is called.
    Jump,
    /// What a resolver function has returned.
    Indirect,
}

/// A word that the loader stores to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelocatedWord {
    /// Its address without the base.
    pub address: u64,
    /// The value that is stored.
    pub kind: RelocatedValue,
}

/// Reads the tables of a file, ascending by address.
///
/// # Errors
/// When they cannot be read.
pub fn read(
    file: &impl Bytes,
    machine: RelocationTypes,
    headers: &Headers,
    dynamic: &DynamicEntries,
) -> Result<Vec<RelocatedWord>, Flaw> {
    let table = |start: u32, size: u32| table(file, headers, dynamic, start, size);
    let mut places = Vec::new();
    compact(&table(DT_RELR, DT_RELRSZ)?, &mut places)?;
    let entries = [table(DT_RELA, DT_RELASZ)?, table(DT_JMPREL, DT_PLTRELSZ)?];
    let symbols = Symbols::read(file, headers, dynamic, entries.iter().map(Vec::as_slice))?;
    for entry in entries.iter().flat_map(|bytes| bytes.chunks_exact(RELA)) {
        let Some((address, symbol, kind, addend)) = fields(entry) else { continue };
        let kind = match kind {
            kind if kind == machine.relative => RelocatedValue::Relative(addend),
            kind if kind == machine.jump => RelocatedValue::Jump,
            kind if kind == machine.indirect => RelocatedValue::Indirect,
            kind if kind == machine.absolute => RelocatedValue::Symbol,
            kind if kind == machine.global => RelocatedValue::Global,
            _ => continue,
        };
        if !symbols.may_be_null(symbol) {
            places.push(RelocatedWord { address, kind });
        }
    }
    places.sort_unstable_by_key(|place| place.address);
    places.dedup_by_key(|place| place.address);
    Ok(places)
}

/// Reads the table whose address and size the dynamic section has under these tags; empty if there
/// is none.
pub(crate) fn table(
    file: &impl Bytes,
    headers: &Headers,
    dynamic: &DynamicEntries,
    start: u32,
    size: u32,
) -> Result<Vec<u8>, Flaw> {
    match (dynamic.get(start), dynamic.get(size)) {
        (Some(address), Some(size)) if size > 0 && size <= MAX_TABLE => {
            let offset = headers.offset_of(address).ok_or(Flaw::Malformed)?;
            Ok(file.read_exact(offset, usize::try_from(size).map_err(|_| Flaw::Malformed)?)?)
        }
        (Some(_), Some(1..)) => Err(Flaw::Malformed),
        _ => Ok(Vec::new()),
    }
}

/// Returns `r_offset`, symbol, type and `r_addend` of an `Elf64_Rela`.
pub(crate) fn fields(entry: &[u8]) -> Option<(u64, u32, u32, u64)> {
    Some((word_at(entry, 0)?, half_at(entry, 12)?, half_at(entry, 8)?, word_at(entry, 16)?))
}

/// Adds the words of DT_RELR. An even entry is an address; an odd entry has a bit for each of
/// the 63 words that follow.
fn compact(table: &[u8], places: &mut Vec<RelocatedWord>) -> Result<(), Flaw> {
    let mut next = 0_u64;
    for entry in table.chunks_exact(8).filter_map(|bytes| word_at(bytes, 0)) {
        if entry & 1 == 0 {
            places.push(RelocatedWord { address: entry, kind: RelocatedValue::Compact });
            next = entry.wrapping_add(8);
        } else {
            let set = (0..63).filter(|bit| entry >> (bit + 1) & 1 != 0);
            places.extend(
                set.map(|bit| RelocatedWord { address: next.wrapping_add(8 * bit), kind: RelocatedValue::Compact }),
            );
            next = next.wrapping_add(63 * 8);
        }
        if places.len() > MAX_PLACES {
            return Err(Flaw::Malformed);
        }
    }
    Ok(())
}

/// The symbols that relocations refer to.
struct Symbols(Vec<u8>);

impl Symbols {
    fn read<'a>(
        file: &impl Bytes,
        headers: &Headers,
        dynamic: &DynamicEntries,
        tables: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Self, Flaw> {
        let entries = tables.flat_map(|bytes| bytes.chunks_exact(RELA));
        let last = entries.filter_map(fields).map(|(_, symbol, ..)| symbol).max().unwrap_or(0);
        let Some(address) = dynamic.get(DT_SYMTAB).filter(|_| last != 0) else { return Ok(Self(Vec::new())) };
        let size = (u64::from(last) + 1) * SYMBOL as u64;
        if size > MAX_TABLE {
            return Err(Flaw::Malformed);
        }
        let offset = headers.offset_of(address).ok_or(Flaw::Malformed)?;
        Ok(Self(file.read_exact(offset, usize::try_from(size).map_err(|_| Flaw::Malformed)?)?))
    }

    /// Returns whether 0 is a right value of the symbol: it is weak and not defined here.
    fn may_be_null(&self, symbol: u32) -> bool {
        let Some(entry) = self.0.chunks_exact(SYMBOL).nth(symbol as usize) else { return false };
        let (info, section) = (entry.get(4), entry.get(6..).and_then(|rest| rest.first_chunk()));
        symbol != 0
            && info.is_some_and(|info| info >> 4 == STB_WEAK)
            && section.is_some_and(|section| u16::from_ne_bytes(*section) == SHN_UNDEF)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image;
    use crate::memory::FileBytes;
    use object::elf::{DT_STRSZ, DT_STRTAB};

    #[test]
    fn compact_tables_are_unfolded() {
        let mut places = Vec::new();
        let table: Vec<u8> = [0x1000, 0b1011, 1 << 63 | 1, 0x3000].into_iter().flat_map(u64::to_ne_bytes).collect();
        compact(&table, &mut places).unwrap();
        let addresses: Vec<u64> = places.iter().map(|place| place.address).collect();
        assert_eq!(addresses, [0x1000, 0x1008, 0x1018, 0x1008 + 63 * 8 + 62 * 8, 0x3000]);
    }

    #[test]
    fn the_tables_of_this_program_agree_with_its_memory() {
        let file = FileBytes::from(std::os::fd::OwnedFd::from(std::fs::File::open("/proc/self/exe").unwrap()));
        let (machine, headers) = image::read(&file, 0).unwrap();
        let (address, size) = headers.dynamic.unwrap();
        let dynamic = DynamicEntries::read(&file, headers.offset_of(address).unwrap(), size).unwrap();
        assert!(dynamic.get(DT_STRTAB).is_some() && dynamic.get(DT_STRSZ).is_some());
        let places = read(&file, machine, &headers, &dynamic).unwrap();
        assert!(places.len() > 100 && places.is_sorted_by_key(|place| place.address));
        let relative =
            places.iter().filter(|place| matches!(place.kind, RelocatedValue::Relative(_) | RelocatedValue::Compact));
        assert!(relative.count() > 50);
    }

    #[test]
    fn weak_symbols_without_definition_may_be_null() {
        let entry = |binding: u8, section: u16| {
            let mut entry = [0; 24];
            entry[4] = binding << 4;
            entry[6..8].copy_from_slice(&section.to_ne_bytes());
            entry
        };
        let symbols = Symbols([entry(2, 0), entry(2, 0), entry(1, 0), entry(2, 7)].concat());
        let null: Vec<bool> = (0..6).map(|symbol| symbols.may_be_null(symbol)).collect();
        assert_eq!(null, [false, true, false, false, false, false]);
    }
}

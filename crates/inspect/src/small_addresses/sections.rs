//! The section headers of a file: symbol tables, names of sections, and the table of functions
//! that unwinders search. This module reads a file in parts, and trusts none of what it reads.

use object::elf::{
    SHF_ALLOC, SHF_EXECINSTR, SHF_TLS, SHN_LORESERVE, SHN_UNDEF, SHT_DYNSYM, SHT_SYMTAB, STT_FUNC, STT_GNU_IFUNC,
    STT_NOTYPE, STT_OBJECT,
};

use super::{MOST_NAMES, WINDOW};
use crate::image::ELF_HEADER;
use crate::memory::{Bytes, half_at, word_at};
use crate::relocated_words::{MAX_TABLE, SYMBOL};

/// Bytes of an `Elf64_Shdr`.
const SECTION: usize = 64;
/// More sections than those of any object that is loaded: `-ffunction-sections` is undone by the linker.
const MAX_SECTIONS: u64 = 1 << 16;
/// The encodings of all linkers: the pointer is 4 bytes relative to itself, the count is 4 bytes,
/// the table has pairs of 4 bytes relative to the section (`dwarf2.h`: `DW_EH_PE_*`).
const SEARCHABLE: [u8; 4] = [1, 0x1b, 0x03, 0x3b];

/// The kind of a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SymbolKind {
    /// Code.
    Function,
    /// Data.
    Datum,
}

/// A symbol that covers an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoveringSymbol {
    /// Its kind.
    pub kind: SymbolKind,
    /// Its name.
    pub name: String,
    /// Its beginning.
    pub address: u64,
}

/// A section header.
#[derive(Clone, Copy, Debug)]
struct Section {
    name: u32,
    kind: u32,
    flags: u64,
    address: u64,
    offset: u64,
    size: u64,
    link: u32,
}

impl Section {
    fn has_memory(&self) -> bool {
        self.flags & u64::from(SHF_ALLOC) != 0 && self.flags & u64::from(SHF_TLS) == 0
    }

    fn covers(&self, address: u64) -> bool {
        self.has_memory() && address.checked_sub(self.address).is_some_and(|at| at < self.size)
    }
}

/// The sections of a file.
#[derive(Debug, Default)]
pub struct Sections {
    all: Vec<Section>,
    names: Option<Section>,
}

impl Sections {
    /// Reads the section headers; `None` if the file has none, or they cannot be read.
    pub fn read(file: &impl Bytes) -> Option<Self> {
        let header: [u8; ELF_HEADER] = file.read_array(0).ok()?;
        let short = |offset: usize| header.get(offset..)?.first_chunk().copied().map(u16::from_ne_bytes);
        let (offset, size) = (word_at(&header, 40)?, short(58)?);
        if offset == 0 || usize::from(size) != SECTION {
            return None;
        }
        let first = file.read_exact(offset, SECTION).ok()?;
        // With very many sections, the first header has what has no room in the ELF header.
        let count = match short(60)? {
            0 => word_at(&first, 32)?,
            count => count.into(),
        };
        let names = match short(62)? {
            0xffff => half_at(&first, 40)?,
            names => names.into(),
        };
        if count > MAX_SECTIONS {
            return None;
        }
        let table = file.read_exact(offset, usize::try_from(count).ok()? * SECTION).ok()?;
        let all: Vec<Section> = table.chunks_exact(SECTION).filter_map(section).collect();
        let names = all.get(usize::try_from(names).ok()?).copied();
        Some(Self { all, names })
    }

    /// Returns the name of the section that an address lies in.
    pub fn name_at(&self, file: &impl Bytes, address: u64) -> Option<String> {
        self.all.iter().find(|section| section.covers(address)).and_then(|section| self.name_of(file, section))
    }

    fn name_of(&self, file: &impl Bytes, section: &Section) -> Option<String> {
        string(file, &self.names?, section.name)
    }

    /// Returns the functions and data that cover an address, those of `.symtab` and of `.dynsym`.
    pub fn symbols_at(&self, file: &impl Bytes, address: u64) -> Vec<CoveringSymbol> {
        let mut found: Vec<CoveringSymbol> = Vec::new();
        for table in self.all.iter().filter(|section| matches!(section.kind, SHT_SYMTAB | SHT_DYNSYM)) {
            let Some(strings) = self.all.get(table.link as usize) else { continue };
            for_each_symbol(file, table, |entry| {
                let Some((name, kind, start)) = self.covering(entry, address) else { return };
                if found.len() >= 2 * MOST_NAMES {
                    return;
                }
                // Mapping symbols of aarch64 mark where code and data begin, and name nothing.
                let Some(name) = string(file, strings, name).filter(|name| !name.starts_with('$')) else { return };
                let symbol = CoveringSymbol { kind, name, address: start };
                if !found.contains(&symbol) {
                    found.push(symbol);
                }
            });
        }
        found
    }

    /// Returns name, kind and beginning of an `Elf64_Sym` that covers an address.
    fn covering(&self, entry: &[u8], address: u64) -> Option<(u32, SymbolKind, u64)> {
        let (name, info) = (half_at(entry, 0)?, *entry.get(4)?);
        let index = u16::from_ne_bytes(*entry.get(6..)?.first_chunk()?);
        let (start, size) = (word_at(entry, 8)?, word_at(entry, 16)?);
        // A symbol without size is a label, for instance of an assembler's function.
        let is_covered = address.checked_sub(start).is_some_and(|at| at < size.max(1));
        if !is_covered || index == SHN_UNDEF || index >= SHN_LORESERVE || name == 0 {
            return None;
        }
        let section = self.all.get(usize::from(index))?;
        let kind = match info & 0xf {
            STT_FUNC | STT_GNU_IFUNC => SymbolKind::Function,
            STT_NOTYPE if section.flags & u64::from(SHF_EXECINSTR) != 0 => SymbolKind::Function,
            STT_OBJECT | STT_NOTYPE => SymbolKind::Datum,
            _ => return None,
        };
        section.has_memory().then_some((name, kind, start))
    }

    /// Returns whether the table for unwinders has a function that begins at an address. An object
    /// that is stripped of symbols has it, too.
    pub fn has_function_at(&self, file: &impl Bytes, address: u64) -> bool {
        let is_table = |section: &&Section| {
            section.has_memory() && self.name_of(file, section).is_some_and(|name| name == ".eh_frame_hdr")
        };
        self.all.iter().find(is_table).is_some_and(|table| has_entry(file, table, address) == Some(true))
    }
}

fn has_entry(file: &impl Bytes, table: &Section, address: u64) -> Option<bool> {
    let header: [u8; 12] = file.read_array(table.offset).ok()?;
    if !header.starts_with(&SEARCHABLE) {
        return None;
    }
    let (mut low, mut high) = (0, u64::from(half_at(&header, 8)?).min(table.size / 8));
    while low < high {
        let middle = low.midpoint(high);
        let entry: [u8; 4] = file.read_array(table.offset.checked_add(12 + middle * 8)?).ok()?;
        let start = table.address.checked_add_signed(i32::from_ne_bytes(entry).into())?;
        match start.cmp(&address) {
            std::cmp::Ordering::Equal => return Some(true),
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
        }
    }
    Some(false)
}

fn section(header: &[u8]) -> Option<Section> {
    Some(Section {
        name: half_at(header, 0)?,
        kind: half_at(header, 4)?,
        flags: word_at(header, 8)?,
        address: word_at(header, 16)?,
        offset: word_at(header, 24)?,
        size: word_at(header, 32)?,
        link: half_at(header, 40)?,
    })
}

/// Calls a function with each `Elf64_Sym` of a table, as far as it can be read.
fn for_each_symbol(file: &impl Bytes, table: &Section, mut call: impl FnMut(&[u8])) {
    let mut buffer = vec![0; WINDOW / SYMBOL * SYMBOL];
    let (mut at, mut left) = (table.offset, table.size.min(MAX_TABLE));
    while left >= SYMBOL as u64 {
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let got = buffer.get_mut(..want).and_then(|buffer| file.read_some(at, buffer).ok()).unwrap_or(0);
        if got < SYMBOL {
            return;
        }
        let whole = got / SYMBOL * SYMBOL;
        for entry in buffer.get(..whole).unwrap_or_default().chunks_exact(SYMBOL) {
            call(entry);
        }
        at = at.saturating_add(whole as u64);
        left -= whole as u64;
    }
}

/// Returns a string of a string table; `None` for an empty one.
fn string(file: &impl Bytes, table: &Section, index: u32) -> Option<String> {
    if u64::from(index) >= table.size {
        return None;
    }
    let bytes = file.string(table.offset.checked_add(index.into())?).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned()).filter(|name| !name.is_empty())
}

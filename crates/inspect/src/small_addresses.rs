//! Finds the functions, data and PLT entries at an address without the load base. A relocated pointer that has reverted
//! to the file's contents holds such an address, so a jump through it goes there: it is *small*.
//! This module reads one file, trusts none of what it reads, and does not judge what a process
//! has done.
//!
//! Two questions are independent of each other:
//!
//! | question | function | read from |
//! |---|---|---|
//! | what is at the address? | [`names_at`] | symbol tables, lazy entries of the PLT, `.eh_frame_hdr` |
//! | would a reverted word hold the address? | [`words_holding`], [`words_holding_each`] | the relocation tables, and the words in the file |
//!
//! The second is the stronger evidence. Linkers differ in what they store in the file: GNU ld
//! stores the address without the base into words with a relative relocation, LLVM's linker
//! stores 0 unless it is told otherwise. So the words themselves are read.

mod sections;

use object::elf::{DT_JMPREL, DT_PLTRELSZ, DT_STRTAB, DT_SYMTAB};

use crate::files::Image;
use crate::image::{self, DynamicEntries, Flaw, Headers, RelocationTypes};
use crate::memory::{Bytes, word_at};
use crate::relocated_words::{self, RELA, SYMBOL};
use sections::{Sections, SymbolKind};

/// Bytes of a file that are read at a time.
const WINDOW: usize = 1 << 16;
/// The most names of one address that are returned: functions with equal code can be merged.
const MOST_NAMES: usize = 16;
/// The most words that are returned; all of them are counted.
const MOST_WORDS: usize = 16;

/// The kind of thing at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NamedKind {
    /// Code.
    Function,
    /// The code that binds an imported function when it is called first: its entry in the PLT.
    Plt,
    /// Data.
    Datum,
}

/// A name for an address.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct NamedAddress {
    /// The kind of thing at the address.
    pub kind: NamedKind,
    /// The symbol, mangled as in the file; `None` for a function without one, which only the
    /// unwinding table knows. For an entry of the PLT it is the imported function.
    pub name: Option<String>,
    /// Distance from the beginning of the symbol to the address, in bytes.
    pub offset: u64,
    /// The section.
    pub section: Option<String>,
}

/// The words that hold an address in the file and something else in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HoldingWords {
    /// Number of all such words.
    pub count: usize,
    /// Addresses of the first of them without the base; [`names_at`] has names for these.
    pub first: Vec<u64>,
}

/// Returns what an object's file has at an address without base: what begins there comes first.
/// Several names can apply: aliases, and functions that share their code. The file can also be a
/// separate debug file.
///
/// # Errors
/// When it is no object of this machine's word size, or its headers make no sense. Tables that
/// are missing, cut off or malformed have no names.
pub fn names_at(file: &impl Bytes, address: u64) -> Result<Vec<NamedAddress>, Flaw> {
    let (machine, headers) = image::read(file, 0)?;
    let is_within =
        |segment: &image::LoadHeader| address.checked_sub(segment.address).is_some_and(|at| at < segment.size);
    if !headers.segments.iter().any(is_within) {
        return Ok(Vec::new());
    }
    let sections = Sections::read(file).unwrap_or_default();
    let section = sections.name_at(file, address);
    let new = |kind, name, offset| NamedAddress { kind, name, offset, section: section.clone() };
    let mut names = Vec::new();
    for symbol in sections.symbols_at(file, address) {
        let kind = match symbol.kind {
            SymbolKind::Function => NamedKind::Function,
            SymbolKind::Datum => NamedKind::Datum,
        };
        names.push(new(kind, Some(symbol.name), address - symbol.address));
    }
    if let Ok(Some(function)) = lazy_entry(file, machine, &headers, address) {
        names.push(new(NamedKind::Plt, Some(function), 0));
    }
    if names.is_empty() && sections.has_function_at(file, address) {
        names.push(new(NamedKind::Function, None, 0));
    }
    names.sort_by(|a, b| (a.offset, a.kind, &a.name).cmp(&(b.offset, b.kind, &b.name)));
    names.dedup();
    names.truncate(MOST_NAMES);
    Ok(names)
}

/// Returns the relocated words that hold an address without base in the file: if they revert,
/// the program finds the address there.
///
/// # Errors
/// When the file or its relocation tables cannot be read, as in a separate debug file.
pub fn words_holding(file: &impl Bytes, address: u64) -> Result<HoldingWords, Flaw> {
    Ok(words_holding_each(file, &[address])?.pop().unwrap_or_default())
}

/// Returns the same for each of several addresses, and reads the file once.
///
/// # Errors
/// As [`words_holding`].
pub fn words_holding_each(file: &impl Bytes, addresses: &[u64]) -> Result<Vec<HoldingWords>, Flaw> {
    let image = Image::read(file)?;
    let mut window = Window::new(file);
    let mut holding = vec![HoldingWords::default(); addresses.len()];
    for word in image.words(|| Ok(file))? {
        let raw = image.headers.offset_of(word.address).and_then(|offset| window.word(offset));
        let of_raw = addresses.iter().zip(&mut holding).filter(|(address, _)| raw == Some(**address));
        for (_, holding) in of_raw {
            holding.count += 1;
            if holding.first.len() < MOST_WORDS {
                holding.first.push(word.address);
            }
        }
    }
    Ok(holding)
}

/// Returns the imported function whose word for lazy binding holds this address in the file.
/// It returns none if all words hold the same address, as on aarch64.
fn lazy_entry(
    file: &impl Bytes,
    machine: RelocationTypes,
    headers: &Headers,
    address: u64,
) -> Result<Option<String>, Flaw> {
    let dynamic = DynamicEntries::of_file(file, headers)?;
    let table = relocated_words::table(file, headers, &dynamic, DT_JMPREL, DT_PLTRELSZ)?;
    let mut window = Window::new(file);
    let mut found = None;
    for entry in table.chunks_exact(RELA) {
        let Some((place, symbol, kind, _)) = relocated_words::fields(entry) else { continue };
        let raw = headers.offset_of(place).and_then(|offset| window.word(offset));
        if kind == machine.jump && raw == Some(address) && found.replace(symbol).is_some() {
            return Ok(None);
        }
    }
    let (Some(symbol), Some(symbols), Some(strings)) = (found, dynamic.get(DT_SYMTAB), dynamic.get(DT_STRTAB)) else {
        return Ok(None);
    };
    let entry = symbols.checked_add(u64::from(symbol) * SYMBOL as u64).and_then(|at| headers.offset_of(at));
    let name = u32::from_ne_bytes(file.read_array(entry.ok_or(Flaw::Malformed)?)?);
    let name = strings.checked_add(name.into()).and_then(|at| headers.offset_of(at)).ok_or(Flaw::Malformed)?;
    let name = String::from_utf8_lossy(&file.string(name)?).into_owned();
    Ok(Some(name).filter(|name| !name.is_empty()))
}

/// A part of a file that was read last, for many words that lie close to each other.
struct Window<'a, B> {
    file: &'a B,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a, B: Bytes> Window<'a, B> {
    fn new(file: &'a B) -> Self {
        Self { file, start: 0, bytes: Vec::new() }
    }

    /// Returns the word at an offset in the file.
    fn word(&mut self, offset: u64) -> Option<u64> {
        let held = |window: &Self| {
            let at = usize::try_from(offset.checked_sub(window.start)?).ok()?;
            word_at(&window.bytes, at)
        };
        if let Some(word) = held(self) {
            return Some(word);
        }
        self.start = offset;
        self.bytes.resize(WINDOW, 0);
        let got = self.file.read_some(offset, &mut self.bytes).unwrap_or(0);
        self.bytes.truncate(got);
        held(self)
    }
}

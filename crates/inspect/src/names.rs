//! The section and the nearest symbol of an address in an object, for people.

use std::collections::HashSet;
use std::fs::File;

use crate::damage::Word;
use crate::files::View;
use crate::maps::Mapping;
use crate::memory::Bytes;
use crate::report::WordReport;

/// Number of words that are listed for an object, unless all are requested.
const LISTED_WORDS: usize = 16;
/// More bytes than an object has that is searched for names.
const MOST_BYTES: usize = 1 << 30;

/// The bytes of an object's file.
pub struct ObjectFile(Vec<u8>);

impl ObjectFile {
    /// Reads the file that a mapping maps.
    pub fn read(view: &View, mapping: &Mapping) -> Option<Self> {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut File::from(view.open(mapping).ok()?), &mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// Reads a file of so many bytes; `None` if it is larger than any object.
    pub fn of(file: &impl Bytes, size: u64) -> Option<Self> {
        let size = usize::try_from(size).ok().filter(|size| *size <= MOST_BYTES)?;
        file.read_exact(0, size).ok().map(Self)
    }

    /// Returns a finder for sections and symbols.
    pub fn finder(&self) -> Option<Finder<'_>> {
        Finder::new(&self.0)
    }
}

/// Returns the words with their sections and symbols: all of them, or a few from all sections.
pub fn reports(words: &[Word], lists_all: bool, finder: Option<&Finder<'_>>) -> Vec<WordReport> {
    let section = |word: &Word| finder.and_then(|finder| finder.section(word.place));
    let most = if lists_all { usize::MAX } else { LISTED_WORDS };
    let report = |word: &Word| {
        let symbol = finder.and_then(|finder| finder.symbol(word.place));
        WordReport {
            address: word.address,
            section: section(word).map(str::to_owned),
            symbol: symbol.map(|(name, _)| name.to_owned()),
            offset: symbol.map(|(_, offset)| offset),
            value: word.value,
            expected: word.expected,
        }
    };
    first_of_each(words, most, section).into_iter().map(report).collect()
}

/// Returns at most `most` words: the first of each section, and then others, because neighbouring
/// words show less; ascending, as the words themselves are.
fn first_of_each<'w, 's>(words: &'w [Word], most: usize, section: impl Fn(&Word) -> Option<&'s str>) -> Vec<&'w Word> {
    let mut listed: Vec<&Word> = words.iter().collect();
    if most < listed.len() {
        let mut seen = HashSet::new();
        let (first, rest): (Vec<_>, Vec<_>) = listed.iter().partition(|word| seen.insert(section(word)));
        listed = first.into_iter().chain(rest).take(most).collect();
        listed.sort_unstable_by_key(|word| word.address);
    }
    listed
}

/// Address range and name of a section.
struct Section<'a> {
    address: u64,
    end: u64,
    name: &'a str,
}

/// The sections, and the symbols in ascending order.
pub struct Finder<'a> {
    sections: Vec<Section<'a>>,
    symbols: Vec<(u64, &'a str)>,
}

impl<'a> Finder<'a> {
    fn new(bytes: &'a [u8]) -> Option<Self> {
        use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SectionKind, SymbolKind};
        let file = object::File::parse(bytes).ok()?;
        let has_memory = |kind| {
            // .tbss occupies no memory at its address.
            !matches!(
                kind,
                SectionKind::Metadata | SectionKind::Debug | SectionKind::DebugString | SectionKind::UninitializedTls
            )
        };
        let sections = file.sections().filter(|section| section.address() != 0 && has_memory(section.kind()));
        let sections = sections.filter_map(|section| {
            let (address, name) = (section.address(), section.name().ok()?);
            Some(Section { address, end: address + section.size(), name })
        });
        let named = file.symbols().chain(file.dynamic_symbols()).filter(object::ObjectSymbol::is_definition);
        let named =
            named.filter(|symbol| matches!(symbol.kind(), SymbolKind::Data | SymbolKind::Unknown | SymbolKind::Text));
        let mut symbols: Vec<(u64, &str)> = named
            .filter_map(|symbol| Some((symbol.address(), symbol.name().ok()?)))
            .filter(|(_, name)| !name.is_empty())
            .collect();
        symbols.sort_unstable();
        Some(Self { sections: sections.collect(), symbols })
    }

    /// Returns the section that an address lies in.
    pub fn section(&self, place: u64) -> Option<&'a str> {
        self.sections.iter().find(|section| section.address <= place && place < section.end).map(|section| section.name)
    }

    /// Returns the nearest symbol before an address in its section, and the distance to it.
    pub fn symbol(&self, place: u64) -> Option<(&'a str, u64)> {
        let section = self.sections.iter().find(|section| section.address <= place && place < section.end)?;
        let count = self.symbols.partition_point(|(address, _)| *address <= place);
        let (address, name) = self.symbols.get(count.checked_sub(1)?)?;
        (*address >= section.address).then_some((name, place - address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Holds an address, so it lies in `.data.rel.ro`.
    #[used]
    static NAMED: &str = "of a static with a symbol";

    #[test]
    fn places_of_this_program_have_names() {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let finder = Finder::new(&bytes).unwrap();
        let got = finder.sections.iter().find(|section| section.name == ".data.rel.ro").unwrap();
        assert_eq!(finder.section(got.address), Some(".data.rel.ro"));
        assert_eq!(finder.section(u64::MAX), None);
        let (address, name) =
            finder.symbols.iter().rfind(|(address, _)| *address < got.end && *address >= got.address).unwrap();
        assert_eq!(finder.symbol(*address).map(|(_, distance)| distance), Some(0), "{name}");
    }
}

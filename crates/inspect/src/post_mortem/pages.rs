//! Judges a page with relocated words as a whole: whether it is the file's. In a core dump there
//! is no `/proc/PID/pagemap`, so its contents have to show that.
//!
//! | the page in the dump | is |
//! |---|---|
//! | equal to the file's page, though the loader stores to it | the file's: it has reverted |
//! | not equal, but all of its many words have the file's values | the file's, and was stored to since |
//! | zeroes, where the file has none | lost: it lay behind the end of the file |
//! | anything else | a private copy |
//!
//! A word with lazy binding in an object at a fixed address has the file's value until it is called,
//! so such words prove nothing.

use crate::image::{Headers, LoadHeader};
use crate::memory::{Bytes, word_at};
use crate::relocated_words::{RelocatedValue, RelocatedWord};

use super::objects::DumpedObject;

/// So many words, and no other, must have the file's values on a page that differs from the file's.
const MANY: usize = 8;

/// A page with relocated words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its address.
    pub address: u64,
    /// Its offset in the file.
    pub offset: u64,
    /// Number of its bytes that come from the file; the others are zeroes.
    pub from_file: usize,
}

/// The judgement of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageVerdict {
    /// The file's, so the loader's stores to it are lost.
    OfFile,
    /// It could not be read any more.
    Lost,
    /// A private copy, or nothing shows what it is.
    Private,
}

/// The mappings of a file.
#[derive(Clone, Copy)]
pub enum Layout {
    /// As the file's own headers say, at this base.
    Own(u64),
    /// As the headers of the version say that was loaded, so that words are found by their offset in
    /// the file.
    OfOther,
}

/// Returns the pages that have relocated words, with their words, and the address of a page that is
/// not mapped from the file: libsopin.so may have put it out of the file's reach.
pub fn of<'a>(
    words: &'a [RelocatedWord],
    object: &DumpedObject,
    headers: &Headers,
    layout: Layout,
    page: u64,
) -> (Vec<(Page, &'a [RelocatedWord])>, Option<u64>) {
    let key = |word: &RelocatedWord| headers.offset_of(word.address).map(|offset| offset & !(page - 1));
    let (mut pages, mut elsewhere) = (Vec::new(), None);
    for words in words.chunk_by(|a, b| key(a) == key(b)) {
        let Some(first) = words.first() else { continue };
        let Some(offset) = key(first) else { continue };
        let address = match layout {
            Layout::Own(base) => {
                let address = base.wrapping_add(first.address) & !(page - 1);
                match object.range(address) {
                    Some(range) if range.offset + (address - range.start) == offset => address,
                    found => {
                        elsewhere = elsewhere.or(Some(address).filter(|_| found.is_none()));
                        continue;
                    }
                }
            }
            Layout::OfOther => match object.address_of(offset) {
                Some(address) => address,
                None => continue,
            },
        };
        let within =
            |segment: &&LoadHeader| first.address.checked_sub(segment.address).is_some_and(|at| at < segment.file_size);
        let end = headers.segments.iter().find(within).map_or(offset, |segment| segment.offset + segment.file_size);
        let from_file = usize::try_from(end.saturating_sub(offset).min(page)).unwrap_or(0);
        pages.push((Page { address, offset, from_file }, words));
    }
    (pages, elsewhere)
}

impl Page {
    /// Returns the page in the dump, and in the file as far as the file has it.
    pub fn contents(&self, dump: &impl Bytes, file: &impl Bytes, page: u64) -> (Vec<u8>, Vec<u8>) {
        let read = |bytes: &dyn Fn(&mut [u8]) -> usize, len: usize| {
            let mut content = vec![0; len];
            let got = bytes(&mut content);
            content.truncate(got);
            content
        };
        let len = usize::try_from(page).unwrap_or(0);
        (
            read(&|buffer| dump.read_some(self.address, buffer).unwrap_or(0), len),
            read(&|buffer| file.read_some(self.offset, buffer).unwrap_or(0), self.from_file),
        )
    }

    /// Returns where on the page a word lies; `None` if it lies on the next one, too.
    pub fn place_of(&self, word: &RelocatedWord, headers: &Headers) -> Option<usize> {
        let place = headers.offset_of(word.address)?.checked_sub(self.offset)?;
        usize::try_from(place).ok()
    }

    /// Judges the page by its contents in the dump and in the file.
    pub fn judge(
        &self,
        in_dump: &[u8],
        in_file: &[u8],
        words: &[RelocatedWord],
        headers: &Headers,
        base: u64,
    ) -> PageVerdict {
        let is_zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
        if is_zero(in_dump) && !is_zero(in_file) {
            return PageVerdict::Lost;
        }
        let is_proof = |word: &&RelocatedWord| base != 0 || word.kind != RelocatedValue::Jump;
        let mut proofs = 0;
        let mut has_kept = false;
        for word in words.iter().filter(is_proof) {
            let Some(place) = self.place_of(word, headers) else { continue };
            let (Some(value), Some(raw)) = (word_at(in_dump, place), word_at(in_file, place)) else { continue };
            // If base + addend is the file's value, a reversion cannot be recognised.
            let is_recognised = match word.kind {
                RelocatedValue::Relative(addend) => base.wrapping_add(addend) != raw,
                RelocatedValue::Compact => base != 0,
                RelocatedValue::Symbol | RelocatedValue::Global | RelocatedValue::Jump | RelocatedValue::Indirect => {
                    true
                }
            };
            if is_recognised {
                proofs += usize::from(value == raw);
                has_kept |= value != raw;
            }
        }
        let is_equal = !in_file.is_empty() && in_dump.get(..in_file.len()) == Some(in_file);
        if proofs != 0 && !has_kept && (is_equal || proofs >= MANY) {
            PageVerdict::OfFile
        } else {
            PageVerdict::Private
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::tests::header;
    use object::elf::PT_LOAD;

    const BASE: u64 = 0x7f00_0000_0000;

    fn headers() -> Headers {
        Headers::parse(&header(PT_LOAD, 6, 0x1000, 0x2000, 0x1000, 0x1000)).unwrap()
    }

    fn judge(
        words: &[(u64, RelocatedValue)],
        dumped: &[(usize, u64)],
        filed: &[(usize, u64)],
        base: u64,
    ) -> PageVerdict {
        let fill = |values: &[(usize, u64)]| {
            let mut bytes = vec![0; 4096];
            for (at, value) in values {
                bytes[*at..*at + 8].copy_from_slice(&value.to_ne_bytes());
            }
            bytes
        };
        let words: Vec<RelocatedWord> =
            words.iter().map(|(at, kind)| RelocatedWord { address: 0x2000 + at, kind: *kind }).collect();
        let page = Page { address: BASE, offset: 0x1000, from_file: 4096 };
        page.judge(&fill(dumped), &fill(filed), &words, &headers(), base)
    }

    #[test]
    fn a_page_equal_to_the_files_has_reverted() {
        let words = [(0, RelocatedValue::Relative(0xad0))];
        assert_eq!(judge(&words, &[(0, 0xad0), (8, 7)], &[(0, 0xad0), (8, 7)], BASE), PageVerdict::OfFile);
        assert_eq!(judge(&words, &[(0, 0), (8, 7)], &[(0, 0), (8, 7)], BASE), PageVerdict::OfFile, "LLVM's linker");
        assert_eq!(judge(&words, &[(0, BASE + 0xad0), (8, 7)], &[(0, 0xad0), (8, 7)], BASE), PageVerdict::Private);
        assert_eq!(
            judge(&words, &[(0, 0), (8, 9)], &[(0, 0), (8, 7)], BASE),
            PageVerdict::Private,
            "a cleared pointer"
        );
        assert_eq!(judge(&words, &[], &[(0, 0xad0), (8, 7)], BASE), PageVerdict::Lost);
        assert_eq!(judge(&[], &[(8, 7)], &[(8, 7)], BASE), PageVerdict::Private, "nothing was stored");
    }

    #[test]
    fn many_words_show_it_on_a_page_that_was_stored_to() {
        let words =
            |count: u64| (0..count).map(|index| (8 * index, RelocatedValue::Relative(0xad0))).collect::<Vec<_>>();
        assert_eq!(judge(&words(8), &[(800, 1)], &[(800, 2)], BASE), PageVerdict::OfFile);
        assert_eq!(judge(&words(7), &[(800, 1)], &[(800, 2)], BASE), PageVerdict::Private);
        assert_eq!(judge(&words(9), &[(800, 1), (64, BASE)], &[(800, 2)], BASE), PageVerdict::Private);
    }

    #[test]
    fn lazy_words_at_a_fixed_address_prove_nothing() {
        let lazy = [(0, RelocatedValue::Jump)];
        assert_eq!(judge(&lazy, &[(0, 0x40_1036)], &[(0, 0x40_1036)], 0), PageVerdict::Private);
        assert_eq!(judge(&lazy, &[(0, 0x1036)], &[(0, 0x1036)], BASE), PageVerdict::OfFile);
        let strong = [(0, RelocatedValue::Symbol), (8, RelocatedValue::Jump)];
        assert_eq!(judge(&strong, &[(8, 0x40_1036)], &[(8, 0x40_1036)], 0), PageVerdict::OfFile);
        assert_eq!(judge(&strong, &[(0, BASE), (8, 0x40_1036)], &[(8, 0x40_1036)], 0), PageVerdict::Private);
    }

    #[test]
    fn pages_of_the_file_are_found_where_they_are_mapped() {
        let range = |start, end, offset| crate::core_dump::MappedRange { start, end, offset, path: b"/x"[..].into() };
        let object = DumpedObject {
            path: b"/x"[..].into(),
            ranges: vec![range(BASE, BASE + 0x2000, 0), range(BASE + 0x2000, BASE + 0x3000, 0x1000)],
            listed: None,
            base: Some(BASE),
            witness: None,
            is_object: true,
        };
        let words = [0x2008_u64, 0x2010, 0x2ff8].map(|address| RelocatedWord { address, kind: RelocatedValue::Symbol });
        let expected = [(Page { address: BASE + 0x2000, offset: 0x1000, from_file: 0x1000 }, &words[..])];
        for layout in [Layout::Own(BASE), Layout::OfOther] {
            let (pages, elsewhere) = of(&words, &object, &headers(), layout, 0x1000);
            assert_eq!((&pages[..], elsewhere), (&expected[..], None));
        }
        let (pages, elsewhere) = of(&words, &object, &headers(), Layout::Own(BASE + 0x1000), 0x1000);
        assert_eq!((pages.len(), elsewhere), (0, Some(BASE + 0x3000)), "not mapped from the file");
        assert_eq!(expected[0].0.place_of(&words[2], &headers()), Some(0xff8));
    }
}

//! Finds words that the loader has relocated and that have reverted to the file's contents, and
//! pages that are gone.
//!
//! When a file is truncated, the kernel drops the private copies that a process has of its
//! pages. The process then sees the file's contents, so the relocations are lost. There are two
//! proofs. A page to which the loader has stored must be a private copy, and
//! `/proc/PID/pagemap` shows that it is not. Or a word holds what the file holds, and that is
//! not what the loader has stored.
//!
//! `reversion` has the rule. The dynamic section in memory shows whether the file is the version
//! that was loaded; if not, its tables are not used.

use std::cell::OnceCell;

use rustix::fs::{self, Mode, OFlags};

use crate::files::{Image, View};
use crate::image::{DynamicEntries, Flaw};
use crate::maps::PinnedCopy;
use crate::memory::{Bytes, FileBytes, word_at};
use crate::object::{InspectedObject, Part, PartBacking};
use crate::process::Process;
use crate::relocated_words::RelocatedWord;
use crate::reversion::{is_damaged, is_plausible, is_same_dynamic, relocated_value};

/// Bits of an entry of `/proc/PID/pagemap` (Documentation/admin-guide/mm/pagemap.rst).
const PAGE_PRESENT: u64 = 1 << 63;
const PAGE_SWAPPED: u64 = 1 << 62;
const PAGE_OF_FILE: u64 = 1 << 61;

/// A word that has reverted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// Its address in the process.
    pub address: u64,
    /// Its address without the base: as in the object's symbol table.
    pub place: u64,
    /// Its value, if it can be read.
    pub value: Option<u64>,
    /// The value that it should have, if that is known without the loader.
    pub expected: Option<u64>,
}

/// What is damaged in one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Words that have reverted, ascending.
    pub words: Vec<Word>,
    /// Bytes of pages behind the end of the file: touching them is SIGBUS.
    pub beyond_end: u64,
    /// The dynamic section has reverted to that of the file, which is of another version: the
    /// loader's stores are lost, and it is unknown which they were.
    pub is_of_another_version: bool,
}

impl Damage {
    /// Returns whether there is any damage.
    pub fn is_any(&self) -> bool {
        !self.words.is_empty() || self.beyond_end != 0 || self.is_of_another_version
    }
}

/// What the examination of one object has found.
#[derive(Debug, Default)]
pub struct Finding {
    /// The damage.
    pub damage: Damage,
    /// Why its words were not judged, for people.
    pub unjudged: Option<String>,
    /// The dynamic section in memory is not that of the file: contents have changed.
    pub has_other_contents: bool,
}

/// A process whose objects are examined.
pub struct Examiner<'a, M> {
    /// The process.
    pub process: &'a Process,
    /// Its memory, if that may be read.
    pub memory: Option<&'a M>,
    /// Its files.
    pub view: &'a View<'a>,
    /// Bytes of a page.
    pub page: u64,
    /// The loader is glibc's, which stores to dynamic sections.
    pub is_glibc: bool,
}

impl<M: Bytes> Examiner<'_, M> {
    /// Examines an object for damage.
    pub fn examine(&self, object: &InspectedObject) -> Finding {
        let mut finding = Finding::default();
        finding.damage.beyond_end = object.parts.iter().map(|part| self.beyond_end(part)).sum();
        let exposed: Vec<&Part> = object
            .parts
            .iter()
            .filter(|part| part.is_relocated && part.backing == PartBacking::File && !part.mapping.is_shared)
            .collect();
        let (Some(base), Some(first)) = (object.base, exposed.first()) else { return finding };
        // The copy is of the version that was loaded.
        let source = object.copy().map_or(first.mapping, |part| part.mapping);
        let image = match self.view.image(source) {
            Ok(image) => image,
            Err(flaw) => return unjudged(finding, &flaw),
        };
        let relocated = match image.words(|| self.view.open(source).map(FileBytes::from)) {
            Ok(relocated) => relocated,
            Err(flaw) => return unjudged(finding, &flaw),
        };
        if let Some(lost) = self.other_version(object, base, &image, &exposed) {
            finding.damage.is_of_another_version = lost;
            finding.has_other_contents = true;
            finding.unjudged = Some("its file is of another version than the one loaded".to_owned());
            return finding;
        }
        let file = OnceCell::new();
        // It is needed only for words that may have reverted.
        let file = || file.get_or_init(|| self.view.open(first.mapping).ok().map(FileBytes::from)).as_ref();
        for part in exposed {
            self.examine_part(part, base, relocated, &file, &mut finding.damage.words);
        }
        finding
    }

    /// Returns the number of bytes in pages behind the file's end.
    fn beyond_end(&self, part: &Part) -> u64 {
        if !matches!(part.backing, PartBacking::File | PartBacking::Copy(PinnedCopy::Stored(_) | PinnedCopy::Own)) {
            return 0;
        }
        let Ok(identity) = &self.view.mapped(part.mapping).identity else { return 0 };
        let end = identity.size.checked_next_multiple_of(self.page).unwrap_or(u64::MAX);
        (part.offset + (part.end - part.start)).saturating_sub(end.max(part.offset))
    }

    /// Returns `None` if the dynamic section in memory is that of the image; otherwise whether
    /// the one in memory is the file's and so has lost the loader's stores.
    fn other_version(&self, object: &InspectedObject, base: u64, image: &Image, exposed: &[&Part]) -> Option<bool> {
        let at = object.dynamic?;
        let is_exposed = exposed.iter().any(|part| part.start <= at && at < part.end);
        let is_of_file = || self.pagemap(at, at + 1).and_then(|pages| pages.first().copied()).is_some_and(is_of_file);
        let is_lost = || self.is_glibc && is_exposed && is_of_file();
        let Some((address, size)) = image.headers.dynamic.filter(|(address, _)| base.wrapping_add(*address) == at)
        else {
            return Some(is_lost());
        };
        let memory = self.memory?;
        // Pages behind the end of the file cannot be compared.
        let Ok(in_memory) = DynamicEntries::read(memory, base.wrapping_add(address), size) else { return None };
        (!is_same_dynamic(&in_memory, &image.dynamic, base)).then(is_lost)
    }

    fn examine_part<'f>(
        &self,
        part: &Part,
        base: u64,
        relocated: &[RelocatedWord],
        file: &dyn Fn() -> Option<&'f FileBytes>,
        words: &mut Vec<Word>,
    ) {
        let low = relocated.partition_point(|word| base.wrapping_add(word.address) < part.start);
        let rest = relocated.get(low..).unwrap_or_default();
        let count = rest.partition_point(|word| base.wrapping_add(word.address).saturating_add(8) <= part.end);
        let Some((relocated, last)) = rest.get(..count).and_then(|relocated| Some((relocated, relocated.last()?)))
        else {
            return;
        };
        let len = usize::try_from(base.wrapping_add(last.address) + 8 - part.start).unwrap_or(0);
        let memory = self.memory.map(|memory| {
            let mut bytes = vec![0; len];
            let got = memory.read_some(part.start, &mut bytes).unwrap_or(0);
            bytes.truncate(got);
            bytes
        });
        let mut pages = None;
        for word in relocated {
            let address = base.wrapping_add(word.address);
            let offset = address - part.start;
            let index = usize::try_from(offset).unwrap_or(usize::MAX);
            let value = match &memory {
                Some(bytes) => match word_at(bytes, index) {
                    Some(value) if is_plausible(word.kind, value, base) => continue,
                    Some(value) => Some(value),
                    // The word lies behind the end of the file, which `beyond_end` counts.
                    None => continue,
                },
                None => None,
            };
            let pages = pages.get_or_insert_with(|| self.pagemap(part.start, part.end));
            let of_file = pages.as_ref().and_then(|pages| {
                let page = offset / self.page;
                pages.get(usize::try_from(page).unwrap_or(usize::MAX)).map(|entry| is_of_file(*entry))
            });
            let raw = file().and_then(|file| file.word(part.offset + offset).ok());
            if is_damaged(word.kind, value, raw, of_file, base) {
                let expected = relocated_value(word.kind, raw, base);
                words.push(Word { address, place: word.address, value, expected });
            }
        }
    }

    /// Returns the entries of the pages in `[start, end)`.
    fn pagemap(&self, start: u64, end: u64) -> Option<Vec<u64>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = fs::openat(self.process.directory(), "pagemap", flags, Mode::empty()).ok()?;
        let (first, last) = (start / self.page, end.div_ceil(self.page));
        let bytes = FileBytes::from(file).read_exact(first * 8, usize::try_from((last - first) * 8).ok()?).ok()?;
        Some(bytes.chunks_exact(8).filter_map(|entry| word_at(entry, 0)).collect())
    }
}

fn unjudged(mut finding: Finding, flaw: &Flaw) -> Finding {
    // A file that is too short for its headers is reported as pages behind its end.
    finding.unjudged = Some(format!("its relocations cannot be read: {flaw}"));
    finding
}

/// Returns whether a page is the file's: not a private copy, in memory or swapped out.
const fn is_of_file(entry: u64) -> bool {
    entry & PAGE_OF_FILE != 0 || entry & (PAGE_PRESENT | PAGE_SWAPPED) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_the_files_or_private() {
        assert!(is_of_file(0) && is_of_file(PAGE_PRESENT | PAGE_OF_FILE) && is_of_file(PAGE_SWAPPED | PAGE_OF_FILE));
        assert!(!is_of_file(PAGE_PRESENT) && !is_of_file(PAGE_SWAPPED));
    }

    /// Without the memory, as for a user who may not trace the process: only mappings and
    /// pages.
    #[test]
    fn without_memory_this_process_is_found_undamaged() {
        use crate::files::Files;
        use crate::object::Scene;
        let (process, files) = (Process::open(std::process::id()).unwrap(), Files::default());
        let view = View::new(&process, &files);
        let maps = crate::maps::parse(&process.read("maps").unwrap());
        let page = rustix::param::page_size() as u64;
        let memory: Option<&FileBytes> = None;
        let scene = Scene { maps: &maps, memory, view: &view, executable: None, published: None, page };
        let objects = scene.objects(None);
        let exe = std::env::current_exe().unwrap();
        let own =
            objects.iter().find(|object| object.original.unwrap().path == exe.as_os_str().as_encoded_bytes()).unwrap();
        assert!(own.base.is_some() && own.state() == crate::object::ObjectState::Exposed && objects.len() >= 3);
        let examiner = Examiner { process: &process, memory, view: &view, page, is_glibc: true };
        for object in &objects {
            let finding = examiner.examine(object);
            assert!(!finding.damage.is_any() && finding.unjudged.is_none(), "{object:?} {finding:?}");
        }
        // All that the loader has stored to is on private pages, and would be missed elsewhere.
        let part = own.parts.iter().find(|part| part.is_relocated && part.backing == PartBacking::File).unwrap();
        assert!(examiner.pagemap(part.start, part.end).unwrap().iter().any(|entry| !is_of_file(*entry)));
    }
}

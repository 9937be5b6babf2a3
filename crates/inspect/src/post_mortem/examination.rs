//! Examines one object of a dead process: which relocated words hold what its file has, which pages
//! could not be read any more, and whether the file is the version that was loaded.
//!
//! The kernel dumps a VMA whole once a page of it was private (`vma_dump_size`, fs/coredump.c), and
//! that stays so when the file is truncated. So the relocated ranges of an object are in a dump with
//! the default `coredump_filter`, as the process saw them at its end: a page that has reverted is
//! there with the contents of the file, and a page behind the end of the file as zeroes. The first
//! page of the file is there, too, as the file was at the end. Text and constants are not.
//!
//! gdb leaves out a VMA without private pages. It does so with a relocated range that has reverted.

mod version;

use std::fs::File;

use rustix::io::Errno;

use crate::core_dump::{Content, CoreDump, DumpOrigin, DumpedRange, MappedRange};
use crate::damage::Word;
use crate::image::{self, Flaw, Headers};
use crate::memory::{Bytes, word_at};
use crate::relocated_words::{RelocatedValue, RelocatedWord};
use crate::reversion::{is_damaged, relocated_value};

use super::candidate_file::{CandidateFile, build_id_at};
use super::objects::{self, DumpedObject, ListState};
use super::pages::{self, Layout, Page, PageVerdict};
use super::system::System;

/// The relation of the file on the disk to the object that was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileRelation {
    /// It is the version that was loaded, as far as the dump shows.
    Loaded,
    /// It is another version.
    Other,
    /// There is no such file.
    Absent,
    /// It cannot be examined, or nothing shows which version it is.
    #[default]
    Unknown,
}

/// The place of the file that the process had mapped when it died, if that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// At its path.
    Path,
    /// In a directory of build-ids.
    BuildId,
}

/// The result of examining an object.
#[allow(clippy::struct_excessive_bools, reason = "they are answers to different questions")]
#[derive(Default)]
pub struct ObjectFinding {
    /// Words that have reverted, ascending.
    pub reverted: Vec<Word>,
    /// Number of those that are data, which other objects may use too, and that held 0.
    pub zeroed: usize,
    /// Addresses of its writable segments, from the first to the last.
    pub data: std::ops::Range<u64>,
    /// Words that hold what the loader, or the program later, has stored.
    pub intact: usize,
    /// Words that the dump does not have.
    pub missing: usize,
    /// Words in ranges that gdb has left out because no page of them was private.
    pub clean: usize,
    /// Bytes of relocated pages that could not be read when the dump was made: they lie behind the
    /// end of the file.
    pub lost: u64,
    /// Bytes of mapped pages behind the present end of the file.
    pub beyond_end: u64,
    /// The dynamic section holds addresses without the base, though the loader has added it.
    pub has_reverted_dynamic: bool,
    /// The dump itself shows that the file had become another version while it was mapped.
    pub is_other_build: bool,
    /// The file on the disk.
    pub relation: FileRelation,
    /// The words were judged by tables that were valid when the process died.
    pub is_judged: bool,
    /// The reason for which its words were not judged, for people.
    pub unjudged: Option<String>,
    /// Build-id in the first page as it was dumped, and of the file; empty without one.
    pub mapped_build_id: Vec<u8>,
    /// Of the file.
    pub file_build_id: Vec<u8>,
    /// The object maps copies that libsopin.so has made, or has its words in memory of its own.
    pub is_protected: bool,
    /// The place of the file by which the words were judged.
    pub source: Option<Source>,
    /// The length of the file on the disk in bytes.
    pub file_size: Option<u64>,
}

impl ObjectFinding {
    /// Returns whether stores of the loader are proven to be lost.
    pub fn is_damaged(&self) -> bool {
        !self.reverted.is_empty() || self.lost != 0 || self.has_reverted_dynamic
    }

    /// Opens the file by which the words were judged. It is not kept open, because a process may have
    /// more objects than this one may have open files.
    pub fn open(&self, object: &DumpedObject, system: &System) -> Option<CandidateFile> {
        let file = match self.source? {
            Source::Path => at_path(object, system).ok()?,
            Source::BuildId => system.object(&self.mapped_build_id)?,
        };
        CandidateFile::read(file).ok()
    }

    /// Returns whether anything shows that the file was rewritten while it was mapped.
    pub fn is_suspicious(&self) -> bool {
        self.is_damaged() || self.is_other_build || self.clean != 0
    }
}

/// Examines the objects of one dump.
pub struct DumpExaminer<'a, 'b, B> {
    /// The dump.
    pub dump: &'a CoreDump<'b, B>,
    /// The files.
    pub system: &'a System,
    /// Bytes of a page.
    pub page: u64,
    /// The loader is glibc's, which adds the base in dynamic sections.
    pub is_glibc: bool,
    /// The part of the loader's list that was read.
    pub list: ListState,
}

impl<B: Bytes> DumpExaminer<'_, '_, B> {
    /// Examines an object.
    pub fn examine(&self, object: &DumpedObject) -> ObjectFinding {
        let mut finding =
            ObjectFinding { is_protected: object.is_copy(), data: self.data(object), ..ObjectFinding::default() };
        let dumped = object.beginning().and_then(|start| Some((start, image::read(self.dump, start).ok()?.1)));
        if let Some((start, headers)) = &dumped {
            finding.mapped_build_id = build_id_at(self.dump, *start, headers).unwrap_or_default();
        }
        let file = self.find_file(object, &mut finding);
        finding.lost = self.lost_behind_end(object, finding.file_size);
        // The first page is the file's as it was at the end; the mappings are those of the loaded one.
        let is_other = |headers: &Headers| self.contradicts(object, headers);
        // An object that is not in the list may be mapped only in part.
        let is_loaded = object.listed.is_some() && !object.is_copy();
        finding.is_other_build = is_loaded && dumped.as_ref().is_some_and(|(_, headers)| is_other(headers));
        let Some(file) = file else {
            let dynamic = dumped.as_ref().map(|(_, headers)| headers);
            finding.has_reverted_dynamic = self.has_reverted_dynamic(object, dynamic);
            return finding;
        };
        self.judge(object, &file, &mut finding);
        finding
    }

    fn data(&self, object: &DumpedObject) -> std::ops::Range<u64> {
        let is_writable = |range: &&MappedRange| self.dump.range(range.start).is_some_and(DumpedRange::is_writable);
        let mut writable = object.ranges.iter().filter(is_writable);
        let first = writable.next();
        let end = writable.next_back().or(first).map_or(0, |range| range.end);
        first.map_or(0, |range| range.start)..end
    }

    /// Opens the file that the process had mapped when it died, by its path or its build-id.
    fn find_file(&self, object: &DumpedObject, finding: &mut ObjectFinding) -> Option<CandidateFile> {
        let at_path = match at_path(object, self.system) {
            Ok(file) => {
                let size = file.metadata().map_or(0, |metadata| metadata.len());
                finding.file_size = Some(size);
                CandidateFile::read(file)
            }
            Err(errno) => {
                finding.relation = FileRelation::Absent;
                Err(Flaw::Read(errno))
            }
        };
        if let Some(size) = finding.file_size.filter(|_| !object.names().1) {
            let end = size.checked_next_multiple_of(self.page).unwrap_or(u64::MAX);
            let beyond = |from: u64, to: u64| to.saturating_sub(end.max(from));
            finding.beyond_end =
                object.ranges.iter().map(|range| beyond(range.offset, range.offset + (range.end - range.start))).sum();
        }
        if let Ok(file) = &at_path {
            finding.file_build_id.clone_from(&file.build_id);
        }
        let is_it =
            |file: &CandidateFile| finding.mapped_build_id.is_empty() || file.build_id == finding.mapped_build_id;
        match at_path {
            Ok(file) if is_it(&file) => {
                finding.source = Some(Source::Path);
                Some(file)
            }
            at_path => {
                let stored = self.system.object(&finding.mapped_build_id);
                let stored = stored.and_then(|file| CandidateFile::read(file).ok()).filter(is_it);
                // Relocations are in the object itself; a separate debug file has none.
                let stored = stored.filter(|file| file.words().is_ok_and(|words| !words.is_empty()));
                finding.unjudged = match (&at_path, &stored) {
                    (_, Some(_)) => None,
                    (Ok(_), None) => Some("its file is not the one that was mapped".to_owned()),
                    (Err(flaw), None) => Some(format!("its file cannot be read: {flaw}")),
                };
                if at_path.is_ok() {
                    finding.relation = FileRelation::Other;
                }
                finding.source = stored.as_ref().map(|_| Source::BuildId);
                stored
            }
        }
    }

    /// Returns the number of bytes in pages of an object that are zeroes in the dump and lie behind the
    /// present end of its file, or at its beginning, where an object has its headers.
    fn lost_behind_end(&self, object: &DumpedObject, file_size: Option<u64>) -> u64 {
        let end = file_size.unwrap_or(u64::MAX);
        let mut lost = 0;
        for range in object.ranges.iter().filter(|_| object.is_object) {
            let mut address = range.start;
            while address < range.end {
                let offset = range.offset + (address - range.start);
                match self.dump.content(address) {
                    Content::Dumped(_) if offset >= end || (offset == 0 && !object.is_copy()) => {
                        let content = self.dump.read_exact(address, usize::try_from(self.page).unwrap_or(0));
                        lost +=
                            if content.is_ok_and(|page| page.iter().all(|byte| *byte == 0)) { self.page } else { 0 };
                        address += self.page;
                    }
                    Content::Dumped(_) => {
                        // The next page behind the end, if the range has one.
                        let behind = end.checked_next_multiple_of(self.page).unwrap_or(u64::MAX);
                        let next = range.start.saturating_add(behind.saturating_sub(range.offset));
                        address = next.max(address + self.page);
                    }
                    Content::Omitted(next) | Content::Cut(next) | Content::Unknown(next) => address = next,
                }
            }
        }
        lost
    }

    /// Judges the relocated words by the tables of a file.
    fn judge(&self, object: &DumpedObject, file: &CandidateFile, finding: &mut ObjectFinding) {
        let beginning = object.beginning();
        let base = object.base.or(beginning.map(|start| objects::base_of(&file.image.headers, start, self.page)));
        let Some(base) = base else {
            finding.unjudged = Some("it is not known where it was loaded".to_owned());
            return;
        };
        let words = match file.words() {
            Ok(words) => words,
            Err(flaw) => {
                finding.unjudged = Some(format!("its relocations cannot be read: {flaw}"));
                return;
            }
        };
        let is_other = self.contradicts(object, &file.image.headers) || self.has_other_dynamic(object, file, base);
        let is_unlisted = object.listed.is_none() && self.list == ListState::Whole;
        if is_unlisted && !object.is_copy() {
            finding.unjudged = Some("the loader did not have it in its list".to_owned());
            return;
        }
        if self.is_being_loaded(file, base) && !is_other {
            finding.unjudged = Some("it was just being loaded".to_owned());
            finding.relation = FileRelation::Loaded;
            return;
        }
        let expects = !is_other;
        let mut relative = (0, 0);
        let layout = if expects { Layout::Own(base) } else { Layout::OfOther };
        let (pages, elsewhere) = pages::of(words, object, &file.image.headers, layout, self.page);
        finding.is_protected |= elsewhere.is_some_and(|address| self.dump.range(address).is_some());
        for (page, words) in pages {
            self.judge_page(&page, words, file, base, expects, &mut relative, finding);
        }
        let is_other = is_other || relative.1 > relative.0.max(4);
        // That the file is the one that was mapped at the end, its first page shows.
        let is_at_crash = self.is_at_crash(object, file, finding);
        finding.is_other_build |= is_other && is_at_crash == Some(true) && object.listed.is_some();
        finding.has_reverted_dynamic = self.has_reverted_dynamic(object, Some(&file.image.headers));
        if finding.relation == FileRelation::Unknown {
            finding.relation = if is_other { FileRelation::Other } else { FileRelation::Loaded };
        }
        finding.is_judged = !is_other || is_at_crash == Some(true);
        if object.listed.is_none() {
            // It may not have been relocated yet.
            finding.missing += std::mem::take(&mut finding.clean);
        }
        if !finding.is_judged {
            // The tables are those of a file that came later.
            finding.unjudged = Some("its file is of another version than the one loaded".to_owned());
            finding.reverted.clear();
            (finding.zeroed, finding.lost, finding.clean) = (0, 0, 0);
        }
    }

    #[allow(clippy::too_many_arguments, reason = "what is counted is in two of them")]
    fn judge_page(
        &self,
        page: &Page,
        words: &[RelocatedWord],
        file: &CandidateFile,
        base: u64,
        expects: bool,
        relative: &mut (usize, usize),
        finding: &mut ObjectFinding,
    ) {
        match self.dump.content(page.address) {
            Content::Dumped(_) => {}
            Content::Unknown(_) if self.dump.notes.origin == DumpOrigin::Gdb => {
                finding.clean += words.len();
                return;
            }
            Content::Omitted(_) | Content::Cut(_) | Content::Unknown(_) => {
                finding.missing += words.len();
                return;
            }
        }
        let (in_dump, in_file) = page.contents(self.dump, &file.bytes, self.page);
        let of_file = match page.judge(&in_dump, &in_file, words, &file.image.headers, base) {
            // Another version has its words elsewhere.
            PageVerdict::Lost if !expects => None,
            PageVerdict::Lost => {
                finding.lost += self.page;
                return;
            }
            PageVerdict::OfFile => Some(true),
            PageVerdict::Private => None,
        };
        for word in words {
            let Some(place) = page.place_of(word, &file.image.headers) else { continue };
            let (Some(value), raw) = (word_at(&in_dump, place), word_at(&in_file, place)) else {
                finding.missing += 1;
                continue;
            };
            if let RelocatedValue::Relative(addend) = word.kind {
                let right = value == base.wrapping_add(addend);
                relative.0 += usize::from(right);
                relative.1 += usize::from(!right && Some(value) != raw && value != 0);
            }
            if raw.is_some() && is_damaged(word.kind, Some(value), raw, of_file, base) {
                let address = page.address + place as u64;
                let expected = relocated_value(word.kind, raw, base).filter(|_| expects);
                let is_datum = matches!(word.kind, RelocatedValue::Relative(_) | RelocatedValue::Symbol);
                finding.zeroed += usize::from(is_datum && value == 0);
                finding.reverted.push(Word { address, place: word.address, value: Some(value), expected });
            } else {
                finding.intact += 1;
            }
        }
    }
}

/// Opens the file at the path of an object.
fn at_path(object: &DumpedObject, system: &System) -> Result<File, Errno> {
    let (path, is_deleted) = object.names();
    match system.open(&object.path) {
        Err(_) if is_deleted => system.open(path),
        opened => opened,
    }
}

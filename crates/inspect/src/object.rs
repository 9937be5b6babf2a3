//! The objects of a process: which VMAs belong to each, and what those map. This module is pure
//! except that it reads headers.
//!
//! | the writable and relocated ranges are | and the read-only ranges | the object is |
//! |---|---|---|
//! | out of the file's reach | out of the file's reach | full |
//! | out of the file's reach | map the file | relocated |
//! | mapped from the file | either | exposed |
//!
//! Out of the file's reach are anonymous memory, a copy that the library has made, and a file
//! to which no process can write, for instance in a layer of a container's image.

use std::rc::Rc;

use sopin_core::records::{Reached, Record};
use sopin_core::vmas::FileId;

use crate::files::{Image, View, Writability};
use crate::image::{self, Flaw, Headers, LoadHeader};
use crate::loader::{Executable, List, Listed};
use crate::maps::{self, Mapping, PinnedCopy};
use crate::memory::Bytes;
use crate::published::{Published, Said};

/// More segments than the objects of a process have on average; the linkers make 2 to 10.
const SEGMENTS: usize = 16;

/// What a part of an object maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartBacking {
    /// Memory without a file.
    Anonymous,
    /// A copy that the library has made.
    Copy(PinnedCopy),
    /// A file to which no process can write.
    Unwritable,
    /// A file in a layer of a container's image: what is written to it goes to another file.
    Layer,
    /// A file that a process could rewrite.
    File,
}

/// A part of one segment and one VMA.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
    /// Offset in the file.
    pub offset: u64,
    /// Its VMA.
    pub mapping: &'a Mapping,
    /// What it maps.
    pub backing: PartBacking,
    /// Whether it is writable, or was while it was relocated.
    pub is_relocated: bool,
    /// The part of it that has its bytes from the file, not zeroes, in bytes.
    pub from_file: u64,
}

/// The state of an object, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectState {
    /// Relocated words have reverted to the file's contents, or pages are gone.
    Damaged,
    /// Writable or relocated ranges map the file.
    Exposed,
    /// Read-only ranges map the file.
    Relocated,
    /// No range maps the file.
    Full,
}

impl ObjectState {
    /// Returns the word for people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::Exposed => "exposed",
            Self::Relocated => "relocated",
            Self::Full => "full",
        }
    }
}

/// An object.
#[derive(Debug)]
pub struct InspectedObject<'a> {
    /// The loader's name for it; empty for the executable, and where there is no list.
    pub name: Vec<u8>,
    /// Load bias, where it is known.
    pub base: Option<u64>,
    /// First byte, and one past the last.
    pub span: (u64, u64),
    /// Address of the dynamic section.
    pub dynamic: Option<u64>,
    /// 0, or a number for a namespace of `dlmopen(3)`.
    pub namespace: usize,
    /// Its parts that can be accessed.
    pub parts: Vec<Part<'a>>,
    /// A VMA that maps the file that it was loaded from.
    pub original: Option<&'a Mapping>,
    /// The library's record of it.
    pub said: Option<Said>,
}

impl InspectedObject<'_> {
    /// Returns its state, judging by the mappings only.
    pub fn state(&self) -> ObjectState {
        let file = || self.parts.iter().filter(|part| part.backing == PartBacking::File);
        if file().any(|part| part.is_relocated) {
            ObjectState::Exposed
        } else if file().next().is_some() {
            ObjectState::Relocated
        } else {
            ObjectState::Full
        }
    }

    /// Returns the file that it was loaded from, as `/proc/PID/maps` shows it.
    pub fn file(&self) -> Option<FileId> {
        self.original.map(|original| original.file)
    }

    /// Returns whether it maps a file in a layer of a container's image.
    pub fn is_in_image(&self) -> bool {
        self.parts.iter().any(|part| part.backing == PartBacking::Layer)
    }

    /// Returns the number of bytes of its file that are pinned: mapped from a copy, or
    /// anonymous memory in place of the file's.
    pub fn pinned(&self) -> u64 {
        let is_pinned = |part: &&Part| matches!(part.backing, PartBacking::Copy(_) | PartBacking::Anonymous);
        self.parts.iter().filter(is_pinned).map(|part| part.from_file).sum()
    }

    /// Returns a copy of the whole file as it was when it was loaded.
    pub fn copy(&self) -> Option<&Part<'_>> {
        self.parts.iter().find(|part| matches!(part.backing, PartBacking::Copy(_)))
    }
}

/// Everything that is known about a process's memory.
pub struct Scene<'a, M> {
    /// Its mappings.
    pub maps: &'a [Mapping],
    /// Its memory, if that may be read.
    pub memory: Option<&'a M>,
    /// Its files.
    pub view: &'a View<'a>,
    /// The program, if that could be read.
    pub executable: Option<&'a Executable>,
    /// The records that the library publishes.
    pub published: Option<&'a Published>,
    /// Bytes of a page.
    pub page: u64,
}

impl<'a, M: Bytes> Scene<'a, M> {
    /// Returns all objects: those in the loader's list and, if that is incomplete, those that
    /// the mappings show.
    pub fn objects(&self, list: Option<&List>) -> Vec<InspectedObject<'a>> {
        let mut objects = list.map(|list| self.listed(list)).unwrap_or_default();
        if list.is_none_or(|list| list.is_cut) {
            self.add_mapped(&mut objects);
        }
        objects
    }

    fn listed(&self, list: &List) -> Vec<InspectedObject<'a>> {
        let mut objects: Vec<InspectedObject> = Vec::new();
        // Objects do not overlap. In a list that the process has made up all could be everywhere.
        let most = 4 * self.maps.len() + SEGMENTS * list.objects.len();
        let mut parts = 0;
        for (index, listed) in list.objects.iter().enumerate() {
            // The loader itself is in every namespace.
            if objects.iter().any(|object| object.dynamic == Some(listed.dynamic)) {
                continue;
            }
            let executable = self.executable.filter(|_| index == 0);
            let Some(object) = self.object(listed, executable.map(|executable| &executable.headers)) else { continue };
            parts += object.parts.len();
            if parts > most {
                break;
            }
            objects.extend(self.complete(object));
        }
        objects
    }

    fn object(&self, listed: &Listed, headers: Option<&Headers>) -> Option<InspectedObject<'a>> {
        let base = listed.base;
        let is_it = |headers: &Headers| {
            headers.dynamic.is_some_and(|(address, _)| base.wrapping_add(address) == listed.dynamic)
        };
        let headers = headers.cloned().or_else(|| {
            let (_, headers) = image::read(self.memory?, base).ok()?;
            is_it(&headers).then_some(headers)
        });
        let headers = headers.or_else(|| {
            let mapping = maps::at(self.maps, listed.dynamic).filter(|mapping| mapping.has_file())?;
            self.view.image(mapping).ok().map(|image| image.headers.clone()).filter(is_it)
        });
        let said = self.published.and_then(|published| published.of(base)).filter(|said| {
            let Record { start, end, .. } = said.record;
            (start, end) == (0, 0) || (start..end).contains(&listed.dynamic)
        });
        let (span, parts) = match &headers {
            Some(headers) => self.by_headers(base, headers),
            None => self.by_neighbours(listed.dynamic)?,
        };
        Some(InspectedObject {
            name: listed.name.clone(),
            base: Some(base),
            span,
            dynamic: Some(listed.dynamic),
            namespace: listed.namespace,
            original: None,
            said: said.cloned(),
            parts,
        })
    }

    /// Adds the objects that the mappings alone show: executable mappings of ELF files.
    fn add_mapped(&self, objects: &mut Vec<InspectedObject<'a>>) {
        for text in self.maps.iter().filter(|mapping| mapping.is_executable && mapping.has_file()) {
            if objects.iter().any(|object| object.span.0 <= text.start && text.start < object.span.1) {
                continue;
            }
            let found = match self.view.image(text) {
                Ok(image) => self.by_text(text, &image),
                Err(Flaw::Foreign) => None,
                Err(_) => self.by_neighbours(text.start).map(|(span, parts)| (None, None, span, parts)),
            };
            let Some((base, dynamic, span, parts)) = found else { continue };
            let object = InspectedObject {
                name: Vec::new(),
                base,
                span,
                dynamic,
                namespace: 0,
                original: None,
                said: None,
                parts,
            };
            objects.extend(self.complete(object));
        }
    }

    /// Returns the object to which a mapping of text belongs.
    #[allow(clippy::type_complexity, reason = "a tuple that is taken apart at once")]
    fn by_text(
        &self,
        text: &Mapping,
        image: &Rc<Image>,
    ) -> Option<(Option<u64>, Option<u64>, (u64, u64), Vec<Part<'a>>)> {
        let down = |value: u64| value & !(self.page - 1);
        let is_there = |segment: &&LoadHeader| {
            let up = (segment.offset + segment.file_size).next_multiple_of(self.page);
            !segment.is_writable && down(segment.offset) <= text.offset && text.offset < up
        };
        let segment = image.headers.segments.iter().rfind(is_there)?;
        let base = text.start.wrapping_sub(down(segment.address) + (text.offset - down(segment.offset)));
        // A single page elsewhere, such as a witness, is not an object.
        let first = image.headers.segments.first()?;
        let beginning = maps::at(self.maps, base.wrapping_add(down(first.address)))?;
        if beginning.file != text.file && maps::copy_at(beginning).is_none() {
            return None;
        }
        let (span, parts) = self.by_headers(base, &image.headers);
        Some((Some(base), image.headers.dynamic.map(|(address, _)| base.wrapping_add(address)), span, parts))
    }

    fn by_headers(&self, base: u64, headers: &Headers) -> ((u64, u64), Vec<Part<'a>>) {
        let (start, end) = headers.span(self.page);
        let span = (base.wrapping_add(start), base.wrapping_add(end));
        let mut parts = Vec::new();
        for (index, segment) in headers.segments.iter().enumerate() {
            let from = base.wrapping_add(segment.address) & !(self.page - 1);
            let up = |end: u64| base.wrapping_add(end).checked_next_multiple_of(self.page).unwrap_or(u64::MAX);
            let to = up(segment.address + segment.size);
            // A page that two segments touch belongs to the later one.
            let next = headers.segments.get(index + 1).map(|next| base.wrapping_add(next.address) & !(self.page - 1));
            let to = next.map_or(to, |next| to.min(next));
            let file_end = up(segment.address + segment.file_size);
            for mapping in maps::within(self.maps, from, to) {
                parts.extend(self.part(mapping, (from, to), segment.is_writable, file_end));
            }
        }
        (span, parts)
    }

    /// Returns the range and the parts of an object whose headers cannot be read: the adjacent
    /// VMAs that map the same file as the one at `address`, and the memory behind them.
    fn by_neighbours(&self, address: u64) -> Option<((u64, u64), Vec<Part<'a>>)> {
        let index = self.maps.iter().position(|mapping| mapping.start <= address && address < mapping.end)?;
        let here = self.maps.get(index).filter(|mapping| mapping.has_file())?;
        let belongs = |mapping: &Mapping| mapping.file == here.file;
        let mut first = index;
        while let Some(pair) = first.checked_sub(1).and_then(|before| self.maps.get(before..=first)) {
            let [before, after] = pair else { break };
            if before.end != after.start || !belongs(before) {
                break;
            }
            first -= 1;
        }
        let mut last = index;
        while let Some([before, after]) = self.maps.get(last..=last + 1) {
            let is_bss = !after.has_file() && after.path.is_empty() && belongs(before);
            if before.end != after.start || !(belongs(after) || is_bss) {
                break;
            }
            last += 1;
        }
        let all = self.maps.get(first..=last)?;
        let span = (all.first()?.start, all.last()?.end);
        // RELRO lies in front of the writable data.
        let data = all.iter().position(|mapping| mapping.is_writable);
        // Gaps between segments are inaccessible.
        let accessible = all.iter().enumerate().filter(|(_, mapping)| mapping.is_accessible());
        let parts = accessible.filter_map(|(index, mapping)| {
            let is_relro = data == Some(index + 1) && !mapping.is_executable && index != 0;
            self.part(mapping, span, is_relro, mapping.end)
        });
        Some((span, parts.collect()))
    }

    fn part(&self, mapping: &'a Mapping, bounds: (u64, u64), is_relocated: bool, file_end: u64) -> Option<Part<'a>> {
        let (start, end, offset) = mapping.part(bounds.0, bounds.1)?;
        let backing = if !mapping.has_file() {
            PartBacking::Anonymous
        } else if let Some(copy) = maps::copy_at(mapping).filter(|_| self.view.may_be_copy(mapping)) {
            PartBacking::Copy(copy)
        } else {
            match self.view.mapped(mapping).writability {
                Writability::Unwritable => PartBacking::Unwritable,
                Writability::InImage => PartBacking::Layer,
                Writability::InContainer | Writability::Writable => PartBacking::File,
            }
        };
        let is_relocated = is_relocated || mapping.is_writable;
        let from_file = end.min(file_end).saturating_sub(start);
        Some(Part { start, end, offset, mapping, backing, is_relocated, from_file })
    }

    /// Adds what depends on the parts; `None` for the vDSO.
    fn complete(&self, mut object: InspectedObject<'a>) -> Option<InspectedObject<'a>> {
        let is_of_a_file = object.parts.iter().any(|part| part.mapping.has_file());
        if !is_of_a_file && object.said.as_ref().is_none_or(|said| said.record.witness == 0) {
            return None;
        }
        self.believe_in_layers(&mut object);
        let is_of_file = |backing| matches!(backing, PartBacking::File | PartBacking::Unwritable | PartBacking::Layer);
        let own = object.parts.iter().find(|part| is_of_file(part.backing));
        let witness = object.said.as_ref().and_then(|said| maps::at(self.maps, said.record.witness));
        object.original = own.map(|part| part.mapping).or(witness).or_else(|| self.witness_of(&object));
        let text_relocations = || {
            let image = self.view.image(object.copy().map(|part| part.mapping).or(object.original)?).ok()?;
            Some(image.dynamic.has_text_relocations())
        };
        if own.is_some() && text_relocations() == Some(true) {
            object.parts.iter_mut().for_each(|part| part.is_relocated = true);
        }
        Some(object)
    }

    /// Counts a file of a container as one of its image where the library has recorded the object
    /// as `full` without replacing its ranges. Such a file was copied up since it was mapped,
    /// which nothing shows from outside: the mapping is still one of the lower file.
    fn believe_in_layers(&self, object: &mut InspectedObject<'a>) {
        let is_left_as_full = |record: &Record| record.reached() == Some(Reached::Full) && record.bytes == 0;
        if !object.said.as_ref().is_some_and(|said| is_left_as_full(&said.record)) {
            return;
        }
        for part in object.parts.iter_mut().filter(|part| part.backing == PartBacking::File) {
            if self.view.mapped(part.mapping).writability == Writability::InContainer {
                part.backing = PartBacking::Layer;
            }
        }
    }

    /// Returns the mapping of an object's witness where the library's records cannot be read.
    fn witness_of(&self, object: &InspectedObject) -> Option<&'a Mapping> {
        let (copy, _) = object.copy()?.mapping.names();
        let name = copy.rsplit(|byte| *byte == b'/' || *byte == b':').next()?;
        let is_called_so = |path: &[u8]| path.rsplit(|byte| *byte == b'/').next() == Some(name);
        self.maps.iter().find(|mapping| {
            let is_page = mapping.end - mapping.start == self.page && !mapping.is_writable && mapping.has_file();
            is_page && maps::copy_at(mapping).is_none() && is_called_so(mapping.names().0)
        })
    }
}

#[cfg(test)]
mod tests;

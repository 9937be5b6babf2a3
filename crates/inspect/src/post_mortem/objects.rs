//! The objects of a dead process: which mappings of files belong to each, and where it was loaded.
//! The loader's list is read from the dump where it has that; NT_FILE has the mappings.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::io::Errno;

use super::system::System;
use crate::core_dump::{Content, CoreDump, DumpedRange, MappedRange};
use crate::image::{self, Headers};
use crate::loader::{self, Executable, List, Listed};
use crate::maps::{self, Mapping, without_mark};
use crate::memory::{Bytes, FileBytes};

/// More bytes than one object has from its first to its last mapping.
const MAX_SPAN: u64 = 1 << 36;

/// A file that the process had mapped: an object, or a file of data.
#[derive(Clone, Debug)]
pub struct DumpedObject {
    /// The path, as NT_FILE has it.
    pub path: Rc<[u8]>,
    /// Its mappings, ascending.
    pub ranges: Vec<MappedRange>,
    /// Its entry in the loader's list; `None` if it is not in the list, or there is no list.
    pub listed: Option<Listed>,
    /// Load bias, where it is known.
    pub base: Option<u64>,
    /// The path of the file that it is a copy of, if libsopin.so has left a witness of that.
    pub witness: Option<Rc<[u8]>>,
    /// It is an object: the loader has it, or it has code, or it is an ELF file.
    pub is_object: bool,
}

impl DumpedObject {
    /// Returns the first address, and one past the last.
    pub fn span(&self) -> (u64, u64) {
        (self.ranges.first().map_or(0, |range| range.start), self.ranges.last().map_or(0, |range| range.end))
    }

    /// Returns the path without the mark of a deleted file, and whether it has that mark. A file can
    /// also be named "x (deleted)".
    pub fn names(&self) -> (&[u8], bool) {
        without_mark(&self.path)
    }

    /// Returns whether the file is a copy that libsopin.so has made.
    pub fn is_copy(&self) -> bool {
        maps::copy_at(&Mapping { path: self.path.to_vec(), ..Mapping::default() }).is_some()
    }

    /// Returns the path of the file that the object was loaded from.
    pub fn origin(&self) -> &[u8] {
        match (&self.witness, &self.listed) {
            (Some(witness), _) => witness,
            (None, Some(listed)) if self.is_copy() && listed.name.starts_with(b"/") => &listed.name,
            _ => self.names().0,
        }
    }

    /// Returns the name of the file, behind the last slash, or behind the colon in that of a memfd.
    fn file_name(&self) -> &[u8] {
        self.names().0.rsplit(|byte| matches!(byte, b'/' | b':')).next().unwrap_or_default()
    }

    /// Returns whether this is the dynamic loader, by its name.
    pub fn is_loader(&self) -> bool {
        self.file_name().starts_with(b"ld-")
    }

    /// Returns the range that contains an address.
    pub fn range(&self, address: u64) -> Option<&MappedRange> {
        self.ranges.iter().find(|range| range.start <= address && address < range.end)
    }

    /// Returns the address at which the byte at an offset in the file was mapped for the segments
    /// with relocated words. Two segments can map the same page; the later one has these words.
    pub fn address_of(&self, offset: u64) -> Option<u64> {
        let contains = |range: &&MappedRange| range.offset <= offset && offset - range.offset < range.end - range.start;
        let range = self.ranges.iter().rfind(contains)?;
        Some(range.start + (offset - range.offset))
    }

    /// Returns the address at which the first byte of the file was mapped.
    pub fn beginning(&self) -> Option<u64> {
        self.ranges.iter().find(|range| range.offset == 0).map(|range| range.start)
    }
}

/// The part of the loader's list that could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListState {
    /// All of it.
    Whole,
    /// A part.
    Cut,
    /// Nothing: the program is static, the loader has only just begun, or the dump lacks it.
    Unread,
}

/// Returns the objects, and the files of data, ascending by address.
pub fn find<B: Bytes>(dump: &CoreDump<B>, system: &System, page: u64) -> (Vec<DumpedObject>, ListState) {
    let files = dump.notes.files.as_deref().unwrap_or_default();
    let memory = Memory { dump, system };
    let mut objects = joined(grouped(files), |start| {
        let (_, headers) = image::read(&memory, start).ok()?;
        let (first, end) = headers.span(page);
        Some(start.wrapping_sub(first).wrapping_add(end))
    });
    let list = list(&memory, dump);
    for listed in list.iter().flat_map(|list| &list.objects) {
        // The vDSO can lie in a gap of another object.
        let is_within = |object: &&mut DumpedObject| object.range(listed.dynamic).is_some();
        let begins = |object: &&mut DumpedObject| object.span().0 == listed.base && object.beginning().is_some();
        let found = match objects.iter_mut().find(is_within) {
            Some(found) => Some(found),
            None => objects.iter_mut().find(begins),
        };
        if let Some(object) = found {
            // The loader itself is in the list of every namespace.
            object.listed.get_or_insert_with(|| listed.clone());
        }
    }
    for object in &mut objects {
        let headers = object.beginning().and_then(|start| image::read(&memory, start).ok()).map(|(_, headers)| headers);
        object.base = match (&object.listed, headers.as_ref(), object.beginning()) {
            (Some(listed), ..) => Some(listed.base),
            (None, Some(headers), Some(start)) => Some(base_of(headers, start, page)),
            _ => None,
        };
        let is_executable =
            || object.ranges.iter().any(|range| dump.range(range.start).is_some_and(DumpedRange::is_executable));
        // Programs map parts of objects a second time, as V8 does with its own code.
        object.is_object =
            object.listed.is_some() || (object.beginning().is_some() && (headers.is_some() || is_executable()));
    }
    drop_witnesses(&mut objects, page);
    let state = match list {
        Some(list) if list.is_cut => ListState::Cut,
        Some(_) => ListState::Whole,
        None => ListState::Unread,
    };
    (objects, state)
}

/// Takes the witnesses of pinned objects out: single pages of the files that they were loaded from.
fn drop_witnesses(objects: &mut Vec<DumpedObject>, page: u64) {
    let names: HashSet<Vec<u8>> =
        objects.iter().filter(|object| object.is_copy()).map(|object| object.file_name().to_vec()).collect();
    let mut witnesses = HashMap::new();
    objects.retain(|object| {
        let (start, end) = object.span();
        let is_page = object.listed.is_none() && !object.is_copy() && end - start == page;
        let is_witness = is_page && names.contains(object.file_name());
        if is_witness {
            witnesses.insert(object.file_name().to_vec(), Rc::clone(&object.path));
        }
        !is_witness
    });
    for object in objects.iter_mut().filter(|object| object.is_copy()) {
        object.witness = witnesses.get(object.file_name()).map(Rc::clone);
    }
}

/// Returns the load bias of an object whose file is mapped from its first byte on at `start`.
pub fn base_of(headers: &Headers, start: u64, page: u64) -> u64 {
    let first = headers.segments.first().map_or(0, |segment| segment.address & !(page - 1));
    start.wrapping_sub(first)
}

/// Returns the mappings in groups, one for each time that a file was mapped from its beginning on.
fn grouped(files: &[MappedRange]) -> Vec<DumpedObject> {
    let mut objects: Vec<DumpedObject> = Vec::new();
    for range in files {
        if let Some(last) = objects.last_mut().filter(|last| last.path == range.path) {
            let is_next = range.offset != 0
                && last.ranges.last().is_some_and(|before| before.offset <= range.offset)
                && range.end - last.span().0 <= MAX_SPAN;
            if is_next {
                last.ranges.push(range.clone());
                continue;
            }
        }
        objects.push(DumpedObject {
            path: range.path.clone(),
            ranges: vec![range.clone()],
            listed: None,
            base: None,
            witness: None,
            is_object: false,
        });
    }
    objects
}

/// Joins groups of one object: where a file is small, its data begin in the first page of the file,
/// too. `end` returns where the object ends that begins at an address.
fn joined(groups: Vec<DumpedObject>, end: impl Fn(u64) -> Option<u64>) -> Vec<DumpedObject> {
    let mut objects: Vec<DumpedObject> = Vec::new();
    let mut last_end = None;
    for group in groups {
        let start = group.span().0;
        let last = objects.last_mut().filter(|last| last.path == group.path);
        if let Some(last) = last {
            let object_end = *last_end.get_or_insert_with(|| end(last.span().0));
            if object_end.is_some_and(|end| start < end) {
                last.ranges.extend(group.ranges);
                continue;
            }
        }
        last_end = None;
        objects.push(group);
    }
    objects
}

/// Returns the loader's list, of a process whose executable may have lost its DT_DEBUG.
fn list<B: Bytes>(memory: &Memory<B>, dump: &CoreDump<B>) -> Option<List> {
    let auxv = dump.notes.auxv.as_ref()?;
    let executable = Executable::read(memory, auxv);
    loader::list(memory, auxv, executable.as_ref())
}

/// The memory of the process: where the dump has left out what a mapping of a file has, it is read
/// from the file. That is not proven to be what the process had mapped.
struct Memory<'a, 'b, B> {
    dump: &'a CoreDump<'b, B>,
    system: &'a System,
}

impl<B: Bytes> Bytes for Memory<'_, '_, B> {
    fn read_some(&self, at: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        if let Content::Dumped(_) = self.dump.content(at) {
            return self.dump.read_some(at, buffer);
        }
        let files = self.dump.notes.files.as_deref().unwrap_or_default();
        let count = files.partition_point(|range| range.start <= at);
        let found = count.checked_sub(1).and_then(|index| files.get(index)).filter(|range| at < range.end);
        let range = found.ok_or(Errno::IO)?;
        let file = FileBytes::from(OwnedFd::from(self.system.open(without_mark(&range.path).0)?));
        let len = buffer.len().min(usize::try_from(range.end - at).unwrap_or(usize::MAX));
        file.read_some(range.offset + (at - range.start), buffer.get_mut(..len).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_of_a_file_are_grouped() {
        let range = |start: u64, end: u64, offset: u64, path: &str| MappedRange {
            start,
            end,
            offset,
            path: path.as_bytes().into(),
        };
        let files = [
            range(0x1000, 0x2000, 0, "/a"),
            range(0x2000, 0x3000, 0x1000, "/a"),
            range(0x3000, 0x4000, 0x1000, "/a"),
            range(0x5000, 0x6000, 0, "/a"),
            range(0x6000, 0x7000, 0, "/b (deleted)"),
            range(0x9000, 0xa000, 0x1000, "/a"),
        ];
        let objects = grouped(&files);
        let spans: Vec<_> = objects.iter().map(DumpedObject::span).collect();
        assert_eq!(spans, [(0x1000, 0x4000), (0x5000, 0x6000), (0x6000, 0x7000), (0x9000, 0xa000)]);
        let small = joined(grouped(&files[..4]), |start| Some(start + 0x5000));
        assert_eq!(small.iter().map(DumpedObject::span).collect::<Vec<_>>(), [(0x1000, 0x6000)]);
        let twice = joined(grouped(&files[..4]), |start| Some(start + 0x3000));
        assert_eq!(twice.len(), 2);
        assert_eq!(objects[2].names(), (&b"/b"[..], true));
        assert_eq!(objects[0].address_of(0x1010), Some(0x3010), "the later segment's");
        assert_eq!((objects[0].address_of(0x2000), objects[3].beginning()), (None, None));
    }
}

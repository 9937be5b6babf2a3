//! The table of the objects that are known: what is recorded of each, and where its
//! published record is. It decides nothing, and the lock protects it.

use sopin_core::address_map::AddressMap;
use sopin_core::names::NameHashes;
use sopin_core::object::Span;
use sopin_core::records::Record;
use sopin_core::sys::Result;
use sopin_core::vmas::FileId;

use crate::loader::Loaded;
use crate::published::{Account, Records};

/// A pinned object, or one that is known and was left alone.
#[derive(Clone, Copy, Default)]
pub struct Entry {
    /// The page of the original file, empty without one.
    pub witness: Span,
    /// Where its dynamic section is.
    dynamic: usize,
    /// The file that has been mapped there since the sweep, if that is known: the file
    /// with inode 0, none, once it is pinned.
    file: Option<FileId>,
    /// The file that it was loaded from, if a sweep has pinned it, all of it or in part.
    pub original: Option<FileId>,
    /// It lives in a namespace that the loader's list does not show.
    pub in_other_namespace: bool,
    /// Bytes of private copies of its read-only ranges.
    pub private: usize,
    /// What a DT_NEEDED entry may call it. Recording it again does not change that.
    names: NameHashes,
    /// The last pass over the loader's list that saw it.
    seen: u32,
    /// Where its published record is.
    index: u32,
}

impl Entry {
    /// Makes the entry of an object with that witness page, and that file at its dynamic section.
    pub fn new(witness: Span, dynamic: usize, file: Option<FileId>) -> Self {
        Self { witness, dynamic, file, ..Self::default() }
    }

    /// Makes the entry of an object of which only the names are known yet.
    pub fn named(names: NameHashes) -> Self {
        Self { names, ..Self::default() }
    }

    /// Returns the file at its dynamic section.
    pub const fn file(&self) -> Option<FileId> {
        self.file
    }

    /// Returns whether another object has taken the place of the one recorded, if its
    /// dynamic section and the file there are these.
    pub fn is_replaced_by(&self, dynamic: usize, file: FileId) -> bool {
        self.dynamic != dynamic || self.file.is_some_and(|recorded| recorded != file)
    }
}

/// The table. Its methods take an object by the address of its program headers.
pub struct Registry {
    entries: AddressMap<Entry>,
    records: Records,
    /// Number of the current pass over the loader's list.
    pass: u32,
}

impl Registry {
    /// Makes an empty table.
    pub const fn new() -> Self {
        Self { entries: AddressMap::new(), records: Records::new(), pass: 0 }
    }

    /// Records what became of the object that the loader lists as `loaded`, in
    /// the place of an older record. Recording it again cannot fail.
    pub fn record(&mut self, loaded: &Loaded, entry: Entry, account: &Account) -> Result<()> {
        let (index, names) = if let Some(older) = self.entries.get_mut(loaded.headers) {
            (older.index, older.names)
        } else {
            self.records.reserve()?;
            (self.records.len() as u32, entry.names)
        };
        self.entries.insert(loaded.headers, Entry { seen: self.pass, index, names, ..entry })?;
        self.records.set(index as usize, account.record(loaded, entry.witness, entry.in_other_namespace))
    }

    /// Returns what is recorded of the object.
    pub fn recorded(&mut self, headers: usize) -> Option<Entry> {
        self.entries.get_mut(headers).copied()
    }

    /// Returns what is recorded of the object and what is published of it.
    pub fn look_up(&mut self, headers: usize) -> Option<(Entry, Record)> {
        let entry = self.recorded(headers)?;
        Some((entry, *self.records.as_slice().get(entry.index as usize)?))
    }

    /// Returns what a DT_NEEDED entry may call the object; that is unknown if it is not recorded.
    pub fn names(&mut self, headers: usize) -> NameHashes {
        self.recorded(headers).map_or(NameHashes::UNKNOWN, |entry| entry.names)
    }

    /// Returns everything that is published.
    pub fn all_published(&self) -> &[Record] {
        self.records.as_slice()
    }

    /// Forgets an object; returns what was recorded of it.
    pub fn forget(&mut self, headers: usize) -> Option<Entry> {
        let entry = self.entries.remove(headers)?;
        if let Some(moved) = self.records.remove(entry.index as usize)
            && let Some(other) = self.entries.get_mut(moved.headers as usize)
        {
            other.index = entry.index;
        }
        Some(entry)
    }

    /// Forgets the objects that are not in `objects`, the loader's list, and are `gone`;
    /// `release` gets what was recorded of each.
    pub fn forget_unlisted(
        &mut self,
        objects: &[Loaded],
        gone: impl Fn(usize, &Entry) -> bool,
        mut release: impl FnMut(&Entry),
    ) {
        self.pass = self.pass.wrapping_add(1);
        for loaded in objects {
            if let Some(entry) = self.entries.get_mut(loaded.headers) {
                entry.seen = self.pass;
            }
        }
        let mut index = 0;
        while let Some(record) = self.records.as_slice().get(index) {
            let headers = record.headers as usize;
            let unseen = self.recorded(headers).filter(|entry| entry.seen != self.pass && gone(headers, entry));
            match unseen.and_then(|_| self.forget(headers)) {
                // Another record has taken its place.
                Some(entry) => release(&entry),
                None => index += 1,
            }
        }
    }
}

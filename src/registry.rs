//! The table of the known objects: the entry of each, and the index of its published record.
//! The library's lock protects it. It makes no decisions.

use sopin_core::address_map::AddressMap;
use sopin_core::names::NameHashes;
use sopin_core::object::Span;
use sopin_core::records::Record;
use sopin_core::sys::Result;
use sopin_core::vmas::FileId;

use crate::loader::Loaded;
use crate::published::{Account, Records};

/// The entry of an object that was pinned or left.
#[derive(Clone, Copy, Default)]
pub struct Entry {
    /// The page of the original file; empty if there is none.
    pub witness: Span,
    /// Address of its dynamic section.
    dynamic: usize,
    /// The file that has been mapped at its dynamic section since the sweep, if that is known.
    /// Anonymous memory, as after pinning, has inode 0.
    file: Option<FileId>,
    /// The file from which it was loaded, if a sweep has pinned all or a part of it.
    pub original: Option<FileId>,
    /// Whether it is in a namespace whose objects the loader's list does not contain.
    pub in_other_namespace: bool,
    /// Bytes of its private copies: of read-only ranges, and of data to which no code had stored.
    pub private: usize,
    /// The names by which a DT_NEEDED entry may refer to it. Recording it again keeps them.
    names: NameHashes,
    /// The last pass over the loader's list in which it was found.
    seen: u32,
    /// The index of its published record.
    index: u32,
}

impl Entry {
    /// Makes the entry of an object that has this witness and maps `file` at its dynamic section.
    pub fn new(witness: Span, dynamic: usize, file: Option<FileId>) -> Self {
        Self { witness, dynamic, file, ..Self::default() }
    }

    /// Makes the entry of an object of which so far only the names are known.
    pub fn named(names: NameHashes) -> Self {
        Self { names, ..Self::default() }
    }

    /// Returns the file that is mapped at its dynamic section, if that is known.
    pub const fn file(&self) -> Option<FileId> {
        self.file
    }

    /// Sets the file that is mapped at its dynamic section.
    pub const fn set_file(&mut self, file: Option<FileId>) {
        self.file = file;
    }

    /// Returns whether an object with this dynamic section, at which `file` is mapped, is another
    /// one than the recorded object.
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
    /// How many objects were removed from the table.
    removed: u64,
}

impl Registry {
    /// Makes an empty table.
    pub const fn new() -> Self {
        Self { entries: AddressMap::new(), records: Records::new(), pass: 0, removed: 0 }
    }

    /// Records the `account` of the object that the loader lists as `loaded`. It replaces an
    /// older record, for which it needs no memory and cannot fail.
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

    /// Returns the entry of the object.
    pub fn recorded(&mut self, headers: usize) -> Option<Entry> {
        self.entries.get_mut(headers).copied()
    }

    /// Returns the entry of the object and its published record.
    pub fn look_up(&mut self, headers: usize) -> Option<(Entry, Record)> {
        let entry = self.recorded(headers)?;
        Some((entry, *self.records.as_slice().get(entry.index as usize)?))
    }

    /// Returns the names by which a DT_NEEDED entry may refer to the object. They are unknown if
    /// it is not recorded.
    pub fn names(&mut self, headers: usize) -> NameHashes {
        self.recorded(headers).map_or(NameHashes::UNKNOWN, |entry| entry.names)
    }

    /// Returns all published records.
    pub fn all_published(&self) -> &[Record] {
        self.records.as_slice()
    }

    /// Returns how many objects were removed from the table. While that is unchanged, an object that
    /// was recorded is recorded.
    pub const fn removed(&self) -> u64 {
        self.removed
    }

    /// Forgets an object; returns its entry.
    pub fn forget(&mut self, headers: usize) -> Option<Entry> {
        let entry = self.entries.remove(headers)?;
        self.removed += 1;
        if let Some(moved) = self.records.remove(entry.index as usize)
            && let Some(other) = self.entries.get_mut(moved.headers as usize)
        {
            other.index = entry.index;
        }
        Some(entry)
    }

    /// Forgets the objects that are not in `objects`, the loader's list, and for which `gone`
    /// returns true. Calls `release` with the entry of each.
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
                // Another record has moved to this index, so the index stays.
                Some(entry) => release(&entry),
                None => index += 1,
            }
        }
    }
}

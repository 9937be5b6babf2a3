//! What is pinned, behind the one lock of this library.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use sopin_core::address_map::AddressMap;
use sopin_core::cause::Cause;
use sopin_core::names::NameHashes;
use sopin_core::object::Span;
use sopin_core::records::{Reached, Record};
use sopin_core::settings::Settings;
use sopin_core::sys::Result;
use sopin_core::vmas::FileId;

use crate::loader::{Counters, Loaded};
use crate::log::Log;
use crate::private_memory::PrivateMemory;
use crate::published::Records;
use crate::sources::KnownStores;
use crate::workspace::Workspace;

mod forks;
mod lock;

pub use forks::prepare_for_forks;
pub use lock::{
    Attempt, Guard, MAX_NAPS, MAX_NAPS_FOR_FORK, generation, lock, lock_in_handler, lock_quietly, nap, try_lock,
};

/// A pinned object, or one that is known and was left alone.
#[derive(Clone, Copy, Default)]
pub struct Entry {
    /// The page of the original file, empty without one.
    pub witness: Span,
    /// Where its dynamic section is.
    dynamic: usize,
    /// The file that is mapped there since the sweep, if that is known: that
    /// with inode 0, none, once it is pinned.
    file: Option<FileId>,
    /// The file that it was loaded from; inode 0 if nothing was replaced.
    pub original: FileId,
    /// It lives in a namespace that the loader's list does not show us.
    pub in_other_namespace: bool,
    /// Bytes of private copies of its read-only ranges.
    pub private: usize,
    /// What a DT_NEEDED entry may call it. Recording it again does not change that.
    pub names: NameHashes,
    /// The last walk that saw it in the loader's list.
    seen: u32,
    /// Where its published record is.
    index: u32,
}

/// What became of an object, as it is published.
#[derive(Clone, Copy, Default)]
pub struct Account {
    /// What was reached.
    pub reached: Reached,
    /// All its pages, as far as they are known.
    pub span: Span,
    /// Bytes that were replaced.
    pub bytes: usize,
    /// Why not everything was.
    pub cause: Option<Cause>,
}

/// A path as the kernel limits it.
pub type PathBuffer = [u8; libc::PATH_MAX as usize];

impl Entry {
    /// An object with that witness page, and that file at its dynamic section.
    pub fn new(witness: Span, dynamic: usize, file: Option<FileId>) -> Self {
        Self { witness, dynamic, file, ..Self::default() }
    }

    /// An object of which only the names are known yet.
    pub fn named(names: NameHashes) -> Self {
        Self { names, ..Self::default() }
    }

    /// The file at its dynamic section.
    pub const fn file(&self) -> Option<FileId> {
        self.file
    }

    /// Whether another object has taken the place of the one recorded, if this
    /// is mapped there now.
    pub fn is_replaced_by(&self, dynamic: usize, file: FileId) -> bool {
        self.dynamic != dynamic || self.file.is_some_and(|recorded| recorded != file)
    }
}

/// Everything that the lock protects.
pub struct State {
    /// Set once the settings have been read.
    pub is_initialised: bool,
    /// Set once this library is off `LD_PRELOAD`, if the settings want that.
    pub is_preload_dropped: bool,
    /// The settings in force.
    pub settings: Settings,
    /// Where messages go.
    pub log: Log,
    /// Copies of this process's own.
    pub private_memory: PrivateMemory,
    /// By the address of the object's program headers.
    entries: AddressMap<Entry>,
    records: Records,
    walk: u32,
    /// For paths: not on the stack, which may be a small one of the host's.
    pub path_buffer: PathBuffer,
    /// Memory of the next sweep.
    pub workspace: Workspace,
    /// The stores that were proven to be some.
    pub known_stores: KnownStores,
}

impl State {
    const fn new() -> Self {
        Self {
            is_initialised: false,
            is_preload_dropped: false,
            settings: Settings::new(),
            log: Log::new(),
            private_memory: PrivateMemory::new(),
            entries: AddressMap::new(),
            records: Records::new(),
            walk: 0,
            path_buffer: [0; size_of::<PathBuffer>()],
            workspace: Workspace::new(),
            known_stores: KnownStores::new(),
        }
    }
}

/// The loader's counters when everything loaded was last known to be recorded.
static ADDS: AtomicU64 = AtomicU64::new(0);
static SUBS: AtomicU64 = AtomicU64::new(0);
/// How many announcements were not followed by a sweep, and how many of them
/// do not matter any more: everything loaded has been recorded since.
static MISSED: AtomicU32 = AtomicU32::new(0);
static MADE_UP_FOR: AtomicU32 = AtomicU32::new(0);

/// Whether nothing was loaded or unloaded since the last complete sweep.
pub fn is_current(counters: Counters) -> bool {
    counters.adds == ADDS.load(Ordering::Relaxed) && counters.subs == SUBS.load(Ordering::Relaxed)
}

/// The counters of the last complete sweep.
pub fn recorded_counters() -> Counters {
    Counters { adds: ADDS.load(Ordering::Relaxed), subs: SUBS.load(Ordering::Relaxed) }
}

/// Says that everything loaded up to `counters` is recorded; the caller holds
/// the lock.
pub fn set_counters(_lock: &Guard, counters: Counters) {
    ADDS.store(counters.adds, Ordering::Relaxed);
    SUBS.store(counters.subs, Ordering::Relaxed);
}

/// Whether some object may have announced itself without being recorded.
pub fn has_missed_a_sweep() -> bool {
    missed_sweeps() != MADE_UP_FOR.load(Ordering::Relaxed)
}

/// How many sweeps after an announcement did not happen.
pub fn missed_sweeps() -> u32 {
    MISSED.load(Ordering::Relaxed)
}

/// Remembers that an object has announced itself and was not recorded.
pub fn note_missed_sweep() {
    MISSED.fetch_add(1, Ordering::Relaxed);
}

/// Says that everything is recorded that was loaded when `missed` sweeps had
/// not happened; the caller holds the lock.
pub fn make_up_for_missed_sweeps(_lock: &Guard, missed: u32) {
    MADE_UP_FOR.store(missed, Ordering::Relaxed);
}

impl State {
    /// Begins a walk over the loader's list: all entries count as unseen.
    pub fn begin_walk(&mut self) {
        self.walk = self.walk.wrapping_add(1);
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
        self.entries.insert(loaded.headers, Entry { seen: self.walk, index, names, ..entry })?;
        let mut record = Record::default();
        record.headers = loaded.headers as u64;
        record.base = loaded.base as u64;
        record.name = loaded.name as u64;
        record.witness = entry.witness.start as u64;
        record.bytes = account.bytes as u64;
        record.set_span(account.span);
        record.set_reached(account.reached);
        record.set_in_other_namespace(entry.in_other_namespace);
        record.set_cause(account.cause);
        self.records.set(index as usize, record)
    }

    /// What is recorded of the object.
    pub fn recorded(&mut self, headers: usize) -> Option<Entry> {
        self.entries.get_mut(headers).copied()
    }

    /// What is published of the object.
    pub fn published(&mut self, headers: usize) -> Option<Record> {
        let index = self.recorded(headers)?.index;
        self.records.as_slice().get(index as usize).copied()
    }

    /// Everything that is published.
    pub fn all_published(&self) -> &[Record] {
        self.records.as_slice()
    }

    /// Marks the object, if it is recorded, as seen in this walk.
    pub fn mark(&mut self, headers: usize) {
        let walk = self.walk;
        if let Some(entry) = self.entries.get_mut(headers) {
            entry.seen = walk;
        }
    }

    /// Forgets an object; what was recorded of it.
    pub fn forget(&mut self, headers: usize) -> Option<Entry> {
        let entry = self.entries.remove(headers)?;
        self.private_memory.subtract(entry.private);
        self.remove_record(entry.index);
        Some(entry)
    }

    /// Forgets the objects that this walk has not seen and that are `gone`;
    /// `release` gets what was recorded of each.
    pub fn forget_unseen(&mut self, gone: impl Fn(usize, &Entry) -> bool, mut release: impl FnMut(&Entry)) {
        let mut index = 0;
        while let Some(record) = self.records.as_slice().get(index) {
            let headers = record.headers as usize;
            let unseen = self.recorded(headers).filter(|entry| entry.seen != self.walk && gone(headers, entry));
            match unseen.and_then(|_| self.forget(headers)) {
                // Another record has taken its place.
                Some(entry) => release(&entry),
                None => index += 1,
            }
        }
    }

    fn remove_record(&mut self, index: u32) {
        if let Some(moved) = self.records.remove(index as usize)
            && let Some(entry) = self.entries.get_mut(moved.headers as usize)
        {
            entry.index = index;
        }
    }
}

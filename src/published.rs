//! The records for readers outside the process, in an array without gaps: `sopin_records` has
//! its address. [`sopin_core::records`] defines the layout and contains the code for readers.
//!
//! The array belongs to the state that the library's lock protects, so there is one writer at a
//! time.

use sopin_core::cause::Cause;
use sopin_core::mode::Mode;
use sopin_core::object::Span;
use sopin_core::pages::PageVec;
use sopin_core::records::{Header, Reached, Record};
use sopin_core::sys::Result;

use crate::loader::Loaded;

/// The header, at which readers begin. Readers find it by its symbol, so the name must not change.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "a name of the C interface")]
pub static sopin_records: Header = Header::new(env!("CARGO_PKG_VERSION"));

/// Publishes the mode in force.
pub fn set_mode(mode: Mode) {
    sopin_records.set_mode(mode);
}

/// The result of pinning or leaving an object.
#[derive(Clone, Copy, Default)]
pub struct Account {
    pub reached: Reached,
    /// All its pages; empty if its headers could not be read.
    pub span: Span,
    /// Bytes that were replaced.
    pub bytes: usize,
    /// Why not everything was replaced that the mode demands.
    pub cause: Option<Cause>,
}

impl Account {
    /// Returns the record of an object that the loader lists as `loaded`.
    pub fn record(&self, loaded: &Loaded, witness: Span, in_other_namespace: bool) -> Record {
        let mut record = unrecorded(loaded);
        record.witness = witness.start as u64;
        record.bytes = self.bytes as u64;
        record.set_span(self.span);
        record.set_reached(self.reached);
        record.set_in_other_namespace(in_other_namespace);
        record.set_cause(self.cause);
        record
    }
}

/// Returns a record that contains only what the loader lists.
pub fn unrecorded(loaded: &Loaded) -> Record {
    let mut record = Record::default();
    record.headers = loaded.headers as u64;
    record.base = loaded.base as u64;
    record.name = loaded.name as u64;
    record
}

/// The published records, in no particular order.
pub struct Records {
    records: PageVec<Record>,
}

impl Records {
    /// Makes an empty array.
    pub const fn new() -> Self {
        Self { records: PageVec::new() }
    }

    /// Returns the number of records.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Returns all records.
    pub fn as_slice(&self) -> &[Record] {
        &self.records
    }

    /// Makes room for one more record. The array may move, which readers must notice.
    pub fn reserve(&mut self) -> Result<()> {
        let change = sopin_records.change();
        let result = self.records.reserve(1);
        change.set_records(&self.records);
        result
    }

    /// Sets the record at `index`. Appends it if there is none; that cannot fail after
    /// [`Records::reserve`].
    pub fn set(&mut self, index: usize, record: Record) -> Result<()> {
        let change = sopin_records.change();
        if let Some(slot) = self.records.get_mut(index) {
            *slot = record;
            return Ok(());
        }
        let result = self.records.push(record);
        change.set_records(&self.records);
        result
    }

    /// Removes the record at `index`. Returns the record that has moved into its place, if one has.
    pub fn remove(&mut self, index: usize) -> Option<Record> {
        let change = sopin_records.change();
        let last = self.records.last().copied()?;
        if let Some(slot) = self.records.get_mut(index) {
            *slot = last;
        }
        self.records.truncate(self.records.len() - 1);
        change.set_records(&self.records);
        self.records.get(index).copied()
    }
}

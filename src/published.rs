//! The records that readers outside see, kept dense: `sopin_records` leads to
//! them. The layout and the readers' side are [`sopin_core::records`].
//!
//! They belong to the state that the lock protects, so there is one writer.

use sopin_core::cause::Cause;
use sopin_core::mode::Mode;
use sopin_core::object::Span;
use sopin_core::pages::PageVec;
use sopin_core::records::{Header, Reached, Record};
use sopin_core::sys::Result;

use crate::loader::Loaded;

/// Where readers begin. A symbol of the library, not to be renamed.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "a name of the C interface")]
pub static sopin_records: Header = Header::new(env!("CARGO_PKG_VERSION"));

/// Publishes the mode in force.
pub fn set_mode(mode: Mode) {
    sopin_records.set_mode(mode);
}

/// What became of an object.
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

/// Returns a record with nothing but what the loader lists.
pub fn unrecorded(loaded: &Loaded) -> Record {
    let mut record = Record::default();
    record.headers = loaded.headers as u64;
    record.base = loaded.base as u64;
    record.name = loaded.name as u64;
    record
}

/// The records, in no order.
pub struct Records {
    records: PageVec<Record>,
}

impl Records {
    /// None yet.
    pub const fn new() -> Self {
        Self { records: PageVec::new() }
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// All of them.
    pub fn as_slice(&self) -> &[Record] {
        &self.records
    }

    /// Makes room for one more. The array may move, so this is a change too.
    pub fn reserve(&mut self) -> Result<()> {
        let change = sopin_records.change();
        let result = self.records.reserve(1);
        change.set_records(&self.records);
        result
    }

    /// Sets the record at `index`, or appends it where room has been made.
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

    /// Removes the record at `index`; the one that has taken its place.
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

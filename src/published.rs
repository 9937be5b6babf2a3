//! The records that readers outside see, kept dense: `sopin_records` leads to
//! them. The layout and the readers' side are [`sopin_core::records`].
//!
//! Belongs to the state behind the registry's lock, so there is one writer.

use sopin_core::mode::Mode;
use sopin_core::pages::PageVec;
use sopin_core::records::{Header, Record};
use sopin_core::sys::Result;

/// Where readers begin. A symbol of the library, not to be renamed.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "a name of the C interface")]
pub static sopin_records: Header = Header::new(env!("CARGO_PKG_VERSION"));

/// Publishes the mode in force.
pub fn set_mode(mode: Mode) {
    sopin_records.set_mode(mode);
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

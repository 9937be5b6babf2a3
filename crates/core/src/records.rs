//! The records that the preloaded library publishes about the objects of its process, for
//! readers outside the process: the command, debuggers, people with a core dump.
//!
//! The library exports one data symbol, `sopin_records`, of type [`Header`],
//! which has the address of an array of [`Record`]s, one for each object that the library
//! knows. Both are plain C data in the process's own byte order:
//!
//! ```text
//! sopin_records ──> magic, version, sizes, sequence, mode, count, array ──┐
//!                                                                         │
//!        [ Record ][ Record ][ Record ] ...                           <───┘
//!           │
//!           └─> operation, reason: bytes in the library's read-only data
//! ```
//!
//! A reader cannot take the library's lock. The sequence number is odd while the library
//! changes records, and different afterwards. A reader that reads a header with an even number,
//! then the records, then the same header again, in this order ([`read_consistently`]), has a
//! consistent copy.
//! Changing a record takes less than a microsecond, but a process can be stopped in the
//! middle of a change, and a child can be created by `_Fork(3)` in the middle of one.
//!
//! While all threads have stopped and none is in the middle of a change, `sopin pin` is the writer:
//! it records what it has pinned from outside ([`Record::set_pinned`]).
//!
//! The writer and the readers share this layout; readers decode it from bytes. Fields may be
//! added after the last one without a new version, because a reader uses the two sizes in the
//! header; `sopin pin` keeps them, so they must not depend on those that it changes. Any other change
//! needs a new version. The texts are in read-only data. Core dumps
//! leave that out by default (`core(5)`, coredump_filter), and debuggers find it in the
//! library's file.

use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

mod reading;
#[cfg(test)]
mod tests;
mod writing;

pub use reading::*;

use crate::cause::{Cause, Reason};
use crate::mode::Mode;
use crate::object::Span;
use crate::sys::Errno;

/// Name of the exported data symbol.
pub const SYMBOL: &str = "sopin_records";
/// The first bytes of a [`Header`].
pub const MAGIC: [u8; 8] = *b"sopinrec";
/// Version of the layout.
pub const VERSION: u32 = 1;
/// Longest text of an operation or a reason, in bytes.
pub const MAX_TEXT: usize = u8::MAX as usize;

/// The data of the exported symbol, at which a reader begins.
#[repr(C)]
pub struct Header {
    /// [`MAGIC`]
    magic: [u8; 8],
    /// [`VERSION`]
    version: u32,
    /// Size of this header in bytes.
    size: u32,
    /// Size of a record in bytes.
    record_size: u32,
    /// A code of [`mode_of_code`]; 0 until the settings have been read.
    mode: AtomicU32,
    /// Odd while the library is changing the records.
    sequence: AtomicU64,
    /// Number of records.
    count: AtomicU64,
    /// Address of the first record.
    records: AtomicU64,
    /// Version of the library, a string that ends with the first NUL.
    library_version: [u8; 16],
}

impl Header {
    /// Makes a header without records.
    pub const fn new(library_version: &str) -> Self {
        Self {
            magic: MAGIC,
            version: VERSION,
            size: size_of::<Self>() as u32,
            record_size: size_of::<Record>() as u32,
            mode: AtomicU32::new(0),
            sequence: AtomicU64::new(0),
            count: AtomicU64::new(0),
            records: AtomicU64::new(0),
            library_version: padded(library_version),
        }
    }

    /// Publishes the mode in force.
    pub fn set_mode(&self, mode: Mode) {
        self.mode.store(code_of_mode(mode), Ordering::Relaxed);
    }

    /// Begins a change of the records. There must be one writer at a time.
    pub fn change(&self) -> Change<'_> {
        Change { header: self, next: begin_change(&self.sequence) }
    }
}

/// A change under way; it ends when this is dropped.
pub struct Change<'a> {
    header: &'a Header,
    next: u64,
}

impl Change<'_> {
    /// Publishes the address and the number of the records.
    pub fn set_records(&self, records: &[Record]) {
        self.header.records.store(records.as_ptr().expose_provenance() as u64, Ordering::Relaxed);
        self.header.count.store(records.len() as u64, Ordering::Relaxed);
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        end_change(&self.header.sequence, self.next);
    }
}

/// The sequence number: an atomic, or loom's, which knows the memory model.
trait SequenceNumber {
    fn load(&self, ordering: Ordering) -> u64;
    fn store(&self, number: u64, ordering: Ordering);
    fn fence(ordering: Ordering);
}

impl SequenceNumber for AtomicU64 {
    fn load(&self, ordering: Ordering) -> u64 {
        self.load(ordering)
    }

    fn store(&self, number: u64, ordering: Ordering) {
        self.store(number, ordering);
    }

    fn fence(ordering: Ordering) {
        fence(ordering);
    }
}

/// Makes the number odd; returns the one with which the change ends.
fn begin_change<Number: SequenceNumber>(sequence: &Number) -> u64 {
    // The number is odd already if this process was forked in the middle of a change.
    let odd = sequence.load(Ordering::Relaxed) | 1;
    sequence.store(odd, Ordering::Relaxed);
    // The fence keeps readers from seeing a store of the change before the odd number.
    Number::fence(Ordering::Release);
    odd.wrapping_add(1)
}

fn end_change<Number: SequenceNumber>(sequence: &Number, next: u64) {
    sequence.store(next, Ordering::Release);
}

/// The protection level that an object has reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reached {
    /// The library is pinning the object, or was interrupted while it did so.
    #[default]
    Pending,
    /// Every range is out of the file's reach.
    Full,
    /// The writable and relocated ranges are out of the file's reach.
    Relocated,
    /// Writable or relocated ranges still map the file.
    Exposed,
    /// The settings exclude the object.
    Excluded,
    /// The object maps no file: it is the vDSO, or the program has remapped it.
    NoFile,
}

impl Reached {
    /// All levels, each at the index of its code.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Full, Self::Relocated, Self::Exposed, Self::Excluded, Self::NoFile];

    /// Returns the number that stands for it in a record.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Returns the word for it in messages and tables.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Full => "full",
            Self::Relocated => "relocated",
            Self::Exposed => "exposed",
            Self::Excluded => "excluded",
            Self::NoFile => "no file",
        }
    }

    /// Returns the level for which a number stands; `None` for one that this version does not
    /// know.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

/// The published record of one object.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Address of its program headers, which identifies the object.
    pub headers: u64,
    /// Load bias.
    pub base: u64,
    /// Address of the loader's name for it, a C string that is empty for the
    /// executable. The string lives as long as the object.
    pub name: u64,
    /// Address of the first byte of its pages; 0 if its headers could not be read.
    pub start: u64,
    /// Address after the last byte of its pages.
    pub end: u64,
    /// Address of the witness, a page that maps its original file; 0 if there is none.
    pub witness: u64,
    /// Bytes that have been replaced.
    pub bytes: u64,
    /// Address of the text of the operation that was not done; 0 if there is no cause.
    operation: u64,
    /// Address of the words for the reason; 0 if the reason is an `errno`.
    reason: u64,
    /// The `errno`, or 0.
    errno: i32,
    operation_len: u8,
    reason_len: u8,
    /// A code of [`Reached`].
    reached: u8,
    /// 1 if the object is in a namespace made by `dlmopen(3)`, else 0.
    in_other_namespace: u8,
}

/// The address of a text in the process, and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextAt {
    /// Address of the first byte.
    pub address: u64,
    /// Length in bytes, at most [`MAX_TEXT`].
    pub len: usize,
}

/// A [`Cause`] as it is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CauseAt {
    /// The operation that failed or was refused.
    pub operation: TextAt,
    /// The reason for that.
    pub reason: ReasonAt,
}

/// A [`Reason`] as it is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReasonAt {
    /// A system call has failed with this error.
    Errno(Errno),
    /// The library has decided against it, for the reason in these words.
    Words(TextAt),
}

impl Record {
    /// Sets the pages of the object.
    pub const fn set_span(&mut self, span: Span) {
        (self.start, self.end) = (span.start as u64, span.end as u64);
    }

    /// Returns the pages of the object; empty if its headers could not be read.
    pub const fn span(&self) -> Span {
        Span { start: self.start as usize, end: self.end as usize }
    }

    /// Sets the protection level that the object has reached.
    pub const fn set_reached(&mut self, reached: Reached) {
        self.reached = reached.code();
    }

    /// Returns the protection level that the object has reached; `None` for a code of a later
    /// version.
    pub fn reached(&self) -> Option<Reached> {
        Reached::from_code(self.reached)
    }

    /// Sets whether the object is in a namespace made by `dlmopen(3)`.
    pub fn set_in_other_namespace(&mut self, is: bool) {
        self.in_other_namespace = is.into();
    }

    /// Returns whether the object is in a namespace made by `dlmopen(3)`.
    pub const fn is_in_other_namespace(&self) -> bool {
        self.in_other_namespace != 0
    }

    /// Sets why the object has not reached a higher level, or that nothing went wrong. Readers
    /// read the texts for as long as the record exists, so they must be static.
    pub fn set_cause(&mut self, cause: Option<Cause>) {
        let (operation, reason, errno) = match cause {
            None => ("", "", 0),
            Some(Cause { operation, reason: Reason::Errno(errno) }) => (operation.text(), "", errno.0),
            Some(Cause { operation, reason: Reason::Words(words) }) => (operation.text(), words, 0),
        };
        (self.operation, self.operation_len) = published(operation);
        (self.reason, self.reason_len) = published(reason);
        self.errno = errno;
    }

    /// Returns why the object has not reached a higher level; `None` if nothing went wrong.
    pub fn cause(&self) -> Option<CauseAt> {
        if self.operation == 0 {
            return None;
        }
        let operation = TextAt { address: self.operation, len: self.operation_len.into() };
        let reason = match self.reason {
            0 => ReasonAt::Errno(Errno(self.errno)),
            address => ReasonAt::Words(TextAt { address, len: self.reason_len.into() }),
        };
        Some(CauseAt { operation, reason })
    }

    /// Decodes a record; `None` if there are too few bytes. Additional bytes, which a later
    /// version has, are ignored.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let word = |offset| u64_at(bytes, offset);
        let byte = |offset: usize| bytes.get(offset).copied();
        Some(Self {
            headers: word(offset_of!(Self, headers))?,
            base: word(offset_of!(Self, base))?,
            name: word(offset_of!(Self, name))?,
            start: word(offset_of!(Self, start))?,
            end: word(offset_of!(Self, end))?,
            witness: word(offset_of!(Self, witness))?,
            bytes: word(offset_of!(Self, bytes))?,
            operation: word(offset_of!(Self, operation))?,
            reason: word(offset_of!(Self, reason))?,
            errno: u32_at(bytes, offset_of!(Self, errno))?.cast_signed(),
            operation_len: byte(offset_of!(Self, operation_len))?,
            reason_len: byte(offset_of!(Self, reason_len))?,
            reached: byte(offset_of!(Self, reached))?,
            in_other_namespace: byte(offset_of!(Self, in_other_namespace))?,
        })
    }
}

const fn code_of_mode(mode: Mode) -> u32 {
    match mode {
        Mode::Full => 1,
        Mode::Relocated => 2,
        Mode::Off => 3,
    }
}

/// Returns the mode for which a code stands; `None` for 0 and for a code that this version does
/// not know.
pub fn mode_of_code(code: u32) -> Option<Mode> {
    [Mode::Full, Mode::Relocated, Mode::Off].into_iter().find(|mode| code_of_mode(*mode) == code)
}

/// Returns the address and the length of a text; the address of an empty text is 0.
fn published(text: &'static str) -> (u64, u8) {
    let address = if text.is_empty() { 0 } else { text.as_ptr().expose_provenance() as u64 };
    (address, u8::try_from(text.len()).unwrap_or(u8::MAX))
}

const fn padded<const N: usize>(text: &str) -> [u8; N] {
    let (text, mut array) = (text.as_bytes(), [0; N]);
    let mut index = 0;
    while index < text.len() && index < N {
        array[index] = text[index];
        index += 1;
    }
    array
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

//! What the preloaded library publishes about the objects of its process, for
//! readers outside: the command, debuggers, people with a core dump.
//!
//! The library exports one data symbol, `sopin_records`, of type [`Header`],
//! which leads to an array of [`Record`]s, one for each object that the library
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
//! A reader has no lock. The sequence number is odd while records are changed,
//! and different after; so whoever reads an even number, then the records, then
//! the same number again has a consistent copy ([`read_consistently`]). Changing
//! a record takes less than a microsecond, but a process can be stopped in the
//! middle, and a child made by `_Fork(3)` can be born in it.
//!
//! The layout is shared by the writer and the readers, which only look at bytes.
//! Fields may be added behind the last one with the version unchanged: a reader
//! goes by the two sizes. Anything else changes the version.
//! Texts are in read-only data, which core dumps leave out unless told otherwise
//! (`core(5)`, coredump_filter) and debuggers find in the library's file.

use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

mod reading;
#[cfg(test)]
mod tests;

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

/// Where a reader begins.
#[repr(C)]
pub struct Header {
    /// [`MAGIC`]
    magic: [u8; 8],
    /// [`VERSION`]
    version: u32,
    /// Bytes of this header.
    size: u32,
    /// Bytes of a record.
    record_size: u32,
    /// A code of [`mode_of_code`]; 0 until the settings have been read.
    mode: AtomicU32,
    /// Odd while something is being changed.
    sequence: AtomicU64,
    /// Number of records.
    count: AtomicU64,
    /// Address of the first record.
    records: AtomicU64,
    /// Version of the library, a string that ends with the first NUL.
    library_version: [u8; 16],
}

impl Header {
    /// A header without records.
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
        let sequence = self.sequence.load(Ordering::Relaxed);
        // Odd already, if a fork has left a change unfinished.
        let odd = sequence | 1;
        self.sequence.store(odd, Ordering::Relaxed);
        // No store of the change may be seen before the odd number.
        fence(Ordering::Release);
        Change { header: self, next: odd.wrapping_add(1) }
    }
}

/// A change under way; it ends when this is dropped.
pub struct Change<'a> {
    header: &'a Header,
    next: u64,
}

impl Change<'_> {
    /// Publishes where the records are now.
    pub fn set_records(&self, records: &[Record]) {
        self.header.records.store(records.as_ptr().expose_provenance() as u64, Ordering::Relaxed);
        self.header.count.store(records.len() as u64, Ordering::Relaxed);
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.header.sequence.store(self.next, Ordering::Release);
    }
}

/// What became of an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reached {
    /// The library is at work on it, or was when it was interrupted.
    #[default]
    Pending,
    /// Every range is out of the file's reach.
    Full,
    /// Its writable and relocated ranges are.
    Relocated,
    /// Writable or relocated ranges still map the file.
    Exposed,
    /// The settings say to leave it alone.
    Excluded,
    /// It maps no file: the vDSO, or an object that the program has remapped.
    NoFile,
}

impl Reached {
    /// All of them, each at the index of its code.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Full, Self::Relocated, Self::Exposed, Self::Excluded, Self::NoFile];

    /// The number in a record.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The word for people.
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

    /// The meaning of a number, if this version knows it.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

/// What is published of one object.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Address of its program headers, by which objects are told apart.
    pub headers: u64,
    /// Load bias.
    pub base: u64,
    /// Address of the loader's name for it, a C string, empty for the
    /// executable; it lives as long as the object.
    pub name: u64,
    /// All its pages, first byte; 0 if its headers could not be read.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
    /// Address of the witness, a page that maps its original file; 0 without.
    pub witness: u64,
    /// Bytes that have been replaced.
    pub bytes: u64,
    /// Address of the words for what was attempted; 0 if nothing went wrong.
    operation: u64,
    /// Address of the words for why it did not work; 0 if an `errno` tells it.
    reason: u64,
    /// The `errno`, or 0.
    errno: i32,
    operation_len: u8,
    reason_len: u8,
    /// A code of [`Reached`].
    reached: u8,
    /// It lives in a namespace made by `dlmopen(3)`: 1, else 0.
    in_other_namespace: u8,
}

/// Where a text lies in the process, and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextAt {
    /// Address of the first byte.
    pub address: u64,
    /// Bytes, at most [`MAX_TEXT`].
    pub len: usize,
}

/// A [`Cause`] as it is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CauseAt {
    /// What was attempted.
    pub operation: TextAt,
    /// Why it did not work.
    pub reason: ReasonAt,
}

/// A [`Reason`] as it is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReasonAt {
    /// The kernel said so.
    Errno(Errno),
    /// The library decided so.
    Words(TextAt),
}

impl Record {
    /// Sets all pages of the object.
    pub const fn set_span(&mut self, span: Span) {
        (self.start, self.end) = (span.start as u64, span.end as u64);
    }

    /// All pages of the object; empty if its headers could not be read.
    pub const fn span(&self) -> Span {
        Span { start: self.start as usize, end: self.end as usize }
    }

    /// Sets what became of the object.
    pub const fn set_reached(&mut self, reached: Reached) {
        self.reached = reached.code();
    }

    /// What became of the object; `None` for a code of a later version.
    pub fn reached(&self) -> Option<Reached> {
        Reached::from_code(self.reached)
    }

    /// Sets whether it lives in another namespace than the program.
    pub fn set_in_other_namespace(&mut self, is: bool) {
        self.in_other_namespace = is.into();
    }

    /// Whether it lives in a namespace made by `dlmopen(3)`.
    pub const fn is_in_other_namespace(&self) -> bool {
        self.in_other_namespace != 0
    }

    /// Sets what went wrong. The texts are read by others for as long as the
    /// record is there, which is why they must be static.
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

    /// What went wrong, if something did.
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

    /// A record from its bytes; `None` if they are too few. More are those of a
    /// later version.
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

/// The meaning of a mode's code; `None` for 0 and for what this version does
/// not know.
pub fn mode_of_code(code: u32) -> Option<Mode> {
    [Mode::Full, Mode::Relocated, Mode::Off].into_iter().find(|mode| code_of_mode(*mode) == code)
}

/// Address and length of a text; 0 for an empty one.
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

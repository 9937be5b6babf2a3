//! The readers' side: from bytes of another process to headers and records.

use core::mem::offset_of;
use core::sync::atomic::{Ordering, fence};

use super::{Header, MAGIC, Record, VERSION, mode_of_code, u32_at, u64_at};
use crate::mode::Mode;

/// A header as a reader outside the process has read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The mode in force; `None` until the settings have been read.
    pub mode: Option<Mode>,
    /// Odd while something is being changed.
    pub sequence: u64,
    /// Number of records.
    pub count: usize,
    /// Address of the first record.
    pub records: u64,
    /// Distance from one record to the next, in bytes.
    pub record_size: usize,
    library_version: [u8; 16],
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAHeader {
    /// They do not begin with [`MAGIC`], or are too few.
    Foreign,
    /// The layout is of another version: this one.
    Version(u32),
    /// Sizes or counts contradict themselves.
    Malformed,
}

/// Bytes of a header that [`Seen::decode`] needs.
pub const HEADER_SIZE: usize = size_of::<Header>();
/// Bytes of a record that [`Record::decode`] needs.
pub const RECORD_SIZE: usize = size_of::<Record>();
/// More objects than any process loads: a larger count is an error.
const MAX_COUNT: u64 = 1 << 24;

impl Seen {
    /// Returns a header from its first [`HEADER_SIZE`] bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, NotAHeader> {
        if !bytes.starts_with(&MAGIC) || bytes.len() < HEADER_SIZE {
            return Err(NotAHeader::Foreign);
        }
        let half = |offset| u32_at(bytes, offset).ok_or(NotAHeader::Malformed);
        let word = |offset| u64_at(bytes, offset).ok_or(NotAHeader::Malformed);
        match half(offset_of!(Header, version))? {
            VERSION => {}
            other => return Err(NotAHeader::Version(other)),
        }
        let record_size = half(offset_of!(Header, record_size))? as usize;
        let count = word(offset_of!(Header, count))?;
        let is_sane = half(offset_of!(Header, size))? as usize >= HEADER_SIZE
            && (RECORD_SIZE..1 << 16).contains(&record_size)
            && count <= MAX_COUNT;
        if !is_sane {
            return Err(NotAHeader::Malformed);
        }
        let version = bytes.get(offset_of!(Header, library_version)..).and_then(|rest| rest.first_chunk());
        Ok(Self {
            mode: mode_of_code(half(offset_of!(Header, mode))?),
            sequence: word(offset_of!(Header, sequence))?,
            count: count as usize,
            records: word(offset_of!(Header, records))?,
            record_size,
            library_version: *version.ok_or(NotAHeader::Malformed)?,
        })
    }

    /// Returns whether records are being changed.
    pub const fn is_changing(&self) -> bool {
        self.sequence & 1 != 0
    }

    /// Returns the library's version, `0.1.0`.
    pub fn library_version(&self) -> &str {
        let text = self.library_version.split(|byte| *byte == 0).next().unwrap_or_default();
        core::str::from_utf8(text).unwrap_or_default()
    }

    /// Returns the records in `bytes`, `count * record_size` of them, as read from the
    /// address `records`.
    pub fn decode_records<'a>(&self, bytes: &'a [u8]) -> impl Iterator<Item = Record> + use<'a> {
        bytes.chunks_exact(self.record_size).filter_map(Record::decode)
    }
}

/// What [`read_consistently`] got.
#[derive(Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Nothing was changed between the two looks at the header.
    Consistent,
    /// Every attempt met a change; the last one may hold halves of records.
    Torn,
}

/// Reads a header with `header` and what it leads to with `records`, up to
/// `attempts` times (at least once) until nothing has changed in between. The
/// records' array may move: an error of `records` counts if the header has not
/// changed.
pub fn read_consistently<T, E>(
    attempts: usize,
    mut header: impl FnMut() -> Result<Seen, E>,
    mut records: impl FnMut(&Seen) -> Result<T, E>,
) -> Result<(Seen, T, Consistency), E> {
    let mut before = header()?;
    for _ in 1..attempts {
        let read = records(&before);
        // The reads must not be reordered behind the second look at the header.
        fence(Ordering::Acquire);
        let after = header()?;
        if !before.is_changing() && after.sequence == before.sequence {
            return Ok((before, read?, Consistency::Consistent));
        }
        before = after;
    }
    let read = records(&before)?;
    fence(Ordering::Acquire);
    let is_same = !before.is_changing() && header()?.sequence == before.sequence;
    Ok((before, read, if is_same { Consistency::Consistent } else { Consistency::Torn }))
}

//! The code for readers: it decodes headers and records from bytes of another process.

use core::mem::offset_of;
use core::sync::atomic::{Ordering, fence};

use super::{Header, MAGIC, Record, VERSION, mode_of_code, u32_at, u64_at};
use crate::mode::Mode;

/// A header as a reader outside the process has read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The mode in force; `None` until the settings have been read.
    pub mode: Option<Mode>,
    /// Odd while the library is changing the records.
    pub sequence: u64,
    /// Number of records.
    pub count: usize,
    /// Address of the first record.
    pub records: u64,
    /// Distance from one record to the next, in bytes.
    pub record_size: usize,
    library_version: [u8; 16],
}

/// Why bytes cannot be decoded as a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAHeader {
    /// They do not begin with [`MAGIC`], or there are too few of them.
    Foreign,
    /// The layout has this other version.
    Version(u32),
    /// A size or a count is outside of the possible values.
    Malformed,
}

/// Bytes of a header that [`Seen::decode`] needs.
pub const HEADER_SIZE: usize = size_of::<Header>();
/// Where in a header the sequence number is.
pub const SEQUENCE: usize = offset_of!(Header, sequence);
/// Bytes of a record that [`Record::decode`] needs.
pub const RECORD_SIZE: usize = size_of::<Record>();
/// More bytes than the records of any process have: they are those of 100,000 objects. A header with
/// more records is malformed. The process, which may be hostile, determines what readers read.
const MAX_BYTES: u64 = 8 << 20;

impl Seen {
    /// Decodes a header from its first [`HEADER_SIZE`] bytes.
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
            && count.checked_mul(record_size as u64).is_some_and(|bytes| bytes <= MAX_BYTES);
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

    /// Returns whether the library was changing the records.
    pub const fn is_changing(&self) -> bool {
        self.sequence & 1 != 0
    }

    /// Returns the library's version, such as `0.1.0`.
    pub fn library_version(&self) -> &str {
        let text = self.library_version.split(|byte| *byte == 0).next().unwrap_or_default();
        core::str::from_utf8(text).unwrap_or_default()
    }

    /// Decodes the records in `bytes`: the `count * record_size` bytes at the address `records`.
    pub fn decode_records<'a>(&self, bytes: &'a [u8]) -> impl Iterator<Item = Record> + use<'a> {
        bytes.chunks_exact(self.record_size).filter_map(Record::decode)
    }
}

/// Whether [`read_consistently`] has read the records without a change in between.
#[derive(Debug, PartialEq, Eq)]
pub enum Consistency {
    /// The records did not change between the two reads of the header.
    Consistent,
    /// They changed during every attempt. Records of the last one may be a mixture of old and new
    /// bytes.
    Torn,
}

/// Reads a header with `header` and the records with `records`, up to `attempts` times (at
/// least once) until the records have not changed in between. It returns an error of `records`
/// only if the header has not changed, because the array may have moved, or in the last attempt.
pub fn read_consistently<T, E>(
    attempts: usize,
    header: impl FnMut() -> Result<Seen, E>,
    records: impl FnMut(&Seen) -> Result<T, E>,
) -> Result<(Seen, T, Consistency), E> {
    read_between(attempts, header, records, || fence(Ordering::Acquire))
}

/// Reads as [`read_consistently`] does, and calls `acquire` between any two reads. Processors
/// reorder reads, those of one header as well:
///
/// * The records must not be read before the first header, or they could be older than its
///   sequence number, nor after the second one.
/// * Number and address of the records can be older than the sequence number that was read
///   with them. Those of the second header are at least as new as the first sequence number,
///   so the two headers differ then.
fn read_between<T, E>(
    attempts: usize,
    mut header: impl FnMut() -> Result<Seen, E>,
    mut records: impl FnMut(&Seen) -> Result<T, E>,
    mut acquire: impl FnMut(),
) -> Result<(Seen, T, Consistency), E> {
    let mut before = header()?;
    for _ in 1..attempts {
        acquire();
        let read = records(&before);
        acquire();
        let after = header()?;
        if !before.is_changing() && after == before {
            return Ok((before, read?, Consistency::Consistent));
        }
        before = after;
    }
    acquire();
    let read = records(&before)?;
    acquire();
    let is_same = !before.is_changing() && header()? == before;
    Ok((before, read, if is_same { Consistency::Consistent } else { Consistency::Torn }))
}

#[cfg(test)]
mod model;

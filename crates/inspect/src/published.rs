//! The records that the library publishes in the memory of its process (`sopin_core::records`).

use std::collections::HashMap;

use rustix::io::Errno;
use sopin_core::mode::Mode;
use sopin_core::records::{
    Consistency, HEADER_SIZE, MAX_TEXT, NotAHeader, ReasonAt, Record, SEQUENCE, SYMBOL, Seen, TextAt, read_consistently,
};

use crate::image;
use crate::loader::{self, Listed};
use crate::memory::Bytes;

/// How often records are read at most while they are being changed.
const ATTEMPTS: usize = 100;
/// Longest dynamic section of the library, in bytes.
const MAX_DYNAMIC: u64 = 4096;

/// The record of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Its address.
    pub address: u64,
    /// The record itself.
    pub record: Record,
    /// Why it did not reach more, in words.
    pub cause: Option<String>,
}

/// Everything that the library publishes.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// Its version.
    pub version: String,
    /// The mode in force.
    pub mode: Option<Mode>,
    /// The records by load bias.
    objects: HashMap<u64, Said>,
    /// Whether the records were being changed each time they were read.
    pub is_torn: bool,
    /// Address of their sequence number.
    pub sequence_at: u64,
    /// That number.
    pub sequence: u64,
}

impl Published {
    /// Returns the record of the object with this base.
    pub fn of(&self, base: u64) -> Option<&Said> {
        self.objects.get(&base)
    }

    /// Reads the records of the library that is loaded as `library`.
    ///
    /// # Errors
    /// Why they cannot be read, for people.
    pub fn read(memory: &impl Bytes, library: &Listed) -> Result<Self, String> {
        let (base, dynamic) = (library.base, library.dynamic);
        let size = image::read(memory, base).ok().and_then(|(_, headers)| headers.dynamic).map(|(_, size)| size);
        let header = loader::symbol(memory, base, dynamic, size.unwrap_or(MAX_DYNAMIC), SYMBOL.as_bytes())
            .ok_or_else(|| format!("no symbol {SYMBOL} in the library"))?;
        let read_header = || {
            let bytes = memory.read_exact(header, HEADER_SIZE).map_err(unreadable)?;
            Seen::decode(&bytes).map_err(|not| match not {
                NotAHeader::Foreign => format!("{SYMBOL}: no records there"),
                NotAHeader::Version(version) => {
                    format!("{SYMBOL}: records of version {version}, which this sopin does not know")
                }
                NotAHeader::Malformed => format!("{SYMBOL}: makes no sense"),
            })
        };
        let read_records = |seen: &Seen| match seen.count {
            0 => Ok(Vec::new()),
            count => memory.read_exact(seen.records, count * seen.record_size).map_err(unreadable),
        };
        let (seen, bytes, consistency) = read_consistently(ATTEMPTS, read_header, read_records)?;
        let addresses = (seen.records..).step_by(seen.record_size);
        let records = seen.decode_records(&bytes).zip(addresses);
        let objects = records.map(|(record, address)| (record.base, said(memory, record, address))).collect();
        Ok(Self {
            version: seen.library_version().to_owned(),
            mode: seen.mode,
            objects,
            is_torn: consistency == Consistency::Torn,
            sequence_at: header + SEQUENCE as u64,
            sequence: seen.sequence,
        })
    }
}

fn said(memory: &impl Bytes, record: Record, address: u64) -> Said {
    let text = |at: TextAt| {
        let bytes = memory.read_exact(at.address, at.len.min(MAX_TEXT)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let cause = record.cause().map(|cause| match cause.reason {
        ReasonAt::Errno(errno) => format!("{}: {errno}", text(cause.operation)),
        ReasonAt::Words(words) => format!("{}: {}", text(cause.operation), text(words)),
    });
    Said { address, record, cause }
}

fn unreadable(errno: Errno) -> String {
    format!("{SYMBOL}: {errno}")
}

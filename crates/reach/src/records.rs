//! The records of the library in a process that has it (`sopin_core::records`): they say of objects
//! that were pinned from outside that they are pinned, too. Debuggers, core dumps and the program
//! itself read them there.

use sopin_core::mode::Mode;
use sopin_core::records::{Reached, Record};
use sopin_inspect::ProcessObjects;
use sopin_inspect::maps::{self, Mapping};
use sopin_inspect::process::Process;

use crate::interpreter::ObjectOutcome;
use crate::memory::WritableMemory;

/// Notes what has become of objects of a process that has stopped; `outcome_of` returns that for the
/// address at which an object starts. Records that a thread was changing when it stopped are left.
pub fn note<'a>(
    process: &Process,
    found: &ProcessObjects<'_>,
    outcome_of: impl Fn(u64) -> Option<&'a ObjectOutcome>,
    mode: Mode,
    writable: &WritableMemory,
) {
    let Some(published) = found.published.filter(|published| !published.is_torn) else { return };
    let reached = if mode == Mode::Full { Reached::Full } else { Reached::Relocated };
    let mut outdated: Vec<(u64, Record)> = Vec::new();
    for object in found.objects {
        let is_pinned = |outcome: &&ObjectOutcome| {
            outcome.bytes != 0 && outcome.relocated_failure.is_none() && outcome.read_only_failure.is_none()
        };
        let outcome = outcome_of(object.span.0).filter(is_pinned);
        let Some((said, outcome)) = object.said.as_ref().zip(outcome) else { continue };
        // A thread that has stopped is pinning an object that is pending, and will record the result
        // itself.
        if [Some(Reached::Pending), Some(reached)].contains(&said.record.reached()) {
            continue;
        }
        let mut record = said.record;
        record.set_pinned(reached, outcome.bytes as u64, outcome.witness);
        outdated.push((said.address, record));
    }
    if outdated.is_empty() {
        return;
    }
    // The library's own data may have been pinned only now.
    let Ok(maps) = process.require("maps").map(|text| maps::parse(&text)) else { return };
    let sequence = |number: u64| write(&maps, writable, published.sequence_at, &number.to_ne_bytes());
    let during = published.sequence | 1;
    if sequence(during) {
        for (address, record) in outdated {
            write(&maps, writable, address, &record.encode());
        }
        sequence(during.wrapping_add(1));
    }
}

/// Writes where the library has its records, or would have them: to private memory of the process that
/// is no file's. The process can say any address. Returns whether that was done.
fn write(maps: &[Mapping], writable: &WritableMemory, address: u64, bytes: &[u8]) -> bool {
    let is_own = maps::at(maps, address).is_some_and(|mapping| {
        let has_room = address.checked_add(bytes.len() as u64).is_some_and(|end| end <= mapping.end);
        has_room && mapping.is_writable && !mapping.is_shared && !mapping.has_file()
    });
    is_own && writable.write(address, bytes).is_ok()
}

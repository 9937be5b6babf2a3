//! The records of the library in a process that has it (`sopin_core::records`): they say of objects
//! that were pinned from outside that they are pinned, too. Debuggers, core dumps and the program
//! itself read them there.

use std::collections::HashMap;

use sopin_core::mode::Mode;
use sopin_core::records::Reached;
use sopin_inspect::ProcessObjects;
use sopin_inspect::maps;

use crate::interpreter::ObjectOutcome;
use crate::memory::WritableMemory;

/// Notes what has become of objects of a process that has stopped. Records that a thread was changing
/// when it stopped are left.
pub fn note(found: &ProcessObjects<'_>, outcomes: &HashMap<u64, ObjectOutcome>, mode: Mode, writable: &WritableMemory) {
    let Some(published) = found.published.filter(|published| !published.is_torn) else { return };
    let reached = if mode == Mode::Full { Reached::Full } else { Reached::Relocated };
    let sequence = |number: u64| write(found, writable, published.sequence_at, &number.to_ne_bytes());
    let mut is_changing = false;
    for object in found.objects {
        let outcome = outcomes.get(&object.span.0);
        let is_pinned = |outcome: &&ObjectOutcome| {
            outcome.bytes != 0 && outcome.relocated_failure.is_none() && outcome.read_only_failure.is_none()
        };
        let Some((said, outcome)) = object.said.as_ref().zip(outcome.filter(is_pinned)) else { continue };
        // A thread that has stopped is pinning the object, and will record the result itself.
        if said.reached == Some(Reached::Pending) {
            continue;
        }
        if !is_changing {
            is_changing = sequence(published.sequence | 1);
        }
        if is_changing {
            let mut record = said.record;
            record.set_pinned(reached, outcome.bytes as u64, outcome.witness);
            write(found, writable, said.address, &record.encode());
        }
    }
    if is_changing {
        sequence((published.sequence | 1).wrapping_add(1));
    }
}

/// Writes where the library has its records, or would have them: to private memory of the process that
/// is no file's. The process can say any address. Returns whether that was done.
fn write(found: &ProcessObjects<'_>, writable: &WritableMemory, address: u64, bytes: &[u8]) -> bool {
    let is_records = maps::at(found.maps, address).is_some_and(|mapping| {
        let has_room = address.checked_add(bytes.len() as u64).is_some_and(|end| end <= mapping.end);
        has_room && mapping.is_writable && !mapping.is_shared && !mapping.has_file()
    });
    is_records && writable.write(address, bytes).is_ok()
}

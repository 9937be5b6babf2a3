//! A few bytes of a core or of an object are other ones than they should be, the same ones in every
//! run.

use std::fs;

use super::Lying;

/// Changes that are tried.
const CHANGES: u64 = 150;

/// Returns numbers that are the same in every run.
fn numbers() -> impl Iterator<Item = u64> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    })
}

/// Returns copies of bytes in which a few are other ones.
fn changes(bytes: &[u8], within: usize) -> impl Iterator<Item = Vec<u8>> {
    let mut numbers = numbers();
    (0..CHANGES).map(move |number| {
        let mut changed = bytes.to_vec();
        for _ in 0..=number % 4 {
            let at = usize::try_from(numbers.next().unwrap_or_default() % within as u64).expect("64 bits");
            changed[at] = [0, 0xff, 0x80, 1][usize::try_from(numbers.next().unwrap_or_default() % 4).expect("small")];
        }
        changed
    })
}

/// Changes the headers and the notes of the core.
///
/// # Errors
/// The command dies or hangs.
pub fn changed_cores(lying: &Lying) -> Result<(), String> {
    let bytes = lying.dump.to_bytes();
    let headers = 64 + (lying.dump.loads.len() + 1) * 56;
    let notes: usize = lying.dump.notes.iter().map(|note| note.bytes.len() + 20).sum();
    for (number, changed) in changes(&bytes, headers + notes).enumerate() {
        lying.explain_bytes(&changed).map_err(|error| format!("change {number}: {error}"))?;
    }
    Ok(())
}

/// The file on the disk has other headers, relocations and symbols than it should.
///
/// # Errors
/// The command dies or hangs.
pub fn changed_objects(lying: &Lying) -> Result<(), String> {
    let plug = lying.directory.join("plug.so");
    let bytes = fs::read(&plug).map_err(|error| error.to_string())?;
    // The first pages have the headers and the relocations, the last ones the sections' names.
    for (number, changed) in changes(&bytes, 4096.min(bytes.len())).enumerate() {
        fs::write(&plug, changed).map_err(|error| error.to_string())?;
        lying.explain_file(lying.core).map_err(|error| format!("change {number}: {error}"))?;
    }
    for (number, changed) in changes(&bytes, bytes.len()).enumerate() {
        fs::write(&plug, changed).map_err(|error| error.to_string())?;
        lying.explain_file(lying.core).map_err(|error| format!("change {number} anywhere: {error}"))?;
    }
    Ok(())
}

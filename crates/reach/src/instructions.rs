//! Finds the instructions that a task is made to execute: one for a system call, and those for the
//! return from a signal handler.
//!
//! The process decides how much code it has, and where: a sparse mapping of a terabyte can be
//! executable. So only the vDSO and the code of objects is searched, and [`MOST`] bytes in all.
//! The instructions of the C library are among them:
//!
//! | program | where the C library's code is |
//! |---|---|
//! | dynamic | in an object of a few MiB; small objects are searched first |
//! | static, C | at the end of the program's own code, where linkers put archives |
//! | static, Go | the runtime does the same, at the beginning of the code |
//!
//! So of code that is too large the beginning and the end are searched.

use std::ops::Range;

use sopin_core::registers::{CALL, RETURN_FROM_SIGNAL};
use sopin_inspect::ProcessObjects;
use sopin_inspect::maps::{self, Mapping};
use sopin_inspect::memory::Bytes;

use crate::ptrace;

/// Bytes of code that are searched in all.
const MOST: u64 = 64 << 20;
/// Bytes of code that are searched at a time.
const BLOCK: u64 = 1 << 20;
/// An instruction may begin in the last bytes of a block, and end in the next one.
const OVERLAP: u64 = 16;

/// The addresses of the instructions that a task is made to execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instructions {
    /// A system call.
    pub call: u64,
    /// The return from a signal handler.
    pub return_from_signal: u64,
}

impl Instructions {
    /// Finds the instructions in the code that a process has. `None` as well if the user interrupts
    /// the command.
    pub fn find(found: &ProcessObjects<'_>) -> Option<Self> {
        let code = code_of(found);
        let find = |wanted: &[&[u8]]| {
            let mut blocks = code.iter().flat_map(blocks).take_while(|_| !ptrace::is_interrupted());
            blocks.find_map(|block| search(block, found.memory, wanted))
        };
        Some(Self { call: find(&[CALL])?, return_from_signal: find(RETURN_FROM_SIGNAL)? })
    }

    /// Returns whether the instructions are still there: code may have been unmapped since.
    pub fn are_in(&self, maps: &[Mapping], memory: &impl Bytes) -> bool {
        let is_there = |address: u64, wanted: &[&[u8]]| {
            let is_code = maps::at(maps, address).is_some_and(|mapping| mapping.is_executable);
            is_code
                && wanted
                    .iter()
                    .any(|wanted| memory.read_exact(address, wanted.len()).is_ok_and(|read| read == *wanted))
        };
        is_there(self.call, &[CALL]) && is_there(self.return_from_signal, RETURN_FROM_SIGNAL)
    }
}

/// Returns the code to be searched: that of the vDSO and of the objects, the smaller ones first, and
/// [`MOST`] bytes in all.
fn code_of(found: &ProcessObjects<'_>) -> Vec<Range<u64>> {
    let is_code = |mapping: &Mapping| mapping.is_executable && mapping.is_readable;
    let vdso = found.maps.iter().filter(|mapping| mapping.path == b"[vdso]" && is_code(mapping));
    let vdso = vdso.map(|mapping| mapping.start..mapping.end);
    let parts = found.objects.iter().flat_map(|object| &object.parts).filter(|part| is_code(part.mapping));
    let mut parts: Vec<Range<u64>> = parts.map(|part| part.start..part.end).collect();
    parts.sort_by_key(|part| part.end - part.start);
    within_limit(vdso.chain(parts), MOST)
}

/// Returns as much of these addresses as has `most` bytes: of the first ones that have more, the
/// beginning and the end.
fn within_limit(all: impl Iterator<Item = Range<u64>>, most: u64) -> Vec<Range<u64>> {
    let mut rest = most;
    let mut taken = Vec::new();
    for addresses in all {
        let len = addresses.end - addresses.start;
        if len > rest {
            // The code of aarch64 is aligned.
            let half = (rest / 2) & !3;
            taken.extend([addresses.end - half..addresses.end, addresses.start..addresses.start + half]);
            break;
        }
        rest -= len;
        taken.push(addresses);
    }
    taken
}

/// Returns the blocks into which code is divided, each of which begins with the last bytes of the one
/// before.
fn blocks(code: &Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let Range { start, end } = *code;
    let starts = (start..end).step_by((BLOCK - OVERLAP) as usize);
    starts.map(move |start| start..end.min(start + BLOCK))
}

/// Searches a block for one of some instructions. What cannot be read has none.
fn search(block: Range<u64>, memory: &impl Bytes, wanted: &[&[u8]]) -> Option<u64> {
    let mut bytes = vec![0; (block.end - block.start) as usize];
    let read = memory.read_some(block.start, &mut bytes).ok()?;
    bytes.truncate(read);
    // The instructions of aarch64 are aligned.
    let is_aligned = |index: usize| cfg!(target_arch = "x86_64") || index.is_multiple_of(4);
    let find = |wanted: &&[u8]| {
        let mut windows = bytes.windows(wanted.len()).enumerate();
        windows.find(|(index, window)| window == wanted && is_aligned(*index)).map(|(index, _)| index)
    };
    wanted.iter().filter_map(find).min().map(|index| block.start + index as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    /// Memory of this many bytes from 0 on, which is empty but for bytes at one address.
    struct Sparse(u64, u64, &'static [u8]);

    impl Bytes for Sparse {
        fn read_some(&self, at: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
            let len = self.0.checked_sub(at).filter(|len| *len != 0).ok_or(Errno::IO)?;
            let len = (len as usize).min(buffer.len());
            for (index, byte) in buffer.iter_mut().take(len).enumerate() {
                let own = (at + index as u64).checked_sub(self.1).and_then(|own| self.2.get(own as usize));
                *byte = own.copied().unwrap_or_default();
            }
            Ok(len)
        }
    }

    fn found(memory: &Sparse, code: &[Range<u64>]) -> Option<u64> {
        code.iter().flat_map(blocks).find_map(|block| search(block, memory, RETURN_FROM_SIGNAL))
    }

    #[test]
    fn instructions_are_found_wherever_they_are_in_blocks() {
        let wanted = RETURN_FROM_SIGNAL[0];
        let len = 2 * BLOCK + 64;
        let whole = 0..len;
        for at in [0, 4, BLOCK - OVERLAP, BLOCK - 8, BLOCK - 4, BLOCK, 2 * BLOCK - 24, 2 * BLOCK - 4, len - 12] {
            assert_eq!(found(&Sparse(len, at, wanted), std::slice::from_ref(&whole)), Some(at), "{at:#x}");
        }
        assert_eq!(found(&Sparse(len, len - 4, wanted), std::slice::from_ref(&whole)), None);
        // The end cannot be read.
        let longer = 0..u64::from(u32::MAX);
        assert_eq!(found(&Sparse(len, 8, wanted), std::slice::from_ref(&longer)), Some(8));
    }

    #[test]
    fn of_code_without_end_the_beginning_and_the_end_are_searched() {
        let (small, large) = (0x1000..0x3000_u64, 1 << 40..1 << 41);
        let taken = within_limit([small.clone(), large.clone(), 1 << 42..1 << 43].into_iter(), MOST);
        let half = (MOST - 0x2000) / 2;
        assert_eq!(taken, [small.clone(), large.end - half..large.end, large.start..large.start + half]);
        assert!(taken.iter().map(|range| range.end - range.start).sum::<u64>() <= MOST);
        assert_eq!(within_limit([small.clone()].into_iter(), MOST), [small]);
    }

    #[test]
    fn the_instructions_of_this_process_are_found_and_are_code() {
        let own = sopin_inspect::process::Process::open(std::process::id()).unwrap();
        let inspector = sopin_inspect::Inspector::new(false);
        let (found, are_in) = inspector
            .with_objects(&own, |found| {
                let instructions = Instructions::find(found);
                (instructions, instructions.is_some_and(|it| it.are_in(found.maps, found.memory)))
            })
            .unwrap();
        assert!(found.is_some() && are_in, "{found:?}");
    }
}

//! How ranges of an object are replaced: by the steps of a program, which is data. The
//! functions here make it from the plan alone, so that tests need no mappings. An interpreter
//! runs the program and makes no decisions; that of the library makes the system calls in its
//! own process.
//!
//! ```text
//! anonymous:  scratch  [ copy of the range ]──── Move ──────┐   one step: a fault
//!             object   [ file ][ file ][ file ]  <──────────┘   sees the old page
//!                                                               or the new one
//! copy:       store entry or private copy  [ bytes at their offsets ]
//!             object   [ file ]  <── MapFile, one step
//! ```
//!
//! A program is an iterator over its steps, so it needs no allocated memory.

use core::iter::{from_fn, once};

use crate::object::Span;
use crate::plan::{Backing, Replacement};
use crate::vmas::Protection;

/// The most bytes that are copied before they are moved. This bounds the memory that a program
/// needs at a time in addition to the replaced ranges. Each piece gets the pages that the move of the one
/// before has freed, while the processor's cache has them: with pieces of 1 MiB, `sopin enable` adds a
/// tenth more to a start of Python.
pub const PIECE: usize = 256 << 10;

const READ_WRITE: Protection = libc::PROT_READ | libc::PROT_WRITE;

/// A file from which ranges are mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// A copy of the object's file that processes share.
    Shared,
    /// A private copy of the object's file, which this process uses alone.
    Private,
    /// A private copy of the bytes in memory, which differ from those of the object's file.
    Relocated,
}

/// Where the bytes of a range are in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file that has the bytes.
    pub file: File,
    /// Their offset in the file.
    pub offset: u64,
}

/// A step of a program. When a step fails, the interpreter skips the steps up to the next
/// [`Step::Copy`] or [`Step::Done`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Maps scratch memory that can be read and written.
    Map {
        /// Size in bytes.
        len: usize,
    },
    /// Copies bytes of the object to scratch memory that no earlier step has used.
    Copy {
        /// The pages of the object.
        span: Span,
    },
    /// Sets the protection of the last copy.
    ProtectCopy {
        /// The protection that the pages of the object have.
        protection: Protection,
    },
    /// Moves the last copy over the pages of the object, atomically.
    Move {
        /// The pages of the object that it replaces.
        span: Span,
    },
    /// Sets the protection of pages that were replaced.
    Protect {
        /// The replaced pages.
        span: Span,
        /// The protection that the pages had before.
        protection: Protection,
    },
    /// Maps a file over pages of the object, atomically.
    MapFile {
        /// The pages of the object.
        span: Span,
        /// The protection that the pages have and keep.
        protection: Protection,
        /// The file and the offset of their bytes.
        place: Place,
        /// The file and the offset to use if that file cannot be mapped.
        otherwise: Option<Place>,
    },
    /// Ends the steps of one range, or of neighbouring ranges.
    Done {
        /// The backing that the ranges were to get.
        backing: Backing,
        /// How many bytes are replaced if none of the steps has failed.
        bytes: usize,
    },
}

/// Returns the program that replaces `ranges`. It moves memory over those whose backing is
/// anonymous. It maps the others from the shared file if there is one and it has their bytes,
/// and else from private copies, see [`contents`].
pub fn moving(ranges: &[Replacement], has_shared: bool) -> impl Iterator<Item = Step> {
    let total = ranges.iter().filter(|range| range.backing == Backing::Anonymous).map(|range| range.span.len()).sum();
    let scratch = (total != 0).then_some(Step::Map { len: total });
    let copied = ranges.iter().enumerate().filter(|(_, range)| range.backing != Backing::Anonymous);
    let mapped = copied.flat_map(move |(index, range)| {
        let private = Place { file: private_file(range.backing), offset: offset_in_copy(ranges, index) };
        let shared = Place { file: File::Shared, offset: range.offset };
        let is_shared = has_shared && range.backing.is_file_copy();
        let (place, otherwise) = if is_shared { (shared, Some(private)) } else { (private, None) };
        map_file(range, place, otherwise)
    });
    scratch.into_iter().chain(blocks(ranges).flat_map(replace_block)).chain(mapped)
}

/// Returns the program that replaces `ranges` without moving memory. It maps the ranges whose
/// bytes the shared file has from that file, if there is one. Of the others, it maps those for
/// which `kept` returns true from one private file, in which they lie one after the other.
pub fn mapping(
    ranges: &[Replacement],
    has_shared: bool,
    kept: impl Fn(&Replacement) -> bool,
) -> impl Iterator<Item = Step> {
    let is_shared = move |range: &&Replacement| has_shared && range.backing.is_file_copy();
    let shared = ranges.iter().filter(is_shared).flat_map(|range| {
        let place = Place { file: File::Shared, offset: range.offset };
        map_file(range, place, None)
    });
    let mut end = 0;
    let private = ranges.iter().filter(move |range| !is_shared(range) && kept(range)).flat_map(move |range| {
        let place = Place { file: File::Private, offset: end };
        end += range.span.len() as u64;
        map_file(range, place, None)
    });
    shared.chain(private)
}

/// Returns what a private `file` for the program of [`moving`] must contain: ranges of memory,
/// and the offset of each in the file.
pub fn contents(ranges: &[Replacement], file: File) -> impl Iterator<Item = (Span, u64)> {
    let all = ranges.iter().enumerate();
    let included =
        all.filter(move |(_, range)| range.backing != Backing::Anonymous && private_file(range.backing) == file);
    included.map(|(index, range)| (range.span, offset_in_copy(ranges, index)))
}

/// Returns the private file that has the bytes of a range with this backing.
fn private_file(backing: Backing) -> File {
    if backing.is_file_copy() { File::Private } else { File::Relocated }
}

fn map_file(range: &Replacement, place: Place, otherwise: Option<Place>) -> [Step; 2] {
    let (span, protection, backing) = (range.span, range.protection, range.backing);
    [Step::MapFile { span, protection, place, otherwise }, Step::Done { backing, bytes: span.len() }]
}

/// Returns those of `ranges` whose backing is anonymous, in blocks that are moved at once.
fn blocks(ranges: &[Replacement]) -> impl Iterator<Item = &[Replacement]> {
    let mut rest = ranges;
    let all = from_fn(move || {
        let (block, others) = rest.split_at_checked(block_len(rest)).filter(|(block, _)| !block.is_empty())?;
        rest = others;
        Some(block)
    });
    all.filter(|block| block.first().is_some_and(|range| range.backing == Backing::Anonymous))
}

/// Returns how many of the first `ranges` can be moved at once, at least one: RELRO and the data
/// behind it, if they are small.
fn block_len(ranges: &[Replacement]) -> usize {
    let is_plain = |range: &Replacement| {
        range.backing == Backing::Anonymous && matches!(range.protection, libc::PROT_READ | READ_WRITE)
    };
    let joined = |pair: &[Replacement]| match pair {
        [one, next] => is_plain(one) && is_plain(next) && one.span.end == next.span.start,
        _ => false,
    };
    let count = 1 + ranges.windows(2).take_while(|pair| joined(pair)).count();
    let total: usize = ranges.iter().take(count).map(|range| range.span.len()).sum();
    if total <= PIECE { count } else { 1 }
}

/// Returns the steps that replace a block: one range of any length and protection in pieces,
/// or several neighbouring ranges by one move, because a move takes the kernel longer than all
/// the other steps. The pages have the right bytes at every instant. In a block of several
/// ranges, the read-only ones are writable from the move until the next step sets their
/// protection, as they were while the loader relocated them.
fn replace_block(block: &[Replacement]) -> impl Iterator<Item = Step> {
    let protection = match block {
        [range] => range.protection,
        _ => READ_WRITE,
    };
    let (start, end) =
        (block.first().map_or(0, |range| range.span.start), block.last().map_or(0, |range| range.span.end));
    let pieces = (start..end).step_by(PIECE).map(move |at| Span { start: at, end: end.min(at + PIECE) });
    let protect_copy = (protection != READ_WRITE).then_some(Step::ProtectCopy { protection });
    let moved = pieces.flat_map(move |span| [Some(Step::Copy { span }), protect_copy, Some(Step::Move { span })]);
    let others = block.iter().filter(move |range| range.protection != protection);
    moved
        .flatten()
        .chain(others.map(|range| Step::Protect { span: range.span, protection: range.protection }))
        .chain(once(Step::Done { backing: Backing::Anonymous, bytes: end - start }))
}

/// Returns the offset of a range in a private copy. It is the offset in the object's file, as
/// debuggers expect, unless an earlier range occupies that. Two segments can begin in one page
/// of the file and be relocated differently; the second one then lies behind all others.
fn offset_in_copy(ranges: &[Replacement], index: usize) -> u64 {
    let end = |range: &Replacement| range.offset + range.span.len() as u64;
    let is_copied = |range: &&Replacement| range.backing != Backing::Anonymous;
    let is_displaced = |index: usize| {
        let Some((earlier, rest)) = ranges.split_at_checked(index) else { return false };
        let overlaps =
            |range: &Replacement, other: &Replacement| range.offset < end(other) && other.offset < end(range);
        rest.first().is_some_and(|range| {
            is_copied(&range) && earlier.iter().filter(is_copied).any(|other| overlaps(range, other))
        })
    };
    let Some(range) = ranges.get(index) else { return 0 };
    if !is_displaced(index) {
        return range.offset;
    }
    let behind_all = ranges.iter().filter(is_copied).map(end).max().unwrap_or(range.offset);
    let displaced = ranges.iter().enumerate().take(index).filter(|(index, _)| is_displaced(*index));
    behind_all + displaced.map(|(_, range)| range.span.len() as u64).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use libc::{PROT_EXEC, PROT_READ};
    use std::vec;
    use std::vec::Vec;

    fn range(start: usize, end: usize, protection: Protection, backing: Backing) -> Replacement {
        Replacement { span: Span { start, end }, protection, offset: start as u64, backing }
    }

    /// Headers, text, RELRO and data.
    fn ordinary() -> [Replacement; 4] {
        [
            range(0, 0x1000, PROT_READ, Backing::Copy),
            range(0x1000, 0x3000, PROT_READ | PROT_EXEC, Backing::Copy),
            range(0x3000, 0x4000, PROT_READ, Backing::Anonymous),
            range(0x4000, 0x6000, READ_WRITE, Backing::Anonymous),
        ]
    }

    fn mapped(range: &Replacement, place: Place, otherwise: Option<Place>) -> Vec<Step> {
        map_file(range, place, otherwise).to_vec()
    }

    const fn at(file: File, offset: u64) -> Place {
        Place { file, offset }
    }

    #[test]
    fn relro_and_data_are_moved_at_once_and_the_rest_is_mapped() {
        let ranges = ordinary();
        let both = Span { start: 0x3000, end: 0x6000 };
        let moved = vec![
            Step::Map { len: 0x3000 },
            Step::Copy { span: both },
            Step::Move { span: both },
            Step::Protect { span: ranges[2].span, protection: PROT_READ },
            Step::Done { backing: Backing::Anonymous, bytes: 0x3000 },
        ];
        let files = |place: fn(u64) -> (Place, Option<Place>)| {
            ranges[..2].iter().flat_map(move |range| {
                let (place, otherwise) = place(range.offset);
                mapped(range, place, otherwise)
            })
        };
        let shared = |offset| (at(File::Shared, offset), Some(at(File::Private, offset)));
        let expected: Vec<_> = moved.iter().copied().chain(files(shared)).collect();
        assert_eq!(moving(&ranges, true).collect::<Vec<_>>(), expected);
        let expected: Vec<_> = moved.into_iter().chain(files(|offset| (at(File::Private, offset), None))).collect();
        assert_eq!(moving(&ranges, false).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_range_is_moved_in_pieces_with_its_protection() {
        let end = 0x3000 + PIECE + 0x1000;
        let protection = PROT_READ | PROT_EXEC;
        let (first, last) = (Span { start: 0x3000, end: end - 0x1000 }, Span { start: end - 0x1000, end });
        let steps: Vec<_> = moving(&[range(0x3000, end, protection, Backing::Anonymous)], false).collect();
        assert_eq!(
            steps,
            [
                Step::Map { len: PIECE + 0x1000 },
                Step::Copy { span: first },
                Step::ProtectCopy { protection },
                Step::Move { span: first },
                Step::Copy { span: last },
                Step::ProtectCopy { protection },
                Step::Move { span: last },
                Step::Done { backing: Backing::Anonymous, bytes: PIECE + 0x1000 },
            ]
        );
    }

    #[test]
    fn neighbours_that_are_large_or_apart_are_moved_by_themselves() {
        let moves = |ranges: &[Replacement]| {
            moving(ranges, false).filter(|step| matches!(step, Step::Done { backing: Backing::Anonymous, .. })).count()
        };
        let relro = range(0x3000, 0x4000, PROT_READ, Backing::Anonymous);
        assert_eq!(moves(&[relro, range(0x4000, 0x5000, READ_WRITE, Backing::Anonymous)]), 1);
        assert_eq!(moves(&[relro, range(0x5000, 0x6000, READ_WRITE, Backing::Anonymous)]), 2);
        assert_eq!(moves(&[relro, range(0x4000, 0x4000 + PIECE, READ_WRITE, Backing::Anonymous)]), 2);
        assert_eq!(moves(&[relro, range(0x4000, 0x5000, READ_WRITE | PROT_EXEC, Backing::Anonymous)]), 2);
        assert_eq!(moves(&[]), 0);
    }

    #[test]
    fn relocated_text_has_a_copy_of_its_own() {
        let ranges = [
            range(0, 0x1000, PROT_READ, Backing::Copy),
            range(0x1000, 0x2000, PROT_READ | PROT_EXEC, Backing::RelocatedCopy),
            range(0x2000, 0x3000, READ_WRITE, Backing::CopyOnWrite),
        ];
        let steps: Vec<_> = moving(&ranges, true).collect();
        let expected = [
            mapped(&ranges[0], at(File::Shared, 0), Some(at(File::Private, 0))),
            mapped(&ranges[1], at(File::Relocated, 0x1000), None),
            mapped(&ranges[2], at(File::Shared, 0x2000), Some(at(File::Private, 0x2000))),
        ];
        assert_eq!(steps, expected.concat());
        assert_eq!(contents(&ranges, File::Relocated).collect::<Vec<_>>(), [(ranges[1].span, 0x1000)]);
        let private: Vec<_> = contents(&ranges, File::Private).collect();
        assert_eq!(private, [(ranges[0].span, 0), (ranges[2].span, 0x2000)]);
    }

    #[test]
    fn ranges_of_one_page_of_the_file_do_not_overwrite_each_other() {
        let text = |start: usize, offset: u64| Replacement {
            offset,
            ..range(start, start + 0x1000, PROT_READ | PROT_EXEC, Backing::RelocatedCopy)
        };
        let ranges = [text(0x1000, 0x1000), text(0x2000, 0x1000), text(0x3000, 0x1000), text(0x4000, 0x2000)];
        let offsets: Vec<_> = contents(&ranges, File::Relocated).map(|(_, offset)| offset).collect();
        assert_eq!(offsets, [0x1000, 0x3000, 0x4000, 0x2000]);
    }

    #[test]
    fn without_moves_the_private_ranges_lie_one_behind_the_other() {
        let ranges = ordinary();
        let steps: Vec<_> = mapping(&ranges, true, |_| true).collect();
        let expected = [
            mapped(&ranges[0], at(File::Shared, 0), None),
            mapped(&ranges[1], at(File::Shared, 0x1000), None),
            mapped(&ranges[2], at(File::Private, 0), None),
            mapped(&ranges[3], at(File::Private, 0x1000), None),
        ];
        assert_eq!(steps, expected.concat());
        let steps: Vec<_> = mapping(&ranges, false, |range| range.backing != Backing::Copy).collect();
        assert_eq!(steps, expected[2..].concat());
    }
}

//! How ranges of an object are replaced: a program of steps, which is data. It is made of
//! the plan alone and touches nothing, so that it can be tested without mapping anything,
//! and each interpreter decides nothing: one makes the system calls in its own process.
//!
//! ```text
//! anonymous:  scratch  [ copy of the range ]──── Move ──────┐   one step: a fault
//!             object   [ file ][ file ][ file ]  <──────────┘   sees the old page
//!                                                               or the new one
//! copy:       store entry or private copy  [ bytes at their offsets ]
//!             object   [ file ]  <── MapFile, one step
//! ```
//!
//! A program is an iterator, so it needs no memory.

use core::iter::{from_fn, once};

use crate::object::Span;
use crate::plan::{Backing, Replacement};
use crate::vmas::Protection;

/// Bytes that are copied before they are moved: bounds how much memory a program needs
/// at a time beyond what it keeps.
pub const PIECE: usize = 1 << 20;

const READ_WRITE: Protection = libc::PROT_READ | libc::PROT_WRITE;

/// A file that ranges are mapped from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// A copy of the object's file that processes share.
    Shared,
    /// A copy of the same bytes that this process has to itself.
    Private,
    /// A copy of what is in memory, which differs from the object's file.
    Relocated,
}

/// Where the bytes of a range are in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: File,
    /// Their offset in it.
    pub offset: u64,
}

/// A step of a program. When one fails, those up to the next [`Step::Copy`] or
/// [`Step::Done`] are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Maps so many bytes of scratch memory, to read and write.
    Map {
        /// Bytes.
        len: usize,
    },
    /// Copies the bytes of the object to the scratch memory that was not used yet.
    Copy {
        /// Where they are.
        span: Span,
    },
    /// Sets the protection of the last copy.
    ProtectCopy {
        /// What the pages of the object have.
        protection: Protection,
    },
    /// Moves the last copy to its place, in one step.
    Move {
        /// The pages of the object that it replaces.
        span: Span,
    },
    /// Sets the protection of pages that were replaced.
    Protect {
        /// The pages.
        span: Span,
        /// What they had before.
        protection: Protection,
    },
    /// Maps a file in the place of pages of the object, in one step.
    MapFile {
        /// The pages.
        span: Span,
        /// What they have and keep.
        protection: Protection,
        /// Where their bytes are.
        place: Place,
        /// Where else they are, if the file cannot be mapped.
        otherwise: Option<Place>,
    },
    /// Ends the steps of one range, or of neighbouring ranges.
    Done {
        /// What they were to be replaced by.
        backing: Backing,
        /// How many bytes are replaced if none of the steps has failed.
        bytes: usize,
    },
}

/// Returns the program that replaces `ranges`, anonymous ones by moves. The others are
/// mapped from the shared file where that has their bytes, if there is one, or else from
/// private copies, see [`contents`].
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

/// Returns the program that replaces `ranges` without moving anything: those that the
/// shared file has the bytes of are mapped from that, if there is one, and those that are
/// `kept` of the others from one private file, in which they lie one behind the other.
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

/// Returns what a private `file` of the program [`moving`] must contain: ranges of memory,
/// and their offsets in it.
pub fn contents(ranges: &[Replacement], file: File) -> impl Iterator<Item = (Span, u64)> {
    let all = ranges.iter().enumerate();
    let included =
        all.filter(move |(_, range)| range.backing != Backing::Anonymous && private_file(range.backing) == file);
    included.map(|(index, range)| (range.span, offset_in_copy(ranges, index)))
}

/// Returns which private file has the bytes of a range of this backing.
fn private_file(backing: Backing) -> File {
    if backing.is_file_copy() { File::Private } else { File::Relocated }
}

fn map_file(range: &Replacement, place: Place, otherwise: Option<Place>) -> [Step; 2] {
    let (span, protection, backing) = (range.span, range.protection, range.backing);
    [Step::MapFile { span, protection, place, otherwise }, Step::Done { backing, bytes: span.len() }]
}

/// Returns the anonymous ones of `ranges`, those together that are moved at once.
fn blocks(ranges: &[Replacement]) -> impl Iterator<Item = &[Replacement]> {
    let mut rest = ranges;
    let all = from_fn(move || {
        let (block, others) = rest.split_at_checked(block_len(rest)).filter(|(block, _)| !block.is_empty())?;
        rest = others;
        Some(block)
    });
    all.filter(|block| block.first().is_some_and(|range| range.backing == Backing::Anonymous))
}

/// Returns how many of the first `ranges` can be moved at once: RELRO and the data
/// behind it, if they are small. At least one.
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

/// Replaces a range of any length and protection by pieces, or neighbouring ranges by one
/// move, which costs the kernel more than all the rest. The bytes are right at any instant;
/// of several ranges, what is read-only is writable from the move until its protection is
/// set, as it was in the loader's hands a moment ago.
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

/// Returns where a range goes in a private copy: to its offset in the file, as debuggers
/// expect, unless an earlier range is there. Two segments can begin in one page of the
/// file and be relocated differently; the second one then goes behind all others.
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

//! Long runs of data to which no code has stored yet. Their pages are those of the file, in the page
//! cache: the kernel can reclaim them, and all processes share them. A private copy of such a run is
//! memory that the process did not use before, so it is bounded ([`crate::private_memory`]) or
//! avoided. Libraries for machine learning have hundreds of megabytes of such data.
//!
//! The page map shows which pages no code has stored to. Where it cannot be read, a range of this
//! length counts as one run, since all of it may be untouched.

use crate::object::Span;
use crate::pagemap::{Pagemap, PagemapReader};
use crate::pages::PageVec;
use crate::plan::{Backing, Replacement};
use crate::sys::{Errno, Result};

/// The size in bytes from which a run counts as long. From this size on, mapping it from a shared
/// copy, which takes another VMA, costs less than copying it.
pub const MIN_RUN: usize = 64 << 10;

/// Says whether code has stored to a part of a range, as far as the page map shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// Code has stored to its pages, or it has no long run of other pages.
    Stored,
    /// No code has stored to it, and it is long.
    Untouched,
    /// The page map does not show it, and it is long.
    Unknown,
}

/// Returns whether a range may contain a long run that would become private memory.
pub fn may_be_in(range: &Replacement) -> bool {
    range.backing == Backing::Anonymous && range.span.len() >= MIN_RUN
}

/// Calls `each` with the parts of all ranges, in their order. Fails only if `each` does. There is one
/// copy of this function in the library, whose memory some hosts lock.
#[inline(never)]
fn for_each_part(
    ranges: &[Replacement],
    pagemap: Option<&Pagemap>,
    each: &mut dyn FnMut(Replacement, Use) -> Result<()>,
) -> Result<()> {
    let end = ranges.iter().filter(|range| may_be_in(range)).map(|range| range.span.end).max().unwrap_or_default();
    let mut reader = pagemap.map(|pagemap| pagemap.reader(end));
    ranges.iter().try_for_each(|range| split(range, reader.as_mut(), each))
}

fn split(
    range: &Replacement,
    reader: Option<&mut PagemapReader<'_>>,
    each: &mut dyn FnMut(Replacement, Use) -> Result<()>,
) -> Result<()> {
    if !may_be_in(range) {
        return each(*range, Use::Stored);
    }
    let part = |start: usize, end: usize| Replacement {
        span: Span { start, end },
        offset: range.offset + (start - range.span.start) as u64,
        ..*range
    };
    let (mut done, mut worked) = (range.span.start, Ok(()));
    let read = reader.ok_or(Errno(libc::ENOENT)).and_then(|reader| {
        reader.for_each_unmodified(range.span, |run| {
            if run.len() < MIN_RUN {
                return Ok(());
            }
            if run.start != done {
                worked = each(part(done, run.start), Use::Stored);
            }
            if worked.is_ok() {
                worked = each(part(run.start, run.end), Use::Untouched);
            }
            done = run.end;
            worked
        })
    });
    worked?;
    if done == range.span.end {
        return Ok(());
    }
    let rest = part(done, range.span.end);
    let is_unknown = read.is_err() && rest.span.len() >= MIN_RUN;
    each(rest, if is_unknown { Use::Unknown } else { Use::Stored })
}

/// Gives the long runs of writable pages the backing [`Backing::CopyOnWrite`], so that they are mapped
/// from a shared copy of the file. Otherwise large tables in .data would cost every process memory, and the
/// time to copy them. Discards what `parts` contains, whose memory it uses. Returns how many bytes the other
/// long runs have that may be untouched; they stay parts of what is copied at once. If there is no memory,
/// `ranges` is unchanged.
pub fn share(ranges: &mut PageVec<Replacement>, parts: &mut PageVec<Replacement>, pagemap: &Pagemap) -> Result<usize> {
    parts.clear();
    let mut others = 0;
    for_each_part(ranges, Some(pagemap), &mut |part, used| {
        if used == Use::Untouched && part.protection & libc::PROT_WRITE != 0 {
            return parts.push(Replacement { backing: Backing::CopyOnWrite, ..part });
        }
        others += if used == Use::Stored { 0 } else { part.span.len() };
        let begins_range = || ranges.iter().any(|range| range.span.start == part.span.start);
        match parts.last_mut() {
            Some(last) if last.backing == part.backing && last.span.end == part.span.start && !begins_range() => {
                last.span.end = part.span.end;
                Ok(())
            }
            _ => parts.push(part),
        }
    })?;
    set(ranges, parts)?;
    Ok(others)
}

/// Returns how many bytes the long runs have that may be untouched.
pub fn bytes_in(ranges: &[Replacement], pagemap: Option<&Pagemap>) -> usize {
    let mut bytes = 0;
    let _ = for_each_part(ranges, pagemap, &mut |part, used| {
        bytes += if used == Use::Stored { 0 } else { part.span.len() };
        Ok(())
    });
    bytes
}

/// Removes the long runs that may be untouched from `ranges`; returns how many bytes they have.
/// Discards what `kept` contains, whose memory it uses. If there is no memory, `ranges` is unchanged.
pub fn leave(
    ranges: &mut PageVec<Replacement>,
    kept: &mut PageVec<Replacement>,
    pagemap: Option<&Pagemap>,
) -> Result<usize> {
    kept.clear();
    let mut left = 0;
    for_each_part(ranges, pagemap, &mut |part, used| {
        if used == Use::Stored {
            return kept.push(part);
        }
        left += part.span.len();
        Ok(())
    })?;
    set(ranges, kept)?;
    Ok(left)
}

/// Gives `ranges` the contents of `parts`. They are not exchanged: a process that shares this memory may
/// be killed here at any instant (`stopped`), and each array must have its own memory then.
fn set(ranges: &mut PageVec<Replacement>, parts: &PageVec<Replacement>) -> Result<()> {
    ranges.reserve(parts.len())?;
    ranges.clear();
    ranges.extend(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{self, ThreadIds};
    use std::vec::Vec;

    const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;

    fn range(start: usize, end: usize, backing: Backing) -> Replacement {
        Replacement { span: Span { start, end }, protection: READ_WRITE, offset: 0x1000, backing }
    }

    #[test]
    fn without_a_page_map_a_long_range_counts_as_a_whole() {
        let ranges = [
            range(0x10_0000, 0x10_0000 + MIN_RUN, Backing::Anonymous),
            range(0x20_0000, 0x20_0000 + MIN_RUN - 0x1000, Backing::Anonymous),
            range(0x30_0000, 0x30_0000 + 2 * MIN_RUN, Backing::CopyOnWrite),
        ];
        assert_eq!(bytes_in(&ranges, None), MIN_RUN);
        let (mut left, mut kept) = (PageVec::new(), PageVec::new());
        left.extend(&ranges).unwrap();
        assert_eq!(leave(&mut left, &mut kept, None), Ok(MIN_RUN));
        assert_eq!(*left, ranges[1..]);
    }

    #[test]
    #[cfg_attr(miri, ignore = "maps a file")]
    fn long_runs_are_found_between_the_pages_that_were_stored_to() {
        let page = sys::page_size();
        let run = MIN_RUN / page;
        let fd = sys::memfd_create(c"untouched").unwrap();
        let bytes = std::vec![1_u8; (4 * run + 1) * page];
        assert_eq!(sys::pwrite_from(&fd, bytes.as_ptr().addr(), bytes.len(), 0), Ok(bytes.len()));
        // SAFETY: a new private mapping.
        let start = unsafe { sys::mmap(0, bytes.len(), READ_WRITE, libc::MAP_PRIVATE, Some((&fd, 0))) }.unwrap();
        // The first run is long enough, the second one lacks a page, and the last one is longer.
        for index in [run, 2 * run] {
            // SAFETY: the test has just made this writable mapping, and only it has the address.
            unsafe { *((start + index * page) as *mut u8) = 2 };
        }
        let pagemap = Pagemap::open(ThreadIds::ask()).unwrap();
        let whole = range(start, start + bytes.len(), Backing::Anonymous);
        let mut parts = Vec::new();
        for_each_part(&[whole], Some(&pagemap), &mut |part, used| {
            let pages = (part.span.start - start) / page..(part.span.end - start) / page;
            assert_eq!(part.offset, 0x1000 + (part.span.start - start) as u64);
            parts.push((pages, used));
            Ok(())
        })
        .unwrap();
        let expected =
            [(0..run, Use::Untouched), (run..2 * run + 1, Use::Stored), (2 * run + 1..4 * run + 1, Use::Untouched)];
        assert_eq!(parts, expected);
        assert_eq!(bytes_in(&[whole], Some(&pagemap)), 3 * MIN_RUN);
        // An error of the caller ends the work, and is returned.
        let failed = for_each_part(&[whole], Some(&pagemap), &mut |_, _| Err(Errno(libc::ENOMEM)));
        assert_eq!(failed, Err(Errno(libc::ENOMEM)));
        let (mut shared, mut parts) = (PageVec::new(), PageVec::new());
        let read_only = Replacement { protection: libc::PROT_READ, ..whole };
        shared.extend(&[whole, read_only]).unwrap();
        assert_eq!(share(&mut shared, &mut parts, &pagemap), Ok(3 * MIN_RUN));
        let backings: Vec<_> = shared.iter().map(|part| part.backing).collect();
        assert_eq!(backings[..3], [Backing::CopyOnWrite, Backing::Anonymous, Backing::CopyOnWrite]);
        assert_eq!(shared[3..], [read_only]);
        shared.truncate(3);
        assert_eq!(share(&mut shared, &mut parts, &pagemap), Ok(0));
        let (mut left, mut kept) = (PageVec::new(), PageVec::new());
        left.push(whole).unwrap();
        assert_eq!(leave(&mut left, &mut kept, Some(&pagemap)), Ok(3 * MIN_RUN));
        assert_eq!(left.iter().map(|part| part.span.len()).sum::<usize>(), (run + 1) * page);
        // SAFETY: the test uses no address in the mapping any more.
        unsafe { sys::munmap(start, bytes.len()) }.unwrap();
    }
}

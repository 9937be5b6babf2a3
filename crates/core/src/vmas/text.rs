//! The text of `/proc/self/maps`, read from its beginning only as far as a question needs.
//!
//! The kernel makes each line when it is read, which takes most of the time, so an answer must
//! not cost the lines of all VMAs. The lines are in the order of the addresses. The loader maps
//! an object at the highest free addresses below the earlier ones, so that a new object lies
//! near the beginning of the text, and all others behind it.
//!
//! Other threads may change mappings between two reads. The kernel continues behind the last
//! VMA of which it has made a line, whatever lies there now
//! (`Documentation/filesystems/proc.rst`): an address that stays mapped has a line, and lines
//! of lower addresses do not come again. It does the same within one read of more than a page,
//! so a text that is read in parts is as consistent as one that is read at once. This holds
//! only for reads that continue where the last one has ended. For any other position the kernel
//! makes all lines before it again and counts their bytes, which leads to another line if one
//! of them has another length by then. Hence the file is read by `read(2)`, which cannot miss
//! its position.

use super::line::parse_line;
use super::{Vma, unescape};
use crate::object::Span;
use crate::pages::PageVec;
use crate::slices;
use crate::sys::{Errno, Result};

/// Bytes of the first read of the first text. They hold the mappings of the executable, and often
/// those of one new object.
const FIRST_READ: usize = 1 << 10;
/// Within these bounds the first read of a later text has as many bytes as the answers from the last
/// text took: the next object to be loaded lies at about the same place, and the kernel makes no
/// line in vain.
const LATER_FIRST_READS: core::ops::RangeInclusive<usize> = (1 << 8)..=(1 << 11);
/// Bytes of each further read: half of what was read before, within these bounds. A read takes as
/// long as two lines. The kernel makes no more lines at once than fit into a page.
const FURTHER_READS: core::ops::RangeInclusive<usize> = (1 << 9)..=(1 << 12);

/// A line that was read.
#[derive(Clone, Copy)]
struct TextLine {
    vma: Vma,
    /// Start and end of the path in the text, in which the kernel has escaped some characters.
    path: (u32, u32),
}

/// The lines that were read so far.
#[derive(Default)]
pub struct MapsText {
    bytes: PageVec<u8>,
    /// Those of the known form, in ascending order, without an address in two of them.
    lines: PageVec<TextLine>,
    /// The number of bytes that belong to lines which were read to their ends.
    parsed: usize,
    /// The number of bytes up to the end of the last line that an answer took.
    needed: usize,
    /// The same of the text before this one; 0 for the first.
    needed_before: usize,
    /// The text was read to its end.
    is_whole: bool,
}

impl MapsText {
    /// Makes a text of which nothing was read, and maps no memory yet.
    pub const fn new() -> Self {
        Self { bytes: PageVec::new(), lines: PageVec::new(), parsed: 0, needed: 0, needed_before: 0, is_whole: false }
    }

    /// Forgets what was read. Keeps at most two pages of memory for another text.
    pub fn clear(&mut self) {
        self.bytes.clear_to_one_page();
        self.lines.clear_to_one_page();
        (self.parsed, self.is_whole) = (0, false);
        self.needed_before = core::mem::take(&mut self.needed);
    }

    /// Returns whether lines were read up to that of `address`, or behind it.
    fn reaches(&self, address: usize) -> bool {
        self.is_whole || self.lines.last().is_some_and(|last| last.vma.span.end > address)
    }

    /// Reads until the line of `address` or one behind it was read. `read` continues where it has
    /// ended the last time.
    pub fn read_up_to(&mut self, address: usize, read: &mut dyn FnMut(&mut [u8]) -> Result<usize>) -> Result<()> {
        while !self.reaches(address) {
            self.read_more(read)?;
        }
        if let Some(line) = self.at_or_after(address) {
            self.needed = self.needed.max(line.path.1 as usize + 1);
        }
        Ok(())
    }

    /// Returns the first VMA of a file that has an address in `span`. Reads as far as that takes.
    pub fn next_file_backed(
        &mut self,
        span: Span,
        read: &mut dyn FnMut(&mut [u8]) -> Result<usize>,
    ) -> Result<Option<Vma>> {
        let mut from = span.start;
        while from < span.end {
            self.read_up_to(from, read)?;
            match self.at_or_after(from).map(|line| line.vma) {
                Some(vma) if vma.span.start < span.end && vma.file.inode != 0 => return Ok(Some(vma)),
                Some(vma) if vma.span.start < span.end => from = vma.span.end,
                Some(_) | None => break,
            }
        }
        Ok(None)
    }

    /// Returns the path that is shown for `address`. It must have been read so far.
    pub fn path_at<'a>(&self, address: usize, buffer: &'a mut [u8]) -> Result<&'a [u8]> {
        let line = self.at_or_after(address).filter(|line| line.vma.span.contains(address));
        let (start, end) = line.ok_or(Errno(libc::ENOENT))?.path;
        unescape(self.bytes.get(start as usize..end as usize).unwrap_or_default(), buffer)
    }

    /// Returns the lowest mapped address, if a line was read.
    pub fn lowest(&self) -> Option<usize> {
        self.lines.first().map(|line| line.vma.span.start)
    }

    fn at_or_after(&self, address: usize) -> Option<&TextLine> {
        let first = self.lines.partition_point(|line| line.vma.span.end <= address);
        self.lines.get(first)
    }

    fn read_more(&mut self, read: &mut dyn FnMut(&mut [u8]) -> Result<usize>) -> Result<()> {
        let len = match self.bytes.len() {
            0 if LATER_FIRST_READS.contains(&self.needed_before) => self.needed_before,
            0 => FIRST_READ,
            len => (len / 2).clamp(*FURTHER_READS.start(), *FURTHER_READS.end()),
        };
        self.is_whole = self.bytes.extend_by(len, read)? == 0;
        let mut end = self.parsed;
        while let Some(rest) = self.bytes.get(end..).filter(|rest| !rest.is_empty()) {
            let (len, newline) = match slices::position(rest, b'\n') {
                Some(len) => (len, 1),
                // The last line may go on, but not in a text that has ended.
                None if !self.is_whole => break,
                None => (rest.len(), 0),
            };
            let (start, path_end) = (end, end + len);
            end = path_end + newline;
            let Some((vma, path)) = rest.get(..len).and_then(parse_line) else { continue };
            let last = self.lines.last().map_or(0, |last| last.vma.span.end);
            // Since the last read, the VMA that was its last may have been merged with the next
            // one. Some kernels then show both as one.
            if let Some(vma) = vma.cut_to(&Span { start: last, end: usize::MAX }) {
                self.lines.push(TextLine { vma, path: ((start + path) as u32, path_end as u32) })?;
            }
        }
        self.parsed = end;
        Ok(())
    }
}

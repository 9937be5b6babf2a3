//! Which pages of a private file mapping were modified in memory.
//!
//! A breakpoint of a debugger, a uprobe of the kernel or a hot patch gives the process a
//! private copy of a text page. Such a page must stay what it is: a uprobe's trap instruction,
//! for one, would kill the process if it were copied to a mapping that the kernel has no probe
//! for. `/proc/PID/pagemap` distinguishes such copies, which are anonymous memory, from pages
//! of the file (`Documentation/admin-guide/mm/pagemap.rst`).

use core::num::NonZero;

use crate::object::Span;
use crate::runs::Runs;
use crate::sys::{self, Errno, Fd, Result, ThreadIds};

const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const FILE_OR_SHARED: u64 = 1 << 61;

/// The open page map of a process. Holds a descriptor: made for one sweep.
pub struct Pagemap {
    file: Fd,
    page: NonZero<usize>,
}

impl Pagemap {
    /// Opens the page map of this process for the calling thread.
    pub fn open(caller: ThreadIds) -> Result<Self> {
        sys::open_proc_file_of(caller, c"/proc/self/pagemap", c"/proc/thread-self/pagemap").map(Self::of)
    }

    /// Returns the page map in `file`, the `/proc/PID/pagemap` of some process.
    pub fn of(file: Fd) -> Self {
        Self { file, page: sys::page_divisor() }
    }

    /// Returns a reader for ranges below `end`. It reads the entries of several of them at once.
    pub const fn reader(&self, end: usize) -> PagemapReader<'_> {
        PagemapReader { pagemap: self, end, start: 0, count: 0, entries: [[0; 8]; 256] }
    }

    /// Calls `each` with the longest runs of pages of `span`, a private file mapping, that were
    /// not modified in memory, and returns the number of bytes that were.
    pub fn for_each_unmodified<E: From<Errno>>(
        &self,
        span: Span,
        each: impl FnMut(Span) -> core::result::Result<(), E>,
    ) -> core::result::Result<usize, E> {
        self.reader(span.end).for_each_unmodified(span, each)
    }
}

/// Returns whether the page with this entry was modified: it is in memory or swapped out, and is not the
/// file's.
fn is_modified(entry: [u8; 8]) -> bool {
    let entry = u64::from_ne_bytes(entry);
    entry & (PRESENT | SWAPPED) != 0 && entry & FILE_OR_SHARED == 0
}

/// The last entries that were read. For one entry, kernels such as Linux 6.1 look at all pages
/// up to the next multiple of 2 MiB (`pagemap_read` in `fs/proc/task_mmu.c`), which takes longer
/// than all the rest of pinning a small object. So the reader also reads the entries behind those
/// that it was asked for. It is for ranges of one object, before any of them is replaced.
pub struct PagemapReader<'a> {
    pagemap: &'a Pagemap,
    /// The end of the highest range.
    end: usize,
    /// The address of the first page whose entry was read.
    start: usize,
    /// How many entries were read.
    count: usize,
    entries: [[u8; 8]; 256],
}

impl PagemapReader<'_> {
    /// Does the same as [`Pagemap::for_each_unmodified`].
    pub fn for_each_unmodified<E: From<Errno>>(
        &mut self,
        span: Span,
        each: impl FnMut(Span) -> core::result::Result<(), E>,
    ) -> core::result::Result<usize, E> {
        let mut runs = Runs::new(span.start, each);
        while runs.position() < span.end {
            let position = runs.position();
            let page = self.pagemap.page.get();
            let entries = self.entries_from(position, span.end)?;
            let entries = entries.get(..(span.end - position) / page).unwrap_or(entries);
            // Nearly always all of them, which is why they are not judged one by one.
            let unmodified = entries.iter().take_while(|entry| !is_modified(**entry)).count();
            runs.judge_until(position + unmodified * page, true)?;
            if unmodified < entries.len() {
                runs.judge(false)?;
            }
        }
        runs.finish()
    }

    /// Returns the entries of the page at `address` and of those behind it, reading them if
    /// necessary at least up to `end`, if there is room for so many.
    fn entries_from(&mut self, address: usize, end: usize) -> Result<&[[u8; 8]]> {
        let page = self.pagemap.page;
        let index = address.wrapping_sub(self.start) / page;
        if index < self.count {
            return Ok(self.entries.get(index..self.count).unwrap_or_default());
        }
        self.count = 0;
        let pages = self.entries.len().min((end.max(self.end) - address) / page);
        let bytes = self.entries.as_flattened_mut().get_mut(..pages * 8).unwrap_or_default();
        // A short read would mean that the kernel does not know these pages.
        if sys::pread(&self.pagemap.file, bytes, (address / page * 8) as u64)? != pages * 8 || pages == 0 {
            return Err(Errno(libc::EIO));
        }
        (self.start, self.count) = (address, pages);
        Ok(self.entries.get(..pages).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    #[cfg_attr(miri, ignore = "maps a file")]
    fn a_page_that_was_stored_to_is_distinguished_from_pages_of_the_file() {
        let page = sys::page_size();
        let fd = sys::memfd_create(c"pagemap").unwrap();
        let bytes = std::vec![1_u8; 600 * page];
        assert_eq!(sys::pwrite_from(&fd, bytes.as_ptr().addr(), bytes.len(), 0), Ok(bytes.len()));
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new private mapping.
        let start = unsafe { sys::mmap(0, bytes.len(), protection, libc::MAP_PRIVATE, Some((&fd, 0))) }.unwrap();
        for index in [1, 300, 599] {
            // SAFETY: the test has just made this writable mapping, and only it has the
            // address.
            unsafe { *((start + index * page) as *mut u8) = 2 };
        }
        // SAFETY: the address lies in the same mapping, which is readable. A page that is only
        // read stays the file's.
        let read = unsafe { *((start + 5 * page) as *const u8) };
        assert_eq!(read, 1);
        let mut runs = Vec::new();
        let modified = Pagemap::open(ThreadIds::ask()).unwrap().for_each_unmodified(
            Span { start, end: start + bytes.len() },
            |run| {
                runs.push(((run.start - start) / page, (run.end - start) / page));
                Ok::<_, Errno>(())
            },
        );
        assert_eq!(modified, Ok(3 * page));
        assert_eq!(runs, [(0, 1), (2, 300), (301, 599)]);
        // A reader finds the same in ranges with a gap between them, which it reads at once.
        let pagemap = Pagemap::open(ThreadIds::ask()).unwrap();
        let mut reader = pagemap.reader(start + 250 * page);
        let mut count = |pages: core::ops::Range<usize>| {
            let span = Span { start: start + pages.start * page, end: start + pages.end * page };
            let modified = reader.for_each_unmodified(span, |_| Ok::<_, Errno>(())).unwrap() / page;
            (modified, (reader.start - start) / page, reader.count)
        };
        assert_eq!(count(1..3), (1, 1, 249));
        assert_eq!(count(100..250), (0, 1, 249));
        assert_eq!(count(240..310), (1, 250, 60));
        assert_eq!(count(0..600), (3, 512, 88));
        // SAFETY: the test uses no address in the mapping any more.
        unsafe { sys::munmap(start, bytes.len()) }.unwrap();
    }
}

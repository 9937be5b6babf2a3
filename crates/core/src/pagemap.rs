//! Which pages of a private file mapping were modified in memory.
//!
//! A breakpoint of a debugger, a uprobe of the kernel or a hot patch gives the
//! process a private copy of a text page. Such a page must stay what it is: a
//! uprobe's trap instruction, for one, would kill the process if it were copied
//! to a mapping that the kernel has no probe for. `/proc/PID/pagemap` tells
//! such copies, which are anonymous memory, from pages of the file
//! (`Documentation/admin-guide/mm/pagemap.rst`).

use crate::object::Span;
use crate::runs::Runs;
use crate::sys::{self, Errno, Fd, Result};

/// Bits of an entry of the page map.
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const FILE_OR_SHARED: u64 = 1 << 61;

/// The argument of `PAGEMAP_SCAN` (Linux 6.7, `include/uapi/linux/fs.h`).
#[repr(C)]
#[derive(Default)]
struct ScanArgument {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    regions: u64,
    region_count: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// A run of pages that a scan has found.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct PageRegion {
    start: u64,
    end: u64,
    categories: u64,
}

/// `_IOWR('f', 16, struct pm_scan_arg)`
const PAGEMAP_SCAN: u64 = 0xc000_0000 | (size_of::<ScanArgument>() as u64) << 16 | 0x66 << 8 | 0x10;
const PAGE_IS_FILE: u64 = 1 << 2;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;

/// The open page map of this process. Holds a descriptor: made for one sweep.
pub struct Pagemap {
    file: Fd,
    page: usize,
}

impl Pagemap {
    /// Opens the page map of this process.
    pub fn open() -> Result<Self> {
        let file = sys::open_own_proc_file(c"/proc/self/pagemap", c"/proc/thread-self/pagemap")?;
        Ok(Self { file, page: sys::page_size() })
    }

    /// Calls `each` with the longest runs of pages of `span`, a private file
    /// mapping, that were not modified in memory; the number of bytes that were.
    pub fn for_each_unmodified(&self, span: Span, each: impl FnMut(Span) -> Result<()>) -> Result<usize> {
        let mut runs = Runs::new(span.start, each);
        let mut found = [PageRegion::default(); 16];
        while runs.position() < span.end {
            // Older kernels, filters.
            let Ok((count, end)) = self.scan(runs.position(), span.end, &mut found) else { break };
            for region in found.iter().take(count) {
                runs.judge_until(region.start as usize, true)?;
                runs.judge_until(region.end as usize, false)?;
            }
            runs.judge_until(end, true)?;
        }
        self.read(span.end, &mut runs)?;
        runs.finish()
    }

    /// Lets the kernel look for modified pages from `start` on: how many runs of
    /// them are now in `found`, and how far it has come, which is beyond `start`.
    fn scan(&self, start: usize, end: usize, found: &mut [PageRegion]) -> Result<(usize, usize)> {
        let mut argument = ScanArgument {
            size: size_of::<ScanArgument>() as u64,
            start: start as u64,
            end: end as u64,
            regions: found.as_mut_ptr().addr() as u64,
            region_count: found.len() as u64,
            category_inverted: PAGE_IS_FILE,
            category_mask: PAGE_IS_FILE,
            category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
            return_mask: PAGE_IS_FILE,
            ..ScanArgument::default()
        };
        // SAFETY: the request reads and writes a ScanArgument, and at most
        // `region_count` regions through the live slice that it points to.
        let count = unsafe { sys::ioctl(&self.file, PAGEMAP_SCAN, &mut argument) }?;
        let end = argument.walk_end as usize;
        if end > start { Ok((count, end)) } else { Err(Errno(libc::EIO)) }
    }

    /// Judges the pages up to `end` by their entries.
    fn read<F: FnMut(Span) -> Result<()>>(&self, end: usize, runs: &mut Runs<F>) -> Result<()> {
        let mut entries = [[0_u8; 8]; 256];
        while runs.position() < end {
            let pages = entries.len().min((end - runs.position()) / self.page);
            let offset = (runs.position() / self.page * 8) as u64;
            let bytes = entries.as_flattened_mut().get_mut(..pages * 8).unwrap_or_default();
            // A short read would be a kernel that does not know these pages.
            if sys::pread(&self.file, bytes, offset)? != pages * 8 || pages == 0 {
                return Err(Errno(libc::EIO));
            }
            for entry in entries.iter().take(pages).map(|bytes| u64::from_ne_bytes(*bytes)) {
                runs.judge(entry & (PRESENT | SWAPPED) == 0 || entry & FILE_OR_SHARED != 0)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn the_ioctl_has_the_number_of_the_kernel_header() {
        assert_eq!(PAGEMAP_SCAN, 0xc060_6610);
    }

    /// More runs of modified pages than one scan has room for.
    #[test]
    fn every_other_page_modified() {
        let page = sys::page_size();
        let fd = sys::memfd_create(c"pagemap").unwrap();
        sys::write(fd.raw(), &std::vec![1_u8; 100 * page]).unwrap();
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new private mapping.
        let start = unsafe { sys::mmap(0, 100 * page, protection, libc::MAP_PRIVATE, Some((&fd, 0))) }.unwrap();
        for index in (0..100).step_by(2) {
            // SAFETY: the mapping is writable and nobody else's.
            unsafe { *((start + index * page) as *mut u8) = 2 };
        }
        let mut kept = Vec::new();
        let modified = Pagemap::open().unwrap().for_each_unmodified(Span { start, end: start + 100 * page }, |run| {
            kept.push((run.start - start) / page);
            assert_eq!(run.len(), page);
            Ok(())
        });
        assert_eq!(modified, Ok(50 * page));
        assert!(kept.into_iter().eq((1..100).step_by(2)));
        // SAFETY: the test is done with it.
        unsafe { sys::munmap(start, 100 * page) }.unwrap();
    }

    #[test]
    fn a_page_written_to_is_told_from_pages_of_the_file() {
        let page = sys::page_size();
        let fd = sys::memfd_create(c"pagemap").unwrap();
        let bytes = std::vec![1_u8; 600 * page];
        assert_eq!(sys::pwrite_from(&fd, bytes.as_ptr().addr(), bytes.len(), 0), Ok(bytes.len()));
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new private mapping.
        let start = unsafe { sys::mmap(0, bytes.len(), protection, libc::MAP_PRIVATE, Some((&fd, 0))) }.unwrap();
        for index in [1, 300, 599] {
            // SAFETY: the mapping is writable and nobody else's.
            unsafe { *((start + index * page) as *mut u8) = 2 };
        }
        // SAFETY: as above; a page that is only read stays the file's.
        let read = unsafe { *((start + 5 * page) as *const u8) };
        assert_eq!(read, 1);
        let (pagemap, span) = (Pagemap::open().unwrap(), Span { start, end: start + bytes.len() });
        let mut found = Vec::new();
        let note = |run: Span| {
            found.push(((run.start - start) / page, (run.end - start) / page));
            Ok(())
        };
        assert_eq!(pagemap.for_each_unmodified(span, note), Ok(3 * page));
        assert_eq!(found, [(0, 1), (2, 300), (301, 599)]);
        let mut read = Vec::new();
        let mut runs = Runs::new(start, |run: Span| {
            read.push(((run.start - start) / page, (run.end - start) / page));
            Ok(())
        });
        pagemap.read(span.end, &mut runs).unwrap();
        assert_eq!(runs.finish(), Ok(3 * page));
        assert_eq!(read, found);
        // SAFETY: the test is done with it.
        unsafe { sys::munmap(start, bytes.len()) }.unwrap();
    }
}

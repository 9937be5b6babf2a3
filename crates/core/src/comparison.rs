//! Which pages of a private file mapping are still those of the file, by
//! comparing them: for processes that may not read their [`crate::pagemap`],
//! such as one that has changed its user since it was started.

use crate::memory::ProcessMemory;
use crate::object::Span;
use crate::pages::PageVec;
use crate::runs::Runs;
use crate::sys::{self, Errno, Fd};

/// Bytes compared at a time, whole pages on every system. Two buffers of this size are mapped:
/// a host that has locked its memory (`mlockall(2)`) must have room for them within its limit.
const STEP: usize = if cfg!(target_arch = "aarch64") { 1 << 16 } else { 1 << 14 };

/// Calls `each` with the longest runs of pages of `span` that hold the same bytes as `file`
/// from `offset` on, and returns the number of bytes in other pages. Memory beyond the end of
/// the file must be zero to be equal.
#[cold]
#[inline(never)]
pub fn for_each_equal<E: From<Errno>>(
    memory: &ProcessMemory,
    file: &Fd,
    span: Span,
    offset: u64,
    each: impl FnMut(Span) -> Result<(), E>,
) -> Result<usize, E> {
    let page = sys::page_divisor();
    let (mut mapped, mut stored) = (PageVec::zeroed(STEP)?, PageVec::zeroed(STEP)?);
    let mut runs = Runs::new(span.start, each);
    while runs.position() < span.end {
        let at = runs.position();
        let len = STEP.min(span.end - at);
        // SAFETY: the buffer is this function's own and has room for `len` bytes.
        unsafe { memory.copy(mapped.as_mut_ptr(), at, len) }?;
        let room = stored.get_mut(..len).unwrap_or_default();
        let read = sys::pread_all(file, room, offset + (at - span.start) as u64)?.len();
        room.get_mut(read..).unwrap_or_default().fill(0);
        for (mapped, stored) in mapped.chunks(page.get()).zip(stored.chunks(page.get())).take(len / page) {
            runs.judge(mapped == stored)?;
        }
    }
    runs.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    #[cfg_attr(miri, ignore = "maps a file")]
    fn changed_pages_are_distinguished_from_those_of_the_file() {
        let page = sys::page_size();
        let fd = sys::memfd_create(c"comparison").unwrap();
        let bytes: Vec<u8> = (0..40 * page + 100).map(|index| (index / page) as u8 + 1).collect();
        assert_eq!(sys::pwrite_from(&fd, bytes.as_ptr().addr(), bytes.len(), 0), Ok(bytes.len()));
        let (protection, len) = (libc::PROT_READ | libc::PROT_WRITE, 40 * page);
        // SAFETY: a new private mapping, from the second page of the file on.
        let start = unsafe { sys::mmap(0, len, protection, libc::MAP_PRIVATE, Some((&fd, page as u64))) }.unwrap();
        for index in [0, 17, 30] {
            // SAFETY: the test has just made this writable mapping, and only it has the
            // address.
            unsafe { *((start + index * page) as *mut u8) = 0xcc };
        }
        let mut runs = Vec::new();
        let span = Span { start, end: start + len };
        let differing = for_each_equal(&ProcessMemory::own(), &fd, span, page as u64, |run| {
            runs.push(((run.start - start) / page, (run.end - start) / page));
            Ok::<_, Errno>(())
        });
        assert_eq!(differing, Ok(3 * page));
        assert_eq!(runs, [(1, 17), (18, 30), (31, 40)]);
        // SAFETY: the test uses no address in the mapping any more.
        unsafe { sys::munmap(start, len) }.unwrap();
    }
}

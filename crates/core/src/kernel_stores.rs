//! Finding out whether the kernel may store to a process's memory while all of its tasks have
//! stopped, because of requests that were submitted before. The kernel keeps the pages for which they were submitted,
//! so a store would go to memory that the process has no longer, if its range was replaced.

use crate::pages::PageVec;
use crate::slices;
use crate::sys::Result;

/// How the kernel names the file of an io_uring, as a descriptor and as a mapping.
pub const RING: &[u8] = b"anon_inode:[io_uring]";
/// A part of the line of a mapping that `io_setup(2)` has made.
pub const REQUESTS: &[u8] = b"/[aio]";

/// A way in which the kernel stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelStore {
    /// An `io_uring(7)`.
    Ring,
    /// Requests of `io_submit(2)`.
    Requests,
}

/// Bytes that are read at once.
const BLOCK: usize = 32 << 10;

/// Searches the text of `/proc/PID/maps`, which `read` returns part by part.
pub fn find_in_maps(mut read: impl FnMut(&mut [u8]) -> Result<usize>) -> Result<Option<KernelStore>> {
    let mut buffer = PageVec::<u8>::zeroed(BLOCK)?;
    let mut kept = 0;
    loop {
        let read = read(buffer.get_mut(kept..).unwrap_or_default())?;
        let end = kept + read;
        let found = find(buffer.get(..end).unwrap_or_default());
        if read == 0 || found.is_some() {
            return Ok(found);
        }
        // A name may be cut by the end of the block.
        kept = end.min(RING.len());
        slices::move_down(buffer.get_mut(..end).unwrap_or_default(), end - kept..end, 0);
    }
}

/// Searches lines of `/proc/PID/maps`, or a part of them.
#[inline(never)]
pub(crate) fn find(text: &[u8]) -> Option<KernelStore> {
    let bracket_at = |(index, byte): (usize, &u8)| (*byte == b'[').then_some(index);
    text.iter().enumerate().filter_map(bracket_at).find_map(|bracket| {
        // A part of the name stands in front of the bracket.
        let is_at = |name: &[u8]| {
            let start = name.iter().position(|byte| *byte == b'[').and_then(|before| bracket.checked_sub(before));
            start.and_then(|start| text.get(start..)).is_some_and(|rest| rest.starts_with(name))
        };
        let is_ring = is_at(RING).then_some(KernelStore::Ring);
        is_ring.or_else(|| is_at(REQUESTS).then_some(KernelStore::Requests))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::ToOwned;
    use std::string::String;

    const HARMLESS: &str =
        "7f1000-7f2000 r--p 00000000 08:01 7   /srv/[io]/libx.so\n7f3000-7f4000 rw-p 0 00:00 0   [heap]\n";
    const RINGS: &str = "7f5000-7f6000 rw-s 10000000 00:0e 1038   anon_inode:[io_uring]\n";
    const CONTEXT: &str = "7f7000-7f8000 rw-s 00000000 00:12 59   /[aio] (deleted)\n";

    fn find_in(text: &str, at_once: usize) -> Option<KernelStore> {
        let mut rest = text.as_bytes();
        let found = find_in_maps(|buffer| {
            let len = buffer.len().min(rest.len()).min(at_once);
            let (read, unread) = rest.split_at(len);
            buffer[..len].copy_from_slice(read);
            rest = unread;
            Ok(len)
        });
        found.unwrap()
    }

    #[test]
    fn rings_and_contexts_are_found() {
        assert_eq!(find_in(HARMLESS, usize::MAX), None);
        assert_eq!(find_in(&(HARMLESS.to_owned() + RINGS), usize::MAX), Some(KernelStore::Ring));
        assert_eq!(find_in(&(HARMLESS.to_owned() + CONTEXT), usize::MAX), Some(KernelStore::Requests));
        assert_eq!(find_in("[", usize::MAX), None);
    }

    #[test]
    fn names_may_be_cut_anywhere() {
        for at_once in 1..40 {
            assert_eq!(find_in(&(HARMLESS.to_owned() + RINGS), at_once), Some(KernelStore::Ring), "{at_once}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes long")]
    fn long_texts_are_read_to_the_end() {
        let long: String = HARMLESS.repeat(2000);
        assert_eq!(find_in(&long, usize::MAX), None);
        assert_eq!(find_in(&(long + CONTEXT), usize::MAX), Some(KernelStore::Requests));
    }
}

//! Goes through all names in a store part by part, a part each time, so that what one program
//! does does not grow with the store.
//!
//! A symbolic link in the store says where the next part begins:
//!
//! ```text
//! <store>/.next -> <position>-<bytes>-<bytes of the last round>      all hexadecimal
//! ```
//!
//! The position is the file system's (`d_off` of `getdents64(2)`); if it means nothing any more,
//! the next part begins elsewhere, or is empty, and a later one begins anew. A store that one
//! part contains has no link.

use core::ffi::CStr;
use core::ops::ControlFlow::{Break, Continue};

use sopin_core::line::Line;
use sopin_core::listing::{DIRECTORY_TO_LIST, try_each_name};
use sopin_core::sys::{self, Fd};

/// The name of the link for unneeded entries.
pub const NEXT: &CStr = c".next";
/// The name of the link for entries that one process uses alone.
pub const NEXT_OWN: &CStr = c".next-own";

/// Where the next part begins, and the bytes that were counted before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    position: u64,
    /// In the parts of this round before.
    bytes: u64,
    /// In all parts of the last round.
    last_round: u64,
}

impl Progress {
    /// Parses the target of a link.
    fn parse(target: &[u8]) -> Option<Self> {
        // A `str` is split by code that can panic.
        let texts = target.split(|byte| *byte == b'-').map(core::str::from_utf8);
        let mut numbers = texts.map(|text| u64::from_str_radix(text.ok()?, 16).ok());
        let mut next = || numbers.next().flatten();
        let progress = Self { position: next()?, bytes: next()?, last_round: next()? };
        // A file system refuses a negative position.
        (numbers.next().is_none() && i64::try_from(progress.position).is_ok()).then_some(progress)
    }

    fn target(&self) -> Line<64> {
        let Self { position, bytes, last_round } = self;
        Line::format_raw(format_args!("{position:x}-{bytes:x}-{last_round:x}\0"))
    }
}

/// One part of the names in a store.
pub struct ListingPart<'a> {
    store: &'a Fd,
    listing: Fd,
    link: &'static CStr,
    most: usize,
    has_begun: bool,
    /// `None` without a link.
    progress: Option<Progress>,
    /// Where the next part begins; `None` after the end, or before anything was listed.
    next: Option<u64>,
}

impl<'a> ListingPart<'a> {
    /// Opens the next part, of at most so many names.
    pub fn open(store: &'a Fd, link: &'static CStr, most: usize) -> sys::Result<Self> {
        // A separate descriptor, so that the position of the store's own stays the same.
        let listing = sys::openat(store, c".", DIRECTORY_TO_LIST, 0)?;
        Ok(Self { store, listing, link, most, has_begun: false, progress: read(store, link), next: None })
    }

    /// Calls `each` with every name in the part. Called again, it begins again.
    pub fn for_each_name(&mut self, mut each: impl FnMut(&CStr)) -> sys::Result<()> {
        let start = self.progress.map_or(0, |progress| progress.position);
        // The loader makes no such call, so a filter may forbid it.
        let is_there = start == 0 && !core::mem::replace(&mut self.has_begun, true);
        if !is_there && sys::seek(&self.listing, start.cast_signed()).is_err() {
            sys::seek(&self.listing, 0)?;
        }
        let mut left = self.most;
        self.next = None;
        let listed = try_each_name(&self.listing, |name, behind| {
            each(name);
            left = left.saturating_sub(1);
            if left > 0 {
                return Continue(());
            }
            self.next = u64::try_from(behind).ok();
            Break(())
        });
        listed.map(drop)
    }

    /// Returns how many bytes are in the store, if so many are in this part: at least as many as
    /// were counted in this round, or as there were in the last one.
    pub fn bytes_in_all(&self, bytes: u64) -> u64 {
        let progress = self.progress.unwrap_or_default();
        progress.last_round.max(progress.bytes.saturating_add(bytes))
    }

    /// Notes that the part is done, in which there were so many bytes.
    pub fn finish(self, bytes: u64) {
        let known = self.progress.unwrap_or_default();
        let bytes = known.bytes.saturating_add(bytes);
        let progress = match self.next {
            Some(position) => Some(Progress { position, bytes, last_round: known.last_round }),
            // The store is as small as this part.
            None if known.position == 0 => None,
            None => Some(Progress { position: 0, bytes: 0, last_round: bytes }),
        };
        if self.progress.is_some() {
            let _ = sys::unlinkat(self.store, self.link, 0);
        }
        if let Some(progress) = progress {
            // Another process may have been first.
            let _ = sys::symlinkat(progress.target().as_c_str(), self.store, self.link);
        }
    }
}

/// Returns whether a store has several parts.
pub fn is_under_way(store: &Fd, link: &CStr) -> bool {
    read(store, link).is_some()
}

fn read(store: &Fd, link: &CStr) -> Option<Progress> {
    let mut buffer = [0; 64];
    Progress::parse(sys::readlinkat(store, link, &mut buffer).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_of_a_link_can_be_read_back() {
        let most = Progress { position: i64::MAX.cast_unsigned(), bytes: u64::MAX, last_round: u64::MAX };
        for progress in [Progress::default(), Progress { position: 7, bytes: 8, last_round: 9 }, most] {
            let target = progress.target();
            assert_eq!(Progress::parse(target.as_c_str().to_bytes()), Some(progress));
        }
        for other in ["", "1", "1-2", "1-2-3-4", "x-2-3", "ffffffffffffffff-0-0", "1--3"] {
            assert_eq!(Progress::parse(other.as_bytes()), None, "{other}");
        }
    }
}

//! Finds and removes the older versions of a file that is being added: the same inode with other
//! contents, or another inode at the same path.
//!
//! Nothing but the names in the store leads to them, so the store is listed. A process does that
//! once, and learns from it for which files a later search is needed ([`KnownOrigins`]). In a
//! store of more than [`MOST_SEARCHED`] entries, only so many are searched: what a program pays
//! does not grow with the store. An older version that is not found is removed with the unneeded
//! entries when no process maps it any more.

use core::ffi::CStr;
use core::ops::ControlFlow::{self, Break, Continue};

use sopin_core::line::Line;
use sopin_core::listing::{DIRECTORY_TO_LIST, try_each_name};
use sopin_core::pages::PageVec;
use sopin_core::sys::{self, Fd};

use crate::known_origins::KnownOrigins;
use crate::name::{Key, Version, hash};
use crate::origin::{LINK, Origin};
use crate::removal::remove_entry;

/// The number of names that one search lists at most.
pub const MOST_SEARCHED: usize = 2048;
/// The longest path of a link in a store, in bytes with its NUL: a key of at most 138 bytes.
const MAX_LINK_PATH: usize = 138 + 1 + 8 + 1;

/// The origins that have entries, for a process that adds several.
static KNOWN: KnownOrigins = KnownOrigins::new();

/// A file that is being added.
struct Added<'a> {
    key: &'a Key,
    version: Version,
    /// Where it is, if that can be determined.
    origin: Option<Origin<'a>>,
}

/// Removes older versions of the file that is being added, even if they are in use: needrestart
/// then lists the processes that map them, as it should.
pub fn replace(store: &Fd, key: &Key, origin: Option<&CStr>) {
    let added = Added { key, version: key.version(), origin: origin.and_then(Origin::parse) };
    let now = i64::try_from(sys::monotonic_ns() / 1_000_000_000).unwrap_or(0);
    let Ok(inode) = sys::fstat(store.raw()).map(|status| status.st_ino) else { return };
    let hashes = [hash_of_file(key.as_c_str()), added.origin.map_or(0, |origin| origin.place_hash())];
    let is_known = KNOWN.may_have(hashes.get(..1 + usize::from(added.origin.is_some())).unwrap_or_default());
    if !KNOWN.is_fresh(inode, now) {
        KNOWN.clear(inode);
        if added.search(store, true).is_ok() {
            KNOWN.finish(inode, now);
        }
    } else if is_known {
        let _ = added.search(store, false);
    }
    for hash in hashes {
        KNOWN.add(hash);
    }
}

impl Added<'_> {
    /// Lists entries and removes older versions. Notes the origins of all that it lists if
    /// `learns`, for which it reads their links.
    fn search(&self, store: &Fd, learns: bool) -> sys::Result<()> {
        let listing = sys::openat(store, c".", DIRECTORY_TO_LIST, 0)?;
        let mut buffer = PageVec::zeroed(libc::PATH_MAX as usize)?;
        let mut left = MOST_SEARCHED;
        let each = |name: &CStr, _| {
            if name != self.key.as_c_str() {
                self.examine(store, name, learns, &mut buffer);
            }
            left -= 1;
            if left == 0 { Break(()) } else { Continue(()) }
        };
        try_each_name(&listing, each).map(drop::<ControlFlow<()>>)
    }

    fn examine(&self, store: &Fd, name: &CStr, learns: bool, buffer: &mut [u8]) {
        // A key begins with the hash of the file name, so most names need not be parsed.
        let is_namesake = name.to_bytes().get(..8) == self.key.as_c_str().to_bytes().get(..8);
        if !learns && !is_namesake {
            return;
        }
        let Some(version) = Version::parse(name.to_bytes()) else { return };
        let is_same_file = version.is_of_same_file(&self.version);
        let may_be_at_place = is_namesake && version.identity.device == self.version.identity.device;
        let known = if learns || (may_be_at_place && !is_same_file) { read_link(store, name, buffer) } else { None };
        if learns {
            KNOWN.add(hash_of_file(name));
            if let Some(known) = known {
                KNOWN.add(known.place_hash());
            }
        }
        let is_at_place = || known.zip(self.origin).is_some_and(|(known, origin)| known.is_at_same_place(&origin));
        if is_same_file || (may_be_at_place && is_at_place()) {
            remove_entry(store, name);
        }
    }
}

/// Reads the link of an entry by the entry's name, with one call.
fn read_link<'a>(store: &Fd, name: &CStr, buffer: &'a mut [u8]) -> Option<Origin<'a>> {
    let mut path = Line::<MAX_LINK_PATH>::new();
    let parts = [name.to_bytes(), b"/", LINK.to_bytes_with_nul()];
    if !parts.into_iter().all(|part| path.append(part)) {
        return None;
    }
    crate::origin::read_at(store, path.as_c_str(), buffer)
}

/// Returns the hash of the part of a key that stays the same when the file is rewritten in place.
fn hash_of_file(key: &CStr) -> u32 {
    let mut dashes = 0;
    hash(key.to_bytes().iter().copied().take_while(|byte| {
        dashes += u8::from(*byte == b'-');
        dashes < 3
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Identity;

    #[test]
    fn versions_of_one_file_have_one_hash() {
        let of = |inode, size, changed| {
            hash_of_file(Key::new(&Identity { device: 1, inode, size, modified: 1, changed }, c"libx.so").as_c_str())
        };
        assert_eq!(of(7, 8, 9), of(7, 80, 90));
        assert_ne!(of(7, 8, 9), of(70, 8, 9));
    }
}

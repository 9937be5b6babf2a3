//! Which object a DT_NEEDED name leads to, as far as the library can conclude it without the
//! loader.
//!
//! glibc's `_dl_map_object` takes the first object of its list that it knows by that name or
//! that has it as its SONAME. The names that it knows an object by include those it was asked
//! for, in a list that is private to it. So a name proves something only if a single object of
//! the whole list could have it: then the name leads to that object.
//!
//! Names are compared by hashes, which are kept for every object, because reading the names of
//! thousands of objects anew would make each load slower than the one before. Two names with
//! the same hash only make the answer stricter, provided that the caller compares the name of
//! the object that is found.

use crate::memory::ProcessMemory;
use crate::object::file_name;
use crate::sys::Errno;

/// Hash of a name that an object does not have.
const ABSENT: u32 = 0;
/// Hash of a name that could not be read, and that could be any name.
const UNKNOWN: u32 = 1;
/// No hash of a name is below this.
const FIRST_HASH: u32 = 2;

/// Bytes of a name that one read copies.
const STEP: usize = 64;
/// Longest name that is read: PATH_MAX.
const MAX_NAME: usize = libc::PATH_MAX as usize;

/// The names by which a DT_NEEDED entry could lead to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameHashes {
    file_name: u32,
    soname: u32,
}

impl NameHashes {
    /// An object whose names are not known, so that every name could lead to it.
    pub const UNKNOWN: Self = Self { file_name: UNKNOWN, soname: UNKNOWN };

    /// Returns an object with the file name of `path` and, if it has one, this SONAME.
    pub fn of(path: &[u8], soname: Option<&[u8]>) -> Self {
        Self { file_name: FileName::of(path).0, soname: soname.map_or(ABSENT, hash) }
    }

    /// Reads the SONAME, a C string at this address, of an object with this file name.
    pub fn read(memory: &ProcessMemory, FileName(file_name): FileName, soname: Option<usize>) -> Self {
        Self { file_name, soname: soname.map_or(ABSENT, |address| hash_at(memory, address, None)) }
    }

    /// Returns whether a DT_NEEDED entry could lead to the object. One with a slash is
    /// a path, of which only the file name is compared.
    fn could_be(self, needed: Self) -> bool {
        self.file_name == UNKNOWN
            || self.soname == UNKNOWN
            || self.file_name == needed.file_name
            || self.soname == needed.soname
            || self.soname == needed.file_name
    }
}

/// The hash of an object's file name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileName(u32);

impl FileName {
    /// Returns that of `path`.
    pub fn of(path: &[u8]) -> Self {
        Self(hash(file_name(path)))
    }

    /// Reads the path, a C string at this address.
    pub fn read(memory: &ProcessMemory, path: usize) -> Self {
        Self(hash_at(memory, path, Some(b'/')))
    }
}

impl Default for NameHashes {
    fn default() -> Self {
        Self::UNKNOWN
    }
}

/// Returns the index of the one among `candidates` that a DT_NEEDED entry of the
/// text `needed` leads to; `None` if there is none, or if the name could also
/// lead to another candidate or to one of the `others`, which are the rest of
/// the loader's list. The caller still has to compare the candidate's name.
pub fn only_object(
    needed: &[u8],
    candidates: impl Iterator<Item = NameHashes>,
    others: &[NameHashes],
) -> Option<usize> {
    let needed = NameHashes::of(needed, Some(needed));
    let mut found = candidates.enumerate().filter(|(_, names)| names.could_be(needed));
    let (index, _) = found.next()?;
    let is_only = found.next().is_none() && !others.iter().any(|names| names.could_be(needed));
    is_only.then_some(index)
}

/// FNV-1a, the 32-bit variant.
#[derive(Clone, Copy)]
struct Hash(u32);

impl Hash {
    const START: Self = Self(0x811c_9dc5);

    const fn with(self, byte: u8) -> Self {
        Self((self.0 ^ byte as u32).wrapping_mul(0x0100_0193))
    }

    fn finish(self) -> u32 {
        self.0.max(FIRST_HASH)
    }
}

fn hash(name: &[u8]) -> u32 {
    name.iter().fold(Hash::START, |hash, byte| hash.with(*byte)).finish()
}

/// Returns the hash of the C string at `address`, of the part behind the last
/// `separator` if one is given.
fn hash_at(memory: &ProcessMemory, address: usize, separator: Option<u8>) -> u32 {
    let mut hash = Hash::START;
    let mut buffer = [0; STEP];
    let mut at = address;
    while at - address < MAX_NAME {
        // Reads up to the next multiple of the step, which lies on the same page.
        let room = buffer.get_mut(..STEP - at % STEP).unwrap_or_default();
        let (piece, is_last) = match memory.read_string(at, room) {
            Ok(end) => (end.len(), true),
            Err(Errno(libc::ENAMETOOLONG)) => (STEP - at % STEP, false),
            Err(_) => return UNKNOWN,
        };
        for byte in buffer.get(..piece).unwrap_or_default() {
            hash = if separator == Some(*byte) { Hash::START } else { hash.with(*byte) };
        }
        if is_last {
            return hash.finish();
        }
        at += piece;
    }
    UNKNOWN
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const NAMESAKE: (&str, Option<&str>) = ("/other/libn.so", Some("libn.so"));

    fn names((path, soname): (&str, Option<&str>)) -> NameHashes {
        NameHashes::of(path.as_bytes(), soname.map(str::as_bytes))
    }

    fn found(needed: &str, candidates: &[(&str, Option<&str>)], others: &[(&str, Option<&str>)]) -> Option<usize> {
        let others: Vec<_> = others.iter().map(|other| names(*other)).collect();
        only_object(needed.as_bytes(), candidates.iter().map(|candidate| names(*candidate)), &others)
    }

    #[test]
    fn a_name_leads_to_the_object_with_that_soname_or_file_name() {
        let candidates = [("/a/libm.so", None), ("/a/libn-1.2.so", Some("libn.so")), ("./libo.so", Some("o"))];
        assert_eq!(found("libn.so", &candidates, &[]), Some(1));
        assert_eq!(found("libm.so", &candidates, &[]), Some(0));
        assert_eq!(found("libo.so", &candidates, &[]), Some(2));
        assert_eq!(found("libp.so", &candidates, &[]), None);
        assert_eq!(found("/a/libm.so", &candidates, &[]), Some(0));
    }

    #[test]
    fn nothing_follows_from_a_name_that_two_candidates_have() {
        let dependency = ("/a/libn.so", Some("libn.so"));
        assert_eq!(found("libn.so", &[dependency], &[]), Some(0));
        assert_eq!(found("libn.so", &[dependency, NAMESAKE], &[]), None);
        assert_eq!(found("libn.so", &[NAMESAKE, ("/a/libn.so", None)], &[]), None);
    }

    #[test]
    fn nothing_follows_from_a_name_that_leads_to_a_recorded_object() {
        for recorded in [("/a/libn.so", Some("libn.so")), ("libn.so", None), ("/a/libn-1.2.so", Some("libn.so"))] {
            assert_eq!(found("libn.so", &[NAMESAKE], &[("/a/libm.so", None), recorded]), None);
        }
        assert_eq!(found("libn.so", &[NAMESAKE], &[("/a/libm.so", Some("libm.so"))]), Some(0));
    }

    #[test]
    fn a_path_is_ambiguous_by_its_file_name_too() {
        assert_eq!(found("/a/libn.so", &[("/a/libn.so", None), NAMESAKE], &[]), None);
        assert_eq!(found("./libn.so", &[("./libn.so", Some("./libn.so"))], &[]), Some(0));
    }

    #[test]
    fn an_object_without_a_known_name_could_be_meant_by_every_name() {
        let one = [names(NAMESAKE)];
        assert_eq!(only_object(b"libn.so", one.into_iter(), &[]), Some(0));
        assert_eq!(only_object(b"libn.so", one.into_iter(), &[NameHashes::UNKNOWN]), None);
        // The name of the executable is empty, and it has no SONAME.
        assert_eq!(only_object(b"libn.so", one.into_iter(), &[NameHashes::of(b"", None)]), Some(0));
    }

    #[test]
    #[cfg_attr(miri, ignore = "reads pieces that end behind the array")]
    fn names_are_read_piece_by_piece() {
        let memory = ProcessMemory::own();
        let file = [b'f'; 200];
        let path: Vec<u8> = [&[b'/', b'd'].repeat(70), &b"/"[..], &file, &[0]].concat();
        let address = path.as_ptr().expose_provenance();
        let file_name = FileName::read(&memory, address);
        assert_eq!(file_name, FileName::of(path.strip_suffix(&[0]).unwrap()));
        let read = NameHashes::read(&memory, file_name, Some(address + path.len() - 4));
        assert_eq!(read, NameHashes::of(&file, Some(b"fff")));
        assert_eq!(FileName::read(&memory, 8), FileName(UNKNOWN));
        let endless = [b'x'; MAX_NAME + STEP];
        assert_eq!(FileName::read(&memory, endless.as_ptr().expose_provenance()), FileName(UNKNOWN));
    }
}

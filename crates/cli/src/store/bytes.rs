//! Whether the bytes of an entry are its origin's, while that still is the version
//! that was copied. `verify` tells of those that are not, and `prune` removes them.
//!
//! After a power loss an entry can have its size and hold zeroes. The library knows
//! which entries have reached the disk by their modification time and compares all
//! others before it uses them in a later boot. What was compared here, by the owner,
//! is written to the disk and gets that time, so that no program has to.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use sopin_core::sys::FileSystem;
use sopin_inspect::descriptors;
use sopin_store::{Freshness, Identity, OriginFile, Version, equals_origin, note_on_disk};

use super::entry::EntryDirectory;

/// How a file is opened that is only read.
const TO_READ: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// What the comparison has shown.
#[derive(Debug, PartialEq, Eq)]
pub enum Compared {
    /// It cannot be compared: the origin is not that version, or may not be read.
    Not,
    /// All bytes are the same.
    Equal,
    /// They are not, or cannot be read, for this reason.
    Different(String),
}

/// Compares an entry with its origin; of one that is equal it `notes` that it is on
/// the disk.
pub fn compare(entry: &EntryDirectory, notes: bool) -> Compared {
    let (Some((name, _)), Some(origin), Some(Version { identity, .. }), Freshness::Current) =
        (&entry.copy, &entry.origin, entry.version, entry.freshness)
    else {
        return Compared::Not;
    };
    let copy = match open_copy(entry, name) {
        Ok(copy) => copy,
        // Removed meanwhile by a program that needed room.
        Err(Errno::NOENT) => return Compared::Not,
        Err(error) => return Compared::Different(format!("it cannot be opened: {error}")),
    };
    // Who may not read the origin cannot compare.
    let Ok(file) = rustix::fs::open(origin, TO_READ, Mode::empty()) else { return Compared::Not };
    if is_equal(identity, &copy, origin.as_os_str(), &file) == Some(true) {
        if notes && let Ok(copy) = descriptors::for_core(&copy, OFlags::RDONLY | OFlags::NOATIME) {
            let _ = note_on_disk(&copy);
        }
        return Compared::Equal;
    }
    let file = File::from(file);
    let difference = first_difference(File::from(copy), &file);
    if descriptors::identity_of(&file) != Ok(identity) {
        // Rewritten while we looked; then nothing follows from it.
        return Compared::Not;
    }
    match difference {
        Ok(None) => Compared::Equal,
        Ok(Some(offset)) => {
            Compared::Different(format!("its bytes differ from the origin's, first at offset {offset}"))
        }
        Err(error) => Compared::Different(format!("it cannot be read: {error}")),
    }
}

/// Looking at an entry is no use of it, so its access time stays what it is, where
/// the file's owner says so.
fn open_copy(entry: &EntryDirectory, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let open = |flags| rustix::fs::openat(&entry.directory, name, flags, Mode::empty());
    match open(TO_READ | OFlags::NOATIME) {
        Err(Errno::PERM) => open(TO_READ),
        result => result,
    }
}

/// As the library compares them. `None` if that cannot be done.
fn is_equal(identity: Identity, copy: &OwnedFd, path: &OsStr, file: &OwnedFd) -> Option<bool> {
    let copy = descriptors::for_core(copy, OFlags::RDONLY | OFlags::NOATIME)
        .or_else(|_| descriptors::for_core(copy, OFlags::RDONLY))
        .ok()?;
    let file = &descriptors::for_core(file, OFlags::RDONLY).ok()?;
    let (path, file_system) = (&CString::new(path.as_bytes()).ok()?, &FileSystem::of(file).ok()?);
    equals_origin(&copy, &OriginFile { file, path, identity, has_own_numbers: true, file_system }).ok()
}

/// The offset of the first byte that differs, or of the end of the shorter file.
fn first_difference(mut copy: File, mut origin: &File) -> io::Result<Option<u64>> {
    let (mut ours, mut theirs) = (vec![0; 1 << 18], Vec::new());
    let mut offset = 0;
    loop {
        let len = copy.read(&mut ours)?;
        theirs.resize(len.max(1), 0);
        let mut filled = 0;
        while filled < theirs.len() {
            match origin.read(&mut theirs[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        let equal = ours[..len].iter().zip(&theirs[..filled]).take_while(|(a, b)| a == b).count();
        if equal < len || filled != len {
            return Ok(Some(offset + equal as u64));
        }
        if len == 0 {
            return Ok(None);
        }
        offset += len as u64;
    }
}

//! Compares the bytes of an entry with its origin, if that still is the version that was
//! copied. `verify` reports entries that differ, and `prune` removes them.
//!
//! After a power loss an entry can have its size and hold zeroes. The library recognises by the
//! modification time which entries have reached the disk, and compares all others before it
//! uses them in a later boot. An entry that its owner has compared here is written to the disk
//! and gets that time, so that no program has to compare it again. The entry of an object without
//! a build-id gets a time that spares programs the comparison in this boot.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use sopin_core::sys::FileSystem;
use sopin_inspect::memory::FileBytes;
use sopin_inspect::{descriptors, image};
use sopin_store::{Freshness, Identity, Omissions, OriginFile, Version, equals_origin, note_compared};

use super::entry::EntryDirectory;

/// Flags for a file that is only read.
const TO_READ: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// The result of a comparison.
#[derive(Debug, PartialEq, Eq)]
pub enum Compared {
    /// It cannot be compared: the origin is not that version, or may not be read.
    Not,
    /// All bytes are the same.
    Equal,
    /// The bytes differ, or cannot be read, for this reason.
    Different(String),
}

/// Compares an entry with its origin. If they are equal and `notes` is set, marks the entry as
/// compared.
pub fn compare(entry: &EntryDirectory, notes: bool) -> Compared {
    let (Some((name, _)), Some(origin), Some(Version { identity, .. }), Freshness::Current) =
        (&entry.copy, &entry.origin, entry.version, entry.freshness)
    else {
        return Compared::Not;
    };
    let copy = match open_copy(entry, name) {
        Ok(copy) => copy,
        // A program that made room has removed it meanwhile.
        Err(Errno::NOENT) => return Compared::Not,
        Err(error) => return Compared::Different(format!("it cannot be opened: {error}")),
    };
    // A user who may not read the origin cannot compare it.
    let Ok(file) = rustix::fs::open(origin, TO_READ, Mode::empty()) else { return Compared::Not };
    if is_equal(identity, &copy, origin.as_os_str(), &file) == Some(true) {
        if notes && let Ok(copy) = descriptors::for_core(&copy, OFlags::RDONLY | OFlags::NOATIME) {
            let _ = note_compared(&copy, has_build_id(file));
        }
        return Compared::Equal;
    }
    let difference = first_difference(copy, &file, identity.size);
    let file = File::from(file);
    if descriptors::identity_of(&file) != Ok(identity) {
        // If the file was rewritten during the comparison, the result means nothing.
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

/// Opens a copy. This must not count as a use, so the access time stays the same if this is the
/// file's owner.
fn open_copy(entry: &EntryDirectory, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let open = |flags| rustix::fs::openat(entry.directory()?, name, flags, Mode::empty());
    match open(TO_READ | OFlags::NOATIME) {
        Err(Errno::PERM) => open(TO_READ),
        result => result,
    }
}

/// Returns whether processes find a build-id in the object of a file.
fn has_build_id(file: OwnedFd) -> bool {
    let file = FileBytes::from(file);
    image::read(&file, 0).is_ok_and(|(_, headers)| headers.show_build_id_in(&file))
}

/// Compares a copy with a file as the library does. `None` if that fails.
fn is_equal(identity: Identity, copy: &OwnedFd, path: &OsStr, file: &OwnedFd) -> Option<bool> {
    let copy = descriptors::for_core(copy, OFlags::RDONLY | OFlags::NOATIME)
        .or_else(|_| descriptors::for_core(copy, OFlags::RDONLY))
        .ok()?;
    let file = &descriptors::for_core(file, OFlags::RDONLY).ok()?;
    let (path, file_system) = (&CString::new(path.as_bytes()).ok()?, &FileSystem::of(file).ok()?);
    equals_origin(&copy, &OriginFile { file, path, identity, has_own_numbers: true, file_system }).ok()
}

/// Returns the offset of the first byte that differs, or of the end of the shorter file.
fn first_difference(copy: OwnedFd, origin: &OwnedFd, size: u64) -> io::Result<Option<u64>> {
    let omissions = {
        let open =
            |file| descriptors::for_core(file, OFlags::RDONLY).map_err(|errno| io::Error::from_raw_os_error(errno.0));
        Omissions::of_entry(&open(&copy)?, &open(origin)?, size)
    };
    let (copy, origin) = (File::from(copy), File::from(origin.try_clone()?));
    let (mut ours, mut theirs) = (vec![0; 1 << 18], vec![0; 1 << 18]);
    let mut offset = 0;
    loop {
        let next = omissions.next_copied(offset);
        offset = next.start;
        let room = usize::try_from(next.end - next.start).unwrap_or(usize::MAX).min(ours.len());
        let [len, filled] =
            [read_at(&copy, &mut ours[..room], offset)?, read_at(&origin, &mut theirs[..room], offset)?];
        omissions.apply(&mut theirs[..filled], offset);
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

/// Fills `buffer` as far as the file goes. Returns the number of bytes.
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

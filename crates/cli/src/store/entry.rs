//! The entries of a store. This module opens everything relative to the store's directory and
//! without following links, and then checks its status.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use rustix::io::Errno;
use sopin_core::sys;
use sopin_inspect::descriptors;
use sopin_store::{DEBUG, Freshness, LINK, Origin, Version, is_own_entry, says_on_disk};

use super::open_store::{OpenStore, names};

/// Flags for a directory that is listed.
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A directory of a key, and the copy in it.
pub struct EntryDirectory {
    /// Its name.
    pub key: OsString,
    /// The version that the key names; `None` for an entry that one process uses alone.
    pub version: Option<Version>,
    /// The directory; `None` in the list of [`all`], which would need a descriptor for each entry.
    directory: Option<OwnedFd>,
    /// What was found in the open copy before the directory was closed.
    details: Option<Details>,
    /// The names in the directory, each with what `fstatat(2)` says of it.
    contents: Vec<(OsString, Stat)>,
    /// The copy: its name and its `stat`. `None` if there is no regular file, or several.
    pub copy: Option<(OsString, Stat)>,
    /// The path of its origin, if that is recorded.
    pub origin: Option<PathBuf>,
    /// Whether the origin still is that version.
    pub freshness: Freshness,
}

/// What can only be determined from an open copy.
#[derive(Clone, Copy, Default)]
pub struct Details {
    /// Of the bytes on disk, those that other files share; `None` where the file system does
    /// not report that.
    pub shared: Option<u64>,
    /// Whether it has fs-verity.
    pub has_verity: bool,
}

impl EntryDirectory {
    /// Reads the entry of this name; `None` if it is not the name of one.
    ///
    /// # Errors
    /// Those of the file system: `ENOTDIR` if something else took its place,
    /// `ENOENT` if it was removed meanwhile.
    pub fn read(store: &OpenStore, key: &OsStr) -> rustix::io::Result<Option<Self>> {
        let version = Version::parse(key.as_bytes());
        if !is_entry(key) {
            return Ok(None);
        }
        let directory = rustix::fs::openat(&store.directory, key, DIRECTORY, Mode::empty())?;
        let mut contents = Vec::new();
        for name in names(&directory)? {
            match rustix::fs::statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(status) => contents.push((name, status)),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        }
        let mut copies = contents.iter().filter(|(_, status)| is_regular(status));
        let copy = copies.next().filter(|_| copies.next().is_none()).cloned();
        let link = rustix::fs::readlinkat(&directory, LINK, Vec::new()).unwrap_or_default();
        let origin = Origin::parse(&link);
        let freshness =
            origin.zip(version).map_or(Freshness::Unknown, |(origin, version)| origin.freshness(&version.identity));
        let origin = origin.map(|origin| PathBuf::from(OsStr::from_bytes(origin.path.to_bytes())));
        let directory = Some(directory);
        Ok(Some(Self { key: key.to_owned(), version, directory, details: None, contents, copy, origin, freshness }))
    }

    /// Returns the names in its directory, each with what `fstatat(2)` says of it.
    pub fn contents(&self) -> impl Iterator<Item = (&OsStr, &Stat)> {
        self.contents.iter().map(|(name, status)| (name.as_os_str(), status))
    }

    /// Returns the word for its state, in tables and JSON.
    pub fn state(&self) -> &'static str {
        if self.version.is_none() { "own" } else { word(self.freshness) }
    }

    /// Returns when it was last used, in seconds since the epoch.
    pub fn last_use(&self) -> Option<i64> {
        self.copy.as_ref().map(|(_, status)| status.st_atime)
    }

    /// Returns the size of the copy in bytes.
    pub fn size(&self) -> u64 {
        self.copy.as_ref().map_or(0, |(_, status)| status.st_size.cast_unsigned())
    }

    /// Returns the number of bytes that the copy takes on disk, including those that it shares.
    pub fn allocated(&self) -> u64 {
        self.copy.as_ref().map_or(0, |(_, status)| status.st_blocks.cast_unsigned() * 512)
    }

    /// Returns whether it contains something that an earlier reading found in it too, other
    /// than the links that a program makes with a copy.
    pub fn still_contains_some_of(&self, earlier: &Self) -> bool {
        let version = |status: &Stat| (status.st_ino, status.st_ctime, status.st_ctime_nsec);
        let is_link = |name: &OsStr| [LINK, DEBUG].iter().any(|link| name.as_bytes() == link.to_bytes());
        self.contents.iter().filter(|(name, _)| !is_link(name)).any(|(name, status)| {
            earlier.contents.iter().any(|(other, before)| other == name && version(before) == version(status))
        })
    }

    /// Returns the open directory.
    ///
    /// # Errors
    /// `EBADF` if the entry is one of [`all`].
    pub fn directory(&self) -> rustix::io::Result<&OwnedFd> {
        self.directory.as_ref().ok_or(Errno::BADF)
    }

    /// Returns the entry with its details, and without its descriptor.
    fn closed(self) -> Self {
        Self { details: Some(self.details()), directory: None, ..self }
    }

    /// Opens the copy and returns the details.
    pub fn details(&self) -> Details {
        if let Some(details) = self.details {
            return details;
        }
        let open = |(name, _): &(OsString, Stat)| {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = rustix::fs::openat(self.directory().ok()?, name, flags, Mode::empty()).ok()?;
            descriptors::for_core(&file, OFlags::RDONLY).ok()
        };
        self.copy.as_ref().and_then(open).map_or(Details::default(), |file| Details {
            shared: sys::shared_bytes(file.raw()).ok(),
            has_verity: sys::has_verity(&file),
        })
    }

    /// Returns whether the copy is known to be on the disk and to have a build-id: then programs
    /// believe it after a reboot without comparing it.
    pub fn is_on_disk(&self) -> bool {
        self.copy.as_ref().is_some_and(|(_, status)| {
            let modified = (status.st_mtime, i64::try_from(status.st_mtime_nsec).unwrap_or(-1));
            says_on_disk(status.st_ino, modified)
        })
    }

    /// Returns its title for people: the path of its origin, or else its name.
    pub fn title(&self) -> String {
        self.origin.as_ref().map_or_else(|| self.key.display().to_string(), |origin| origin.display().to_string())
    }
}

/// Returns whether a name in a store names an entry: by a key, or as one that a process uses alone.
pub fn is_entry(name: &OsStr) -> bool {
    Version::parse(name.as_bytes()).is_some() || is_own_entry(name.as_bytes())
}

/// Returns all entries of a store. Entries that cannot be read are left out; `verify` reports
/// them.
///
/// # Errors
/// When the store cannot be listed.
pub fn all(store: &OpenStore) -> rustix::io::Result<Vec<EntryDirectory>> {
    let names = names(&store.directory)?;
    Ok(names
        .iter()
        .filter_map(|key| EntryDirectory::read(store, key).ok().flatten().map(EntryDirectory::closed))
        .collect())
}

/// Returns whether it is a regular file.
pub fn is_regular(status: &Stat) -> bool {
    rustix::fs::FileType::from_raw_mode(status.st_mode).is_file()
}

/// Returns the word for a freshness.
pub fn word(freshness: Freshness) -> &'static str {
    match freshness {
        Freshness::Current => "current",
        Freshness::Superseded => "superseded",
        Freshness::Gone => "gone",
        Freshness::Unknown => "unknown",
    }
}

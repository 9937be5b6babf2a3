//! The store: immutable copies of object files, shared by every process of
//! the user or, in the system's store, by every process of the machine.
//!
//! ```text
//! <store>/                      0700, the user's; the system's: 0755, root's
//!   <key>/                      the same: one version of one file, see `name`
//!     libfoo.so                 0444: the copy, complete or not there at all; its
//!                               modification time says something, see `mark`
//!     .source -> <its directories>/usr/lib/libfoo.so, see `origin`
//!     .debug -> /usr/lib/.debug where debuggers look, see `debug_link`
//!   own-<thread>-<time>/        the same for one process alone, see `own`
//!   .looked                     when unneeded entries were last looked for
//! ```
//!
//! An entry is written to a file without a name, compared with the source's
//! identity once more, and only then linked: killing the writer at any instant
//! leaves nothing. Processes that fill the store at once do not wait for each
//! other; one of them links first and the others use its entry. Entries are
//! never modified, only unlinked (see `clean`).
//!
//! Whoever maps an entry holds a shared `flock(2)` on it through that mapping,
//! for as long as the mapping lives: that tells which entries are in use.
//!
//! Nothing here follows a symbolic link or trusts a name: every directory and
//! entry is opened and then asked what it is. What is believed, and why it may be:
//!
//! | is believed | because |
//! |---|---|
//! | the directory | only its owner and root can change where its path leads (`proven_path`), and its owner is root or the user whose rights the process has, no more and no less ([`crate::credentials`]) |
//! | that an entry is this version of the file | device, inode, size and times are the same, on a file system whose kernel moves them with every change, and they are not an image builder's; elsewhere the bytes are compared with what is mapped |
//! | that it is the object's | it has the build-id that is in memory |
//! | its bytes | it was written in this boot, or is known to be on the disk (`mark`); else they are compared with the file's |

use core::ffi::{CStr, c_int};
use core::ops::ControlFlow;

use crate::cause::{Cause, Operation};
use crate::credentials::User;
use crate::object::file_name;
use crate::pages::PageVec;
use crate::sys::{self, Errno, Fd, FileSystem};

mod clean;
mod copy;
mod debug_link;
mod mark;
pub(crate) mod name;
mod names;
mod origin;
mod own;
mod places;
mod proof;
mod proven_path;
mod settled;

pub use clean::{ABANDONED_SECONDS, Allowance, LOOKED, TEMPORARY, remove_entry, remove_unless_in_use};
use copy::Copy;
pub use copy::equals_origin;
pub use debug_link::DEBUG;
pub use mark::{note_on_disk, says_on_disk};
pub use name::{Identity, Version};
pub use origin::{Fate, LINK, Origin};
pub use own::is_name as is_own_entry;
use places::Missing;
pub use places::{Known, Places, SYSTEM};
use proof::Examined;
pub use proof::{Entry, Mapped, Proof};
pub use settled::{NOT_SETTLED, is_unsettled};

/// Seconds after which the last use of an entry is noted again.
const TOUCH_SECONDS: i64 = 30 * 60;

/// How a directory is opened to look at what is in it, and only to pass through.
const DIRECTORY_TO_LIST: c_int = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
const DIRECTORY_TO_PASS: c_int = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;

/// An open store.
pub struct Store {
    directory: Fd,
    /// Whose it is: root's is the system's too.
    owner: User,
    is_system: bool,
}

/// The file to be copied, already open.
#[derive(Clone, Copy)]
pub struct OriginFile<'a> {
    /// The file.
    pub file: &'a Fd,
    /// Its absolute path.
    pub path: &'a CStr,
    /// What it was when it was found to be the file that is mapped.
    pub identity: Identity,
    /// Its device and inode number are no other file's.
    pub has_own_numbers: bool,
    /// Where it is.
    pub file_system: &'a FileSystem,
}

impl OriginFile<'_> {
    /// The part of the path behind the last slash.
    fn file_name(&self) -> &CStr {
        CStr::from_bytes_with_nul(file_name(self.path.to_bytes_with_nul())).unwrap_or_default()
    }
}

/// The result of [`Store::fill`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// The copy was not there yet.
    Added,
    /// It was.
    WasThere,
}

/// What is found under a key.
enum Found {
    /// A complete copy, open and locked, and what `fstat(2)` says of it.
    Entry(Fd, libc::stat),
    /// Nothing yet.
    Nothing,
    /// Something that is not what we put there.
    Changed(Cause),
}

impl Store {
    /// Opens the user's store: the first usable of `places`, or the one `known`.
    pub fn open(places: &Places, user: User, known: &mut Known) -> Result<Self, Cause> {
        Ok(Self { directory: places.open(user, known)?, owner: user, is_system: false })
    }

    /// Opens the system's store; `None` if there is none.
    pub fn open_system(known: &mut Known) -> Result<Option<Self>, Cause> {
        let directory = places::open_system(known)?;
        Ok(directory.map(|directory| Self { directory, owner: User::ROOT, is_system: true }))
    }

    /// Opens every existing store of `user` among `places` and hands it over with its
    /// path, for the commands that list, verify and prune stores.
    pub fn for_each_existing(places: &Places, user: User, mut each: impl FnMut(&CStr, Result<Self, Cause>)) {
        let _ = places.try_each(user, Missing::StaysMissing, |_, path, directory| {
            each(path, directory.map(|directory| Self { directory, owner: user, is_system: false }));
            ControlFlow::Continue(())
        });
    }

    /// The store's directory.
    pub fn directory(&self) -> &Fd {
        &self.directory
    }

    /// Whether it is the system's.
    pub fn is_system(&self) -> bool {
        self.is_system
    }

    /// The user that everything in it belongs to.
    pub fn owner(&self) -> User {
        self.owner
    }

    /// The copy of `origin`, open for reading, if the store has it and it may be
    /// mapped in place of what is `mapped`. `changed` is told why it may not.
    pub fn find(
        &self,
        origin: &OriginFile<'_>,
        mapped: &impl Mapped,
        changed: impl FnOnce(Cause),
    ) -> Result<Option<Entry>, Cause> {
        let key = name::Key::new(&origin.identity, origin.file_name());
        let wrong = match self.look_up(key.as_c_str(), origin.file_name(), &origin.identity)? {
            Found::Entry(file, status) => match proof::examine(&file, &status, origin, mapped, !self.is_system)? {
                Examined::Right(proof) => return Ok(Some(Entry { file, proof })),
                // It is the file's, and that is not what this process has mapped.
                Examined::NotMapped(cause) if !self.is_system => return Err(cause),
                Examined::NotMapped(cause) | Examined::Damaged(cause) => cause,
            },
            Found::Nothing => return Ok(None),
            Found::Changed(cause) => cause,
        };
        changed(wrong);
        if !self.is_system {
            clean::remove_entry(&self.directory, key.as_c_str());
        }
        Ok(None)
    }

    /// The copy of `origin`, open for reading; made if it is not there, by way of
    /// `buffer`, which gets its size then and is worth keeping for the next one.
    /// `changed` is told about entries that are not what was put there.
    pub fn entry(
        &self,
        origin: OriginFile<'_>,
        mapped: &impl Mapped,
        buffer: &mut PageVec<u8>,
        changed: impl FnOnce(Cause),
    ) -> Result<Entry, Cause> {
        if let Some(entry) = self.find(&origin, mapped, changed)? {
            return Ok(entry);
        }
        self.add(&origin, mapped, buffer)?;
        let mut wrong = Cause::words(Operation::AddToStore, "the entry was removed again at once");
        self.find(&origin, mapped, |cause| wrong = cause)?.ok_or(wrong)
    }

    fn look_up(&self, key: &CStr, file_name: &CStr, identity: &Identity) -> Result<Found, Cause> {
        let directory = match sys::openat(&self.directory, key, DIRECTORY_TO_PASS, 0) {
            Ok(directory) => directory,
            Err(Errno(libc::ENOENT)) => return Ok(Found::Nothing),
            Err(errno @ Errno(libc::ENOTDIR | libc::ELOOP)) => return Ok(changed(Operation::OpenStoreEntry, errno)),
            Err(errno) => return Err(Cause::call(Operation::OpenStoreEntry, errno)),
        };
        if !places::is_private(&directory, self.owner.id()) {
            return Ok(Found::Changed(Cause::words(Operation::UseStoreEntry, "others can write to its directory")));
        }
        let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = match sys::openat(&directory, file_name, flags, 0) {
            Ok(file) => file,
            Err(Errno(libc::ENOENT)) => return Ok(Found::Nothing),
            Err(errno @ Errno(libc::ELOOP | libc::EACCES | libc::ENXIO)) => {
                return Ok(changed(Operation::OpenStoreEntry, errno));
            }
            Err(errno) => return Err(Cause::call(Operation::OpenStoreEntry, errno)),
        };
        // A shared lock marks the entry as in use. If another process holds an exclusive
        // one, to remove the entry or to hinder others, the entry is used all the same:
        // removed while it is mapped, it keeps its bytes. In the system's store every
        // user could take a lock, so locks mean nothing there.
        if !self.is_system {
            let _ = sys::flock(&file, libc::LOCK_SH | libc::LOCK_NB);
        }
        let status = sys::fstat(file.raw()).map_err(Operation::FstatOfStoreEntry.failed())?;
        if status.st_nlink == 0 {
            return Ok(Found::Nothing);
        }
        let is_intact = status.st_mode == libc::S_IFREG | 0o444
            && status.st_uid == self.owner.id()
            && status.st_size.cast_unsigned() == identity.size;
        if !is_intact {
            return Ok(Found::Changed(Cause::words(Operation::UseStoreEntry, "its owner, mode or size has changed")));
        }
        // The kernel does not keep access times everywhere.
        if !self.is_system && clean::is_out_of_date(status.st_atime, TOUCH_SECONDS) {
            let _ = sys::touch(&file);
        }
        Ok(Found::Entry(file, status))
    }

    /// Makes and opens the system's store, for [`Store::fill`].
    pub fn create_system() -> Result<Self, Cause> {
        let directory = places::open_proven(SYSTEM, User::ROOT, 1)?;
        sys::fchmod(&directory, 0o755).map_err(Operation::Fchmod.failed())?;
        Ok(Self { directory, owner: User::ROOT, is_system: true })
    }

    /// Puts a copy of `origin` into the system's store, and on the disk. What is
    /// readable there is readable to everybody: that `origin` is, too, is for the
    /// caller to see to.
    pub fn fill(&self, origin: &OriginFile<'_>, buffer: &mut PageVec<u8>) -> Result<Filled, Cause> {
        let key = name::Key::new(&origin.identity, origin.file_name());
        match self.look_up(key.as_c_str(), origin.file_name(), &origin.identity)? {
            Found::Entry(entry, _) if copy::equals_origin(&entry, origin)? => {
                sys::fsync(&entry).and_then(|()| note_on_disk(&entry)).map_err(Operation::Fsync.failed())?;
                return Ok(Filled::WasThere);
            }
            Found::Nothing => {}
            Found::Entry(..) | Found::Changed(_) => clean::remove_entry(&self.directory, key.as_c_str()),
        }
        settled::check(origin)?;
        let link = origin::record(origin.path, origin.file);
        let link = link.as_ref().and_then(|link| CStr::from_bytes_with_nul(link).ok());
        clean::replace_older_versions(&self.directory, &key, link);
        let mut copy = Copy::of(origin, &self.directory, buffer)?;
        copy.secure()?;
        self.publish(&copy, origin, &key, link)?;
        Ok(Filled::Added)
    }

    /// Writes the names in the store to the disk.
    pub fn synchronise(&self) -> Result<(), Cause> {
        sys::fsync(&self.directory).map_err(Operation::Fsync.failed())
    }

    /// Copies `origin` and gives the copy its name.
    fn add(&self, origin: &OriginFile<'_>, mapped: &impl Mapped, buffer: &mut PageVec<u8>) -> Result<(), Cause> {
        settled::check(origin)?;
        self.check_open(origin)?;
        let key = name::Key::new(&origin.identity, origin.file_name());
        let link = origin::record(origin.path, origin.file);
        let link = link.as_ref().and_then(|link| CStr::from_bytes_with_nul(link).ok());
        clean::make_room(&self.directory, &key, link);
        let copy = Copy::of(origin, &self.directory, buffer)?;
        if !mapped.equals(copy.file()).map_err(Operation::CompareCopy.failed())? {
            return Err(Cause::words(Operation::CopyToStore, "the file is not what is mapped"));
        }
        self.publish(&copy, origin, &key, link)
    }

    /// Checks that every process that may read the store may read the file too.
    fn check_open(&self, origin: &OriginFile<'_>) -> Result<(), Cause> {
        if origin::is_open_to(self.owner, origin.path, origin.file) {
            return Ok(());
        }
        Err(Cause::words(Operation::AddToStore, "other processes of the user may not be allowed to read the file"))
    }

    /// Gives a copy its name under `key`.
    fn publish(
        &self,
        copy: &Copy<'_>,
        origin: &OriginFile<'_>,
        key: &name::Key,
        link: Option<&CStr>,
    ) -> Result<(), Cause> {
        let directory = self.entry_directory(key.as_c_str())?;
        self.publish_in(&directory, copy, origin, link)
    }

    /// Gives a copy its name in the `directory` of an entry.
    fn publish_in(
        &self,
        directory: &Fd,
        copy: &Copy<'_>,
        origin: &OriginFile<'_>,
        link: Option<&CStr>,
    ) -> Result<(), Cause> {
        if let Some(link) = link {
            // Another process that adds the same entry may have been first.
            let _ = sys::symlinkat(link, directory, origin::LINK);
        }
        debug_link::make(directory, copy.file(), origin.path);
        match copy.link(directory, origin.file_name()) {
            Ok(()) | Err(Errno(libc::EEXIST)) => {}
            Err(errno) => return Err(Cause::call(Operation::Linkat, errno)),
        }
        if self.is_system {
            sys::fsync(directory).map_err(Operation::Fsync.failed())?;
        }
        Ok(())
    }

    fn entry_directory(&self, key: &CStr) -> Result<Fd, Cause> {
        match sys::mkdirat(&self.directory, key, 0o700) {
            Ok(()) | Err(Errno(libc::EEXIST)) => {}
            Err(errno) => return Err(Cause::call(Operation::Mkdirat, errno)),
        }
        let flags = if self.is_system { DIRECTORY_TO_LIST } else { DIRECTORY_TO_PASS };
        let directory = sys::openat(&self.directory, key, flags, 0).map_err(Operation::Openat.failed())?;
        if self.is_system {
            sys::fchmod(&directory, 0o755).map_err(Operation::Fchmod.failed())?;
        }
        Ok(directory)
    }
}

fn changed(operation: Operation, errno: Errno) -> Found {
    Found::Changed(Cause::call(operation, errno))
}

#[cfg(test)]
mod tests;

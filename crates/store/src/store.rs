//! Finds, makes and fills entries of one store.

use core::ffi::CStr;
use core::ops::ControlFlow;

use sopin_core::build_id::BuildId;
use sopin_core::cause::{Cause, Operation};
use sopin_core::credentials::User;
use sopin_core::line::Line;
use sopin_core::object::file_name;
use sopin_core::pages::PageVec;
use sopin_core::search_dirs::SearchDirs;
use sopin_core::sys::gate::NOT_MADE;
use sopin_core::sys::{self, Errno, Fd};

use crate::copy::{self, UnnamedCopy};
use crate::name::{Identity, Key};
use crate::origin_file::OriginFile;
use crate::places::{Known, Missing, SYSTEM};
use crate::proof::{CacheEntry, Examined, MappedRanges, Proof};
use crate::removal::remove_entry;
use crate::turn::Turn;
use crate::{clean, debug_link, mark, older_versions, origin, own, places, proof, settled};
use sopin_core::listing::{DIRECTORY_TO_LIST, DIRECTORY_TO_PASS};

/// Seconds after which the last use of an entry is recorded anew.
const TOUCH_SECONDS: i64 = 30 * 60;

/// The longest path of a copy in a store, in bytes with its NUL: a key of at most 138 bytes, a
/// slash, and a file name (`NAME_MAX`).
const MAX_ENTRY_PATH: usize = 138 + 1 + 255 + 1;

/// An open store.
pub struct Store {
    directory: Fd,
    /// The owner of the store. The system's store belongs to root too.
    owner: User,
    is_system: bool,
}

/// The result of [`Store::fill`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// The store did not have the copy and has it now.
    Added,
    /// The store had the copy already.
    WasThere,
}

/// What a store has under a key.
enum Lookup {
    /// A complete copy, open and locked, and what `fstat(2)` says of it.
    Entry(Fd, libc::stat),
    /// No entry.
    Nothing,
    /// A file or directory that is not as the library has made it.
    Changed(Cause),
}

impl Store {
    /// Opens the user's store: the one that is `known`, or the first usable one of `dirs`.
    pub fn open(dirs: &SearchDirs, user: User, known: &mut Known) -> Result<Self, Cause> {
        Ok(Self { directory: places::open(dirs, user, known)?, owner: user, is_system: false })
    }

    /// Opens the system's store; `None` if there is none.
    pub fn open_system(known: &mut Known) -> Result<Option<Self>, Cause> {
        let directory = places::open_system(known)?;
        Ok(directory.map(|directory| Self { directory, owner: User::ROOT, is_system: true }))
    }

    /// Opens every existing store of `user` among `dirs` and passes it with its path to `each`,
    /// for the commands that list, verify and prune stores.
    pub fn for_each_existing(dirs: &SearchDirs, user: User, mut each: impl FnMut(&CStr, Result<Self, Cause>)) {
        let _ = places::try_each(dirs, user, Missing::StaysMissing, |_, path, directory| {
            each(path, directory.map(|directory| Self { directory, owner: user, is_system: false }));
            ControlFlow::Continue(())
        });
    }

    /// Returns the store's directory.
    pub fn directory(&self) -> &Fd {
        &self.directory
    }

    /// Returns whether it is the system's.
    pub fn is_system(&self) -> bool {
        self.is_system
    }

    /// Returns the user who owns all files in it.
    pub fn owner(&self) -> User {
        self.owner
    }

    /// Returns the copy of `origin`, open for reading, if the store has it and it may be mapped
    /// in place of what is `mapped`. `changed` gets the reason why it may not.
    pub fn find(
        &self,
        origin: &OriginFile<'_>,
        mapped: &impl MappedRanges,
        changed: impl FnOnce(Cause),
    ) -> Result<Option<CacheEntry>, Cause> {
        let key = Key::new(&origin.identity, origin.file_name());
        let wrong = match self.look_up(key.as_c_str(), origin.file_name(), &origin.identity)? {
            Lookup::Entry(file, status) => match proof::examine(&file, &status, origin, mapped, !self.is_system)? {
                Examined::Right(proof) => return Ok(Some(CacheEntry { file, proof })),
                // The entry is right for the file, but this process has mapped another version
                // of the file.
                Examined::NotMapped(cause) if !self.is_system => return Err(cause),
                Examined::NotMapped(cause) | Examined::Damaged(cause) => cause,
            },
            Lookup::Nothing => return Ok(None),
            Lookup::Changed(cause) => cause,
        };
        changed(wrong);
        if !self.is_system {
            remove_entry(&self.directory, key.as_c_str());
        }
        Ok(None)
    }

    /// Returns the copy of `origin`, open for reading, and makes it if the store does not have
    /// it. It copies through `buffer`, which it allocates at the first copy and which the
    /// caller should keep for the next one. `changed` gets the causes for entries that are not
    /// as the library has made them.
    pub fn entry(
        &self,
        origin: OriginFile<'_>,
        mapped: &impl MappedRanges,
        buffer: &mut PageVec<u8>,
        changed: impl FnOnce(Cause),
    ) -> Result<CacheEntry, Cause> {
        if let Some(entry) = self.find(&origin, mapped, changed)? {
            return Ok(entry);
        }
        let turn = Turn::take(&self.directory, origin.identity.size, || {
            let key = Key::new(&origin.identity, origin.file_name());
            matches!(self.look_up(key.as_c_str(), origin.file_name(), &origin.identity), Ok(Lookup::Entry(..)))
        });
        let _kept = turn.keep();
        if turn.has_waited()
            && let Some(entry) = self.find(&origin, mapped, |_| ())?
        {
            return Ok(entry);
        }
        if let Some(entry) = self.add(&origin, mapped, buffer)? {
            return Ok(entry);
        }
        let mut wrong = Cause::words(Operation::AddToStore, "the entry was removed again at once");
        self.find(&origin, mapped, |cause| wrong = cause)?.ok_or(wrong)
    }

    /// Returns a copy of `origin` for this process alone, open for reading, see `own`.
    #[cold]
    #[inline(never)]
    pub fn own_entry(
        &self,
        origin: &OriginFile<'_>,
        mapped: &impl MappedRanges,
        buffer: &mut PageVec<u8>,
    ) -> Result<CacheEntry, Cause> {
        // Every process of the user can read the files in the store.
        self.check_open(origin)?;
        own::clean(&self.directory);
        own::check_room(origin.identity.size)?;
        let copy = UnnamedCopy::of_unsettled(origin, &self.directory, buffer)?;
        own::lock(copy.file())?;
        if !mapped.equals(copy.file()).map_err(Operation::CompareCopy.failed())? {
            return Err(Cause::words(Operation::CopyToStore, "the file is not what is mapped"));
        }
        let directory = own::make_directory(&self.directory)?;
        let link = origin::record(origin.path, origin.file);
        let link = link.as_ref().and_then(|link| CStr::from_bytes_with_nul(link).ok());
        self.publish_in(&directory, &copy, origin, link)?;
        // If the file were mapped through a descriptor that was opened before it had its name,
        // `/proc/PID/maps` would not show the name.
        let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file =
            sys::openat(&directory, origin.file_name(), flags, 0).map_err(Operation::OpenNewStoreEntry.failed())?;
        own::lock(&file)?;
        own::note_added(origin.identity.size);
        Ok(CacheEntry { file, proof: Proof::Ranges })
    }

    /// Returns whether there is an entry for the file at `path` that need not be compared as a
    /// whole before it is used, judging by names and times only.
    pub fn seems_warm(&self, path: &CStr) -> bool {
        let Ok(file_name) = CStr::from_bytes_with_nul(file_name(path.to_bytes_with_nul())) else { return false };
        let entry = sys::stat(path).and_then(|status| {
            let key = Key::new(&Identity::of(&status), file_name);
            let directory = sys::openat(&self.directory, key.as_c_str(), DIRECTORY_TO_PASS, 0)?;
            sys::fstatat(&directory, file_name, libc::AT_SYMLINK_NOFOLLOW)
        });
        entry.is_ok_and(|status| mark::is_believed(&status, BuildId::Same))
    }

    fn look_up(&self, key: &CStr, file_name: &CStr, identity: &Identity) -> Result<Lookup, Cause> {
        let directory = match self.directory_status(key) {
            Ok(status) => status,
            Err(Errno(libc::ENOENT)) => return Ok(Lookup::Nothing),
            Err(errno @ Errno(libc::ENOTDIR | libc::ELOOP)) => return Ok(changed(Operation::OpenStoreEntry, errno)),
            Err(errno) => return Err(Cause::call(Operation::OpenStoreEntry, errno)),
        };
        if directory.st_mode & libc::S_IFMT != libc::S_IFDIR {
            return Ok(changed(Operation::OpenStoreEntry, Errno(libc::ENOTDIR)));
        }
        if !places::is_private_status(&directory, self.owner.id()) {
            return Ok(Lookup::Changed(Cause::words(Operation::UseStoreEntry, "others can write to its directory")));
        }
        // The directory is passed by its name and not by a descriptor, which would take two calls
        // more. Between the two looks at this name it leads to another file only if somebody renames
        // files in the store. The store was proven to be a directory that nobody but its owner and
        // root can write to, and they can put every file there anyway.
        let mut path = Line::<MAX_ENTRY_PATH>::new();
        let parts = [key.to_bytes(), b"/", file_name.to_bytes(), b"\0"];
        if !parts.iter().all(|part| path.append(part)) {
            return Err(Cause::call(Operation::OpenStoreEntry, Errno(libc::ENAMETOOLONG)));
        }
        let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = match sys::openat(&self.directory, path.as_c_str(), flags, 0) {
            Ok(file) => file,
            Err(Errno(libc::ENOENT)) => return Ok(Lookup::Nothing),
            Err(errno @ Errno(libc::ELOOP | libc::EACCES | libc::ENXIO)) => {
                return Ok(changed(Operation::OpenStoreEntry, errno));
            }
            Err(errno) => return Err(Cause::call(Operation::OpenStoreEntry, errno)),
        };
        // A shared lock marks the entry as in use. If another process holds an exclusive one,
        // to remove the entry or to hinder others, the entry is used all the same: an entry
        // that is removed while it is mapped keeps its bytes. In the system's store every user
        // could take a lock, so locks mean nothing there.
        if !self.is_system {
            let _ = sys::flock(&file, libc::LOCK_SH | libc::LOCK_NB);
        }
        let status = sys::fstat(file.raw()).map_err(Operation::FstatOfStoreEntry.failed())?;
        if status.st_nlink == 0 {
            return Ok(Lookup::Nothing);
        }
        let is_intact = status.st_mode == libc::S_IFREG | 0o444
            && status.st_uid == self.owner.id()
            && status.st_size.cast_unsigned() == identity.size;
        if !is_intact {
            return Ok(Lookup::Changed(Cause::words(Operation::UseStoreEntry, "its owner, mode or size has changed")));
        }
        // Some mounts do not record access times.
        if !self.is_system && clean::is_out_of_date(status.st_atime, TOUCH_SECONDS) {
            let _ = sys::touch(&file);
        }
        Ok(Lookup::Entry(file, status))
    }

    /// Returns what `stat(2)` says of an entry's directory, or of what is in its place.
    fn directory_status(&self, key: &CStr) -> sys::Result<libc::stat> {
        match sys::fstatat(&self.directory, key, libc::AT_SYMLINK_NOFOLLOW) {
            // The loader makes the calls that are made here instead whenever it loads an object.
            Err(NOT_MADE) => {
                let directory = sys::openat(&self.directory, key, DIRECTORY_TO_PASS, 0)?;
                sys::fstat(directory.raw())
            }
            status => status,
        }
    }

    /// Makes and opens the system's store, for [`Store::fill`].
    pub fn create_system() -> Result<Self, Cause> {
        let directory = places::open_proven(SYSTEM, User::ROOT, 1)?;
        sys::fchmod(&directory, 0o755).map_err(Operation::Fchmod.failed())?;
        Ok(Self { directory, owner: User::ROOT, is_system: true })
    }

    /// Adds a copy of `origin` to the system's store, and writes it to the disk. Every user can
    /// read the copy, so the caller must check that every user may read `origin`.
    ///
    /// Processes believe the copy of an object without a build-id in this boot only. If the caller is
    /// wrong about the build-id, they compare the copy more often than necessary.
    pub fn fill(&self, origin: &OriginFile<'_>, has_build_id: bool, buffer: &mut PageVec<u8>) -> Result<Filled, Cause> {
        let key = Key::new(&origin.identity, origin.file_name());
        match self.look_up(key.as_c_str(), origin.file_name(), &origin.identity)? {
            Lookup::Entry(entry, _) if copy::equals_origin(&entry, origin)? => {
                let marked = sys::fsync(&entry).and_then(|()| mark::note_compared(&entry, has_build_id));
                marked.map_err(Operation::Fsync.failed())?;
                return Ok(Filled::WasThere);
            }
            Lookup::Nothing => {}
            Lookup::Entry(..) | Lookup::Changed(_) => remove_entry(&self.directory, key.as_c_str()),
        }
        settled::check(origin)?;
        let link = origin::record(origin.path, origin.file);
        let link = link.as_ref().and_then(|link| CStr::from_bytes_with_nul(link).ok());
        older_versions::replace(&self.directory, &key, link);
        let mut copy = UnnamedCopy::of(origin, &self.directory, buffer)?;
        copy.secure(has_build_id)?;
        self.publish(&copy, origin, &key, link)?;
        Ok(Filled::Added)
    }

    /// Writes the names in the store to the disk.
    pub fn synchronise(&self) -> Result<(), Cause> {
        sys::fsync(&self.directory).map_err(Operation::Fsync.failed())
    }

    /// Copies `origin`, gives the copy its name and opens it. `None` if the entry must be examined first:
    /// another process has given the name to its copy, or not all of it is proven.
    #[cold]
    #[inline(never)]
    fn add(
        &self,
        origin: &OriginFile<'_>,
        mapped: &impl MappedRanges,
        buffer: &mut PageVec<u8>,
    ) -> Result<Option<CacheEntry>, Cause> {
        settled::check(origin)?;
        self.check_open(origin)?;
        let key = Key::new(&origin.identity, origin.file_name());
        let link = origin::record(origin.path, origin.file);
        let link = link.as_ref().and_then(|link| CStr::from_bytes_with_nul(link).ok());
        clean::make_room(&self.directory, &key, link);
        let copy = UnnamedCopy::of(origin, &self.directory, buffer)?;
        let proof = proof::of_new_copy(copy.file(), origin, mapped).map_err(Operation::CompareCopy.failed())?;
        let proof = proof.ok_or(Cause::words(Operation::CopyToStore, "the file is not what is mapped"))?;
        let directory = self.publish(&copy, origin, &key, link)?;
        if proof != Proof::Whole {
            return Ok(None);
        }
        Ok(reopen(&directory, &copy, origin).map(|file| CacheEntry { file, proof }))
    }

    /// Checks that every process that may read the store may read the file too.
    fn check_open(&self, origin: &OriginFile<'_>) -> Result<(), Cause> {
        if origin::is_open_to(self.owner, origin.path, origin.file) {
            return Ok(());
        }
        Err(Cause::words(Operation::AddToStore, "other processes of the user may not be allowed to read the file"))
    }

    /// Gives a copy its name under `key`. Returns the directory of the entry.
    fn publish(
        &self,
        copy: &UnnamedCopy<'_>,
        origin: &OriginFile<'_>,
        key: &Key,
        link: Option<&CStr>,
    ) -> Result<Fd, Cause> {
        let directory = self.entry_directory(key.as_c_str())?;
        self.publish_in(&directory, copy, origin, link)?;
        Ok(directory)
    }

    /// Gives a copy its name in the `directory` of an entry.
    fn publish_in(
        &self,
        directory: &Fd,
        copy: &UnnamedCopy<'_>,
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

/// Opens a copy that has just got its name in the `directory` of an entry, and locks it as
/// `Store::look_up` does. If the file were mapped through the descriptor by which it was written,
/// `/proc/PID/maps` would not show the name.
fn reopen(directory: &Fd, copy: &UnnamedCopy<'_>, origin: &OriginFile<'_>) -> Option<Fd> {
    let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = sys::openat(directory, origin.file_name(), flags, 0).ok()?;
    let _ = sys::flock(&file, libc::LOCK_SH | libc::LOCK_NB);
    let status = sys::fstat(file.raw()).ok()?;
    (status.st_nlink != 0 && copy.has_status(&status)).then_some(file)
}

fn changed(operation: Operation, errno: Errno) -> Lookup {
    Lookup::Changed(Cause::call(operation, errno))
}

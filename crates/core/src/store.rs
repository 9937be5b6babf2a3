//! The store: immutable copies of object files, shared by every process of
//! the user.
//!
//! ```text
//! <store>/                      0700, ours
//!   <key>/                      0700: one version of one file, see `name`
//!     libfoo.so                 0444: the copy, complete or not there at all
//!     .source -> <its directories>/usr/lib/libfoo.so, see `origin`
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
//! entry is opened and then asked what it is.

use core::ffi::{CStr, c_int};
use core::ops::ControlFlow;

use crate::cause::Cause;
use crate::line::Line;
use crate::object::file_name;
use crate::pages::PageVec;
use crate::sys::{self, Errno, Fd};

mod clean;
pub(crate) mod name;
mod names;
mod origin;
mod places;

pub use clean::{ABANDONED_SECONDS, Allowance, LOOKED, TEMPORARY, remove_entry, remove_unless_in_use};
pub use name::{Identity, Version};
pub use origin::{Fate, LINK, Origin};
use places::Missing;
pub use places::Places;

/// Seconds that a source must not have changed for before it is copied: a
/// change within the file system's timestamp granularity would not show.
const SETTLING_SECONDS: i64 = 2;
/// Seconds after which the last use of an entry is noted again.
const TOUCH_SECONDS: i64 = 30 * 60;
/// Bytes copied per call: what the kernel maps around a page fault
/// (`fault_around_bytes`, mm/memory.c).
const COPY_STEP: usize = 64 << 10;

/// How a directory is opened to look at what is in it, and only to pass through.
const DIRECTORY_TO_LIST: c_int = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
const DIRECTORY_TO_PASS: c_int = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;

/// An open store directory that only its user can write to.
pub struct Store {
    directory: Fd,
    user: u32,
}

/// The file to be copied, already open.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The file.
    pub file: &'a Fd,
    /// Its absolute path.
    pub path: &'a CStr,
    /// What it was when it was found to be the file that is mapped.
    pub identity: Identity,
}

impl Source<'_> {
    /// The part of the path behind the last slash.
    fn file_name(&self) -> &CStr {
        CStr::from_bytes_with_nul(file_name(self.path.to_bytes_with_nul())).unwrap_or_default()
    }
}

/// What is found under a key.
enum Found {
    /// A complete copy, open and locked.
    Entry(Fd),
    /// Nothing yet.
    Nothing,
    /// Something that is not what we put there.
    Changed(Cause),
}

impl Store {
    /// Opens the store: the first usable of `places`.
    pub fn open(places: &Places) -> Result<Self, Cause> {
        let user = sys::geteuid();
        let directory = places.open(user)?;
        Ok(Self { directory, user })
    }

    /// Opens every store that `places` lead to, for who looks after them, and
    /// hands it over with its path in two parts. Makes none.
    pub fn for_each_existing(places: &Places, mut each: impl FnMut(&CStr, &CStr, Result<Self, Cause>)) {
        let user = sys::geteuid();
        let _ = places.try_each(user, Missing::StaysMissing, |base, below, directory| {
            each(base, below, directory.map(|directory| Self { directory, user }));
            ControlFlow::Continue(())
        });
    }

    /// The store's directory.
    pub fn directory(&self) -> &Fd {
        &self.directory
    }

    /// The copy of `source`, open for reading; made if it is not there, by way of
    /// `buffer`, which gets its size then and is worth keeping for the next one.
    /// `changed` is told about entries that somebody has tampered with.
    pub fn entry(
        &self,
        source: Source<'_>,
        buffer: &mut PageVec<u8>,
        mut changed: impl FnMut(Cause),
    ) -> Result<Fd, Cause> {
        let (key, file_name) = (name::Key::new(&source.identity, source.file_name()), source.file_name());
        match self.find(key.as_c_str(), file_name, &source.identity)? {
            Found::Entry(file) => return Ok(file),
            Found::Nothing => {}
            Found::Changed(cause) => {
                changed(cause);
                clean::remove_entry(&self.directory, key.as_c_str());
            }
        }
        self.add(source, buffer, &key)?;
        match self.find(key.as_c_str(), file_name, &source.identity)? {
            Found::Entry(file) => Ok(file),
            Found::Nothing => Err(Cause::words("add to the store", "the entry was removed again at once")),
            Found::Changed(cause) => Err(cause),
        }
    }

    fn find(&self, key: &CStr, file_name: &CStr, identity: &Identity) -> Result<Found, Cause> {
        let directory = match sys::openat(&self.directory, key, DIRECTORY_TO_PASS, 0) {
            Ok(directory) => directory,
            Err(Errno(libc::ENOENT)) => return Ok(Found::Nothing),
            Err(errno @ Errno(libc::ENOTDIR | libc::ELOOP)) => return Ok(changed("open the store entry", errno)),
            Err(errno) => return Err(Cause::call("open the store entry", errno)),
        };
        if !places::is_private(&directory, self.user) {
            return Ok(Found::Changed(Cause::words("use the store entry", "others can write to its directory")));
        }
        let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = match sys::openat(&directory, file_name, flags, 0) {
            Ok(file) => file,
            Err(Errno(libc::ENOENT)) => return Ok(Found::Nothing),
            Err(errno @ Errno(libc::ELOOP | libc::EACCES | libc::ENXIO)) => {
                return Ok(changed("open the store entry", errno));
            }
            Err(errno) => return Err(Cause::call("open the store entry", errno)),
        };
        // Whoever removes an entry that is not in use locks it exclusively, and
        // then it is gone.
        if sys::flock(&file, libc::LOCK_SH | libc::LOCK_NB) == Err(Errno(libc::EWOULDBLOCK)) {
            return Ok(Found::Nothing);
        }
        let status = sys::fstat(file.raw()).map_err(|errno| Cause::call("fstat of the store entry", errno))?;
        if status.st_nlink == 0 {
            return Ok(Found::Nothing);
        }
        let is_intact = status.st_mode == libc::S_IFREG | 0o444
            && status.st_uid == self.user
            && status.st_size.cast_unsigned() == identity.size;
        if !is_intact {
            return Ok(Found::Changed(Cause::words("use the store entry", "its owner, mode or size has changed")));
        }
        // The kernel does not keep access times everywhere.
        if sys::realtime_seconds() - status.st_atime > TOUCH_SECONDS {
            let _ = sys::touch(&file);
        }
        Ok(Found::Entry(file))
    }

    /// Copies `source` and gives the copy its name under `key`.
    fn add(&self, source: Source<'_>, buffer: &mut PageVec<u8>, key: &name::Key) -> Result<(), Cause> {
        if !source.identity.has_settled(sys::realtime_seconds(), SETTLING_SECONDS) {
            return Err(Cause::words("add to the store", "the file has changed within the last 2 seconds"));
        }
        let origin = origin::record(source.path, source.file);
        let origin = origin.as_ref().and_then(|origin| CStr::from_bytes_with_nul(origin).ok());
        clean::make_room(&self.directory, key, origin);
        let copy = Copy::new(&self.directory)?;
        copy.fill_from(&source, buffer)?;
        let directory = self.entry_directory(key.as_c_str())?;
        if let Some(origin) = origin {
            // Another process that adds the same entry may have been first.
            let _ = sys::symlinkat(origin, &directory, origin::LINK);
        }
        match copy.link(&directory, source.file_name()) {
            Ok(()) | Err(Errno(libc::EEXIST)) => Ok(()),
            Err(errno) => Err(Cause::call("linkat", errno)),
        }
    }

    fn entry_directory(&self, key: &CStr) -> Result<Fd, Cause> {
        make_directory(&self.directory, key).map_err(|errno| Cause::call("mkdirat", errno))?;
        sys::openat(&self.directory, key, DIRECTORY_TO_PASS, 0).map_err(|errno| Cause::call("openat", errno))
    }
}

/// Makes a directory that is ours alone, unless the name is there already.
fn make_directory(parent: &Fd, name: &CStr) -> sys::Result<()> {
    match sys::mkdirat(parent, name, 0o700) {
        Err(Errno(libc::EEXIST)) => Ok(()),
        other => other,
    }
}

fn changed(operation: &'static str, errno: Errno) -> Found {
    Found::Changed(Cause::call(operation, errno))
}

/// A copy that has no name yet.
struct Copy<'a> {
    file: Fd,
    /// Where the file system has no files without a name: the one in the store.
    temporary: Option<(Line<64>, &'a Fd)>,
}

impl<'a> Copy<'a> {
    fn new(store: &'a Fd) -> Result<Self, Cause> {
        let flags = libc::O_TMPFILE | libc::O_RDWR;
        match sys::openat(store, c".", flags, 0o444) {
            Ok(file) => {
                let file = file.above_stderr().map_err(|errno| Cause::call("fcntl", errno))?;
                return Ok(Self { file, temporary: None });
            }
            Err(Errno(libc::EOPNOTSUPP | libc::EISDIR | libc::ENOENT | libc::EINVAL)) => {}
            Err(errno) => return Err(Cause::call("open a new store entry", errno)),
        }
        // Left behind by a process that is killed; `clean` removes it later.
        let (pid, now) = (sys::gettid(), sys::monotonic_ns());
        let name = Line::<64>::format_raw(format_args!("{}{pid}-{now:x}\0", clean::TEMPORARY));
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_RDWR;
        let file = sys::openat(store, name.as_c_str(), flags, 0o444)
            .and_then(Fd::above_stderr)
            .map_err(|errno| Cause::call("open a new store entry", errno))?;
        Ok(Self { file, temporary: Some((name, store)) })
    }

    /// Copies all of `source`, sharing blocks where the file system can, and
    /// makes sure that it is the version that it was.
    fn fill_from(&self, source: &Source<'_>, buffer: &mut PageVec<u8>) -> Result<(), Cause> {
        if sys::clone_file(source.file, &self.file).is_err() {
            self.write(source, buffer).map_err(|errno| Cause::call("copy to the store", errno))?;
        }
        let after = sys::fstat(source.file.raw()).map_err(|errno| Cause::call("fstat", errno))?;
        let copied = sys::fstat(self.file.raw()).map_err(|errno| Cause::call("fstat", errno))?;
        if Identity::of(&after) == source.identity && copied.st_size == after.st_size {
            // The mode asked for at creation is subject to the umask.
            sys::fchmod(&self.file, 0o444).map_err(|errno| Cause::call("fchmod", errno))
        } else {
            Err(Cause::words("copy to the store", "the file has changed meanwhile"))
        }
    }

    /// Writes all bytes of `source`. Where the file system has large folios the
    /// page cache then holds a piece in one, which is mapped at once; those of
    /// `copy_file_range(2)` are single pages. Folios that are larger still Linux
    /// 6.18 maps whole, and counts them as the process's.
    fn write(&self, source: &Source<'_>, buffer: &mut PageVec<u8>) -> sys::Result<()> {
        let size = usize::try_from(source.identity.size).map_err(|_| Errno(libc::EFBIG))?;
        if buffer.len() < COPY_STEP {
            *buffer = PageVec::zeroed(COPY_STEP)?;
        }
        let mut copied = 0;
        while copied < size {
            let read = sys::pread(source.file, buffer, copied as u64)?;
            let mut piece = buffer.get(..read).unwrap_or_default();
            if piece.is_empty() {
                break;
            }
            while !piece.is_empty() {
                let write = || sys::pwrite_from(&self.file, piece.as_ptr().addr(), piece.len(), copied as u64);
                match sys::absorbing(libc::SIGXFSZ, write)? {
                    0 => return Err(Errno(libc::EIO)),
                    // A short count: the next attempt says why.
                    written => {
                        copied += written;
                        piece = piece.get(written..).unwrap_or_default();
                    }
                }
            }
        }
        Ok(())
    }

    fn link(&self, directory: &Fd, file_name: &CStr) -> sys::Result<()> {
        if let Some((name, store)) = &self.temporary {
            return sys::linkat(store, name.as_c_str(), directory, file_name);
        }
        let path = Line::<64>::format_raw(format_args!("/proc/self/fd/{}\0", self.file.raw()));
        sys::linkat(&Fd::CWD, path.as_c_str(), directory, file_name)
    }
}

impl Drop for Copy<'_> {
    fn drop(&mut self) {
        if let Some((name, store)) = &self.temporary {
            let _ = sys::unlinkat(store, name.as_c_str(), 0);
        }
    }
}

#[cfg(test)]
mod tests;

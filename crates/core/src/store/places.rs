//! Where the store lives, and whether a directory may be one.

use core::ffi::CStr;
use core::ops::ControlFlow::{self, Break, Continue};

use crate::cause::Cause;
use crate::line::Line;
use crate::pages::PageVec;
use crate::sys::{self, Errno, Fd, FileSystem};

use super::{DIRECTORY_TO_LIST, make_directory};

/// `ST_NOEXEC` of `statfs(2)`.
const NOEXEC: i64 = 8;

/// File systems whose mapped files can disappear or change by what happens on
/// another machine or in another process: NFS, SMB, CIFS, SMB2, AFS, Ceph, 9P, FUSE.
const REMOTE: [i64; 8] = [0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42, 0x5346_414f, 0x00c3_6400, 0x0102_1997, 0x6573_5546];

/// What is done about a directory that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// It is made.
    IsMade,
    /// Nothing: who only looks leaves no traces.
    StaysMissing,
}

/// The directories that are tried, as the environment names them.
#[derive(Default)]
pub struct Places {
    /// `SOPIN_STORE`: this one or none.
    explicit: PageVec<u8>,
    /// `CACHE_DIRECTORY`, of which systemd may give several: the first.
    cache_directory: PageVec<u8>,
    /// `XDG_CACHE_HOME`
    cache_home: PageVec<u8>,
    /// `HOME`
    home: PageVec<u8>,
}

impl Places {
    /// No directory but the last resorts: `/var/cache/sopin` for root, which
    /// alone may write there, and `/var/tmp/sopin-<uid>`.
    pub const fn new() -> Self {
        Self {
            explicit: PageVec::new(),
            cache_directory: PageVec::new(),
            cache_home: PageVec::new(),
            home: PageVec::new(),
        }
    }

    /// Reads the variables that name the default places.
    pub fn read<'a>(get: impl Fn(&'static CStr) -> Option<&'a [u8]>) -> sys::Result<Self> {
        let mut places = Self::new();
        let cache = get(c"CACHE_DIRECTORY").and_then(|list| list.split(|byte| *byte == b':').next());
        let values = [
            (cache, &mut places.cache_directory),
            (get(c"XDG_CACHE_HOME"), &mut places.cache_home),
            (get(c"HOME"), &mut places.home),
        ];
        for (value, place) in values {
            if let Some(value) = value.filter(|value| value.starts_with(b"/")) {
                set(place, value)?;
            }
        }
        Ok(places)
    }

    /// Only `directory`, an absolute path, may be the store.
    pub fn set_explicit(&mut self, directory: &[u8]) -> sys::Result<()> {
        set(&mut self.explicit, directory)
    }

    /// Opens the first usable place, creating the store in it.
    pub fn open(&self, user: u32) -> Result<Fd, Cause> {
        let (mut store, mut first_cause) = (None, None);
        let _ = self.try_each(user, Missing::IsMade, |_, _, opened| match opened {
            Ok(opened) => {
                store = Some(opened);
                Break(())
            }
            Err(cause) => {
                first_cause.get_or_insert(cause);
                Continue(())
            }
        });
        store.ok_or(first_cause.unwrap_or(Cause::words("open the store", "there is no place for it")))
    }

    /// Opens every place, the likeliest first, until `each` breaks, and hands it
    /// over with its path in two parts.
    pub fn try_each(
        &self,
        user: u32,
        missing: Missing,
        mut each: impl FnMut(&CStr, &CStr, Result<Fd, Cause>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        if let Some(directory) = c_str(&self.explicit) {
            return each(directory, c"", open_store(&Fd::CWD, directory, user, missing));
        }
        let caches = [(&self.cache_directory, c"sopin"), (&self.cache_home, c"sopin"), (&self.home, c".cache/sopin")];
        for (path, below) in caches {
            let Some(path) = c_str(path) else { continue };
            let is_home = below != c"sopin";
            let base = open_base(path, is_home, user, missing);
            each(path, below, base.and_then(|base| open_store(&base, c"sopin", user, missing)))?;
        }
        if user == 0 {
            each(c"/var/cache", c"sopin", open_store(&Fd::CWD, c"/var/cache/sopin", user, missing))?;
        }
        let [path, below] = ["/var/tmp/", ""].map(|path| Line::<64>::format_raw(format_args!("{path}sopin-{user}\0")));
        each(c"/var/tmp", below.as_c_str(), open_store(&Fd::CWD, path.as_c_str(), user, missing))
    }
}

fn set(place: &mut PageVec<u8>, value: &[u8]) -> sys::Result<()> {
    place.clear();
    place.extend(value)?;
    place.push(0)
}

fn c_str(place: &PageVec<u8>) -> Option<&CStr> {
    CStr::from_bytes_with_nul(place).ok()
}

/// Opens a directory that stores may be made in, or `.cache` in it. One of
/// another user is passed over: root may run with somebody's HOME.
fn open_base(path: &CStr, is_home: bool, user: u32, missing: Missing) -> Result<Fd, Cause> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let call = |errno| Cause::call("open the cache directory", errno);
    let base = match sys::open(path, flags, 0) {
        // The XDG base directory specification asks for 0700.
        Err(Errno(libc::ENOENT)) if !is_home && missing == Missing::IsMade => {
            sys::mkdirat(&Fd::CWD, path, 0o700).and_then(|()| sys::open(path, flags, 0))
        }
        other => other,
    }
    .map_err(call)?;
    let status = sys::fstat(base.raw()).map_err(call)?;
    if status.st_uid != user {
        return Err(Cause::words("use the cache directory", "it belongs to another user"));
    }
    if !is_home {
        return Ok(base);
    }
    if missing == Missing::IsMade {
        let _ = sys::mkdirat(&base, c".cache", 0o700);
    }
    sys::openat(&base, c".cache", flags, 0).map_err(call)
}

/// Opens the store directory `name` in `base`.
fn open_store(base: &Fd, name: &CStr, user: u32, missing: Missing) -> Result<Fd, Cause> {
    let store = match sys::openat(base, name, DIRECTORY_TO_LIST, 0) {
        Err(Errno(libc::ENOENT)) if missing == Missing::IsMade => {
            make_directory(base, name).map_err(|errno| Cause::call("create the store", errno))?;
            sys::openat(base, name, DIRECTORY_TO_LIST, 0)
        }
        other => other,
    }
    .map_err(|errno| Cause::call("open the store", errno))?;
    if !is_private(&store, user) {
        return Err(Cause::words("use the store", "it belongs to another user or others can write to it"));
    }
    let status = sys::fstatfs(&store).map_err(|errno| Cause::call("fstatfs of the store", errno))?;
    if status.flags & NOEXEC != 0 {
        return Err(Cause::words("use the store", "its file system is mounted noexec"));
    }
    if is_remote(&status) {
        return Err(Cause::words("use the store", "its file system is remote"));
    }
    Ok(store)
}

/// Whether what happens there is decided by another machine or process.
pub fn is_remote(status: &FileSystem) -> bool {
    REMOTE.contains(&status.kind)
}

/// Whether an open directory belongs to `user` and nobody else can write to it.
pub fn is_private(directory: &Fd, user: u32) -> bool {
    sys::fstat(directory.raw()).is_ok_and(|status| {
        status.st_mode & libc::S_IFMT == libc::S_IFDIR && status.st_uid == user && status.st_mode & 0o022 == 0
    })
}

//! The directories in which the user's store may be, as the environment names them.
//! `sopin_store` checks whether a directory may be used when it opens one.

use core::ffi::CStr;

use crate::credentials::User;
use crate::pages::PageVec;
use crate::sys::Result;

/// A directory that may be the user's store.
#[derive(Default)]
struct SearchDir {
    /// Absolute, with its NUL; empty if the environment does not name it.
    path: PageVec<u8>,
    /// How many directories at its end are made for the user.
    may_make: usize,
}

/// The directories that are tried for the user's store, as the environment names
/// them, in this order: `SOPIN_STORE`, and then only that; `CACHE_DIRECTORY`,
/// `XDG_CACHE_HOME`, `HOME`, and `/var/cache/sopin` for root.
///
/// None of them is in a directory that every user can write to, such as `/var/tmp`, because a
/// store that the previous owner of a user id has left there would look like this user's.
#[derive(Default)]
pub struct SearchDirs {
    all: [SearchDir; 4],
    is_explicit: bool,
}

/// One of the [`SearchDirs`].
#[derive(Clone, Copy, Debug)]
pub struct StorePath<'a> {
    /// Its number among the directories.
    pub number: usize,
    /// The absolute path.
    pub path: &'a CStr,
    /// How many directories at its end are made for the user.
    pub may_make: usize,
}

impl SearchDirs {
    /// Makes a list with the last resort only, which is `/var/cache/sopin` for root.
    pub const fn new() -> Self {
        const NONE: SearchDir = SearchDir { path: PageVec::new(), may_make: 0 };
        Self { all: [NONE; 4], is_explicit: false }
    }

    /// Reads the variables that name the default directories.
    pub fn read<'a>(get: impl Fn(&'static CStr) -> Option<&'a [u8]>) -> Result<Self> {
        let mut dirs = Self::new();
        // systemd sets a list if a service has several cache directories.
        let cache = get(c"CACHE_DIRECTORY").and_then(|list| list.split(|byte| *byte == b':').next());
        let values =
            [(cache, &b"/sopin"[..], 2), (get(c"XDG_CACHE_HOME"), b"/sopin", 2), (get(c"HOME"), b"/.cache/sopin", 2)];
        for (dir, (value, below, may_make)) in dirs.all.iter_mut().zip(values) {
            if let Some(value) = value.filter(|value| value.starts_with(b"/")) {
                dir.set(value, below, may_make)?;
            }
        }
        Ok(dirs)
    }

    /// Makes `directory`, an absolute path, the only one.
    pub fn set_explicit(&mut self, directory: &[u8]) -> Result<()> {
        *self = Self::new();
        self.is_explicit = true;
        self.all[0].set(directory, b"", 1)
    }

    /// Returns the paths to try for `user`, the likeliest first.
    pub fn paths(&self, user: User) -> impl Iterator<Item = StorePath<'_>> {
        self.all.iter().enumerate().filter_map(move |(number, dir)| {
            Some(StorePath { number, path: self.path(number, user)?, may_make: dir.may_make })
        })
    }

    /// Returns the path of this [number](StorePath::number).
    pub fn path(&self, number: usize, user: User) -> Option<&CStr> {
        let path = CStr::from_bytes_with_nul(&self.all.get(number)?.path).ok();
        let is_last_resort = number == self.all.len() - 1 && user == User::ROOT && !self.is_explicit;
        path.or(is_last_resort.then_some(c"/var/cache/sopin"))
    }
}

impl SearchDir {
    fn set(&mut self, value: &[u8], below: &[u8], may_make: usize) -> Result<()> {
        self.path.clear();
        for part in [value, below, b"\0"] {
            self.path.extend(part)?;
        }
        self.may_make = may_make;
        Ok(())
    }
}

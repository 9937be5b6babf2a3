//! The file that an entry was copied from, and whether that is still the same version.
//!
//! Beside its copy an entry has a link, [`LINK`], whose target is
//!
//! ```text
//! [+][@]<8 hexadecimal digits for each directory>/absolute/path/of/the/origin
//! ```
//!
//! The digits identify the directories of the path (by device and inode), from the root of the
//! mount in which the file was found down to the file's own. Only a process that finds the same
//! directories may conclude anything from the path: in another container, or with another file
//! system mounted, the same path leads elsewhere, and an absent file proves nothing. A `+`
//! means that the file had other names, under which it may still exist. An `@` means that it is
//! on a remote file system. The library does not look there, because a server that does not
//! answer would block a program that does not use that server.

use core::ffi::CStr;
use core::ops::ControlFlow::{self, Break, Continue};

use sopin_core::credentials::User;
use sopin_core::line::Line;
use sopin_core::pages::PageVec;
use sopin_core::sys::{self, Errno, Fd, FileSystem, PathIdentity};

use crate::name::{Identity, hash as hash_of};

/// The file name of the link.
pub const LINK: &CStr = c".source";

/// The character before the digits when the file had other names.
const OTHER_NAMES: u8 = b'+';
/// The character before the digits when the file is on a remote file system.
const REMOTE: u8 = b'@';
/// Digits for each directory.
const DIGITS: usize = 8;

/// The state of an entry's origin, compared with the version that was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// It is still that version.
    Current,
    /// Another version is at its path.
    Superseded,
    /// Nothing is at its path, or its directory is gone.
    Gone,
    /// This process cannot determine it: the path leads to other directories, as in another
    /// container, the file had other names, or it is on a remote file system.
    Unknown,
}

/// The parsed target of the link.
#[derive(Clone, Copy)]
pub struct Origin<'a> {
    has_other_names: bool,
    is_remote: bool,
    directories: &'a [u8],
    /// The absolute path.
    pub path: &'a CStr,
}

/// Reads the target of an entry's link into `buffer`, of `PATH_MAX` bytes.
pub fn read<'a>(entry: &Fd, buffer: &'a mut [u8]) -> Option<Origin<'a>> {
    read_at(entry, LINK, buffer)
}

/// Reads the target of a link at a path below a directory into `buffer`, of `PATH_MAX` bytes.
pub fn read_at<'a>(directory: &Fd, link: &CStr, buffer: &'a mut [u8]) -> Option<Origin<'a>> {
    let len = sys::readlinkat(directory, link, buffer).ok()?.len();
    // A target has at most one byte less than that.
    *buffer.get_mut(len)? = 0;
    Origin::parse(CStr::from_bytes_with_nul(buffer.get(..=len)?).ok()?)
}

/// Returns whether every process of `user` may read the file, whatever its groups. If this
/// process may read it only because of its group, a copy would disclose it to the user's other
/// processes. With an access control list the result can only be false more often than
/// necessary (`acl(5)`: the mode of the group is the list's mask, and the mode of others is
/// that of others).
pub fn is_open_to(user: User, path: &CStr, file: &Fd) -> bool {
    let allows = |status: &libc::stat, owners: u32, others: u32| {
        let needed = if status.st_uid == user.id() { owners } else { others };
        status.st_mode & needed != 0
    };
    if user == User::ROOT {
        return true;
    }
    let is_readable = sys::fstat(file.raw()).is_ok_and(|status| allows(&status, 0o400, 0o004));
    let walked = for_each_directory(path.to_bytes(), |directory| {
        let may_pass = sys::stat(directory).is_ok_and(|status| allows(&status, 0o100, 0o001));
        if may_pass { Continue(()) } else { Break(()) }
    });
    is_readable && walked.is_ok_and(|walked| walked.is_continue())
}

/// Returns the target of the link for a file, with its NUL. `None` if its directories
/// cannot be seen.
pub fn record(path: &CStr, file: &Fd) -> Option<PageVec<u8>> {
    let mut directories = PageVec::<u8>::new();
    let walked = for_each_directory(path.to_bytes(), |directory| {
        let Ok(found) = sys::path_identity(directory) else { return Break(()) };
        // A file system counts as remote unless it is known not to be.
        if found.is_mount_root != Some(false) {
            directories.clear();
        }
        match directories.extend(digits_of(&found).as_bytes()) {
            Ok(()) => Continue(()),
            Err(_) => Break(()),
        }
    })
    .ok()?;
    if walked.is_break() {
        return None;
    }
    let mut target = PageVec::new();
    if sys::fstat(file.raw()).ok()?.st_nlink > 1 {
        target.push(OTHER_NAMES).ok()?;
    }
    if FileSystem::of(file).is_ok_and(|status| status.is_remote()) {
        target.push(REMOTE).ok()?;
    }
    target.extend(&directories).ok()?;
    target.extend(path.to_bytes_with_nul()).ok()?;
    Some(target)
}

impl<'a> Origin<'a> {
    /// Parses the target of a link; `None` if it has not the form that the library writes.
    pub fn parse(target: &'a CStr) -> Option<Self> {
        let target = target.to_bytes_with_nul();
        let start = target.iter().position(|byte| *byte == b'/')?;
        let (head, path) = (target.get(..start)?, CStr::from_bytes_with_nul(target.get(start..)?).ok()?);
        let after_names = head.strip_prefix(&[OTHER_NAMES]).unwrap_or(head);
        let directories = after_names.strip_prefix(&[REMOTE]).unwrap_or(after_names);
        let is_ours = directories.len().is_multiple_of(DIGITS) && directories.iter().all(u8::is_ascii_hexdigit);
        let has_other_names = after_names.len() < head.len();
        let is_remote = directories.len() < after_names.len();
        (is_ours && !directories.is_empty()).then_some(Self { has_other_names, is_remote, directories, path })
    }

    /// Returns whether both are at one path in the same directory.
    pub fn is_at_same_place(&self, other: &Self) -> bool {
        self.path == other.path && self.directory() == other.directory()
    }

    /// Returns a hash of what [`Origin::is_at_same_place`] compares.
    pub fn place_hash(&self) -> u32 {
        hash_of(self.path.to_bytes().iter().chain(self.directory()).copied())
    }

    /// Returns the digits of the file's own directory.
    fn directory(&self) -> &'a [u8] {
        self.directories.rchunks(DIGITS).next().unwrap_or_default()
    }

    /// Returns the freshness of an entry that holds the version `copied`.
    pub fn freshness(&self, copied: &Identity) -> Freshness {
        self.find_out(copied).unwrap_or(Freshness::Unknown)
    }

    fn find_out(&self, copied: &Identity) -> sys::Result<Freshness> {
        if self.is_remote {
            return Ok(Freshness::Unknown);
        }
        let now = sys::stat(self.path).map(|status| Identity::of(&status));
        if now == Ok(*copied) {
            return Ok(Freshness::Current);
        }
        match self.find_directories()? {
            Continue(()) => {}
            Break(Freshness::Gone) if !self.has_other_names => return Ok(Freshness::Gone),
            Break(_) => return Ok(Freshness::Unknown),
        }
        Ok(match now {
            Ok(now) if (now.device, now.inode) == (copied.device, copied.inode) => Freshness::Superseded,
            _ if self.has_other_names => Freshness::Unknown,
            // Another file is mounted over the file itself.
            Ok(_) if sys::path_identity(self.path)?.is_mount_root == Some(true) => Freshness::Unknown,
            Ok(_) => Freshness::Superseded,
            Err(Errno(libc::ENOENT)) => Freshness::Gone,
            Err(_) => Freshness::Unknown,
        })
    }

    /// Descends to the file's directory; stops at a directory that is not the recorded one.
    fn find_directories(&self) -> sys::Result<ControlFlow<Freshness>> {
        let all = self.path.to_bytes().split(|byte| *byte == b'/').count() - 1;
        let mut recorded = self.directories.chunks(DIGITS);
        let (mut above, mut is_first) = (all.saturating_sub(recorded.len()), true);
        for_each_directory(self.path.to_bytes(), |directory| {
            if above > 0 {
                above -= 1;
                return Continue(());
            }
            let expected = recorded.next().unwrap_or_default();
            // If a name is missing in the root of the mount or in a directory below that was
            // recognised, it has been removed.
            let may_conclude = !core::mem::replace(&mut is_first, false);
            match sys::path_identity(directory) {
                Ok(found) if digits_of(&found).as_bytes() == expected => Continue(()),
                Ok(found) if may_conclude && found.is_mount_root == Some(false) => Break(Freshness::Gone),
                Err(Errno(libc::ENOENT | libc::ENOTDIR)) if may_conclude => Break(Freshness::Gone),
                _ => Break(Freshness::Unknown),
            }
        })
    }
}

/// Returns the digits that identify a directory.
fn digits_of(directory: &PathIdentity) -> Line<DIGITS> {
    let bytes = directory.device.to_le_bytes().into_iter().chain(directory.inode.to_le_bytes());
    let hash = hash_of(bytes);
    Line::format_raw(format_args!("{hash:08x}"))
}

/// Calls `each` with every directory of an absolute path, `/` first.
fn for_each_directory<B>(path: &[u8], mut each: impl FnMut(&CStr) -> ControlFlow<B>) -> sys::Result<ControlFlow<B>> {
    let mut prefix = PageVec::new();
    for (index, byte) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
        prefix.clear();
        prefix.extend(path.get(..index).unwrap_or_default())?;
        if index == 0 {
            prefix.push(*byte)?;
        }
        prefix.push(0)?;
        if let Break(found) = each(CStr::from_bytes_until_nul(&prefix).unwrap_or_default()) {
            return Ok(Break(found));
        }
    }
    Ok(Continue(()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::{String, ToString};
    use std::vec::Vec;

    fn directories_of(path: &[u8]) -> Vec<String> {
        let mut all = Vec::new();
        let walked: ControlFlow<()> = for_each_directory(path, |directory| {
            all.push(directory.to_str().unwrap().to_string());
            Continue(())
        })
        .unwrap();
        assert!(walked.is_continue());
        all
    }

    #[test]
    fn a_path_has_as_many_directories_as_slashes() {
        assert_eq!(directories_of(b"/usr/lib/libfoo.so"), ["/", "/usr", "/usr/lib"]);
        assert_eq!(directories_of(b"/libfoo.so"), ["/"]);
        assert_eq!(directories_of(b"/usr//libfoo.so"), ["/", "/usr", "/usr/"]);
    }

    #[test]
    fn a_target_is_read_or_refused() {
        let origin = Origin::parse(c"0123456789abcdef/usr/libfoo.so").unwrap();
        assert_eq!((origin.has_other_names, origin.path), (false, c"/usr/libfoo.so"));
        let flags = |target| Origin::parse(target).map(|origin: Origin<'_>| (origin.has_other_names, origin.is_remote));
        assert_eq!(flags(c"+01234567/libfoo.so"), Some((true, false)));
        assert_eq!(flags(c"@01234567/libfoo.so"), Some((false, true)));
        assert_eq!(flags(c"+@01234567/libfoo.so"), Some((true, true)));
        let wrong = [
            c"",
            c"01234567",
            c"/libfoo.so",
            c"+/libfoo.so",
            c"0123456/libfoo.so",
            c"++1234567/x",
            c"@+01234567/x",
            c"0123456g/x",
        ];
        for target in wrong {
            assert!(Origin::parse(target).is_none(), "{target:?}");
        }
    }

    #[test]
    fn the_same_place_is_the_same_path_in_the_same_directory() {
        let origin = |target: &'static CStr| Origin::parse(target).unwrap();
        let known = origin(c"0123456789abcdef/usr/libfoo.so");
        // Mounted elsewhere, or given another name since, counts for nothing.
        assert!(known.is_at_same_place(&origin(c"+89abcdef/usr/libfoo.so")));
        assert!(!known.is_at_same_place(&origin(c"0123456789abcdee/usr/libfoo.so")));
        assert!(!known.is_at_same_place(&origin(c"0123456789abcdef/usr/libbar.so")));
    }
}

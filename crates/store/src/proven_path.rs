//! Paths that no other user can redirect.
//!
//! A user who can rename or replace a directory on the path of a store determines what the
//! store contains. It would be enough to put another directory of the same user in its place,
//! in which that user has unpacked a foreign archive. So every directory on the path must
//! belong to root or to the user and be writable by no other user, as `sshd` demands of a home
//! directory (`StrictModes`). A symbolic link is replaced by its target, and must itself belong
//! to root or the user.
//!
//! In a sticky directory such as `/tmp` no user can rename the files of another. That suffices
//! for root. It does not suffice for other users, because every user can make files there, and
//! those that the previous owner of a user id has left look like this user's own.
//!
//! Beginning at the root, each check proves that only root and the user can change the next
//! name. So checking one name after the other leaves no gap.

use core::ffi::CStr;

use sopin_core::cause::{Cause, Operation};
use sopin_core::pages::PageVec;
use sopin_core::sys::{self, Errno, Fd};

/// The number of links that the kernel follows (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

const OPERATION: Operation = Operation::UseStore;

/// Returns the absolute `path` without symbolic links if only root and `user` can change where
/// it leads. Makes its last `may_make` directories, for the user alone, if they do not exist.
pub fn prove(path: &CStr, user: u32, may_make: usize) -> Result<PageVec<u8>, Cause> {
    let mut walk = PathResolution { done: PageVec::new(), rest: PageVec::new(), at: 0, user };
    walk.rest.extend(path.to_bytes()).map_err(Cause::no_memory)?;
    walk.check_directory(&sys::stat(c"/").map_err(Operation::Stat.failed())?)?;
    let mut links = 0;
    while let Some(link) = walk.step(may_make)? {
        links += 1;
        if links > MAX_LINKS {
            return Err(Cause::call(Operation::OpenStore, Errno(libc::ELOOP)));
        }
        walk.follow(&link)?;
    }
    Ok(walk.done)
}

struct PathResolution {
    /// The proven part of the path, with a NUL behind it; empty for the root.
    done: PageVec<u8>,
    /// The part that is still to be checked, from `at` on.
    rest: PageVec<u8>,
    at: usize,
    user: u32,
}

impl PathResolution {
    /// Continues to the end of the path, or to a symbolic link, whose target it returns.
    fn step(&mut self, may_make: usize) -> Result<Option<PageVec<u8>>, Cause> {
        while self.at < self.rest.len() {
            let left = self.rest.get(self.at..).unwrap_or_default();
            let len = left.iter().position(|byte| *byte == b'/').unwrap_or(left.len());
            let name = left.get(..len).unwrap_or_default();
            self.at += len + 1;
            match name {
                b"" | b"." => continue,
                b".." => {
                    shorten(&mut self.done)?;
                    continue;
                }
                name => lengthen(&mut self.done, name)?,
            }
            let mut found = sys::fstatat(&Fd::CWD, self.path(), libc::AT_SYMLINK_NOFOLLOW);
            if found.as_ref().is_err_and(|errno| *errno == Errno(libc::ENOENT)) && self.names_left() < may_make {
                match sys::mkdirat(&Fd::CWD, self.path(), 0o700) {
                    Ok(()) | Err(Errno(libc::EEXIST)) => {}
                    Err(errno) => return Err(Cause::call(Operation::CreateStore, errno)),
                }
                found = sys::fstatat(&Fd::CWD, self.path(), libc::AT_SYMLINK_NOFOLLOW);
            }
            let status = found.map_err(Operation::OpenStore.failed())?;
            match status.st_mode & libc::S_IFMT {
                // The caller checks the store's own directory, more strictly.
                libc::S_IFDIR if self.names_left() == 0 => {}
                libc::S_IFDIR => self.check_directory(&status)?,
                libc::S_IFLNK if self.names_left() != 0 => return self.target(&status).map(Some),
                _ => return Err(Cause::call(Operation::OpenStore, Errno(libc::ENOTDIR))),
            }
        }
        Ok(None)
    }

    fn check_directory(&self, status: &libc::stat) -> Result<(), Cause> {
        if status.st_uid != 0 && status.st_uid != self.user {
            return Err(Cause::words(OPERATION, "a directory on the way to it belongs to another user"));
        }
        let is_shared = status.st_mode & 0o022 != 0;
        if is_shared && status.st_mode & libc::S_ISVTX == 0 {
            return Err(Cause::words(OPERATION, "others can write to a directory on the way to it"));
        }
        if is_shared && self.user != 0 {
            return Err(Cause::words(OPERATION, "everybody can make a directory in one on the way to it"));
        }
        Ok(())
    }

    fn target(&self, link: &libc::stat) -> Result<PageVec<u8>, Cause> {
        if link.st_uid != 0 && link.st_uid != self.user {
            return Err(Cause::words(OPERATION, "a symbolic link on the way to it belongs to another user"));
        }
        let mut target = PageVec::zeroed(libc::PATH_MAX as usize).map_err(Cause::no_memory)?;
        let len = sys::readlinkat(&Fd::CWD, self.path(), &mut target).map_err(Operation::OpenStore.failed())?.len();
        target.truncate(len);
        Ok(target)
    }

    /// Continues with the target of a link.
    fn follow(&mut self, target: &[u8]) -> Result<(), Cause> {
        if target.first() == Some(&b'/') {
            self.done.clear();
        } else {
            shorten(&mut self.done)?;
        }
        let mut rest = PageVec::new();
        for part in [target, b"/", self.rest.get(self.at..).unwrap_or_default()] {
            rest.extend(part).map_err(Cause::no_memory)?;
        }
        (self.rest, self.at) = (rest, 0);
        Ok(())
    }

    /// Returns the number of names that are still to be checked.
    fn names_left(&self) -> usize {
        let left = self.rest.get(self.at..).unwrap_or_default();
        left.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).count()
    }

    fn path(&self) -> &CStr {
        CStr::from_bytes_with_nul(&self.done).unwrap_or(c"/")
    }
}

/// Appends a name to a path with a NUL behind it.
fn lengthen(path: &mut PageVec<u8>, name: &[u8]) -> Result<(), Cause> {
    path.truncate(path.len().saturating_sub(1));
    for part in [b"/", name, b"\0"] {
        path.extend(part).map_err(Cause::no_memory)?;
    }
    Ok(())
}

/// Takes the last name off; the parent of the root is the root.
fn shorten(path: &mut PageVec<u8>) -> Result<(), Cause> {
    let end = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    path.truncate(end);
    if end == 0 { Ok(()) } else { path.push(0).map_err(Cause::no_memory) }
}

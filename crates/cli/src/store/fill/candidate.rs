//! Decides whether a file may be copied into the system's store, and determines its path.
//!
//! Every user can read what is in that store, so a copy must not disclose what the file does
//! not: every user may read the file, and may pass every directory on its path. This is checked
//! on descriptors, not on names: the path that the kernel shows for the open file is checked
//! from the root down and must lead to the same file. Permissions and version come from one
//! `fstat(2)`, and a copy is kept only if the version is the same afterwards: bytes that were
//! written after the permission was revoked do not get into the store.
//!
//! This module decides; it copies nothing.

use std::ffi::{CString, OsStr};
use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use object::elf::{EM_AARCH64, EM_X86_64, ET_DYN, ET_EXEC};
use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use sopin_core::sys::{self, Fd, FileSystem};
use sopin_inspect::descriptors;
use sopin_inspect::image::{self, ELF_HEADER, Flaw, Headers};
use sopin_inspect::memory::Bytes;
use sopin_store::Identity;

use crate::output::shown;

/// Flags for a file that is only examined: opening has no effect on a device or pipe.
const TO_LOOK: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
/// Flags for a file that is read.
const TO_READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);
/// The permission of group and others to read a file, and to pass a directory.
const READ: u32 = 0o044;
const PASS: u32 = 0o011;
/// `e_machine` of this machine's objects.
const MACHINE: u16 = if cfg!(target_arch = "aarch64") { EM_AARCH64 } else { EM_X86_64 };

/// A file that is an object and that every user may read.
pub struct FillCandidate {
    /// Open for reading.
    pub file: Fd,
    /// Its absolute path without symbolic links, as `/proc/PID/maps` shows it.
    pub path: CString,
    /// The version that was examined.
    pub identity: Identity,
    /// The file system that it is on.
    pub file_system: FileSystem,
    /// True if processes find a build-id in the object.
    pub has_build_id: bool,
}

/// Why a file is not copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FillRefusal {
    /// It is not a regular file, or not an object that a loader of this machine loads.
    NotAnObject(String),
    /// Not every user may read it.
    NotForEverybody(String),
    /// Its name is gone, or belongs to another mount namespace or root.
    Elsewhere,
    /// No process can write to it, so programs map the file itself.
    NeedsNoCopy,
    /// A copy of it would not be safe to use, or not be worth its space, for this reason.
    NotSuited(&'static str),
    /// It has no name any more.
    Vanished,
    /// Programs went on writing to it.
    Changing,
    /// A call has failed.
    Failed(String),
}

/// Returns whether a file is large and has few blocks: a copy would have all blocks.
fn is_sparse(size: u64, blocks: i64) -> bool {
    const LARGE: u64 = 256 << 20;
    let allocated = blocks.cast_unsigned() * 512;
    size > LARGE && allocated < size / 4
}

impl FillRefusal {
    /// Returns what the user can do about it; empty if the reason makes that clear.
    pub fn way_out(&self) -> &'static str {
        match self {
            Self::NotForEverybody(_) => {
                "everybody could read the copy; let everybody read the file (chmod), or leave it to the users' own stores"
            }
            Self::Elsewhere => "fill the store from where its path leads to it",
            Self::NotSuited(_) => "leave it to the users' own stores",
            Self::Changing => "fill the store when it is finished",
            Self::NotAnObject(_) | Self::NeedsNoCopy | Self::Vanished | Self::Failed(_) => "",
        }
    }
}

impl fmt::Display for FillRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAnObject(reason) | Self::NotForEverybody(reason) | Self::Failed(reason) => reason,
            Self::NotSuited(reason) => reason,
            Self::Elsewhere => "its path leads elsewhere from here, as that of another container's file",
            Self::NeedsNoCopy => "it needs no copy: it cannot be written to",
            Self::Vanished => "it was replaced or removed",
            Self::Changing => "it goes on changing",
        })
    }
}

impl From<Errno> for FillRefusal {
    fn from(errno: Errno) -> Self {
        if errno == Errno::NOENT { Self::Vanished } else { Self::Failed(errno.to_string()) }
    }
}

impl From<sys::Errno> for FillRefusal {
    fn from(errno: sys::Errno) -> Self {
        descriptors::errno(errno).into()
    }
}

impl FillCandidate {
    /// Examines the file to which a path leads. It follows a symbolic link only if the user has
    /// named it.
    ///
    /// # Errors
    /// Why it is not copied.
    pub fn at(path: &Path, is_named: bool) -> Result<Self, FillRefusal> {
        let flags = if is_named { TO_LOOK } else { TO_LOOK | OFlags::NOFOLLOW };
        Self::of(&rustix::fs::open(path, flags, Mode::empty())?)
    }

    /// Examines an open file.
    ///
    /// # Errors
    /// Why it is not copied.
    pub fn of(opened: &OwnedFd) -> Result<Self, FillRefusal> {
        let kind = FileType::from_raw_mode(rustix::fs::fstat(opened)?.st_mode);
        if !kind.is_file() {
            return Err(FillRefusal::NotAnObject("not a regular file".to_owned()));
        }
        let file = descriptors::for_core(opened, TO_READ)?;
        // Permissions and version come from one call: a change of the permissions changes the
        // version, too.
        let status = sys::fstat(file.raw())?;
        let headers = check_object(&file)?;
        if status.st_nlink == 0 {
            return Err(FillRefusal::Vanished);
        }
        let file_system = FileSystem::of(&file)?;
        if file_system.forbids_writes_to(&file, status.st_dev) {
            return Err(FillRefusal::NeedsNoCopy);
        }
        // The server of a FUSE or network file system chooses the numbers of its files, and
        // device numbers are reused.
        if !file_system.updates_ctime_on_every_change() {
            return Err(FillRefusal::NotSuited("its file system does not date every change of a file"));
        }
        if is_sparse(status.st_size.cast_unsigned(), status.st_blocks) {
            return Err(FillRefusal::NotSuited("it consists of holes for the most part"));
        }
        let path = rustix::fs::readlink(descriptors::path_of(file.raw()), Vec::new())?;
        let identity = Identity::of(&status);
        check_permission("read it", status.st_mode, READ, file.raw())?;
        check_path(OsStr::from_bytes(path.to_bytes()).as_ref(), &identity)?;
        let has_build_id = headers.show_build_id_in(&HeaderBytes(&file));
        Ok(Self { file, path, identity, file_system, has_build_id })
    }

    /// Returns whether the file is still the version that was examined.
    pub fn is_unchanged(&self) -> bool {
        sys::fstat(self.file.raw()).is_ok_and(|status| Identity::of(&status) == self.identity)
    }

    /// Returns the path, for people.
    pub fn path(&self) -> PathBuf {
        std::ffi::OsString::from_vec(self.path.as_bytes().to_vec()).into()
    }
}

/// An open file whose headers are read.
struct HeaderBytes<'a>(&'a Fd);

impl Bytes for HeaderBytes<'_> {
    fn read_some(&self, at: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        sys::pread(self.0, buffer, at).map_err(descriptors::errno)
    }
}

/// Checks that a loader of this machine may load a file beside the library. Returns its headers.
fn check_object(file: &Fd) -> Result<Headers, FillRefusal> {
    let not = |reason: &str| Err(FillRefusal::NotAnObject(reason.to_owned()));
    let mut header = [0; ELF_HEADER];
    if HeaderBytes(file).read_some(0, &mut header)? < header.len() {
        return not("not an ELF file");
    }
    let headers = match image::read(&HeaderBytes(file), 0) {
        Ok((_, headers)) if headers.dynamic.is_none() => return not("statically linked, so no loader loads it"),
        Ok((_, headers)) => headers,
        // The file is shorter than its headers.
        Err(Flaw::Read(Errno::IO)) => return not(&Flaw::Malformed.to_string()),
        Err(Flaw::Read(errno)) => return Err(errno.into()),
        Err(flaw) => return not(&flaw.to_string()),
    };
    let short = |offset: usize| u16::from_ne_bytes([header[offset], header[offset + 1]]);
    // e_type and e_machine
    match (short(16), short(18)) {
        (ET_DYN | ET_EXEC, MACHINE) => Ok(headers),
        (_, MACHINE) => not("an ELF file, but neither a program nor a shared object"),
        _ => not(&Flaw::OtherMachine.to_string()),
    }
}

/// Checks that group and others have a permission. An access control list may still deny it to
/// a named user or group.
fn check_permission(what: &str, mode: u32, needed: u32, descriptor: i32) -> Result<(), FillRefusal> {
    let mode = mode & 0o7777;
    if mode & needed != needed {
        return Err(FillRefusal::NotForEverybody(format!("not everybody may {what} (mode {mode:04o})")));
    }
    let list = rustix::fs::getxattr(descriptors::path_of(descriptor), "system.posix_acl_access", &mut [0_u8; 0][..]);
    match list {
        Ok(len) if len > 0 => {
            Err(FillRefusal::NotForEverybody(format!("an access control list decides who may {what} (getfacl)")))
        }
        _ => Ok(()),
    }
}

/// Checks that a path leads from the root down to the file, and that every user may pass every
/// directory on it.
fn check_path(path: &Path, identity: &Identity) -> Result<(), FillRefusal> {
    let Ok(below) = path.strip_prefix("/") else { return Err(FillRefusal::Elsewhere) };
    let Some(directories) = below.parent() else { return Err(FillRefusal::Elsewhere) };
    let mut walked = PathBuf::from("/");
    let mut directory = rustix::fs::open("/", TO_LOOK | OFlags::DIRECTORY, Mode::empty())?;
    let pass = |walked: &Path, directory: &OwnedFd| {
        let status = rustix::fs::fstat(directory)?;
        let what = format!("pass {}", shown(&walked.to_string_lossy()));
        check_permission(&what, status.st_mode, PASS, directory.as_raw_fd())
    };
    pass(&walked, &directory)?;
    for name in directories {
        walked.push(name);
        let flags = TO_LOOK | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        directory = rustix::fs::openat(&directory, name, flags, Mode::empty()).map_err(elsewhere)?;
        pass(&walked, &directory)?;
    }
    let name = below.file_name().ok_or(FillRefusal::Elsewhere)?;
    let found = rustix::fs::openat(&directory, name, TO_LOOK | OFlags::NOFOLLOW, Mode::empty()).map_err(elsewhere)?;
    let Stat { st_dev, st_ino, .. } = rustix::fs::fstat(&found)?;
    if (st_dev, st_ino) == (identity.device, identity.inode) { Ok(()) } else { Err(FillRefusal::Elsewhere) }
}

fn elsewhere(errno: Errno) -> FillRefusal {
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => FillRefusal::Elsewhere,
        errno => errno.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// Makes a directory that every user may pass, below one that every user may pass.
    fn directory() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        set_mode(directory.path(), 0o755);
        directory
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn refusal(path: &Path) -> FillRefusal {
        FillCandidate::at(path, true).map(|candidate| candidate.path()).unwrap_err()
    }

    #[test]
    fn every_user_must_be_able_to_read_it() {
        let directory = directory();
        let below = directory.path().join("below");
        let object = below.join("object");
        fs::create_dir(&below).unwrap();
        fs::copy("/proc/self/exe", &object).unwrap();
        set_mode(&below, 0o711);
        set_mode(&object, 0o644);
        let candidate = FillCandidate::at(&object, true).unwrap();
        assert_eq!(candidate.path(), object.canonicalize().unwrap());
        for mode in [0o640, 0o604, 0o600, 0o711] {
            set_mode(&object, mode);
            assert_eq!(refusal(&object).to_string(), format!("not everybody may read it (mode {mode:04o})"));
        }
        set_mode(&object, 0o444);
        for mode in [0o700, 0o710, 0o701, 0o744] {
            set_mode(&below, mode);
            assert!(matches!(refusal(&object), FillRefusal::NotForEverybody(reason) if reason.contains("below (mode")));
        }
        assert!(!candidate.is_unchanged());
    }

    #[test]
    fn links_are_followed_where_they_were_named() {
        let directory = directory();
        let (object, link) = (directory.path().join("libx.so.1.2"), directory.path().join("libx.so"));
        fs::copy("/proc/self/exe", &object).unwrap();
        set_mode(&object, 0o755);
        symlink("libx.so.1.2", &link).unwrap();
        assert_eq!(FillCandidate::at(&link, true).unwrap().path(), object.canonicalize().unwrap());
        assert!(matches!(FillCandidate::at(&link, false), Err(FillRefusal::NotAnObject(_))));
        assert_eq!(refusal(&directory.path().join("none")), FillRefusal::Vanished);
    }

    #[test]
    fn only_objects_of_this_machine_are_candidates() {
        let directory = directory();
        let file = directory.path().join("file");
        let own = fs::read("/proc/self/exe").unwrap();
        let with = |offset: usize, value: u8| {
            let mut bytes = own.clone();
            bytes[offset] = value;
            bytes
        };
        let cases = [
            (b"text".to_vec(), "not an ELF file"),
            (vec![0; 100], "not an ELF file"),
            (with(4, 1), "an ELF file of another machine or word size"),
            (with(18, 0x16), "an ELF file of another machine or word size"),
            (with(16, 1), "an ELF file, but neither a program nor a shared object"),
            (own[..70].to_vec(), "its headers make no sense"),
        ];
        for (bytes, reason) in cases {
            fs::write(&file, bytes).unwrap();
            assert_eq!(refusal(&file).to_string(), reason);
        }
        assert_eq!(refusal(directory.path()).to_string(), "not a regular file");
    }
}

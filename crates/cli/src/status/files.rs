//! The files that processes map: found through `/proc`, looked at once for all
//! processes. `/proc/PID/map_files` leads to a mapped file whatever has become of its
//! path, where the kernel allows it. The paths in `/proc/PID/maps` begin at our root
//! directory if the file is below that (d_path in fs/d_path.c), at the root of its
//! mount namespace otherwise: of a container, which is `/proc/PID/root`.

use std::cell::{OnceCell, RefCell};
use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::fs::{self, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use sopin_core::store::Identity;
use sopin_core::vmas::FileId;

use super::image::{self, Dynamic, Flaw, Headers};
use super::maps::Mapping;
use super::memory::Place as Opened;
use super::places::{self, Place};
use super::process::Process;

/// File systems that nobody can write to, and one whose superblock says nothing
/// about its layers.
const ALWAYS_READ_ONLY: [&[u8]; 4] = [b"squashfs", b"erofs", b"iso9660", b"cramfs"];
const LAYERED: &[u8] = b"overlay";
/// How a root directory is opened.
const ROOT_FLAGS: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

#[allow(clippy::cast_sign_loss, reason = "sizes of files are not negative")]
fn identity_of(status: &Stat) -> Identity {
    let nanoseconds = |seconds: i64, rest: i128| i128::from(seconds) * 1_000_000_000 + rest;
    Identity {
        device: status.st_dev,
        inode: status.st_ino,
        size: status.st_size as u64,
        modified: nanoseconds(status.st_mtime, status.st_mtime_nsec.into()),
        changed: nanoseconds(status.st_ctime, status.st_ctime_nsec.into()),
    }
}

/// What is in an object's file.
pub struct Image {
    /// Its program headers.
    pub headers: Headers,
    /// Its dynamic section; empty without one.
    pub dynamic: Dynamic,
    /// What the loader stores to, or why that is not known.
    pub places: Result<Vec<Place>, Flaw>,
}

/// Major and minor numbers.
type Devices = HashSet<(u32, u32)>;

/// The mapped files, by what the kernel shows in `/proc/PID/maps`.
#[derive(Default)]
#[allow(clippy::type_complexity, reason = "each type is used once")]
pub struct Files {
    mapped: RefCell<HashMap<Number, Rc<Mapped>>>,
    paths: RefCell<HashMap<(Root, Vec<u8>), Result<Identity, Errno>>>,
    /// By mount namespace.
    read_only: RefCell<HashMap<Vec<u8>, Rc<Devices>>>,
    own_namespace: OnceCell<Vec<u8>>,
}

/// Major and minor device number, and inode number.
type Number = (u32, u32, u64);

fn number(file: FileId) -> Number {
    (file.device.0, file.device.1, file.inode)
}

/// A mapped file.
pub struct Mapped {
    /// What it is now, or why that cannot be found out.
    pub identity: Result<Identity, Errno>,
    image: OnceCell<Result<Rc<Image>, Flaw>>,
}

/// Where the paths of a process's mappings begin.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Root {
    namespace: Vec<u8>,
    device: u64,
    inode: u64,
}

/// A process whose files are looked at.
pub struct View<'a> {
    process: &'a Process,
    files: &'a Files,
    root: OnceCell<Result<(OwnedFd, Root), Errno>>,
}

impl<'a> View<'a> {
    /// The files of this process.
    pub fn new(process: &'a Process, files: &'a Files) -> Self {
        Self { process, files, root: OnceCell::new() }
    }

    /// Opens the file that is mapped there.
    ///
    /// # Errors
    /// Those of `open(2)`; `ESTALE` if only its path leads to it, and that leads to
    /// another file by now.
    pub fn open(&self, mapping: &Mapping) -> Result<OwnedFd, Errno> {
        let link = format!("map_files/{:x}-{:x}", mapping.start, mapping.end);
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        // EPERM without CAP_CHECKPOINT_RESTORE; ENOENT without CONFIG_CHECKPOINT_RESTORE.
        if let Ok(file) = fs::openat(self.process.directory(), link, flags, Mode::empty()) {
            return Ok(file);
        }
        let file = self.open_path(&mapping.path, flags)?;
        // Device numbers of overlayfs and btrfs are not those in the maps.
        if fs::fstat(&file)?.st_ino == mapping.file.inode { Ok(file) } else { Err(Errno::STALE) }
    }

    /// What a path in `/proc/PID/maps` leads to.
    ///
    /// # Errors
    /// Those of `open(2)`.
    pub fn at_path(&self, path: &[u8]) -> Result<Identity, Errno> {
        let (_, root) = self.root()?;
        let key = (root.clone(), path.to_owned());
        if let Some(known) = self.files.paths.borrow().get(&key) {
            return *known;
        }
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let found = self.open_path(path, flags).and_then(fs::fstat).map(|status| identity_of(&status));
        self.files.paths.borrow_mut().insert(key, found);
        found
    }

    /// What a path leads to in the eyes of the process.
    ///
    /// # Errors
    /// Those of `open(2)`.
    pub fn at_name(&self, path: &[u8]) -> Result<Identity, Errno> {
        let root = fs::openat(self.process.directory(), "root", ROOT_FLAGS, Mode::empty())?;
        open_below(&root, path, OFlags::PATH | OFlags::CLOEXEC).and_then(fs::fstat).map(|status| identity_of(&status))
    }

    /// The file that is mapped there.
    pub fn mapped(&self, mapping: &Mapping) -> Rc<Mapped> {
        if let Some(known) = self.files.mapped.borrow().get(&number(mapping.file)) {
            return Rc::clone(known);
        }
        let identity = self.open(mapping).and_then(fs::fstat).map(|status| identity_of(&status));
        let mapped = Rc::new(Mapped { identity, image: OnceCell::new() });
        // Another process may be allowed to see it.
        if identity.is_ok() {
            self.files.mapped.borrow_mut().insert(number(mapping.file), Rc::clone(&mapped));
        }
        mapped
    }

    /// What is in the file that is mapped there.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn image(&self, mapping: &Mapping) -> Result<Rc<Image>, Flaw> {
        self.mapped(mapping).image.get_or_init(|| Ok(Rc::new(read(&self.open(mapping)?.into())?))).clone()
    }

    /// Whether the file that is mapped there lies on a file system that is
    /// read-only for everybody, not just at one mount point.
    pub fn is_unwritable(&self, mapping: &Mapping) -> bool {
        let Ok((_, root)) = self.root() else { return false };
        let known = self.files.read_only.borrow().get(&root.namespace).cloned();
        let devices = known.unwrap_or_else(|| {
            let text = self.process.read("mountinfo").unwrap_or_default();
            let devices = Rc::new(read_only_devices(&text));
            self.files.read_only.borrow_mut().insert(root.namespace.clone(), Rc::clone(&devices));
            devices
        });
        devices.contains(&mapping.file.device)
    }

    fn open_path(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        open_below(&self.root()?.0, path, flags)
    }

    fn root(&self) -> Result<&(OwnedFd, Root), Errno> {
        let open = || {
            let namespace = self.process.link("ns/mnt").unwrap_or_default();
            let own = self.files.own_namespace.get_or_init(|| {
                fs::readlinkat(fs::CWD, "/proc/self/ns/mnt", Vec::new()).map(CString::into_bytes).unwrap_or_default()
            });
            let root = if namespace == *own && !own.is_empty() {
                fs::open("/", ROOT_FLAGS, Mode::empty())?
            } else {
                fs::openat(self.process.directory(), "root", ROOT_FLAGS, Mode::empty())?
            };
            let status = fs::fstat(&root)?;
            Ok((root, Root { namespace, device: status.st_dev, inode: status.st_ino }))
        };
        self.root.get_or_init(open).as_ref().map_err(|errno| *errno)
    }
}

/// Opens a path as if that directory was the root, for symbolic links in it, too.
fn open_below(root: &OwnedFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let below = path.strip_prefix(b"/").ok_or(Errno::NOENT)?;
    match fs::openat2(root, below, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
        Err(Errno::NOSYS) => fs::openat(root, below, flags, Mode::empty()),
        result => result,
    }
}

fn read(file: &Opened) -> Result<Image, Flaw> {
    let (machine, headers) = image::read(file, 0)?;
    let dynamic = match headers.dynamic {
        Some((address, size)) => Dynamic::read(file, headers.offset_of(address).ok_or(Flaw::Malformed)?, size)?,
        None => Dynamic::default(),
    };
    let places = places::read(file, machine, &headers, &dynamic);
    Ok(Image { headers, dynamic, places })
}

/// The devices of `/proc/PID/mountinfo` (`proc_pid_mountinfo(5)`) whose superblock
/// is read-only.
fn read_only_devices(text: &[u8]) -> Devices {
    text.split(|byte| *byte == b'\n').filter_map(read_only_device).collect()
}

fn read_only_device(line: &[u8]) -> Option<(u32, u32)> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = std::str::from_utf8(fields.nth(2)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    // Optional fields end with a hyphen.
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let (kind, _source, options) = (rest.next()?, rest.next()?, rest.next()?);
    let is_read_only = options.split(|byte| *byte == b',').any(|option| option == b"ro");
    let never_changes = ALWAYS_READ_ONLY.contains(&kind) || (is_read_only && kind != LAYERED);
    never_changes.then_some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_superblock_decides_what_is_read_only() {
        let line = |options: &str, kind: &str, own: &str| {
            read_only_device(
                format!("36 35 98:7 /a\\040b /mnt {options} shared:1 master:2 - {kind} /dev/x {own}").as_bytes(),
            )
        };
        assert_eq!(line("ro,noatime", "ext4", "ro,errors=continue"), Some((98, 7)));
        assert_eq!(line("ro,noatime", "ext4", "rw"), None, "somebody else may have it mounted writable");
        assert_eq!(line("rw", "squashfs", "rw"), Some((98, 7)));
        assert_eq!(line("ro", "overlay", "ro,lowerdir=/x"), None);
        assert_eq!(read_only_device(b""), None);
        assert_eq!(read_only_device(b"36 35 98:x / /mnt ro - ext4 /dev/x ro"), None);
    }

    #[test]
    fn files_of_this_process() {
        let (own, files) = (Process::open(std::process::id()).unwrap(), Files::default());
        let view = View::new(&own, &files);
        let maps = super::super::maps::parse(&own.read("maps").unwrap());
        let exe = std::env::current_exe().unwrap();
        let path = exe.as_os_str().as_encoded_bytes();
        let mapping = maps.iter().find(|mapping| mapping.path == path).unwrap();
        let identity = view.at_path(path).unwrap();
        assert_eq!(view.mapped(mapping).identity, Ok(identity));
        assert_eq!(view.image(mapping).unwrap().headers.segments[0].offset, 0);
        assert_eq!(view.at_path(b"/nonexistent/file"), Err(Errno::NOENT));
        assert_eq!(view.at_path(b"relative"), Err(Errno::NOENT));
    }
}

//! The files that processes map: they are found through `/proc`, and each is examined once for
//! all processes. `/proc/PID/map_files`, where the kernel permits its use, leads to a mapped
//! file even if its path leads elsewhere. The paths in `/proc/PID/maps` begin at the root
//! directory of this process if the file is below that (d_path in fs/d_path.c), and otherwise
//! at the root of the file's mount namespace, for instance a container's, which is
//! `/proc/PID/root`.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{self, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use sopin_core::image_layers::ImageLayers;
use sopin_core::sys::{self, FileSystem, Status};
use sopin_core::vmas::FileId;
use sopin_store::{Identity, SYSTEM};

use crate::descriptors;
use crate::image::{self, DynamicEntries, Flaw, Headers, RelocationTypes};
use crate::maps::Mapping;
use crate::memory::{Bytes, FileBytes};
use crate::mounts::Mounts;
use crate::process::Process;
use crate::relocated_words::{self, RelocatedWord};

/// Flags for a root directory.
const ROOT_FLAGS: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The most files that are remembered. A process can map very many, and have each of them parsed.
const MOST_FILES: usize = 4096;

/// The parsed contents of an object's file.
pub struct Image {
    /// Its program headers.
    pub headers: Headers,
    /// Its dynamic section; empty without one.
    pub dynamic: DynamicEntries,
    machine: RelocationTypes,
    words: OnceCell<Result<Vec<RelocatedWord>, Flaw>>,
}

impl Image {
    /// Reads the headers and the dynamic section of a file.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn read(file: &impl Bytes) -> Result<Self, Flaw> {
        let (machine, headers) = image::read(file, 0)?;
        let dynamic = DynamicEntries::of_file(file, &headers)?;
        Ok(Self { headers, dynamic, machine, words: OnceCell::new() })
    }

    /// Returns the words to which the loader stores. They are read from the file when they are needed
    /// first: the tables can be large.
    ///
    /// # Errors
    /// The flaw of the file because of which they are not known.
    pub fn words<B: Bytes>(&self, open: impl FnOnce() -> Result<B, Errno>) -> Result<&[RelocatedWord], Flaw> {
        let read = || relocated_words::read(&open()?, self.machine, &self.headers, &self.dynamic);
        self.words.get_or_init(read).as_ref().map(Vec::as_slice).map_err(Clone::clone)
    }
}

/// The mapped files, by what the kernel shows in `/proc/PID/maps`.
#[derive(Default)]
#[allow(clippy::type_complexity, reason = "each type is used once")]
pub struct Files {
    mapped: RefCell<HashMap<FileKey, Rc<MappedFile>>>,
    paths: RefCell<HashMap<(PathRoot, Vec<u8>), Result<Identity, Errno>>>,
    own_namespace: OnceCell<Vec<u8>>,
    own_mounts: OnceCell<Mounts>,
}

/// Which file a mapping maps: major and minor device number, inode number, path, and where the path
/// begins. On btrfs the mappings show one device number for all subvolumes, each of which numbers
/// its files anew, so that the numbers do not identify a file.
type FileKey = (u32, u32, u64, Vec<u8>, Option<PathRoot>);

/// A mapped file.
pub struct MappedFile {
    /// Its present identity, or why that cannot be determined.
    pub identity: Result<Identity, Errno>,
    /// Whether it can be written to.
    pub writability: Writability,
    /// Who may write to it, if that can be determined.
    pub ownership: Option<Ownership>,
    image: OnceCell<Result<Rc<Image>, Flaw>>,
}

/// Who may write to a file, as far as its mode shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// The user id of its owner.
    pub user: u32,
    /// Its group id.
    pub group: u32,
    /// `st_mode`
    pub mode: u32,
    /// How many names it has.
    pub links: u64,
}

impl Ownership {
    fn of(status: &Status) -> Self {
        // The kernel's type is narrower on aarch64.
        #[allow(clippy::useless_conversion, reason = "not on every architecture")]
        let links = status.st_nlink.into();
        Self { user: status.st_uid, group: status.st_gid, mode: status.st_mode, links }
    }
}

/// Whether a file that is mapped can be written to. That a mount or a superblock is read-only
/// now proves nothing: it can be remounted, or be mounted elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Writability {
    /// It can be, or that cannot be determined.
    #[default]
    Writable,
    /// It cannot be: the format of its file system has no way to do that, or the file has
    /// fs-verity.
    Unwritable,
    /// It is in a layer of the container's image in which its process runs
    /// (`sopin_core::image_layers`): what is written to it goes to another file.
    InImage,
    /// It is on an overlay that is the root directory of its process's container. It can be
    /// written to if it is not in a layer of the image, and that is not proven. It may have been
    /// in a layer when it was mapped.
    InContainer,
}

impl Writability {
    fn of(file: &OwnedFd, layers: impl FnOnce() -> Option<ImageLayers>) -> Self {
        let Ok(file) = descriptors::for_core(file, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY) else {
            return Self::Writable;
        };
        let Ok(status) = sys::fstat(file.raw()) else { return Self::Writable };
        match FileSystem::of(&file) {
            Ok(kind) if kind.forbids_writes_to(&file, status.st_dev) => Self::Unwritable,
            Ok(kind) if kind.is_overlay() => match layers() {
                Some(layers) if layers.have(&file) => Self::InImage,
                Some(layers) if layers.have_on_their_mount(&file) => Self::InContainer,
                _ => Self::Writable,
            },
            _ => Self::Writable,
        }
    }
}

/// Where the paths of a process's mappings begin.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct PathRoot {
    namespace: Vec<u8>,
    device: u64,
    inode: u64,
}

/// A process whose files are examined.
pub struct View<'a> {
    process: &'a Process,
    files: &'a Files,
    root: OnceCell<Result<(OwnedFd, PathRoot), Errno>>,
    layers: OnceCell<Option<ImageLayers>>,
    mounts: OnceCell<Mounts>,
}

impl<'a> View<'a> {
    /// Makes a view of the files of this process.
    pub fn new(process: &'a Process, files: &'a Files) -> Self {
        Self { process, files, root: OnceCell::new(), layers: OnceCell::new(), mounts: OnceCell::new() }
    }

    /// Opens the file that a mapping maps.
    ///
    /// # Errors
    /// Those of `open(2)`; `ESTALE` if the file could be opened only by its path, and that now
    /// leads to another file; `ENODEV` for a device, which is not opened, because that may have an
    /// effect.
    pub fn open(&self, mapping: &Mapping) -> Result<OwnedFd, Errno> {
        self.open_and_judge(mapping).map(|(file, _)| file)
    }

    /// Opens the file that a mapping maps. Returns as well whether it is proven to be that file,
    /// because it was not opened by its path.
    ///
    /// # Errors
    /// As [`View::open`].
    pub fn open_and_judge(&self, mapping: &Mapping) -> Result<(OwnedFd, bool), Errno> {
        let link = format!("map_files/{:x}-{:x}", mapping.start, mapping.end);
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let flags_for_reading = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        // EPERM without CAP_CHECKPOINT_RESTORE; ENOENT without CONFIG_CHECKPOINT_RESTORE.
        let by_link = fs::openat(self.process.directory(), link, flags, Mode::empty());
        let is_proven = by_link.is_ok();
        let file = by_link.or_else(|_| self.open_path(&mapping.path, flags))?;
        let status = fs::fstat(&file)?;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return Err(Errno::NODEV);
        }
        // Device numbers of overlayfs and btrfs are not those in the maps.
        if !is_proven && status.st_ino != mapping.file.inode {
            return Err(Errno::STALE);
        }
        let file = fs::open(descriptors::path_of(file.as_raw_fd()), flags_for_reading, Mode::empty())?;
        Ok((file, is_proven))
    }

    /// Returns the identity of the file to which a path in `/proc/PID/maps` leads.
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
        let found = self.open_path(path, flags).and_then(|file| descriptors::identity_of(&file));
        self.files.paths.borrow_mut().insert(key, found);
        found
    }

    /// Returns the identity of the file to which a path leads for the process.
    ///
    /// # Errors
    /// Those of `open(2)`.
    pub fn at_name(&self, path: &[u8]) -> Result<Identity, Errno> {
        let root = fs::openat(self.process.directory(), "root", ROOT_FLAGS, Mode::empty())?;
        open_below(&root, path, OFlags::PATH | OFlags::CLOEXEC).and_then(|file| descriptors::identity_of(&file))
    }

    /// Returns whether examining the file that a mapping maps could wait for ever, because a server
    /// answers for its file system. A file system that is mounted no more may be one of these.
    pub fn may_wait_for_ever(&self, mapping: &Mapping) -> bool {
        let device = mapping.file.device;
        let mounts = self.mounts.get_or_init(|| Mounts::parse(&self.process.read("mountinfo").unwrap_or_default()));
        let own = || Mounts::parse(&std::fs::read("/proc/self/mountinfo").unwrap_or_default());
        let is_served = mounts.is_served(device);
        let is_served = is_served.or_else(|| self.files.own_mounts.get_or_init(own).is_served(device));
        // Without a block device the major number is 0.
        is_served.unwrap_or(device.0 == 0)
    }

    /// Returns the file that a mapping maps.
    pub fn mapped(&self, mapping: &Mapping) -> Rc<MappedFile> {
        let FileId { device: (major, minor), inode } = mapping.file;
        let root = self.root().ok().map(|(_, root)| root.clone());
        let key = (major, minor, inode, mapping.path.clone(), root);
        if let Some(known) = self.files.mapped.borrow().get(&key) {
            return Rc::clone(known);
        }
        let file = self.open(mapping);
        let writability = file.as_ref().map(|file| Writability::of(file, || self.layers())).unwrap_or_default();
        let status = file.and_then(|file| descriptors::status_of(&file));
        let identity = status.map(|status| Identity::of(&status));
        let ownership = status.ok().map(|status| Ownership::of(&status));
        let mapped = Rc::new(MappedFile { identity, writability, ownership, image: OnceCell::new() });
        // For another process that maps the file it may be permitted.
        if identity.is_ok() {
            let mut known = self.files.mapped.borrow_mut();
            if known.len() >= MOST_FILES {
                known.clear();
            }
            known.insert(key, Rc::clone(&mapped));
        }
        mapped
    }

    /// Returns the parsed contents of the file that a mapping maps.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn image(&self, mapping: &Mapping) -> Result<Rc<Image>, Flaw> {
        self.mapped(mapping)
            .image
            .get_or_init(|| Ok(Rc::new(Image::read(&FileBytes::from(self.open(mapping)?))?)))
            .clone()
    }

    /// Returns whether a mapped copy may be the library's. Copies in the system's store must
    /// belong to root. For this process the root user of a container is another user, but one
    /// who owns the container's root directory. A copy whose owner cannot be determined is
    /// believed.
    pub fn may_be_copy(&self, mapping: &Mapping) -> bool {
        let in_system = mapping.path.strip_prefix(SYSTEM.to_bytes()).is_some_and(|rest| rest.starts_with(b"/"));
        if !in_system {
            return true;
        }
        let owner = self.mapped(mapping).ownership.map(|ownership| ownership.user);
        let root = self.root().ok().and_then(|(root, _)| fs::fstat(root).ok());
        owner.zip(root).is_none_or(|(owner, root)| owner == root.st_uid)
    }

    /// Returns the layers of the image in which the process runs. The kernel tells which they are,
    /// not the process.
    fn layers(&self) -> Option<ImageLayers> {
        let find = || {
            let root = fs::openat(self.process.directory(), "root", ROOT_FLAGS, Mode::empty()).ok()?;
            let root = descriptors::for_core(&root, OFlags::RDONLY | OFlags::DIRECTORY).ok()?;
            ImageLayers::of_root(&root, &self.process.read("mountinfo").ok()?)
        };
        *self.layers.get_or_init(find)
    }

    fn open_path(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        open_below(&self.root()?.0, path, flags)
    }

    fn root(&self) -> Result<&(OwnedFd, PathRoot), Errno> {
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
            Ok((root, PathRoot { namespace, device: status.st_dev, inode: status.st_ino }))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_this_process() {
        let (own, files) = (Process::open(std::process::id()).unwrap(), Files::default());
        let view = View::new(&own, &files);
        let maps = crate::maps::parse(&own.read("maps").unwrap());
        let exe = std::env::current_exe().unwrap();
        let path = exe.as_os_str().as_encoded_bytes();
        let mapping = maps.iter().find(|mapping| mapping.path == path).unwrap();
        let identity = view.at_path(path).unwrap();
        assert_eq!(view.mapped(mapping).identity, Ok(identity));
        assert_ne!(view.mapped(mapping).writability, Writability::Unwritable);
        assert_eq!(view.image(mapping).unwrap().headers.segments[0].offset, 0);
        assert_eq!(view.at_path(b"/nonexistent/file"), Err(Errno::NOENT));
        assert_eq!(view.at_path(b"relative"), Err(Errno::NOENT));
    }
}

//! Copies of files from which ranges are mapped. Each is made at most once for all processes of a
//! run, while they run.
//!
//! | place | used for |
//! |---|---|
//! | the system's store | processes that have the mounts of this one; it is only read here |
//! | the user's store | those of them that have exactly the rights of the user who runs the command |
//! | a sealed memfd | all others |
//!
//! A process gets a copy as a descriptor ([`UsableStores`]). A memfd is held in memory once for all
//! processes of the run, and `SOPIN_PRIVATE_LIMIT` limits them all together. A memfd that is made of
//! the memory of a process, because the file cannot be opened or the text is relocated, is that
//! process's own, and the same limit applies to all copies in memory that a process maps, with its
//! copies of data to which nothing had stored.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use rustix::fs::{MemfdFlags, OFlags, SealFlags};
use sopin_core::cause::Cause;
use sopin_core::credentials::User;
use sopin_core::object::file_name;
use sopin_core::pages::PageVec;
use sopin_core::private_memory::PrivateMemory;
use sopin_core::settings::Settings;
use sopin_core::sys::{self, Fd, FileSystem};
use sopin_core::untouched::MIN_RUN;
use sopin_inspect::maps::{self, Mapping, PinnedCopy};
use sopin_inspect::object::{Part, PartBacking};
use sopin_inspect::{ProcessObjects, descriptors};
use sopin_store::{Identity, InMemory, Known, MappedRanges, OriginFile, Store};

use crate::target::UsableStores;

/// All copies of a run.
pub struct Copies {
    system: Option<Store>,
    user: Option<Store>,
    /// Copies in memory, by the file.
    in_memory: HashMap<Version, Rc<Copy>>,
    /// Bytes of all copies in memory, and their limit.
    used: u64,
    limit: u64,
    buffer: PageVec<u8>,
}

/// One version of one file.
type Version = (u64, u64, u64, i128, i128);

/// A copy.
pub struct Copy {
    /// The copy, open for reading.
    pub file: OwnedFd,
    /// True if its writable data is proven to be that of the file. Otherwise only the ranges that are mapped
    /// from it were compared.
    pub has_data: bool,
}

/// The file that an object maps, open.
pub struct OriginalFile {
    /// The file.
    pub file: OwnedFd,
    /// The version that was copied.
    pub identity: Identity,
    /// Its path, as the process's mappings show it.
    pub path: CString,
    /// Whether the mappings show the same numbers as `stat(2)`.
    pub has_own_numbers: bool,
}

impl OriginalFile {
    /// Returns whether the file is still the version that was copied.
    pub fn is_unchanged(&self) -> bool {
        descriptors::identity_of(&self.file).is_ok_and(|identity| version(&identity) == version(&self.identity))
    }
}

fn version(identity: &Identity) -> Version {
    (identity.device, identity.inode, identity.size, identity.modified, identity.changed)
}

impl Copies {
    /// Opens the stores.
    pub fn new(settings: &Settings) -> Self {
        let mut stores = (None, None);
        if let Some(places) = &settings.store {
            let system = Store::open_system(&mut Known::new()).ok().flatten();
            let user = User::of_this_thread().and_then(|user| Store::open(places, user, &mut Known::new())).ok();
            stores = (system, user);
        }
        let (system, user) = stores;
        let limit = settings.private_limit;
        Self { system, user, in_memory: HashMap::new(), used: 0, limit, buffer: PageVec::new() }
    }

    /// Returns the owner of the user's store, if that is open.
    pub fn user(&self) -> Option<u32> {
        self.user.as_ref().map(|store| store.owner().id())
    }

    /// Finds the copy of a file that has the bytes that an object has `mapped`, or makes it.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub fn find(
        &mut self,
        original: &OriginalFile,
        mapped: &InMemory<'_>,
        stores: UsableStores,
    ) -> Result<Rc<Copy>, String> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = descriptors::for_core(&original.file, flags).map_err(|errno| format!("open: {errno}"))?;
        let file_system = FileSystem::of(&file).unwrap_or_default();
        let origin = OriginFile {
            file: &file,
            path: &original.path,
            identity: original.identity,
            has_own_numbers: original.has_own_numbers,
            file_system: &file_system,
        };
        if let Some(entry) = self.in_stores(origin, mapped, stores) {
            return Ok(entry);
        }
        self.in_memory(original, &file, mapped)
    }

    fn in_stores(&mut self, origin: OriginFile<'_>, mapped: &InMemory<'_>, usable: UsableStores) -> Option<Rc<Copy>> {
        let system = self.system.as_ref().filter(|_| usable.system);
        let system = system.and_then(|store| store.find(&origin, mapped, drop::<Cause>).ok()?);
        let entry = system.or_else(|| {
            let store = self.user.as_ref().filter(|_| usable.user)?;
            store.entry(origin, mapped, &mut self.buffer, drop::<Cause>).ok()
        })?;
        let has_data = entry.has_data();
        // SAFETY: `into_raw` gives up the descriptor. It must be this very one: the store has locked
        // it, and mappings made through it keep the lock.
        let file = unsafe { OwnedFd::from_raw_fd(entry.file.into_raw()) };
        Some(Rc::new(Copy { file, has_data }))
    }

    fn in_memory(&mut self, original: &OriginalFile, file: &Fd, mapped: &InMemory<'_>) -> Result<Rc<Copy>, String> {
        let key = version(&original.identity);
        let copy = if let Some(copy) = self.in_memory.get(&key) {
            Rc::clone(copy)
        } else {
            let size = original.identity.size;
            if self.used.saturating_add(size) > self.limit {
                return Err("the copies in memory have reached SOPIN_PRIVATE_LIMIT".to_owned());
            }
            let name = name_for(original.path.to_bytes());
            let file = copy_to_memory(file, &name, size).map_err(|error| format!("copy to memory: {error}"))?;
            if !original.is_unchanged() {
                return Err("the file is changing".to_owned());
            }
            // Its data may have been stored to since the object was loaded, without new times: only the
            // ranges that are to be mapped are compared.
            let copy = Rc::new(Copy { file, has_data: false });
            self.used += size;
            self.in_memory.insert(key, Rc::clone(&copy));
            copy
        };
        let flags = OFlags::RDONLY;
        let again = descriptors::for_core(&copy.file, flags).map_err(|errno| format!("open the copy: {errno}"))?;
        match mapped.equals(&again) {
            Ok(true) => Ok(copy),
            Ok(false) => Err("the file is not what is mapped".to_owned()),
            Err(errno) => Err(format!("compare the copy: {errno}")),
        }
    }
}

/// Counts the copies in memory that a process maps, and the long parts of objects that anonymous memory
/// has replaced: which pages of these nothing had stored to is not known any more.
pub fn in_memory_of(found: &ProcessObjects<'_>) -> PrivateMemory {
    let mut memory = PrivateMemory::new();
    let is_copy = |mapping: &&Mapping| {
        mapping.has_file() && maps::copy_at(mapping) == Some(PinnedCopy::Private) && found.view.may_be_copy(mapping)
    };
    for mapping in found.maps.iter().filter(is_copy) {
        memory.add((mapping.end - mapping.start) as usize);
    }
    let is_anonymous = |part: &&Part<'_>| {
        part.is_relocated && part.backing == PartBacking::Anonymous && part.from_file >= MIN_RUN as u64
    };
    for part in found.objects.iter().flat_map(|object| object.parts.iter().filter(is_anonymous)) {
        memory.add(part.from_file as usize);
    }
    memory
}

/// Returns the name of a copy in memory, which `/proc/PID/maps` shows.
pub fn name_for(path: &[u8]) -> String {
    let name: String = String::from_utf8_lossy(file_name(path)).chars().take(100).collect();
    format!("sopin:{name}")
}

/// Makes a file in memory that `fill` writes. Its seals forbid all changes afterwards.
///
/// # Errors
/// Those of the system calls.
pub fn make_sealed(name: &str, fill: impl FnOnce(&File) -> io::Result<()>) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy = match rustix::fs::memfd_create(name, flags | MemfdFlags::from_bits_retain(libc::MFD_EXEC)) {
        // Linux before 6.3 does not know the flag.
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create(name, flags),
        result => result,
    }?;
    let copy = File::from(copy);
    fill(&copy)?;
    rustix::fs::fcntl_add_seals(&copy, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(copy.into())
}

/// Copies a file of this size. It may grow meanwhile, without end.
fn copy_to_memory(file: &Fd, name: &str, size: u64) -> io::Result<OwnedFd> {
    make_sealed(name, |to| {
        let (mut offset, mut buffer) = (0, vec![0; 1 << 20]);
        loop {
            let read = sys::pread(file, &mut buffer, offset).map_err(|errno| io::Error::from_raw_os_error(errno.0))?;
            let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { return Ok(()) };
            offset += read as u64;
            if offset > size {
                return Err(io::Error::other("the file is growing"));
            }
            to.write_all_at(bytes, offset - read as u64)?;
        }
    })
}

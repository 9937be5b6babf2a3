//! Searches objects for tiny addresses: it finds the objects whose pointers would hold the address if they
//! reverted, and the function or the data at the address. It opens regular files only, reads them and trusts
//! nothing in them; it reports the files that cannot be read.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{self, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use sopin_inspect::files::{Files, View};
use sopin_inspect::image::{self, Flaw};
use sopin_inspect::kernel_log::{LogSign, LoggedCrash};
use sopin_inspect::maps;
use sopin_inspect::memory::{Bytes as _, FileBytes};
use sopin_inspect::post_mortem::build_id_at;
use sopin_inspect::post_mortem::system::System;
use sopin_inspect::process::{Process, Trouble};
use sopin_inspect::small_addresses::{HoldingWords, NamedAddress, NamedKind, names_at, words_holding_each};
use sopin_store::Version;
use walkdir::WalkDir;

use crate::exit::{Exit, Failure};
use crate::permission;

/// Opening a FIFO or a device must not wait, and must not have an effect.
const TO_READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);
/// More files than those of a whole system.
const MOST_FILES: usize = 2_000_000;
/// The most candidates that are kept for an address; all are counted.
const MOST_CANDIDATES: usize = 64;
/// The most files with an error that are kept; all are counted.
const MOST_UNREAD: usize = 16;
/// The most names of holding words that a candidate has.
const MOST_HOLDERS: usize = 4;

/// An address without base, and what the program did with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SmallAddress {
    /// The address.
    pub address: u64,
    /// It was called; otherwise read or written.
    pub is_jump: bool,
    is_aarch64: bool,
}

impl SmallAddress {
    /// Returns the address that a crash may have from a lost relocation.
    pub fn of(crash: &LoggedCrash) -> Option<Self> {
        let address = crash.small_address()?;
        Some(Self { address, is_jump: crash.sign() == LogSign::Jump, is_aarch64: crash.syndrome.is_some() })
    }

    fn machine(self) -> u16 {
        if self.is_aarch64 { object::elf::EM_AARCH64 } else { object::elf::EM_X86_64 }
    }
}

/// An object with pointers that would revert to an address.
#[derive(Clone, Debug, serde::Serialize)]
pub struct AddressCandidate {
    /// Its path.
    pub path: String,
    /// The functions or data at the address; empty if no symbol covers it.
    pub names: Vec<NamedAddress>,
    /// Number of relocated words that hold the address in the file.
    pub words: usize,
    /// The data in which the first of these words are, as far as they have names.
    pub holders: Vec<NamedAddress>,
    /// When the file or its inode was changed last (`st_ctime`), in seconds since 1970.
    pub changed: i64,
}

/// A file that could not be searched.
#[derive(Clone, Debug, serde::Serialize)]
pub struct UnreadFile {
    /// Its path.
    pub path: String,
    /// The reason.
    pub reason: String,
}

/// The search for all addresses of a log.
pub struct AddressSearch {
    system: System,
    addresses: Vec<(SmallAddress, Vec<AddressCandidate>, usize)>,
    seen: HashSet<(u64, u64)>,
    /// True if the user named a place to search in.
    pub is_requested: bool,
    /// Number of objects that were searched.
    pub objects: usize,
    /// The first files that could not be searched.
    pub unread: Vec<UnreadFile>,
    /// Number of all files that could not be searched.
    pub unread_count: usize,
}

impl AddressSearch {
    /// Makes a search for addresses, each once. The system has the files of packages, and debugging
    /// information.
    pub fn new(addresses: Vec<SmallAddress>, system: System) -> Self {
        let mut each: Vec<(SmallAddress, Vec<AddressCandidate>, usize)> = Vec::new();
        for address in addresses {
            if !each.iter().any(|(known, ..)| *known == address) {
                each.push((address, Vec::new(), 0));
            }
        }
        Self {
            system,
            addresses: each,
            seen: HashSet::new(),
            is_requested: false,
            objects: 0,
            unread: Vec::new(),
            unread_count: 0,
        }
    }

    /// Returns the candidates for an address, the most likely first, and how many there are.
    pub fn candidates(&self, wanted: SmallAddress) -> (Vec<AddressCandidate>, usize) {
        let found = self.addresses.iter().find(|(address, ..)| *address == wanted);
        let Some((_, candidates, count)) = found else { return (Vec::new(), 0) };
        let mut candidates = candidates.clone();
        // A candidate whose symbol begins at the address is likelier than one whose symbol only covers it. Among
        // equal ones, the file that was changed last is the likeliest.
        let rank = |candidate: &AddressCandidate| match candidate.names.first() {
            Some(name) if name.offset == 0 => 0,
            Some(_) => 1,
            None => 2,
        };
        let key = |candidate: &AddressCandidate| (rank(candidate), Reverse(candidate.changed));
        candidates.sort_by(|a, b| key(a).cmp(&key(b)).then_with(|| a.path.cmp(&b.path)));
        (candidates, *count)
    }

    /// Searches the regular files below a directory, or one file. It does not follow symbolic links and
    /// stays on the directory's file system.
    ///
    /// # Errors
    /// 3 when there is no such directory.
    pub fn directory(&mut self, directory: &Path) -> Result<(), Failure> {
        self.is_requested = true;
        // The directory itself may be named by a link.
        let root =
            directory.canonicalize().map_err(|error| Failure::new(Exit::Uninspected, directory.display(), error))?;
        let walk = WalkDir::new(&root).same_file_system(true).into_iter();
        // Nothing in a store is ever rewritten in place.
        let walk = walk.filter_entry(|entry| {
            !entry.file_type().is_dir() || Version::parse(entry.file_name().as_encoded_bytes()).is_none()
        });
        for (number, entry) in walk.enumerate() {
            if number == MOST_FILES {
                self.unread(&root, &"it has too many files; the rest of them was not searched");
                break;
            }
            match entry {
                Ok(entry) if entry.file_type().is_file() => self.path(entry.path()),
                Ok(_) => {}
                Err(error) if error.io_error().is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound) => {}
                Err(error) => self.unread(error.path().unwrap_or(&root), &error),
            }
        }
        Ok(())
    }

    /// Searches files of the system whose root directory is `root`.
    pub fn files(&mut self, paths: &[PathBuf], root: &Path) {
        self.is_requested = true;
        for path in paths {
            let shown = root.join(path.strip_prefix("/").unwrap_or(path));
            match self.system.open(path.as_os_str().as_encoded_bytes()) {
                Ok(file) => self.file(&shown, file.into()),
                // A directory or a device; a file that was removed.
                Err(Errno::NODEV | Errno::NOENT | Errno::NOTDIR) => {}
                Err(errno) => self.unread(&shown, &std::io::Error::from(errno)),
            }
        }
    }

    /// Searches the files that a process maps.
    ///
    /// # Errors
    /// 3 when the process cannot be inspected.
    pub fn process(&mut self, pid: u32) -> Result<(), Failure> {
        self.is_requested = true;
        let failure = |trouble: Trouble| {
            let failure = Failure::new(Exit::Uninspected, format_args!("process {pid}"), trouble.reason());
            if trouble == Trouble::Denied { failure.with_way_out(permission::remedy()) } else { failure }
        };
        let process = Process::open(pid).map_err(failure)?;
        let maps = maps::parse(&process.require("maps").map_err(failure)?);
        let files = Files::default();
        let view = View::new(&process, &files);
        let mut known = HashSet::new();
        for mapping in maps.iter().filter(|mapping| mapping.has_file() && !mapping.is_shared) {
            // On btrfs two files can have the same numbers.
            if !known.insert((mapping.file.device, mapping.file.inode, &mapping.path)) {
                continue;
            }
            let path = PathBuf::from(String::from_utf8_lossy(mapping.names().0).into_owned());
            if view.may_wait_for_ever(mapping) {
                self.unread(&path, &"a server answers for its file system, and may not answer");
                continue;
            }
            match view.open(mapping) {
                Ok(file) => self.file(&path, file),
                // A device, or a file that is gone.
                Err(Errno::NODEV) => {}
                Err(errno) => self.unread(&path, &std::io::Error::from(errno)),
            }
        }
        Ok(())
    }

    fn path(&mut self, path: &Path) {
        match fs::open(path, TO_READ | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(file) => self.file(path, file),
            // A link, a socket or a device without driver; a file that went meanwhile.
            Err(Errno::LOOP | Errno::NXIO | Errno::NOENT) => {}
            Err(errno) => self.unread(path, &std::io::Error::from(errno)),
        }
    }

    /// Searches an open file, if it is a regular one with an object of the right machine.
    fn file(&mut self, path: &Path, file: OwnedFd) {
        let Ok(status) = fs::fstat(&file) else { return };
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return;
        }
        // A file with several names is searched once.
        if !self.seen.insert((status.st_dev, status.st_ino)) {
            return;
        }
        let file = FileBytes::from(file);
        let Ok(header) = file.read_array::<20>(0) else { return };
        if !header.starts_with(b"\x7fELF") {
            return;
        }
        let machine = u16::from_le_bytes([header[18], header[19]]);
        let wanted: Vec<u64> = self
            .addresses
            .iter()
            .filter(|(address, ..)| address.machine() == machine)
            .map(|(address, ..)| address.address)
            .collect();
        self.objects += 1;
        if wanted.is_empty() {
            return;
        }
        match words_holding_each(&file, &wanted) {
            Ok(holding) => {
                let found = wanted.into_iter().zip(holding).filter(|(_, holding)| holding.count != 0);
                for (address, holding) in found {
                    self.found(path, &file, &status, address, &holding);
                }
            }
            // Relocatable objects and 32-bit objects are never what a 64-bit process has loaded.
            Err(Flaw::Foreign | Flaw::OtherMachine | Flaw::Malformed) => {}
            Err(Flaw::Read(Errno::IO)) => self.unread(path, &"it is cut off, or the disk cannot be read"),
            Err(flaw @ Flaw::Read(_)) => self.unread(path, &flaw),
        }
    }

    fn found(&mut self, path: &Path, file: &FileBytes, status: &Stat, address: u64, holding: &HoldingWords) {
        let names = self.names_at(file, address);
        let is_data = |name: &NamedAddress| name.kind == NamedKind::Datum;
        let mut holders: Vec<NamedAddress> =
            holding.first.iter().filter_map(|word| self.names_at(file, *word).into_iter().next()).collect();
        holders.truncate(MOST_HOLDERS);
        for (wanted, candidates, count) in self.addresses.iter_mut().filter(|(wanted, ..)| wanted.address == address) {
            // Pointers to data are not called, and functions are not read.
            if !names.is_empty() && names.iter().all(|name| is_data(name) == wanted.is_jump) {
                continue;
            }
            *count += 1;
            if candidates.len() < MOST_CANDIDATES {
                candidates.push(AddressCandidate {
                    path: path.display().to_string(),
                    names: names.clone(),
                    words: holding.count,
                    holders: holders.clone(),
                    changed: status.st_ctime,
                });
            }
        }
    }

    /// Returns the names of an address, of a separate file with debugging information if the object has
    /// none.
    fn names_at(&self, file: &FileBytes, address: u64) -> Vec<NamedAddress> {
        let names = names_at(file, address).unwrap_or_default();
        if names.iter().any(|name| name.name.is_some()) {
            return names;
        }
        let from_debug_file = || {
            let (_, headers) = image::read(file, 0).ok()?;
            let build_id = build_id_at(file, 0, &headers)?;
            names_at(&FileBytes::from(OwnedFd::from(self.system.debug_file(&build_id)?)), address).ok()
        };
        from_debug_file().filter(|found| !found.is_empty()).unwrap_or(names)
    }

    fn unread(&mut self, path: &Path, reason: &dyn std::fmt::Display) {
        self.unread_count += 1;
        if self.unread.len() < MOST_UNREAD {
            self.unread.push(UnreadFile { path: path.display().to_string(), reason: reason.to_string() });
        }
    }
}

/// Returns a time in seconds since 1970 as text.
pub fn time_of(seconds: i64) -> Option<String> {
    let time: SystemTime = UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))?;
    // The formatter refuses years with five digits.
    (seconds < 253_402_300_800).then(|| humantime::format_rfc3339_seconds(time).to_string())
}

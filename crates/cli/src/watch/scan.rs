//! Keeps the index up to date: looks at all processes of the scope, notices new ones and new objects,
//! and asks for the events of objects that are new. It prints nothing.
//!
//! Reading the mappings of a process takes the kernel a tenth of a millisecond and more. So they are read
//! again only if the sizes in `/proc/PID/statm` have changed, which loading an object does, and once
//! in a while nevertheless.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::FileType;
use rustix::io::Errno;
use sopin_inspect::files::{Files, View, Writability};
use sopin_inspect::maps::{self, Mapping};
use sopin_inspect::process::{self, Process, Trouble};

use super::events::Marks;
use super::index::{Index, IndexedProcess, Inode, MOST_OBJECTS, MOST_OBJECTS_OF_PROCESS};
use crate::pin::file_tree::FileTree;
use crate::pin::selection::{mount_namespace, open, pass_over};
use crate::status::answer::PassedOver;

/// The mappings of each process are read at least once in this number of scans.
const ROUNDS: u32 = 32;
/// The first bytes of an ELF file.
const MAGIC: [u8; 4] = *b"\x7fELF";
/// The beginnings of paths that are no files in directories.
const NOT_FILES: [&[u8]; 4] = [b"/dev/", b"/proc/", b"/sys/", b"/memfd:"];

/// The selection of the processes and the objects that are watched.
pub enum Scope {
    /// Every process, and all of its objects.
    All,
    /// These processes, and all of their objects.
    Processes(Vec<u32>),
    /// The objects in these files and in the files below these directories, in every process.
    Files(Vec<PathBuf>),
}

/// The result of a scan.
#[derive(Clone, Debug, Default)]
pub struct Scanned {
    /// The processes that were passed over.
    pub passed_over: PassedOver,
    /// The named processes that cannot be watched.
    pub troubled: Vec<(u32, Trouble)>,
    /// Number of objects that are not watched because there are too many.
    pub too_many: usize,
    /// The first error of asking for the events of a file, and its path.
    pub unmarked: Option<(Vec<u8>, String)>,
}

/// The number of the device and the inode, and a hash of the path and the mount namespace where it begins. Those
/// numbers alone do not identify a file on btrfs. The path itself may be long, and a file can have very many.
type MappedKey = ((u32, u32), u64, u64);
/// The most mapped files that are remembered. When there are more, all are forgotten, and the files are opened again.
const MOST_KNOWN: usize = 4 * MOST_OBJECTS;

/// Scans.
pub struct Scanner {
    scope: Scope,
    /// The files of the scope, found anew by each scan: a symbolic link may lead to another release now.
    trees: Vec<FileTree>,
    index: Arc<Mutex<Index>>,
    marks: Vec<Arc<dyn Marks + Send + Sync>>,
    /// The inode of each mapped file; `None` if the file is not watched.
    known: HashMap<MappedKey, Option<Inode>>,
    hashes: RandomState,
    own_namespace: Option<Vec<u8>>,
    round: u32,
    last: Instant,
    cost: Duration,
}

/// Returns the processor time that the calling thread has taken.
pub fn processor_time() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Locks the index. A thread that panics ends the command, so no lock is poisoned.
pub fn lock(index: &Mutex<Index>) -> MutexGuard<'_, Index> {
    index.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Scanner {
    /// Makes a scanner that asks all of `marks` for the events of each object.
    pub fn new(scope: Scope, index: Arc<Mutex<Index>>, marks: Vec<Arc<dyn Marks + Send + Sync>>) -> Self {
        Self {
            scope,
            trees: Vec::new(),
            index,
            marks,
            known: HashMap::new(),
            hashes: RandomState::new(),
            own_namespace: mount_namespace("self"),
            round: 0,
            last: Instant::now(),
            cost: Duration::ZERO,
        }
    }

    /// Looks at all processes once.
    ///
    /// # Errors
    /// When there is no `/proc`.
    pub fn scan(&mut self) -> io::Result<Scanned> {
        let begun = processor_time();
        let mut scanned = Scanned::default();
        let files = Files::default();
        let pids = match &self.scope {
            Scope::Processes(pids) => pids.clone(),
            _ => process::all()?,
        };
        let is_named = matches!(self.scope, Scope::Processes(_));
        if let Scope::Files(paths) = &self.scope {
            // Processes may map files that have been removed.
            self.trees = paths.iter().map(|path| FileTree::new(path).0).collect();
        }
        for pid in pids.iter().copied().filter(|pid| *pid != std::process::id()) {
            if let Err(trouble) = self.look(pid, &files, &mut scanned) {
                lock(&self.index).remove(pid);
                pass_over(&mut scanned.passed_over, &trouble);
                if is_named {
                    scanned.troubled.push((pid, trouble));
                }
            }
        }
        self.forget(&pids);
        self.round = self.round.wrapping_add(1);
        self.last = Instant::now();
        self.cost = processor_time().saturating_sub(begun);
        Ok(scanned)
    }

    /// Returns the processor time that the last scan took. On a busy machine it is much less than the time that passed.
    pub fn cost(&self) -> Duration {
        self.cost
    }

    /// Returns how long ago the last scan ended.
    pub fn rested(&self) -> Duration {
        self.last.elapsed()
    }

    fn look(&mut self, pid: u32, files: &Files, scanned: &mut Scanned) -> Result<(), Trouble> {
        let process = open(pid)?;
        let sizes = sizes(&process).unwrap_or_default();
        let is_due = pid.wrapping_add(self.round).is_multiple_of(ROUNDS);
        let is_same = |known: &IndexedProcess| known.start == process.facts.start && known.sizes == sizes;
        if !is_due && lock(&self.index).process(pid).is_some_and(is_same) {
            return Ok(());
        }
        let maps = maps::parse(&process.require("maps")?);
        let namespace = mount_namespace(&pid.to_string());
        let view = View::new(&process, files);
        let mut objects = Vec::new();
        let mut last: Option<&Mapping> = None;
        for mapping in maps.iter().filter(|mapping| may_be_object(mapping)) {
            // The mappings of an object follow each other.
            if last.is_some_and(|last| last.file == mapping.file && last.path == mapping.path) {
                continue;
            }
            last = Some(mapping);
            if objects.len() < MOST_OBJECTS_OF_PROCESS {
                objects.extend(self.object(mapping, (pid, &maps), &view, namespace.as_ref(), scanned));
            }
        }
        let (start, name) = (process.facts.start, process.facts.name.clone());
        lock(&self.index).set(pid, IndexedProcess { start, name, sizes, objects });
        Ok(())
    }

    /// Returns the watched object that a mapping is of. If it is new, asks for its events.
    fn object(
        &mut self,
        mapping: &Mapping,
        (pid, maps): (u32, &[Mapping]),
        view: &View,
        namespace: Option<&Vec<u8>>,
        scanned: &mut Scanned,
    ) -> Option<Inode> {
        let key = (mapping.file.device, mapping.file.inode, self.hashes.hash_one((&mapping.path, namespace)));
        if let Some(known) = self.known.get(&key) {
            return *known;
        }
        let has_own_paths = namespace == self.own_namespace.as_ref();
        let is_in_scope = || self.trees.iter().any(|tree| tree.is_mapped_by(mapping, has_own_paths));
        if matches!(self.scope, Scope::Files(_)) && !is_in_scope() {
            self.known.insert(key, None);
            return None;
        }
        // Another process may be permitted to open it, so that is not noted.
        let file = view.open(mapping).ok()?;
        let inode = self.watch(mapping, maps, (pid, view), &file, scanned);
        if self.known.len() >= MOST_KNOWN {
            self.known.clear();
        }
        self.known.insert(key, inode);
        inode
    }

    fn watch(
        &mut self,
        mapping: &Mapping,
        maps: &[Mapping],
        (pid, view): (u32, &View),
        file: &OwnedFd,
        scanned: &mut Scanned,
    ) -> Option<Inode> {
        let status = rustix::fs::fstat(file).ok()?;
        let is_file = FileType::from_raw_mode(status.st_mode) == FileType::RegularFile;
        if !is_file || !is_object(mapping, maps, file) {
            return None;
        }
        if matches!(view.mapped(mapping).writability, Writability::Unwritable | Writability::InImage) {
            return None;
        }
        let inode = Inode { device: status.st_dev, number: status.st_ino };
        if !lock(&self.index).add_object(inode, mapping.file, mapping.names().0) {
            scanned.too_many += 1;
            return None;
        }
        for marks in &self.marks {
            if let Err(error) = marks.add_mapped(file, inode, pid) {
                let is_full = error.raw_os_error().map(Errno::from_raw_os_error) == Some(Errno::NOSPC);
                let more = if is_full { " (sysctl fs.inotify.max_user_watches)" } else { "" };
                let reason = || (mapping.names().0.to_owned(), format!("{error}{more}"));
                scanned.unmarked.get_or_insert_with(reason);
            }
        }
        Some(inode)
    }

    /// Forgets processes that have ended, and objects that no process maps any more.
    fn forget(&mut self, pids: &[u32]) {
        let mut index = lock(&self.index);
        let ended: Vec<u32> = index.pids().filter(|pid| pids.binary_search(pid).is_err()).collect();
        for pid in ended {
            index.remove(pid);
        }
        let unmapped: HashSet<Inode> = index.take_unmapped().into_iter().collect();
        let objects = index.counts().1;
        drop(index);
        for marks in &self.marks {
            for inode in &unmapped {
                marks.remove(*inode);
            }
        }
        if !unmapped.is_empty() {
            self.known.retain(|_, inode| inode.is_none_or(|inode| !unmapped.contains(&inode)));
        }
        // Of files that are not watched nothing else shows that they are not mapped any more.
        if self.known.len() > 4 * objects + 4096 {
            self.known.retain(|_, inode| inode.is_some());
        }
    }
}

/// Returns whether a mapping may be of an object, judging by what `/proc/PID/maps` shows. Copies in a
/// store are no objects, because nothing writes to them.
fn may_be_object(mapping: &Mapping) -> bool {
    let path = mapping.names().0;
    mapping.has_file()
        && !mapping.is_shared
        && path.starts_with(b"/")
        && NOT_FILES.iter().all(|beginning| !path.starts_with(beginning))
        && maps::copy_at(mapping).is_none()
}

/// Returns whether a file is an object: it begins like one, or, because it may be being rewritten just now, some
/// of it can be executed.
fn is_object(mapping: &Mapping, maps: &[Mapping], file: &OwnedFd) -> bool {
    let mut magic = [0; MAGIC.len()];
    let has_magic = rustix::io::pread(file, &mut magic, 0) == Ok(MAGIC.len()) && magic == MAGIC;
    has_magic || maps.iter().any(|other| other.file == mapping.file && other.is_executable)
}

/// Returns the sizes that change when something is loaded, in pages: of the address space, of the text and of
/// the data (`proc_pid_statm(5)`).
fn sizes(process: &Process) -> Option<[u64; 3]> {
    let text = process.read("statm").ok()?;
    let fields: Vec<u64> =
        std::str::from_utf8(&text).ok()?.split_ascii_whitespace().map_while(|field| field.parse().ok()).collect();
    Some([*fields.first()?, *fields.get(3)?, *fields.get(5)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes what it is asked for.
    #[derive(Default)]
    struct Noted(Mutex<Vec<Inode>>);

    impl Marks for Noted {
        fn add(&self, _: &OwnedFd, inode: Inode) -> io::Result<()> {
            self.0.lock().unwrap().push(inode);
            Ok(())
        }

        fn remove(&self, _: Inode) {}
    }

    #[test]
    fn what_a_child_maps_is_found_and_asked_for_once() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let (index, marks) = (Arc::new(Mutex::new(Index::default())), Arc::new(Noted::default()));
        let program = std::fs::read_link(format!("/proc/{}/exe", child.id())).unwrap();
        let status = rustix::fs::stat(&program).unwrap();
        let inode = Inode { device: status.st_dev, number: status.st_ino };
        let mut scanner = Scanner::new(Scope::Processes(vec![child.id()]), Arc::clone(&index), vec![marks.clone()]);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while lock(&index).mappers(inode).is_empty() {
            assert!(std::time::Instant::now() < deadline);
            assert!(scanner.scan().unwrap().troubled.is_empty());
        }
        scanner.scan().unwrap();
        assert_eq!(marks.0.lock().unwrap().iter().filter(|marked| **marked == inode).count(), 1);
        let object = lock(&index).object(inode).cloned().unwrap();
        assert_eq!(object.path, program.as_os_str().as_encoded_bytes());
        assert_eq!(lock(&index).mappers(inode)[0].pid, child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(scanner.scan().unwrap().troubled, [(child.id(), Trouble::Vanished)]);
        assert_eq!(lock(&index).counts(), (0, 0));
    }

    #[test]
    fn copies_and_other_mappings_are_left_out() {
        let is_one = |line: &str| may_be_object(&maps::parse(line.as_bytes())[0]);
        assert!(is_one("1000-2000 r--p 00000000 08:01 11 /srv/a.so"));
        assert!(is_one("1000-2000 r--p 00000000 08:01 11 /srv/a.so (deleted)"));
        for line in [
            "1000-2000 r--s 00000000 08:01 11 /srv/a.so",
            "1000-2000 r--p 00000000 08:01 11 /s/0123abcd-fe00-2a-1000-10-11/libx.so",
            "1000-2000 r--p 00000000 08:01 11 /s/own-12-ab/libx.so",
            "1000-2000 r--p 00000000 00:01 11 /memfd:sopin:libx.so (deleted)",
            "1000-2000 r--p 00000000 00:00 0 [heap]",
            "1000-2000 r--p 00000000 00:05 11 /dev/zero",
        ] {
            assert!(!is_one(line), "{line}");
        }
    }
}

//! The index of the mapped objects and of the processes that map them. Pure: [`super::scan`] reads `/proc` and
//! keeps the index up to date.

use std::collections::{BTreeSet, HashMap};

use sopin_core::vmas::FileId;

/// The most objects that are watched, of all processes together, and of one process.
pub const MOST_OBJECTS: usize = 65_536;
pub const MOST_OBJECTS_OF_PROCESS: usize = 8_192;

/// A file, by the numbers of `stat(2)`. Those in `/proc/PID/maps` differ on btrfs and on overlays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Inode {
    /// `st_dev`
    pub device: u64,
    /// `st_ino`
    pub number: u64,
}

/// An object that at least one process maps.
#[derive(Clone, Debug)]
pub struct WatchedObject {
    /// The file, as `/proc/PID/maps` shows it.
    pub id: FileId,
    /// The path, as the first process shows it that was found to map it, without the mark of a deleted file.
    pub path: Vec<u8>,
    mappers: BTreeSet<u32>,
}

/// A process that maps an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapper {
    /// Its process id.
    pub pid: u32,
    /// When it was made. Together with the process id that is unique.
    pub start: u64,
    /// The name of its first thread.
    pub name: String,
}

/// The facts that the index keeps of a process.
#[derive(Clone, Debug, Default)]
pub struct IndexedProcess {
    /// When it was made.
    pub start: u64,
    /// The name of its first thread.
    pub name: String,
    /// Numbers that change with what it maps.
    pub sizes: [u64; 3],
    /// The objects that it maps.
    pub objects: Vec<Inode>,
}

/// The index.
#[derive(Debug, Default)]
pub struct Index {
    objects: HashMap<Inode, WatchedObject>,
    processes: HashMap<u32, IndexedProcess>,
}

impl Index {
    /// Returns a process.
    pub fn process(&self, pid: u32) -> Option<&IndexedProcess> {
        self.processes.get(&pid)
    }

    /// Returns the ids of all processes.
    pub fn pids(&self) -> impl Iterator<Item = u32> {
        self.processes.keys().copied()
    }

    /// Returns an object.
    pub fn object(&self, inode: Inode) -> Option<&WatchedObject> {
        self.objects.get(&inode)
    }

    /// Returns the ids of the processes that map a watched object.
    pub fn watched_pids(&self) -> impl Iterator<Item = u32> {
        self.processes.iter().filter(|(_, process)| !process.objects.is_empty()).map(|(pid, _)| *pid)
    }

    /// Returns the number of processes that map a watched object, and the number of these objects.
    pub fn counts(&self) -> (usize, usize) {
        (self.watched_pids().count(), self.objects.len())
    }

    /// Returns the processes that map an object, ascending by process id.
    pub fn mappers(&self, inode: Inode) -> Vec<Mapper> {
        let pids = self.objects.get(&inode).into_iter().flat_map(|object| &object.mappers);
        let mapper = |pid: &u32| {
            let IndexedProcess { start, name, .. } = self.processes.get(pid)?;
            Some(Mapper { pid: *pid, start: *start, name: name.clone() })
        };
        pids.filter_map(mapper).collect()
    }

    /// Adds an object, or returns false if there are too many.
    pub fn add_object(&mut self, inode: Inode, id: FileId, path: &[u8]) -> bool {
        let has_room = self.objects.len() < MOST_OBJECTS || self.objects.contains_key(&inode);
        if has_room {
            let object = || WatchedObject { id, path: path.to_owned(), mappers: BTreeSet::new() };
            self.objects.entry(inode).or_insert_with(object);
        }
        has_room
    }

    /// Notes what a process maps now. Objects that were not added are left out.
    pub fn set(&mut self, pid: u32, mut process: IndexedProcess) {
        process.objects.sort_unstable();
        process.objects.dedup();
        process.objects.retain(|inode| self.objects.contains_key(inode));
        self.detach(pid);
        for inode in &process.objects {
            if let Some(object) = self.objects.get_mut(inode) {
                object.mappers.insert(pid);
            }
        }
        self.processes.insert(pid, process);
    }

    /// Forgets a process.
    pub fn remove(&mut self, pid: u32) {
        self.detach(pid);
        self.processes.remove(&pid);
    }

    /// Forgets the objects that no process maps any more, and returns them.
    pub fn take_unmapped(&mut self) -> Vec<Inode> {
        let unmapped = self.objects.iter().filter(|(_, object)| object.mappers.is_empty());
        let unmapped: Vec<Inode> = unmapped.map(|(inode, _)| *inode).collect();
        for inode in &unmapped {
            self.objects.remove(inode);
        }
        unmapped
    }

    fn detach(&mut self, pid: u32) {
        for inode in self.processes.get(&pid).map(|process| process.objects.as_slice()).unwrap_or_default() {
            if let Some(object) = self.objects.get_mut(inode) {
                object.mappers.remove(&pid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inode(number: u64) -> Inode {
        Inode { device: 1, number }
    }

    fn process(objects: &[u64]) -> IndexedProcess {
        let objects = objects.iter().map(|number| inode(*number)).collect();
        IndexedProcess { start: 7, name: "gunicorn".to_owned(), objects, ..IndexedProcess::default() }
    }

    fn pids(index: &Index, number: u64) -> Vec<u32> {
        index.mappers(inode(number)).iter().map(|mapper| mapper.pid).collect()
    }

    #[test]
    fn objects_know_who_maps_them() {
        let mut index = Index::default();
        for number in [1, 2, 3] {
            assert!(index.add_object(inode(number), FileId::default(), b"/x"));
        }
        index.set(30, process(&[1, 2, 2, 9]));
        index.set(20, process(&[2]));
        assert_eq!((pids(&index, 1), pids(&index, 2), pids(&index, 9)), (vec![30], vec![20, 30], vec![]));
        assert_eq!(index.take_unmapped(), [inode(3)]);
        // It has unloaded one and loaded another.
        assert!(index.add_object(inode(4), FileId::default(), b"/y"));
        index.set(30, process(&[2, 4]));
        assert_eq!((pids(&index, 1), pids(&index, 4)), (vec![], vec![30]));
        index.remove(30);
        let mut unmapped = index.take_unmapped();
        unmapped.sort_unstable();
        assert_eq!(unmapped, [inode(1), inode(4)]);
        assert_eq!((pids(&index, 2), index.counts()), (vec![20], (1, 1)));
    }

    #[test]
    fn the_number_of_objects_is_bounded() {
        let mut index = Index::default();
        for number in 0..MOST_OBJECTS as u64 {
            assert!(index.add_object(inode(number), FileId::default(), b"/x"));
        }
        assert!(!index.add_object(inode(u64::MAX), FileId::default(), b"/x"));
        assert!(index.add_object(inode(0), FileId::default(), b"/x"), "it is known");
    }
}

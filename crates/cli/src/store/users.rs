//! Finds in `/proc/PID/maps` which processes map entries: by the last two components of the
//! path, which name a key and are therefore unique wherever the store is mounted, or by device
//! and inode if the path is another one. An entry that was unlinked and made anew under the
//! same key has another inode.

use std::collections::HashMap;
use std::fs;
use std::io;

use sopin_core::vmas::FileId;
use sopin_inspect::maps::{self, Mapping};

use super::entry::EntryDirectory;

/// The processes that map each entry.
#[derive(Default)]
pub struct Users {
    by_key: HashMap<Vec<u8>, Vec<u32>>,
    /// Number of processes whose mappings may not be read.
    pub not_inspected: usize,
}

impl Users {
    /// Reads the mappings of every process. A process that ends meanwhile is not counted as
    /// unreadable.
    pub fn find<'a>(entries: impl IntoIterator<Item = &'a EntryDirectory>) -> Self {
        let (mut keys, mut inodes) = (HashMap::new(), HashMap::new());
        for entry in entries {
            if let Some((name, status)) = &entry.copy {
                let tail = [entry.key.as_encoded_bytes(), name.as_encoded_bytes()].join(&b'/');
                let device = (rustix::fs::major(status.st_dev), rustix::fs::minor(status.st_dev));
                keys.insert(tail.clone(), status.st_ino);
                inodes.insert((device, status.st_ino), tail);
            }
        }
        let mut users = Self::default();
        if keys.is_empty() {
            return users;
        }
        for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            let maps = match fs::read(process.path().join("maps")) {
                Ok(maps) => maps,
                Err(error) => {
                    users.not_inspected += usize::from(error.kind() == io::ErrorKind::PermissionDenied);
                    continue;
                }
            };
            for mapping in mapped_files(&maps) {
                let (path, may_be_deleted) = mapping.names();
                let FileId { device, inode } = mapping.file;
                let by_path = keys.get_key_value(tail_of(path)).filter(|(_, kept)| !may_be_deleted || **kept == inode);
                let found = by_path.map(|(tail, _)| tail).or_else(|| inodes.get(&(device, inode)));
                if let Some(tail) = found {
                    let pids = users.by_key.entry(tail.clone()).or_default();
                    if pids.last() != Some(&pid) {
                        pids.push(pid);
                    }
                }
            }
        }
        users
    }

    /// Returns the processes that map an entry, in ascending order.
    pub fn of(&self, entry: &EntryDirectory) -> Vec<u32> {
        let Some((name, _)) = &entry.copy else { return Vec::new() };
        let tail = [entry.key.as_encoded_bytes(), name.as_encoded_bytes()].join(&b'/');
        let mut pids = self.by_key.get(&tail).cloned().unwrap_or_default();
        pids.sort_unstable();
        pids.dedup();
        pids
    }
}

/// Returns the last two components of a path.
fn tail_of(path: &[u8]) -> &[u8] {
    let mut slashes = path.iter().enumerate().rev().filter(|(_, byte)| **byte == b'/');
    match (slashes.next(), slashes.next()) {
        (Some(_), Some((index, _))) => &path[index + 1..],
        _ => path,
    }
}

/// Returns the mappings that map files.
fn mapped_files(maps: &[u8]) -> Vec<Mapping> {
    let mut mappings = maps::parse(maps);
    mappings.retain(|mapping| mapping.path.starts_with(b"/"));
    mappings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_maps_is_read() {
        let line = b"7f01-7f02 r-xp 00001000 fe:1f 4711                       /store/key/lib a.so (deleted)";
        let mapped = mapped_files(line).pop().unwrap();
        assert_eq!((mapped.file.device, mapped.file.inode), ((0xfe, 0x1f), 4711));
        assert_eq!(mapped.path, b"/store/key/lib a.so (deleted)");
        for other in [&b"7f01-7f02 rw-p 00000000 00:00 0 "[..], b"7f01-7f02 rw-p 00000000 00:00 0    [heap]", b"", b"x"]
        {
            assert!(mapped_files(other).is_empty());
        }
    }

    #[test]
    fn the_tail_of_a_path_is_a_key_and_a_name() {
        assert_eq!(tail_of(b"/store/key/libfoo.so"), b"key/libfoo.so");
        assert_eq!(tail_of(b"/key/libfoo.so"), b"key/libfoo.so");
        assert_eq!(tail_of(b"/libfoo.so"), b"/libfoo.so");
    }
}

//! Which processes map entries, found in `/proc/PID/maps`: by the last two
//! components of the path, which name a key and so are nobody else's, wherever
//! the store is mounted; or by device and inode, should the path say something
//! else. What was unlinked and made anew under the same key has another inode.

use std::collections::HashMap;
use std::fs;
use std::io;

use super::entry::Entry;

/// Who maps which entry.
#[derive(Default)]
pub struct Users {
    by_key: HashMap<Vec<u8>, Vec<u32>>,
    /// Processes whose mappings may not be read.
    pub not_inspected: usize,
}

/// What a line of maps says.
struct Mapped<'a> {
    device: (u32, u32),
    inode: u64,
    path: &'a [u8],
}

const DELETED: &[u8] = b" (deleted)";

impl Users {
    /// Looks at every process. One that ends meanwhile is not missed.
    pub fn find<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Self {
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
            for mapped in maps.split(|byte| *byte == b'\n').filter_map(parse) {
                let (path, is_deleted) =
                    mapped.path.strip_suffix(DELETED).map_or((mapped.path, false), |path| (path, true));
                let by_path =
                    keys.get_key_value(tail_of(path)).filter(|(_, inode)| !is_deleted || **inode == mapped.inode);
                let found = by_path.map(|(tail, _)| tail).or_else(|| inodes.get(&(mapped.device, mapped.inode)));
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

    /// The processes that map an entry, in ascending order.
    pub fn of(&self, entry: &Entry) -> Vec<u32> {
        let Some((name, _)) = &entry.copy else { return Vec::new() };
        let tail = [entry.key.as_encoded_bytes(), name.as_encoded_bytes()].join(&b'/');
        let mut pids = self.by_key.get(&tail).cloned().unwrap_or_default();
        pids.sort_unstable();
        pids.dedup();
        pids
    }
}

/// The last two components of a path.
fn tail_of(path: &[u8]) -> &[u8] {
    let mut slashes = path.iter().enumerate().rev().filter(|(_, byte)| **byte == b'/');
    match (slashes.next(), slashes.next()) {
        (Some(_), Some((index, _))) => &path[index + 1..],
        _ => path,
    }
}

/// `start-end mode offset major:minor inode   path`; `None` without a file. (The
/// kernel escapes newlines in the path alone, which no library of ours has.)
fn parse(line: &[u8]) -> Option<Mapped<'_>> {
    let mut fields = line.splitn(6, |byte| *byte == b' ');
    let device = std::str::from_utf8(fields.nth(3)?).ok()?;
    let inode = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let (major, minor) = device.split_once(':')?;
    let device = (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
    let path = fields.next()?.trim_ascii_start();
    path.starts_with(b"/").then_some(Mapped { device, inode, path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_maps_is_read() {
        let line = b"7f01-7f02 r-xp 00001000 fe:1f 4711                       /store/key/lib a.so (deleted)";
        let mapped = parse(line).unwrap();
        assert_eq!((mapped.device, mapped.inode), ((0xfe, 0x1f), 4711));
        assert_eq!(mapped.path, b"/store/key/lib a.so (deleted)");
        for other in [&b"7f01-7f02 rw-p 00000000 00:00 0 "[..], b"7f01-7f02 rw-p 00000000 00:00 0    [heap]", b"", b"x"]
        {
            assert!(parse(other).is_none());
        }
    }

    #[test]
    fn the_tail_of_a_path_is_a_key_and_a_name() {
        assert_eq!(tail_of(b"/store/key/libfoo.so"), b"key/libfoo.so");
        assert_eq!(tail_of(b"/key/libfoo.so"), b"key/libfoo.so");
        assert_eq!(tail_of(b"/libfoo.so"), b"/libfoo.so");
    }
}

//! The mappings of a process and their files: parses `/proc/PID/maps` and undoes the kernel's
//! escapes.

use sopin_core::unnamed::is_path_of_copy;
use sopin_core::vmas::{self, FileId};
use sopin_store::{Identity, Version, is_own_entry};

/// The mark that the kernel appends to the path of a file that has no name any more.
const DELETED: &[u8] = b" (deleted)";

/// Returns a path without the mark of a file that has no name any more, and whether it has that. A
/// file can also be named so.
pub fn without_mark(path: &[u8]) -> (&[u8], bool) {
    path.strip_suffix(DELETED).map_or((path, false), |path| (path, true))
}

/// One VMA.
#[allow(clippy::struct_excessive_bools, reason = "they are the columns of /proc/PID/maps")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
    /// Loads are allowed.
    pub is_readable: bool,
    /// Stores are allowed.
    pub is_writable: bool,
    /// Execution is allowed.
    pub is_executable: bool,
    /// `MAP_SHARED`
    pub is_shared: bool,
    /// Offset in the file of the first byte.
    pub offset: u64,
    /// The file; the inode number is 0 if there is none.
    pub file: FileId,
    /// The path, as the kernel shows it: see [`Mapping::names`].
    pub path: Vec<u8>,
}

impl Mapping {
    /// Returns whether a file is mapped.
    pub fn has_file(&self) -> bool {
        self.file.inode != 0
    }

    /// Returns whether anything can be read or executed here.
    pub fn is_accessible(&self) -> bool {
        self.is_readable || self.is_writable || self.is_executable
    }

    /// Returns the file's path, and whether the file may have no name any more. That is not
    /// certain, because a file can also be named "x (deleted)".
    pub fn names(&self) -> (&[u8], bool) {
        without_mark(&self.path)
    }

    /// Returns start, end and offset of the part that lies in `[start, end)`.
    pub fn part(&self, start: u64, end: u64) -> Option<(u64, u64, u64)> {
        let (from, to) = (self.start.max(start), self.end.min(end));
        (from < to).then(|| (from, to, self.offset.saturating_add(from - self.start)))
    }
}

/// Parses the text of `/proc/PID/maps`; skips lines of another form.
pub fn parse(text: &[u8]) -> Vec<Mapping> {
    text.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Mapping> {
    let (vma, path) = vmas::parse_line(line)?;
    let path = line.get(path..)?;
    Some(Mapping {
        start: vma.span.start as u64,
        end: vma.span.end as u64,
        is_readable: vma.is_readable(),
        is_writable: vma.is_writable(),
        is_executable: vma.is_executable(),
        is_shared: vma.is_shared,
        offset: vma.offset,
        file: vma.file,
        path: unescaped(path),
    })
}

/// Returns a path of which the kernel has written some bytes as a backslash and three octal digits.
pub fn unescaped(path: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; path.len()];
    // The result is not longer than the path.
    let len = vmas::unescape(path, &mut bytes).map_or(0, <[u8]>::len);
    bytes.truncate(len);
    bytes
}

/// Returns the VMAs that have a byte in `[start, end)`.
pub fn within(maps: &[Mapping], start: u64, end: u64) -> &[Mapping] {
    let first = maps.partition_point(|mapping| mapping.end <= start);
    let rest = maps.get(first..).unwrap_or_default();
    let count = rest.partition_point(|mapping| mapping.start < end);
    rest.get(..count).unwrap_or_default()
}

/// Returns the VMA that contains the address.
pub fn at(maps: &[Mapping], address: u64) -> Option<&Mapping> {
    within(maps, address, address.saturating_add(1)).first()
}

/// A copy that the library has made of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinnedCopy {
    /// `<store>/<key>/<name>`
    Stored(Identity),
    /// The same path of an entry that one process uses alone.
    Own,
    /// A memfd of the process, or a file without a name.
    Private,
}

/// Returns whether a path from `/proc/PID/maps` is that of one of the library's copies.
/// An entry of the store may have been unlinked since.
pub fn copy_at(mapping: &Mapping) -> Option<PinnedCopy> {
    let (path, is_deleted) = mapping.names();
    if is_deleted && !mapping.is_shared && is_path_of_copy(path) {
        return Some(PinnedCopy::Private);
    }
    if let Some(name) = path.strip_prefix(b"/memfd:sopin") {
        return (name.starts_with(b":") || name.starts_with(b"/")).then_some(PinnedCopy::Private);
    }
    let mut parts = path.rsplit(|byte| *byte == b'/');
    let (_name, key) = (parts.next()?, parts.next()?);
    let shared = Version::parse(key).map(|version| PinnedCopy::Stored(version.identity));
    shared.or(is_own_entry(key).then_some(PinnedCopy::Own))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Mapping {
        let mut all = parse(line.as_bytes());
        assert_eq!(all.len(), 1, "{line}");
        all.remove(0)
    }

    #[test]
    fn names_with_anything_in_them_are_read() {
        let mapping = one("1000-3000 r-xp 00002000 08:1f 42      /a b/c\\012d (deleted)\n");
        assert_eq!(mapping.path, b"/a b/c\nd (deleted)");
        assert_eq!(mapping.names(), (&b"/a b/c\nd"[..], true));
        assert!(mapping.is_readable && mapping.is_executable && !mapping.is_writable && !mapping.is_shared);
        assert_eq!(mapping.part(0x2000, 0x9000), Some((0x2000, 0x3000, 0x3000)));
        assert_eq!(mapping.part(0x3000, 0x9000), None);
        let none = one("3000-4000 ---p 00000000 00:00 0 ");
        assert!(!none.has_file() && !none.is_accessible() && none.path.is_empty());
    }

    #[test]
    fn lines_of_another_form_are_skipped() {
        assert!(parse(b"").is_empty());
        assert!(parse(b"\n\nnonsense\n12-").is_empty());
    }

    #[test]
    fn neighbours_are_found() {
        let maps = parse(b"1000-2000 r--p 0 0:0 0\n3000-4000 r--p 0 0:0 0\n4000-5000 r--p 0 0:0 0\n");
        let starts = |start, end| within(&maps, start, end).iter().map(|mapping| mapping.start).collect::<Vec<_>>();
        assert_eq!(starts(0, 0x9000), [0x1000, 0x3000, 0x4000]);
        assert_eq!(starts(0x1fff, 0x3000), [0x1000]);
        assert_eq!(starts(0x2000, 0x3000), [0_u64; 0]);
        assert_eq!(at(&maps, 0x4fff).map(|mapping| mapping.start), Some(0x4000));
        assert_eq!(at(&maps, 0x2000), None);
    }

    #[test]
    fn copies_of_the_library_are_known_by_their_names() {
        let copy = |path: &str| copy_at(&Mapping { path: path.into(), ..Mapping::default() });
        let key = Identity { device: 0xfe00, inode: 42, size: 4096, modified: 16, changed: 17 };
        assert_eq!(copy("/s/0123abcd-fe00-2a-1000-10-11/libx.so"), Some(PinnedCopy::Stored(key)));
        assert_eq!(copy("/s/0123abcd-fe00-2a-1000-10-11/libx.so (deleted)"), Some(PinnedCopy::Stored(key)));
        assert_eq!(copy("/s/own-12-ab/libx.so"), Some(PinnedCopy::Own));
        assert_eq!(copy("/memfd:sopin:libx.so (deleted)"), Some(PinnedCopy::Private));
        assert_eq!(copy("/memfd:sopin/libx.so (deleted)"), Some(PinnedCopy::Private));
        assert_eq!(copy("/var/tmp/#4711 (deleted)"), Some(PinnedCopy::Private));
        for other in [
            "/var/tmp/#4711",
            "/memfd:sopinx (deleted)",
            "/memfd:x (deleted)",
            "/usr/lib/libx.so",
            "/s/0123abcd-fe00-2a-1000-10/libx.so",
            "/s/0123abcd-fe00-2a-1000-10-11-12/libx.so",
            "/s/123abcd-fe00-2a-1000-10-11/libx.so",
            "",
            "[heap]",
        ] {
            assert_eq!(copy(other), None, "{other}");
        }
    }
}

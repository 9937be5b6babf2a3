//! The names of entries: what makes one version of a file.

use core::ffi::CStr;
use core::fmt::Write as _;

/// One version of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `st_dev`
    pub device: u64,
    /// `st_ino`
    pub inode: u64,
    /// `st_size` in bytes
    pub size: u64,
    /// `st_mtim` in nanoseconds
    pub modified: i128,
    /// `st_ctim` in nanoseconds
    pub changed: i128,
}

impl Identity {
    /// What `stat(2)` says.
    pub fn of(status: &libc::stat) -> Self {
        let nanoseconds = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        Self {
            device: status.st_dev,
            inode: status.st_ino,
            size: status.st_size.cast_unsigned(),
            modified: nanoseconds(status.st_mtime, status.st_mtime_nsec),
            changed: nanoseconds(status.st_ctime, status.st_ctime_nsec),
        }
    }

    /// Whether the last change lies at least so many seconds before `now`.
    pub fn has_settled(&self, now: i64, seconds: i64) -> bool {
        self.changed / 1_000_000_000 < i128::from(now - seconds)
    }
}

/// The name of an entry's directory:
/// `<hash of the file name>-<device>-<inode>-<size>-<mtime>-<ctime>`, all hexadecimal.
pub struct Key {
    text: crate::line::Line<160>,
    prefix: Prefix,
}

/// The part of a key that tells which entries may be older versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Hash of the file name.
    pub name_hash: u32,
    /// Device of the source.
    pub device: u64,
    /// Inode of the source.
    pub inode: u64,
}

impl Key {
    /// The key of this version of a file of this name.
    pub fn new(identity: &Identity, file_name: &CStr) -> Self {
        let Identity { device, inode, size, modified, changed } = identity;
        let prefix = Prefix { name_hash: hash(file_name.to_bytes()), device: *device, inode: *inode };
        let mut text = crate::line::Line::new();
        let name_hash = prefix.name_hash;
        // 8 + 5 * (1 + at most 25 digits) characters: it fits.
        let _ = write!(text, "{name_hash:08x}-{device:x}-{inode:x}-{size:x}-{modified:x}-{changed:x}");
        text.terminate();
        Self { text, prefix }
    }

    /// The name, for system calls.
    pub fn as_c_str(&self) -> &CStr {
        self.text.as_c_str()
    }

    /// Its distinguishing part.
    pub fn prefix(&self) -> Prefix {
        self.prefix
    }
}

impl Prefix {
    /// Reads the beginning of a key; `None` if `name` is not one.
    pub fn parse(name: &[u8]) -> Option<Self> {
        let name = core::str::from_utf8(name).ok()?;
        let mut parts = name.split('-');
        let name_hash = u32::from_str_radix(parts.next().filter(|part| part.len() == 8)?, 16).ok()?;
        let device = u64::from_str_radix(parts.next()?, 16).ok()?;
        let inode = u64::from_str_radix(parts.next()?, 16).ok()?;
        (parts.count() == 3).then_some(Self { name_hash, device, inode })
    }
}

/// FNV-1a, 32 bits: only to look at fewer entries.
fn hash(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: Identity =
        Identity { device: 0xfe00, inode: 42, size: 4096, modified: 1_700_000_000_123_456_789, changed: 7_000_000_000 };

    #[test]
    fn a_key_can_be_read_back() {
        let key = Key::new(&IDENTITY, c"libfoo.so");
        assert_eq!(Prefix::parse(key.as_c_str().to_bytes()), Some(key.prefix()));
        assert_eq!(key.prefix().inode, 42);
    }

    #[test]
    fn every_part_of_an_identity_counts() {
        let key = |identity: Identity| std::ffi::CString::from(Key::new(&identity, c"libfoo.so").as_c_str());
        let others = [
            Identity { device: 1, ..IDENTITY },
            Identity { inode: 1, ..IDENTITY },
            Identity { size: 1, ..IDENTITY },
            Identity { modified: 1, ..IDENTITY },
            Identity { changed: 1, ..IDENTITY },
        ];
        for other in others {
            assert_ne!(key(other), key(IDENTITY));
        }
    }

    #[test]
    fn the_longest_key_fits() {
        let most = i128::from(i64::MIN) * 1_000_000_000;
        let longest = Identity { device: u64::MAX, inode: u64::MAX, size: u64::MAX, modified: most, changed: most };
        let key = Key::new(&longest, c"x");
        assert!(Prefix::parse(key.as_c_str().to_bytes()).is_some());
    }

    #[test]
    fn other_names_are_no_keys() {
        for name in ["", ".new-1-2", "0123-1-2-3-4-5", "00000000-1-2-3-4", "00000000-1-2-3-4-5-6", "zzzzzzzz-1-2-3-4-5"]
        {
            assert_eq!(Prefix::parse(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn a_file_settles() {
        assert!(IDENTITY.has_settled(10, 2));
        assert!(!IDENTITY.has_settled(9, 2));
        assert!(!IDENTITY.has_settled(0, 2));
    }
}

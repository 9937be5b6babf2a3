//! The names of entries, which identify one version of a file.

use core::ffi::CStr;

use sopin_core::line::Line;

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
    /// Returns the identity that `stat(2)` shows.
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

    /// Returns whether the time of the last change is finer than a second. Then the kernel has
    /// set it, and not an image builder.
    pub fn has_fine_times(&self) -> bool {
        self.changed % 1_000_000_000 != 0
    }

    /// Returns whether the last change lies at least so many seconds before `now`, or after
    /// `now`. In the latter case the clock was set back since, so that the next change gets
    /// another time as well.
    pub fn has_settled(&self, now: i64, seconds: i64) -> bool {
        // A division of 128 bits calls a function of compiler_builtins, which is built without
        // marks for branch targets.
        let nanoseconds = |seconds: i64| i128::from(seconds) * 1_000_000_000;
        self.changed < nanoseconds(now - seconds) || self.changed > nanoseconds(now + 1 + seconds)
    }
}

/// The name of an entry's directory:
/// `<hash of the file name>-<device>-<inode>-<size>-<mtime>-<ctime>`, all hexadecimal.
pub struct Key {
    text: Line<160>,
    version: Version,
}

/// The version of a file that a key names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Hash of the file name.
    pub name_hash: u32,
    /// The identity of the origin.
    pub identity: Identity,
}

impl Key {
    /// Returns the key of this version of a file of this name.
    pub fn new(identity: &Identity, file_name: &CStr) -> Self {
        Self::of(Version { name_hash: hash(file_name.to_bytes().iter().copied()), identity: *identity })
    }

    fn of(version: Version) -> Self {
        let Version { name_hash, identity: Identity { device, inode, size, modified, changed } } = version;
        let mut text = Line::new();
        // 8 + 5 * (1 + at most 25 digits) characters: it fits.
        append(&mut text, name_hash.into(), 8);
        let numbers = [device, inode, size].map(u128::from);
        for number in numbers.into_iter().chain([modified, changed].map(i128::cast_unsigned)) {
            text.append(b"-");
            append(&mut text, number, 1);
        }
        text.terminate();
        Self { text, version }
    }

    /// Returns the name as a C string, for system calls.
    pub fn as_c_str(&self) -> &CStr {
        self.text.as_c_str()
    }

    /// Returns the version that it names.
    pub fn version(&self) -> Version {
        self.version
    }
}

impl Version {
    /// Parses a key; `None` if `name` is not exactly what `Key` writes.
    pub fn parse(name: &[u8]) -> Option<Self> {
        let mut parts = name.split(|byte| *byte == b'-').map(|part| core::str::from_utf8(part).unwrap_or_default());
        let name_hash = u32::from_str_radix(parts.next()?, 16).ok()?;
        let mut small = || u64::from_str_radix(parts.next()?, 16).ok();
        let (device, inode, size) = (small()?, small()?, small()?);
        // Times before 1970 are written as the bits of a negative number.
        let mut time = || u128::from_str_radix(parts.next()?, 16).ok().map(u128::cast_signed);
        let (modified, changed) = (time()?, time()?);
        let version = Self { name_hash, identity: Identity { device, inode, size, modified, changed } };
        (Key::of(version).as_c_str().to_bytes() == name).then_some(version)
    }

    /// Returns whether the origin was the same file, possibly with other contents.
    pub fn is_of_same_file(&self, other: &Self) -> bool {
        let parts = |version: &Self| (version.name_hash, version.identity.device, version.identity.inode);
        parts(self) == parts(other)
    }

    /// Returns whether a file of this name may have this key.
    pub fn may_be_named(&self, file_name: &[u8]) -> bool {
        hash(file_name.iter().copied()) == self.name_hash
    }
}

/// Appends a number in hexadecimal digits, at least so many. Every look into a store makes a key,
/// and `core::fmt` takes many times as long.
fn append(text: &mut Line<160>, number: u128, least: u32) {
    let significant = (u128::BITS - number.leading_zeros()).div_ceil(4);
    for index in (0..significant.max(least)).rev() {
        let digit = (number >> (4 * index)) as u8 & 0xf;
        text.append(&[if digit < 10 { b'0' + digit } else { b'a' + digit - 10 }]);
    }
}

/// Returns the FNV-1a hash of 32 bits.
pub fn hash(bytes: impl IntoIterator<Item = u8>) -> u32 {
    bytes.into_iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: Identity =
        Identity { device: 0xfe00, inode: 42, size: 4096, modified: 1_700_000_000_123_456_789, changed: 7_000_000_000 };

    #[test]
    fn a_key_can_be_read_back() {
        let key = Key::new(&IDENTITY, c"libfoo.so");
        assert_eq!(Version::parse(key.as_c_str().to_bytes()), Some(key.version()));
        assert_eq!(key.version().identity, IDENTITY);
        assert!(key.version().may_be_named(b"libfoo.so") && !key.version().may_be_named(b"libbar.so"));
    }

    #[test]
    fn a_key_has_the_numbers_in_hexadecimal_digits() {
        let before_1970 = Identity { device: 0, inode: u64::MAX, modified: 0, changed: -1, ..IDENTITY };
        for identity in [IDENTITY, before_1970] {
            let Identity { device, inode, size, modified, changed } = identity;
            let numbers = std::format!("{device:x}-{inode:x}-{size:x}-{modified:x}-{changed:x}");
            let text = std::format!("{:08x}-{numbers}", hash(*b"x"));
            assert_eq!(Key::new(&identity, c"x").as_c_str().to_bytes(), text.as_bytes());
        }
        let short = Version { name_hash: 0xab, identity: IDENTITY };
        assert!(Key::of(short).as_c_str().to_bytes().starts_with(b"000000ab-fe00-2a-1000-"));
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
        assert_eq!(Version::parse(key.as_c_str().to_bytes()), Some(key.version()));
    }

    #[test]
    fn other_names_are_no_keys() {
        let names =
            ["", ".new-1-2", "0123-1-2-3-4-5", "00000000-1-2-3-4", "00000000-1-2-3-4-5-6", "zzzzzzzz-1-2-3-4-5"];
        for name in names.into_iter().chain(["0000000A-1-2-3-4-5", "00000000-01-2-3-4-5", "00000000-+1-2-3-4-5"]) {
            assert_eq!(Version::parse(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn a_file_settles() {
        assert!(IDENTITY.has_settled(10, 2));
        assert!(!IDENTITY.has_settled(9, 2));
        assert!(!IDENTITY.has_settled(7, 2));
        assert!(!IDENTITY.has_settled(4, 2));
    }

    #[test]
    fn a_file_from_the_future_settles() {
        assert!(IDENTITY.has_settled(3, 2));
        assert!(Identity { changed: 4_102_444_800_000_000_000, ..IDENTITY }.has_settled(1_800_000_000, 60));
        assert!(Identity { changed: 1_800_000_000_000_000_000, ..IDENTITY }.has_settled(60, 60));
    }
}

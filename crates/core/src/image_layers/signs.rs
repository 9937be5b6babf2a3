//! In which layer of an overlay a file is, by what the kernel reports about its inode.
//!
//! No call says that. But since Linux 6.6 three facts together show it (fs/overlayfs):
//!
//! - The handle of a file says whether the file is *only* in the upper layer
//!   (`ovl_check_encode_origin`, export.c). If not, it is the handle of the lower file.
//! - A file that was copied up has an attribute that names its origin (`ovl_set_origin_fh`,
//!   copy_up.c). The kernel hides this attribute but counts its name when it is asked how long the
//!   list of names is (`ovl_listxattr`, xattrs.c).
//! - A lower file with several names is copied up without that attribute. But then the file has
//!   the upper inode's number, which the handle does not contain (`ovl_getattr`, inode.c).
//!
//! An upper layer could be on a file system without attributes, and another kernel could hide
//! their names better. So the root directory of the overlay must show the signs of the upper
//! layer, where it is: then the kernel reports them ([`are_shown_for_root`]).

use crate::sys::{self, Fd, FileHandle};

/// `OVL_FILEID_V1`, `OVL_FH_MAGIC` and `OVL_FH_FLAG_PATH_UPPER` of fs/overlayfs/overlayfs.h.
const OVERLAY_HANDLE: i32 = 0xf8;
const MAGIC: u8 = 0xfb;
const IS_IN_UPPER: u8 = 1 << 2;

/// What the kernel shows about the layer that a file is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// The file is in a lower layer.
    Lower,
    /// The file is in the upper layer.
    Upper,
    /// The file could be in either.
    Nothing,
}

/// Returns what the kernel shows about a file on an overlay, whose `st_ino` is `inode`.
pub fn shown_for(file: &Fd, inode: u64) -> Shown {
    let Ok(handle) = FileHandle::of(file) else { return Shown::Nothing };
    match Handle::of(&handle) {
        Some(handle) if handle.is_upper => Shown::Upper,
        Some(handle) if handle.contains(inode) && hides_attributes(file) == Some(false) => Shown::Lower,
        _ => Shown::Nothing,
    }
}

/// Returns whether the kernel shows for the root directory of an overlay that it is in the upper
/// layer, by a handle as well as by a hidden attribute: the overlay's UUID, or that something in
/// the directory was copied up.
pub fn are_shown_for_root(root: &Fd) -> bool {
    let is_upper = FileHandle::of(root).is_ok_and(|handle| Handle::of(&handle).is_some_and(|handle| handle.is_upper));
    is_upper && hides_attributes(root) == Some(true)
}

fn hides_attributes(file: &Fd) -> Option<bool> {
    sys::attribute_name_lens(file).ok().map(|(counted, listed)| counted != listed)
}

/// The handle of a file on an overlay.
struct Handle<'a> {
    is_upper: bool,
    /// The handle of the file in its layer.
    of_layer: &'a [u8],
}

impl<'a> Handle<'a> {
    fn of(handle: &'a FileHandle) -> Option<Self> {
        let (kind, bytes) = handle.parts();
        Self::parse(kind, bytes)
    }

    /// Reads a `struct ovl_fh`: 3 bytes of padding, version, magic number, length, flags, type of
    /// the handle in the layer, UUID of the layer's file system, handle in the layer.
    fn parse(kind: i32, bytes: &'a [u8]) -> Option<Self> {
        let [_, _, _, 0, MAGIC, _, flags, _, rest @ ..] = bytes else { return None };
        let of_layer = rest.get(16..)?;
        (kind == OVERLAY_HANDLE).then_some(Self { is_upper: flags & IS_IN_UPPER != 0, of_layer })
    }

    /// Returns whether it may be the handle of the inode of this number. Every file system that
    /// overlays support puts the number into its handles, as one or two words.
    fn contains(&self, inode: u64) -> bool {
        let word = (inode as u32).to_ne_bytes();
        self.of_layer.as_chunks().0.contains(&word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Handles that Linux 6.18 has made for an overlay on ext4: the root directory, a file in a
    /// lower layer, and a new one.
    const ROOT: [u8; 32] = *b"\0\0\0\0\xfb\x1d\x04\x01\x9f\x39\xa6\x41\xd4\x93\x4d\x13\xb4\xd5\x80\xe6\x1e\x88\x6a\xa3\x02\x08\0\0\x30\x12\xca\x42";
    const LOWER: [u8; 32] = *b"\0\0\0\0\xfb\x1d\0\x01\x9f\x39\xa6\x41\xd4\x93\x4d\x13\xb4\xd5\x80\xe6\x1e\x88\x6a\xa3\x0d\0\0\0\xe3\xf6\x45\x42";

    #[test]
    fn handles_are_understood_or_refused() {
        assert!(Handle::parse(0xf8, &ROOT).unwrap().is_upper);
        let lower = Handle::parse(0xf8, &LOWER).unwrap();
        // The other number is that of a file to which it was copied up.
        assert!(!lower.is_upper && lower.contains(13) && !lower.contains(21));
        let mut other = LOWER;
        other[3] = 1;
        assert!(Handle::parse(0xf8, &other).is_none() && Handle::parse(1, &LOWER).is_none());
        assert!(Handle::parse(0xf8, &LOWER[..20]).is_none() && Handle::parse(0xf8, b"").is_none());
    }
}

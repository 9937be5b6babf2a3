//! The value of `LD_PRELOAD`: paths or names, separated by spaces or colons
//! (`ld.so(8)`).

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The list with the library in front, or the list as it is when one of its
/// entries is the library already, however it is spelt.
pub fn with_library(list: Option<&OsStr>, library: &Path) -> OsString {
    let Some(list) = list.filter(|list| entries(list).next().is_some()) else {
        return library.into();
    };
    if entries(list).any(|entry| is_library(entry, library)) {
        return list.to_owned();
    }
    let mut joined = library.as_os_str().as_bytes().to_vec();
    joined.push(b':');
    joined.extend_from_slice(list.as_bytes());
    OsString::from_vec(joined)
}

fn entries(list: &OsStr) -> impl Iterator<Item = &OsStr> {
    list.as_bytes().split(|byte| b": ".contains(byte)).filter(|entry| !entry.is_empty()).map(OsStr::from_bytes)
}

fn is_library(entry: &OsStr, library: &Path) -> bool {
    entry == library || same_file(Path::new(entry), library)
}

fn same_file(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino()));
    matches!((identity(one), identity(other)), (Ok(one), Ok(other)) if one == other)
}

//! The value of `LD_PRELOAD`: paths or names, separated by spaces or colons
//! (`ld.so(8)`).

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use sopin_core::LIBRARY;
use sopin_inspect::maps;

use crate::library::Library;

/// Returns the list with the library in front. Returns the list unchanged if one of its entries
/// already leads to the library, whatever its spelling.
pub fn with_library(list: Option<&OsStr>, library: &Library) -> OsString {
    let path = library.path().as_os_str();
    let Some(list) = list.filter(|list| entries(list).next().is_some()) else {
        return path.to_owned();
    };
    if entries(list).any(|entry| is_library(entry, library)) {
        return list.to_owned();
    }
    let mut joined = path.as_bytes().to_vec();
    joined.push(b':');
    joined.extend_from_slice(list.as_bytes());
    OsString::from_vec(joined)
}

/// Returns the first entry that has the library's name and is another file, that is another
/// build.
pub fn other_build<'a>(list: &'a OsStr, library: &Library) -> Option<&'a OsStr> {
    entries(list).find(|entry| is_called_library(entry) && !is_library(entry, library))
}

/// Returns the entries.
pub fn entries(list: &OsStr) -> impl Iterator<Item = &OsStr> {
    list.as_bytes().split(|byte| b": ".contains(byte)).filter(|entry| !entry.is_empty()).map(OsStr::from_bytes)
}

/// Returns whether an entry has the library's name.
pub fn is_called_library(entry: &OsStr) -> bool {
    let name = Path::new(entry).file_name().unwrap_or_default().as_bytes();
    name.strip_prefix(LIBRARY.as_bytes()).is_some_and(|version| version.is_empty() || version[0] == b'.')
}

/// Returns whether an entry leads to the library.
pub fn is_library(entry: &OsStr, library: &Library) -> bool {
    // The loader searches for a name without a slash and replaces tokens, by rules that this
    // command does not repeat. It compares with what the loader has loaded into this process by
    // the same rules.
    let is_searched = !entry.as_bytes().contains(&b'/') || entry.as_bytes().contains(&b'$');
    if is_searched { is_called_library(entry) && is_loaded_here(library) } else { library.is_at(Path::new(entry)) }
}

fn is_loaded_here(library: &Library) -> bool {
    let mappings = maps::parse(&fs::read("/proc/self/maps").unwrap_or_default());
    let paths = mappings.iter().map(|mapping| OsStr::from_bytes(&mapping.path));
    paths.filter(|path| is_called_library(path)).any(|path| library.is_at(Path::new(path)))
}

//! Compares what the kernel shows as mapped from files with what the library reports as
//! pinned. This parses `/proc/PID/maps` itself, because the library's parser is under
//! test.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The pages of one file that a process has mapped, by permission.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mapped {
    /// Writable bytes, private or shared.
    pub writable: u64,
    /// Bytes that are executable and not writable.
    pub executable: u64,
    /// Bytes that can only be read. The inaccessible gap that the loader leaves
    /// between two segments is not counted.
    pub readable: u64,
}

/// A line of `/proc/PID/maps`.
pub struct Mapping {
    bytes: u64,
    mode: String,
    inode: u64,
    path: String,
}

impl Mapping {
    /// Parses `START-END MODE OFFSET DEVICE INODE   PATH`.
    fn parse(line: &str) -> Option<Self> {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let bytes = u64::from_str_radix(end, 16).ok()?.checked_sub(u64::from_str_radix(start, 16).ok()?)?;
        let mut fields = rest.splitn(5, ' ');
        let mode = fields.next()?.to_owned();
        let inode = fields.nth(2)?.parse().ok()?;
        Some(Self { bytes, mode, inode, path: fields.next().unwrap_or("").trim_start().to_owned() })
    }
}

/// Returns all mappings of a process.
///
/// # Errors
/// If the process has ended, or a line is not as in proc(5).
pub fn mappings(process: u32) -> Result<Vec<Mapping>, String> {
    let path = format!("/proc/{process}/maps");
    let maps = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let parse = |line| Mapping::parse(line).ok_or_else(|| format!("{path}: not understood: {line}"));
    maps.lines().map(parse).collect()
}

/// Returns how much is mapped from each file.
pub fn files(mappings: &[Mapping]) -> BTreeMap<PathBuf, Mapped> {
    let mut files: BTreeMap<PathBuf, Mapped> = BTreeMap::new();
    for Mapping { bytes, mode, path, .. } in mappings.iter().filter(|mapping| mapping.path.starts_with('/')) {
        let mapped = files.entry(PathBuf::from(path)).or_default();
        if mode.contains('w') {
            mapped.writable += bytes;
        } else if mode.contains('x') {
            mapped.executable += bytes;
        } else if mode.contains('r') {
            mapped.readable += bytes;
        }
    }
    files
}

/// Returns how many different files with executable pages begin with this path; these
/// are the library's copies.
pub fn copies(mappings: &[Mapping], path: &str) -> usize {
    let copies = mappings.iter().filter(|mapping| mapping.mode.contains('x') && mapping.path.starts_with(path));
    copies.map(|mapping| mapping.inode).collect::<BTreeSet<_>>().len()
}

/// Returns the loaded objects that have a file: those with executable mappings.
pub fn objects(files: &BTreeMap<PathBuf, Mapped>) -> BTreeSet<PathBuf> {
    files.iter().filter(|(_, mapped)| mapped.executable > 0).map(|(path, _)| path.clone()).collect()
}

/// Returns the objects that the log reports with this mode, in lines `libsopin: PATH:
/// MODE, BYTES bytes, TIME us`.
///
/// # Errors
/// If a path does not name a file.
pub fn reported(log: &str, mode: &str) -> Result<BTreeSet<PathBuf>, String> {
    let lines = log.lines().filter_map(|line| line.strip_prefix("libsopin: ")?.split_once(&format!(": {mode}, ")));
    // The loader's name for an object may lead through symbolic links.
    lines
        .map(|(path, _)| Path::new(path).canonicalize().map_err(|error| format!("{path:?} in the log: {error}")))
        .collect()
}

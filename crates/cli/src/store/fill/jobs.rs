//! Collects the files to examine: those that were named, those in directories that were named,
//! and those that processes map.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::io::Errno;
use sopin_inspect::files::{Files, View};
use sopin_inspect::maps::{self, Mapping};
use sopin_inspect::process::Process;
use sopin_store::Version;
use walkdir::WalkDir;

use super::answer::Failed;
use super::candidate::{FillCandidate, FillRefusal};

/// A file to examine.
pub enum Job {
    /// The user has named it.
    Named(PathBuf),
    /// It was found in a directory.
    Found(PathBuf),
    /// A process maps it.
    Mapped(Rc<Process>, Box<Mapping>),
}

/// Collects the files to examine. Paths and processes that cannot be examined are added to
/// `failed`.
pub fn collect(paths: &[PathBuf], processes: &[u32], failed: &mut Vec<Failed>) -> Vec<Job> {
    let mut jobs = Vec::new();
    for path in paths {
        match path.metadata() {
            Ok(status) if status.is_dir() => walk(path, &mut jobs, failed),
            Ok(_) => jobs.push(Job::Named(path.clone())),
            Err(error) => failed.push(Failed::new(path.display(), error, "")),
        }
    }
    for pid in processes {
        match mapped_by(*pid) {
            Ok(mapped) => jobs.extend(mapped),
            Err(reason) => failed.push(Failed::new(format_args!("process {pid}"), reason, "")),
        }
    }
    jobs
}

/// Adds the regular files below a directory, on its file system only: below `/` are the
/// kernel's own file systems, whose files hold no objects. It does not follow symbolic links:
/// their targets are found themselves, or are not in the directory. It skips entries of stores.
fn walk(directory: &Path, jobs: &mut Vec<Job>, failed: &mut Vec<Failed>) {
    let walk = WalkDir::new(directory).same_file_system(true).into_iter();
    let found = walk.filter_entry(|entry| {
        !entry.file_type().is_dir() || Version::parse(entry.file_name().as_encoded_bytes()).is_none()
    });
    for entry in found {
        match entry {
            Ok(entry) if entry.file_type().is_file() => jobs.push(Job::Found(entry.into_path())),
            Ok(_) => {}
            Err(error) if error.io_error().is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound) => {}
            Err(error) => {
                let path = error.path().unwrap_or(directory).to_owned();
                let reason = error.io_error().map_or_else(|| error.to_string(), ToString::to_string);
                failed.push(Failed::new(path.display(), reason, ""));
            }
        }
    }
}

/// Returns the files that a process maps privately, as the loader does, but for copies
/// that it maps from stores.
fn mapped_by(pid: u32) -> Result<Vec<Job>, String> {
    let process = Rc::new(Process::open(pid).map_err(|trouble| trouble.reason().to_owned())?);
    let text = process.require("maps").map_err(|trouble| trouble.reason().to_owned())?;
    let mut seen = HashSet::new();
    let mut mappings = maps::parse(&text);
    mappings.retain(|mapping| {
        let is_file = mapping.has_file() && !mapping.is_shared && !mapping.path.starts_with(b"/memfd:");
        let is_device = mapping.path.starts_with(b"/dev/");
        is_file
            && !is_device
            && maps::copy_at(mapping).is_none()
            && seen.insert((mapping.file.device, mapping.file.inode))
    });
    Ok(mappings.into_iter().map(|mapping| Job::Mapped(Rc::clone(&process), Box::new(mapping))).collect())
}

impl Job {
    /// Examines the file.
    ///
    /// # Errors
    /// Why it is not copied.
    pub fn candidate(&self) -> Result<FillCandidate, FillRefusal> {
        match self {
            Self::Named(path) => FillCandidate::at(path, true),
            Self::Found(path) => FillCandidate::at(path, false),
            Self::Mapped(process, mapping) => {
                let files = Files::default();
                match View::new(process, &files).open(mapping) {
                    Ok(file) => FillCandidate::of(&file),
                    Err(Errno::STALE) => Err(FillRefusal::Vanished),
                    Err(errno) => Err(errno.into()),
                }
            }
        }
    }

    /// Returns its title for people.
    pub fn title(&self) -> String {
        match self {
            Self::Named(path) | Self::Found(path) => path.to_string_lossy().into_owned(),
            Self::Mapped(_, mapping) => String::from_utf8_lossy(mapping.names().0).into_owned(),
        }
    }

    /// Returns whether the user has named it. Then every reason not to copy it is reported.
    pub fn is_named(&self) -> bool {
        matches!(self, Self::Named(_))
    }
}

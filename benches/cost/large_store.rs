//! A store with very many entries, made by the library's own code of very many tiny files, which stay
//! until the next benchmark.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use sopin_core::build_id::BuildId;
use sopin_core::credentials::User;
use sopin_core::pages::PageVec;
use sopin_core::search_dirs::SearchDirs;
use sopin_core::sys::{self, Fd, FileSystem};
use sopin_store::{Identity, Known, MappedRanges, OriginFile, Store};

/// The number of entries.
pub const ENTRIES: usize = 100_000;
/// The number of directories of their origins. In each are files with the same names, as in the
/// environments of as many Python programs.
const DIRECTORIES: usize = 500;
/// The names that the library writes beside the entries.
const MARKS: [&str; 3] = [".looked", ".next", ".next-own"];

/// A store with [`ENTRIES`] entries, and the directory of their origins.
pub struct Many {
    pub store: PathBuf,
    pub origins: PathBuf,
}

/// Nothing is mapped, so a copy differs from nothing.
struct Nothing;

impl MappedRanges for Nothing {
    fn build_id_of(&self, _: &Fd) -> sys::Result<BuildId> {
        Ok(BuildId::Absent)
    }

    fn equals(&self, _: &Fd) -> sys::Result<bool> {
        Ok(true)
    }
}

/// Makes them below `directory` from copies of `object`, or returns those that are there.
///
/// # Errors
/// Those of the file system.
pub fn make(directory: &Path, object: &Path) -> Result<Many, String> {
    let many = Many { store: directory.join("store"), origins: directory.join("origins") };
    let done = directory.join("done");
    if !done.exists() {
        make_anew(directory, object, &many).map_err(|error| format!("{}: {error}", directory.display()))?;
        fs::write(&done, "").map_err(|error| format!("{}: {error}", done.display()))?;
    }
    many.keep_only_made()?;
    Ok(many)
}

impl Many {
    /// Removes the entries that programs have added since, and the marks, so that the next program
    /// looks for unneeded entries.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn keep_only_made(&self) -> Result<(), String> {
        let keep = || {
            for mark in MARKS {
                let _ = fs::remove_file(self.store.join(mark));
            }
            let of_other = |link: PathBuf| !link.to_string_lossy().contains(&*self.origins.to_string_lossy());
            for entry in fs::read_dir(&self.store)? {
                let entry = entry?.path();
                if fs::read_link(entry.join(".source")).is_ok_and(of_other) {
                    fs::remove_dir_all(entry)?;
                }
            }
            Ok(())
        };
        keep().map_err(|error: io::Error| format!("{}: {error}", self.store.display()))
    }
}

fn make_anew(directory: &Path, object: &Path, many: &Many) -> Result<(), String> {
    let text = |error: io::Error| error.to_string();
    let _ = fs::remove_dir_all(directory);
    let content = fs::read(object).map_err(text)?;
    let mut paths = Vec::with_capacity(ENTRIES);
    for number in 0..DIRECTORIES {
        let origins = many.origins.join(number.to_string());
        fs::create_dir_all(&origins).map_err(text)?;
        paths.extend((0..ENTRIES / DIRECTORIES).map(|name| origins.join(format!("lib{name}.so"))));
    }
    for path in &paths {
        fs::write(path, &content).map_err(text)?;
    }
    // The library writes a file to the disk before it copies it, and waits for two seconds after a change.
    rustix::fs::syncfs(fs::File::open(directory).map_err(text)?).map_err(|errno| errno.to_string())?;
    thread::sleep(Duration::from_millis(2500));
    let mut dirs = SearchDirs::new();
    let words = |error: sys::Errno| io::Error::from_raw_os_error(error.0).to_string();
    dirs.set_explicit(many.store.as_os_str().as_bytes()).map_err(words)?;
    let user = User::of_this_thread().map_err(|cause| cause.to_string())?;
    let store = Store::open(&dirs, user, &mut Known::new()).map_err(|cause| cause.to_string())?;
    let mut buffer = PageVec::new();
    for path in &paths {
        let path = CString::new(path.as_os_str().as_bytes()).map_err(|error| error.to_string())?;
        let file = sys::open(&path, libc::O_RDONLY, 0).map_err(words)?;
        let identity = Identity::of(&sys::fstat(file.raw()).map_err(words)?);
        let file_system = &FileSystem::of(&file).map_err(words)?;
        let origin = OriginFile { file: &file, path: &path, identity, has_own_numbers: true, file_system };
        store.entry(origin, &Nothing, &mut buffer, |_| ()).map_err(|cause| cause.to_string())?;
    }
    Ok(())
}

//! Directories that belong to one run of the tests.
//!
//! Fixtures rewrite shared objects in place, so every trial works on copies in a
//! directory of its own. Two simultaneous runs of the tests do not affect each other:
//! each has `target/<purpose>/<process id>`. A run that fails keeps its directories for
//! inspection; the next run removes those of dead runs.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process;

use super::library::checkout;

/// Makes the directory of this run, empty, and removes those of runs that have ended.
///
/// # Errors
/// Those of the file system.
pub fn for_this_run(purpose: &str) -> io::Result<PathBuf> {
    let all = checkout().join("target").join(purpose);
    fs::create_dir_all(&all)?;
    for entry in fs::read_dir(&all)? {
        let entry = entry?;
        if belongs_to_a_dead_run(&entry.file_name()) {
            // Another run may be removing it at the same time.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let own = all.join(process::id().to_string());
    if own.exists() {
        fs::remove_dir_all(&own)?;
    }
    fs::create_dir(&own)?;
    own.canonicalize()
}

fn belongs_to_a_dead_run(name: &OsStr) -> bool {
    name.to_str()
        .and_then(|name| name.parse::<u32>().ok())
        .is_some_and(|id| id == process::id() || !Path::new(&format!("/proc/{id}")).exists())
}

/// Copies a directory, which must not exist at `to`: files as new inodes with the same
/// permissions, symbolic links as they are.
///
/// # Errors
/// Those of the file system.
pub fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path())?, target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

//! Finds the stores that exist. The library uses the first usable directory. The command
//! maintains all stores, because programs that are started in another environment, by systemd
//! or with another HOME, have theirs in others of the same directories.

use std::env;
use std::ffi::{CStr, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;
use sopin_core::cause::{Cause, Reason};
use sopin_core::credentials::User;
use sopin_core::search_dirs::SearchDirs;
use sopin_core::settings::Settings;
use sopin_core::sys;
use sopin_inspect::descriptors;
use sopin_store::{Known, LOOKED, NEXT, NEXT_OWN, SYSTEM, Store, TEMPORARY};

use super::entry::is_entry;
use super::open_store::{OpenStore, names};
use crate::exit::{Exit, Failure};
use crate::output;

/// Opens the system's store, if there is one.
///
/// # Errors
/// When it cannot be used.
pub fn find_system() -> Result<Vec<OpenStore>, Failure> {
    let path = PathBuf::from(OsStr::from_bytes(SYSTEM.to_bytes()));
    match Store::open_system(&mut Known::new()) {
        Ok(Some(store)) => Ok(vec![open(path, store)?]),
        Ok(None) => Ok(Vec::new()),
        Err(cause) => Err(Failure::new(Exit::Uninspected, path.display(), cause)),
    }
}

/// Opens the stores that the option, the environment, or the library's list of directories
/// name.
///
/// # Errors
/// When the store that was named cannot be used, or does not exist.
pub fn find(named: Option<&OsStr>) -> Result<Vec<OpenStore>, Failure> {
    let dirs = search_dirs(named)?;
    let is_named =
        named.is_some() || env::var_os("SOPIN_STORE").is_some_and(|value| value.as_bytes().starts_with(b"/"));
    let (mut stores, mut refused) = (Vec::<OpenStore>::new(), None);
    let user = User::of_this_thread().map_err(|cause| Failure::new(Exit::Uninspected, "the user's store", cause))?;
    Store::for_each_existing(&dirs, user, |path, opened| {
        let path = PathBuf::from(OsStr::from_bytes(path.to_bytes()));
        match opened.map_err(|cause| failure(&path, cause, is_named)).and_then(|store| open(path, store).map_err(Some))
        {
            Ok(store) if stores.iter().all(|known| known.path != store.path) => stores.push(store),
            Ok(_) | Err(None) => {}
            Err(Some(failure)) if is_named => refused = Some(failure),
            Err(Some(failure)) => output::warn(&failure.thing, &failure.reason),
        }
    });
    refused.map_or(Ok(stores), Err)
}

/// Checks that this is root, with root's rights.
///
/// # Errors
/// 3 for every other user.
pub fn check_root(reason: &str) -> Result<(), Failure> {
    let failure = |reason: &dyn std::fmt::Display| Failure::new(Exit::Uninspected, SYSTEM.to_string_lossy(), reason);
    match User::of_this_thread() {
        Ok(User::ROOT) => Ok(()),
        Ok(_) => Err(failure(&reason).with_way_out("run it with sudo")),
        Err(cause) => Err(failure(&cause)),
    }
}

fn search_dirs(named: Option<&OsStr>) -> Result<SearchDirs, Failure> {
    let environment: Vec<(OsString, OsString)> = env::vars_os().collect();
    let get = |name: &CStr| {
        if name == c"SOPIN_STORE"
            && let Some(named) = named
        {
            return Some(named.as_bytes());
        }
        let found = environment.iter().find(|(known, _)| known.as_bytes() == name.to_bytes());
        found.map(|(_, value)| value.as_bytes())
    };
    let settings = Settings::read(get, |complaint| {
        let text = complaint.to_string();
        if let Some((thing, reason)) = text.split_once(": ").filter(|(thing, _)| *thing == "SOPIN_STORE") {
            output::warn(thing, reason);
        }
    });
    let dirs = settings.ok().and_then(|settings| settings.store);
    dirs.ok_or_else(|| {
        Failure::new(Exit::Uninspected, "SOPIN_STORE", "the store is off").with_way_out("name one with --store DIR")
    })
}

/// Returns the failure for a cause; `None` for a directory that does not exist.
fn failure(path: &Path, cause: Cause, is_named: bool) -> Option<Failure> {
    let is = |errno: Errno| cause.reason == Reason::Errno(sys::Errno(errno.raw_os_error()));
    if is(Errno::NOENT) && !is_named {
        return None;
    }
    let failure = Failure::new(Exit::Uninspected, path.display(), cause);
    Some(if is(Errno::NOTDIR) { failure.with_way_out("a store is a directory, and no link") } else { failure })
}

fn open(path: PathBuf, store: Store) -> Result<OpenStore, Failure> {
    let failed = |error: Errno| Failure::new(Exit::Uninspected, path.display(), error);
    let directory = descriptors::from_core(store.directory(), OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed)?;
    let mut foreign = None;
    for name in names(&directory).map_err(failed)? {
        if is_ours(&name) {
            return Ok(OpenStore { path, store, directory });
        }
        foreign = Some(name);
    }
    match foreign {
        None => Ok(OpenStore { path, store, directory }),
        // The option or variable names a directory that is no store, as in `SOPIN_STORE=/`.
        Some(name) => Err(Failure::new(
            Exit::Uninspected,
            path.display(),
            format_args!("this is no store: it holds {:?} and no entry", name.to_string_lossy()),
        )
        .with_way_out("name the directory that the programs' SOPIN_STORE names")),
    }
}

/// Returns whether the library uses such names.
fn is_ours(name: &OsStr) -> bool {
    let marks = [LOOKED, NEXT, NEXT_OWN].map(CStr::to_bytes);
    is_entry(name) || marks.contains(&name.as_bytes()) || name.as_bytes().starts_with(TEMPORARY.as_bytes())
}

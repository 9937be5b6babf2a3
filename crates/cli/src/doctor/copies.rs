//! The subjects `store` and `memory`: where copies would be, by the rules of sopin-store. No
//! directory is made.

use std::ffi::{CStr, CString, OsStr};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, accessat};
use rustix::io::Errno;
use serde_json::json;
use sopin_core::available_memory;
use sopin_core::cause::{Cause, Reason};
use sopin_core::credentials::User;
use sopin_core::search_dirs::SearchDirs;
use sopin_core::settings::Settings;
use sopin_core::sys;
use sopin_inspect::descriptors;
use sopin_store::{Known, SYSTEM, Store};

use super::answer::{Subject, SubjectVerdict};
use super::probes;
use super::surroundings::DoctorSurroundings;

/// The remedy that root has where the user's programs cannot share copies.
pub const FILL: &str = "let root fill the system's store (sopin store fill PATH...)";

/// The stores that the user's programs would use.
pub struct Stores {
    users: UsersStore,
    /// The directories before it that cannot be used, each with the reason.
    refused: Vec<(PathBuf, String)>,
    system: SystemStore,
}

enum UsersStore {
    /// `SOPIN_STORE` is off.
    Off,
    /// It exists.
    Exists { path: PathBuf, is_writable: bool },
    /// The first program would make it.
    WouldBeMade(PathBuf),
    /// No directory can be used, for this reason if the directories are not to blame.
    None(Option<String>),
}

enum SystemStore {
    Missing,
    Usable,
    Refused(String),
}

impl Stores {
    /// Looks at the directories in the order in which the library tries them.
    pub fn find(settings: Option<&Settings>, user: Result<User, Cause>) -> Self {
        let system = match Store::open_system(&mut Known::new()) {
            Ok(Some(_)) => SystemStore::Usable,
            Ok(None) => SystemStore::Missing,
            Err(cause) => SystemStore::Refused(cause.to_string()),
        };
        let mut refused = Vec::new();
        let users = match (settings.and_then(|settings| settings.store.as_ref()), user) {
            (None, _) => UsersStore::Off,
            (_, Err(cause)) => UsersStore::None(Some(cause.to_string())),
            (Some(dirs), Ok(user)) => find_users(dirs, user, &mut refused),
        };
        Self { users, refused, system }
    }

    /// Returns whether a program that is started now would make no directory for its store.
    pub fn would_be_used_as_it_is(&self) -> bool {
        !matches!(self.users, UsersStore::WouldBeMade(_))
    }

    /// Returns whether programs can add what is missing.
    fn can_grow(&self) -> bool {
        matches!(self.users, UsersStore::Exists { is_writable: true, .. } | UsersStore::WouldBeMade(_))
    }
}

fn find_users(dirs: &SearchDirs, user: User, refused: &mut Vec<(PathBuf, String)>) -> UsersStore {
    for place in dirs.paths(user) {
        let path = PathBuf::from(OsStr::from_bytes(place.path.to_bytes()));
        match open(place.path, user) {
            Ok(()) => {
                let is_writable = may_write(&path).is_ok();
                return UsersStore::Exists { path, is_writable };
            }
            Err(cause) if cause.reason != Reason::Errno(sys::Errno(Errno::NOENT.raw_os_error())) => {
                refused.push((path, cause.to_string()));
            }
            // The library makes at least the last directory.
            Err(_) => match could_be_made(&path, user, place.may_make.max(1)) {
                Ok(()) => return UsersStore::WouldBeMade(path),
                Err(reason) => refused.push((path, reason)),
            },
        }
    }
    UsersStore::None(None)
}

/// Opens a directory as a store.
fn open(path: &CStr, user: User) -> Result<(), Cause> {
    let mut only = SearchDirs::new();
    only.set_explicit(path.to_bytes()).map_err(Cause::no_memory)?;
    let mut result = Ok(());
    Store::for_each_existing(&only, user, |_, opened| result = opened.map(drop));
    result
}

/// Returns why a store that does not exist could not be made: the directory that exists already
/// must be one that could be a store.
fn could_be_made(path: &Path, user: User, may_make: usize) -> Result<(), String> {
    let Some((above, existing)) =
        path.ancestors().enumerate().skip(1).find(|(_, above)| above.symlink_metadata().is_ok())
    else {
        return Err("the directory above it does not exist".to_owned());
    };
    if above > may_make {
        let missing = path.ancestors().nth(may_make).unwrap_or(existing).display();
        return Err(format!("{missing} does not exist"));
    }
    // A link may lead on; what it leads to counts.
    let existing = fs::canonicalize(existing).map_err(|error| words(&error))?;
    may_write(&existing).map_err(|error| format!("it does not exist, and cannot be made: {}", words(&error.into())))?;
    // Root may have it below a sticky directory, which is no store itself.
    let mode = rustix::fs::stat(&existing).map_or(0, |status| status.st_mode);
    if user == User::ROOT && Mode::from_raw_mode(mode).contains(Mode::SVTX) {
        return Ok(());
    }
    let existing = CString::new(existing.as_os_str().as_bytes()).unwrap_or_default();
    open(&existing, user).map_err(|cause| format!("it does not exist, and below the directory above it {cause}"))
}

/// Returns the text of an error without its number.
fn words(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |number| nix::Error::from_raw(number).desc().to_owned())
}

fn may_write(directory: &Path) -> rustix::io::Result<()> {
    accessat(CWD, directory, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
}

/// Tries fs-verity in a store, on a file without a name; `None` if none could be made.
fn verity(store: &Path) -> Option<bool> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(store, flags, Mode::from_raw_mode(0o600)).ok()?;
    rustix::io::write(&file, b"x").ok()?;
    // The kernel refuses as long as the file is open for writing.
    let again = descriptors::for_core(&file, OFlags::RDONLY).ok()?;
    drop(file);
    Some(sys::enable_verity(&again).is_ok())
}

/// Judges the stores.
pub fn store(here: &DoctorSurroundings) -> Subject {
    let Stores { users, refused, system } = &here.stores;
    let (path, exists, writable) = match users {
        UsersStore::Exists { path, is_writable } => (Some(path), true, *is_writable),
        UsersStore::WouldBeMade(path) => (Some(path), false, true),
        UsersStore::Off | UsersStore::None(_) => (None, false, false),
    };
    let (system_word, of_system) = match system {
        SystemStore::Missing => ("none", "no system's store".to_owned()),
        SystemStore::Usable => {
            ("usable", format!("the system's store, {}, is looked into first", SYSTEM.to_string_lossy()))
        }
        SystemStore::Refused(reason) => ("refused", format!("the system's store is not used: {reason}")),
    };
    let refusals: Vec<_> =
        refused.iter().map(|(path, reason)| json!({ "path": path.display().to_string(), "reason": reason })).collect();
    let facts = json!({
        "path": path.map(|path| path.display().to_string()),
        "exists": exists,
        "writable": writable,
        "verity": path.filter(|_| exists && writable).and_then(|path| verity(path)),
        "system": system_word,
        "refused": refusals,
    });
    let name = path.map(|path| path.display().to_string()).unwrap_or_default();
    let remedy = format!(
        "name a directory in SOPIN_STORE that belongs to the user, in and above which no other user can make files, so \
         none below /tmp (systemd: CacheDirectory=), or {FILL}"
    );
    match users {
        UsersStore::Exists { .. } | UsersStore::WouldBeMade(_) if here.is_filtered => {
            let meaning =
                format!("programs under the seccomp filter add nothing to {name}: copies are private; {of_system}");
            Subject::new("store", SubjectVerdict::Limited, meaning, facts).with_remedy(FILL)
        }
        UsersStore::Exists { is_writable: true, .. } => {
            let verdict = if system_word == "refused" { SubjectVerdict::Limited } else { SubjectVerdict::Ok };
            Subject::new("store", verdict, format!("{name} is used; {of_system}"), facts)
        }
        UsersStore::WouldBeMade(_) => {
            let verdict = if system_word == "refused" { SubjectVerdict::Limited } else { SubjectVerdict::Ok };
            let meaning = format!("{name} does not exist, and the first program would make it; {of_system}");
            Subject::new("store", verdict, meaning, facts)
        }
        UsersStore::Exists { is_writable: false, .. } => {
            let meaning =
                format!("{name} is used, and cannot be written to: copies that it lacks are private; {of_system}");
            Subject::new("store", SubjectVerdict::Limited, meaning, facts).with_remedy(remedy)
        }
        UsersStore::Off => {
            let meaning = format!("SOPIN_STORE is off: copies are in private memory; {of_system}");
            Subject::new("store", SubjectVerdict::Limited, meaning, facts).with_remedy("unset SOPIN_STORE")
        }
        UsersStore::None(reason) => {
            let first = refused.first().map(|(path, reason)| format!("{}: {reason}", path.display()));
            let reason = reason.clone().or(first).unwrap_or_else(|| "HOME is not set".to_owned());
            let meaning = format!("no directory can be used ({reason}): copies are in private memory; {of_system}");
            Subject::new("store", SubjectVerdict::Limited, meaning, facts).with_remedy(remedy)
        }
    }
}

/// With less than this, in bytes, not even the C library is copied.
const LEAST_LIMIT: u64 = 1 << 20;
/// As many bytes are enough for most programs; it is the default of `SOPIN_PRIVATE_LIMIT`.
const ENOUGH: u64 = 256 << 20;

/// Judges the private memory.
pub fn memory(here: &DoctorSurroundings) -> Subject {
    let limit = here.settings.as_ref().map_or(0, |settings| settings.private_limit);
    let available = available_memory::find();
    let facts = json!({ "limit": limit, "available": available });
    let amount = format!("copies are private, at most {} MiB in each process", limit >> 20);
    let left = available.map_or_else(
        || "how much is available is not known".to_owned(),
        |available| format!("{} MiB are available", available >> 20),
    );
    if here.stores.can_grow() && !here.is_filtered {
        return Subject::new("memory", SubjectVerdict::Ok, format!("not needed, programs share copies; {left}"), facts);
    }
    let lacks_memfd = here.calls.as_ref().is_some_and(|calls| probes::fails(&calls.memfd));
    if limit < LEAST_LIMIT || lacks_memfd {
        let why = if limit < LEAST_LIMIT {
            format!("SOPIN_PRIVATE_LIMIT is {limit} bytes")
        } else {
            "memfd_create does not work".to_owned()
        };
        let meaning = format!("{why}, and there is no store for all copies: objects are at best relocated");
        return Subject::new(
            "memory",
            if limit == 0 { SubjectVerdict::No } else { SubjectVerdict::Limited },
            meaning,
            facts,
        )
        .with_remedy(if limit < LEAST_LIMIT {
            "unset SOPIN_PRIVATE_LIMIT, or give the user a store, see the line store"
        } else {
            "give the user a store, see the line store"
        });
    }
    // The library takes no more than a quarter of what is left (sopin_core::private_memory).
    if available.is_some_and(|available| available / 4 < limit.min(ENOUGH)) {
        let meaning = format!("{amount} and a quarter of what is left; {left}");
        return Subject::new("memory", SubjectVerdict::Limited, meaning, facts)
            .with_remedy("give the user a store, or the cgroup more memory");
    }
    Subject::new("memory", SubjectVerdict::Ok, format!("{amount}; {left}"), facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_made_to_find_out_what_could_be_made() {
        let scratch = tempfile::tempdir().unwrap();
        let user = User::of_this_thread().unwrap();
        let private = scratch.path().join("home");
        fs::create_dir(&private).unwrap();
        let could = |below: &str, may_make| could_be_made(&private.join(below), user, may_make);
        if user == User::ROOT {
            assert_eq!(could(".cache/sopin", 2), Ok(()));
        }
        assert!(could("a/b/c", 2).unwrap_err().ends_with("home/a does not exist"));
        assert_eq!(fs::read_dir(&private).unwrap().count(), 0);
        assert!(could_be_made(Path::new("/proc/sopin"), user, 1).is_err());
    }
}

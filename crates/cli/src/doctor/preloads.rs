//! The subject `preload`: which programs get the library now, through this environment, the
//! service manager, the container's first process, or for the whole machine.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde_json::json;
use walkdir::WalkDir;

use super::answer::{Subject, SubjectVerdict};
use super::surroundings::DoctorSurroundings;
use crate::preload;

const VARIABLE: &[u8] = b"LD_PRELOAD=";
/// Longer files are no configuration.
const LONGEST_FILE: u64 = 1 << 20;
/// What applies to every program.
const FOR_ALL: &str = "/etc/ld.so.preload";
/// Where systemd's manager itself is configured.
const OF_MANAGER: &str = "/system.conf";

/// A kind of service manager.
struct Manager {
    name: &'static str,
    /// What exists where it runs.
    mark: &'static str,
    /// Where services are configured.
    directories: &'static [&'static str],
}

const MANAGERS: [Manager; 4] = [
    Manager {
        name: "systemd",
        mark: "/run/systemd/system",
        directories: &[
            "/etc/systemd",
            "/run/systemd/system",
            "/usr/local/lib/systemd/system",
            "/usr/lib/systemd/system",
            "/lib/systemd/system",
        ],
    },
    Manager { name: "OpenRC", mark: "/run/openrc", directories: &["/etc/rc.conf", "/etc/conf.d", "/etc/init.d"] },
    Manager { name: "runit", mark: "/run/runit", directories: &["/etc/sv", "/etc/service", "/var/service"] },
    Manager { name: "s6", mark: "/run/s6", directories: &["/etc/s6", "/etc/s6-rc", "/etc/services.d"] },
];

/// A file that sets the variable to something with the library's name in it.
struct Setting {
    file: PathBuf,
    /// The value.
    list: OsString,
}

/// Judges what is preloaded.
pub fn preload(here: &DoctorSurroundings) -> Subject {
    let own = env::var_os("LD_PRELOAD").filter(|list| preload::entries(list).next().is_some());
    let manager = MANAGERS.iter().find(|manager| fs::symlink_metadata(manager.mark).is_ok());
    let settings = manager.map(|manager| settings_below(manager.directories)).unwrap_or_default();
    let for_all = fs::read(FOR_ALL).ok().map(OsString::from_vec).unwrap_or_default();
    let for_all = OsString::from_vec(
        for_all.as_bytes().iter().map(|byte| if byte.is_ascii_whitespace() { b' ' } else { *byte }).collect(),
    );
    let is_for_all = preload::entries(&for_all).any(preload::is_called_library);
    let first = fs::read("/proc/1/environ").ok();
    let first = first.map(|variables| {
        variables.split(|byte| *byte == 0).any(|variable| {
            variable
                .strip_prefix(VARIABLE)
                .is_some_and(|list| preload::entries(OsStr::from_bytes(list)).any(preload::is_called_library))
        })
    });
    let lists = settings.iter().map(|setting| (setting.file.display().to_string(), &setting.list));
    let lists =
        lists.chain(own.iter().map(|list| ("LD_PRELOAD".to_owned(), list))).chain([(FOR_ALL.to_owned(), &for_all)]);
    let missing: Vec<String> =
        lists.flat_map(|(of, list)| missing(list).map(move |entry| format!("{of} names {entry}"))).collect();
    let facts = json!({
        "manager": manager.map(|manager| manager.name),
        "ld_preload": own.as_ref().map(|list| list.to_string_lossy()),
        "missing": missing,
        "units": settings.iter().map(|setting| setting.file.display().to_string()).collect::<Vec<_>>(),
        "ld_so_preload": is_for_all,
        "first_process": first,
    });
    if !missing.is_empty() {
        let meaning = format!("{}, which does not exist: the loader goes on without it", missing.join(", "));
        return Subject::new("preload", SubjectVerdict::No, meaning, facts)
            .with_remedy("install the library there, or correct the path");
    }
    let of_environment = own.as_deref().map_or(OwnList::Unset, |list| OwnList::of(list, here));
    let mut words = vec![of_environment.words().to_owned()];
    words.extend(manager.map(|manager| of_manager(manager, settings.len())));
    if manager.is_none() && first == Some(true) {
        words.push("process 1 was started with the library".to_owned());
    }
    let meaning = words.join("; ");
    if is_for_all {
        let meaning =
            format!("{meaning}; {FOR_ALL} loads the library into every program, and no setting can exclude one");
        return Subject::new("preload", SubjectVerdict::Limited, meaning, facts)
            .with_remedy("set LD_PRELOAD where it is needed instead");
    }
    if settings.iter().any(|setting| setting.file.to_string_lossy().contains(OF_MANAGER)) {
        let meaning = format!("{meaning}; the manager's own configuration loads it into every unit");
        return Subject::new("preload", SubjectVerdict::Limited, meaning, facts)
            .with_remedy("set Environment=LD_PRELOAD= in the units that need it instead");
    }
    if matches!(of_environment, OwnList::OtherBuild) {
        return Subject::new("preload", SubjectVerdict::Limited, meaning, facts)
            .with_remedy("remove it from LD_PRELOAD");
    }
    Subject::new("preload", SubjectVerdict::Ok, meaning, facts)
}

fn of_manager(manager: &Manager, count: usize) -> String {
    match count {
        0 => format!("no service of {} has it configured", manager.name),
        1 => format!("1 file configures it for a service of {}", manager.name),
        count => format!("{count} files configure it for services of {}", manager.name),
    }
}

/// What `LD_PRELOAD` of this environment has.
#[derive(Clone, Copy)]
enum OwnList {
    Unset,
    Library,
    OtherBuild,
    Others,
}

impl OwnList {
    fn of(list: &OsStr, here: &DoctorSurroundings) -> Self {
        let named = preload::entries(list).find(|entry| preload::is_called_library(entry));
        match (named, &here.library) {
            (None, _) => Self::Others,
            (Some(entry), Ok(library)) if entry.as_bytes().contains(&b'/') && !preload::is_library(entry, library) => {
                Self::OtherBuild
            }
            (Some(_), _) => Self::Library,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Unset => "LD_PRELOAD is not set here, sopin run -- COMMAND sets it",
            Self::Library => "LD_PRELOAD has the library, programs started from here are protected",
            Self::OtherBuild => "LD_PRELOAD has another build of the library than this command's",
            Self::Others => "LD_PRELOAD is set without the library, sopin run -- COMMAND adds it",
        }
    }
}

/// Returns the entries that are paths to nothing. The loader searches for names, and replaces
/// tokens.
fn missing(list: &OsStr) -> impl Iterator<Item = String> {
    let is_path = |entry: &&OsStr| entry.as_bytes().starts_with(b"/") && !entry.as_bytes().contains(&b'$');
    let gone = preload::entries(list).filter(is_path).filter(|entry| !Path::new(entry).exists());
    gone.map(|entry| entry.to_string_lossy().into_owned())
}

fn settings_below(directories: &[&str]) -> Vec<Setting> {
    let mut settings = Vec::<Setting>::new();
    let files = directories.iter().flat_map(|directory| WalkDir::new(directory).max_depth(3).sort_by_file_name());
    for file in files.flatten().filter(|entry| entry.file_type().is_file()) {
        if file.metadata().is_ok_and(|file| file.len() > LONGEST_FILE) {
            continue;
        }
        let Ok(text) = fs::read(file.path()) else { continue };
        // /lib may be a link to /usr/lib.
        let path = fs::canonicalize(file.path()).unwrap_or_else(|_| file.path().to_owned());
        if let Some(list) = value(&text).filter(|_| settings.iter().all(|known| known.file != path)) {
            settings.push(Setting { file: path, list });
        }
    }
    settings
}

/// Returns the last value in a file of the variable that has the library in it: in `Environment=`
/// of a unit, or in a shell's assignment.
fn value(text: &[u8]) -> Option<OsString> {
    let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_start);
    let code = lines.filter(|line| !line.starts_with(b"#") && !line.starts_with(b";"));
    let mut values = code.filter_map(|line| {
        let at = line.windows(VARIABLE.len()).position(|window| window == VARIABLE)?;
        let value = line.get(at + VARIABLE.len()..)?;
        let value = value.strip_prefix(b"\"").or(value.strip_prefix(b"'")).unwrap_or(value);
        let end = value.iter().position(|byte| b"\"' \t".contains(byte)).unwrap_or(value.len());
        Some(OsStr::from_bytes(value.get(..end)?).to_owned())
    });
    values.rfind(|list| preload::entries(list).any(preload::is_called_library))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_and_shells_set_the_variable() {
        let found = |text: &str| value(text.as_bytes()).map(|list| list.into_string().unwrap());
        assert_eq!(found("[Service]\nEnvironment=LD_PRELOAD=/a/libsopin.so\n").unwrap(), "/a/libsopin.so");
        assert_eq!(
            found("Environment=\"A=b\" \"LD_PRELOAD=/a.so:/a/libsopin.so.0\"\n").unwrap(),
            "/a.so:/a/libsopin.so.0"
        );
        assert_eq!(found("export LD_PRELOAD='/a/libsopin.so'\n").unwrap(), "/a/libsopin.so");
        assert_eq!(found("#Environment=LD_PRELOAD=/a/libsopin.so\nEnvironment=LD_PRELOAD=/x.so\n"), None);
    }

    #[test]
    fn only_paths_can_be_missing() {
        let all = |list: &str| missing(OsStr::new(list)).collect::<Vec<_>>();
        assert_eq!(all("/nonexistent/a.so:/proc/self/maps b.so /$LIB/c.so"), ["/nonexistent/a.so"]);
    }

    #[test]
    fn files_of_services_are_found() {
        let scratch = tempfile::tempdir().unwrap();
        let drop_in = scratch.path().join("system/shop.service.d");
        fs::create_dir_all(&drop_in).unwrap();
        fs::write(drop_in.join("sopin.conf"), "[Service]\nEnvironment=LD_PRELOAD=/a/libsopin.so\n").unwrap();
        fs::write(scratch.path().join("system/other.service"), "[Service]\nEnvironment=A=b\n").unwrap();
        let found = settings_below(&[scratch.path().to_str().unwrap()]);
        assert_eq!(found.len(), 1);
        assert!(found[0].file.ends_with("shop.service.d/sopin.conf") && found[0].list == "/a/libsopin.so");
    }
}

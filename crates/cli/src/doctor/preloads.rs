//! The subject `preload`: which programs get the library now, through this environment, the
//! service manager, the container's first process, or for the whole machine.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use serde_json::json;
use walkdir::WalkDir;

use super::answer::{Subject, SubjectVerdict};
use super::children;
use super::surroundings::DoctorSurroundings;
use crate::preload;

const VARIABLE: &[u8] = b"LD_PRELOAD=";
/// Longer files are no configuration.
const LONGEST_FILE: u64 = 1 << 20;
/// The loader's list, which applies to every program.
const FOR_ALL: &str = "/etc/ld.so.preload";
/// The part of a path by which the configuration of systemd's manager itself is known.
const OF_MANAGER: &str = "/system.conf";

/// A kind of service manager.
struct Manager {
    name: &'static str,
    /// A path that exists where it runs.
    mark: &'static str,
    /// The places in which services are configured.
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
            // The usual places of what EnvironmentFile= names.
            "/etc/default",
            "/etc/sysconfig",
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
    // musl's loader does not read the file.
    let for_all = if has_musl(here) { OsString::new() } else { entries_for_all(for_all.as_bytes()) };
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
    let missing: Vec<(String, PathBuf)> =
        lists.flat_map(|(of, list)| missing(list).map(move |entry| (of.clone(), entry))).collect();
    let lacks_library = missing.iter().any(|(_, entry)| preload::is_called_library(entry.as_os_str()));
    let missing: Vec<String> =
        missing.into_iter().map(|(of, entry)| format!("{of} names {}", entry.display())).collect();
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
        // Programs that need another library than sopin's may do without it.
        let verdict = if lacks_library { SubjectVerdict::No } else { SubjectVerdict::Limited };
        return Subject::new("preload", verdict, meaning, facts)
            .with_remedy("install the library there, or correct the path");
    }
    let of_environment = own.as_deref().map_or(OwnList::Unset, |list| OwnList::of(list, here));
    let mut words = vec![of_environment.words().to_owned()];
    if let OwnList::NotLoaded = of_environment {
        let meaning = words.remove(0);
        let remedy = here.library.as_ref().map(|library| format!("name it by its path, {}", library.path().display()));
        return Subject::new("preload", SubjectVerdict::No, meaning, facts).with_remedy(remedy.unwrap_or_default());
    }
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
    if let OwnList::OnlyHere = of_environment {
        return Subject::new("preload", SubjectVerdict::Limited, meaning, facts)
            .with_remedy("name it by its absolute path");
    }
    if matches!(of_environment, OwnList::OtherBuild) {
        return Subject::new("preload", SubjectVerdict::Limited, meaning, facts)
            .with_remedy("remove it from LD_PRELOAD");
    }
    Subject::new("preload", SubjectVerdict::Ok, meaning, facts)
}

fn of_manager(manager: &Manager, count: usize) -> String {
    match count {
        0 => format!("no file of {}'s configuration sets it", manager.name),
        1 => format!("1 file of {}'s configuration sets it", manager.name),
        count => format!("{count} files of {}'s configuration set it", manager.name),
    }
}

/// Returns whether the loader here is musl's.
fn has_musl(here: &DoctorSurroundings) -> bool {
    let loader = here.harmless.as_ref().and_then(|harmless| harmless.loader.file_name());
    loader.is_some_and(|name| name.as_bytes().starts_with(b"ld-musl-"))
}

/// Returns the entries of `/etc/ld.so.preload`, as a value of the variable: glibc's loader drops
/// comments, and takes white space for a separator (`do_preload` and its caller in elf/rtld.c).
fn entries_for_all(text: &[u8]) -> OsString {
    let code =
        text.split(|byte| *byte == b'\n').map(|line| line.split(|byte| *byte == b'#').next().unwrap_or_default());
    let mut list = code.collect::<Vec<_>>().join(&b' ');
    list.iter_mut().filter(|byte| byte.is_ascii_whitespace()).for_each(|byte| *byte = b' ');
    OsString::from_vec(list)
}

/// What `LD_PRELOAD` of this environment has.
#[derive(Clone, Copy)]
enum OwnList {
    Unset,
    Library,
    /// By a path that is not absolute.
    OnlyHere,
    OtherBuild,
    /// The loader does not load what has the library's name.
    NotLoaded,
    Others,
}

impl OwnList {
    fn of(list: &OsStr, here: &DoctorSurroundings) -> Self {
        let Some(entry) = preload::entries(list).find(|entry| preload::is_called_library(entry)) else {
            return Self::Others;
        };
        let is_relative = entry.as_bytes().contains(&b'/') && !b"/$".contains(&entry.as_bytes()[0]);
        let found = if is_relative { Self::OnlyHere } else { Self::Library };
        let Ok(library) = &here.library else { return found };
        let is_called_so = |object: &PathBuf| preload::is_called_library(object.as_os_str());
        // Only the loader knows where it searches for a name, and what it refuses.
        let loaded = here.harmless.as_ref().map(|harmless| harmless.load(Some(list)));
        match loaded {
            Some(Ok(trial)) if trial.is_success && trial.has_mapped(library) => found,
            Some(Ok(trial)) if trial.is_success && trial.objects.iter().any(is_called_so) => Self::OtherBuild,
            Some(Ok(_)) => Self::NotLoaded,
            // The loader was started and did not end, for instance because the file is a FIFO.
            Some(Err(reason)) if children::remedy(&reason).is_empty() => Self::NotLoaded,
            _ if entry.as_bytes().contains(&b'/') && !preload::is_library(entry, library) => Self::OtherBuild,
            _ => found,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Unset => "LD_PRELOAD is not set here, sopin run -- COMMAND sets it",
            Self::Library => "LD_PRELOAD has the library, programs started from here are protected",
            Self::OnlyHere => {
                "LD_PRELOAD has the library by a relative path, programs that are started in another directory are not \
                 protected"
            }
            Self::NotLoaded => "LD_PRELOAD names the library, and the loader does not load it",
            Self::OtherBuild => "LD_PRELOAD has another build of the library than this command's",
            Self::Others => "LD_PRELOAD is set without the library, sopin run -- COMMAND adds it",
        }
    }
}

/// Returns the entries that are paths to nothing. The loader searches for names, and replaces
/// tokens; systemd replaces specifiers (`systemd.unit(5)`).
fn missing(list: &OsStr) -> impl Iterator<Item = PathBuf> {
    let is_path = |entry: &&OsStr| {
        entry.as_bytes().starts_with(b"/") && !entry.as_bytes().iter().any(|byte| b"$%".contains(byte))
    };
    preload::entries(list).filter(is_path).map(PathBuf::from).filter(|entry| !entry.exists())
}

/// Returns whether a file is one that an editor or a package manager has put aside.
fn is_put_aside(name: &OsStr) -> bool {
    let ends = ["~", ".bak", ".old", ".orig", ".dpkg-old", ".dpkg-dist", ".dpkg-new", ".rpmsave", ".rpmnew"];
    ends.iter().any(|end| name.as_bytes().ends_with(end.as_bytes()))
}

fn settings_below(directories: &[&str]) -> Vec<Setting> {
    let mut settings = Vec::<Setting>::new();
    // Units and services may be links to files elsewhere.
    let walk = |directory| WalkDir::new(directory).max_depth(3).follow_links(true).sort_by_file_name();
    let files = directories.iter().flat_map(walk).flatten();
    for file in files.filter(|entry| entry.file_type().is_file() && !is_put_aside(entry.file_name())) {
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
        let is_start = |at: &usize| {
            let before = at.checked_sub(1).and_then(|before| line.get(before));
            !before.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
        };
        let is_unset = line.starts_with(b"UnsetEnvironment");
        let mut found = line.windows(VARIABLE.len()).enumerate().filter(|(_, window)| *window == VARIABLE);
        let at = found.find_map(|(at, _)| Some(at).filter(is_start)).filter(|_| !is_unset)?;
        let value = line.get(at + VARIABLE.len()..)?;
        let value = value.strip_prefix(b"\"").or(value.strip_prefix(b"'")).unwrap_or(value);
        let end = value.iter().position(|byte| b"\"' \t".contains(byte)).unwrap_or(value.len());
        Some(OsStr::from_bytes(value.get(..end)?).to_owned())
    });
    values.rfind(|list| preload::entries(list).any(preload::is_called_library))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

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
        assert_eq!(found("Environment=MY_LD_PRELOAD=/a/libsopin.so\n"), None);
        assert_eq!(found("UnsetEnvironment=LD_PRELOAD=/a/libsopin.so\n"), None);
        assert_eq!(found("#Environment=LD_PRELOAD=/a/libsopin.so\nEnvironment=LD_PRELOAD=/x.so\n"), None);
    }

    #[test]
    fn only_paths_can_be_missing() {
        let all = |list: &str| missing(OsStr::new(list)).collect::<Vec<_>>();
        assert_eq!(
            all("/nonexistent/a.so:/proc/self/maps b.so /$LIB/c.so /opt/%i/d.so"),
            [Path::new("/nonexistent/a.so")]
        );
    }

    #[test]
    fn comments_for_all_programs_are_no_entries() {
        let list = entries_for_all(b"# /gone/libsopin.so\n/a.so\t/b.so #/c.so\n/d.so");
        assert_eq!(preload::entries(&list).collect::<Vec<_>>(), ["/a.so", "/b.so", "/d.so"]);
    }

    #[test]
    fn files_of_services_are_found() {
        let scratch = tempfile::tempdir().unwrap();
        let drop_in = scratch.path().join("system/shop.service.d");
        fs::create_dir_all(&drop_in).unwrap();
        fs::write(drop_in.join("sopin.conf"), "[Service]\nEnvironment=LD_PRELOAD=/a/libsopin.so\n").unwrap();
        fs::write(scratch.path().join("system/other.service"), "[Service]\nEnvironment=A=b\n").unwrap();
        fs::write(drop_in.join("sopin.conf.bak"), "[Service]\nEnvironment=LD_PRELOAD=/b/libsopin.so\n").unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("linked"), "Environment=LD_PRELOAD=/c/libsopin.so\n").unwrap();
        std::os::unix::fs::symlink(elsewhere.path().join("linked"), scratch.path().join("z.service")).unwrap();
        std::os::unix::fs::symlink(scratch.path(), scratch.path().join("system/loop")).unwrap();
        let found = settings_below(&[scratch.path().to_str().unwrap()]);
        assert_eq!(found.len(), 2);
        assert!(found[1].file.ends_with("linked") && found[1].list == "/c/libsopin.so");
        assert!(found[0].file.ends_with("shop.service.d/sopin.conf") && found[0].list == "/a/libsopin.so");
    }
}

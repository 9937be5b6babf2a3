//! Finds out whether a process is frozen (`cgroups(7)`). `systemctl freeze` and `docker pause` freeze
//! processes. In version 2 `ptrace(2)` stops such a process, but it makes no system calls; in
//! version 1 it does not even stop.
//!
//! The cgroup is not found if the mounts or the cgroup namespace of this process hide it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use sopin_inspect::maps;
use sopin_inspect::process::Process;

/// A mount of a hierarchy that has a freezer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    /// The cgroup that is mounted.
    root: PathBuf,
    place: PathBuf,
    is_version_2: bool,
}

/// Returns whether the cgroup of a process is frozen, as far as that can be seen.
pub fn is_frozen(process: &Process) -> bool {
    let (Ok(cgroups), Ok(mounts)) = (process.read("cgroup"), fs::read("/proc/self/mountinfo")) else { return false };
    let cgroups: Vec<_> = lines(&cgroups).filter_map(parse_cgroup).collect();
    lines(&mounts).filter_map(Mount::parse).any(|mount| {
        let is_there = |(is_version_2, path): &&(bool, PathBuf)| {
            *is_version_2 == mount.is_version_2 && path.components().all(|part| part != Component::ParentDir)
        };
        let path = cgroups.iter().find(is_there).and_then(|(_, path)| path.strip_prefix(&mount.root).ok());
        path.is_some_and(|path| mount.is_frozen(path))
    })
}

fn path_of(field: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(maps::unescaped(field)))
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n')
}

/// Reads a line of `/proc/PID/cgroup`, if its hierarchy has a freezer: whether it is that of version 2,
/// and the path.
fn parse_cgroup(line: &[u8]) -> Option<(bool, PathBuf)> {
    let mut fields = line.splitn(3, |byte| *byte == b':');
    let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    let is_version_2 = number == b"0";
    (is_version_2 || has(controllers, b"freezer")).then(|| (is_version_2, PathBuf::from(OsStr::from_bytes(path))))
}

/// Returns whether a list with commas has this word.
fn has(list: &[u8], wanted: &[u8]) -> bool {
    list.split(|byte| *byte == b',').any(|word| word == wanted)
}

impl Mount {
    /// Reads a line of `/proc/PID/mountinfo` (`proc_pid_mountinfo(5)`).
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let (root, place) = (fields.nth(3)?, fields.next()?);
        let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
        let (kind, options) = (fields.next()?, fields.nth(1)?);
        let is_version_2 = kind == b"cgroup2";
        let has_freezer = is_version_2 || kind == b"cgroup" && has(options, b"freezer");
        has_freezer.then(|| Self { root: path_of(root), place: path_of(place), is_version_2 })
    }

    /// Returns whether the cgroup at this path below the mount, or one that it is in, is frozen.
    fn is_frozen(&self, path: &Path) -> bool {
        let directory = self.place.join(path);
        let read = |directory: &Path, name: &str| fs::read_to_string(directory.join(name)).unwrap_or_default();
        if !self.is_version_2 {
            let state = read(&directory, "freezer.state");
            return matches!(state.trim(), "FREEZING" | "FROZEN");
        }
        // The event says nothing until the last task is frozen, and the switches of cgroups above the
        // mount cannot be read.
        let is_switched = |directory: &Path| read(directory, "cgroup.freeze").trim() == "1";
        read(&directory, "cgroup.events").lines().any(|line| line == "frozen 1")
            || directory.ancestors().take_while(|above| above.starts_with(&self.place)).any(is_switched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_hierarchies_with_a_freezer_are_found() {
        let found = |line: &str| Mount::parse(line.as_bytes());
        let mount = |root: &str, place: &str, is_version_2| {
            Some(Mount { root: root.into(), place: place.into(), is_version_2 })
        };
        assert_eq!(
            found("30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 master:1 - cgroup2 cgroup2 rw,nsdelegate"),
            mount("/", "/sys/fs/cgroup", true)
        );
        assert_eq!(
            found(r"41 30 0:35 /a\040b /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer"),
            mount("/a b", "/sys/fs/cgroup/freezer", false)
        );
        assert_eq!(found("42 30 0:36 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"), None);
        assert_eq!(found("43 30 0:37 / /freezer rw - tmpfs freezer rw,freezer"), None);
    }

    #[test]
    fn the_cgroups_with_a_freezer_are_found() {
        let found = |line: &str| parse_cgroup(line.as_bytes());
        assert_eq!(found("0::/system.slice/a:b.service"), Some((true, "/system.slice/a:b.service".into())));
        assert_eq!(found("6:cpu,freezer:/one"), Some((false, "/one".into())));
        assert_eq!(found("5:memory:/one"), None);
        assert_eq!(found(""), None);
    }

    #[test]
    fn a_cgroup_is_frozen_by_one_that_it_is_in() {
        let place = std::env::temp_dir().join(format!("sopin-frozen-{}", std::process::id()));
        let inner = place.join("outer/inner");
        fs::create_dir_all(&inner).unwrap();
        let mount = Mount { root: "/".into(), place: place.clone(), is_version_2: true };
        let is_frozen = |mount: &Mount| mount.is_frozen(Path::new("outer/inner"));
        fs::write(inner.join("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
        fs::write(inner.join("cgroup.freeze"), "0\n").unwrap();
        assert!(!is_frozen(&mount));
        fs::write(place.join("outer/cgroup.freeze"), "1\n").unwrap();
        assert!(is_frozen(&mount));
        assert!(!is_frozen(&Mount { is_version_2: false, ..mount.clone() }));
        fs::write(place.join("outer/cgroup.freeze"), "0\n").unwrap();
        fs::write(inner.join("cgroup.events"), "populated 1\nfrozen 1\n").unwrap();
        assert!(is_frozen(&mount));
        let mount = Mount { is_version_2: false, ..mount };
        for (state, expected) in [("THAWED\n", false), ("FREEZING\n", true), ("FROZEN\n", true)] {
            fs::write(inner.join("freezer.state"), state).unwrap();
            assert_eq!(is_frozen(&mount), expected, "{state}");
        }
        fs::remove_dir_all(place).unwrap();
    }
}

//! The amount of memory that the process could still use before the kernel has to reclaim
//! pages: the least of what its cgroups and the machine have left.
//!
//! A cgroup's page cache counts as used (`memory.current`), so the part of it that
//! the kernel reclaims first, the inactive files, is added again. Otherwise a
//! container that has read many files would seem to have nothing left.

use core::fmt::Write as _;

use crate::line::Line;
use crate::pages::{PageVec, read_whole};
use crate::sys;

/// Longest path of a cgroup's file that is read, in bytes.
const PATH: usize = 1024;

/// The files of one version of cgroups.
struct CgroupVersion {
    /// The directory at which systemd and container engines mount it.
    mount: &'static str,
    limit: &'static str,
    used: &'static str,
    /// The line of `memory.stat` that has the inactive files.
    inactive: &'static str,
}

const SECOND: CgroupVersion =
    CgroupVersion { mount: "/sys/fs/cgroup", limit: "memory.max", used: "memory.current", inactive: "inactive_file" };
const FIRST: CgroupVersion = CgroupVersion {
    mount: "/sys/fs/cgroup/memory",
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    inactive: "total_inactive_file",
};

/// Returns the bytes that are left; `None` where neither the machine nor a cgroup reports them.
pub fn find() -> Option<u64> {
    [of_machine(), of_cgroups()].into_iter().flatten().min()
}

/// Returns `MemAvailable` of `proc_meminfo(5)`, in bytes.
fn of_machine() -> Option<u64> {
    let text = read("/proc/meminfo")?;
    Some(value_of(&text, b"MemAvailable:")?.saturating_mul(1024))
}

/// Returns the least that one of the process's cgroups has left.
fn of_cgroups() -> Option<u64> {
    let text = read("/proc/self/cgroup")?;
    text.split(|byte| *byte == b'\n').filter_map(parse).filter_map(|(version, path)| left_in(version, path)).min()
}

/// Parses a line of `/proc/self/cgroup` (`cgroups(7)`); `None` if it is not about memory.
fn parse(line: &[u8]) -> Option<(&'static CgroupVersion, &str)> {
    let mut fields = line.splitn(3, |byte| *byte == b':');
    let (hierarchy, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    let path = core::str::from_utf8(path).ok()?;
    match controllers {
        b"" if hierarchy == b"0" => Some((&SECOND, path)),
        _ if controllers.split(|byte| *byte == b',').any(|controller| controller == b"memory") => Some((&FIRST, path)),
        _ => None,
    }
}

/// Returns the least that is left in the cgroup at `path` and those above it. Where the
/// cgroup's own directory cannot be seen, as in a container that has only its own
/// mounted, the root of the mount is that container's.
fn left_in(version: &CgroupVersion, mut path: &str) -> Option<u64> {
    while let Some(shorter) = path.strip_suffix('/') {
        path = shorter;
    }
    let mut least = None::<u64>;
    loop {
        if let Some(left) = left_in_one(version, path) {
            least = Some(least.map_or(left, |least| least.min(left)));
        }
        match path.bytes().rposition(|byte| byte == b'/') {
            Some(end) => path = path.get(..end)?,
            None => return least,
        }
    }
}

fn left_in_one(version: &CgroupVersion, path: &str) -> Option<u64> {
    let read = |file: &str| {
        let mut name = Line::<PATH>::new();
        write!(name, "{}{path}/{file}", version.mount).ok()?;
        read(core::str::from_utf8(name.as_bytes()).ok()?)
    };
    // A cgroup without a limit has "max" in this file, which is not a number.
    let limit = number(&read(version.limit)?)?;
    let used = number(&read(version.used)?)?;
    let inactive = read("memory.stat").and_then(|text| value_of(&text, version.inactive.as_bytes())).unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(inactive)))
}

fn read(path: &str) -> Option<PageVec<u8>> {
    let mut name = Line::<PATH>::new();
    write!(name, "{path}").ok()?;
    name.terminate();
    read_whole(&sys::open(name.as_c_str(), libc::O_RDONLY | libc::O_NOCTTY | libc::O_NONBLOCK, 0).ok()?).ok()
}

/// Returns the number in the line that begins with `name`.
fn value_of(text: &[u8], name: &[u8]) -> Option<u64> {
    text.split(|byte| *byte == b'\n').find_map(|line| {
        let rest = line.strip_prefix(name)?;
        rest.first().filter(|byte| byte.is_ascii_whitespace())?;
        number(rest)
    })
}

/// Returns the number that a text begins with.
fn number(text: &[u8]) -> Option<u64> {
    let text = text.trim_ascii_start();
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    core::str::from_utf8(text.get(..end)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_about_memory_are_found() {
        let found = |line: &'static [u8]| parse(line).map(|(version, path)| (version.limit, path));
        assert_eq!(found(b"0::/system.slice/shop.service"), Some(("memory.max", "/system.slice/shop.service")));
        assert_eq!(found(b"4:memory:/docker/x"), Some(("memory.limit_in_bytes", "/docker/x")));
        assert_eq!(found(b"4:cpu,memory:/a:b"), Some(("memory.limit_in_bytes", "/a:b")));
        for other in [&b"1:name=systemd:/x"[..], b"4:cpu,cpuacct:/", b"", b"0:"] {
            assert!(parse(other).is_none());
        }
    }

    #[test]
    fn numbers_are_read_from_their_lines() {
        let text = b"MemTotal:       16 kB\nMemAvailable:   1024 kB\ninactive_file 7\ninactive_files 8\n";
        assert_eq!(value_of(text, b"MemAvailable:"), Some(1024));
        assert_eq!(value_of(text, b"inactive_file"), Some(7));
        assert_eq!(value_of(text, b"MemAvail"), None);
        assert_eq!((number(b"max\n"), number(b"12\n"), number(b"")), (None, Some(12), None));
    }

    #[test]
    #[cfg_attr(miri, ignore = "reads /proc")]
    fn the_machine_reports_available_memory() {
        assert!(of_machine().unwrap() > 0 && find().is_some());
    }
}

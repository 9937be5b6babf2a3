//! The filters that systemd, engines of containers and other programs install, as rules
//! for `jail.c`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use serde::Deserialize;

use crate::common::library;

/// Calls that the loader and the C library make while a program starts, and those by
/// which the host of these trials prints, truncates and ends.
const LOADER: [&str; 25] = [
    "execve",
    "brk",
    "mmap",
    "munmap",
    "mprotect",
    "openat",
    "read",
    "pread64",
    "fstat",
    "newfstatat",
    "close",
    "access",
    "faccessat",
    "arch_prctl",
    "set_tid_address",
    "set_robust_list",
    "rseq",
    "prlimit64",
    "getrandom",
    "futex",
    "write",
    "readlink",
    "readlinkat",
    "getcwd",
    "exit_group",
];

/// Calls that the library makes without a filter, and those with which it would make a
/// child. For each there is a trial whose filter kills for it.
pub const OURS: [&str; 48] = [
    "process_vm_readv",
    "mremap",
    "rt_sigprocmask",
    "rt_sigpending",
    "rt_sigtimedwait",
    "memfd_create",
    "pwrite64",
    "fcntl",
    "ftruncate",
    "fstat",
    "statx",
    "fstatfs",
    "flistxattr",
    "name_to_handle_at",
    "flock",
    "fsync",
    "fdatasync",
    "fchmod",
    "mkdirat",
    "unlinkat",
    "linkat",
    "symlinkat",
    "readlinkat",
    "getdents64",
    "lseek",
    "utimensat",
    "ppoll",
    "ioctl",
    "getresuid",
    "getresgid",
    "capget",
    "prctl",
    "getpid",
    "gettid",
    "ptrace",
    "kcmp",
    "rt_sigaction",
    "setitimer",
    "getpriority",
    "setpriority",
    "sched_getscheduler",
    "sched_setscheduler",
    "clone",
    "clone3",
    "fork",
    "vfork",
    "wait4",
    "clock_gettime",
];

/// Names that systemd has added to its groups since version 247.
const SINCE_247: [&str; 6] =
    ["epoll_pwait2", "fchmodat2", "futex_waitv", "process_madvise", "set_mempolicy_home_node", "uretprobe"];

/// Returns a filter that allows the calls that the loader needs, and kills for all
/// others.
pub fn loaders_only() -> String {
    LOADER.iter().fold("default kill\n".to_owned(), |rules, name| rules + "allow " + name + "\n")
}

/// Returns a filter that kills for these calls.
pub fn killing<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().fold("default allow\n".to_owned(), |rules, name| rules + "kill " + name + "\n")
}

/// Returns `SystemCallFilter=@system-service`, followed by `SystemCallFilter=~` with a
/// group if given, as systemd 252 or, with `is_old`, 247 defines it. It kills for all
/// other calls.
///
/// # Errors
/// The reason why the groups cannot be listed.
pub fn system_service(without: Option<&str>, is_old: bool) -> Result<String, String> {
    let groups = groups()?;
    let mut passing = expand(&groups, "@system-service");
    for name in without.map(|group| expand(&groups, group)).unwrap_or_default() {
        passing.remove(&name);
    }
    let new = SINCE_247.iter().filter(|_| is_old).copied().collect::<Vec<_>>();
    let passing = passing.iter().filter(|name| !new.contains(&name.as_str()));
    Ok(passing.fold("default kill\n".to_owned(), |rules, name| rules + "allow " + name + "\n"))
}

/// Returns the calls of one of systemd's groups.
///
/// # Errors
/// The reason why they cannot be listed.
pub fn group(name: &str) -> Result<BTreeSet<String>, String> {
    Ok(expand(&groups()?, name))
}

fn groups() -> Result<BTreeMap<String, Vec<String>>, String> {
    let listed = Command::new("systemd-analyze").arg("syscall-filter").output();
    let listed = listed.map_err(|error| format!("systemd-analyze: {error}"))?;
    let (mut groups, mut current) = (BTreeMap::<_, Vec<_>>::new(), String::new());
    for line in String::from_utf8_lossy(&listed.stdout).lines() {
        match line.trim() {
            "" => {}
            comment if comment.starts_with('#') => {}
            name if !line.starts_with(' ') => name.clone_into(&mut current),
            member => groups.entry(current.clone()).or_default().push(member.to_owned()),
        }
    }
    if groups.contains_key("@system-service") { Ok(groups) } else { Err("systemd-analyze lists no groups".to_owned()) }
}

fn expand(groups: &BTreeMap<String, Vec<String>>, name: &str) -> BTreeSet<String> {
    let members = groups.get(name).into_iter().flatten();
    members.fold(BTreeSet::new(), |mut all, member| {
        if member.starts_with('@') {
            all.append(&mut expand(groups, member));
        } else {
            all.insert(member.clone());
        }
        all
    })
}

/// The part that is used of a profile of an engine of containers (`config-linux.md` of
/// the OCI, with the engines' additions).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_errno_ret: Option<u32>,
    syscalls: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    args: Option<Vec<Argument>>,
    #[serde(default)]
    includes: Condition,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Default, Deserialize)]
struct Condition {
    #[serde(default)]
    caps: Vec<String>,
    #[serde(default)]
    arches: Vec<String>,
}

/// Returns the default profile of an engine, from Debian's package of its sources, for
/// a program without capabilities.
///
/// # Errors
/// The reason why there is none.
pub fn of_engine(file: &str) -> Result<String, String> {
    let path = library::checkout().join("target/test-profiles").join(file);
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let profile: Profile = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut rules = format!("default {}\n", profile.default_errno_ret.unwrap_or(libc::EPERM.cast_unsigned()));
    let applies = |rule: &&Rule| {
        let arches = &rule.includes.arches;
        rule.includes.caps.is_empty() && (arches.is_empty() || arches.iter().any(|arch| arch == "amd64"))
    };
    for rule in profile.syscalls.iter().filter(applies) {
        let action = match rule.action.as_str() {
            "SCMP_ACT_ALLOW" => "allow".to_owned(),
            _ => rule.errno_ret.unwrap_or(libc::EPERM.cast_unsigned()).to_string(),
        };
        // A rule with several comparisons is omitted; such rules concern sockets.
        let argument = match rule.args.as_deref() {
            None | Some([]) => String::new(),
            Some([Argument { index, value, value_two, op }]) => format!(" {index} {op} {value} {value_two}"),
            Some(_) => continue,
        };
        for name in &rule.names {
            let _ = writeln!(rules, "{action} {name}{argument}");
        }
    }
    Ok(rules)
}

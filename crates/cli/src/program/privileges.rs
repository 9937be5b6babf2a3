//! Decides whether the kernel would set `AT_SECURE` for a program, so that its loader restricts
//! `LD_PRELOAD`. The rules are those of `bprm_fill_uid` and `cap_bprm_creds_from_file` of Linux
//! (`fs/exec.c`, `security/commoncap.c`).

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{StatVfsMountFlags, getxattr, statvfs};
use rustix::process::{getgid, getuid};

/// The reason why a program gets more rights than its caller has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raised {
    /// The setuid bit, to this user.
    User(u32),
    /// The setgid bit, to this group.
    Group(u32),
    /// `security.capability`
    Capabilities,
}

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(0) => f.write_str("setuid root"),
            Self::User(user) => write!(f, "setuid to user {user}"),
            Self::Group(group) => write!(f, "setgid to group {group}"),
            Self::Capabilities => f.write_str("it has file capabilities"),
        }
    }
}

/// Who executes the program.
#[derive(Clone, Copy)]
struct Caller {
    user: u32,
    group: u32,
}

const S_ISUID: u32 = 0o4000;
/// Without the latter bit, `S_ISGID` marked a file for mandatory locking in older kernels.
const SETGID: u32 = 0o2010;

/// Returns the reason why this file would raise the rights of its caller, if it would. The
/// kernel sets no `AT_SECURE` for a user whose rights the file does not raise (root and a
/// setuid-root program).
pub fn raised_by(path: &Path) -> Option<Raised> {
    let file = fs::metadata(path).ok()?;
    let caller = Caller { user: getuid().as_raw(), group: getgid().as_raw() };
    let raised = raised_by_bits(caller, file.mode(), file.uid(), file.gid())
        .or_else(|| (caller.user != 0 && has_capabilities(path)).then_some(Raised::Capabilities))?;
    (!is_ignored(path)).then_some(raised)
}

fn raised_by_bits(caller: Caller, mode: u32, owner: u32, group: u32) -> Option<Raised> {
    if mode & S_ISUID != 0 && owner != caller.user {
        return Some(Raised::User(owner));
    }
    (mode & SETGID == SETGID && group != caller.group).then_some(Raised::Group(group))
}

/// Returns whether the file gives any capability to the process that executes it.
fn has_capabilities(path: &Path) -> bool {
    let mut value = [0; 64];
    getxattr(path, c"security.capability", &mut value[..]).is_ok_and(|length| gives_capabilities(&value[..length]))
}

/// Returns whether a `struct vfs_cap_data` (`linux/capability.h`) gives any capability. In
/// revisions 1 to 3 it is a word of flags, of which bit 0 is "effective", then pairs of the
/// words permitted and inheritable.
fn gives_capabilities(value: &[u8]) -> bool {
    let word = |index: usize| {
        let bytes = value.get(4 * index..4 * index + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    let Some(flags) = word(0) else { return false };
    flags & 1 != 0 || [1, 3].into_iter().filter_map(word).any(|permitted| permitted != 0)
}

/// Returns whether the kernel ignores the bits and capabilities of the file: on a `nosuid`
/// mount, or with `no_new_privs` (`prctl(2)`).
fn is_ignored(path: &Path) -> bool {
    let no_new_privileges = || {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        status.lines().any(|line| line.strip_prefix("NoNewPrivs:").is_some_and(|value| value.trim() == "1"))
    };
    let is_nosuid = || statvfs(path).is_ok_and(|mount| mount.f_flag.contains(StatVfsMountFlags::NOSUID));
    is_nosuid() || no_new_privileges()
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: Caller = Caller { user: 1000, group: 100 };

    #[test]
    fn only_rights_that_the_caller_lacks_are_raised() {
        assert_eq!(raised_by_bits(USER, 0o4755, 0, 0), Some(Raised::User(0)));
        assert_eq!(raised_by_bits(USER, 0o4755, 1000, 0), None);
        assert_eq!(raised_by_bits(USER, 0o2755, 0, 5), Some(Raised::Group(5)));
        assert_eq!(raised_by_bits(USER, 0o2755, 0, 100), None);
        assert_eq!(raised_by_bits(USER, 0o2745, 0, 5), None, "no group execution");
        assert_eq!(raised_by_bits(USER, 0o755, 0, 0), None);
        assert_eq!(raised_by_bits(Caller { user: 0, group: 0 }, 0o4755, 0, 0), None);
    }

    #[test]
    fn capabilities_are_read() {
        let revision_2 = |flags: u32, words: [u32; 4]| {
            [0x0200_0000 | flags].into_iter().chain(words).flat_map(u32::to_le_bytes).collect::<Vec<u8>>()
        };
        assert!(gives_capabilities(&revision_2(0, [1 << 10, 0, 0, 0])));
        assert!(gives_capabilities(&revision_2(0, [0, 0, 1 << 2, 0])));
        assert!(gives_capabilities(&revision_2(1, [0; 4])));
        assert!(!gives_capabilities(&revision_2(0, [0, 1 << 10, 0, 0])), "inheritable only");
        assert!(!gives_capabilities(&[]) && !gives_capabilities(&[0, 0]));
    }
}

//! Whether this thread has exactly the rights of one user: then, and only then,
//! it may use copies that this user's processes share, and make some.
//!
//! A process with more rights than a user (setuid, setgid, file capabilities, a
//! daemon that has lowered its effective uid for a moment) would run what the
//! user has put into his store, and would leave copies there of files that he
//! may not read. A process whose user is not mapped in its user namespace sees
//! the overflow uid, and so does every other such process.
//!
//! The file system uid needs no call of its own. It follows the effective uid
//! at every change of that; to part them takes CAP_SETUID, and a thread with
//! capabilities is refused here unless it is root's. Root's capabilities for
//! files leave the effective set when its file system uid is no longer 0
//! (`cap_task_fix_setuid`, security/commoncap.c).

use core::sync::atomic::{AtomicU32, Ordering};

use crate::cause::Cause;
use crate::line::Line;
use crate::sys::{self, Capabilities, Fd, Ids, Result};

/// A user, as the only one whose rights this thread had when it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User(u32);

const OPERATION: &str = "use the user's store";
/// CAP_FS_MASK of the kernel: CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH,
/// CAP_FOWNER, CAP_FSETID, CAP_LINUX_IMMUTABLE, CAP_MKNOD, CAP_MAC_OVERRIDE.
const FOR_FILES: u64 = 0x1f | 1 << 9 | 1 << 27 | 1 << 32;

impl User {
    /// The user whose rights, no more and no less, the calling thread has now.
    /// Credentials are a thread's own and may change at any time: ask again for
    /// every sweep.
    pub fn of_this_thread() -> core::result::Result<Self, Cause> {
        if sys::is_secure_execution() {
            return Err(Cause::words(OPERATION, "the program was started with raised privileges (AT_SECURE)"));
        }
        let call = |operation, errno| Cause::call(operation, errno);
        let users = sys::user_ids().map_err(|errno| call("getresuid", errno))?;
        let groups = sys::group_ids().map_err(|errno| call("getresgid", errno))?;
        let capabilities = sys::capabilities().map_err(|errno| call("capget", errno))?;
        let user = single_user(users, groups, capabilities).map_err(|reason| Cause::words(OPERATION, reason))?;
        if is_mapped(user)? {
            Ok(Self(user))
        } else {
            Err(Cause::words(OPERATION, "the user id is not mapped in this user namespace"))
        }
    }

    /// The user id.
    pub const fn id(self) -> u32 {
        self.0
    }

    /// Root of this user namespace.
    pub const ROOT: Self = Self(0);
}

fn single_user(users: Ids, groups: Ids, capabilities: Capabilities) -> core::result::Result<u32, &'static str> {
    let user = users.single().ok_or("real, effective and saved user id differ")?;
    groups.single().ok_or("real, effective and saved group id differ")?;
    if user != 0 && capabilities.permitted != 0 {
        return Err("the process has capabilities that its user lacks");
    }
    if (capabilities.permitted ^ capabilities.effective) & FOR_FILES != 0 {
        return Err("the file system user id differs, or capabilities are not in force");
    }
    Ok(user)
}

/// The last user that was found to be mapped. A thread that enters another user
/// namespace has all capabilities there, or the overflow uid, or was executed
/// anew, and is not answered from here.
static MAPPED: AtomicU32 = AtomicU32::new(NOBODY);
/// An id that no process can have (`(uid_t) -1`).
const NOBODY: u32 = u32::MAX;
/// What the kernel shows for users that are not mapped, unless an administrator
/// has changed it.
const USUAL_OVERFLOW: u32 = 65534;

fn is_mapped(user: u32) -> core::result::Result<bool, Cause> {
    if user == MAPPED.load(Ordering::Relaxed) {
        return Ok(true);
    }
    let map = sys::open_own_proc_file(c"/proc/self/uid_map", c"/proc/thread-self/uid_map")
        .and_then(|file| read_small(&file))
        .map_err(|errno| Cause::call("read /proc/self/uid_map", errno))?;
    let maps_everybody = covers_everybody(map.as_bytes());
    if maps_everybody && user == USUAL_OVERFLOW {
        return Ok(true);
    }
    if !maps_everybody {
        let overflow = sys::open(c"/proc/sys/kernel/overflowuid", libc::O_RDONLY, 0)
            .and_then(|file| read_small(&file))
            .map_err(|errno| Cause::call("read /proc/sys/kernel/overflowuid", errno))?;
        if numbers(overflow.as_bytes()).next().is_none_or(|overflow| overflow == u64::from(user)) {
            return Ok(false);
        }
    }
    MAPPED.store(user, Ordering::Relaxed);
    Ok(true)
}

/// Whether a `uid_map` (`user_namespaces(7)`) has a place for every user id: then
/// the overflow uid stands for the user of that number only.
fn covers_everybody(map: &[u8]) -> bool {
    map.split(|byte| *byte == b'\n').any(|line| {
        let mut numbers = numbers(line);
        matches!((numbers.next(), numbers.next(), numbers.next()), (Some(0), Some(_), Some(count)) if count >= u64::from(u32::MAX))
    })
}

/// The decimal numbers in a text.
fn numbers(text: &[u8]) -> impl Iterator<Item = u64> {
    let words = text.split(|byte| !byte.is_ascii_digit()).filter(|word| !word.is_empty());
    words.filter_map(|word| core::str::from_utf8(word).ok()?.parse().ok())
}

/// The beginning of a small file of the kernel's.
fn read_small(file: &Fd) -> Result<Line<256>> {
    let mut buffer = [0; 256];
    let len = sys::pread(file, &mut buffer, 0)?;
    let text = core::str::from_utf8(buffer.get(..len).unwrap_or_default()).unwrap_or_default();
    Ok(Line::format_raw(format_args!("{text}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u64 = (1 << 41) - 1;

    fn ids(real: u32, effective: u32, saved: u32) -> Ids {
        Ids { real, effective, saved }
    }

    fn capabilities(effective: u64, permitted: u64) -> Capabilities {
        Capabilities { effective, permitted }
    }

    #[test]
    fn one_user_with_no_capabilities_is_that_user() {
        assert_eq!(single_user(ids(7, 7, 7), ids(9, 9, 9), capabilities(0, 0)), Ok(7));
        assert_eq!(single_user(ids(0, 0, 0), ids(0, 0, 0), capabilities(ALL, ALL)), Ok(0));
        // Root of a container, without most capabilities.
        assert_eq!(single_user(ids(0, 0, 0), ids(0, 0, 0), capabilities(0x4fb, 0x4fb)), Ok(0));
    }

    #[test]
    fn raised_or_lowered_rights_are_nobodys() {
        let nothing = capabilities(0, 0);
        for users in [ids(0, 7, 7), ids(7, 0, 7), ids(7, 7, 0), ids(0, 7, 0)] {
            assert!(single_user(users, ids(9, 9, 9), nothing).is_err(), "{users:?}");
        }
        for groups in [ids(0, 9, 9), ids(9, 0, 9), ids(9, 9, 0)] {
            assert!(single_user(ids(7, 7, 7), groups, nothing).is_err(), "{groups:?}");
        }
        for permitted in [1, 1 << 10, 1 << 40] {
            assert!(single_user(ids(7, 7, 7), ids(9, 9, 9), capabilities(0, permitted)).is_err());
        }
        // What setfsuid(2) to another user takes from root.
        assert!(single_user(ids(0, 0, 0), ids(0, 0, 0), capabilities(ALL & !FOR_FILES, ALL)).is_err());
    }

    #[test]
    fn only_a_map_of_everybody_has_a_place_for_everybody() {
        assert!(covers_everybody(b"         0          0 4294967295\n"));
        for map in [&b""[..], b"0 1000 1\n", b"0 100000 65536\n", b"1 1 4294967294\n"] {
            assert!(!covers_everybody(map), "{map:?}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "asks the kernel")]
    fn this_process_has_a_user() {
        let ids = sys::user_ids().unwrap();
        assert_eq!(ids.single(), Some(ids.effective));
        assert!(sys::group_ids().unwrap().single().is_some());
        let capabilities = sys::capabilities().unwrap();
        assert_eq!(capabilities.effective & !capabilities.permitted, 0);
    }
}

//! Whether this thread has exactly the rights of one user. Only such a thread may use the
//! copies that this user's processes share, or make some.
//!
//! A process with more rights than a user (setuid, setgid, file capabilities, a daemon that has
//! lowered its effective uid for a moment) would run what the user has written into the store,
//! and would leave copies there of files that the user may not read. A process whose user is
//! not mapped in its user namespace sees the overflow uid, and so does every other such
//! process.
//!
//! This module checks what the kernel checks before it lets one process trace another
//! (`ptrace_may_access`): user and group ids, capabilities, and whether the process is
//! *dumpable*. The user's other processes have the group that `/etc/passwd` gives him; one with
//! another (`newgrp`, `sudo -g`, a set-group-ID program that has gone on to make all its group
//! ids that one) has rights that they lack.
//!
//! A process that is not dumpable (`prctl(2)`), and that the user's other processes therefore
//! cannot trace, may hold what they must not get: after a process has given up root's rights
//! for good it still has the descriptors that root opened.
//!
//! Each thread has its own credentials. The kernel shows the file system ids only in a file,
//! and reading that takes longer than everything else. A thread without capabilities cannot
//! give itself others, and if it gets capabilities they are visible. So the file is read only
//! when the thread or its rights are not those of the last check.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::cause::{Cause, Operation};
use crate::line::Line;
use crate::pages::{PageVec, read_whole};
use crate::sys::gate::{self, NOT_MADE};
use crate::sys::{self, Capabilities, Errno, Fd, Ids, Result};
use crate::thread_status::ThreadStatus;

/// A user: the only one whose rights the thread had when it was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User(u32);

const OPERATION: Operation = Operation::UseUserStore;
const NOT_DUMPABLE: Cause =
    Cause::words(OPERATION, "the user's other processes may not look into this one (not dumpable)");
const NOT_MAPPED: Cause = Cause::words(OPERATION, "the user id is not mapped in this user namespace");

impl User {
    /// Returns the user whose rights, no more and no less, the calling thread has now. Each
    /// thread has its own credentials, and they may change at any time: call this anew for
    /// every sweep.
    pub fn of_this_thread() -> core::result::Result<Self, Cause> {
        Self::of_thread(sys::gettid(), None)
    }

    /// Does the same for the calling thread, whose id is `thread`. Its status may have `shown` its
    /// rights a moment ago; then it is not read again if they are the same.
    pub fn of_thread(thread: i32, shown: Option<&ShownRights>) -> core::result::Result<Self, Cause> {
        if sys::is_secure_execution() {
            return Err(Cause::words(OPERATION, "the program was started with raised privileges (AT_SECURE)"));
        }
        // Signals cannot be blocked under the filter.
        if !gate::passes_number(libc::SYS_rt_sigprocmask) {
            return Self::by_status();
        }
        let rights = match Rights::of_thread(thread) {
            Err(cause) if cause.is_not_made() => return Self::by_status(),
            rights => rights?,
        };
        let user = rights.single_user().map_err(|reason| Cause::words(OPERATION, reason))?;
        match sys::is_dumpable() {
            Ok(true) => {}
            Ok(false) => return Err(NOT_DUMPABLE),
            Err(NOT_MADE) => return Self::by_status(),
            Err(errno) => return Err(Cause::call(Operation::Prctl, errno)),
        }
        if !LAST.is(&rights) {
            if !shown.is_some_and(|shown| shown.have_file_system_ids_of(&rights)) {
                check_file_system_ids(&rights)?;
            }
            check_group(user, rights.groups.effective)?;
            if !is_mapped(user)? {
                return Err(NOT_MAPPED);
            }
            LAST.set(&rights);
        }
        Ok(Self(user))
    }

    /// Returns the same from files that can be read under a seccomp filter. The library cannot
    /// block signals under the filter either, and it is by signals that the C library changes
    /// the rights of all threads.
    fn by_status() -> core::result::Result<Self, Cause> {
        let (status, owner) = ThreadStatus::read_with_owner().map_err(Operation::ReadOwnStatus.failed())?;
        let user = single_user(&status, owner).map_err(|reason| Cause::words(OPERATION, reason))?;
        check_group(user, status.groups[1])?;
        if !is_mapped(user)? {
            return Err(NOT_MAPPED);
        }
        Ok(Self(user))
    }

    /// Returns the user id.
    pub const fn id(self) -> u32 {
        self.0
    }

    /// The root user of this user namespace.
    pub const ROOT: Self = Self(0);
}

/// The rights of a thread that single system calls return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rights {
    thread: i32,
    users: Ids,
    groups: Ids,
    capabilities: Capabilities,
}

impl Rights {
    fn of_thread(thread: i32) -> core::result::Result<Self, Cause> {
        Ok(Self {
            thread,
            users: sys::user_ids().map_err(Operation::Getresuid.failed())?,
            groups: sys::group_ids().map_err(Operation::Getresgid.failed())?,
            capabilities: sys::capabilities().map_err(Operation::Capget.failed())?,
        })
    }

    fn single_user(&self) -> core::result::Result<u32, &'static str> {
        let user = self.users.single().ok_or("real, effective and saved user id differ")?;
        self.groups.single().ok_or("real, effective and saved group id differ")?;
        if user != 0 && self.capabilities.permitted != 0 {
            return Err("the process has capabilities that its user lacks");
        }
        Ok(user)
    }
}

/// The rights of a thread as its status has shown them, file system ids included.
///
/// A signal handler may have run since. It changes the file system ids to others only if the thread
/// has a capability for that, since all its ids are one. If it gives up root's file system user id,
/// the kernel takes capabilities away, which is visible; root may have any group.
#[derive(Clone, Copy)]
pub struct ShownRights {
    thread: i32,
    users: [u32; 4],
    groups: [u32; 4],
    capabilities: Capabilities,
}

impl ShownRights {
    /// Takes the rights from a status.
    pub const fn of(status: &ThreadStatus) -> Self {
        let ThreadStatus { thread, users, groups, effective, permitted, .. } = *status;
        Self { thread, users, groups, capabilities: Capabilities { effective, permitted } }
    }

    /// Returns whether these are the `rights`, and the file system ids equal the other ids.
    fn have_file_system_ids_of(&self, rights: &Rights) -> bool {
        let are_all = |shown: [u32; 4], id: u32| shown.iter().all(|shown| *shown == id);
        self.thread == rights.thread
            && self.capabilities == rights.capabilities
            && are_all(self.users, rights.users.effective)
            && are_all(self.groups, rights.groups.effective)
    }
}

/// Returns the one user whose rights a thread with this status has.
fn single_user(status: &ThreadStatus, owner: u32) -> core::result::Result<u32, &'static str> {
    let is_one = |ids: &[u32; 4]| ids.iter().all(|id| *id == ids[0]);
    let user = status.users[0];
    if !is_one(&status.users) || !is_one(&status.groups) {
        return Err("real, effective, saved and file system ids differ");
    }
    if user == 0 {
        return Err("whether root's other processes may look into this one cannot be found out under a seccomp filter");
    }
    if status.permitted != 0 {
        return Err("the process has capabilities that its user lacks");
    }
    if owner != user {
        return Err("the user's other processes may not look into this one (not dumpable)");
    }
    if status.threads != 1 {
        return Err(
            "another thread could change the user meanwhile, since a seccomp filter may kill for blocking signals",
        );
    }
    Ok(user)
}

/// The rights that were checked last and were those of one user, as words. They are written
/// under the registry's lock only.
struct Last {
    words: [AtomicU64; 4],
}

static LAST: Last = Last { words: [const { AtomicU64::new(u64::MAX) }; 4] };

impl Last {
    fn words_of(rights: &Rights) -> [u64; 4] {
        let Rights { thread, users, groups, capabilities } = rights;
        let ids = u64::from(users.effective) << 32 | u64::from(groups.effective);
        [u64::from(thread.cast_unsigned()), ids, capabilities.effective, capabilities.permitted]
    }

    fn is(&self, rights: &Rights) -> bool {
        self.words.iter().zip(Self::words_of(rights)).all(|(word, now)| word.load(Ordering::Relaxed) == now)
    }

    fn set(&self, rights: &Rights) {
        for (word, now) in self.words.iter().zip(Self::words_of(rights)) {
            word.store(now, Ordering::Relaxed);
        }
    }
}

/// Checks that the file system ids equal the other ids, in `/proc/PID/task/TID/status`
/// (`proc_pid_status(5)`): real, effective, saved and file system id.
fn check_file_system_ids(rights: &Rights) -> core::result::Result<(), Cause> {
    let path = Line::<64>::format_raw(format_args!("/proc/self/task/{}/status\0", rights.thread));
    let mut buffer = [0; 512];
    let text = sys::open(path.as_c_str(), libc::O_RDONLY, 0)
        .and_then(|file| read_start(&file, &mut buffer))
        .map_err(Operation::ReadThreadStatus.failed())?;
    let has_only = |name: &[u8], ids: Ids| {
        let line = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(name));
        line.is_some_and(|line| {
            numbers(line).count() == 4 && numbers(line).all(|number| number == u64::from(ids.effective))
        })
    };
    if !has_only(b"Uid:", rights.users) {
        return Err(Cause::words(OPERATION, "the file system user id differs"));
    }
    if !has_only(b"Gid:", rights.groups) {
        return Err(Cause::words(OPERATION, "the file system group id differs"));
    }
    Ok(())
}

/// Checks that the group is the user's login group. For a user who is not in `/etc/passwd` (one
/// of a directory service, a dynamic user of systemd, a number in a container) the group must
/// have the user's number. Root may have any group, because root needs none to access a file.
fn check_group(user: u32, group: u32) -> core::result::Result<(), Cause> {
    if user == 0 {
        return Ok(());
    }
    let passwd: PageVec<u8> = match sys::open(c"/etc/passwd", libc::O_RDONLY | libc::O_NONBLOCK, 0) {
        Ok(file) => read_whole(&file).map_err(Operation::ReadPasswd.failed())?,
        Err(Errno(libc::ENOENT)) => PageVec::new(),
        Err(errno) => return Err(Cause::call(Operation::OpenPasswd, errno)),
    };
    if is_login_group(&passwd, user, group) {
        Ok(())
    } else {
        Err(Cause::words(OPERATION, "the group is not the one that the user logs in with"))
    }
}

/// Returns whether `passwd`, of the form of `passwd(5)`, gives `user` this `group`.
fn is_login_group(passwd: &[u8], user: u32, group: u32) -> bool {
    let number = |field: &[u8]| core::str::from_utf8(field).ok()?.parse::<u32>().ok();
    let mut is_listed = false;
    for line in passwd.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b':').skip(2).map(number);
        if fields.next() == Some(Some(user)) {
            is_listed = true;
            if fields.next() == Some(Some(group)) {
                return true;
            }
        }
    }
    !is_listed && group == user
}

/// Returns whether `user` is mapped in this user namespace. The kernel shows the overflow uid
/// for every user who is not. A thread that enters another namespace has all capabilities
/// there, or another number.
fn is_mapped(user: u32) -> core::result::Result<bool, Cause> {
    let mut buffer = [0; 256];
    let map = sys::open_own_proc_file(c"/proc/self/uid_map", c"/proc/thread-self/uid_map")
        .and_then(|file| read_start(&file, &mut buffer))
        .map_err(Operation::ReadUidMap.failed())?;
    if maps_every_user(map) {
        return Ok(true);
    }
    let overflow = sys::open(c"/proc/sys/kernel/overflowuid", libc::O_RDONLY, 0)
        .and_then(|file| read_start(&file, &mut buffer))
        .map_err(Operation::ReadOverflowUid.failed())?;
    Ok(numbers(overflow).next().is_some_and(|overflow| overflow != u64::from(user)))
}

/// Returns whether a `uid_map` (`user_namespaces(7)`) maps every user id. Then the overflow uid
/// means the user of that number only.
fn maps_every_user(map: &[u8]) -> bool {
    map.split(|byte| *byte == b'\n').any(|line| {
        let mut numbers = numbers(line);
        matches!((numbers.next(), numbers.next(), numbers.next()), (Some(0), Some(_), Some(count)) if count >= u64::from(u32::MAX))
    })
}

/// Returns the decimal numbers in a text.
fn numbers(text: &[u8]) -> impl Iterator<Item = u64> {
    let words = text.split(|byte| !byte.is_ascii_digit()).filter(|word| !word.is_empty());
    words.filter_map(|word| core::str::from_utf8(word).ok()?.parse().ok())
}

/// Reads the beginning of a file in `/proc`.
fn read_start<'a>(file: &Fd, buffer: &'a mut [u8]) -> Result<&'a [u8]> {
    let len = sys::pread(file, buffer, 0)?;
    Ok(buffer.get(..len).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u64 = (1 << 41) - 1;

    fn ids(real: u32, effective: u32, saved: u32) -> Ids {
        Ids { real, effective, saved }
    }

    fn rights(users: Ids, groups: Ids, permitted: u64) -> Rights {
        Rights { thread: 1, users, groups, capabilities: Capabilities { effective: permitted, permitted } }
    }

    #[test]
    fn one_user_with_no_capabilities_is_that_user() {
        assert_eq!(rights(ids(7, 7, 7), ids(9, 9, 9), 0).single_user(), Ok(7));
        assert_eq!(rights(ids(0, 0, 0), ids(0, 0, 0), ALL).single_user(), Ok(0));
        // Root of a container, without most capabilities.
        assert_eq!(rights(ids(0, 0, 0), ids(0, 0, 0), 0x4fb).single_user(), Ok(0));
    }

    #[test]
    fn raised_or_lowered_rights_are_those_of_no_user() {
        for users in [ids(0, 7, 7), ids(7, 0, 7), ids(7, 7, 0), ids(0, 7, 0)] {
            assert!(rights(users, ids(9, 9, 9), 0).single_user().is_err(), "{users:?}");
        }
        for groups in [ids(0, 9, 9), ids(9, 0, 9), ids(9, 9, 0)] {
            assert!(rights(ids(7, 7, 7), groups, 0).single_user().is_err(), "{groups:?}");
        }
        for permitted in [1, 1 << 10, 1 << 40] {
            assert!(rights(ids(7, 7, 7), ids(9, 9, 9), permitted).single_user().is_err());
        }
    }

    #[test]
    fn a_status_shows_one_user_too() {
        let plain = ThreadStatus { users: [7; 4], groups: [9; 4], threads: 1, ..ThreadStatus::default() };
        assert_eq!(single_user(&plain, 7), Ok(7));
        for other in [
            ThreadStatus { users: [7, 7, 7, 0], ..plain },
            ThreadStatus { groups: [9, 8, 9, 9], ..plain },
            ThreadStatus { users: [0; 4], ..plain },
            ThreadStatus { permitted: 1, ..plain },
            ThreadStatus { threads: 2, ..plain },
        ] {
            assert!(single_user(&other, other.users[0]).is_err(), "{other:?}");
        }
        assert!(single_user(&plain, 0).is_err());
    }

    #[test]
    fn the_group_is_the_one_that_passwd_has() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\nwww:x:33:7::/:\nalso:x:33:8::/:\nbroken:x:44\n";
        assert!(is_login_group(passwd, 33, 7) && is_login_group(passwd, 33, 8));
        assert!(!is_login_group(passwd, 33, 33) && !is_login_group(passwd, 44, 44));
        // Not listed.
        assert!(is_login_group(passwd, 1000, 1000) && !is_login_group(passwd, 1000, 7));
        assert!(is_login_group(b"", 1000, 1000));
    }

    #[test]
    #[cfg_attr(miri, ignore = "asks the kernel")]
    fn the_file_system_ids_are_read() {
        let own = |users| Rights {
            thread: sys::gettid(),
            users,
            groups: sys::group_ids().unwrap(),
            capabilities: sys::capabilities().unwrap(),
        };
        assert_eq!(check_file_system_ids(&own(sys::user_ids().unwrap())), Ok(()));
        assert!(check_file_system_ids(&own(ids(4711, 4711, 4711))).is_err());
    }

    #[test]
    fn rights_that_were_shown_must_be_the_same_now() {
        let now = rights(ids(7, 7, 7), ids(9, 9, 9), 0);
        let status = ThreadStatus { thread: 1, users: [7; 4], groups: [9; 4], ..ThreadStatus::default() };
        assert!(ShownRights::of(&status).have_file_system_ids_of(&now));
        for other in [
            ThreadStatus { thread: 2, ..status },
            ThreadStatus { users: [7, 7, 7, 0], ..status },
            ThreadStatus { users: [8; 4], ..status },
            ThreadStatus { groups: [9, 9, 9, 8], ..status },
            ThreadStatus { effective: 1, ..status },
            ThreadStatus { permitted: 1, ..status },
        ] {
            assert!(!ShownRights::of(&other).have_file_system_ids_of(&now), "{other:?}");
        }
    }

    #[test]
    fn only_a_map_of_all_user_ids_maps_every_user() {
        assert!(maps_every_user(b"         0          0 4294967295\n"));
        for map in [&b""[..], b"0 1000 1\n", b"0 100000 65536\n", b"1 1 4294967294\n"] {
            assert!(!maps_every_user(map), "{map:?}");
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

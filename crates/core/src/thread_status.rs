//! What the kernel reports about the calling thread in `/proc/PID/task/TID/status`
//! (`proc_pid_status(5)`): its rights, and the seccomp filters in force.
//!
//! It is read by system calls that the loader makes too, so it can be read under any filter
//! that permits loading objects.

use core::ffi::CStr;

use crate::sys::{self, Errno, Fd, Result};

/// A part of the text, as it was when it was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadStatus {
    /// The process's id, in the numbers of this /proc.
    pub process: i32,
    /// The id of the process's parent.
    pub parent: i32,
    /// The thread's id.
    pub thread: i32,
    /// Real, effective, saved and file system user id.
    pub users: [u32; 4],
    /// The same of the group.
    pub groups: [u32; 4],
    /// How many threads the process has.
    pub threads: u32,
    /// Capabilities in force, a bit for each (`capabilities(7)`).
    pub effective: u64,
    /// Capabilities that may be made effective.
    pub permitted: u64,
    /// `PR_SET_NO_NEW_PRIVS` of `prctl(2)`.
    pub has_no_new_privileges: bool,
    /// Whether system calls are filtered at all.
    pub is_filtered: bool,
    /// How many filters are in force; `None` from Linux before 5.9.
    pub filters: Option<u32>,
}

/// Longest line that is parsed, in bytes.
const LINE: usize = 128;
/// Bytes that are read at once.
const BLOCK: usize = 1024;

const OF_MAIN_THREAD: &CStr = c"/proc/self/status";

fn open() -> Result<Fd> {
    sys::open(c"/proc/thread-self/status", libc::O_RDONLY, 0)
        // Linux before 3.17, and qemu-user, which does not emulate the former.
        .or_else(|_| sys::open(OF_MAIN_THREAD, libc::O_RDONLY, 0))
}

impl ThreadStatus {
    /// Reads the status of the calling thread, if `ours` accepts it. `ESRCH` if it does not: in
    /// a sandbox whose broker opens files for the process, the file can be the broker's own.
    /// The second file that is tried is the main thread's.
    pub fn read_if(ours: impl Fn(&Self) -> bool) -> Result<Self> {
        let status = Self::parse(&open()?)?;
        if ours(&status) {
            return Ok(status);
        }
        let of_main_thread = sys::open(OF_MAIN_THREAD, libc::O_RDONLY, 0).and_then(|file| Self::parse(&file));
        of_main_thread.ok().filter(ours).ok_or(Errno(libc::ESRCH))
    }

    /// Reads the same, and the owner of the file, who is root unless the process is dumpable.
    pub fn read_with_owner() -> Result<(Self, u32)> {
        let file = open()?;
        let status = Self::parse(&file)?;
        Ok((status, sys::fstat(file.raw())?.st_uid))
    }

    /// Reads the status of the first process, as far as this process may read it.
    pub fn of_first_process() -> Result<Self> {
        Self::parse(&sys::open(c"/proc/1/status", libc::O_RDONLY, 0)?)
    }

    /// Parses the file; `EIO` if it is not a status.
    fn parse(file: &Fd) -> Result<Self> {
        let (mut status, mut seen) = (Self::default(), 0);
        let (mut block, mut line, mut len) = ([0; BLOCK], [0; LINE], 0);
        loop {
            let read = sys::read(file, &mut block)?;
            for byte in block.get(..read).unwrap_or_default() {
                if *byte == b'\n' {
                    seen += u32::from(status.take(line.get(..len).unwrap_or_default()));
                    len = 0;
                } else if let Some(slot) = line.get_mut(len) {
                    *slot = *byte;
                    len += 1;
                }
            }
            if read == 0 || status.filters.is_some() {
                break;
            }
        }
        // `Pid`, `Uid`, `Gid`, `Threads`, the two sets of capabilities, `Seccomp`. The
        // last is missing where the kernel has no filters.
        if seen >= 6 { Ok(status) } else { Err(Errno(libc::EIO)) }
    }

    /// Takes the known fields from a line, and returns whether it is one that every status has.
    fn take(&mut self, line: &[u8]) -> bool {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { return false };
        let Some((name, value)) = line.split_at_checked(colon) else { return false };
        let words = || value.split(|byte| !byte.is_ascii_hexdigit()).filter(|word| !word.is_empty());
        let number = |word: &[u8], radix| u64::from_str_radix(core::str::from_utf8(word).ok()?, radix).ok();
        let first = |radix| words().next().and_then(|word| number(word, radix));
        let small = || first(10).and_then(|value| u32::try_from(value).ok());
        let four = || {
            let mut ids = [u32::MAX; 4];
            for (id, word) in ids.iter_mut().zip(words()) {
                *id = number(word, 10).and_then(|value| u32::try_from(value).ok()).unwrap_or(u32::MAX);
            }
            ids
        };
        match name {
            b"Tgid" => {
                self.process = small().map_or(0, u32::cast_signed);
                return false;
            }
            b"PPid" => {
                self.parent = small().map_or(0, u32::cast_signed);
                return false;
            }
            b"Pid" => self.thread = small().map_or(0, u32::cast_signed),
            b"Uid" => self.users = four(),
            b"Gid" => self.groups = four(),
            b"Threads" => self.threads = small().unwrap_or_default(),
            // A set that cannot be parsed counts as all capabilities.
            b"CapPrm" => self.permitted = first(16).unwrap_or(u64::MAX),
            b"CapEff" => self.effective = first(16).unwrap_or(u64::MAX),
            b"Seccomp" => self.is_filtered = first(10) != Some(0),
            b"NoNewPrivs" => {
                self.has_no_new_privileges = first(10) != Some(0);
                return false;
            }
            b"Seccomp_filters" => {
                self.filters = small();
                return false;
            }
            _ => return false,
        }
        true
    }

    /// Returns whether the process could have installed a filter since it had these rights:
    /// `seccomp(2)` demands one of the two.
    pub const fn can_install_filters(&self) -> bool {
        const CAP_SYS_ADMIN: u32 = 21;
        self.has_no_new_privileges || (self.permitted | self.effective) & 1 << CAP_SYS_ADMIN != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::ToOwned;

    const TEXT: &str = "Name:\tprobe: Uid:\nUmask:\t0022\nState:\tR (running)\nTgid:\t812\nNgid:\t0\nPid:\t813\nPPid:\t1\n\
                        TracerPid:\t0\nUid:\t1000\t1000\t1000\t7\nGid:\t100\t100\t100\t100\nFDSize:\t64\n";
    const REST: &str = "Threads:\t2\nSigQ:\t0/95915\nCapPrm:\t00000000a80425fb\nCapEff:\t0000000000000001\n\
                        NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\nCpus_allowed:\tf\n";

    fn parse(text: &str) -> Result<ThreadStatus> {
        let file = sys::memfd_create(c"status").unwrap();
        for (index, block) in text.as_bytes().chunks(1 << 10).enumerate() {
            sys::pwrite_from(&file, block.as_ptr().addr(), block.len(), (index << 10) as u64).unwrap();
        }
        ThreadStatus::parse(&file)
    }

    #[test]
    #[cfg_attr(miri, ignore = "makes a file")]
    fn what_is_known_is_taken() {
        // More groups than are read at once.
        let groups = "Groups:\t".to_owned() + &"4711 ".repeat(1000) + "\n";
        let status = parse(&[TEXT, &groups, REST].concat()).unwrap();
        assert_eq!((status.process, status.thread, status.threads, status.filters), (812, 813, 2, Some(3)));
        assert_eq!((status.users, status.groups), ([1000, 1000, 1000, 7], [100; 4]));
        assert_eq!((status.permitted, status.effective), (0xa804_25fb, 1));
        assert!(status.is_filtered && status.has_no_new_privileges && status.can_install_filters());
    }

    #[test]
    #[cfg_attr(miri, ignore = "makes a file")]
    fn kernels_without_counts_or_filters_are_understood() {
        let old = REST.replace("Seccomp_filters:\t3\n", "").replace("NoNewPrivs:\t1\n", "");
        let status = parse(&[TEXT, &old].concat()).unwrap();
        assert!(status.is_filtered && status.filters.is_none() && !status.can_install_filters());
        let status = parse(&[TEXT, &old.replace("Seccomp:\t2\n", "")].concat()).unwrap();
        assert!(!status.is_filtered);
        assert_eq!(parse("Pid:\t1\n"), Err(Errno(libc::EIO)));
    }

    #[test]
    #[cfg_attr(miri, ignore = "reads /proc")]
    fn the_status_of_this_thread_is_read() {
        let status = ThreadStatus::read_if(|_| true).unwrap();
        assert_eq!((status.process, status.thread), (sys::getpid(), sys::gettid()));
        assert_eq!(ThreadStatus::read_if(|other| other.process == status.process), Ok(status));
        assert_eq!(ThreadStatus::read_if(|_| false), Err(Errno(libc::ESRCH)));
        assert_eq!(status.users[1], sys::user_ids().unwrap().effective);
        assert_eq!(status.permitted, sys::capabilities().unwrap().permitted);
    }
}

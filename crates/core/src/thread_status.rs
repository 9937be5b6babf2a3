//! What the kernel reports about the calling thread in `/proc/PID/task/TID/status`
//! (`proc_pid_status(5)`): its rights, and the seccomp filters in force.
//!
//! It is read by system calls that the loader makes too, so it can be read under any filter
//! that permits loading objects.

use core::ffi::{CStr, c_int};

use crate::line::Line;
use crate::slices;
use crate::sys::{self, Errno, Fd, Result, ThreadIds};

mod text;

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
    /// Whether it certainly is the status of the thread that has read it. A main thread's status may
    /// be read in its place, where the kernel has no `/proc/thread-self`.
    pub is_of_reader: bool,
    /// Its state, as a letter: `R`, `S`, `T`, `Z`...
    pub state: u8,
    /// Its signals.
    pub signals: Signals,
    /// The process that traces this thread; 0 if there is none.
    pub tracer: i32,
    /// In how many namespaces the thread has an id, from that of this /proc to its own; 0 from Linux
    /// before 4.1. With 1 the ids here are those that system calls use.
    pub id_namespaces: usize,
    /// Memory whose pages drivers hold, in KiB: their devices may store to it.
    pub held: u64,
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
    /// How often the thread has gone to sleep. Only [`ThreadStatus::of_thread`] reads it, since it
    /// stands at the end.
    pub sleeps: Option<u64>,
}

/// Sets of signals of a thread, a bit for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    /// Those that wait for the thread.
    pub of_thread: u64,
    /// Those that wait for its process.
    pub of_process: u64,
    /// Those that the thread blocks.
    pub blocked: u64,
    /// Those that the process ignores.
    pub ignored: u64,
    /// Those for which it has handlers.
    pub caught: u64,
}

impl Signals {
    /// Returns whether one waits that will do something. A task that is traced gets those, too, that
    /// are ignored.
    fn has_effective(self) -> bool {
        let bit = |signal: c_int| 1_u64 << (signal - 1);
        let by_default = bit(libc::SIGCHLD) | bit(libc::SIGCONT) | bit(libc::SIGURG) | bit(libc::SIGWINCH);
        let ignored = self.ignored | by_default & !self.caught;
        (self.of_thread | self.of_process) & !self.blocked & !ignored != 0
    }
}

/// Bytes that are read at once, at most. Longer lines are skipped.
const BLOCK: usize = 1024;

const OF_MAIN_THREAD: &CStr = c"/proc/self/status";

/// Opens the status of the calling thread; returns it, and whether it certainly is that.
fn open() -> Result<(Fd, bool)> {
    match sys::open(c"/proc/thread-self/status", libc::O_RDONLY, 0) {
        Ok(file) => Ok((file, true)),
        // Linux before 3.17, and qemu-user, which does not emulate the former.
        Err(_) => Ok((sys::open(OF_MAIN_THREAD, libc::O_RDONLY, 0)?, false)),
    }
}

macro_rules! keys {
    ($($constant:ident $name:literal)*) => { $(const $constant: u64 = text::key($name);)* };
}
keys! {
    STATE b"State" PROCESS b"Tgid" THREAD b"Pid" PARENT b"PPid" TRACER b"TracerPid" USERS b"Uid" GROUPS b"Gid"
    IDS b"NSpid" HELD b"VmPin" THREADS b"Threads" OF_THREAD b"SigPnd" OF_PROCESS b"ShdPnd" BLOCKED b"SigBlk"
    IGNORED b"SigIgn" CAUGHT b"SigCgt" PERMITTED b"CapPrm" EFFECTIVE b"CapEff" NO_NEW_PRIVILEGES b"NoNewPrivs"
    FILTERED b"Seccomp" FILTERS b"Seccomp_filters" SLEEPS b"voluntary_ctxt_switches"
}

impl ThreadStatus {
    /// Reads the status of the calling thread, if `ours` accepts it. `ESRCH` if it does not: in
    /// a sandbox whose broker opens files for the process, the file can be the broker's own.
    /// The second file that is tried is the main thread's.
    pub fn read_if(ours: impl Fn(&Self) -> bool) -> Result<Self> {
        Self::read_for(false, ours)
    }

    /// Does the same, for a thread that `is_main_thread` from the file of the process, which is that
    /// of the thread then and which the kernel finds faster.
    pub fn read_for(is_main_thread: bool, ours: impl Fn(&Self) -> bool) -> Result<Self> {
        let of_main_thread = if is_main_thread { sys::open(OF_MAIN_THREAD, libc::O_RDONLY, 0).ok() } else { None };
        let (file, is_of_reader) = match of_main_thread {
            Some(file) => (file, true),
            None => open()?,
        };
        let status = Self { is_of_reader, ..Self::parse(&file)? };
        if ours(&status) {
            return Ok(status);
        }
        let of_main_thread = sys::open(OF_MAIN_THREAD, libc::O_RDONLY, 0).and_then(|file| Self::parse(&file));
        of_main_thread.ok().filter(ours).ok_or(Errno(libc::ESRCH))
    }

    /// Reads the same, and the owner of the file, who is root unless the process is dumpable.
    pub fn read_with_owner() -> Result<(Self, u32)> {
        let (file, _) = open()?;
        let status = Self::parse(&file)?;
        Ok((status, sys::fstat(file.raw())?.st_uid))
    }

    /// Reads the status of a thread of any process, as far as this process may read it.
    pub fn of_thread(process: i32, thread: i32) -> Result<Self> {
        let path = Line::<64>::format_raw(format_args!("/proc/{process}/task/{thread}/status\0"));
        Self::parse_until(&sys::open(path.as_c_str(), libc::O_RDONLY, 0)?, true)
    }

    /// Reads the status of the first process, as far as this process may read it.
    pub fn of_first_process() -> Result<Self> {
        Self::parse(&sys::open(c"/proc/1/status", libc::O_RDONLY, 0)?)
    }

    /// Parses the file up to the number of filters; `EIO` if it is not a status.
    fn parse(file: &Fd) -> Result<Self> {
        Self::parse_until(file, false)
    }

    /// Parses the file up to the number of filters, or to the last field if it is wanted `is_whole`.
    fn parse_until(file: &Fd, is_whole: bool) -> Result<Self> {
        let (mut status, mut seen) = (Self::default(), 0);
        // The block begins with the part of a line that was read before.
        let (mut block, mut kept, mut is_skipped) = ([0; BLOCK], 0, false);
        loop {
            let read = sys::read(file, block.get_mut(kept..).unwrap_or_default())?;
            let text = block.get(..kept + read).unwrap_or_default();
            let mut start = 0;
            while let Some(line) = text.get(start..).and_then(text::until_newline) {
                seen += u32::from(!is_skipped && status.take(line));
                (start, is_skipped) = (start + line.len() + 1, false);
            }
            if read == 0 || if is_whole { status.sleeps.is_some() } else { status.filters.is_some() } {
                break;
            }
            let end = text.len();
            is_skipped |= end - start == BLOCK;
            kept = if is_skipped { 0 } else { end - start };
            slices::move_down(&mut block, end - kept..end, 0);
        }
        // `Pid`, `Uid`, `Gid`, `Threads`, the two sets of capabilities, `Seccomp`. The
        // last is missing where the kernel has no filters.
        if seen >= 6 { Ok(status) } else { Err(Errno(libc::EIO)) }
    }

    /// Takes the known fields from a line, and returns whether it is one that every status has.
    fn take(&mut self, line: &[u8]) -> bool {
        let (name, value) = (text::key_of(line), || text::value(line));
        let decimal = || text::decimal(value());
        let set = || text::hexadecimal(value());
        let small = || decimal().and_then(|value| u32::try_from(value).ok());
        let id = || small().map_or(0, u32::cast_signed);
        let signals = || set().unwrap_or_default();
        let four = || {
            let mut ids = [u32::MAX; 4];
            for (id, word) in ids.iter_mut().zip(text::words(value())) {
                *id = text::decimal(word).and_then(|value| u32::try_from(value).ok()).unwrap_or(u32::MAX);
            }
            ids
        };
        match name {
            THREAD => self.thread = id(),
            USERS => self.users = four(),
            GROUPS => self.groups = four(),
            THREADS => self.threads = small().unwrap_or_default(),
            // A set that cannot be parsed counts as all capabilities.
            PERMITTED => self.permitted = set().unwrap_or(u64::MAX),
            EFFECTIVE => self.effective = set().unwrap_or(u64::MAX),
            FILTERED => self.is_filtered = decimal() != Some(0),
            PROCESS => self.process = id(),
            PARENT => self.parent = id(),
            STATE => self.state = value().iter().copied().find(u8::is_ascii_uppercase).unwrap_or_default(),
            OF_THREAD => self.signals.of_thread = signals(),
            OF_PROCESS => self.signals.of_process = signals(),
            BLOCKED => self.signals.blocked = signals(),
            IGNORED => self.signals.ignored = signals(),
            CAUGHT => self.signals.caught = signals(),
            TRACER => self.tracer = id(),
            IDS => self.id_namespaces = text::words(value()).count(),
            HELD => self.held = decimal().unwrap_or(u64::MAX),
            NO_NEW_PRIVILEGES => self.has_no_new_privileges = decimal() != Some(0),
            SLEEPS => self.sleeps = decimal(),
            FILTERS => self.filters = small(),
            _ => {}
        }
        matches!(name, THREAD | USERS | GROUPS | THREADS | PERMITTED | EFFECTIVE | FILTERED)
    }

    /// Returns the ids of the thread that has read the status, if the numbers in it are those that
    /// system calls use.
    pub fn reader(&self) -> Option<ThreadIds> {
        (self.is_of_reader && self.id_namespaces == 1)
            .then_some(ThreadIds { process: self.process, thread: self.thread })
    }

    /// Returns whether a signal waits for the thread that it neither blocks nor ignores.
    pub fn has_signal(&self) -> bool {
        self.signals.has_effective()
    }

    /// Returns whether the thread has ended, as the first one of a process may while others go on.
    pub const fn has_ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
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
                        TracerPid:\t17\nUid:\t1000\t1000\t1000\t7\nGid:\t100\t100\t100\t100\nFDSize:\t64\n";
    const REST: &str = "NSpid:\t813\t7\nVmPin:\t\t 64 kB\nThreads:\t2\nSigQ:\t0/95915\nSigPnd:\t0000000000000001\n\
                        ShdPnd:\t0000000000000202\nSigBlk:\t0000000000000203\nSigIgn:\t0000000000001000\n\
                        SigCgt:\t0000000000000400\nCapPrm:\t00000000a80425fb\nCapEff:\t0000000000000001\n\
                        NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\nCpus_allowed:\tf\n";

    fn parse(text: &str) -> Result<ThreadStatus> {
        parse_until(text, false)
    }

    fn parse_until(text: &str, is_whole: bool) -> Result<ThreadStatus> {
        let file = sys::memfd_create(c"status").unwrap();
        for (index, block) in text.as_bytes().chunks(1 << 10).enumerate() {
            sys::pwrite_from(&file, block.as_ptr().addr(), block.len(), (index << 10) as u64).unwrap();
        }
        ThreadStatus::parse_until(&file, is_whole)
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
        assert_eq!((status.tracer, status.id_namespaces, status.held), (17, 2, 64));
        let signals = Signals { of_thread: 1, of_process: 0x202, blocked: 0x203, ignored: 0x1000, caught: 0x400 };
        assert_eq!((status.state, status.signals), (b'R', signals));
        assert!(!status.has_ended() && !status.has_signal());
        assert!(ThreadStatus { signals: Signals { blocked: 2, ..signals }, ..status }.has_signal());
        assert!(ThreadStatus { state: b'Z', ..status }.has_ended());
        assert_eq!(status.sleeps, None);
    }

    #[test]
    fn ignored_signals_do_nothing() {
        let waiting = |signal: c_int| Signals { of_process: 1 << (signal - 1), ..Signals::default() };
        let (child, urgent, user) = (waiting(libc::SIGCHLD), waiting(libc::SIGURG), waiting(libc::SIGUSR1));
        assert!(!child.has_effective() && !urgent.has_effective() && user.has_effective());
        assert!(Signals { caught: child.of_process, ..child }.has_effective());
        assert!(!Signals { ignored: user.of_process, ..user }.has_effective());
        assert!(waiting(libc::SIGKILL).has_effective() && waiting(64).has_effective());
    }

    #[test]
    #[cfg_attr(miri, ignore = "makes a file")]
    fn the_whole_status_of_a_thread_is_read() {
        let text = "Name:\ta: b\nState:\tS (sleeping)\nPid:\t8\nTracerPid:\t7\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\n\
                    Threads:\t1\nSigPnd:\t0000000000000001\nShdPnd:\t0000000000000202\nSigBlk:\t0000000000000003\n\
                    CapPrm:\t0\nCapEff:\t0\nSeccomp:\t2\nSeccomp_filters:\t1\n\
                    voluntary_ctxt_switches:\t150\nnonvoluntary_ctxt_switches:\t545\n";
        let status = parse_until(text, true).unwrap();
        assert_eq!((status.state, status.tracer, status.is_filtered, status.sleeps), (b'S', 7, true, Some(150)));
        assert!(status.has_signal(), "of those that wait, 0x200 is not blocked");
        assert_eq!(parse_until("Name:\tx\nState:\n", false), Err(Errno(libc::EIO)));
        let own = ThreadStatus::of_thread(sys::getpid(), sys::gettid()).unwrap();
        assert!(!own.has_signal());
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
        assert_eq!((status.id_namespaces, status.state), (1, b'R'));
        assert!(
            ThreadStatus::of_thread(status.process, status.thread)
                .is_ok_and(|same| same.users == status.users && same.sleeps.is_some())
        );
        assert_eq!(ThreadStatus::read_if(|other| other.process == status.process), Ok(status));
        assert_eq!(ThreadStatus::read_if(|_| false), Err(Errno(libc::ESRCH)));
        assert_eq!(status.users[1], sys::user_ids().unwrap().effective);
        assert_eq!(status.permitted, sys::capabilities().unwrap().permitted);
    }
}

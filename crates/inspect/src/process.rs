//! One process as `/proc` shows it: facts about it, and a handle to its directory, relative to
//! which all its files are opened. The handle belongs to this process only: once the process is
//! gone, no file opens any more, even if another process has its number.

use std::io;
use std::os::fd::OwnedFd;

use rustix::buffer::spare_capacity;
use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;

/// Flag of a task of the kernel itself (include/linux/sched.h).
const PF_KTHREAD: u64 = 0x0020_0000;

/// Why a process could not be inspected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// There is no such process, or no longer.
    Vanished,
    /// It belongs to another user, or a security module refuses access.
    Denied,
    /// It is a task of the kernel itself and has no memory.
    KernelThread,
    /// It has ended, and its parent has not waited for it yet.
    Zombie,
    /// Any other error.
    Failed(String),
}

impl Trouble {
    /// Returns the meaning of a failed call on a file that every living process has.
    pub fn of(what: &str, error: &io::Error) -> Self {
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOENT | Errno::SRCH) => Self::Vanished,
            Some(Errno::ACCESS | Errno::PERM) => Self::Denied,
            _ => Self::Failed(format!("{what}: {error}")),
        }
    }

    /// Returns the reason in words, for people.
    pub fn reason(&self) -> &str {
        match self {
            Self::Vanished => "no such process",
            Self::Denied => "permission denied",
            Self::KernelThread => "a kernel thread, which has no memory of its own",
            Self::Zombie => "it has ended and waits for its parent",
            Self::Failed(reason) => reason,
        }
    }

    /// Returns the code of the reason, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Vanished => "vanished",
            Self::Denied => "denied",
            Self::KernelThread => "kernel-thread",
            Self::Zombie => "zombie",
            Self::Failed(_) => "failed",
        }
    }
}

/// A process whose directory is open.
pub struct Process {
    /// Its process id.
    pub pid: u32,
    /// Its effective user id.
    pub user: u32,
    /// `/proc/PID/stat`
    pub facts: Facts,
    /// The thread whose directory is open: another one if the first one has ended, because then
    /// the process's own directory shows neither memory nor descriptors.
    pub thread: u32,
    directory: OwnedFd,
}

/// The fields of `/proc/PID/stat` that are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The name of its first thread.
    pub name: String,
    /// `R`, `S`, `Z`...
    pub state: u8,
    /// The process id of its parent.
    pub parent: u32,
    flags: u64,
    /// When it was made, in clock ticks since the machine was started.
    pub start: u64,
}

impl Facts {
    /// Parses the text; the name in it may contain anything, parentheses too.
    fn parse(text: &[u8]) -> Option<Self> {
        let name = text.iter().position(|byte| *byte == b'(')? + 1;
        let end = text.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(text.get(end + 1..)?).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(Self {
            name: String::from_utf8_lossy(text.get(name..end)?).into_owned(),
            state: *fields.first()?.as_bytes().first()?,
            parent: u32::try_from(number(1)?).ok()?,
            flags: number(6)?,
            start: number(19)?,
        })
    }
}

impl Process {
    /// Opens the directory of a process that has memory.
    ///
    /// # Errors
    /// Why the process cannot be inspected.
    pub fn open(pid: u32) -> Result<Self, Trouble> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = fs::open(format!("/proc/{pid}"), flags, Mode::empty())
            .map_err(|errno| Trouble::of("open /proc/PID", &errno.into()))?;
        let user = fs::fstat(&directory).map_err(|errno| Trouble::of("stat /proc/PID", &errno.into()))?.st_uid;
        let text = read(&directory, "stat").map_err(|error| Trouble::of("read /proc/PID/stat", &error))?;
        let facts = Facts::parse(&text).ok_or_else(|| Trouble::Failed("/proc/PID/stat: not understood".to_owned()))?;
        if facts.flags & PF_KTHREAD != 0 {
            return Err(Trouble::KernelThread);
        }
        if matches!(facts.state, b'Z' | b'X') {
            return Self::open_by_thread(pid, facts).ok_or(Trouble::Zombie);
        }
        Ok(Self { pid, user, facts, thread: pid, directory })
    }

    /// Opens the directory of a thread of a process whose first thread has ended.
    fn open_by_thread(pid: u32, facts: Facts) -> Option<Self> {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
        let numbers = threads.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let open = |thread: u32| {
            // Unlike /proc/PID/task/TID, it has everything that /proc/PID has.
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let directory = fs::open(format!("/proc/{thread}"), flags, Mode::empty()).ok()?;
            let user = fs::fstat(&directory).ok()?.st_uid;
            let is_alive = !matches!(Facts::parse(&read(&directory, "stat").ok()?)?.state, b'Z' | b'X');
            // By now the number may be that of a thread of another process.
            let status = read(&directory, "status").ok()?;
            let group = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"Tgid:\t"))?;
            (is_alive && group == pid.to_string().as_bytes()).then_some((thread, user, directory))
        };
        let (thread, user, directory) = numbers.filter(|thread| *thread != pid).find_map(open)?;
        Some(Self { pid, user, facts, thread, directory })
    }

    /// Returns its directory, relative to which its files are opened.
    pub fn directory(&self) -> &OwnedFd {
        &self.directory
    }

    /// Reads a file in its directory.
    ///
    /// # Errors
    /// Those of opening and reading.
    pub fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        read(&self.directory, name)
    }

    /// Reads a file in its directory without which the process cannot be inspected.
    ///
    /// # Errors
    /// Why the process cannot be inspected.
    pub fn require(&self, name: &str) -> Result<Vec<u8>, Trouble> {
        self.read(name).map_err(|error| Trouble::of(&format!("read /proc/PID/{name}"), &error))
    }

    /// Returns the target of a symbolic link in its directory.
    ///
    /// # Errors
    /// Those of `readlink(2)`.
    pub fn link(&self, name: &str) -> io::Result<Vec<u8>> {
        Ok(fs::readlinkat(&self.directory, name, Vec::new())?.into_bytes())
    }

    /// Returns the arguments that it was started with; empty if it has overwritten them.
    pub fn command(&self) -> Vec<String> {
        words_of_command(&self.read("cmdline").unwrap_or_default())
    }

    /// Returns when its program image was made, in clock ticks since the machine was started. A
    /// process that was forked and has not called exec has the objects of its parent, which
    /// were loaded before it existed. Then both have the same auxiliary vector, in which the
    /// kernel has put randomised addresses.
    pub fn image_start(&self, auxv: &[u8]) -> u64 {
        let (mut start, mut parent) = (self.facts.start, self.facts.parent);
        while parent > 1 {
            let Ok(other) = Self::open(parent) else { break };
            // The number now belongs to a later process.
            if other.facts.start > start || !other.read("auxv").is_ok_and(|theirs| theirs == auxv) {
                break;
            }
            (start, parent) = (other.facts.start, other.facts.parent);
        }
        start
    }
}

/// Returns the words in `/proc/PID/cmdline`, or in its beginning.
pub fn words_of_command(text: &[u8]) -> Vec<String> {
    let text = text.strip_suffix(b"\0").unwrap_or(text);
    if text.is_empty() {
        return Vec::new();
    }
    text.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// Returns the ids of all processes, ascending.
///
/// # Errors
/// When there is no `/proc`.
pub fn all() -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        pids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    pids.sort_unstable();
    Ok(pids)
}

fn read(directory: &OwnedFd, name: &str) -> io::Result<Vec<u8>> {
    let file = fs::openat(directory, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    // Most of these files are shorter. With each further call the kernel has to find its position
    // again. `File::read_to_end` would also ask for their size, which these files do not have.
    let mut text = Vec::with_capacity(32 << 10);
    loop {
        match rustix::io::read(&file, spare_capacity(&mut text)) {
            Ok(0) => return Ok(text),
            Ok(_) => text.reserve(1),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_look_like_the_rest() {
        let text = b"7 (a) Z (b)) S 3 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 9876 1000 1 \n";
        let facts = Facts::parse(text).unwrap();
        assert_eq!((facts.name.as_str(), facts.state, facts.parent, facts.start), ("a) Z (b)", b'S', 3, 9876));
        for cut in 0..60 {
            assert_eq!(Facts::parse(&text[..cut]), None);
        }
    }

    #[test]
    fn kernel_threads_and_missing_processes_are_distinguished() {
        assert_eq!(Process::open(u32::MAX).err(), Some(Trouble::Vanished));
        let own = Process::open(std::process::id()).unwrap();
        assert_eq!(own.user, rustix::process::geteuid().as_raw());
        assert!(all().unwrap().contains(&own.pid) && !own.command().is_empty());
    }

    #[test]
    fn errors_of_the_kernel_mean_something() {
        let of = |errno: Errno| Trouble::of("read", &errno.into());
        assert_eq!(of(Errno::SRCH), Trouble::Vanished);
        assert_eq!(of(Errno::PERM), Trouble::Denied);
        assert!(matches!(of(Errno::IO), Trouble::Failed(text) if text.starts_with("read: ")));
    }
}

//! The process to be pinned: whether it may be, and its files in `/proc`.

use std::ffi::CString;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat};
use rustix::io::Errno;
use sopin_core::attributes::AttributeMap;
use sopin_core::memory::ProcessMemory;
use sopin_core::pagemap::Pagemap;
use sopin_core::sys::{self, Fd};
use sopin_inspect::process::{Process, Trouble};

use crate::frozen;
use crate::report::PinRefusal;
use crate::task::status_of;

/// Checks what can be known without stopping the process.
pub fn check(pid: u32, process: &Process) -> Result<(), PinRefusal> {
    if pid == std::process::id() {
        return Err(PinRefusal::Own);
    }
    if let Some(status) = status_of(pid, process.thread.cast_signed()).filter(|status| status.tracer != 0) {
        return Err(PinRefusal::Traced(status.tracer.cast_unsigned()));
    }
    let mut header = [0; 20];
    let executable = rustix::fs::openat(process.directory(), "exe", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    if let Ok(executable) = executable {
        let is_read = rustix::io::pread(&executable, &mut header, 0).is_ok_and(|len| len == header.len());
        // ELFCLASS64, and the machine.
        let machine: u16 = if cfg!(target_arch = "x86_64") { 62 } else { 183 };
        if is_read && (header[4] != 2 || header[18..20] != machine.to_ne_bytes()) {
            return Err(PinRefusal::OtherMachine);
        }
    }
    if frozen::is_frozen(process) {
        return Err(PinRefusal::Frozen);
    }
    Ok(())
}

/// The stores from which a process may get copies. It gets them as descriptors, and by a descriptor
/// the owner of a file can change the file's mode, where the mount permits that. So it gets only
/// what it could open itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsableStores {
    /// The system's store.
    pub system: bool,
    /// The store of the user who runs the command.
    pub user: bool,
}

impl UsableStores {
    /// Finds out which stores a process may use. `user` is the owner of the user's store, if that is
    /// open.
    pub fn of(process: &Process, user: Option<u32>) -> Self {
        let is_near = has_same_files(process);
        Self { system: is_near, user: is_near && user.is_some_and(|user| has_rights_of(process, user)) }
    }
}

/// Returns whether a process has the mounts and the root directory of this one.
fn has_same_files(process: &Process) -> bool {
    let own = rustix::fs::readlinkat(CWD, "/proc/self/ns/mnt", Vec::new()).map(CString::into_bytes);
    let is_same = |theirs: &[u8]| own.as_ref().is_ok_and(|own| own.as_slice() == theirs);
    let identity = |status: Stat| (status.st_dev, status.st_ino);
    let root = rustix::fs::statat(process.directory(), "root", AtFlags::empty()).map(identity);
    process.link("ns/mnt").is_ok_and(|theirs| is_same(&theirs))
        && root.is_ok_and(|root| rustix::fs::stat("/").map(identity) == Ok(root))
}

/// Returns whether a process has exactly the rights of a user, so that it may use the store of
/// that user.
fn has_rights_of(process: &Process, user: u32) -> bool {
    let text = process.read("status").unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let ids = |name| value(name).map(|ids| ids.split_ascii_whitespace().collect::<Vec<_>>()).unwrap_or_default();
    let user_text = user.to_string();
    let (users, groups) = (ids("Uid"), ids("Gid"));
    let are_same =
        users.len() == 4 && users.iter().all(|id| *id == user_text) && groups.windows(2).all(|pair| pair[0] == pair[1]);
    let has_none = |name| value(name).is_some_and(|set| set.trim().bytes().all(|digit| digit == b'0'));
    // The owner of the directory is root unless the process is dumpable.
    are_same && process.user == user && (user == 0 || has_none("CapPrm") && has_none("CapEff"))
}

pub fn memory_of(process: &Process) -> Result<ProcessMemory, PinRefusal> {
    Ok(ProcessMemory::of(open_for_core(process, "mem")?))
}

pub fn pagemap_of(process: &Process) -> Result<Pagemap, PinRefusal> {
    Ok(Pagemap::of(open_for_core(process, "pagemap")?))
}

pub fn attributes_of(process: &Process, fresh: Option<usize>) -> Result<AttributeMap, PinRefusal> {
    let file = open_for_core(process, "smaps")?;
    AttributeMap::of(&file, fresh).map_err(|_| PinRefusal::Failed("read /proc/PID/smaps".to_owned()))
}

/// Opens a file of a process in /proc for sopin-core.
pub fn open_for_core(process: &Process, name: &str) -> Result<Fd, PinRefusal> {
    let path = CString::new(format!("/proc/{}/{name}", process.thread)).unwrap_or_default();
    let wrong = |errno: sys::Errno| {
        let error = std::io::Error::from_raw_os_error(errno.0);
        PinRefusal::from(Trouble::of(&format!("open /proc/PID/{name}"), &error))
    };
    sys::open(&path, libc::O_RDONLY, 0).map_err(wrong)
}

pub fn failed(operation: &str, errno: Errno) -> PinRefusal {
    PinRefusal::Failed(format!("{operation}: {errno}"))
}

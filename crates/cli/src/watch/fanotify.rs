//! Events of `fanotify(7)`, which name the process that has written to a watched file. There are two groups. Most marks are
//! in one that reports a file by its handle (FAN_REPORT_FID): only that one reports that a length was
//! changed by `truncate(2)` or `O_TRUNC`, for which the kernel has no open file (`fsnotify_change` in
//! include/linux/fsnotify.h). The other group reports a descriptor, and has the files of which
//! the kernel or the file system gives no handle.
//!
//! The number of marks has no limit (FAN_UNLIMITED_MARKS) because the index has one; the queue
//! has that of the kernel. FAN_REPORT_PIDFD is not used: the kernel makes such a descriptor when
//! the event is read, so for a process that has ended there is none.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};
use nix::unistd;
use rustix::fs::OFlags;
use sopin_core::sys::FileHandle;
use sopin_inspect::descriptors;

use super::events::{FileChange, FileEvent, Marks, WriterId};
use super::index::Inode;

/// `FAN_REPORT_FID`, since Linux 5.1.
const REPORT_FID: InitFlags = InitFlags::from_bits_retain(0x200);
/// The events that are requested.
const MASK: MaskFlags = MaskFlags::FAN_MODIFY.union(MaskFlags::FAN_CLOSE_WRITE);
/// Bytes that are read at a time: 300 events.
const BUFFER: usize = 16 << 10;

/// Size of `struct fanotify_event_metadata`, and the only version of it.
const METADATA: usize = 24;
const VERSION: u8 = 3;
/// Type of the part of an event that has the file's handle (FAN_EVENT_INFO_TYPE_FID), and where in it
/// the handle begins: behind a header of 4 bytes and the number of the file system.
const INFO_FID: u8 = 1;
const HANDLE: usize = 12;

/// The number of a file system and a handle of a file on it, as in events and from `statfs(2)` and
/// `name_to_handle_at(2)`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Handle {
    file_system: u64,
    kind: i32,
    bytes: Vec<u8>,
}

/// The groups, and which file has which handle.
pub struct FanotifyEvents {
    by_handle: Fanotify,
    by_descriptor: Fanotify,
    handles: Mutex<Handles>,
}

#[derive(Default)]
struct Handles {
    inodes: HashMap<Handle, Inode>,
    by_inode: HashMap<Inode, Handle>,
}

impl FanotifyEvents {
    /// Makes the groups.
    ///
    /// # Errors
    /// `EPERM` without CAP_SYS_ADMIN; `ENOSYS`.
    pub fn open() -> io::Result<Self> {
        let flags = InitFlags::FAN_CLASS_NOTIF
            | InitFlags::FAN_CLOEXEC
            | InitFlags::FAN_NONBLOCK
            | InitFlags::FAN_UNLIMITED_MARKS;
        let file_flags = EventFFlags::O_RDONLY | EventFFlags::O_LARGEFILE | EventFFlags::O_CLOEXEC;
        let by_descriptor = Fanotify::init(flags, file_flags)?;
        // A kernel before 5.1 does without.
        let by_handle =
            Fanotify::init(flags | REPORT_FID, file_flags).or_else(|_| Fanotify::init(flags, file_flags))?;
        Ok(Self { by_handle, by_descriptor, handles: Mutex::default() })
    }

    /// Waits for events, and appends them. Returns whether there may be more of them already.
    ///
    /// # Errors
    /// Those of `read(2)`.
    pub fn read(&self, events: &mut Vec<FileEvent>) -> io::Result<bool> {
        let groups = [&self.by_handle, &self.by_descriptor];
        let mut ready = groups.map(|group| PollFd::new(group.as_fd(), PollFlags::POLLIN));
        match poll(&mut ready, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        self.read_ready(events)
    }

    /// Appends the events that there are.
    fn read_ready(&self, events: &mut Vec<FileEvent>) -> io::Result<bool> {
        let groups = [&self.by_handle, &self.by_descriptor];
        let mut buffer = vec![0; BUFFER];
        let mut may_have_more = false;
        for group in groups {
            let got = match unistd::read(group, &mut buffer) {
                Ok(got) => got,
                Err(Errno::EAGAIN | Errno::EINTR) => continue,
                // Of one event the file could not be opened.
                Err(Errno::EACCES | Errno::EPERM | Errno::ENOENT | Errno::ETXTBSY | Errno::ESTALE) => {
                    may_have_more = true;
                    continue;
                }
                Err(errno) => return Err(errno.into()),
            };
            may_have_more |= got > BUFFER / 2;
            self.parse(&buffer[..got], events);
        }
        Ok(may_have_more)
    }

    fn parse(&self, mut text: &[u8], events: &mut Vec<FileEvent>) {
        while let Some((event, rest)) = RawEvent::split(text) {
            text = rest;
            if event.mask.contains(MaskFlags::FAN_Q_OVERFLOW) {
                events.push(FileEvent::Overflow);
            } else if let Some(inode) = self.inode(&event) {
                events.push(FileEvent::Changed(FileChange {
                    inode,
                    writer: match u32::try_from(event.pid) {
                        Ok(pid) if pid != 0 => WriterId::Process(pid),
                        _ => WriterId::OfAnotherNamespace,
                    },
                    is_modified: event.mask.contains(MaskFlags::FAN_MODIFY),
                    is_closed: event.mask.contains(MaskFlags::FAN_CLOSE_WRITE),
                }));
            }
        }
    }

    fn inode(&self, event: &RawEvent) -> Option<Inode> {
        if event.descriptor >= 0 {
            let status = rustix::fs::stat(descriptors::path_of(event.descriptor));
            // The kernel has opened it for this process, and nothing else uses it.
            let _ = unistd::close(event.descriptor);
            return status.ok().map(|status| Inode { device: status.st_dev, number: status.st_ino });
        }
        self.handles().inodes.get(event.handle.as_ref()?).copied()
    }

    fn handles(&self) -> std::sync::MutexGuard<'_, Handles> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Marks for FanotifyEvents {
    fn add(&self, file: &OwnedFd, inode: Inode) -> io::Result<()> {
        if let Some(handle) = Handle::of(file) {
            // An event must find its file at once.
            let mut handles = self.handles();
            handles.inodes.insert(handle.clone(), inode);
            handles.by_inode.insert(inode, handle.clone());
            drop(handles);
            match mark(&self.by_handle, file) {
                // The file system has no handles that identify a file (fanotify_test_fid).
                Err(Errno::ENODEV | Errno::EOPNOTSUPP | Errno::EXDEV | Errno::EINVAL) => self.remove(inode),
                result => return Ok(result?),
            }
        }
        Ok(mark(&self.by_descriptor, file)?)
    }

    /// The mark itself goes when the kernel forgets the inode (FAN_MARK_EVICTABLE). Until then, events
    /// of the file are of no file that is known.
    fn remove(&self, inode: Inode) {
        let mut handles = self.handles();
        if let Some(handle) = handles.by_inode.remove(&inode) {
            handles.inodes.remove(&handle);
        }
    }
}

fn mark(group: &Fanotify, file: &OwnedFd) -> nix::Result<()> {
    let path = descriptors::path_of(std::os::fd::AsRawFd::as_raw_fd(file));
    let mark = |flags| group.mark(MarkFlags::FAN_MARK_ADD | flags, MASK, nix::fcntl::AT_FDCWD, Some(path.as_str()));
    match mark(MarkFlags::FAN_MARK_EVICTABLE) {
        // Linux before 5.19.
        Err(Errno::EINVAL) => mark(MarkFlags::empty()),
        // It has a mark that is not evictable.
        Err(Errno::EEXIST) => Ok(()),
        result => result,
    }
}

impl Handle {
    /// Returns the handle of an open file, if the kernel makes handles that only identify a file
    /// (Linux 6.5).
    fn of(file: &OwnedFd) -> Option<Self> {
        let core = descriptors::for_core(file, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY).ok()?;
        let handle = FileHandle::of(&core).ok()?;
        let (kind, bytes) = handle.parts();
        let file_system = rustix::fs::fstatvfs(file).ok()?.f_fsid;
        Some(Self { file_system, kind, bytes: bytes.to_owned() })
    }

    /// Reads the part of an event that has the handle.
    fn parse(info: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(i32::from_ne_bytes(*info.get(at..)?.first_chunk()?));
        let len = usize::try_from(word(HANDLE)?).ok()?;
        let bytes = info.get(HANDLE + 8..)?.get(..len)?.to_owned();
        // As rustix puts the two halves of `f_fsid` together.
        let half = |at: usize| Some(u64::from(word(at)?.cast_unsigned()));
        Some(Self { file_system: half(4)? | half(8)? << 32, kind: word(HANDLE + 4)?, bytes })
    }
}

/// An event as the kernel writes it.
struct RawEvent {
    mask: MaskFlags,
    descriptor: i32,
    pid: i32,
    handle: Option<Handle>,
}

impl RawEvent {
    /// Returns the first event of a text, and what follows.
    fn split(text: &[u8]) -> Option<(Self, &[u8])> {
        let head = text.first_chunk::<METADATA>()?;
        let word = |at: usize| Some(i32::from_ne_bytes(*head.get(at..)?.first_chunk()?));
        let len = usize::try_from(word(0)?).ok().filter(|len| *len >= METADATA)?;
        if head[4] != VERSION {
            return None;
        }
        let (event, rest) = text.split_at_checked(len)?;
        let mask = MaskFlags::from_bits_retain(u64::from_ne_bytes(*head.get(8..)?.first_chunk()?));
        let mut infos = event.get(METADATA..).unwrap_or_default();
        let mut handle = None;
        while let Some([kind, _, low, high]) = infos.first_chunk::<4>() {
            let len = usize::from(u16::from_ne_bytes([*low, *high])).max(4);
            let Some((info, others)) = infos.split_at_checked(len) else { break };
            if *kind == INFO_FID {
                handle = Handle::parse(info);
            }
            infos = others;
        }
        Some((Self { mask, descriptor: word(16)?, pid: word(20)?, handle }, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    /// Reads the changes of a file until one of them closes it, or for a second.
    fn changes(source: &FanotifyEvents, until_closed: bool) -> Vec<FileChange> {
        let (mut changes, begun) = (Vec::new(), Instant::now());
        while begun.elapsed() < Duration::from_secs(1) {
            let mut events = Vec::new();
            source.read_ready(&mut events).unwrap();
            changes.extend(events.into_iter().map(|event| match event {
                FileEvent::Changed(change) => change,
                FileEvent::Overflow => panic!("overflow"),
            }));
            if changes.last().is_some_and(|change: &FileChange| change.is_closed)
                || (!until_closed && !changes.is_empty())
            {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        changes
    }

    #[test]
    fn both_groups_tell_the_file_and_the_writer() {
        let Ok(source) = FanotifyEvents::open() else { return eprintln!("not root: nothing was tested") };
        let directory = tempfile::tempdir().unwrap();
        for is_by_handle in [true, false] {
            let path = directory.path().join(is_by_handle.to_string());
            std::fs::write(&path, "x").unwrap();
            let file = OwnedFd::from(std::fs::File::open(&path).unwrap());
            let status = rustix::fs::fstat(&file).unwrap();
            let inode = Inode { device: status.st_dev, number: status.st_ino };
            if is_by_handle {
                if Handle::of(&file).is_none() {
                    continue;
                }
                source.add(&file, inode).unwrap();
            } else {
                mark(&source.by_descriptor, &file).unwrap();
            }
            std::fs::write(&path, "yy").unwrap();
            let seen = changes(&source, true);
            let own = WriterId::Process(std::process::id());
            assert!(seen.iter().all(|change| change.inode == inode && change.writer == own), "{seen:?}");
            assert!(seen.iter().any(|change| change.is_modified) && seen.last().unwrap().is_closed, "{seen:?}");
            assert!(changes(&source, false).is_empty());
            source.remove(inode);
            if is_by_handle {
                std::fs::write(&path, "x").unwrap();
                assert!(changes(&source, false).is_empty(), "it is not known any more");
            }
        }
        // No descriptor of an event is left open.
        let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let below = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        assert_eq!(below.filter(|path| path.starts_with(directory.path())).count(), 0);
    }

    #[test]
    fn a_text_that_is_no_event_is_no_event() {
        assert!(RawEvent::split(&[]).is_none() && RawEvent::split(&[0; 24]).is_none());
        let mut event = [0; METADATA];
        event[0] = 24;
        event[4] = VERSION;
        assert!(RawEvent::split(&event).is_some());
        // It says that it is longer than the text.
        event[0] = 25;
        assert!(RawEvent::split(&event).is_none());
        assert!(Handle::parse(&[1; 19]).is_none());
        let mut long = [0; 40];
        long[HANDLE] = 200;
        assert!(Handle::parse(&long).is_none());
    }
}

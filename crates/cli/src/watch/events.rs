//! Events of the kernel about watched files. Their source is [`super::fanotify`], whose events name the
//! writer, if the command has the right to use it (CAP_SYS_ADMIN), and otherwise [`super::inotify`].

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::fanotify::FanotifyEvents;
use super::index::Inode;
use super::inotify::InotifyEvents;

/// An event about watched files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileEvent {
    /// A file was written to, or its length was changed, or it was closed by a process that might
    /// have written to it.
    Changed(FileChange),
    /// The kernel's queue was full: events were lost.
    Overflow,
}

/// A change of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileChange {
    /// The file.
    pub inode: Inode,
    /// The process that has changed it.
    pub writer: WriterId,
    /// Its contents or its length were changed.
    pub is_modified: bool,
    /// It was closed.
    pub is_closed: bool,
}

/// The process that has changed a file, as far as the event names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WriterId {
    /// A process.
    Process(u32),
    /// A process that has no number in the PID namespace of this one.
    OfAnotherNamespace,
    /// The source of the event does not name the writer.
    NotTold,
}

/// Asks for the events of files.
pub trait Marks {
    /// Asks for the events of a file that is open.
    ///
    /// # Errors
    /// Those of the system call; `ENOSPC` if there are too many.
    fn add(&self, file: &OwnedFd, inode: Inode) -> io::Result<()>;

    /// Does so for a file that a process maps.
    ///
    /// # Errors
    /// As [`Marks::add`].
    fn add_mapped(&self, file: &OwnedFd, inode: Inode, _pid: u32) -> io::Result<()> {
        self.add(file, inode)
    }

    /// Asks for no more events of a file that no process maps any more.
    fn remove(&self, inode: Inode);
}

/// The source of events. One thread reads them while another one asks for more.
#[derive(Clone)]
pub enum EventSource {
    /// With the writer's process id.
    Fanotify(Arc<FanotifyEvents>),
    /// Without.
    Inotify(Arc<InotifyEvents>),
}

impl EventSource {
    /// Opens the best source that this process may use.
    ///
    /// # Errors
    /// Those of `inotify_init1(2)`.
    pub fn open() -> io::Result<Self> {
        match FanotifyEvents::open() {
            Ok(events) => Ok(Self::Fanotify(Arc::new(events))),
            Err(_) => Ok(Self::Inotify(Arc::new(InotifyEvents::open()?))),
        }
    }

    /// Returns whether its events name the writer.
    pub fn names_writers(&self) -> bool {
        matches!(self, Self::Fanotify(_))
    }

    /// Returns its part that asks for events.
    pub fn marks(&self) -> Arc<dyn Marks + Send + Sync> {
        match self {
            Self::Fanotify(events) => events.clone(),
            Self::Inotify(events) => events.clone(),
        }
    }

    /// Waits for events, and appends them. Returns whether there may be more of them already.
    ///
    /// # Errors
    /// Those of `read(2)`.
    pub fn read(&self, events: &mut Vec<FileEvent>) -> io::Result<bool> {
        match self {
            Self::Fanotify(source) => source.read(events),
            Self::Inotify(source) => source.read(events),
        }
    }
}

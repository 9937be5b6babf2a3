//! Events by `inotify(7)`, for users who may not use `fanotify(7)`. They do not tell who has written
//! to a file.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use sopin_inspect::descriptors;

use super::events::{FileChange, FileEvent, Marks, WriterId};
use super::index::Inode;

/// Bytes that are read at a time. An event without a name has 16.
const BUFFER: usize = 16 << 10;

/// The instance, and which file each watch is of.
pub struct InotifyEvents {
    instance: OwnedFd,
    watches: Mutex<Watches>,
}

#[derive(Default)]
struct Watches {
    inodes: HashMap<i32, Inode>,
    by_inode: HashMap<Inode, i32>,
}

impl InotifyEvents {
    /// Makes the instance.
    ///
    /// # Errors
    /// `EMFILE` if the user has too many.
    pub fn open() -> io::Result<Self> {
        Ok(Self { instance: inotify::init(CreateFlags::CLOEXEC)?, watches: Mutex::default() })
    }

    /// Waits for events, and appends them. Returns whether there may be more of them already.
    ///
    /// # Errors
    /// Those of `read(2)`.
    pub fn read(&self, events: &mut Vec<FileEvent>) -> io::Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut reader = inotify::Reader::new(&self.instance, &mut buffer);
        loop {
            let (watch, what) = match reader.next() {
                Ok(event) => (event.wd(), event.events()),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            if what.contains(ReadFlags::QUEUE_OVERFLOW) {
                events.push(FileEvent::Overflow);
            } else if what.contains(ReadFlags::IGNORED) {
                self.watches().forget(watch);
            } else if let Some(inode) = self.watches().inodes.get(&watch) {
                events.push(FileEvent::Changed(FileChange {
                    inode: *inode,
                    writer: WriterId::NotTold,
                    is_modified: what.contains(ReadFlags::MODIFY),
                    is_closed: what.contains(ReadFlags::CLOSE_WRITE),
                }));
            }
            if reader.is_buffer_empty() {
                return Ok(events.len() > BUFFER / 32);
            }
        }
    }

    fn watches(&self) -> MutexGuard<'_, Watches> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watches {
    fn forget(&mut self, watch: i32) {
        if let Some(inode) = self.inodes.remove(&watch)
            && self.by_inode.get(&inode) == Some(&watch)
        {
            self.by_inode.remove(&inode);
        }
    }
}

impl Marks for InotifyEvents {
    fn add(&self, file: &OwnedFd, inode: Inode) -> io::Result<()> {
        // The reader must not see an event before its watch is known.
        let mut watches = self.watches();
        let path = descriptors::path_of(file.as_raw_fd());
        let watch = inotify::add_watch(&self.instance, path, WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE)?;
        watches.inodes.insert(watch, inode);
        watches.by_inode.insert(inode, watch);
        Ok(())
    }

    fn remove(&self, inode: Inode) {
        let mut watches = self.watches();
        if let Some(watch) = watches.by_inode.remove(&inode) {
            watches.inodes.remove(&watch);
            // The file may be gone, and its watch with it.
            let _ = inotify::remove_watch(&self.instance, watch);
        }
    }
}

//! An open of a file that waits for the guard's answer. It is answered once, by whichever thread is
//! first: the one that pins, when that is done, or the one that looks at the time.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use nix::sys::fanotify::{Fanotify, FanotifyEvent, FanotifyResponse, MarkFlags, MaskFlags, Response};
use sopin_inspect::descriptors;

use super::intention::Intention;
use super::openers::Openers;
use crate::watch::index::Inode;

/// The longest time for which an open waits.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// The answer to an open: none yet, or the reason for which it went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Permit {
    /// It waits.
    None = 0,
    /// Nothing was left to be done before it.
    Done,
    /// The time was up.
    Late,
    /// The watch ends.
    Ending,
}

/// An open that waits.
pub struct Opening {
    /// The file, by the numbers of `stat(2)`.
    pub inode: Inode,
    /// The thread that opens it.
    pub thread: i32,
    /// The process of that thread; 0 if it has no number here.
    pub process: u32,
    /// The use of the file, as far as the system call shows it.
    pub intention: Intention,
    /// When the event was read.
    pub begun: Instant,
    event: FanotifyEvent,
    group: Arc<Fanotify>,
    openers: Arc<Openers>,
    answer: AtomicU8,
}

impl Opening {
    /// Makes one of an event. `openers` has noted that the process waits.
    pub fn new(
        event: FanotifyEvent,
        (process, inode, intention, begun): (u32, Inode, Intention, Instant),
        group: Arc<Fanotify>,
        openers: Arc<Openers>,
    ) -> Self {
        let (thread, answer) = (event.pid(), AtomicU8::new(Permit::None as u8));
        Self { inode, thread, process, intention, begun, event, group, openers, answer }
    }

    /// Lets the open go on, unless it has. Returns whether this did.
    pub fn allow(&self, answer: Permit) -> bool {
        let (none, answer) = (Permit::None as u8, answer as u8);
        let is_first = self.answer.compare_exchange(none, answer, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if is_first {
            // From now on it may be pinned; a thread that has not left the kernel yet stops when it does.
            self.openers.go_on(self.process);
            if let Some(file) = self.event.fd() {
                allow(&self.group, file);
            }
        }
        is_first
    }

    /// Returns why it went on.
    pub fn answer(&self) -> Permit {
        match self.answer.load(Ordering::SeqCst) {
            answer if answer == Permit::Done as u8 => Permit::Done,
            answer if answer == Permit::Late as u8 => Permit::Late,
            answer if answer == Permit::Ending as u8 => Permit::Ending,
            _ => Permit::None,
        }
    }

    /// Returns how much of its patience is left.
    pub fn patience(&self) -> Duration {
        PATIENCE.saturating_sub(self.begun.elapsed())
    }

    /// Returns the path of the file, as this process sees it.
    pub fn path(&self) -> Vec<u8> {
        let link = self.event.fd().map(|file| descriptors::path_of(file.as_raw_fd()));
        let path = link.and_then(|link| std::fs::read_link(link).ok()).unwrap_or_default();
        path.into_os_string().into_vec()
    }

    /// Asks for no more events of the file.
    pub fn unmark(&self) {
        if let Some(file) = self.event.fd() {
            let _ = self.group.mark::<_, [u8]>(MarkFlags::FAN_MARK_REMOVE, MaskFlags::FAN_OPEN_PERM, file, None);
        }
    }
}

/// Lets an open go on. The kernel finds it by the number of the descriptor.
pub fn allow(group: &Fanotify, file: BorrowedFd<'_>) {
    // ENOENT: its thread was killed meanwhile.
    let _ = group.write_response(FanotifyResponse::new(file, Response::FAN_ALLOW));
}

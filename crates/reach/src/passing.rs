//! Passing descriptors into a process: over a pair of sockets that the process makes, one end of
//! which is taken out of it (`pidfd_getfd(2)`, since Linux 5.6). So the process needs no way to
//! the files of its own: it may be in other namespaces, under another root directory and under
//! another user.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, IoSlice};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketType, sendmsg, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Resource, Rlimit};
use sopin_inspect::memory::{Bytes, FileBytes};
use sopin_inspect::process::Process;

use crate::calls::{CallError, Caller};
use crate::descriptor::OF_THREAD;
use crate::memory::WritableMemory;
use crate::task::Task;

/// The most descriptors that are passed at once.
pub const MOST: usize = 8;
/// Free descriptors that the process needs: two sockets and those that are passed.
const ROOM: u64 = MOST as u64 + 2;

// Where the words of `recvmsg(2)` stand in the working memory.
const VECTOR: u64 = 64;
const BYTE: u64 = 96;
const CONTROL: u64 = 128;
/// `CMSG_LEN(0)`
const CONTROL_HEADER: u64 = 16;

/// A connection into a process.
pub struct Passage {
    own: OwnedFd,
    /// The process's number of its end.
    theirs: u64,
    /// Working memory in the process, a page.
    work: u64,
    /// The number of the next message.
    next: Cell<u8>,
}

impl Passage {
    /// Makes the connection. `work` is a page in the process that nothing else uses.
    pub fn open(caller: &mut Caller<'_>, readable: &FileBytes, work: u64) -> Result<Self, CallError> {
        let flags = (libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC) as u64;
        caller.call(libc::SYS_socketpair, [libc::AF_UNIX as u64, flags, 0, work, 0, 0])?;
        let pair = readable.word(work)?;
        let (theirs, other) = (pair & 0xffff_ffff, pair >> 32);
        let taken = take(caller.task(), other);
        let closed = close(caller, other);
        match taken.map_err(CallError::Failed).and_then(|own| closed.map(|()| own)) {
            Ok(own) => Ok(Self { own, theirs, work, next: Cell::new(1) }),
            Err(error) => {
                close(caller, theirs)?;
                Err(error)
            }
        }
    }

    /// Passes descriptors; returns their numbers in the process.
    pub fn pass(
        &self,
        caller: &mut Caller<'_>,
        readable: &FileBytes,
        writable: &WritableMemory,
        files: &[BorrowedFd<'_>],
    ) -> Result<Vec<u64>, CallError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(files)) {
            return Err(CallError::Failed(Errno::INVAL));
        }
        let message = self.next.replace(self.next.get().wrapping_add(1));
        sendmsg(&self.own, &[IoSlice::new(&[message])], &mut control, SendFlags::NOSIGNAL)?;
        let room = CONTROL_HEADER + 4 * files.len() as u64;
        // `struct msghdr` and behind it `struct iovec`.
        let header = [0, 0, self.work + VECTOR, 1, self.work + CONTROL, room.next_multiple_of(8), 0, 0];
        let vector = [self.work + BYTE, 1];
        let bytes: Vec<u8> = header.into_iter().chain(vector).flat_map(u64::to_ne_bytes).collect();
        writable.write(self.work, &bytes)?;
        let flags = (libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT) as u64;
        caller.call(libc::SYS_recvmsg, [self.theirs, self.work, flags, 0, 0, 0])?;
        let len = readable.word(self.work + CONTROL)?.saturating_sub(CONTROL_HEADER) / 4;
        let len = usize::try_from(len).unwrap_or_default().min(files.len());
        let numbers = readable.read_exact(self.work + CONTROL + CONTROL_HEADER, len * 4)?;
        let numbers: Vec<u64> = numbers
            .chunks_exact(4)
            .filter_map(|chunk| Some(u32::from_ne_bytes(*chunk.first_chunk()?).into()))
            .collect();
        // Another message is one that could not be received before.
        let is_right = readable.read_exact(self.work + BYTE, 1)? == [message];
        if numbers.len() < files.len() || !is_right {
            // Fewer because of the limit on descriptors, or of a security module.
            for number in numbers {
                close(caller, number)?;
            }
            return Err(CallError::Failed(Errno::MFILE));
        }
        Ok(numbers)
    }

    /// Closes the process's end.
    pub fn close(self, caller: &mut Caller<'_>) -> Result<(), CallError> {
        close(caller, self.theirs)
    }
}

/// Closes a descriptor of the process.
pub fn close(caller: &mut Caller<'_>, number: u64) -> Result<(), CallError> {
    caller.call(libc::SYS_close, [number, 0, 0, 0, 0, 0]).map(drop)
}

/// Takes a copy of a descriptor out of a task.
fn take(task: &Task, number: u64) -> Result<OwnedFd, Errno> {
    let number = i32::try_from(number).map_err(|_| Errno::BADF)?;
    let open = |id: i32, flags| rustix::process::pidfd_open(Pid::from_raw(id).ok_or(Errno::SRCH)?, flags);
    // A thread may have descriptors of its own, and a first thread that has ended has none. Older
    // kernels open only processes.
    let opened = open(task.id, OF_THREAD).or_else(|_| open(task.process.cast_signed(), PidfdFlags::empty()))?;
    let own = rustix::process::pidfd_getfd(opened.as_fd(), number, PidfdGetfdFlags::empty())?;
    // A process that shares the memory or the descriptors could have put another socket there, which
    // is connected to a process of other rights. It could still give away the other end of a pair of
    // this kind that the process has made itself. Who has that end receives what is passed to the
    // process: a byte, a file that the process maps or a copy of it, open for reading, and on request
    // the credentials of this process. The process could give all files away, too, and no protocol has
    // messages of that form. Nothing is received here over the socket. The numbers that the process
    // says that it has received are used only in its own system calls, so that wrong ones harm that
    // process alone.
    let is_pair = sockopt::socket_type(&own)? == SocketType::SEQPACKET
        && sockopt::socket_peercred(&own)?.pid.as_raw_nonzero().get().cast_unsigned() == task.process;
    if is_pair { Ok(own) } else { Err(Errno::BADF) }
}

/// A higher limit on the descriptors of a process, which is lowered again when this is dropped.
pub struct RaisedLimit {
    pid: Pid,
    before: Rlimit,
}

impl RaisedLimit {
    /// Raises the limit for as many descriptors as a passage needs, if the process uses nearly all
    /// that it may, and that is permitted.
    pub fn if_needed(process: &Process) -> Option<Self> {
        let open = std::fs::read_dir(format!("/proc/{}/fd", process.thread)).ok()?.count() as u64;
        let pid = Pid::from_raw(process.thread.cast_signed())?;
        let before = limit_of(pid)?;
        let needed = open + ROOM;
        let current = before.current?;
        if current >= needed {
            return None;
        }
        // The process may have numbers above its limit; new ones come behind the highest.
        let raised = needed + ROOM;
        let maximum = before.maximum.map(|maximum| maximum.max(raised));
        let new = Rlimit { current: Some(raised), maximum };
        rustix::process::prlimit(Some(pid), Resource::Nofile, new).ok()?;
        Some(Self { pid, before })
    }
}

impl Drop for RaisedLimit {
    fn drop(&mut self) {
        let before = Rlimit { current: self.before.current, maximum: self.before.maximum };
        let _ = rustix::process::prlimit(Some(self.pid), Resource::Nofile, before);
    }
}

/// Reads the limit on the descriptors of a process from `/proc/PID/limits`.
fn limit_of(pid: Pid) -> Option<Rlimit> {
    let text = std::fs::read_to_string(format!("/proc/{}/limits", pid.as_raw_nonzero())).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let mut values = line.split_ascii_whitespace().map(|word| word.parse().ok());
    Some(Rlimit { current: values.next()?, maximum: values.next()? })
}

//! A descriptor of a task: what it is open on, and how its calls wait. Nothing is transferred
//! over it.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, FileType, Statx, StatxFlags};
use rustix::net::{SocketType, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};

/// `PIDFD_THREAD`, since Linux 6.9.
pub const OF_THREAD: PidfdFlags = PidfdFlags::from_bits_retain(0x80);

/// A descriptor of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskDescriptor {
    process: u32,
    task: i32,
    number: i32,
}

/// The kind of the file that a descriptor refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A pipe, with a name or without.
    Pipe,
    /// A socket that transfers a sequence of bytes.
    StreamSocket,
    /// A socket that transfers each message as a whole.
    MessageSocket,
    /// A terminal or another character device.
    Device,
    /// Anything else.
    Other,
}

impl TaskDescriptor {
    /// Returns the descriptor that is this argument of a system call of the task.
    pub fn of(process: u32, task: i32, argument: u64) -> Self {
        // The kernel uses the lower half.
        Self { process, task, number: (argument as u32).cast_signed() }
    }

    /// Returns what it is open on; `None` if that is not known.
    pub fn kind(&self) -> Option<FileKind> {
        Some(match file_type(&self.status()?) {
            FileType::Fifo => FileKind::Pipe,
            FileType::CharacterDevice => FileKind::Device,
            FileType::Socket => match self.take().map(sockopt::socket_type)?.ok()? {
                SocketType::STREAM => FileKind::StreamSocket,
                _ => FileKind::MessageSocket,
            },
            _ => FileKind::Other,
        })
    }

    /// Returns whether its calls wait (`O_NONBLOCK` is not set); `None` if that is not known.
    pub fn waits(&self) -> Option<bool> {
        let flags = u32::from_str_radix(&self.information("flags")?, 8).ok()?;
        Some(flags & libc::O_NONBLOCK.cast_unsigned() == 0)
    }

    /// Returns the timeout of a socket; `None` if it has none, or if that is not known.
    pub fn timeout(&self, direction: sockopt::Timeout) -> Option<Duration> {
        if file_type(&self.status()?) != FileType::Socket {
            return None;
        }
        sockopt::socket_timeout(self.take()?, direction).ok()?
    }

    /// Returns the size of its file, in bytes.
    pub fn size(&self) -> Option<u64> {
        Some(self.status()?.stx_size)
    }

    /// Returns how many bytes of its file are behind its position.
    pub fn rest(&self) -> Option<u64> {
        Some(self.size()?.saturating_sub(self.information("pos")?.parse().ok()?))
    }

    /// Takes away the error that a socket returns by its next call.
    pub fn take_error(&self) {
        if let Some(own) = self.take() {
            let _ = sockopt::socket_error(own);
        }
    }

    fn status(&self) -> Option<Statx> {
        // A server that does not answer must not be asked, nor one that is a stopped process.
        let flags = AtFlags::STATX_DONT_SYNC;
        rustix::fs::statx(CWD, self.path("fd"), flags, StatxFlags::TYPE | StatxFlags::SIZE).ok()
    }

    fn path(&self, directory: &str) -> String {
        // A thread may have descriptors of its own, and a first thread that has ended has none.
        format!("/proc/{}/task/{}/{directory}/{}", self.process, self.task, self.number)
    }

    fn information(&self, name: &str) -> Option<String> {
        let text = fs::read_to_string(self.path("fdinfo")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.trim().to_owned())
    }

    /// Makes a copy of the descriptor in this process, from which options of a socket are read.
    fn take(&self) -> Option<OwnedFd> {
        let open = |id: i32, flags| rustix::process::pidfd_open(Pid::from_raw(id)?, flags).ok();
        // Older kernels open only processes.
        let opened = open(self.task, OF_THREAD).or_else(|| open(self.process.cast_signed(), PidfdFlags::empty()))?;
        rustix::process::pidfd_getfd(opened.as_fd(), self.number, PidfdGetfdFlags::empty()).ok()
    }
}

fn file_type(status: &Statx) -> FileType {
    FileType::from_raw_mode(status.stx_mode.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags};
    use std::os::fd::AsRawFd;

    fn of(descriptor: &impl AsRawFd) -> TaskDescriptor {
        let own = std::process::id();
        TaskDescriptor::of(own, own.cast_signed(), descriptor.as_raw_fd().cast_unsigned().into())
    }

    #[test]
    fn the_kind_of_a_descriptor_is_known() {
        let (stream, messages) = [SocketType::STREAM, SocketType::SEQPACKET]
            .map(|kind| rustix::net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap())
            .into();
        let pipe = std::io::pipe().unwrap();
        let file = fs::File::open("/proc/self/status").unwrap();
        let device = fs::File::open("/dev/null").unwrap();
        assert_eq!(of(&stream.0).kind(), Some(FileKind::StreamSocket));
        assert_eq!(of(&messages.0).kind(), Some(FileKind::MessageSocket));
        assert_eq!(of(&pipe.0).kind(), Some(FileKind::Pipe));
        assert_eq!(of(&device).kind(), Some(FileKind::Device));
        assert_eq!(of(&file).kind(), Some(FileKind::Other));
        assert_eq!(TaskDescriptor::of(std::process::id(), std::process::id().cast_signed(), 1 << 20).kind(), None);
    }

    #[test]
    fn waiting_timeouts_and_the_rest_of_a_file_are_known() {
        let (socket, _other) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        let second = Duration::from_secs(1);
        assert_eq!((of(&socket).waits(), of(&socket).timeout(sockopt::Timeout::Recv)), (Some(true), None));
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(second)).unwrap();
        rustix::io::ioctl_fionbio(&socket, true).unwrap();
        assert_eq!((of(&socket).waits(), of(&socket).timeout(sockopt::Timeout::Recv)), (Some(false), Some(second)));
        assert_eq!(of(&socket).timeout(sockopt::Timeout::Send), None);
        let file = fs::File::open("/proc/self/exe").unwrap();
        let size = file.metadata().unwrap().len();
        assert_eq!((of(&file).rest(), of(&file).timeout(sockopt::Timeout::Recv)), (Some(size), None));
        rustix::fs::seek(&file, rustix::fs::SeekFrom::End(-5)).unwrap();
        assert_eq!(of(&file).rest(), Some(5));
    }
}

//! Lines on stderr or in `SOPIN_LOG_FILE`.
//!
//! Writing must not hurt the host: a line never blocks (a full pipe loses it),
//! raises no SIGPIPE, and goes to descriptor 2 only while that is what it was
//! when the program started, so that a daemon that has closed its stderr and
//! opened a database there keeps its database. No descriptor is kept.

use core::ffi::CStr;
use core::fmt::{self, Write as _};

use sopin_core::cause::{Cause, Operation};
use sopin_core::line::Line;
use sopin_core::settings::{Level, Settings};
use sopin_core::sys::gate::NOT_MADE;
use sopin_core::sys::{self, Errno};

/// Longest line in bytes: what a pipe takes in one piece (`PIPE_BUF`).
const LINE: usize = 4096;
/// The same for the complaint about the log file.
const COMPLAINT: usize = 512;
const STDERR: i32 = 2;

/// Where messages go, and what has been said.
pub struct Log {
    /// Device and inode of stderr when the program started.
    stderr: Option<(u64, u64)>,
    /// Causes of exposed objects that have been named.
    causes: [Option<Cause>; 32],
    /// `SOPIN_LOG_FILE` could not be opened.
    uses_stderr_only: bool,
    /// Not on the stack, which may be a small one of the host's.
    buffer: Line<LINE>,
}

impl Log {
    /// A log that knows no stderr yet.
    pub const fn new() -> Self {
        Self { stderr: None, causes: [None; 32], uses_stderr_only: false, buffer: Line::new() }
    }

    /// Remembers what stderr is.
    pub fn remember_stderr(&mut self) {
        self.stderr = identity(STDERR);
    }

    /// Returns whether this cause is named for the first time. Beyond 32 causes all are old.
    pub fn is_new(&mut self, cause: Cause) -> bool {
        for known in &mut self.causes {
            match known {
                Some(known) if *known == cause => return false,
                Some(_) => {}
                None => {
                    *known = Some(cause);
                    return true;
                }
            }
        }
        false
    }

    /// Writes `libsopin: <message>` if the settings ask for `level`.
    pub fn line(&mut self, settings: &Settings, level: Level, message: fmt::Arguments<'_>) {
        if settings.level < level {
            return;
        }
        self.buffer.clear();
        // Writing to a Line cannot fail; what does not fit is cut.
        let _ = write!(self.buffer, "libsopin: {message}");
        self.buffer.finish();
        if let Some(path) = settings.log_file().filter(|_| !self.uses_stderr_only) {
            match append(path, self.buffer.as_bytes()) {
                Ok(()) => return,
                Err(cause) => {
                    self.uses_stderr_only = true;
                    let path = sopin_core::line::Text(path.to_bytes());
                    let mut complaint = Line::<COMPLAINT>::new();
                    let _ = write!(complaint, "libsopin: SOPIN_LOG_FILE: {path}: {cause}; using stderr");
                    to_stderr(self.stderr, complaint.finish());
                }
            }
        }
        to_stderr(self.stderr, self.buffer.as_bytes());
    }
}

/// Writes to stderr if that is still what it was.
fn to_stderr(expected: Option<(u64, u64)>, line: &[u8]) {
    if expected.is_none() || identity(STDERR) != expected {
        return;
    }
    let _ = match sys::fstat(STDERR) {
        Ok(status) if is_regular(&status) => write_to_file(STDERR, line),
        Ok(status) => write_to_stream(&status, line),
        Err(errno) => Err(errno),
    };
}

/// Writes to a descriptor that may make us wait, or raise SIGPIPE. A line that cannot be
/// written is lost.
fn write_to_stream(status: &libc::stat, line: &[u8]) -> sys::Result<()> {
    // A pipe with room for PIPE_BUF bytes says so; anything else is
    // always ready. POLLERR means that nobody reads the pipe.
    let written = sys::poll_now(STDERR, libc::POLLOUT).and_then(|events| match events {
        // The reader may have gone in between.
        libc::POLLOUT => sys::absorbing(libc::SIGPIPE, || sys::write(STDERR, line)).map(drop),
        _ => Ok(()),
    });
    if written == Err(NOT_MADE) { write_without_asking(status, line) } else { written }
}

/// The same where a seccomp filter may kill for asking, and for taking SIGPIPE off
/// again: by descriptors of our own of the same pipe, of which one reads, so that there
/// is a reader, and the other one does not wait. A socket gets nothing.
fn write_without_asking(status: &libc::stat, line: &[u8]) -> sys::Result<()> {
    const AGAIN: &CStr = c"/proc/self/fd/2";
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let is_pipe = status.st_mode & libc::S_IFMT == libc::S_IFIFO;
    let _reader = if is_pipe { Some(sys::open(AGAIN, libc::O_RDONLY | flags, 0)?) } else { None };
    let writer = sys::open(AGAIN, libc::O_WRONLY | flags, 0)?;
    sys::write(writer.raw(), line).map(drop)
}

fn identity(fd: i32) -> Option<(u64, u64)> {
    sys::fstat(fd).ok().map(|status| (status.st_dev, status.st_ino))
}

fn is_regular(status: &libc::stat) -> bool {
    status.st_mode & libc::S_IFMT == libc::S_IFREG
}

/// Appends one line; the file is opened for it and not waited for.
fn append(path: &CStr, line: &[u8]) -> Result<(), Cause> {
    let flags = libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT | libc::O_NOCTTY | libc::O_NONBLOCK;
    let file = sys::open(path, flags, 0o644).map_err(Operation::Open.failed())?;
    write_to_file(file.raw(), line).map_err(Operation::Write.failed())
}

/// Writes a line to a file, unless that goes beyond `RLIMIT_FSIZE`: it would raise SIGXFSZ.
fn write_to_file(fd: i32, line: &[u8]) -> sys::Result<()> {
    let status = sys::fstat(fd)?;
    if is_regular(&status) && status.st_size.cast_unsigned() + line.len() as u64 > sys::file_size_limit()? {
        return Err(Errno(libc::EFBIG));
    }
    sys::write(fd, line).map(drop)
}

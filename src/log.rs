//! Lines on stderr or in `SOPIN_LOG_FILE`.
//!
//! Writing must not harm the host. It never blocks: a line for which a pipe has no room is
//! lost. It raises no SIGPIPE. It writes to descriptor 2 only while that is the same file as
//! when the program started: a daemon may close its stderr and open a database, which gets
//! the same descriptor number. The library keeps no descriptor open.

use core::ffi::CStr;
use core::fmt::{self, Write as _};

use sopin_core::cause::{Cause, Operation};
use sopin_core::line::Line;
use sopin_core::settings::{Level, Settings};
use sopin_core::sys::gate::NOT_MADE;
use sopin_core::sys::{self, Errno};

/// Longest line in bytes: as much as a pipe takes in one piece (`PIPE_BUF`).
const LINE: usize = 4096;
/// Longest complaint about the log file, in bytes.
const COMPLAINT: usize = 512;
const STDERR: i32 = 2;

/// The destination of messages, and the causes that messages have named.
#[repr(C)]
pub struct Log {
    /// Device and inode of stderr when the program started.
    stderr: Option<(u64, u64)>,
    /// Causes that messages have named.
    causes: [Option<Cause>; 32],
    /// Whether a line could not be written to `SOPIN_LOG_FILE`.
    uses_stderr_only: bool,
    /// The line that is being written. It is not on the stack, because the host's stack may be
    /// small.
    buffer: Line<LINE>,
}

impl Log {
    /// Makes a log that writes nothing to stderr until that is known.
    pub const fn new() -> Self {
        Self { stderr: None, causes: [None; 32], uses_stderr_only: false, buffer: Line::new() }
    }

    /// Remembers which file stderr is.
    pub fn remember_stderr(&mut self) {
        self.stderr = identity(STDERR);
    }

    /// Returns whether this cause is named for the first time, and remembers it. After 32
    /// different causes it returns false for every other one.
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
        if settings.level >= level {
            self.write(settings, message);
        }
    }

    #[cold]
    #[inline(never)]
    fn write(&mut self, settings: &Settings, message: fmt::Arguments<'_>) {
        self.buffer.clear();
        // Writing to a Line cannot fail: it cuts a text that does not fit.
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

/// Writes to stderr if that is still the `expected` file.
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

/// Writes to stderr where writing could block or raise SIGPIPE. A line that cannot be written
/// is lost.
fn write_to_stream(status: &libc::stat, line: &[u8]) -> sys::Result<()> {
    // poll(2) reports a pipe as writable only if PIPE_BUF bytes fit, and a file that never
    // blocks always. It reports POLLERR for a pipe without a reader.
    let written = sys::poll_now(STDERR, libc::POLLOUT).and_then(|events| match events {
        // The reader may have closed the pipe since poll(2).
        libc::POLLOUT => sys::absorbing(libc::SIGPIPE, || sys::write(STDERR, line)).map(drop),
        _ => Ok(()),
    });
    if written == Err(NOT_MADE) { write_without_asking(status, line) } else { written }
}

/// Writes to stderr where a seccomp filter may kill for poll(2) and for the calls that absorb
/// SIGPIPE. It opens the same pipe twice: the descriptor for reading prevents SIGPIPE, because
/// the pipe has a reader then, and the one for writing does not block. A socket cannot be opened
/// like that, so the line is lost.
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

/// Appends one line to the file at `path`, which is opened for this line alone. It does not
/// wait for a reader of a FIFO.
fn append(path: &CStr, line: &[u8]) -> Result<(), Cause> {
    let flags = libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT | libc::O_NOCTTY | libc::O_NONBLOCK;
    let file = sys::open(path, flags, 0o644).map_err(Operation::Open.failed())?;
    write_to_file(file.raw(), line).map_err(Operation::Write.failed())
}

/// Writes a line to a file, unless the file would exceed `RLIMIT_FSIZE`, for which the kernel
/// raises SIGXFSZ.
fn write_to_file(fd: i32, line: &[u8]) -> sys::Result<()> {
    let status = sys::fstat(fd)?;
    if is_regular(&status) && status.st_size.cast_unsigned() + line.len() as u64 > sys::file_size_limit()? {
        return Err(Errno(libc::EFBIG));
    }
    sys::write(fd, line).map(drop)
}

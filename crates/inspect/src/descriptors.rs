//! Opens files again that are open already: descriptors of sopin-core and of the standard
//! library cannot be converted into each other, and a file that was opened with `O_PATH` must
//! be opened anew for reading.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use sopin_core::sys::{self, Fd, Status};
use sopin_store::Identity;

/// Returns a descriptor of sopin-core's for an open file. `/proc/self/fd` leads to the same
/// file even if its path now leads to another one.
///
/// # Errors
/// Those of `open(2)`.
pub fn for_core(file: &impl AsFd, flags: OFlags) -> sys::Result<Fd> {
    let path = CString::new(path_of(file.as_fd().as_raw_fd())).unwrap_or_default();
    sys::open(&path, flags.bits().cast_signed(), 0)
}

/// Returns a descriptor of the standard library's for a file that sopin-core has
/// open.
///
/// # Errors
/// Those of `open(2)`.
pub fn from_core(file: &Fd, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path_of(file.raw()), flags | OFlags::CLOEXEC, Mode::empty())
}

/// Returns what `fstat(2)` reports about an open file, as sopin-core's type.
///
/// # Errors
/// Those of `fstat(2)`.
pub fn status_of(file: &impl AsFd) -> rustix::io::Result<Status> {
    sys::fstat(file.as_fd().as_raw_fd()).map_err(errno)
}

/// Returns the identity of an open file: which version of which file it is.
///
/// # Errors
/// Those of `fstat(2)`.
pub fn identity_of(file: &impl AsFd) -> rustix::io::Result<Identity> {
    status_of(file).map(|status| Identity::of(&status))
}

/// Returns the path that leads to an open file.
pub fn path_of(descriptor: i32) -> String {
    format!("/proc/self/fd/{descriptor}")
}

/// Converts an error of sopin-core to one of rustix.
pub fn errno(error: sys::Errno) -> Errno {
    Errno::from_raw_os_error(error.0)
}

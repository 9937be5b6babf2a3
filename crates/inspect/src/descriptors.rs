//! Opens a file again that is open already: the descriptors of sopin-core and
//! those of the standard library do not become each other, and a file that was
//! opened only to be looked at has to be opened for reading.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use sopin_core::sys::{self, Fd, Status};
use sopin_store::Identity;

/// Returns a descriptor of sopin-core's for an open file. `/proc/self/fd` leads to
/// the very file, whatever its path leads to by now.
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

/// What `fstat(2)` says of an open file, as sopin-core has it.
///
/// # Errors
/// Those of `fstat(2)`.
pub fn status_of(file: &impl AsFd) -> rustix::io::Result<Status> {
    sys::fstat(file.as_fd().as_raw_fd()).map_err(errno)
}

/// Which version of which file an open file is.
///
/// # Errors
/// Those of `fstat(2)`.
pub fn identity_of(file: &impl AsFd) -> rustix::io::Result<Identity> {
    status_of(file).map(|status| Identity::of(&status))
}

/// The path that leads to an open file.
pub fn path_of(descriptor: i32) -> String {
    format!("/proc/self/fd/{descriptor}")
}

/// The error of sopin-core's in the words of the standard library.
pub fn errno(error: sys::Errno) -> Errno {
    Errno::from_raw_os_error(error.0)
}

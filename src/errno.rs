//! Keeping the host's `errno` as it was before the library ran.

use sopin_core::sys;

/// Runs `work`, the library's part of a call that the host has made, and restores `errno`
/// afterwards.
pub fn keeping_errno<T>(work: impl FnOnce() -> T) -> T {
    let errno = sys::errno();
    let done = work();
    sys::set_errno(errno);
    done
}

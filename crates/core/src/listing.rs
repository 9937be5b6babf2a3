//! How directories are opened, and the names in them.

use core::ffi::{CStr, c_int};
use core::ops::ControlFlow;

use crate::pages::PageVec;
use crate::sys::{self, Fd, Result};

/// Flags for a directory whose names are listed.
pub const DIRECTORY_TO_LIST: c_int = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
/// Flags for a directory that is only part of a path.
pub const DIRECTORY_TO_PASS: c_int = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;

/// Calls `each` with every name in an open directory but `.` and `..`, from its current position
/// on.
pub fn for_each_name(directory: &Fd, mut each: impl FnMut(&CStr)) -> Result<()> {
    try_each_name(directory, |name, _| {
        each(name);
        ControlFlow::Continue(())
    })
    .map(drop)
}

/// Does the same until `each` breaks, which gets the position behind the name too. A listing
/// continues there after [`sys::seek`], also one of another descriptor.
pub fn try_each_name(directory: &Fd, mut each: impl FnMut(&CStr, i64) -> ControlFlow<()>) -> Result<ControlFlow<()>> {
    list(directory, &mut each)
}

/// Does the work of [`try_each_name`]. There is one copy of it in the library, whose memory some hosts lock.
#[inline(never)]
fn list(directory: &Fd, each: &mut dyn FnMut(&CStr, i64) -> ControlFlow<()>) -> Result<ControlFlow<()>> {
    /// Offsets in a `struct linux_dirent64`: `d_off`, `d_reclen` and `d_name`.
    const POSITION: usize = 8;
    const LENGTH: usize = 16;
    const NAME: usize = 19;
    let mut buffer = PageVec::zeroed(1 << 14)?;
    loop {
        let mut rest = sys::getdents(directory, &mut buffer)?;
        if rest.is_empty() {
            return Ok(ControlFlow::Continue(()));
        }
        while let (Some(position), Some([low, high]), Some(name)) =
            (rest.get(POSITION..).and_then(|bytes| bytes.first_chunk()), rest.get(LENGTH..LENGTH + 2), rest.get(NAME..))
        {
            if let Ok(name) = CStr::from_bytes_until_nul(name)
                && name != c"."
                && name != c".."
                && each(name, i64::from_ne_bytes(*position)).is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
            // Advance by at least the fixed part, so that a malformed length cannot make the
            // loop endless.
            let length = usize::from(u16::from_ne_bytes([*low, *high])).max(NAME);
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}

//! The types of the C interface, as they stand in `include/sopin.h`.

use core::ffi::{c_char, c_int, c_void};

/// What the functions return.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum sopin_error {
    /// Success.
    SOPIN_OK = 0,
    /// An argument is null, a path is empty, a handle is not one, or a structure
    /// is smaller than in the first version of this header.
    SOPIN_EINVAL = -1,
    /// No loaded object has this path or handle.
    SOPIN_ENOENT = -2,
    /// SOPIN_MODE=off: the library pins nothing.
    SOPIN_EOFF = -3,
    /// The call might wait for ever: a signal handler or an allocator made it from
    /// inside a pin, or another thread has been forking for a tenth of a second
    /// and may be waiting for what this thread has interrupted. Try again later.
    SOPIN_EBUSY = -4,
    /// Writable or relocated ranges still map the file, because something may be
    /// storing to them, or for the reason that sopin_for_each() gives.
    SOPIN_EEXPOSED = -5,
    /// Read-only ranges still map the file although the mode is full; writable
    /// and relocated ranges do not.
    SOPIN_EPARTIAL = -6,
    /// SOPIN_EXCLUDE or SOPIN_ONLY excludes the object.
    SOPIN_EEXCLUDED = -7,
    /// The system does not provide memory or /proc, which every call needs.
    SOPIN_ESYSTEM = -8,
}

/// What to pin: SOPIN_MODE.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum sopin_mode {
    /// Everything that the process can read or execute.
    SOPIN_MODE_FULL = 1,
    /// Writable and relocated ranges.
    SOPIN_MODE_RELOCATED = 2,
    /// Nothing.
    SOPIN_MODE_OFF = 3,
}

/// What was reached for an object.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum sopin_reached {
    /// Nothing yet: another thread is loading the object, nothing proves that the
    /// loader has relocated it, or the mode is off.
    SOPIN_PENDING = 0,
    /// No change of the file can change any range of the object.
    SOPIN_FULL = 1,
    /// No change of the file can change writable or relocated ranges. Read-only
    /// ranges still map the file.
    SOPIN_RELOCATED = 2,
    /// Writable or relocated ranges still map the file.
    SOPIN_EXPOSED = 3,
    /// The settings exclude the object.
    SOPIN_EXCLUDED = 4,
    /// The object maps no file: the vDSO, or an object that the program has remapped.
    SOPIN_NO_FILE = 5,
}

/// The version of the library that is loaded. The header may be of another version.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sopin_version_info {
    /// Bytes of this structure. Set it before the call; see sopin_version().
    pub size: usize,
    /// 1 in version 1.2.3.
    pub major: u32,
    /// 2 in version 1.2.3.
    pub minor: u32,
    /// 3 in version 1.2.3.
    pub patch: u32,
    /// Zero.
    pub reserved: u32,
    /// The same as text, for example "1.2.3". Valid until the process ends; do not
    /// free it.
    pub text: *const c_char,
}

/// Sums over the objects of the process.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sopin_totals {
    /// Bytes of this structure. Set it before the call; see sopin_version().
    pub size: usize,
    /// The enum sopin_mode in force.
    pub mode: c_int,
    /// Zero.
    pub reserved: c_int,
    /// All objects, including those that are counted below.
    pub objects: usize,
    /// Objects that are SOPIN_PENDING.
    pub pending: usize,
    /// Objects that are SOPIN_FULL.
    pub full: usize,
    /// Objects that are SOPIN_RELOCATED.
    pub relocated: usize,
    /// Objects that are SOPIN_EXPOSED.
    pub exposed: usize,
    /// Objects that are SOPIN_EXCLUDED.
    pub excluded: usize,
    /// Objects that are SOPIN_NO_FILE.
    pub no_file: usize,
    /// Bytes of all ranges that have been replaced.
    pub bytes: u64,
}

/// An object, as sopin_for_each() describes it. Its texts are valid until the
/// visitor returns.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sopin_object {
    /// Bytes of this structure in the version of the library: a member beyond
    /// them does not exist.
    pub size: usize,
    /// The path of the file that the object was loaded from, as in /proc/PID/maps
    /// (with " (deleted)" behind the path of a file that has been unlinked), or the
    /// loader's name for the object where the library cannot find out the path.
    pub path: *const c_char,
    /// Load bias: what the loader has added to the addresses in the file.
    pub base: *const c_void,
    /// What was reached, an enum sopin_reached.
    pub reached: c_int,
    /// errno of the system call that failed, or 0.
    pub error: c_int,
    /// The reason why not more was reached, as text for people, for example
    /// "mmap: ENOMEM (Cannot allocate memory)"; null if there is none.
    pub reason: *const c_char,
    /// Bytes of the ranges that have been replaced.
    pub bytes: u64,
}

/// A function that sopin_for_each() calls for each object. Any result but 0 ends the
/// iteration.
pub type sopin_visitor = Option<unsafe extern "C-unwind" fn(object: *const sopin_object, data: *mut c_void) -> c_int>;

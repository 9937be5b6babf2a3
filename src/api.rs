//! The C interface: the functions of `include/sopin.h`, which cbindgen makes of
//! this file (`tests/header.rs` compares; how to make it anew stands there).
//! Documentation here is that of the header.
//!
//! Nothing unwinds out of these functions but what a visitor throws, `errno` is
//! what it was, and no lock is held while the host's code runs.

#![allow(
    non_camel_case_types,
    clippy::enum_glob_use,
    reason = "names of the C interface, where enumerators are global"
)]

use core::ffi::{CStr, c_char, c_int, c_void};
use core::fmt::Write as _;
use core::mem::ManuallyDrop;
use core::ptr;

use sopin_core::line::Line;
use sopin_core::memory::OwnMemory;
use sopin_core::pages::PageVec;
use sopin_core::records::{MAX_TEXT, Reached, ReasonAt, Record, TextAt};
use sopin_core::settings::Mode;
use sopin_core::sys::Errno;
use sopin_core::vmas::Maps;

use crate::hooks;
use crate::request::{self, Description, Pinned, Refusal};
use crate::sweep::Verdict;

use sopin_error::*;
use sopin_mode::*;
use sopin_reached::*;

/// What the functions return.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum sopin_error {
    /// What was asked for is done.
    SOPIN_OK = 0,
    /// An argument is null, a structure smaller than the first version of this
    /// header had it, a path empty, a handle none.
    SOPIN_EINVAL = -1,
    /// No object that is loaded has this path or handle.
    SOPIN_ENOENT = -2,
    /// SOPIN_MODE=off: nothing is ever pinned.
    SOPIN_EOFF = -3,
    /// The library or the loader is busy in a way that waiting does not end: a
    /// signal handler or an allocator called from inside a pin, a child made by
    /// _Fork(3) or clone(2) while another thread was pinning.
    SOPIN_EBUSY = -4,
    /// Writable or relocated ranges still map the file, because other threads
    /// may be storing to them, or for the reason that sopin_for_each() gives.
    SOPIN_EEXPOSED = -5,
    /// Read-only ranges still map the file although the mode is full; writable
    /// and relocated ranges do not.
    SOPIN_EPARTIAL = -6,
    /// SOPIN_EXCLUDE or SOPIN_ONLY say to leave the object alone.
    SOPIN_EEXCLUDED = -7,
    /// The system refuses what everything needs: memory, or /proc.
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
    /// Nothing yet: another thread is loading it, nothing proves that the loader
    /// has relocated it, or the mode is off.
    SOPIN_PENDING = 0,
    /// Every range is out of the file's reach.
    SOPIN_FULL = 1,
    /// Writable and relocated ranges are out of the file's reach.
    SOPIN_RELOCATED = 2,
    /// Writable or relocated ranges still map the file.
    SOPIN_EXPOSED = 3,
    /// The settings say to leave the object alone.
    SOPIN_EXCLUDED = 4,
    /// It maps no file: the vDSO, or an object that the program has remapped.
    SOPIN_NO_FILE = 5,
}

/// The version of the library, as opposed to that of this header.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sopin_version_info {
    /// Bytes of this structure. Set it before the call; see sopin_version().
    pub size: usize,
    /// As in 1.2.3: 1.
    pub major: u32,
    /// As in 1.2.3: 2.
    pub minor: u32,
    /// As in 1.2.3: 3.
    pub patch: u32,
    /// Zero.
    pub reserved: u32,
    /// The same as text, for example "1.2.3". Never freed.
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
    /// All objects, those counted below included.
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

/// An object, as sopin_for_each() describes it. Texts live until the visitor
/// returns.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sopin_object {
    /// Bytes of this structure in the version of the library: a member beyond
    /// them does not exist.
    pub size: usize,
    /// The path of the file that it was loaded from, as in /proc/PID/maps (with
    /// " (deleted)" behind the path of a file that has been unlinked), or what the
    /// loader calls it where that cannot be found out.
    pub path: *const c_char,
    /// Load bias: what the loader has added to the addresses in the file.
    pub base: *const c_void,
    /// What was reached, an enum sopin_reached.
    pub reached: c_int,
    /// errno of the system call that failed, or 0.
    pub error: c_int,
    /// Why not more was reached, for people, for example
    /// "mmap: ENOMEM (Cannot allocate memory)"; null if there is nothing to say.
    pub reason: *const c_char,
    /// Bytes of the ranges that have been replaced.
    pub bytes: u64,
}

/// Called by sopin_for_each() for one object. Anything but 0 ends the walk.
pub type sopin_visitor = Option<unsafe extern "C-unwind" fn(object: *const sopin_object, data: *mut c_void) -> c_int>;

/// Gets the version of the library.
///
/// This and other structures that the caller provides carry their size, so that
/// programs and libraries of different versions understand each other: the
/// library fills in what both know and sets `size` to how many bytes that is. It
/// never writes beyond the `size` that it was given.
///
/// Returns 0 or SOPIN_EINVAL.
///
/// # Safety
/// `version` must be null or point to `size` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sopin_version(version: *mut sopin_version_info) -> c_int {
    let number = |text: &str| text.parse().unwrap_or(0);
    let filled = sopin_version_info {
        size: size_of::<sopin_version_info>(),
        major: number(env!("CARGO_PKG_VERSION_MAJOR")),
        minor: number(env!("CARGO_PKG_VERSION_MINOR")),
        patch: number(env!("CARGO_PKG_VERSION_PATCH")),
        reserved: 0,
        text: concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast(),
    };
    // SAFETY: per the caller.
    unsafe { fill(version, filled) as c_int }
}

/// Pins every object that is loaded, as far as that is possible now: objects
/// that were loaded before the library or that it could not pin whole are tried
/// again. Of an object whose data other threads may be storing to only the
/// read-only and the RELRO ranges are pinned; its writable ranges follow when
/// this is called while the process has one thread. What another thread is just
/// loading is pinned by that thread.
///
/// Returns 0 if every object that is not excluded is pinned as the mode says,
/// SOPIN_EEXPOSED or SOPIN_EPARTIAL if one is not, SOPIN_EOFF, SOPIN_EBUSY or
/// SOPIN_ESYSTEM. What could be pinned is pinned in any case.
#[unsafe(no_mangle)]
pub extern "C" fn sopin_pin_all() -> c_int {
    shielded(|| code(request::pin_everything(hooks::announce())))
}

/// Pins the object that was loaded from `path`, as sopin_pin_all() would: the
/// one that the loader knows by that name, or whose file is or was the one at
/// that path, symbolic links followed. A path without a slash is compared with
/// the objects' file names. Nothing is loaded.
///
/// Returns 0 if the object is pinned as the mode says, SOPIN_ENOENT if no object
/// is it, SOPIN_EINVAL, SOPIN_EEXPOSED, SOPIN_EPARTIAL, SOPIN_EEXCLUDED,
/// SOPIN_EOFF, SOPIN_EBUSY or SOPIN_ESYSTEM.
///
/// # Safety
/// `path` must be null or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sopin_pin_path(path: *const c_char) -> c_int {
    shielded(|| {
        if path.is_null() {
            return SOPIN_EINVAL;
        }
        // SAFETY: per the caller.
        code(request::pin_path(unsafe { CStr::from_ptr(path) }, hooks::announce()))
    })
}

/// Pins the object of a `handle` of dlopen(3) or dlmopen(3) that is open, and
/// the objects that it needs, as sopin_pin_all() would. A handle proves more
/// than a path: that the loader is done with the object.
///
/// Returns as sopin_pin_path(), about the object itself, not those it needs.
///
/// # Safety
/// `handle` must be null or open, and nobody may close it during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sopin_pin_handle(handle: *mut c_void) -> c_int {
    shielded(|| {
        // SAFETY: per the caller.
        code(unsafe { request::pin_handle(handle, hooks::announce()) })
    })
}

/// Calls `visitor` with `data` for every object of the process: first the
/// loader's list in its order, then objects in namespaces of dlmopen(3) that the
/// library knows. No lock is held during a call, so the visitor may do anything,
/// load objects, call functions of this library and throw C++ exceptions
/// included; it sees the objects as they were when sopin_for_each() was called.
///
/// Returns 0, also if the visitor has ended the walk, SOPIN_EINVAL, SOPIN_EBUSY
/// or SOPIN_ESYSTEM.
///
/// # Safety
/// `visitor` must be null or a function that accepts `data`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sopin_for_each(visitor: sopin_visitor, data: *mut c_void) -> c_int {
    let Some(visitor) = visitor else { return SOPIN_EINVAL as c_int };
    // What the visitor throws was made by another unwinder than the one that is
    // linked into this library, so nothing here may need cleaning up on its way:
    // a walk that ends like that costs a few pages.
    let mut walk = ManuallyDrop::new(None);
    let begun = shielded(|| match Walk::begin() {
        Ok(begun) => {
            *walk = Some(begun);
            SOPIN_OK
        }
        Err(refusal) => code_of(refusal),
    });
    let mut index = 0;
    loop {
        let mut object = None;
        shielded(|| {
            object = walk.as_mut().and_then(|walk| walk.object(index));
            SOPIN_OK
        });
        match object {
            // SAFETY: per the caller; the object's texts live in `walk`.
            Some(object) if unsafe { visitor(&raw const object, data) } == 0 => index += 1,
            _ => break,
        }
    }
    shielded(|| {
        drop(walk.take());
        SOPIN_OK
    });
    begun
}

/// Sums up what sopin_for_each() tells.
///
/// Returns 0, SOPIN_EINVAL, SOPIN_EBUSY or SOPIN_ESYSTEM.
///
/// # Safety
/// As for sopin_version().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sopin_summary(totals: *mut sopin_totals) -> c_int {
    shielded(|| match request::describe_all() {
        // SAFETY: per the caller.
        Ok(description) => unsafe { fill(totals, sum(&description)) },
        Err(refusal) => code_of(refusal),
    })
}

/// The meaning of what a function here has returned, in English. Never null,
/// never freed.
#[unsafe(no_mangle)]
pub extern "C" fn sopin_strerror(code: c_int) -> *const c_char {
    let codes = [
        SOPIN_OK,
        SOPIN_EINVAL,
        SOPIN_ENOENT,
        SOPIN_EOFF,
        SOPIN_EBUSY,
        SOPIN_EEXPOSED,
        SOPIN_EPARTIAL,
        SOPIN_EEXCLUDED,
        SOPIN_ESYSTEM,
    ];
    let text = match codes.into_iter().find(|known| *known as c_int == code) {
        Some(SOPIN_OK) => c"Success",
        Some(SOPIN_EINVAL) => c"Invalid argument",
        Some(SOPIN_ENOENT) => c"No such object is loaded",
        Some(SOPIN_EOFF) => c"Pinning is turned off (SOPIN_MODE=off)",
        Some(SOPIN_EBUSY) => c"The library is busy in this thread or was when the process was made",
        Some(SOPIN_EEXPOSED) => c"Writable or relocated ranges still map the file",
        Some(SOPIN_EPARTIAL) => c"Read-only ranges still map the file",
        Some(SOPIN_EEXCLUDED) => c"The settings exclude the object",
        Some(SOPIN_ESYSTEM) => c"The system refused memory or /proc",
        None => c"Unknown error",
    };
    text.as_ptr()
}

fn shielded(work: impl FnOnce() -> sopin_error) -> c_int {
    // A panic would be a bug of ours.
    hooks::shielded(work).unwrap_or(SOPIN_ESYSTEM) as c_int
}

fn code(result: Pinned) -> sopin_error {
    match result {
        Ok(Verdict::Pinned) => SOPIN_OK,
        Ok(Verdict::Excluded) => SOPIN_EEXCLUDED,
        Ok(Verdict::Partial) => SOPIN_EPARTIAL,
        Ok(Verdict::Exposed) => SOPIN_EEXPOSED,
        Ok(Verdict::NotLoaded) => SOPIN_ENOENT,
        Err(refusal) => code_of(refusal),
    }
}

const fn code_of(refusal: Refusal) -> sopin_error {
    match refusal {
        Refusal::Invalid => SOPIN_EINVAL,
        Refusal::Off => SOPIN_EOFF,
        Refusal::Busy => SOPIN_EBUSY,
        Refusal::System => SOPIN_ESYSTEM,
    }
}

/// A structure that a caller provides: its first member is its size.
///
/// # Safety
/// `repr(C)`, plain data, with `size: usize` first.
unsafe trait Extensible: Copy {
    /// Bytes of the first version of the structure.
    const FIRST: usize;
}

// SAFETY: see the definition.
unsafe impl Extensible for sopin_version_info {
    const FIRST: usize = 32;
}

// SAFETY: see the definition.
unsafe impl Extensible for sopin_totals {
    const FIRST: usize = 80;
}

/// Fills in what both sides know of a structure.
///
/// # Safety
/// `target` must be null or point to as many writable bytes as its `size` says.
unsafe fn fill<T: Extensible>(target: *mut T, filled: T) -> sopin_error {
    if target.is_null() {
        return SOPIN_EINVAL;
    }
    // SAFETY: the size is the first member, and there at least.
    let given = unsafe { target.cast::<usize>().read_unaligned() };
    if given < T::FIRST {
        return SOPIN_EINVAL;
    }
    let len = given.min(size_of::<T>());
    // SAFETY: both have `len` bytes.
    unsafe { ptr::copy_nonoverlapping((&raw const filled).cast::<u8>(), target.cast(), len) };
    // SAFETY: as above.
    unsafe { target.cast::<usize>().write_unaligned(len) };
    SOPIN_OK
}

const fn mode_code(mode: Mode) -> sopin_mode {
    match mode {
        Mode::Full => SOPIN_MODE_FULL,
        Mode::Relocated => SOPIN_MODE_RELOCATED,
        Mode::Off => SOPIN_MODE_OFF,
    }
}

const fn reached_code(reached: Reached) -> sopin_reached {
    match reached {
        Reached::Pending => SOPIN_PENDING,
        Reached::Full => SOPIN_FULL,
        Reached::Relocated => SOPIN_RELOCATED,
        Reached::Exposed => SOPIN_EXPOSED,
        Reached::Excluded => SOPIN_EXCLUDED,
        Reached::NoFile => SOPIN_NO_FILE,
    }
}

fn sum(description: &Description) -> sopin_totals {
    let mut totals = sopin_totals {
        size: size_of::<sopin_totals>(),
        mode: mode_code(description.mode) as c_int,
        reserved: 0,
        objects: description.objects.len(),
        pending: 0,
        full: 0,
        relocated: 0,
        exposed: 0,
        excluded: 0,
        no_file: 0,
        bytes: 0,
    };
    for object in description.objects.iter() {
        let count = match object.record.reached().unwrap_or_default() {
            Reached::Pending => &mut totals.pending,
            Reached::Full => &mut totals.full,
            Reached::Relocated => &mut totals.relocated,
            Reached::Exposed => &mut totals.exposed,
            Reached::Excluded => &mut totals.excluded,
            Reached::NoFile => &mut totals.no_file,
        };
        *count += 1;
        totals.bytes += object.record.bytes;
    }
    totals
}

/// Longest reason: two texts, a colon and a blank, a NUL.
const REASON: usize = 2 * MAX_TEXT + 3;

/// A walk over the objects. The stack may be a small one of the host's, so the
/// path is in pages.
struct Walk {
    description: Description,
    memory: OwnMemory,
    path: PageVec<u8>,
    reason: Line<REASON>,
}

impl Walk {
    fn begin() -> Result<Self, Refusal> {
        let description = request::describe_all()?;
        let path = PageVec::filled(0, libc::PATH_MAX as usize).map_err(|_| Refusal::System)?;
        Ok(Self { description, memory: OwnMemory::new(), path, reason: Line::new() })
    }

    /// The object at `index`, with its texts in the buffers.
    fn object(&mut self, index: usize) -> Option<sopin_object> {
        let object = *self.description.objects.get(index)?;
        // Opened anew for every object: no descriptor of ours is open while the
        // host's code runs.
        let mut maps = Maps::open().ok();
        request::read_path(&object, maps.as_mut(), &self.memory, &mut self.path);
        self.reason.clear();
        let has_reason = write_reason(&mut self.reason, &object.record).is_some();
        Some(sopin_object {
            size: size_of::<sopin_object>(),
            path: self.path.as_ptr().cast(),
            base: object.record.base as usize as *const c_void,
            reached: reached_code(object.record.reached().unwrap_or_default()) as c_int,
            error: errno_of(&object.record).map_or(0, |errno| errno.0),
            reason: if has_reason { self.reason.as_bytes().as_ptr().cast() } else { ptr::null() },
            bytes: object.record.bytes,
        })
    }
}

fn errno_of(record: &Record) -> Option<Errno> {
    match record.cause()?.reason {
        ReasonAt::Errno(errno) => Some(errno),
        ReasonAt::Words(_) => None,
    }
}

/// Writes why not more was reached, as a C string.
fn write_reason(line: &mut Line<REASON>, record: &Record) -> Option<()> {
    let cause = record.cause()?;
    let operation = text(cause.operation)?;
    let written = match cause.reason {
        ReasonAt::Errno(errno) => write!(line, "{operation}: {errno}"),
        ReasonAt::Words(words) => write!(line, "{operation}: {}", text(words)?),
    };
    line.terminate();
    written.ok()
}

/// A text of this library's own, by its address.
fn text(at: TextAt) -> Option<&'static str> {
    // SAFETY: records of this process hold the addresses and lengths of static
    // texts of this library.
    let bytes = unsafe { core::slice::from_raw_parts(at.address as usize as *const u8, at.len) };
    core::str::from_utf8(bytes).ok()
}

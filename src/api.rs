//! The C interface: the functions of `include/sopin.h`, which cbindgen makes of
//! this file and [`types`] (`make header`; `tests/header.rs` compares).
//! Documentation here is that of the header.
//!
//! Nothing unwinds out of these functions but what a visitor throws, `errno` is
//! what it was, and no lock is held while the host's code runs.

#![allow(
    non_camel_case_types,
    clippy::enum_glob_use,
    reason = "names of the C interface, where enumerators are global"
)]

mod objects;
mod request;
mod types;

use core::ffi::{CStr, c_char, c_int, c_void};
use core::mem::MaybeUninit;
use core::ptr;

use crate::errno;
use crate::hooks;

use objects::{ObjectVisit, sum};
use types::sopin_error::*;
use types::{sopin_error, sopin_object, sopin_totals, sopin_version_info, sopin_visitor};

/// Gets the version of the library.
///
/// This and other structures that the caller provides carry their size, so that
/// programs and libraries of different versions understand each other: the
/// library fills in the members that both know and sets `size` to their number of
/// bytes. It never writes beyond the `size` that the caller has set.
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
    // SAFETY: `version` is null or points to as many writable bytes as its `size` says: this
    // function's contract, and that of `fill`.
    unsafe { fill(version, filled) as c_int }
}

/// Pins every loaded object as far as that is possible now. It tries objects again
/// that were loaded before the library or that the library could not pin whole. Code
/// of such an object may have run, and something may be storing to its data. So it
/// replaces the object's writable ranges while all other threads have stopped, in
/// stops of about 10 ms, and leaves these ranges where it cannot stop the threads. A
/// thread that is just loading an object pins that object itself.
///
/// Returns 0 if every object that is not excluded is pinned as the mode says,
/// SOPIN_EEXPOSED or SOPIN_EPARTIAL if one is not, SOPIN_EOFF, SOPIN_EBUSY or
/// SOPIN_ESYSTEM. In each case it has pinned what it could.
#[unsafe(no_mangle)]
pub extern "C" fn sopin_pin_all() -> c_int {
    code_keeping_errno(request::pin_everything)
}

/// Pins the object that was loaded from `path`, as sopin_pin_all() does: the object
/// that the loader knows by that name, or whose file is or was the one at that path,
/// symbolic links followed. It compares a path without a slash with the objects' file
/// names. It loads nothing.
///
/// Returns 0 if the object is pinned as the mode says, SOPIN_ENOENT if there is no
/// such object, SOPIN_EINVAL, SOPIN_EEXPOSED, SOPIN_EPARTIAL, SOPIN_EEXCLUDED,
/// SOPIN_EOFF, SOPIN_EBUSY or SOPIN_ESYSTEM.
///
/// # Safety
/// `path` must be null or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sopin_pin_path(path: *const c_char) -> c_int {
    code_keeping_errno(|| {
        if path.is_null() {
            return Err(SOPIN_EINVAL);
        }
        // SAFETY: `path` is not null here, so it is a C string: this function's contract.
        request::pin_path(unsafe { CStr::from_ptr(path) })
    })
}

/// Pins the object of an open `handle` of dlopen(3) or dlmopen(3), and the objects
/// that it needs, as sopin_pin_all() does. A handle proves more than a path: the loader
/// has finished loading the object.
///
/// Returns what sopin_pin_path() returns, about the object itself and not about those
/// that it needs.
///
/// # Safety
/// `handle` must be null or open, and no thread may close it during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sopin_pin_handle(handle: *mut c_void) -> c_int {
    code_keeping_errno(|| {
        // SAFETY: `handle` is null or open, and no thread closes it during the call: this function's
        // contract, and that of `pin_handle`.
        unsafe { request::pin_handle(handle) }
    })
}

/// Calls `visitor` with `data` for every object of the process: first the loader's list
/// in its order, then objects in namespaces of dlmopen(3) that the library knows. The
/// library holds no lock during a call of the visitor, so the visitor may load objects,
/// call functions of this library, throw C++ exceptions and do anything else. It sees
/// the objects as they were when sopin_for_each() was called.
///
/// Returns 0, also if the visitor has ended the iteration, SOPIN_EINVAL, SOPIN_EBUSY
/// or SOPIN_ESYSTEM.
///
/// # Safety
/// `visitor` must be null or a function that accepts `data`.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sopin_for_each(visitor: sopin_visitor, data: *mut c_void) -> c_int {
    // Frames that an exception of the visitor passes: it was made by another unwinder
    // than any that could be linked into this library, so nothing here may need cleaning
    // up on its way. An iteration that ends like that costs a few pages.
    hooks::visit_all!(
        room = const ROOM_FOR_ITERATION,
        begin = sym begin_iteration,
        next = sym next_object,
        end = sym end_iteration,
    )
}

/// The bytes that [`sopin_for_each`] reserves on its stack for an [`IterationPlace`].
const ROOM_FOR_ITERATION: usize = size_of::<IterationPlace>().next_multiple_of(16);
type IterationPlace = Option<ObjectVisit>;
const _: () = assert!(align_of::<IterationPlace>() <= 16);

extern "C" fn begin_iteration(place: &mut MaybeUninit<IterationPlace>, visitor: sopin_visitor) -> c_int {
    let begun = errno::keeping_errno(|| visitor.ok_or(SOPIN_EINVAL).and_then(|_| ObjectVisit::begin()));
    let code = begun.as_ref().err().copied().unwrap_or(SOPIN_OK);
    place.write(begun.ok());
    code as c_int
}

/// Returns the next object, which lives until the next call; null after the last one.
extern "C" fn next_object(iteration: &mut IterationPlace) -> *const sopin_object {
    errno::keeping_errno(|| iteration.as_mut().and_then(ObjectVisit::next).map_or(ptr::null(), ptr::from_ref))
}

extern "C" fn end_iteration(iteration: &mut IterationPlace) {
    errno::keeping_errno(|| *iteration = None);
}

/// Sums up what sopin_for_each() reports.
///
/// Returns 0, SOPIN_EINVAL, SOPIN_EBUSY or SOPIN_ESYSTEM.
///
/// # Safety
/// As for sopin_version().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sopin_summary(totals: *mut sopin_totals) -> c_int {
    // SAFETY: `totals` is null or points to as many writable bytes as its `size` says: this
    // function's contract, and that of `fill`.
    code_keeping_errno(|| sum().map(|filled| unsafe { fill(totals, filled) }))
}

/// Returns the meaning of a result of these functions, in English. The text is never
/// null and is valid until the process ends; do not free it.
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
        Some(SOPIN_EBUSY) => c"The library is busy; try again later",
        Some(SOPIN_EEXPOSED) => c"Writable or relocated ranges still map the file",
        Some(SOPIN_EPARTIAL) => c"Read-only ranges still map the file",
        Some(SOPIN_EEXCLUDED) => c"The settings exclude the object",
        Some(SOPIN_ESYSTEM) => c"The system refused memory or /proc",
        None => c"Unknown error",
    };
    text.as_ptr()
}

fn code_keeping_errno(work: impl FnOnce() -> Result<sopin_error, sopin_error>) -> c_int {
    let (Ok(code) | Err(code)) = errno::keeping_errno(work);
    code as c_int
}

/// A structure that a caller provides. Its first member is its size.
///
/// # Safety
/// The type must be `repr(C)`, with `size: usize` as its first member. All other members must be
/// numbers or pointers.
unsafe trait Extensible: Copy {
    /// Bytes of the first version of the structure.
    const FIRST: usize;
}

// SAFETY: the type is `repr(C)`, begins with `size: usize`, and consists of integers and a pointer.
unsafe impl Extensible for sopin_version_info {
    const FIRST: usize = 32;
}

// SAFETY: the type is `repr(C)`, begins with `size: usize`, and consists of integers.
unsafe impl Extensible for sopin_totals {
    const FIRST: usize = 80;
}

/// Fills in the members of a structure that both the caller and this library know.
///
/// # Safety
/// `target` must be null or point to as many writable bytes as its `size` says.
unsafe fn fill<T: Extensible>(target: *mut T, filled: T) -> sopin_error {
    if target.is_null() {
        return SOPIN_EINVAL;
    }
    // SAFETY: `target` is not null here, so it begins with its size, which can be read: this
    // function's contract.
    let given = unsafe { target.cast::<usize>().read_unaligned() };
    if given < T::FIRST {
        return SOPIN_EINVAL;
    }
    let len = given.min(size_of::<T>());
    // SAFETY: `len` is the smaller one of the sizes of `filled` and of the memory at `target`, which
    // has `given` writable bytes: this function's contract. `filled` is a local, so they do not
    // overlap.
    unsafe { ptr::copy_nonoverlapping((&raw const filled).cast::<u8>(), target.cast(), len) };
    // SAFETY: `target` has `given` writable bytes. These are at least `FIRST`, so they include the
    // first member.
    unsafe { target.cast::<usize>().write_unaligned(len) };
    SOPIN_OK
}

//! The exported symbols that other objects bind to without knowing this library. The
//! functions that the host calls on purpose are in [`crate::api`].
//!
//! * `__gmon_start__`: nearly every object linked for glibc calls it, if any object
//!   defines it, before its own constructors.
//! * `__register_frame_info`, `__deregister_frame_info`: nearly every object linked for musl calls
//!   the first before its own constructors, see [`frame_registrations`].
//! * `dlopen`, `dlmopen`, `dlclose`: interposed. glibc uses the return address of the
//!   first two to choose the search path of a name without a slash and to expand
//!   `$ORIGIN`. The stub passes such calls on by a jump, so that the real function sees
//!   the caller's return address. The result for a name with a slash and without `$` does
//!   not depend on the caller. The stub calls the real function for such a name, and a
//!   sweep follows. musl never looks at the caller, so there a sweep follows for every name.
//!
//! The entry stubs are naked functions, with one file for each architecture, and their frames
//! are the only ones of this library below the real functions. Unwinding may pass through
//! them when a C++ constructor throws or a thread is cancelled. At a Rust frame that was
//! built without an unwinder it would end the program.
//!
//! Each file has the bodies of two kinds of functions, as macros that take their operands:
//!
//! * `hook!`: `route` gets the arguments and returns a [`Route`]. Without a function to follow,
//!   the stub jumps to the real function, so that this one sees the caller's return address. Its
//!   `own_name` is a hidden symbol, so that no other object can interpose references to it.
//! * `visit_all!`: a function of (visitor, data) that keeps `room` bytes, a multiple of 16, on
//!   its stack. It calls `begin` with their address and the visitor, and returns the result of
//!   that. It calls the visitor with each result of `next` and with data, until `next` returns
//!   null or the visitor returns something other than 0. Then it calls `end`.

use core::ffi::{CStr, c_char, c_int, c_long, c_void};
use core::ptr;

use crate::errno::keeping_errno;
use crate::loader::{self, DLCLOSE, DLMOPEN, DLOPEN, OpenHandle, RealFunction};
use crate::pinner::{self, Event};
use crate::preparation;

#[cfg_attr(target_arch = "x86_64", path = "hooks/entry_x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "hooks/entry_aarch64.rs")]
mod entry;
mod frame_registrations;

pub(crate) use entry::visit_all;

/// Pins the objects that `event` is about.
fn sweep(event: Event) {
    keeping_errno(|| pinner::sweep(event));
}

/// Sweeps after an object's `_init` has called `__gmon_start__`, which returns to `caller`.
extern "C" fn announced(caller: usize) {
    sweep(Event::Announced(caller));
}

/// Sweeps when the constructors of this library run. On musl that is before those of other
/// objects, unless others were preloaded before this library.
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = {
    extern "C" fn constructed() {
        sweep(Event::Constructed);
        frame_registrations::publish_on_musl();
    }
    constructed
};

/// Calls the real `dlopen(3)`, and sweeps afterwards if the result does not depend on the caller.
///
/// # Safety
/// As for `dlopen(3)`.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void {
    entry::hook!(own_name = "sopin_own_dlopen", route = sym route_open)
}

/// Calls the real `dlmopen(3)`, and sweeps afterwards if the result does not depend on the caller.
///
/// # Safety
/// As for `dlmopen(3)`.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn dlmopen(namespace: c_long, name: *const c_char, flags: c_int) -> *mut c_void {
    entry::hook!(own_name = "sopin_own_dlmopen", route = sym route_open_in_namespace)
}

/// Calls the real `dlclose(3)`, and forgets afterwards what that has unloaded.
///
/// # Safety
/// As for `dlclose(3)`.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn dlclose(handle: *mut c_void) -> c_int {
    entry::hook!(own_name = "sopin_own_dlclose", route = sym route_close)
}

/// Which functions the stub of a hook calls. The ABIs return it in two registers.
#[repr(C)]
struct Route {
    /// Address of the real function, or of one that fails.
    real: usize,
    /// The function to call afterwards. If it is `None`, the stub jumps to the real function.
    follow: Option<Follow>,
}

/// A function that the stub calls after a real function. It gets that one's result and returns it.
///
/// # Safety
/// The real function must have just returned the result, which its caller does not have yet.
type Follow = unsafe extern "C" fn(result: *mut c_void) -> *mut c_void;

/// Returns the route of a `dlopen` of `name`.
///
/// # Safety
/// `name` must be null or a C string, as the host must pass it to `dlopen(3)`.
unsafe extern "C" fn route_open(name: *const c_char) -> Route {
    unsafe extern "C" fn opened(handle: *mut c_void) -> *mut c_void {
        // SAFETY: the stub passes what the real function has returned: the contract of `Follow`.
        unsafe { sweep_opened(handle, Event::Opened) }
    }
    // SAFETY: `name` is null or a C string: this function's contract.
    unsafe { route(&DLOPEN, name, opened) }
}

/// Returns the route of a `dlmopen` of `name`.
///
/// # Safety
/// As for [`route_open`].
unsafe extern "C" fn route_open_in_namespace(_: c_long, name: *const c_char) -> Route {
    unsafe extern "C" fn opened(handle: *mut c_void) -> *mut c_void {
        // SAFETY: the stub passes what the real function has returned: the contract of `Follow`.
        unsafe { sweep_opened(handle, Event::OpenedInNamespace) }
    }
    // SAFETY: `name` is null or a C string: this function's contract.
    unsafe { route(&DLMOPEN, name, opened) }
}

/// Returns the route of a call of `real` that opens `name`: `opened` follows unless the result
/// depends on the caller.
///
/// # Safety
/// `name` must be null or a C string.
unsafe fn route(real: &RealFunction, name: *const c_char, opened: Follow) -> Route {
    // SAFETY: `name` is null or a C string: this function's contract.
    let depends = unsafe { depends_on_caller(name) };
    Route { real: real_or(real, null_handle), follow: (!depends).then_some(opened) }
}

/// Sweeps after a call has returned `handle`, unless the call has failed; returns the handle.
///
/// # Safety
/// `dlopen(3)` or `dlmopen(3)` must have just returned `handle`, which its caller does not have
/// yet.
unsafe fn sweep_opened(handle: *mut c_void, event: fn(OpenHandle) -> Event) -> *mut c_void {
    if !handle.is_null() {
        // SAFETY: the handle is not null, so the call has opened it. No code can close it before
        // its caller has it, and that is after this sweep: this function's contract.
        sweep(event(unsafe { OpenHandle::new(handle) }));
    }
    handle
}

/// Returns the route of a `dlclose`: after a success the library forgets the unloaded objects.
extern "C" fn route_close() -> Route {
    extern "C" fn closed(status: *mut c_void) -> *mut c_void {
        // The result is an `int`, so the upper half of the register is undefined.
        if status.addr() as u32 == 0 {
            keeping_errno(pinner::sweep_unloaded);
        }
        status
    }
    extern "C" fn failed() -> c_int {
        -1
    }
    Route { real: real_or(&DLCLOSE, failed), follow: Some(closed) }
}

/// Returns whether the result of opening `name` depends on the caller, or is to be taken as if
/// it did, because pinning is off.
///
/// # Safety
/// `name` must be null or a C string.
unsafe fn depends_on_caller(name: *const c_char) -> bool {
    if name.is_null() || preparation::is_off() {
        return true;
    }
    if loader::is_musl() {
        return false;
    }
    // SAFETY: `name` is not null here, so it is a C string: this function's contract.
    let name = unsafe { CStr::from_ptr(name) }.to_bytes();
    !name.contains(&b'/') || name.contains(&b'$')
}

/// Returns the real function's address, or that of `otherwise` where the C library has none.
fn real_or<T>(real: &RealFunction, otherwise: extern "C" fn() -> T) -> usize {
    real.address().unwrap_or(otherwise as *const () as usize)
}

extern "C" fn null_handle() -> *mut c_void {
    ptr::null_mut()
}

//! The exported symbols that the loader and other objects meet, nothing else.
//! Those for the host to call are in [`crate::api`].
//!
//! * `__gmon_start__`: nearly every object linked for glibc calls it, if it is
//!   defined anywhere, before its own constructors.
//! * `dlopen`, `dlmopen`, `dlclose`: interposed. glibc looks at the return
//!   address of the first two to choose the search path of a bare name and to
//!   expand `$ORIGIN`, so those calls go on by a jump, as if we were not there;
//!   a name with a slash and without `$` does not depend on the caller, and
//!   such a call is followed by a sweep.
//!
//! The entry stubs are naked functions, their bodies in one file per architecture, and so
//! are the frames that the real functions are called from: what the loader runs may be unwound
//! through (a C++ constructor that throws, a thread that is cancelled), which ends a
//! program at the first Rust frame that was built without an unwinder.

use core::ffi::{CStr, c_char, c_int, c_long, c_void};
use core::ptr;

use crate::errno::keeping_errno;
use crate::loader::{DLCLOSE, DLMOPEN, DLOPEN, RealFunction};
use crate::pinner::{self, Event};
use crate::preparation;

#[cfg_attr(target_arch = "x86_64", path = "hooks/entry_x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "hooks/entry_aarch64.rs")]
mod entry;

pub(crate) use entry::visit_all;

/// Pins what `event` has brought.
fn sweep(event: Event) {
    keeping_errno(|| pinner::sweep(event));
}

/// An object's `_init` has called `__gmon_start__` and will go on at `caller`.
extern "C" fn announced(caller: usize) {
    sweep(Event::Announced(caller));
}

/// On musl nobody announces anything, and constructors of preloaded objects
/// run first.
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = {
    extern "C" fn constructed() {
        sweep(Event::Constructed);
    }
    constructed
};

/// `dlopen(3)`, followed by a sweep if its result does not depend on the caller.
///
/// # Safety
/// As for `dlopen(3)`.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void {
    entry::hook!(route_open)
}

/// `dlmopen(3)`, in the same way.
///
/// # Safety
/// As for `dlmopen(3)`.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn dlmopen(namespace: c_long, name: *const c_char, flags: c_int) -> *mut c_void {
    entry::hook!(route_open_in_namespace)
}

/// `dlclose(3)`, followed by a sweep.
///
/// # Safety
/// As for `dlclose(3)`.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn dlclose(handle: *mut c_void) -> c_int {
    entry::hook!(route_close)
}

/// Where the stub of a hook goes. Returned in two registers.
#[repr(C)]
struct Route {
    /// Address of the real function, or of one that fails.
    real: usize,
    /// Without it the stub does not call the real function but jumps to it.
    follow: Option<Follow>,
}

/// What follows a call of a real function: gets its result, and returns it.
type Follow = extern "C" fn(result: *mut c_void) -> *mut c_void;

/// Returns where a `dlopen` of `name` goes.
///
/// # Safety
/// `name` must be what the host passed to `dlopen`: null or a C string.
unsafe extern "C" fn route_open(name: *const c_char) -> Route {
    extern "C" fn opened(handle: *mut c_void) -> *mut c_void {
        sweep_opened(handle, Event::Opened)
    }
    // SAFETY: `name` is null or a C string, as this function demands.
    unsafe { route(&DLOPEN, name, opened) }
}

/// Returns where a `dlmopen` of `name` goes.
///
/// # Safety
/// As for [`route_open`].
unsafe extern "C" fn route_open_in_namespace(_: c_long, name: *const c_char) -> Route {
    extern "C" fn opened(handle: *mut c_void) -> *mut c_void {
        sweep_opened(handle, Event::OpenedInNamespace)
    }
    // SAFETY: `name` is null or a C string, as this function demands.
    unsafe { route(&DLMOPEN, name, opened) }
}

/// Returns where a call goes that opens `name`: it is followed by `opened`, unless its
/// result depends on the caller.
///
/// # Safety
/// `name` must be null or a C string.
unsafe fn route(real: &RealFunction, name: *const c_char, opened: Follow) -> Route {
    // SAFETY: `name` is null or a C string, as this function demands.
    let depends = unsafe { depends_on_caller(name) };
    Route { real: real_or(real, null_handle), follow: (!depends).then_some(opened) }
}

/// Sweeps what has been opened, if something has; returns its handle.
fn sweep_opened(handle: *mut c_void, event: fn(*mut c_void) -> Event) -> *mut c_void {
    if !handle.is_null() {
        sweep(event(handle));
    }
    handle
}

/// Returns where a `dlclose` goes, which is followed by forgetting what it has unloaded.
extern "C" fn route_close() -> Route {
    extern "C" fn closed(status: *mut c_void) -> *mut c_void {
        // An `int`: the register's upper half means nothing.
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

/// # Safety
/// `name` must be null or a C string.
unsafe fn depends_on_caller(name: *const c_char) -> bool {
    if name.is_null() || preparation::is_off() {
        return true;
    }
    // SAFETY: not null, so a C string.
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

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
//! The entry stubs are naked functions, one file per architecture. What the
//! loader runs on our behalf may be unwound through (a C++ constructor that
//! throws, a thread that is cancelled), hence `C-unwind`; nothing of our own
//! unwinds out of here.

use core::ffi::{c_char, c_int, c_long, c_void};
use core::ptr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use sopin_core::sys;

use crate::loader::{DLCLOSE, DLMOPEN, DLOPEN, RealFunction};
use crate::pinner::{self, Event};

#[cfg_attr(target_arch = "x86_64", path = "hooks/entry_x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "hooks/entry_aarch64.rs")]
mod entry;

pub use entry::register_fork_handlers;

/// Pins what `event` has brought.
fn sweep(event: Event) {
    pinner::sweep(event, announce());
}

/// The address of our `__gmon_start__`, which other objects' slots hold. Not that
/// of the symbol: an executable built for gprof exports one of its own, and then
/// our references lead there as well, while nothing announces itself to us.
pub fn announce() -> usize {
    unsafe extern "C" {
        /// Another, hidden name of the function in `entry`.
        fn sopin_own_gmon_start();
    }
    sopin_own_gmon_start as *const () as usize
}

/// Runs our part of a hook: nothing unwinds out of it and `errno` is kept.
/// `None` after a panic, a bug of ours; the objects at hand stay as they are.
pub fn shielded<T>(work: impl FnOnce() -> T) -> Option<T> {
    let errno = sys::errno();
    let done = catch_unwind(AssertUnwindSafe(work));
    sys::set_errno(errno);
    done.ok()
}

/// An object's `_init` has called `__gmon_start__` and will go on at `caller`.
extern "C" fn announced(caller: usize) {
    shielded(|| sweep(Event::Announced(caller)));
}

/// On musl nobody announces anything, and constructors of preloaded objects
/// run first.
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = {
    extern "C" fn constructed() {
        shielded(|| sweep(Event::Constructed));
    }
    constructed
};

/// Where a `dlopen` of `name` goes: the address to jump to, or 0 for
/// [`open_and_sweep`].
///
/// # Safety
/// `name` must be what the host passed to `dlopen`: null or a C string.
unsafe extern "C" fn route_open(name: *const c_char) -> usize {
    // SAFETY: per the caller.
    if unsafe { depends_on_caller(name) } { real_or_stub(&DLOPEN) } else { 0 }
}

/// Where a `dlmopen` of `name` goes: the address to jump to, or 0 for
/// [`open_in_namespace_and_sweep`].
///
/// # Safety
/// As for [`route_open`].
unsafe extern "C" fn route_open_in_namespace(name: *const c_char) -> usize {
    // SAFETY: per the caller.
    if unsafe { depends_on_caller(name) } { real_or_stub(&DLMOPEN) } else { 0 }
}

/// # Safety
/// `name` must be null or a C string.
unsafe fn depends_on_caller(name: *const c_char) -> bool {
    if name.is_null() || pinner::is_off() {
        return true;
    }
    // SAFETY: per the caller.
    let name = unsafe { core::ffi::CStr::from_ptr(name) }.to_bytes();
    !name.contains(&b'/') || name.contains(&b'$')
}

/// The real function, or one that fails where the C library has none.
fn real_or_stub(real: &RealFunction) -> usize {
    extern "C" fn unavailable() -> *mut c_void {
        ptr::null_mut()
    }
    real.address().unwrap_or(unavailable as *const () as usize)
}

/// # Safety
/// As for `dlopen(3)`.
unsafe extern "C-unwind" fn open_and_sweep(name: *const c_char, flags: c_int) -> *mut c_void {
    type Open = unsafe extern "C-unwind" fn(*const c_char, c_int) -> *mut c_void;
    // SAFETY: the address is that of dlopen(3), or of a stub that ignores its arguments.
    let open = unsafe { core::mem::transmute::<usize, Open>(real_or_stub(&DLOPEN)) };
    // SAFETY: per the caller.
    let handle = unsafe { open(name, flags) };
    if !handle.is_null() {
        shielded(|| sweep(Event::Opened(handle)));
    }
    handle
}

/// # Safety
/// As for `dlmopen(3)`.
unsafe extern "C-unwind" fn open_in_namespace_and_sweep(
    namespace: c_long,
    name: *const c_char,
    flags: c_int,
) -> *mut c_void {
    type Open = unsafe extern "C-unwind" fn(c_long, *const c_char, c_int) -> *mut c_void;
    // SAFETY: the address is that of dlmopen(3), or of a stub that ignores its arguments.
    let open = unsafe { core::mem::transmute::<usize, Open>(real_or_stub(&DLMOPEN)) };
    // SAFETY: per the caller.
    let handle = unsafe { open(namespace, name, flags) };
    if !handle.is_null() {
        shielded(|| sweep(Event::OpenedInNamespace(handle)));
    }
    handle
}

/// `dlclose(3)`, followed by forgetting what it has unloaded.
///
/// # Safety
/// As for `dlclose(3)`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn dlclose(handle: *mut c_void) -> c_int {
    type Close = unsafe extern "C-unwind" fn(*mut c_void) -> c_int;
    let Some(address) = DLCLOSE.address() else { return -1 };
    // SAFETY: the address is that of dlclose(3).
    let close = unsafe { core::mem::transmute::<usize, Close>(address) };
    // SAFETY: per the caller.
    let status = unsafe { close(handle) };
    if status == 0 {
        shielded(pinner::sweep_unloaded);
    }
    status
}

//! `__register_frame_info` and `__deregister_frame_info`, which libgcc defines for code whose
//! unwinding information no program header describes (source: `libgcc/unwind-dw2-fde.c`).
//!
//! On musl they serve as `__gmon_start__` does on glibc. `crtbeginS.o` of a GCC for musl refers to
//! both weakly. If any object defines them, an object calls the first before its constructors run,
//! with the address of its `.eh_frame`, and the second when the process ends. So the first call
//! announces the object. An object that has PT_GNU_EH_FRAME needs no registration: the unwinder
//! finds it by `dl_iterate_phdr(3)`. Neither of its calls goes on to the real function. The same
//! must hold for both, because libgcc aborts when something is deregistered that was never
//! registered.
//!
//! All other calls go on to the real function: those of code generators, of objects without that
//! header, and on glibc every call. Without this library a weak reference may be null where no
//! unwinder is loaded; such a caller calls these functions now, and they do nothing.

use core::ffi::c_void;
use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::{Route, entry, sweep};
use crate::errno::keeping_errno;
use crate::loader;
use crate::loader::unwinding::{self, EhFrameCoverage};
use crate::pinner::Event;

/// Registers unwinding information that begins at `begin`, and on musl announces the object that
/// contains it.
///
/// # Safety
/// As for libgcc's function of this name.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn __register_frame_info(begin: *const c_void, object: *mut c_void) {
    entry::hook!(own_name = "sopin_own_register_frame_info", route = sym route_registration)
}

/// Takes the registration of the information at `begin` back, and returns what was passed with
/// it, or null.
///
/// # Safety
/// As for libgcc's function of this name.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn __deregister_frame_info(begin: *const c_void) -> *mut c_void {
    entry::hook!(own_name = "sopin_own_deregister_frame_info", route = sym route_deregistration)
}

/// Registrations for which no object defined the real function. The real function must not be
/// called to take them back, should an object define it by then.
static NOT_REGISTERED: [AtomicUsize; 32] = [const { AtomicUsize::new(0) }; 32];

extern "C" fn route_registration(begin: *const c_void) -> Route {
    keeping_errno(|| {
        let coverage = coverage_of(begin);
        if matches!(coverage, EhFrameCoverage::Header | EhFrameCoverage::NoHeader) {
            sweep(Event::Announced(begin.addr()));
        }
        let real = match coverage {
            EhFrameCoverage::Header => None,
            _ => unwinding::find_function(c"__register_frame_info").or_else(|| {
                replace(0, begin.addr());
                None
            }),
        };
        route(real)
    })
}

extern "C" fn route_deregistration(begin: *const c_void) -> Route {
    keeping_errno(|| {
        let real = match coverage_of(begin) {
            EhFrameCoverage::Header | EhFrameCoverage::Unknown => None,
            _ if replace(begin.addr(), 0) => None,
            _ => unwinding::find_function(c"__deregister_frame_info"),
        };
        route(real)
    })
}

/// Returns whether an object describes the information at `begin`. On glibc it is taken to be of
/// no object, because there these calls announce nothing.
fn coverage_of(begin: *const c_void) -> EhFrameCoverage {
    if loader::is_musl() { unwinding::coverage(begin.addr()) } else { EhFrameCoverage::NoObject }
}

/// Returns a route to the `real` function or, without one, to a function that returns null.
fn route(real: Option<usize>) -> Route {
    extern "C" fn nothing() -> *mut c_void {
        ptr::null_mut()
    }
    Route { real: real.unwrap_or(nothing as *const () as usize), follow: None }
}

/// Replaces one word of [`NOT_REGISTERED`] that is `old` by `new`. Returns whether there was one.
fn replace(old: usize, new: usize) -> bool {
    let is_replaced =
        |word: &AtomicUsize| word.compare_exchange(old, new, Ordering::Relaxed, Ordering::Relaxed).is_ok();
    NOT_REGISTERED.iter().any(is_replaced)
}

//! `__register_frame_info` and `__deregister_frame_info` for musl. libgcc defines them for code
//! whose unwinding information no program header describes (source: `libgcc/unwind-dw2-fde.c`).
//!
//! On musl they serve as `__gmon_start__` does on glibc. `crtbeginS.o` of a GCC for musl refers to
//! both weakly. If any object defines them, an object calls the first before its constructors run,
//! with the address of its `.eh_frame`, and the second when the process ends. So the first call
//! announces the object. An object that has PT_GNU_EH_FRAME needs no registration: the unwinder
//! finds it by `dl_iterate_phdr(3)`. Neither of its calls goes on to the real function. The same
//! must hold for both, because libgcc aborts when something is deregistered that was never
//! registered. All other calls go on to the real function: those of code generators, and of
//! objects without that header.
//!
//! On glibc these calls announce nothing, and this library must not come between a code generator
//! and the unwinder: a call would have to reach the very function to which the loader would have
//! bound it, which may be loaded and unloaded at any time. So the library exports its functions
//! under other names, which begin with [`PREFIX`]. On musl it takes that away in its own symbol
//! table ([`sopin_core::symbol_names`]).

use core::ffi::{CStr, c_void};
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::{Route, entry, sweep};
use crate::environment;
use crate::errno::keeping_errno;
use crate::loader;
use crate::loader::unwinding::{self, EhFrameCoverage};
use crate::pinner::Event;
use crate::preparation;

/// The prefix that the names of the functions have in the file.
const PREFIX: &CStr = c"sopin";

/// Lets objects that musl loads from now on bind to these functions.
pub fn publish_on_musl() {
    if loader::is_musl() && !preparation::is_off() {
        let has_one_thread = loader::is_behind_executable() || environment::has_one_thread() == Ok(true);
        // If the table cannot be replaced, late objects do not announce themselves.
        let _ = loader::drop_prefix(PREFIX, has_one_thread);
    }
}

/// Registers unwinding information that begins at `begin`, and on musl announces the object that
/// contains it.
///
/// # Safety
/// As for libgcc's function of this name.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sopin__register_frame_info(begin: *const c_void, object: *mut c_void) {
    entry::hook!(own_name = "sopin_own_register_frame_info", route = sym route_registration)
}

/// Takes the registration of the information at `begin` back, and returns what was passed with
/// it, or null.
///
/// # Safety
/// As for libgcc's function of this name.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sopin__deregister_frame_info(begin: *const c_void) -> *mut c_void {
    entry::hook!(own_name = "sopin_own_deregister_frame_info", route = sym route_deregistration)
}

/// Registrations for which no object defined the real function. The real function must not be
/// called to take them back, should an object define it by then.
static NOT_REGISTERED: [AtomicUsize; 32] = [const { AtomicUsize::new(0) }; 32];
/// Set once such a registration found no free word. From then on no deregistration goes on to the
/// real function, because libgcc aborts at one that it does not know.
static HAS_FORGOTTEN: AtomicBool = AtomicBool::new(false);

extern "C" fn route_registration(begin: *const c_void) -> Route {
    keeping_errno(|| {
        let coverage = unwinding::coverage(begin.addr());
        // Where the list cannot be read, no sweep is possible either, which is noted: an object may
        // have announced itself.
        if coverage != EhFrameCoverage::NoObject {
            sweep(Event::Announced(begin.addr()));
        }
        let real = match coverage {
            EhFrameCoverage::Header => None,
            _ => unwinding::find_function(c"__register_frame_info").or_else(|| {
                if !replace(0, begin.addr()) {
                    HAS_FORGOTTEN.store(true, Ordering::Relaxed);
                }
                None
            }),
        };
        route(real)
    })
}

extern "C" fn route_deregistration(begin: *const c_void) -> Route {
    keeping_errno(|| {
        let real = match unwinding::coverage(begin.addr()) {
            EhFrameCoverage::Header | EhFrameCoverage::Unknown => None,
            _ if replace(begin.addr(), 0) || HAS_FORGOTTEN.load(Ordering::Relaxed) => None,
            _ => unwinding::find_function(c"__deregister_frame_info"),
        };
        route(real)
    })
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

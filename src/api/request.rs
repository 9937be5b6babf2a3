//! Requests of the host through the C interface: from a request to a sweep. These functions
//! hold no lock when they return.
//!
//! They pin objects while the loader can unload none of them (see [`crate::held_list`]).

use core::ffi::{CStr, c_void};

use sopin_core::line::Line;
use sopin_core::memory::ProcessMemory;
use sopin_core::pages::PageVec;
use sopin_core::settings::Level;
use sopin_core::sys::{self, Fd};

use super::types::sopin_error;
use super::types::sopin_error::*;
use crate::filters;
use crate::held_list::{self, Namespace};
use crate::large_copies::LargeCopies;
use crate::loader::{self, Counters, Loaded, ObjectList, OpenHandle};
use crate::lock::{self, Guard};
use crate::preparation;
use crate::sweep::{Sweep, Verdict, Wanted};

/// How far the requested objects are pinned, or why the request has failed.
type Pinned = Result<sopin_error, sopin_error>;

/// Pins every object of the program's namespace as far as that is possible.
pub fn pin_everything() -> Pinned {
    pin(Wanted::Everything, Namespace::Program)
}

/// Pins the object that was loaded from `path`.
pub fn pin_path(path: &CStr) -> Pinned {
    filters::look().ok_or(SOPIN_EBUSY)?;
    let given = path.to_bytes();
    if given.is_empty() {
        return Err(SOPIN_EINVAL);
    }
    let mut room = PageVec::filled(0, libc::PATH_MAX as usize).map_err(|_| SOPIN_ESYSTEM)?;
    // The kernel's path of the file to which `path` leads now. It is empty if the file was removed
    // since it was loaded.
    let canonical = if given.contains(&b'/') { canonical(path, &mut room).unwrap_or_default() } else { &[] };
    pin(Wanted::Path { given, canonical }, Namespace::Program)
}

/// Pins the object of an open `handle` and those that it needs.
///
/// # Safety
/// `handle` must be null or come from `dlopen(3)` or `dlmopen(3)`, and stay open during the call.
pub unsafe fn pin_handle(handle: *mut c_void) -> Pinned {
    filters::look().ok_or(SOPIN_EBUSY)?;
    // An invalid handle must not make the host crash, so its memory is read through the kernel
    // first.
    ProcessMemory::own().read::<[u64; 5]>(handle.addr()).map_err(|_| SOPIN_EINVAL)?;
    // SAFETY: `handle` comes from dlopen(3) or dlmopen(3) and stays open during the call, unless it
    // is null: this function's contract. Null cannot be read.
    let handle = unsafe { OpenHandle::new(handle) };
    let map = loader::link_map(handle).ok_or(SOPIN_EINVAL)?;
    let namespace = Namespace::of(handle).ok_or(SOPIN_EINVAL)?;
    pin(Wanted::Dynamic(map.dynamic), namespace)
}

fn pin(wanted: Wanted<'_>, namespace: Namespace) -> Pinned {
    let memory = ProcessMemory::own();
    preparation::prepare(lock::lock_in_handler).ok_or(SOPIN_EBUSY)?.map_err(|_| SOPIN_ESYSTEM)?;
    if preparation::is_off() {
        return Err(SOPIN_EOFF);
    }
    let mut large = LargeCopies::default();
    loop {
        let mut objects = ObjectList::take();
        let mut work = |mut guard: Guard, objects: &[Loaded], counters: Counters| {
            let mut sweep = Sweep::new(&mut guard, &memory, &mut large, namespace.is_other());
            sweep.run_request(objects, wanted, counters).map_err(|cause| {
                sweep.reporter().line(Level::Warn, format_args!("request: {cause}"));
            })
        };
        match held_list::sweep(namespace, &memory, &mut objects, lock::MAX_NAPS_FOR_FORK, &mut work) {
            Ok(Ok(None)) => large.make(&memory),
            Ok(Ok(Some(verdict))) => return Ok(code(verdict)),
            Ok(Err(())) => return Err(SOPIN_ESYSTEM),
            Err(held_list::Refusal::NoList(_)) if namespace.is_other() => return Err(SOPIN_ESYSTEM),
            Err(_) => return Err(SOPIN_EBUSY),
        }
    }
}

const fn code(verdict: Verdict) -> sopin_error {
    match verdict {
        Verdict::Pinned => SOPIN_OK,
        Verdict::Excluded => SOPIN_EEXCLUDED,
        Verdict::Partial => SOPIN_EPARTIAL,
        Verdict::Exposed => SOPIN_EEXPOSED,
        Verdict::NotLoaded => SOPIN_ENOENT,
    }
}

/// Returns the path without symbolic links, as the kernel shows it in
/// `/proc/PID/maps`.
fn canonical<'a>(path: &CStr, room: &'a mut [u8]) -> sys::Result<&'a [u8]> {
    let file = sys::open(path, libc::O_PATH, 0)?;
    let link = Line::<64>::format_raw(format_args!("/proc/self/fd/{}\0", file.raw()));
    sys::readlinkat(&Fd::CWD, link.as_c_str(), room)
}

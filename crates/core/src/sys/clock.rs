//! What time it is, from the kernel itself: `clock_gettime(2)` of the C library may be
//! another preloaded library's, which tells its program another date (faketime). Ages of
//! files are to be judged by the clock that has set their times.
//!
//! The kernel maps a small shared object into each process, the vDSO (`vdso(7)`), whose
//! function reads the clock without a system call that a filter could refuse. Where
//! there is none, the C library is asked.

use core::ffi::{CStr, c_int};
use core::sync::atomic::{AtomicUsize, Ordering};

use libc::{Elf64_Ehdr, Elf64_Phdr};

use crate::symbols::Tables;

type GetTime = unsafe extern "C" fn(libc::clockid_t, *mut libc::timespec) -> c_int;

#[cfg(target_arch = "aarch64")]
const NAME: &CStr = c"__kernel_clock_gettime";
#[cfg(not(target_arch = "aarch64"))]
const NAME: &CStr = c"__vdso_clock_gettime";

/// Seconds since the epoch; as all times here 0 where a seccomp filter may kill for asking.
pub fn realtime_seconds() -> i64 {
    clock(libc::CLOCK_REALTIME).tv_sec
}

/// Monotonic time in nanoseconds.
pub fn monotonic_ns() -> u64 {
    nanoseconds(libc::CLOCK_MONOTONIC)
}

/// Nanoseconds since the machine was started, those included in which it slept.
pub fn since_boot_ns() -> u64 {
    nanoseconds(libc::CLOCK_BOOTTIME)
}

fn nanoseconds(id: libc::clockid_t) -> u64 {
    let time = clock(id);
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

fn clock(id: libc::clockid_t) -> libc::timespec {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // Where the hardware has no clock for it, the vDSO's function makes a system call.
    if !super::gate::passes_number(libc::SYS_clock_gettime) {
        return time;
    }
    if let Some(get_time) = kernels() {
        // SAFETY: the vDSO's function has this signature; it fills the live timespec.
        if unsafe { get_time(id, &raw mut time) } == 0 {
            return time;
        }
    }
    // SAFETY: the call fills the live timespec.
    unsafe { libc::clock_gettime(id, &raw mut time) };
    time
}

/// The vDSO's function, looked up once.
fn kernels() -> Option<GetTime> {
    const UNKNOWN: usize = 0;
    const NONE: usize = 1;
    static ADDRESS: AtomicUsize = AtomicUsize::new(UNKNOWN);
    let address = match ADDRESS.load(Ordering::Relaxed) {
        UNKNOWN => {
            let start = if cfg!(miri) { 0 } else { super::vdso_address() };
            // SAFETY: what the kernel has mapped there is a whole shared object.
            let found = if start == 0 { None } else { unsafe { find(start, NAME) } };
            let address = found.unwrap_or(NONE);
            ADDRESS.store(address, Ordering::Relaxed);
            address
        }
        known => known,
    };
    // SAFETY: a function of that name in the vDSO has this signature (`vdso(7)`).
    (address != NONE).then(|| unsafe { core::mem::transmute::<usize, GetTime>(address) })
}

/// The address of a function of the shared object that is mapped at `start`.
///
/// # Safety
/// All of a well-formed shared object must be mapped there.
unsafe fn find(start: usize, name: &CStr) -> Option<usize> {
    // SAFETY: a shared object begins with its header.
    let header = unsafe { &*(start as *const Elf64_Ehdr) };
    let first = (start + header.e_phoff as usize) as *const Elf64_Phdr;
    // SAFETY: the header says where the program headers are, and how many.
    let segments = unsafe { core::slice::from_raw_parts(first, header.e_phnum.into()) };
    let find = |wanted| segments.iter().find(|segment| segment.p_type == wanted);
    let (load, dynamic) = (find(libc::PT_LOAD)?, find(libc::PT_DYNAMIC)?);
    let bias = start.wrapping_add(load.p_offset as usize).wrapping_sub(load.p_vaddr as usize);
    // SAFETY: per the caller.
    unsafe { Tables::read(bias, bias.wrapping_add(dynamic.p_vaddr as usize))?.function(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "there is no vDSO")]
    fn the_vdso_tells_the_time() {
        assert!(kernels().is_some());
        let theirs = |id| {
            let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: the call fills the live timespec.
            unsafe { libc::clock_gettime(id, &raw mut time) };
            time.tv_sec
        };
        for id in [libc::CLOCK_REALTIME, libc::CLOCK_MONOTONIC, libc::CLOCK_BOOTTIME] {
            let (before, ours, after) = (theirs(id), clock(id).tv_sec, theirs(id));
            assert!((before..=after).contains(&ours));
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "there is no vDSO")]
    fn other_names_are_not_found() {
        // SAFETY: the vDSO of this process.
        assert_eq!(unsafe { find(crate::sys::vdso_address(), c"__vdso_nothing") }, None);
    }
}

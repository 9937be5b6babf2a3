//! What time it is, from the kernel itself. Another preloaded library may interpose the C
//! library's `clock_gettime(2)` and show the program another date (faketime), but the ages of
//! files must be judged by the clock that has set their times.
//!
//! The kernel maps a small shared object into each process, the vDSO (`vdso(7)`), whose
//! function reads the clock without a system call that a filter could refuse. Without a vDSO
//! this module calls the C library.

use core::ffi::{CStr, c_int};
use core::sync::atomic::{AtomicUsize, Ordering};

use libc::{Elf64_Ehdr, Elf64_Phdr};

use crate::symbols::Tables;

type GetTime = unsafe extern "C" fn(libc::clockid_t, *mut libc::timespec) -> c_int;

#[cfg(target_arch = "aarch64")]
const NAME: &CStr = c"__kernel_clock_gettime";
#[cfg(not(target_arch = "aarch64"))]
const NAME: &CStr = c"__vdso_clock_gettime";

/// Returns the seconds since the epoch. Like the other functions here it returns 0 where a
/// seccomp filter may kill the process for the call.
pub fn realtime_seconds() -> i64 {
    clock(libc::CLOCK_REALTIME).tv_sec
}

/// Returns the monotonic time in nanoseconds.
pub fn monotonic_ns() -> u64 {
    nanoseconds(libc::CLOCK_MONOTONIC)
}

/// Returns the nanoseconds since the machine was started, including those in which it slept.
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
        // SAFETY: `clock_gettime` of the vDSO has this signature (`vdso(7)`), and writes only
        // to the live timespec.
        if unsafe { get_time(id, &raw mut time) } == 0 {
            return time;
        }
    }
    // SAFETY: the call writes only to the live timespec.
    unsafe { libc::clock_gettime(id, &raw mut time) };
    time
}

/// Returns the vDSO's function, looked up once.
fn kernels() -> Option<GetTime> {
    const UNKNOWN: usize = 0;
    const NONE: usize = 1;
    #[unsafe(link_section = ".data.sopin")]
    static ADDRESS: AtomicUsize = AtomicUsize::new(UNKNOWN);
    let address = match ADDRESS.load(Ordering::Relaxed) {
        UNKNOWN => {
            let start = if cfg!(miri) { 0 } else { super::vdso_address() };
            // SAFETY: `start` is AT_SYSINFO_EHDR, at which the kernel maps all of a well-formed
            // shared object (`vdso(7)`).
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

/// Returns the address of a function of the shared object that is mapped at `start`.
///
/// # Safety
/// All of a well-formed shared object must be mapped there.
unsafe fn find(start: usize, name: &CStr) -> Option<usize> {
    // SAFETY: a whole object is mapped at `start`, this function's contract, and begins with
    // its header.
    let header = unsafe { &*(start as *const Elf64_Ehdr) };
    let first = (start + header.e_phoff as usize) as *const Elf64_Phdr;
    // SAFETY: `e_phoff` and `e_phnum` of a well-formed object describe an array of program
    // headers inside it, and all of it is mapped: this function's contract.
    let segments = unsafe { core::slice::from_raw_parts(first, header.e_phnum.into()) };
    let find = |wanted| segments.iter().find(|segment| segment.p_type == wanted);
    let (load, dynamic) = (find(libc::PT_LOAD)?, find(libc::PT_DYNAMIC)?);
    let bias = start.wrapping_add(load.p_offset as usize).wrapping_sub(load.p_vaddr as usize);
    // SAFETY: the dynamic section is that of PT_DYNAMIC of the mapped object, this function's
    // contract, and `bias` is where it is loaded; the kernel never unmaps the vDSO.
    unsafe { Tables::read(bias, bias.wrapping_add(dynamic.p_vaddr as usize))?.function(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "there is no vDSO")]
    fn the_vdso_reads_the_clock() {
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

//! Stores that the kernel makes to the process's memory while all tasks have stopped.

use core::ffi::CStr;

use sopin_core::kernel_stores::{self, KernelStore};
use sopin_core::line::Line;
use sopin_core::listing::{DIRECTORY_TO_LIST, for_each_name};
use sopin_core::sys::{self, Fd};

use super::{NotStopped, failed};

/// Fails if the kernel may store to the memory of a process, which this one shares. The helper's own
/// descriptors are a copy from before the stop.
pub fn rule_out_stores(process: i32) -> Result<(), NotStopped> {
    rule_out(Line::<64>::format_raw(format_args!("/proc/{process}/fd\0")).as_c_str())
}

/// Fails if the kernel may store to the memory of this process.
pub fn rule_out_own_stores() -> Result<(), NotStopped> {
    rule_out(c"/proc/self/fd")
}

/// Fails if a descriptor in this directory, or a mapping of this process, is one by which the kernel
/// stores.
fn rule_out(directory: &CStr) -> Result<(), NotStopped> {
    let descriptors = sys::openat(&Fd::CWD, directory, DIRECTORY_TO_LIST, 0).map_err(failed("open /proc/PID/fd"))?;
    let mut found = None;
    let mut target = [0; kernel_stores::RING.len() + 1];
    let listed = for_each_name(&descriptors, |name| {
        if sys::readlinkat(&descriptors, name, &mut target) == Ok(kernel_stores::RING) {
            found = Some(KernelStore::Ring);
        }
    });
    listed.map_err(failed("read /proc/PID/fd"))?;
    if found.is_none() {
        // A ring whose descriptor was closed is still mapped.
        let maps = sys::open(c"/proc/self/maps", libc::O_RDONLY, 0).map_err(failed("open /proc/self/maps"))?;
        let read = kernel_stores::find_in_maps(|buffer| sys::read(&maps, buffer));
        found = read.map_err(failed("read /proc/self/maps"))?;
    }
    match found {
        None => Ok(()),
        Some(KernelStore::Ring) => Err(NotStopped::KernelStores("the process has an io_uring")),
        Some(KernelStore::Requests) => Err(NotStopped::KernelStores("the process uses asynchronous I/O")),
    }
}

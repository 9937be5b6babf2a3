//! Stores that the kernel makes to the process's memory while all tasks have stopped.

use core::ffi::{CStr, c_int};

use sopin_core::cause::Cause;
use sopin_core::kernel_stores::{self, KernelStore};
use sopin_core::line::Line;
use sopin_core::listing::{DIRECTORY_TO_LIST, for_each_name};
use sopin_core::sys::{self, Errno, Fd};

use super::{NotStopped, failed};

/// Descriptors below this number are asked for one by one, which takes less time than listing them. Most processes
/// have no others.
const FEW: c_int = 256;

/// Fails if the kernel may store to the memory of a process, which this one shares. The helper's own
/// descriptors are a copy from before the stop.
pub fn rule_out_stores(process: i32) -> Result<(), NotStopped> {
    let descriptors = open(Line::<64>::format_raw(format_args!("/proc/{process}/fd\0")).as_c_str())?;
    // A ring whose descriptor was closed is still mapped.
    rule_out(if has_listed_ring(&descriptors)? { Some(KernelStore::Ring) } else { find_mapped()? })
}

/// Fails if the kernel may store to the memory of this process, whose only thread calls this. `mapped_now`
/// reads the mappings and returns by which of them it may, if it can.
pub fn rule_out_own_stores(mapped_now: impl FnOnce() -> Result<Option<KernelStore>, Cause>) -> Result<(), NotStopped> {
    rule_out_registered()?;
    let descriptors = open(c"/proc/self/fd")?;
    let has_ring = match has_ring_among_few(&descriptors) {
        Some(has_ring) => has_ring,
        None => has_listed_ring(&descriptors)?,
    };
    rule_out(if has_ring { Some(KernelStore::Ring) } else { mapped_now().or_else(|_| find_mapped())? })
}

/// Fails if the calling thread has a ring that need have neither a descriptor nor a mapping. Only the thread
/// itself can find it.
pub fn rule_out_registered() -> Result<(), NotStopped> {
    rule_out(sys::has_registered_ring().then_some(KernelStore::Ring))
}

/// Opens a directory of descriptors.
fn open(path: &CStr) -> Result<Fd, NotStopped> {
    sys::openat(&Fd::CWD, path, DIRECTORY_TO_LIST, 0).map_err(failed("open /proc/PID/fd"))
}

fn rule_out(found: Option<KernelStore>) -> Result<(), NotStopped> {
    match found {
        None => Ok(()),
        Some(KernelStore::Ring) => Err(NotStopped::KernelStores("the process has an io_uring")),
        Some(KernelStore::Requests) => Err(NotStopped::KernelStores("the process uses asynchronous I/O")),
    }
}

/// Returns by which mapping of this process the kernel may store.
#[inline(never)]
fn find_mapped() -> Result<Option<KernelStore>, NotStopped> {
    let maps = sys::open(c"/proc/self/maps", libc::O_RDONLY, 0).map_err(failed("open /proc/self/maps"))?;
    kernel_stores::find_in_maps(|buffer| sys::read(&maps, buffer)).map_err(failed("read /proc/self/maps"))
}

/// Returns whether a descriptor in this directory is one of a ring.
#[inline(never)]
fn has_listed_ring(descriptors: &Fd) -> Result<bool, NotStopped> {
    let mut has_ring = false;
    for_each_name(descriptors, |name| has_ring |= is_ring(descriptors, name)).map_err(failed("read /proc/PID/fd"))?;
    Ok(has_ring)
}

/// Returns whether a descriptor is one of a ring, or may be because it is not shown.
fn is_ring(descriptors: &Fd, name: &CStr) -> bool {
    let mut target = [0; kernel_stores::RING.len() + 1];
    match sys::readlinkat(descriptors, name, &mut target) {
        Ok(target) => target == kernel_stores::RING,
        Err(Errno(errno)) => matches!(errno, libc::EACCES | libc::EPERM),
    }
}

/// Returns whether one of this process's descriptors is one of a ring. `None` if not all of them are found by their
/// numbers. To list them takes much longer, because the kernel makes an inode for each name.
fn has_ring_among_few(descriptors: &Fd) -> Option<bool> {
    // Since Linux 6.2 the size of the directory is the number of descriptors; before, it is 0.
    let count_now = || sys::fstat(descriptors.raw()).ok().map(|status| status.st_size);
    let count = count_now()?;
    if !(1..=FEW.into()).contains(&count) {
        return None;
    }
    let mut found = 0;
    for number in 0..FEW {
        match sys::open_flags(number) {
            Ok(flags) => {
                found += 1;
                // A ring is opened for reading and writing, and not by open(2). Nothing changes these flags later.
                let may_be_ring = flags & (libc::O_ACCMODE | sys::LARGE_FILE) == libc::O_RDWR;
                if may_be_ring && is_ring(descriptors, Line::<64>::format_raw(format_args!("{number}\0")).as_c_str()) {
                    return Some(true);
                }
            }
            Err(Errno(libc::EBADF)) => {}
            Err(_) => return None,
        }
        // The directory got the lowest free number. An emulator that shows another size is noticed by that.
        if found == count && number >= descriptors.raw() {
            // Another process may share the descriptors, and have opened one among those seen.
            return (count_now() == Some(count)).then_some(false);
        }
    }
    None
}

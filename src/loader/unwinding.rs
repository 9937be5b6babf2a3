//! What [`crate::hooks`] asks the loader about unwinding information: which object contains it,
//! and which object defines the functions that register it.
//!
//! These functions must not be remembered like other real functions: `libgcc_s` may be loaded
//! and unloaded at any time. So each call looks them up, in the list of `dl_iterate_phdr(3)`.

use core::ffi::{CStr, c_int, c_void};

use libc::{Elf64_Phdr, PT_DYNAMIC, PT_GNU_EH_FRAME, PT_LOAD};
use sopin_core::symbols::Tables;

use super::{iterate_despite_fork, next};

/// The object that contains some unwinding information, which shows whether the unwinder finds it
/// without a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EhFrameCoverage {
    /// It lies in an object that has PT_GNU_EH_FRAME.
    Header,
    /// It lies in an object without PT_GNU_EH_FRAME.
    NoHeader,
    /// It lies in no object.
    NoObject,
    /// The loader's list could not be read.
    Unknown,
}

/// Returns whether the unwinder finds the information at `address` by itself.
pub fn coverage(address: usize) -> EhFrameCoverage {
    let mut found = EhFrameCoverage::NoObject;
    let listed = for_each_object(&mut |base, headers| {
        let contains = |header: &Elf64_Phdr| {
            let start = base.wrapping_add(header.p_vaddr as usize);
            header.p_type == PT_LOAD && address.wrapping_sub(start) < header.p_memsz as usize
        };
        if headers.iter().any(contains) {
            let has_header = headers.iter().any(|header| header.p_type == PT_GNU_EH_FRAME);
            found = if has_header { EhFrameCoverage::Header } else { EhFrameCoverage::NoHeader };
        }
        found != EhFrameCoverage::NoObject
    });
    if listed { found } else { EhFrameCoverage::Unknown }
}

/// Returns the address of the function `name` in the first object behind this library that
/// defines it or, if this library was not preloaded, in the first other one.
pub fn find_function(name: &CStr) -> Option<usize> {
    let (mut before, mut is_behind, mut found) = (None, false, None);
    for_each_object(&mut |base, headers| {
        let Some(header) = headers.iter().find(|header| header.p_type == PT_DYNAMIC) else { return false };
        let dynamic = base.wrapping_add(header.p_vaddr as usize);
        if next::is_own(dynamic) {
            is_behind = true;
            return false;
        }
        // SAFETY: an object is loaded at `base`, and PT_DYNAMIC has the address of its dynamic
        // section before the base is added. It stays loaded: glibc unloads nothing while it calls
        // this function, and musl nothing at all.
        let function = || unsafe { Tables::read(base, dynamic)?.function(name) };
        if is_behind {
            found = function();
        } else if before.is_none() {
            before = function();
        }
        found.is_some()
    });
    // A library that was preloaded before this one and defines the function has passed the call on.
    found.or_else(|| before.filter(|_| !next::is_preloaded()))
}

/// Calls `is_last` with the base and the program headers of each object of the loader's list,
/// until it returns true. Returns false if the list could not be read. On musl a fork of another
/// thread does not prevent reading it, because a registration that is not passed on is lost.
fn for_each_object(is_last: &mut dyn FnMut(usize, &[Elf64_Phdr]) -> bool) -> bool {
    unsafe extern "C" fn look_at(info: *mut libc::dl_phdr_info, _: usize, data: *mut c_void) -> c_int {
        // SAFETY: the loader passes an info that lives during the callback. `data` is the address
        // of the parameter `is_last` below, to which only this callback refers meanwhile.
        let (is_last, info) = unsafe { (&mut *data.cast::<&mut dyn FnMut(usize, &[Elf64_Phdr]) -> bool>(), &*info) };
        if info.dlpi_phdr.is_null() {
            return 0;
        }
        // SAFETY: the info has the address and the number of the program headers of an object,
        // which cannot be unloaded during the callback.
        let headers = unsafe { core::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
        is_last(info.dlpi_addr as usize, headers).into()
    }
    let mut is_last = is_last;
    // SAFETY: `look_at` accepts the address of such a reference, which `data` is.
    unsafe { iterate_despite_fork(look_at, (&raw mut is_last).cast()) }.is_some()
}

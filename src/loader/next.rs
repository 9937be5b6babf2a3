//! Finding the real functions without asking anybody for them.
//!
//! Other preloaded libraries interpose `dlsym` as we interpose `dlopen`
//! (MangoHud, libfabric, tracers), and pass the calls that do not interest them
//! on. The loader takes them for the caller then, so the object next to *them*
//! answers for `RTLD_NEXT`: that may be this library, which would call itself for
//! ever. So the loader's list of objects and their symbol tables are read here,
//! and the answer is what an undisturbed `dlsym(RTLD_NEXT, name)` would give: the
//! function of the first object behind this one that has it, which is the C
//! library's or, as it should be, the hook of a library that was preloaded after us.
//!
//! The tables are read in place, as the loader does at every look-up of a symbol.
//! The part of the list that is read does not change: the executable, what was
//! preloaded and the C library stay, and the first look-up happens while this
//! library is initialised.

use core::ffi::{CStr, c_int, c_void};

use libc::{Elf64_Phdr, PT_DYNAMIC, PT_LOAD, PT_PHDR};
use sopin_core::symbols::{self, Tables};
use sopin_core::sys;

use super::iterations;

const DT_DEBUG: u64 = 21;

unsafe extern "C" {
    /// The dynamic section of this library, by the linker's name for it.
    static _DYNAMIC: [u64; 2];
}

/// Returns the address of the function `name` in the first object behind this one that has it.
/// If the C library comes before this one, because that was opened at run time or is
/// linked with the program, the C library's. `None` if neither has it, or if no list of
/// objects with this one in it can be found.
pub fn find(name: &CStr) -> Option<usize> {
    Search::in_list(name).found
}

/// Returns whether this library was loaded when the program was started, and not by the
/// program itself: then the loader's list has it before the C library.
pub fn is_preloaded() -> bool {
    let search = Search::in_list(c"dl_iterate_phdr");
    search.is_behind && search.of_c_library.is_none()
}

/// A search through a list of objects.
struct Search<'a> {
    name: &'a CStr,
    /// This library has been seen.
    is_behind: bool,
    /// The function of the C library, if that was seen before this library.
    of_c_library: Option<usize>,
    found: Option<usize>,
}

impl<'a> Search<'a> {
    fn new(name: &'a CStr) -> Self {
        Self { name, is_behind: false, of_c_library: None, found: None }
    }

    /// Goes through the loader's list until the function is found.
    fn in_list(name: &'a CStr) -> Self {
        let mut search = Self::new(name);
        let mut next = first_link_map().unwrap_or(0);
        while next != 0 && search.found.is_none() {
            // The public part of `struct link_map` (<link.h>): base, name, dynamic, next.
            // SAFETY: an element of the loader's list.
            let [base, _, dynamic, following] = unsafe { *(next as *const [usize; 4]) };
            // SAFETY: an object that is loaded.
            unsafe { search.look_at(base, dynamic) };
            next = following;
        }
        if search.found.is_some() { search } else { Self::by_iterating(name) }
    }

    /// Does the same in the list of `dl_iterate_phdr(3)`, which is that of our namespace, and
    /// does not depend on the executable's headers. Another object may answer for that as
    /// well, but only to list the objects, and this library must be among them.
    fn by_iterating(name: &'a CStr) -> Self {
        unsafe extern "C" fn look_at(info: *mut libc::dl_phdr_info, _: usize, data: *mut c_void) -> c_int {
            // SAFETY: the caller passes a live info, `data` is the local below.
            let (search, info) = unsafe { (&mut *data.cast::<Search<'_>>(), &*info) };
            // SAFETY: the headers of a loaded object.
            let all = unsafe { core::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
            if let Some(dynamic) = all.iter().find(|header| header.p_type == PT_DYNAMIC) {
                let base = info.dlpi_addr as usize;
                // SAFETY: an object that is loaded.
                unsafe { search.look_at(base, base.wrapping_add(dynamic.p_vaddr as usize)) };
            }
            search.found.is_some().into()
        }
        let mut search = Self::new(name);
        if let Some(_iteration) = iterations::begin() {
            // SAFETY: the callback gets the type it expects.
            unsafe { libc::dl_iterate_phdr(Some(look_at), (&raw mut search).cast()) };
        }
        search
    }

    /// Takes notice of the next object in the list.
    ///
    /// # Safety
    /// An object must be loaded at `base`, and `dynamic` be the address of its dynamic
    /// section, or 0.
    unsafe fn look_at(&mut self, base: usize, dynamic: usize) {
        if dynamic == (&raw const _DYNAMIC).addr() {
            self.is_behind = true;
            self.found = self.of_c_library;
            return;
        }
        // SAFETY: per the caller.
        let Some(tables) = (unsafe { Tables::read(base, dynamic) }) else { return };
        if self.is_behind {
            // SAFETY: as above.
            self.found = unsafe { tables.function(self.name) };
        // SAFETY: as above.
        } else if self.of_c_library.is_none() && unsafe { tables.is_of_c_library() } {
            // SAFETY: as above.
            self.of_c_library = unsafe { tables.function(self.name) };
        }
    }
}

/// Returns the address of the first element of the loader's list: the loader leaves its
/// `struct r_debug` (<link.h>) in the dynamic section of the executable.
fn first_link_map() -> Option<usize> {
    let headers = sys::executable_headers();
    if headers == 0 {
        return None;
    }
    // SAFETY: the kernel, or a loader started as a program, says where they are.
    let all = unsafe { core::slice::from_raw_parts(headers as *const Elf64_Phdr, sys::executable_header_count()) };
    let find = |wanted| all.iter().find(|header| header.p_type == wanted);
    let address_of = |header: &Elf64_Phdr| header.p_vaddr as usize;
    let base = match find(PT_PHDR) {
        Some(header) => headers.wrapping_sub(address_of(header)),
        // One that is not position-independent, of a linker that leaves this header out.
        None if all.iter().any(|header| is_load_at(header, headers)) => 0,
        None => return None,
    };
    let dynamic = base.wrapping_add(address_of(find(PT_DYNAMIC)?));
    // SAFETY: the dynamic section of the executable.
    let mut entries = unsafe { symbols::entries(dynamic) };
    let debug = entries.find(|[tag, _]| *tag == DT_DEBUG).filter(|[_, value]| *value != 0)?[1];
    // r_version, r_map.
    // SAFETY: the loader's structure.
    let [_, first] = unsafe { *(debug as *const [usize; 2]) };
    (first != 0).then_some(first)
}

/// Returns whether a segment has `address` in it without being moved.
fn is_load_at(header: &Elf64_Phdr, address: usize) -> bool {
    header.p_type == PT_LOAD && (address as u64).wrapping_sub(header.p_vaddr) < header.p_memsz
}

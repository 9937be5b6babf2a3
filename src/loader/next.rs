//! Finding the real functions without calling `dlsym`.
//!
//! Other preloaded libraries (MangoHud, libfabric, tracers) interpose `dlsym`, as this one
//! interposes `dlopen`, and pass on the calls that do not interest them. The loader then
//! takes the interposing library for the caller, so `RTLD_NEXT` means the object after
//! *that* one. It may be this library, which would call itself for ever. So this module
//! reads the loader's list of objects and their symbol tables. Its result is that of
//! `dlsym(RTLD_NEXT, name)` without interposition: the function of the first object behind
//! this library that defines it. That is the C library's function or, if a library that was
//! preloaded after this one interposes it, that library's hook.
//!
//! The tables are read in place, as the loader does at every look-up of a symbol. The part
//! of the list that is read does not change: the executable, the preloaded libraries and the
//! C library are never unloaded, and the first look-up happens while this library is
//! initialised.

use core::ffi::{CStr, c_int, c_void};

use libc::{Elf64_Phdr, PT_DYNAMIC, PT_LOAD, PT_PHDR};
use sopin_core::symbol_names;
use sopin_core::symbols::{self, Tables};
use sopin_core::sys::{self, Errno, Result};

use super::iterations;

const DT_DEBUG: u64 = 21;

unsafe extern "C" {
    /// The dynamic section of this library; the linker defines this symbol.
    static _DYNAMIC: [u64; 2];
    /// The first byte of this library, which is linked for the address 0; the linker defines this
    /// symbol.
    static __ehdr_start: u8;
}

/// Takes `prefix` away from the names of this library's functions that have it before two
/// underscores. `has_one_thread` is whether no other thread can be looking symbols up.
pub fn drop_prefix(prefix: &CStr, has_one_thread: bool) -> Result<()> {
    let (base, dynamic) = ((&raw const __ehdr_start).addr(), (&raw const _DYNAMIC).addr());
    // SAFETY: this library is loaded at `base`, and `dynamic` is its dynamic section.
    let tables = unsafe { Tables::read(base, dynamic) }.and_then(|tables| tables.name_tables());
    // SAFETY: the tables are those of this library, which is never unloaded. They are in its first
    // segment, which is read only and has no statics: no reference points there, but those of this
    // module during a look-up of a symbol that keeps its name and its place.
    unsafe { symbol_names::drop_prefix(tables.ok_or(Errno(libc::ENOEXEC))?, prefix, has_one_thread) }
}

/// Returns the address of the function `name` in the first object behind this library that
/// defines it. If the C library comes before this library, because that was opened at run time
/// or is linked with the program, returns the address of the C library's function. `None` if
/// no such function exists, or if no list of objects can be found that contains this library.
pub fn find(name: &CStr) -> Option<usize> {
    Search::in_list(name).found
}

/// Returns whether the dynamic section at this address is this library's.
pub fn is_own(dynamic: usize) -> bool {
    dynamic == (&raw const _DYNAMIC).addr()
}

/// Returns whether the loader has loaded this library when it started the program, and not
/// the program later. Then the loader's list has it before the C library.
pub fn is_preloaded() -> bool {
    let search = Search::in_list(c"dl_iterate_phdr");
    search.is_behind && search.of_c_library.is_none()
}

/// Returns whether this library comes directly behind the executable in the loader's list. musl
/// calls the constructors of such an object before all others, when the program has one thread.
pub fn is_behind_executable() -> bool {
    let second = first_link_map().map(|first| {
        // SAFETY: the list begins with the executable, which is never unloaded. `l_next` is the
        // fourth word of its element.
        unsafe { (*(first as *const [usize; 4]))[3] }
    });
    second.filter(|second| *second != 0).is_some_and(|second| {
        // SAFETY: `second` is the address of an element of the list, which is that of a library that
        // is loaded at startup and never unloaded. `l_ld` is its third word.
        is_own(unsafe { (*(second as *const [usize; 4]))[2] })
    })
}

/// A search through a list of objects.
struct Search<'a> {
    name: &'a CStr,
    /// The search has passed this library in the list.
    is_behind: bool,
    /// The function of the C library, if that comes before this library.
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
            // SAFETY: `next` is the address of an element of the loader's list: the first one, or
            // the `l_next` of another. The elements that the search reads are not freed meanwhile,
            // as the head of this module explains.
            let [base, _, dynamic, following] = unsafe { *(next as *const [usize; 4]) };
            // SAFETY: the element has the load bias and the address of the dynamic section of an
            // object, which stays loaded like the element.
            unsafe { search.look_at(base, dynamic) };
            next = following;
        }
        if search.found.is_some() { search } else { Self::by_iterating(name) }
    }

    /// Does the same in the list of `dl_iterate_phdr(3)`, which is that of this library's
    /// namespace and does not depend on the executable's headers. Another object may
    /// interpose that function as well. That does no harm: the result is used only if the
    /// list contains this library.
    fn by_iterating(name: &'a CStr) -> Self {
        unsafe extern "C" fn look_at(info: *mut libc::dl_phdr_info, _: usize, data: *mut c_void) -> c_int {
            // SAFETY: dl_iterate_phdr passes an info that lives during the callback. `data` is the
            // address of the local `search` below, to which only this callback refers meanwhile.
            let (search, info) = unsafe { (&mut *data.cast::<Search<'_>>(), &*info) };
            // SAFETY: the info has the address and the number of the program headers of an object,
            // which cannot be unloaded during the callback.
            let all = unsafe { core::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
            if let Some(dynamic) = all.iter().find(|header| header.p_type == PT_DYNAMIC) {
                let base = info.dlpi_addr as usize;
                // SAFETY: an object is loaded at `base`, and PT_DYNAMIC has the address of its
                // dynamic section before the base is added.
                unsafe { search.look_at(base, base.wrapping_add(dynamic.p_vaddr as usize)) };
            }
            search.found.is_some().into()
        }
        let mut search = Self::new(name);
        if let Some(_iteration) = iterations::begin() {
            // SAFETY: `look_at` accepts the address of a `Search`, which `data` is.
            unsafe { libc::dl_iterate_phdr(Some(look_at), (&raw mut search).cast()) };
        }
        search
    }

    /// Continues the search with the next object of the list.
    ///
    /// # Safety
    /// A well-formed object must be loaded at `base` and stay loaded during the call.
    /// `dynamic` must be the address of its dynamic section, or 0.
    unsafe fn look_at(&mut self, base: usize, dynamic: usize) {
        if is_own(dynamic) {
            self.is_behind = true;
            self.found = self.of_c_library;
            return;
        }
        // SAFETY: `dynamic` is 0 or the address of the dynamic section of the object that is
        // loaded at `base`: this function's contract, and that of `Tables::read`.
        let Some(tables) = (unsafe { Tables::read(base, dynamic) }) else { return };
        if self.is_behind {
            // SAFETY: the object stays loaded during the call: this function's contract.
            self.found = unsafe { tables.function(self.name) };
        // SAFETY: the object stays loaded during the call: this function's contract.
        } else if self.of_c_library.is_none() && unsafe { tables.is_of_c_library() } {
            // SAFETY: the object stays loaded during the call: this function's contract.
            self.of_c_library = unsafe { tables.function(self.name) };
        }
    }
}

/// Returns the address of the first element of the loader's list. The loader stores the
/// address of its `struct r_debug` (<link.h>) in the dynamic section of the executable.
fn first_link_map() -> Option<usize> {
    let headers = sys::executable_headers();
    if headers == 0 {
        return None;
    }
    // SAFETY: the auxiliary vector has the address and the number of the executable's program
    // headers: the kernel, or a loader that was started as a program, has set both. The executable
    // is never unloaded, and `headers` is not 0.
    let all = unsafe { core::slice::from_raw_parts(headers as *const Elf64_Phdr, sys::executable_header_count()) };
    let find = |wanted| all.iter().find(|header| header.p_type == wanted);
    let address_of = |header: &Elf64_Phdr| header.p_vaddr as usize;
    let base = match find(PT_PHDR) {
        Some(header) => headers.wrapping_sub(address_of(header)),
        // The executable is not position-independent, and its linker has left PT_PHDR out.
        None if all.iter().any(|header| is_load_at(header, headers)) => 0,
        None => return None,
    };
    let dynamic = base.wrapping_add(address_of(find(PT_DYNAMIC)?));
    // SAFETY: `dynamic` is the address of the dynamic section of the executable, which is never
    // unloaded. The linker ends it with DT_NULL.
    let mut entries = unsafe { symbols::entries(dynamic) };
    let debug = entries.find(|[tag, _]| *tag == DT_DEBUG).filter(|[_, value]| *value != 0)?[1];
    // The first two members are r_version and r_map.
    // SAFETY: DT_DEBUG of the executable has the address of the loader's `struct r_debug` once it
    // is not 0. The loader never frees that.
    let [_, first] = unsafe { *(debug as *const [usize; 2]) };
    (first != 0).then_some(first)
}

/// Returns whether a PT_LOAD segment of an executable that is loaded at base 0 contains `address`.
fn is_load_at(header: &Elf64_Phdr, address: usize) -> bool {
    header.p_type == PT_LOAD && (address as u64).wrapping_sub(header.p_vaddr) < header.p_memsz
}

//! What sopin knows about ELF objects, memory mappings and settings.
//!
//! This crate decides and reads; it never changes a mapping and exports no
//! symbol that could interpose one, so the command and the tests can use it
//! like any other library.
//!
//! | module | responsible for |
//! |---|---|
//! | [`sys`] | raw system calls and [`sys::Errno`] |
//! | [`pages`] | [`pages::PageVec`]: arrays that live in pages of their own |
//! | [`address_map`] | a hash table from addresses to plain values |
//! | [`cause`] | why something was not done |
//! | [`memory`] | reading this process's address space without faulting |
//! | [`object`] | an ELF object as the loader left it |
//! | [`private_memory`] | how much memory copies may take where no store can be used |
//! | [`untouched`] | long runs of data that nothing has stored to, and so are not private memory yet |
//! | [`available_memory`] | the memory that the process's cgroups and the machine have left |
//! | [`symbols`] | a function of a loaded object, without the loader |
//! | [`symbol_names`] | other names for exported functions of this library |
//! | [`build_id`] | the build-id of an object, in memory and in a copy of its file |
//! | [`crti`] | whether an object's `_init` calls `__gmon_start__`, and of which object |
//! | [`crtbegin`] | the same for `__register_frame_info`, which objects for musl call |
//! | [`openssl`] | recognises the function that objects with OpenSSL call before that |
//! | [`lse_atomics`] | recognises the functions of objects for aarch64 that run before that |
//! | [`crt1`] | whether the entry point of an executable is musl's |
//! | [`vmas`] | what is mapped where: `PROCMAP_QUERY` and `/proc/PID/maps` |
//! | [`pagemap`] | which pages of a file mapping were modified in memory |
//! | [`slices`] | sorting, moving and searching without code that can panic |
//! | [`once`] | values that are made when they are first needed |
//! | [`comparison`] | which pages of a file mapping are equal to the file |
//! | [`runs`] | the runs of pages that `pagemap` and `comparison` find |
//! | [`plan`] | pure: object + VMAs + mode -> ranges to replace, and by what |
//! | [`steps`] | pure: ranges to replace -> the program of steps that does it |
//! | [`branch_protection`] | protection bits that the kernel does not show |
//! | [`attributes`] | what else VMAs carry, such as locks and advice: `/proc/PID/smaps` |
//! | [`preload_list`] | the value of `LD_PRELOAD` |
//! | [`records`] | what the library publishes about its process |
//! | [`mode`] | how much of an object is pinned |
//! | [`settings`] | the `SOPIN_*` variables, one table |
//! | [`search_dirs`] | the directories in which a store may be, as the environment names them |
//! | [`glob`] | the patterns of `SOPIN_EXCLUDE` and `SOPIN_ONLY` |
//! | [`credentials`] | whether a thread has one user's rights, no more and no less |
//! | [`thread_status`] | rights of a thread and the seccomp filters in force for it |
//! | [`unnamed`] | private copies in files without names |
//! | [`image_layers`] | which files of a container no process can write to |
//! | [`registers`] | the registers of a task that has stopped, by architecture |
//! | [`kernel_stores`] | what shows that the kernel may store to memory meanwhile |
//! | [`current_call`] | the system call that a task is in |
//! | [`interrupted`] | system calls that a stop has interrupted |
//! | [`witness`] | the address of the page that keeps an object's file visible |
//! | [`iterations`] | forks and iterations over the loader's list exclude each other |
//! | [`preparations`] | which thread prepares a copy of which large object |
//! | [`sweep_counts`] | whether the records of loaded objects are up to date |
//! | [`listing`] | how directories are opened, and the names in them |
//! | [`line`](mod@line) | text of bounded length without allocation |
//!
//! # What is forbidden here, and why
//!
//! The preloaded library calls this crate while the dynamic loader holds its
//! locks, possibly from inside an interposed `malloc`. So there is no `alloc`
//! and no `std`: memory comes from fixed buffers or from [`pages::PageVec`],
//! and a lack of it is an error that is returned. This crate does not block or
//! panic, and it reads memory that it has not allocated only through a system
//! call that reports a bad address instead of raising a signal. The exception is
//! [`symbols`], which reads the tables of an object in place.

#![no_std]
#![deny(missing_docs)]
// `must_use` on every getter and `# Errors` on every fallible system call
// wrapper would repeat the signature; the module heads say what fails.
#![allow(clippy::must_use_candidate, clippy::return_self_not_must_use, clippy::missing_errors_doc)]
// PT_LOAD, DT_NEEDED and their like are written as in elf(5).
#![allow(clippy::doc_markdown)]
// Addresses are `usize` and `u64` is the kernel's and ELF's word for them; on
// the 64-bit targets that this crate compiles for the two are the same width.
// Descriptors come back from the kernel as words.
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("sopin supports 64-bit Linux only");

#[cfg(test)]
extern crate std;

/// The file name of the preloaded library; where a version is installed that stands behind it.
pub const LIBRARY: &str = "libsopin.so";

pub mod address_map;
pub mod attributes;
pub mod available_memory;
pub mod branch_protection;
pub mod build_id;
pub mod cause;
pub mod comparison;
pub mod credentials;
pub mod crt1;
pub mod crtbegin;
pub mod crti;
pub mod current_call;
pub mod glob;
pub mod image_layers;
pub mod interrupted;
pub mod iterations;
pub mod kernel_stores;
pub mod line;
pub mod listing;
pub mod lse_atomics;
pub mod memory;
pub mod mode;
pub mod names;
pub mod object;
pub mod once;
pub mod openssl;
pub mod pagemap;
pub mod pages;
pub mod plan;
pub mod preload_list;
pub mod preparations;
pub mod private_memory;
#[cfg(test)]
mod properties;
pub mod records;
pub mod registers;
pub mod runs;
pub mod search_dirs;
pub mod settings;
pub mod slices;
pub mod steps;
pub mod sweep_counts;
pub mod symbol_names;
pub mod symbols;
pub mod sys;
pub mod thread_status;
pub mod unnamed;
pub mod untouched;
pub mod vmas;
pub mod witness;
pub mod write_safety;

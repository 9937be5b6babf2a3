//! `libsopin.so`: preloaded into a program, it makes that program immune to
//! its shared objects being rewritten on disk.
//!
//! The crate is a C shared library, not a Rust one. Its interface consists of the
//! symbols of [`hooks`], the functions of [`api`], the records of [`published`], and
//! the `SOPIN_*` variables of [`sopin_core::settings`]. Data flows one way:
//!
//! ```text
//! hooks ──> pinner ──> sweep ──> candidates ──> sopin_core::plan ──> sources ──> sopin_core::steps ──> remap ──> registry
//!  what      which      its       what is new,   what to replace,    from which   how: a program,      runs it,   what is
//!  happened  objects    phases    and proven     and by what         file         which is data         the only   pinned
//!                                                                                                       one to map
//! ```
//!
//! No module uses one that comes earlier in this line. The [`lock`] protects [`state`], whose
//! parts a sweep borrows.
//!
//! | module | responsible for |
//! |---|---|
//! | [`hooks`] | the exported symbols |
//! | [`pinner`] | from "something was loaded" to a sweep |
//! | [`preparation`] | settings, fork handlers and `LD_PRELOAD`, before the first sweep |
//! | [`sweep`] | one sweep under the lock |
//! | [`loader`] | asking the dynamic loader: its functions, its list of objects, its C library |
//! | [`held_list`] | sweeps during which the loader can unload nothing |
//! | [`candidates`] | the objects that are new, that they are relocated, and which depend on which |
//! | [`write_safety`] | whether their code may have run, and so whether stores to their data are possible |
//! | [`reach`] | which other objects' addresses an object that may have run can know |
//! | [`sources`] | where the bytes of read-only ranges come from |
//! | [`large_copies`] | copying large files while no lock is held |
//! | [`stopped`] | doing something while all other threads have stopped |
//! | [`marked_ranges`] | leaving ranges with locks, advice or keys that a replacement would lose; correcting `PROT_BTI` |
//! | [`memory_functions`] | `memcpy` and similar functions, which no other library can interpose |
//! | [`original`] | the file that an object was loaded from, and the witness page |
//! | [`object_path`] | the path of an object, as a value |
//! | [`private_memory`] | how much memory copies may take where no store can be used |
//! | [`remap`] | the interpreter of steps; nothing else changes a mapping of the host |
//! | [`private_copies`] | copies that one process uses alone: memfds, or files without names |
//! | [`registry`] | the table of what is pinned |
//! | [`published`] | the records that the command and debuggers read from outside |
//! | [`freshness`] | whether the records are up to date |
//! | [`lock`] | the library's only lock, and forks |
//! | [`state`] | everything that the lock protects, in parts that can be borrowed separately |
//! | [`workspace`] | memory that every sweep uses again |
//! | [`panics`] | that no code of the release build can panic |
//! | [`filters`] | seccomp filters: which system calls may be made |
//! | [`environment`] | reading settings, `LD_PRELOAD` for children, counting threads |
//! | [`report`] | which line about an object is written, at which level |
//! | [`log`] | lines on stderr or in `SOPIN_LOG_FILE` |
//! | [`api`] | the functions of `include/sopin.h`, which the host calls |
//! | [`own`] | the addresses of this library, and of its functions that other objects call |
//! | [`errno`] | keeping the host's `errno` |
//!
//! # What is forbidden here, and why
//!
//! This code runs in the process of another program, usually while the dynamic loader
//! holds its lock. An interposed `malloc` may have called it, and the program's signal
//! handlers may interrupt it. Therefore:
//!
//! * It does not allocate; memory comes from [`sopin_core::pages`].
//! * It calls no function of the C library that another library may interpose, except the
//!   loader's.
//! * It does not call the loader while it holds the library's lock.
//! * It does not wait for a thread that may be waiting for this one.
//! * It does not panic ([`panics`]).
//! * It leaves `errno` as the host has set it.
//!
//! The standard library is not linked.
//!
//! # What costs every process time
//!
//! Each page that is touched first costs a process about two microseconds. So small statics that every
//! start uses are in the section `.data.sopin`: the linker puts them on the page of the writable data
//! that the loader stores to anyway. Large ones have no initial value but zero, and are in `.bss`: a
//! page of the file would be copied, and copied again when the library pins itself. What a sweep changes
//! comes first in [`state::State`]. `build/start.ld` puts the functions of a start beside each other, so
//! what a start does not execute should not be inlined into them.

#![no_std]
#![allow(clippy::must_use_candidate, clippy::doc_markdown)]
// All modules are private, because no Rust crate uses this one: its documentation is read with
// `--document-private-items`, where links to private items lead somewhere.
#![allow(rustdoc::private_intra_doc_links)]
// Addresses are `usize` here and `u64` in ELF and in the kernel's interfaces. sopin-core
// compiles only for 64-bit targets, on which both have the same width.
#![allow(clippy::cast_possible_truncation)]

// The crate libc does not link the C library if another member of the workspace turns on its
// feature `std`, because the standard library does it then.
#[link(name = "c")]
unsafe extern "C" {}

mod api;
mod candidates;
mod environment;
mod errno;
mod filters;
mod freshness;
mod held_list;
mod hooks;
mod large_copies;
mod loader;
mod lock;
mod log;
mod marked_ranges;
mod memory_functions;
mod object_path;
mod original;
mod own;
mod panics;
mod pinner;
mod preparation;
mod private_copies;
mod private_memory;
mod published;
mod reach;
mod registry;
mod remap;
mod report;
mod sources;
mod state;
mod stopped;
mod sweep;
mod workspace;
mod write_safety;

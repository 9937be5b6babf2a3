//! `libsopin.so`: preloaded into a program, it makes that program immune to
//! its shared objects being rewritten on disk.
//!
//! The crate is a C shared library, not a Rust one: what it offers is the
//! symbols of [`hooks`], the functions of [`api`], what [`published`] shows to
//! the outside, and the `SOPIN_*` variables of [`sopin_core::settings`]. Data
//! flows one way:
//!
//! ```text
//! hooks ──> pinner ──> sweep ──> candidates ──> sopin_core::plan ──> sources ──> sopin_core::steps ──> remap ──> registry
//!  what      which      its       what is new,   what to replace,    from which   how: a program,      runs it,   what is
//!  happened  objects    phases    and proven     and by what         file         which is data         the only   pinned
//!                                                                                                       one to map
//! ```
//!
//! No module reaches back up this line. What [`lock`] protects is [`state`], whose parts a
//! sweep borrows.
//!
//! | module | responsible for |
//! |---|---|
//! | [`hooks`] | the exported symbols |
//! | [`pinner`] | from "something was loaded" to a sweep |
//! | [`preparation`] | what has to be ready before the first sweep |
//! | [`sweep`] | one sweep under the lock |
//! | [`loader`] | asking the dynamic loader: its functions, its list of objects |
//! | [`held_list`] | sweeps during which the loader can unload nothing |
//! | [`candidates`] | the objects that are new, and that they are relocated |
//! | [`write_safety`] | what is known of their code, and so of stores to their data |
//! | [`reach`] | what an object that may have run can know of others |
//! | [`sources`] | where the bytes of read-only ranges come from |
//! | [`large_copies`] | copying large files while no lock is held |
//! | [`marked_ranges`] | leaving what carries locks, advice or keys that a replacement would lose |
//! | [`memory_functions`] | `memcpy` and its like, which nobody else can interpose |
//! | [`original`] | the file that an object was loaded from, and the witness page |
//! | [`object_path`] | the path of an object, as a value |
//! | [`private_memory`] | how much memory copies may take where no store can be used |
//! | [`remap`] | the interpreter of steps; nothing else changes a mapping of the host |
//! | [`private_copies`] | copies that a process has to itself: memfds, or files without names |
//! | [`registry`] | the table of what is pinned |
//! | [`published`] | the records that the command and debuggers read from outside |
//! | [`freshness`] | whether what is recorded is up to date |
//! | [`lock`] | the one lock, and forks |
//! | [`state`] | what the lock protects, each part apart from the others |
//! | [`workspace`] | memory that sweeps use one after the other |
//! | [`panics`] | that nothing here can panic |
//! | [`filters`] | seccomp filters: which system calls may be made |
//! | [`environment`] | reading settings, `LD_PRELOAD` for children, counting threads |
//! | [`report`] | what is said of an object, at which level |
//! | [`log`] | lines on stderr or in `SOPIN_LOG_FILE` |
//! | [`api`] | the functions of `include/sopin.h`: what the host asks for |
//! | [`own`] | where this library is, and which function of it others call |
//! | [`errno`] | keeping the host's `errno` |
//!
//! # What is forbidden here, and why
//!
//! This code runs in somebody else's process, usually while the dynamic loader
//! holds its lock, perhaps called from inside an interposed `malloc`, perhaps
//! with the world's strangest signal handlers installed. Therefore: no
//! allocation (memory comes from [`sopin_core::pages`]); no function of the C
//! library that may be interposed, other than the loader's own; no call of the
//! loader while our lock is held; no waiting for a thread that could be
//! waiting for us; no panic ([`panics`]); `errno` is what the host left in it. The
//! standard library is not linked.

#![no_std]
#![allow(clippy::must_use_candidate, clippy::doc_markdown)]
// Addresses are `usize`, ELF's and the kernel's word for them is `u64`: the
// same width on the 64-bit targets that sopin-core compiles for.
#![allow(clippy::cast_possible_truncation)]

// The C library, which the crate libc leaves to the standard library where another member
// of the workspace has it do so. The other two are part of it since glibc 2.34.
#[link(name = "c")]
#[link(name = "dl")]
#[link(name = "pthread")]
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
mod sweep;

mod workspace;
mod write_safety;

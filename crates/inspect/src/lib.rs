//! Finds out what has become of the objects of a process: of a live one from outside and through
//! `/proc` only, of a dead one from its core dump. The process need not have the library, is not
//! stopped, and is not trusted.
//!
//! | module | responsible for |
//! |---|---|
//! | [`process`] | a process and its directory in `/proc` |
//! | [`memory`] | reading memory and files |
//! | [`maps`] | VMAs, and which copies they map |
//! | [`image`] | program headers and dynamic sections |
//! | `loader` | the loader's list of objects |
//! | `published` | the records that the library publishes |
//! | [`files`] | the mapped files, each examined once for all processes |
//! | `mounts` | the mounted file systems, and which of them a server answers for |
//! | `relocated_words` | the words to which the loader stores |
//! | [`object`](mod@object) | which VMAs an object has, and what state that makes |
//! | `reversion` | the rule for words that have reverted |
//! | `damage` | words of a process that have reverted |
//! | [`core_dump`] | a core dump: threads, the signal, mapped files, memory |
//! | [`post_mortem`] | what a core dump shows about the objects, and the verdict |
//! | `names` | the section and symbol of a word |
//! | [`kernel_log`] | what the kernel logs about crashes |
//! | [`small_addresses`] | what an object has at an address without its load base |
//! | [`disk`] | what has become of an object's file |
//! | `data_files` | mapped files that are no objects |
//! | `inspector` | the inspection of one process: [`Inspector`] |
//! | `shim` | the library in a process |
//! | [`report`] | the result |
//! | [`descriptors`] | opens files again that are open already |
//!
//! This crate does not print, and changes nothing in a process or on the disk.

#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![allow(clippy::doc_markdown, clippy::must_use_candidate)]

pub mod core_dump;
mod damage;
mod data_files;
pub mod descriptors;
pub mod disk;
pub mod files;
pub mod image;
mod inspector;
pub mod kernel_log;
mod loader;
pub mod maps;
pub mod memory;
mod mounts;
mod names;
pub mod object;
pub mod post_mortem;
pub mod process;
mod published;
mod relocated_words;
pub mod report;
mod reversion;
mod shim;
pub mod small_addresses;

pub use inspector::{Inspector, ProcessObjects};

//! What became of the objects of a process, found out from outside through `/proc`
//! only: the process need not have the library, is not stopped, and is not trusted.
//!
//! | module | responsible for |
//! |---|---|
//! | [`process`] | a process and its directory in `/proc` |
//! | [`memory`] | reading memory and files |
//! | [`maps`] | VMAs, and whose copies they map |
//! | [`image`] | program headers and dynamic sections |
//! | `loader` | the loader's list of objects |
//! | `published` | what the library says itself |
//! | [`files`] | the mapped files, looked at once for all processes |
//! | `relocated_words` | the words that a loader stores to |
//! | [`object`](mod@object) | which VMAs an object has, and what state that makes |
//! | `damage` | words that have reverted |
//! | `names` | the section and symbol of a word |
//! | [`disk`] | what has become of an object's file |
//! | `inspector` | all of it for one process: [`Inspector`] |
//! | [`report`] | the result |
//! | [`descriptors`] | files that are open already, opened again |
//!
//! Nothing here prints, or changes anything in a process or on the disk.

#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![allow(clippy::doc_markdown, clippy::must_use_candidate)]

mod damage;
pub mod descriptors;
pub mod disk;
pub mod files;
pub mod image;
mod inspector;
mod loader;
pub mod maps;
pub mod memory;
mod names;
pub mod object;
pub mod process;
mod published;
mod relocated_words;
pub mod report;

pub use inspector::Inspector;

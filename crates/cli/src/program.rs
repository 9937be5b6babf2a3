//! The program that a command line would execute: which file that is, what executes that file,
//! and the obstacles for the library. These modules only read files; [`crate::trial`] shows
//! what the loader does.
//!
//! | module | responsible for |
//! |---|---|
//! | [`search`] | from a command's name to files, as `execvp(3)` tries them |
//! | [`script`] | the `#!` line, as the kernel reads it, and what env(1) makes of it |
//! | [`elf`] | machine and loader of an ELF file |
//! | [`privileges`] | whether the kernel would set `AT_SECURE` |
//! | [`chain`] | all of these together, from the command down to an ELF program |

pub mod chain;
pub mod elf;
pub mod privileges;
pub mod script;
pub mod search;

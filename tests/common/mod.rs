//! Support shared by the integration tests: the library under test, scratch
//! directories, child processes with a deadline, and the directives of the C fixtures.
//! The functions here assert nothing; they report what happened, and the tests judge.

#![allow(dead_code, reason = "every test binary uses its own part of this module")]

pub mod at_once;
pub mod builds;
pub mod dialogue;
pub mod directives;
pub mod library;
pub mod needs;
pub mod process;
pub mod protection;
pub mod rewrite;
pub mod ring;
pub mod scratch;
pub mod stops;
pub mod suite;
pub mod toolchain;
pub mod tree;
pub mod turns;

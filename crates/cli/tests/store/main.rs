//! `sopin store` on stores that real programs have filled.

#![allow(clippy::needless_raw_string_hashes, reason = "snapbox writes snapshots so")]

#[path = "../common/mod.rs"]
mod common;
mod listing;
mod places;
mod pruning;
mod scene;
mod system;
mod verifying;

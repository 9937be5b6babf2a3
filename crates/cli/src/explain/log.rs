//! `sopin explain --log`.

use std::ffi::OsStr;

use super::ExplainArgs;
use crate::exit::{Exit, Failure};

/// Prints what lines of the kernel's log show.
pub fn explain(_arguments: &ExplainArgs, line: &OsStr) -> Result<Exit, Failure> {
    Err(Failure::new(Exit::Uninspected, line.display(), "the kernel's lines cannot be read yet"))
}

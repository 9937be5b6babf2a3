//! `sopin explain CORE`.

use std::path::Path;

use super::ExplainArgs;
use crate::exit::{Exit, Failure};

/// Prints what a core dump shows.
pub fn explain(_arguments: &ExplainArgs, path: &Path) -> Result<Exit, Failure> {
    Err(Failure::new(Exit::Uninspected, path.display(), "core dumps cannot be read yet"))
}

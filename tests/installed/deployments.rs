//! The other files of `examples/`.
use super::Try;
pub const TRIALS: &[(&str, Try)] = &[];

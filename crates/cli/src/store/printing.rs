//! Prints the answers of all four subcommands.

use std::fmt::Display;

use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::output;

/// The version of the JSON output of all four; it changes when a field changes its meaning.
pub const SCHEMA: u32 = 1;

/// Prints an answer for people or for programs.
///
/// # Errors
/// When stdout cannot be written to.
pub fn print(json: bool, answer: &(impl Serialize + Display)) -> Result<(), Failure> {
    let unwritten = |error: &dyn std::error::Error| Failure::new(Exit::Uninspected, "stdout", error);
    let printed = if json {
        let text = serde_json::to_string_pretty(answer).map_err(|error| unwritten(&error))?;
        output::print(format_args!("{text}\n"))
    } else {
        output::print(answer)
    };
    printed.map_err(|error| unwritten(&error))
}

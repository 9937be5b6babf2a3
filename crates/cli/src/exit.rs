//! Exit statuses, one table for all subcommands, and the failures that end in
//! them.

use std::fmt;
use std::process::ExitCode;

use crate::output::shown;

/// Exit status of the command. `sopin run` ends with that of the program it
/// runs, and uses 125 and above for its own failures, as env(1) does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Success: the command has done what was requested, or the answer is yes.
    Success = 0,
    /// The command has done what was requested, and the answer is no.
    Negative = 1,
    /// The command line was not understood.
    Usage = 2,
    /// The object of the request could not be inspected.
    Uninspected = 3,
    /// Damage was found.
    Damaged = 4,
    /// A failure of sopin itself, before the program was executed.
    Failed = 125,
    /// The program was found and cannot be executed.
    CannotExecute = 126,
    /// The program was not found.
    NotFound = 127,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why the command ends without having done what was requested: `<thing>: <reason>; <way out>`.
#[derive(Debug)]
pub struct Failure {
    /// The exit status.
    pub exit: Exit,
    /// Its subject: a path, a process, a variable.
    pub thing: String,
    /// What is wrong with it.
    pub reason: String,
    /// What the user can do about it; empty if the reason makes that clear.
    pub way_out: String,
}

impl Failure {
    /// Makes a failure whose reason makes clear what to do.
    pub fn new(exit: Exit, thing: impl fmt::Display, reason: impl fmt::Display) -> Self {
        Self { exit, thing: shown(&thing.to_string()), reason: reason.to_string(), way_out: String::new() }
    }

    /// Adds what the user can do about it.
    pub fn with_way_out(self, way_out: impl fmt::Display) -> Self {
        Self { way_out: way_out.to_string(), ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.thing, self.reason)?;
        if self.way_out.is_empty() { Ok(()) } else { write!(f, "; {}", self.way_out) }
    }
}

//! Saying what became of an object: which line, at which level.
//!
//! | the object is | `error` | `warn` | `info` |
//! |---|---|---|---|
//! | pinned as the mode says | | | a line |
//! | pinned but for read-only ranges | | a line | a line |
//! | exposed in writable or relocated ranges | a line for every new cause | a line | a line |

use core::fmt;

use sopin_core::line::Text;
use sopin_core::plan::Outlook;
use sopin_core::settings::{Level, Mode};

use crate::log::Cause;
use crate::registry::State;
use crate::remap::Outcome;

/// What became of one object.
pub struct Report<'a> {
    /// Path of the file.
    pub path: &'a [u8],
    /// What the plan has left.
    pub outlook: Outlook,
    /// What was done.
    pub outcome: Outcome,
    /// Bytes of text modified in memory, or why that could not be found out.
    pub modified: Result<usize, Cause>,
    /// How long it took, in microseconds.
    pub micros: u64,
}

impl Report<'_> {
    /// Why a writable or relocated range still maps the file.
    fn exposed_cause(&self) -> Option<Cause> {
        let threads = Cause::words("pin writable ranges", "other threads may be storing to them");
        self.outcome.relocated_failure.or((self.outlook.writable_left != 0).then_some(threads))
    }

    /// Why a read-only range still maps the file although the mode is `full`.
    fn degraded_cause(&self) -> Option<Cause> {
        let modified = Cause::words("pin text", "some pages are modified in memory (breakpoint, probe or patch)");
        match self.modified {
            Err(cause) => Some(cause),
            Ok(bytes) => self.outcome.read_only_failure.or((bytes != 0).then_some(modified)),
        }
    }
}

/// Reports a pinned object.
pub fn pinned(state: &mut State, report: &Report<'_>) {
    let path = Text(report.path);
    let exposed_cause = report.exposed_cause();
    let cause = exposed_cause.or_else(|| report.degraded_cause());
    if state.settings.level >= Level::Info {
        let reached = match (exposed_cause, cause, state.settings.mode) {
            (Some(_), ..) => "exposed",
            (None, None, Mode::Full) => "full",
            _ => "relocated",
        };
        let (bytes, micros) = (report.outcome.bytes, report.micros);
        let figures = format_args!("{path}: {reached}, {bytes} bytes, {micros} us");
        match cause {
            Some(cause) => state.log.line(&state.settings, Level::Info, format_args!("{figures}: {cause}")),
            None => state.log.line(&state.settings, Level::Info, figures),
        }
    } else if let Some(cause) = exposed_cause {
        exposed(state, format_args!("{path}"), cause);
    } else if let Some(cause) = cause {
        let message = format_args!("{path}: {cause}; read-only ranges left unmodified");
        state.log.line(&state.settings, Level::Warn, message);
    }
}

/// Reports an object that was left exposed.
pub fn exposed(state: &mut State, object: fmt::Arguments<'_>, cause: Cause) {
    if state.log.is_new(cause) || state.settings.level >= Level::Warn {
        state.log.line(&state.settings, Level::Error, format_args!("{object}: {cause}; left unmodified"));
    }
}

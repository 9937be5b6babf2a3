//! Saying what became of an object: which line, at which level.
//!
//! | the object is | `error` | `warn` | `info` |
//! |---|---|---|---|
//! | pinned as the mode says | | | a line |
//! | pinned but for read-only ranges | | a line | a line |
//! | the same because private memory is bounded | a line for every new cause | a line | a line |
//! | exposed in writable or relocated ranges | a line for every new cause | a line | a line |

use sopin_core::cause::Cause;
use sopin_core::line::Text;
use sopin_core::mode::Mode;
use sopin_core::plan::Outlook;
use sopin_core::records::Reached;
use sopin_core::settings::Level;

use crate::private_memory;
use crate::registry::State;
use crate::remap::Outcome;
use crate::write_safety::OTHER_MAY_HAVE_RUN;

/// Why ranges are left that the plan does not believe to be what they seem.
const CONTRADICTED: Cause =
    Cause::words("read /proc/self/maps", "it contradicts the program headers, as it does under an emulator");

/// What became of one object.
pub struct Report {
    /// What the plan has left.
    pub outlook: Outlook,
    /// Why writable ranges had to be left, if they had to.
    pub stores: Option<Cause>,
    /// What was done.
    pub outcome: Outcome,
    /// Bytes of text modified in memory, or why that could not be found out.
    pub modified: Result<usize, Cause>,
    /// How long it took, in microseconds.
    pub micros: u64,
}

impl Report {
    /// Why a writable or relocated range still maps the file.
    fn exposed_cause(&self) -> Option<Cause> {
        let contradicted = (self.outlook.relocated_contradicted != 0).then_some(CONTRADICTED);
        let stores = self.stores.filter(|_| self.outlook.writable_left != 0);
        self.outcome.relocated_failure.or(contradicted).or(stores)
    }

    /// Why a read-only range still maps the file although the mode is `full`.
    fn degraded_cause(&self) -> Option<Cause> {
        let modified = Cause::words("pin text", "some pages are modified in memory (breakpoint, probe or patch)");
        let contradicted = (self.outlook.read_only_contradicted != 0).then_some(CONTRADICTED);
        match self.modified {
            Err(cause) => Some(cause),
            Ok(bytes) => self.outcome.read_only_failure.or(contradicted).or((bytes != 0).then_some(modified)),
        }
    }

    /// What became of the object in this mode, and why not more.
    pub fn reached(&self, mode: Mode) -> (Reached, Option<Cause>) {
        match (self.exposed_cause(), self.degraded_cause()) {
            (Some(cause), _) => (Reached::Exposed, Some(cause)),
            (None, None) if mode == Mode::Full => (Reached::Full, None),
            (None, cause) => (Reached::Relocated, cause),
        }
    }
}

/// Reports the pinned object whose path is the first `path_len` bytes of the
/// path buffer. `beside`: the names of those that were left because of it.
pub fn pinned(state: &mut State, path_len: usize, report: &Report, beside: &[u8]) {
    let State { settings, log, path_buffer, .. } = state;
    let path = Text(path_buffer.get(..path_len).unwrap_or_default());
    let (reached, cause) = report.reached(settings.mode);
    if settings.level >= Level::Info {
        let reached = reached.word();
        let (bytes, micros) = (report.outcome.bytes, report.micros);
        let figures = format_args!("{path}: {reached}, {bytes} bytes, {micros} us");
        match cause {
            Some(cause) => log.line(settings, Level::Info, format_args!("{figures}: {cause}")),
            None => log.line(settings, Level::Info, figures),
        }
    } else if let Some(cause) = cause {
        if reached == Reached::Exposed {
            return exposed(state, path_len, cause, beside);
        }
        // Only the user can mend this, so it is said without being asked for.
        let is_for_user = matches!(cause, private_memory::LIMITED | private_memory::SHORT) && log.is_new(cause);
        let level = if is_for_user { Level::Error } else { Level::Warn };
        log.line(settings, level, format_args!("{path}: {cause}; read-only ranges left unmodified"));
    }
}

/// Reports that the object whose name is the first `name_len` bytes of the path
/// buffer was left exposed, and because of it those named in `beside`.
pub fn exposed(state: &mut State, name_len: usize, cause: Cause, beside: &[u8]) {
    let State { settings, log, path_buffer, .. } = state;
    let name = Text(path_buffer.get(..name_len).unwrap_or_default());
    if !log.is_new(cause) && settings.level < Level::Warn {
        return;
    }
    if beside.is_empty() {
        return log.line(settings, Level::Error, format_args!("{name}: {cause}; left unmodified"));
    }
    // These have been named now.
    let _ = log.is_new(OTHER_MAY_HAVE_RUN);
    let others = Text(beside);
    log.line(settings, Level::Error, format_args!("{name}: {cause}, or to those of {others}; left unmodified"));
}

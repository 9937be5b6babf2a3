//! Reporting the result for an object: which line is written, at which level.
//!
//! | the object is | `error` | `warn` | `info` |
//! |---|---|---|---|
//! | pinned as the mode says | | | a line |
//! | pinned except for read-only ranges | | a line | a line |
//! | the same, because private memory is bounded | a line for every new cause | a line | a line |
//! | exposed in writable or relocated ranges | a line for every new cause | a line | a line |

use core::fmt;

use sopin_core::cause::{Cause, Operation};
use sopin_core::line::Text;
use sopin_core::mode::Mode;
use sopin_core::plan::Outlook;
use sopin_core::records::Reached;
use sopin_core::settings::{Level, Settings};
use sopin_core::sys::Result;

use crate::log::Log;
use crate::object_path::ObjectPath;
use crate::private_memory;
use crate::remap::Outcome;
use crate::sources::{CopySearch, Modified};
use crate::write_safety::OTHER_MAY_HAVE_RUN;

/// Why the plan has left ranges whose mappings contradict the program headers.
const CONTRADICTED: Cause =
    Cause::words(Operation::ReadMaps, "it contradicts the program headers, as it does under an emulator");

/// The cause for leaving read-only ranges that cannot be read.
const INACCESSIBLE: Cause = Cause::words(Operation::PinRanges, "the program has made some of them inaccessible");

/// The result of pinning one object.
#[derive(Clone, Copy)]
pub struct Report {
    /// Which ranges the plan has left.
    pub outlook: Outlook,
    /// Why writable ranges had to be left, if they had to.
    pub stores: Option<Cause>,
    /// The reason for leaving data to which no code has stored. `None` if none was left.
    pub untouched: Option<Cause>,
    pub outcome: Outcome,
    /// How much of its text was modified in memory.
    pub modified: Modified,
    /// How long pinning took, in microseconds.
    pub micros: u64,
}

impl Report {
    /// Adds the result for the writable ranges, which were left at first. `untouched` is why data
    /// was left to which no code has stored.
    pub fn add(&mut self, outlook: &Outlook, outcome: &Outcome, untouched: Option<Cause>) {
        self.stores = None;
        self.untouched = self.untouched.or(untouched);
        self.outlook.writable_left = 0;
        self.outlook.relocated_contradicted += outlook.relocated_contradicted;
        self.outcome.bytes += outcome.bytes;
        self.outcome.relocated_failure = self.outcome.relocated_failure.or(outcome.relocated_failure);
    }

    /// Returns why a writable or relocated range still maps the file.
    fn exposed_cause(&self) -> Option<Cause> {
        let contradicted = (self.outlook.relocated_contradicted != 0).then_some(CONTRADICTED);
        let stores = self.stores.filter(|_| self.outlook.writable_left != 0);
        self.outcome.relocated_failure.or(contradicted).or(stores).or(self.untouched)
    }

    /// Returns why a read-only range still maps the file although the mode is `full`.
    fn degraded_cause(&self) -> Option<Cause> {
        let modified =
            Cause::words(Operation::PinText, "some pages are modified in memory (breakpoint, probe or patch)");
        let contradicted = (self.outlook.read_only_contradicted != 0).then_some(CONTRADICTED);
        let inaccessible = (self.outlook.inaccessible_left != 0).then_some(INACCESSIBLE);
        match self.modified {
            Modified::Unknown(cause) => Some(cause),
            Modified::Bytes(bytes) => {
                let modified = (bytes != 0).then_some(modified);
                self.outcome.read_only_failure.or(contradicted).or(inaccessible).or(modified)
            }
        }
    }

    /// Returns the protection level that the object has reached in this mode, and why it has
    /// not reached a higher one.
    pub fn reached(&self, mode: Mode) -> (Reached, Option<Cause>) {
        match (self.exposed_cause(), self.degraded_cause()) {
            (Some(cause), _) => (Reached::Exposed, Some(cause)),
            (None, None) if mode == Mode::Full => (Reached::Full, None),
            (None, cause) => (Reached::Relocated, cause),
        }
    }
}

/// The settings in force, and the log for the lines that they select.
#[repr(C)]
pub struct Reporter {
    settings: Settings,
    log: Log,
}

impl Reporter {
    /// Makes a reporter that has not read the settings, with a log that does not know stderr yet.
    pub const fn new() -> Self {
        Self { settings: Settings::unread(), log: Log::new() }
    }

    /// Remembers which file stderr is, and makes `read` store the settings. `read` gets the log
    /// as well, for complaints about values of the settings that it has stored.
    pub fn configure(&mut self, read: impl FnOnce(&mut Settings, &mut Log) -> Result<()>) -> Result<()> {
        self.log.remember_stderr();
        read(&mut self.settings, &mut self.log)
    }

    /// Returns the settings in force.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Writes a line, if the settings ask for `level`.
    pub fn line(&mut self, level: Level, message: fmt::Arguments<'_>) {
        self.log.line(&self.settings, level, message);
    }

    /// Writes a line, if this cause is named for the first time.
    #[cold]
    #[inline(never)]
    pub fn line_once(&mut self, cause: Cause, level: Level, message: fmt::Arguments<'_>) {
        if self.log.is_new(cause) {
            self.line(level, message);
        }
    }

    /// Reports problems with the stores, or with their entries for the file at `path`.
    pub fn complain(&mut self, path: ObjectPath<'_>, found: &CopySearch) {
        let (path, [system, tampered]) = (path.text(), found.complaints);
        if let Some(cause) = system {
            let message = format_args!("the system's store: {path}: {cause}; not used");
            self.line_once(cause, Level::Warn, message);
        }
        if let Some(cause) = tampered {
            self.line(Level::Warn, format_args!("store: {path}: {cause}; copied again"));
        }
        if let Err(cause) = found.entry {
            self.line_once(cause, Level::Warn, format_args!("store: {cause}; using private memory"));
        }
    }

    /// Reports the pinned object of this `path`. `beside` has the names of the objects that were
    /// left because of it.
    pub fn pinned(&mut self, path: ObjectPath<'_>, report: &Report, beside: &[u8]) {
        let (reached, cause) = report.reached(self.settings.mode);
        if self.settings.level >= Level::Info {
            let (path, reached) = (path.text(), reached.word());
            let (bytes, micros) = (report.outcome.bytes, report.micros);
            let figures = format_args!("{path}: {reached}, {bytes} bytes, {micros} us");
            match cause {
                Some(cause) => self.line(Level::Info, format_args!("{figures}: {cause}")),
                None => self.line(Level::Info, figures),
            }
        } else if let Some(cause) = cause {
            if reached == Reached::Exposed {
                return self.exposed(path, cause, beside);
            }
            // Only the user can change the limit or name a store, so the line is an error the first
            // time.
            let is_for_user =
                matches!(cause, private_memory::LIMITED | private_memory::SHORT) && self.log.is_new(cause);
            let level = if is_for_user { Level::Error } else { Level::Warn };
            self.line(level, format_args!("{}: {cause}; read-only ranges left unmodified", path.text()));
        }
    }

    /// Reports that the object of this `name` was left exposed, and that the objects named in
    /// `beside` were left because of it.
    #[cold]
    #[inline(never)]
    pub fn exposed(&mut self, name: ObjectPath<'_>, cause: Cause, beside: &[u8]) {
        let name = name.text();
        if !self.log.is_new(cause) && self.settings.level < Level::Warn {
            return;
        }
        if beside.is_empty() {
            return self.line(Level::Error, format_args!("{name}: {cause}; left unmodified"));
        }
        // This line names the other objects, so their cause counts as named.
        let _ = self.log.is_new(OTHER_MAY_HAVE_RUN);
        let others = Text(beside);
        self.line(Level::Error, format_args!("{name}: {cause}, or to those of {others}; left unmodified"));
    }
}

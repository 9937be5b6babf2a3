//! The ways to protect a process.

use std::env;
use std::fmt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::library;

/// The time after which the store accepts a file that has changed: two seconds, and one
/// because it compares whole seconds.
pub const SETTLING_TIME: Duration = Duration::from_secs(3);

/// Whether and how a process is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// The library is not loaded.
    Unprotected,
    /// `SOPIN_MODE=relocated`.
    Relocated,
    /// `SOPIN_MODE=full` without a store: read-only ranges come from memfds.
    Full,
    /// `SOPIN_MODE=full` with a store.
    Stored,
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unprotected => "unprotected",
            Self::Relocated => "relocated",
            Self::Full => "full",
            Self::Stored => "full_from_store",
        })
    }
}

impl Protection {
    /// Returns the value of `SOPIN_MODE`, which the log also prints for an object that
    /// has reached this mode.
    pub fn mode(self) -> Option<&'static str> {
        match self {
            Self::Unprotected => None,
            Self::Relocated => Some("relocated"),
            Self::Full | Self::Stored => Some("full"),
        }
    }

    /// Makes `command` run with this protection, whatever the caller's environment
    /// contains. `variable` receives the library's path: `LD_PRELOAD`, unless the
    /// program loads the library itself.
    ///
    /// # Errors
    /// There is no library.
    pub fn apply(self, command: &mut Command, variable: &str, store: &Path) -> Result<(), String> {
        forget_settings(command);
        if let Some(mode) = self.mode() {
            command.env("SOPIN_MODE", mode).env(variable, library::path()?);
            // The store of the user who runs the tests is never used.
            command.env("SOPIN_STORE", if self == Self::Stored { store.as_os_str() } else { "off".as_ref() });
        }
        Ok(())
    }
}

/// Removes all variables that concern the library from `command`'s environment.
pub fn forget_settings(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("SOPIN_") {
            command.env_remove(name);
        }
    }
    command.env_remove("LD_PRELOAD");
}

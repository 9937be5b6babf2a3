//! The ways to protect a process, or not.

use std::env;
use std::fmt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::library;

/// How long the store leaves a file alone that has changed: two seconds, and one
/// because it looks at whole seconds.
pub const SETTLING_TIME: Duration = Duration::from_secs(3);

/// Whether and how a process is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// The library is not there.
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
    /// `SOPIN_MODE`, which is also what the log calls an object that reached it.
    pub fn mode(self) -> Option<&'static str> {
        match self {
            Self::Unprotected => None,
            Self::Relocated => Some("relocated"),
            Self::Full | Self::Stored => Some("full"),
        }
    }

    /// Makes `command` run like this, whatever the caller's environment says.
    /// `variable` is what gets the library's path: `LD_PRELOAD`, unless the
    /// program loads the library itself.
    ///
    /// # Errors
    /// When there is no library.
    pub fn apply(self, command: &mut Command, variable: &str, store: &Path) -> Result<(), String> {
        forget_settings(command);
        if let Some(mode) = self.mode() {
            command.env("SOPIN_MODE", mode).env(variable, library::path()?);
            // Never the one of who runs the tests.
            command.env("SOPIN_STORE", if self == Self::Stored { store.as_os_str() } else { "off".as_ref() });
        }
        Ok(())
    }
}

/// Takes everything that concerns the library out of `command`'s environment.
pub fn forget_settings(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("SOPIN_") {
            command.env_remove(name);
        }
    }
    command.env_remove("LD_PRELOAD");
}

//! The `SOPIN_*` variables: one table, from which the documentation is checked.
//!
//! Parsing never fails: the caller's `complain` gets a value that is not understood, and the
//! default is used.

use core::fmt;

use crate::line::Text;
use crate::mode::Mode;
use crate::pages::PageVec;
use crate::search_dirs::SearchDirs;
use crate::sys::Result;

/// How much the library logs (`SOPIN_LOG`); each level includes those before it. The default is 0, see
/// [`Settings::unread`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    Off = -1,
    /// The first object of each cause for which an object had to be left exposed.
    Error = 0,
    /// Every object that did not reach the mode in force.
    Warn,
    /// Every object.
    Info,
    /// Every sweep.
    Debug,
}

/// Whether the library is preloaded into programs that the process starts (`SOPIN_CHILDREN`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Children {
    /// It is: `LD_PRELOAD` stays as it is.
    Keep,
    /// It is not: this library is removed from `LD_PRELOAD`.
    Drop,
}

/// A row of the table of variables.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Name in the environment.
    pub name: &'static core::ffi::CStr,
    /// What a value may be.
    pub accepted: &'static str,
    /// The default, as a user would write it; empty if it is to be unset.
    pub default: &'static str,
    /// What the variable decides.
    pub meaning: &'static str,
}

const GLOBS: &str = "colon-separated globs over absolute paths, each beginning with /, * or ?";

/// Every variable that is read.
pub const VARIABLES: [Variable; 8] = [
    Variable { name: c"SOPIN_MODE", accepted: "full, relocated, off", default: "full", meaning: "what to pin" },
    Variable {
        name: c"SOPIN_STORE",
        accepted: "an absolute path of a directory, off",
        default: "",
        meaning: "where the copies shared by processes live; unset: the first usable of $CACHE_DIRECTORY/sopin, \
                  $XDG_CACHE_HOME/sopin, $HOME/.cache/sopin, /var/cache/sopin (root)",
    },
    Variable {
        name: c"SOPIN_PRIVATE_LIMIT",
        accepted: "a number of bytes, also with K, M or G behind it",
        default: "256M",
        meaning: "how much private memory a process may hold for copies where no store can be used; 0: none",
    },
    Variable { name: c"SOPIN_EXCLUDE", accepted: GLOBS, default: "", meaning: "objects to leave alone" },
    Variable { name: c"SOPIN_ONLY", accepted: GLOBS, default: "", meaning: "if set, the only objects to pin" },
    Variable {
        name: c"SOPIN_LOG",
        accepted: "off, error, warn, info, debug",
        default: "error",
        meaning: "one line per event of this level and those before it, on stderr",
    },
    Variable {
        name: c"SOPIN_LOG_FILE",
        accepted: "an absolute path",
        default: "",
        meaning: "append the lines to this file instead",
    },
    Variable {
        name: c"SOPIN_CHILDREN",
        accepted: "keep, drop",
        default: "keep",
        meaning: "whether programs started by the process are preloaded too",
    },
];

const MODE: &Variable = &VARIABLES[0];
const STORE: &Variable = &VARIABLES[1];
const PRIVATE_LIMIT: &Variable = &VARIABLES[2];
const EXCLUDE: &Variable = &VARIABLES[3];
const ONLY: &Variable = &VARIABLES[4];
const LOG: &Variable = &VARIABLES[5];
const LOG_FILE: &Variable = &VARIABLES[6];
const CHILDREN: &Variable = &VARIABLES[7];

/// `SOPIN_PRIVATE_LIMIT` unless it is set.
const DEFAULT_PRIVATE_LIMIT: u64 = 256 << 20;

/// A value that was not understood.
pub struct Complaint<'a> {
    variable: &'a Variable,
    value: &'a [u8],
    consequence: &'a str,
}

impl fmt::Display for Complaint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { variable, value, consequence } = self;
        let name = variable.name.to_str().unwrap_or_default();
        write!(f, "{name}: \"{}\" is not understood; accepted: {}; {consequence}", Text(value), variable.accepted)
    }
}

/// The values in force.
pub struct Settings {
    /// `SOPIN_MODE`
    pub mode: Mode,
    /// `SOPIN_LOG`
    pub level: Level,
    /// `SOPIN_CHILDREN`
    pub children: Children,
    /// `SOPIN_STORE`: the directories in which the store may be; `None` if it is off.
    pub store: Option<SearchDirs>,
    /// `SOPIN_PRIVATE_LIMIT`, in bytes.
    pub private_limit: u64,
    exclude: PageVec<u8>,
    only: PageVec<u8>,
    /// With its terminating NUL; empty if unset.
    log_file: PageVec<u8>,
}

impl Settings {
    /// Returns the defaults.
    pub const fn new() -> Self {
        Self::with_limit(DEFAULT_PRIVATE_LIMIT)
    }

    /// Returns the settings in force before any were read, with which nothing is pinned. All their bytes
    /// are zero, so a static has no page in the library's file that would have to be copied.
    pub const fn unread() -> Self {
        Self::with_limit(0)
    }

    const fn with_limit(private_limit: u64) -> Self {
        Self {
            mode: Mode::Full,
            level: Level::Error,
            children: Children::Keep,
            store: Some(SearchDirs::new()),
            private_limit,
            exclude: PageVec::new(),
            only: PageVec::new(),
            log_file: PageVec::new(),
        }
    }

    /// Reads all variables through `get`. An unset or empty variable is the
    /// default. Fails only for lack of memory.
    pub fn read<'a>(
        get: impl Fn(&'static core::ffi::CStr) -> Option<&'a [u8]>,
        mut complain: impl FnMut(&Complaint<'_>),
    ) -> Result<Self> {
        let mut settings = Self::new();
        let value = |variable: &Variable| get(variable.name).filter(|value| !value.is_empty());
        let mut parse = Parser { value: &value, complain: &mut complain };
        parse.set(&mut settings.level, LOG, "using error", level);
        parse.set(&mut settings.mode, MODE, "using full", mode);
        parse.set(&mut settings.children, CHILDREN, "using keep", children);
        settings.store = if value(STORE) == Some(b"off") {
            None
        } else {
            let mut dirs = SearchDirs::read(&get)?;
            if let Some(path) = parse.absolute(STORE, "using the default") {
                dirs.set_explicit(path)?;
            }
            Some(dirs)
        };
        parse.set(&mut settings.private_limit, PRIVATE_LIMIT, "using 256M", bytes);
        if let Some(path) = parse.absolute(LOG_FILE, "using stderr") {
            settings.log_file.extend(path)?;
            settings.log_file.push(0)?;
        }
        parse.globs(EXCLUDE, &mut settings.exclude)?;
        parse.globs(ONLY, &mut settings.only)?;
        Ok(settings)
    }

    /// Returns whether an object of this path is to be pinned.
    pub fn selects(&self, path: &[u8]) -> bool {
        !crate::glob::matches_any(&self.exclude, path)
            && (self.only.is_empty() || crate::glob::matches_any(&self.only, path))
    }

    /// Returns the path in `SOPIN_LOG_FILE`.
    pub fn log_file(&self) -> Option<&core::ffi::CStr> {
        core::ffi::CStr::from_bytes_with_nul(&self.log_file).ok()
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::new()
    }
}

/// Parses the values of variables, and complains about those that it does not understand.
struct Parser<'a, Value, Complain> {
    /// Returns the value of a variable, if it is set and not empty.
    value: &'a Value,
    complain: &'a mut Complain,
}

impl<'v, Value: Fn(&Variable) -> Option<&'v [u8]>, Complain: FnMut(&Complaint<'_>)> Parser<'_, Value, Complain> {
    /// Returns the value if it is set and `parse` understands it.
    fn parsed<T>(
        &mut self,
        variable: &Variable,
        consequence: &str,
        parse: impl Fn(&'v [u8]) -> Option<T>,
    ) -> Option<T> {
        let value = (self.value)(variable)?;
        let parsed = parse(value);
        if parsed.is_none() {
            (self.complain)(&Complaint { variable, value, consequence });
        }
        parsed
    }

    /// Sets `setting` to the value if it is set and `parse` understands it.
    fn set<T>(&mut self, setting: &mut T, variable: &Variable, consequence: &str, parse: fn(&[u8]) -> Option<T>) {
        if let Some(parsed) = self.parsed(variable, consequence, parse) {
            *setting = parsed;
        }
    }

    /// Returns the value if it is an absolute path.
    fn absolute(&mut self, variable: &Variable, consequence: &str) -> Option<&'v [u8]> {
        self.parsed(variable, consequence, |path| path.starts_with(b"/").then_some(path))
    }

    /// Appends the globs of a list to `globs`, each followed by a colon. A list stays in force
    /// without those that are not understood: without the whole list the library would pin
    /// objects that the user has excluded.
    fn globs(&mut self, variable: &Variable, globs: &mut PageVec<u8>) -> Result<()> {
        let list = (self.value)(variable).unwrap_or_default();
        for glob in list.split(|byte| *byte == b':').filter(|glob| !glob.is_empty()) {
            if glob.first().is_some_and(|first| b"/*?".contains(first)) {
                globs.extend(glob)?;
                globs.push(b':')?;
            } else {
                (self.complain)(&Complaint { variable, value: glob, consequence: "ignoring it" });
            }
        }
        Ok(())
    }
}

fn mode(value: &[u8]) -> Option<Mode> {
    Some(match value {
        b"full" => Mode::Full,
        b"relocated" => Mode::Relocated,
        b"off" => Mode::Off,
        _ => return None,
    })
}

fn children(value: &[u8]) -> Option<Children> {
    Some(match value {
        b"keep" => Children::Keep,
        b"drop" => Children::Drop,
        _ => return None,
    })
}

fn level(value: &[u8]) -> Option<Level> {
    Some(match value {
        b"off" => Level::Off,
        b"error" => Level::Error,
        b"warn" => Level::Warn,
        b"info" => Level::Info,
        b"debug" => Level::Debug,
        _ => return None,
    })
}

/// Parses a number of bytes: decimal digits, and a factor of 1024, 1024² or 1024³.
fn bytes(value: &[u8]) -> Option<u64> {
    let (digits, shift) = match value.split_last()? {
        (b'K', digits) => (digits, 10),
        (b'M', digits) => (digits, 20),
        (b'G', digits) => (digits, 30),
        _ => (value, 0),
    };
    // `parse` would accept a sign.
    digits.first().filter(|byte| byte.is_ascii_digit())?;
    core::str::from_utf8(digits).ok()?.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::{String, ToString};
    use std::vec::Vec;

    fn read(environment: &[(&str, &'static str)]) -> (Settings, Vec<String>) {
        let mut complaints = Vec::new();
        let settings = Settings::read(
            |name| environment.iter().find(|(known, _)| name.to_str() == Ok(*known)).map(|(_, value)| value.as_bytes()),
            |complaint| complaints.push(complaint.to_string()),
        );
        (settings.unwrap(), complaints)
    }

    #[test]
    fn an_empty_environment_gives_the_defaults_of_the_table() {
        let defaults: Vec<_> = VARIABLES.iter().map(|row| (row.name.to_str().unwrap(), row.default)).collect();
        for environment in [&[][..], &defaults] {
            let (settings, complaints) = read(environment);
            assert_eq!((settings.mode, settings.level, settings.children), (Mode::Full, Level::Error, Children::Keep));
            assert_eq!(settings.private_limit, DEFAULT_PRIVATE_LIMIT);
            assert_eq!(settings.log_file(), None);
            assert!(settings.selects(b"/usr/lib/libc.so.6"));
            assert_eq!(complaints, [""; 0]);
        }
    }

    #[test]
    fn every_word_of_the_table_is_accepted() {
        for variable in [MODE, LOG, CHILDREN] {
            for word in variable.accepted.split(", ") {
                assert_eq!(read(&[(variable.name.to_str().unwrap(), word)]).1, [""; 0], "{word}");
            }
        }
    }

    #[test]
    fn a_wrong_value_is_named_with_what_is_accepted() {
        let (settings, complaints) = read(&[("SOPIN_MODE", "fulll"), ("SOPIN_LOG", "INFO"), ("SOPIN_LOG_FILE", "x")]);
        assert_eq!((settings.mode, settings.level), (Mode::Full, Level::Error));
        assert_eq!(
            complaints,
            [
                "SOPIN_LOG: \"INFO\" is not understood; accepted: off, error, warn, info, debug; using error",
                "SOPIN_MODE: \"fulll\" is not understood; accepted: full, relocated, off; using full",
                "SOPIN_LOG_FILE: \"x\" is not understood; accepted: an absolute path; using stderr",
            ]
        );
    }

    #[test]
    fn the_readme_has_this_table() {
        let readme = include_str!("../../../README.md");
        for Variable { name, accepted, default, meaning } in &VARIABLES {
            let name = name.to_str().unwrap();
            let default = if default.is_empty() { "" } else { &std::format!("`{default}`") };
            let row = std::format!("| `{name}` | {accepted} | {default} | {meaning} |\n");
            assert!(readme.contains(&row), "README.md needs this row:\n{row}");
        }
        let mentioned = readme.match_indices("| `SOPIN_").count();
        assert_eq!(mentioned, VARIABLES.len(), "README.md has rows for variables that do not exist");
    }

    #[test]
    fn the_store_can_be_turned_off() {
        assert!(read(&[("SOPIN_STORE", "off")]).0.store.is_none());
        let (settings, complaints) = read(&[("SOPIN_STORE", "cache")]);
        assert!(settings.store.is_some());
        assert!(complaints[0].starts_with("SOPIN_STORE: \"cache\" is not understood; accepted: an absolute path"));
    }

    #[test]
    fn a_limit_is_a_number_with_a_suffix() {
        let limit = |value| read(&[("SOPIN_PRIVATE_LIMIT", value)]).0.private_limit;
        assert_eq!([limit("0"), limit("7"), limit("2K"), limit("1M"), limit("3G")], [0, 7, 2 << 10, 1 << 20, 3 << 30]);
        for wrong in ["K", "-1", "+1", "1k", "1KB", "1.5G", " 1", "99999999999999999999", "99999999999999G"] {
            let (settings, complaints) = read(&[("SOPIN_PRIVATE_LIMIT", wrong)]);
            assert_eq!((settings.private_limit, complaints.len()), (DEFAULT_PRIVATE_LIMIT, 1), "{wrong}");
        }
    }

    #[test]
    fn exclude_beats_only() {
        let (settings, complaints) = read(&[("SOPIN_EXCLUDE", "*/b.so"), ("SOPIN_ONLY", "/x/*:/y/*")]);
        assert_eq!(complaints, [""; 0]);
        assert!(settings.selects(b"/x/a.so") && settings.selects(b"/y/z/a.so"));
        assert!(!settings.selects(b"/x/b.so") && !settings.selects(b"/z/a.so"));
    }

    #[test]
    fn a_wrong_pattern_is_ignored_and_the_others_stay() {
        let (settings, complaints) = read(&[("SOPIN_EXCLUDE", "libfoo.so:*/libbar.so")]);
        assert!(!settings.selects(b"/x/libbar.so") && settings.selects(b"/x/libfoo.so"));
        assert_eq!(complaints.len(), 1);
        assert!(complaints[0].contains("\"libfoo.so\" is not understood") && complaints[0].ends_with("ignoring it"));
    }
}

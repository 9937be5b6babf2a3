//! The settings of `sopin pin`: options first, then the `SOPIN_*` variables of the command's own
//! environment.

use std::env;
use std::ffi::{CStr, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use sopin_core::settings::Settings;

use crate::exit::{Exit, Failure};
use crate::output;
use crate::settings::value_of;

/// The options; each overrides the variable that it names.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct SettingOptions {
    /// What to pin (SOPIN_MODE)
    #[arg(long, value_name = "MODE", value_parser = value_of(c"SOPIN_MODE"))]
    mode: Option<OsString>,

    /// Where the copies shared by processes live: an absolute path, or off (SOPIN_STORE)
    #[arg(long, value_name = "DIR", value_parser = value_of(c"SOPIN_STORE"), value_hint = clap::ValueHint::DirPath)]
    store: Option<OsString>,

    /// How much private memory a process may hold for copies where no store can be used, for
    /// example 64M; 0: none (SOPIN_PRIVATE_LIMIT)
    #[arg(long, value_name = "BYTES", value_parser = value_of(c"SOPIN_PRIVATE_LIMIT"))]
    private_limit: Option<OsString>,

    /// Objects to leave alone: colon-separated globs over absolute paths (SOPIN_EXCLUDE)
    #[arg(long, value_name = "GLOBS", value_parser = value_of(c"SOPIN_EXCLUDE"))]
    exclude: Option<OsString>,

    /// The only objects to pin: colon-separated globs over absolute paths (SOPIN_ONLY)
    #[arg(long, value_name = "GLOBS", value_parser = value_of(c"SOPIN_ONLY"))]
    only: Option<OsString>,
}

impl SettingOptions {
    /// Reads the settings. The default is used for a variable with a value that is not understood,
    /// as in the library, and `warns` decides whether there is a warning.
    ///
    /// # Errors
    /// 3 when memory is lacking.
    pub fn read(&self, warns: bool) -> Result<Settings, Failure> {
        self.read_with(&env::vars_os().collect::<Vec<_>>(), |name, reason| {
            if warns {
                output::warn(name, reason);
            }
        })
    }

    fn variables(&self) -> [(&'static CStr, Option<&OsString>); 5] {
        [
            (c"SOPIN_MODE", self.mode.as_ref()),
            (c"SOPIN_STORE", self.store.as_ref()),
            (c"SOPIN_PRIVATE_LIMIT", self.private_limit.as_ref()),
            (c"SOPIN_EXCLUDE", self.exclude.as_ref()),
            (c"SOPIN_ONLY", self.only.as_ref()),
        ]
    }

    fn read_with(
        &self,
        environment: &[(OsString, OsString)],
        mut warn: impl FnMut(&str, &str),
    ) -> Result<Settings, Failure> {
        let variables = self.variables();
        let get = |name: &'static CStr| {
            let option = variables.iter().find(|(known, _)| *known == name).and_then(|(_, value)| *value);
            let inherited = || {
                let found = environment.iter().find(|(known, _)| known.as_bytes() == name.to_bytes());
                found.map(|(_, value)| value)
            };
            option.or_else(inherited).map(|value| OsStr::as_bytes(value))
        };
        let settings = Settings::read(get, |complaint| {
            // The others concern programs under the library.
            let text = complaint.to_string();
            let (name, reason) = text.split_once(": ").unwrap_or((&text, ""));
            if variables.iter().any(|(known, _)| known.to_bytes() == name.as_bytes()) {
                warn(name, reason);
            }
        });
        settings.map_err(|errno| Failure::new(Exit::Uninspected, "settings", format_args!("out of memory ({errno:?})")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sopin_core::mode::Mode;

    fn environment() -> Vec<(OsString, OsString)> {
        let variables = [
            ("SOPIN_MODE", "relocated"),
            ("SOPIN_STORE", "off"),
            ("SOPIN_PRIVATE_LIMIT", "much"),
            ("SOPIN_EXCLUDE", "*/liba.so"),
            ("SOPIN_LOG", "loud"),
        ];
        variables.map(|(name, value)| (name.into(), value.into())).into()
    }

    #[test]
    fn variables_apply_unless_an_option_is_given() {
        let mut warnings = Vec::new();
        let warn = |name: &str, reason: &str| warnings.push(format!("{name}: {reason}"));
        let settings = SettingOptions::default().read_with(&environment(), warn).ok().unwrap();
        assert!(settings.mode == Mode::Relocated && settings.store.is_none());
        assert!(!settings.selects(b"/lib/liba.so") && settings.selects(b"/lib/libb.so"));
        assert_eq!(settings.private_limit, 256 << 20);
        assert_eq!(warnings.len(), 1, "SOPIN_LOG does not concern this command: {warnings:?}");
        assert!(warnings[0].starts_with("SOPIN_PRIVATE_LIMIT: \"much\" is not understood"), "{warnings:?}");

        let options = SettingOptions {
            mode: Some("full".into()),
            store: Some("/var/cache/other".into()),
            private_limit: Some("1M".into()),
            exclude: Some("*/libb.so".into()),
            only: Some("/lib/*".into()),
        };
        let unexpected = |name: &str, reason: &str| panic!("{name}: {reason}");
        let settings = options.read_with(&environment(), unexpected).ok().unwrap();
        assert!(settings.mode == Mode::Full && settings.store.is_some());
        assert_eq!(settings.private_limit, 1 << 20);
        assert!(settings.selects(b"/lib/liba.so") && !settings.selects(b"/lib/libb.so"));
        assert!(!settings.selects(b"/usr/lib/libc.so"));
    }
}

//! Values of `SOPIN_*` variables that are given as options. The library's own parser checks
//! them, so that command and library accept the same values.

use std::ffi::{CStr, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use clap::builder::{PossibleValue, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use sopin_core::settings::{Settings, VARIABLES, Variable};

/// The parser of one variable.
#[derive(Clone, Copy)]
pub struct ValueOf(&'static Variable);

/// Returns the parser of the variable of this name.
///
/// # Panics
/// When the library has no such variable; then every call of the command would panic.
pub fn value_of(name: &CStr) -> ValueOf {
    ValueOf(VARIABLES.iter().find(|variable| variable.name == name).expect("a variable of the table"))
}

impl TypedValueParser for ValueOf {
    type Value = OsString;

    fn parse_ref(
        &self,
        command: &clap::Command,
        option: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<OsString, clap::Error> {
        if is_accepted(self.0, value) {
            return Ok(value.to_owned());
        }
        let mut error = clap::Error::new(ErrorKind::InvalidValue).with_cmd(command);
        if let Some(option) = option {
            error.insert(ContextKind::InvalidArg, ContextValue::String(option.to_string()));
        }
        error.insert(ContextKind::InvalidValue, ContextValue::String(value.to_string_lossy().into_owned()));
        error.insert(ContextKind::ValidValue, ContextValue::Strings(words(self.0).map(str::to_owned).collect()));
        Err(error)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        // Only variables for which the table lists nothing but words have possible values.
        words(self.0).all(|word| !word.contains(' ')).then(|| Box::new(words(self.0).map(PossibleValue::new)) as _)
    }
}

fn words(variable: &'static Variable) -> impl Iterator<Item = &'static str> {
    variable.accepted.split(", ")
}

/// Returns whether the library accepts this value. To the library an empty value means "unset",
/// which is no use as an option.
fn is_accepted(variable: &Variable, value: &OsStr) -> bool {
    let mut understood = !value.is_empty();
    let read = Settings::read(|name| (name == variable.name).then(|| value.as_bytes()), |_| understood = false);
    read.is_ok() && understood
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_table_are_accepted_and_others_are_not() {
        for name in [c"SOPIN_MODE", c"SOPIN_LOG", c"SOPIN_CHILDREN"] {
            let variable = value_of(name).0;
            assert!(words(variable).all(|word| is_accepted(variable, OsStr::new(word))));
            for wrong in ["", "fulll", "FULL", "full,off", " full"] {
                assert!(!is_accepted(variable, OsStr::new(wrong)), "{wrong:?}");
            }
        }
        let store = value_of(c"SOPIN_STORE").0;
        assert!(is_accepted(store, OsStr::new("off")) && is_accepted(store, OsStr::new("/var/cache/x")));
        assert!(!is_accepted(store, OsStr::new("cache")) && !is_accepted(store, OsStr::new("")));
    }
}

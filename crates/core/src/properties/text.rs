use std::borrow::ToOwned;
use std::ffi::CString;
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use proptest::collection::vec;
use proptest::prelude::*;

use super::trials;
use crate::glob;
use crate::line::{Line, Text};
use crate::mode::Mode;
use crate::object::file_name;
use crate::preload_list::{self, Remainder};
use crate::settings::{Children, Level, Settings, VARIABLES};

/// Patterns and texts in which the special characters of `fnmatch(3)` are frequent.
fn pattern() -> impl Strategy<Value = String> {
    "[a-c/*?\\[\\]!^\\\\-]{0,10}"
}

fn matches_in_c(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (CString::new(pattern).unwrap(), CString::new(text).unwrap());
    // SAFETY: two valid C strings.
    unsafe { libc::fnmatch(pattern.as_ptr(), text.as_ptr(), 0) == 0 }
}

/// Values of a variable: words that are accepted, nearly accepted, or nothing like it.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        "full|relocated|off|error|warn|info|debug|keep|drop",
        "(/|\\*|\\?|x)[a-c/*?]{0,6}(:(/|\\*|\\?|x)?[a-c/*?]{0,6}){0,3}",
        "[^\\x00]{0,20}",
    ]
}

proptest! {
    #![proptest_config(trials())]

    #[test]
    #[cfg_attr(miri, ignore = "calls fnmatch(3)")]
    fn globs_agree_with_fnmatch(pattern in pattern(), text in "[a-c/*?\\[\\]!^\\\\-]{0,8}") {
        prop_assert_eq!(glob::matches(pattern.as_bytes(), text.as_bytes()), matches_in_c(&pattern, &text));
    }

    #[test]
    fn a_glob_made_from_a_text_matches_it(text in "[a-c/]{1,12}", stars in vec(any::<prop::sample::Index>(), 0..4)) {
        let mut pattern = text.clone();
        for star in stars {
            let at = star.index(pattern.len());
            if pattern.as_bytes()[at] != b'*' {
                pattern.replace_range(at..=at, "*");
            }
        }
        prop_assert!(glob::matches(pattern.as_bytes(), text.as_bytes()), "{} on {}", pattern, text);
    }

    #[test]
    fn any_pattern_can_be_matched(pattern in vec(any::<u8>(), 0..40), text in vec(any::<u8>(), 0..60)) {
        let _ = glob::matches(&pattern, &text);
        prop_assert_eq!(glob::matches_any(b"*", &text), true);
    }

    #[test]
    fn any_environment_gives_settings(values in vec(prop::option::of(value()), VARIABLES.len()), path in "/[a-c/]{0,8}") {
        let get = |name: &core::ffi::CStr| {
            let index = VARIABLES.iter().position(|variable| variable.name == name)?;
            values[index].as_deref().map(str::as_bytes)
        };
        let mut complaints = Vec::new();
        let settings = Settings::read(get, |complaint| complaints.push(complaint.to_string())).unwrap();
        let raw = |name: &str| {
            let index = VARIABLES.iter().position(|variable| variable.name.to_str() == Ok(name)).unwrap();
            values[index].as_deref().unwrap_or_default()
        };
        let mut expected_complaints = 0;
        let mut word = |name: &str, accepted: &[&str]| {
            let value = raw(name).to_owned();
            let is_known = value.is_empty() || accepted.contains(&value.as_str());
            expected_complaints += usize::from(!is_known);
            if is_known { value } else { String::new() }
        };
        let mode = match word("SOPIN_MODE", &["full", "relocated", "off"]).as_str() {
            "relocated" => Mode::Relocated,
            "off" => Mode::Off,
            _ => Mode::Full,
        };
        let level = match word("SOPIN_LOG", &["off", "error", "warn", "info", "debug"]).as_str() {
            "off" => Level::Off,
            "warn" => Level::Warn,
            "info" => Level::Info,
            "debug" => Level::Debug,
            _ => Level::Error,
        };
        let children = match word("SOPIN_CHILDREN", &["keep", "drop"]).as_str() {
            "drop" => Children::Drop,
            _ => Children::Keep,
        };
        prop_assert_eq!((settings.mode, settings.level, settings.children), (mode, level, children));
        prop_assert_eq!(settings.store.is_none(), raw("SOPIN_STORE") == "off");
        for name in ["SOPIN_STORE", "SOPIN_LOG_FILE"] {
            let is_wrong = !raw(name).is_empty() && !raw(name).starts_with('/') && (name, raw(name)) != ("SOPIN_STORE", "off");
            expected_complaints += usize::from(is_wrong);
        }
        let limit = raw("SOPIN_PRIVATE_LIMIT");
        // Digits alone among the values that are tried.
        let is_number = limit.bytes().all(|byte| byte.is_ascii_digit()) && limit.len() < 19;
        expected_complaints += usize::from(!is_number);
        prop_assert_eq!(settings.private_limit, if is_number && !limit.is_empty() { limit.parse().unwrap() } else { 256 << 20 });
        let log_file = raw("SOPIN_LOG_FILE");
        prop_assert_eq!(settings.log_file().map(core::ffi::CStr::to_bytes), log_file.starts_with('/').then_some(log_file.as_bytes()));

        let mut lists = ["SOPIN_EXCLUDE", "SOPIN_ONLY"].map(|name| {
            let (good, bad): (Vec<_>, Vec<_>) =
                raw(name).split(':').filter(|pattern| !pattern.is_empty()).partition(|pattern| pattern.starts_with(['/', '*', '?']));
            expected_complaints += bad.len();
            good
        });
        prop_assert_eq!(complaints.len(), expected_complaints, "{:?}", complaints);
        let [exclude, only] = &mut lists;
        let matches = |list: &[&str]| list.iter().any(|pattern| glob::matches(pattern.as_bytes(), path.as_bytes()));
        prop_assert_eq!(settings.selects(path.as_bytes()), !matches(exclude) && (only.is_empty() || matches(only)));
    }

    #[test]
    fn others_stay_on_the_preload_list(list in "([ :]|libsopin\\.so|/a/libsopin\\.so|[ab/.]{1,4}){0,8}") {
        let entries = |list: &str| -> Vec<String> {
            let all = list.split([' ', ':']).filter(|entry| !entry.is_empty());
            all.map(str::to_owned).collect()
        };
        let is_ours = |entry: &String| file_name(entry.as_bytes()) == b"libsopin.so";
        let others: Vec<_> = entries(&list).into_iter().filter(|entry| !is_ours(entry)).collect();
        let mut bytes = list.clone().into_bytes();
        match preload_list::remove(&mut bytes, b"libsopin.so") {
            Remainder::Unchanged => {
                prop_assert_eq!(&bytes, list.as_bytes());
                prop_assert!(!entries(&list).iter().any(is_ours));
            }
            Remainder::Bytes(len) => {
                prop_assert!(entries(&list).iter().any(is_ours));
                prop_assert_eq!(String::from_utf8_lossy(&bytes[..len]), others.join(":"));
            }
            Remainder::Nothing => prop_assert!(others.is_empty() && !list.is_empty()),
        }
    }

    #[test]
    fn a_line_is_one_line(parts in vec(any::<String>(), 0..6)) {
        let mut line = Line::<64>::new();
        let mut whole = String::new();
        for part in &parts {
            let _ = core::fmt::Write::write_str(&mut line, part);
            whole.extend(part.chars().map(|character| if character.is_control() { '?' } else { character }));
        }
        let finished = core::str::from_utf8(line.finish()).unwrap();
        prop_assert!(finished.len() <= 64);
        let text = finished.strip_suffix('\n').unwrap();
        prop_assert!(!text.contains('\n'));
        if whole.len() < 64 {
            prop_assert_eq!(text, whole);
        } else {
            let kept = text.strip_suffix("...").unwrap();
            // As much as there is room for, but for a character that would be cut.
            prop_assert!(whole.starts_with(kept) && kept.len() > 60 - 4, "{:?} of {:?}", text, whole);
        }
    }

    #[test]
    fn bytes_are_shown_and_told_apart(bytes in vec(any::<u8>(), 0..40)) {
        let shown = format!("{}", Text(&bytes));
        match core::str::from_utf8(&bytes) {
            Ok(text) => prop_assert_eq!(shown, text),
            Err(_) => prop_assert!(shown.contains("\\x") && shown.len() > bytes.len()),
        }
    }
}

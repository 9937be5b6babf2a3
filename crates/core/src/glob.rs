//! The patterns of `SOPIN_EXCLUDE` and `SOPIN_ONLY`.
//!
//! `fnmatch(3)` without flags, in bytes: `*` any run of bytes, `/` included; `?` one byte;
//! `[a-z]`, `[!a-z]` or `[^a-z]` one byte of a set, without classes such as `[:alpha:]`; `\`
//! makes the next byte match itself, in a set too. The C library's function depends on the
//! locale and may allocate, so the library does not call it.

/// Returns whether the whole of `text` matches `pattern`.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    // Where to go on after a mismatch: behind the last `*`, one byte further.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', rest @ ..] = pattern {
            retry = Some((rest, text));
            pattern = rest;
            continue;
        }
        if pattern.is_empty() && text.is_empty() {
            return true;
        }
        if let (Some(rest), [_, text_rest @ ..]) = (match_one(pattern, text), text) {
            (pattern, text) = (rest, text_rest);
            continue;
        }
        match retry {
            Some((rest, [_, shorter @ ..])) => {
                retry = Some((rest, shorter));
                (pattern, text) = (rest, shorter);
            }
            _ => return false,
        }
    }
}

/// Returns whether any pattern of the colon-separated `list` matches; empty patterns
/// match nothing.
pub fn matches_any(list: &[u8], text: &[u8]) -> bool {
    list.split(|byte| *byte == b':').any(|pattern| !pattern.is_empty() && matches(pattern, text))
}

/// Returns the rest of `pattern` if its first element matches the first byte of `text`.
fn match_one<'a>(pattern: &'a [u8], text: &[u8]) -> Option<&'a [u8]> {
    let byte = *text.first()?;
    match pattern {
        [b'?', rest @ ..] => Some(rest),
        [b'[', rest @ ..] => match match_set(rest, byte) {
            Some((true, rest)) => Some(rest),
            Some((false, _)) => None,
            // A set without an end is an ordinary bracket, as in fnmatch.
            None => (byte == b'[').then_some(rest),
        },
        // A backslash at the end matches nothing, as in glibc.
        [b'\\'] | [] => None,
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] => (byte == *literal).then_some(rest),
    }
}

/// Matches `byte` against the set whose text begins after `[`. Returns the result and the
/// pattern after `]`, or `None` if the set has no end.
fn match_set(set: &[u8], byte: u8) -> Option<(bool, &[u8])> {
    let (negated, mut set) = match set {
        [b'!' | b'^', rest @ ..] => (true, rest),
        _ => (false, set),
    };
    let mut found = false;
    let mut first = true;
    loop {
        if let ([b']', rest @ ..], false) = (set, first) {
            return Some((found != negated, rest));
        }
        let (low, rest) = literal(set)?;
        let (high, rest) = match rest {
            [b'-', end @ ..] if end.first().is_some_and(|byte| *byte != b']') => literal(end)?,
            _ => (low, rest),
        };
        found |= (low..=high).contains(&byte);
        set = rest;
        first = false;
    }
}

/// Returns the first byte of a set, or the one behind a backslash, and the rest.
fn literal(set: &[u8]) -> Option<(u8, &[u8])> {
    match set {
        [b'\\'] | [] => None,
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] => Some((*literal, rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "calls fnmatch(3)")]
    fn agrees_with_fnmatch() {
        let patterns: &[&str] = &[
            "",
            "*",
            "?",
            "/a/*.so",
            "*/b/*",
            "*numpy*",
            "/a/b.so",
            "/[ab]/?.so",
            "/[!a]/x.so",
            "[",
            "[a",
            "/[]]",
            "**",
            "*a*b*c",
            "\\*",
            "/[a-c]?*",
            "a\\",
            "[^a]*",
            "[]-a]",
            "[/-^\\]",
            "[\\]]",
            "[a-\\]]",
        ];
        let texts: &[&str] = &[
            "",
            "/",
            "*",
            "[",
            "]",
            "/]",
            "/a/x.so",
            "/b/x.so",
            "/a/b.so",
            "/a/b/c.so",
            "/x/numpy/core.so",
            "abc",
            "aXbXc",
            "aXbX",
            "[a",
            "/c1",
            "a\\",
            "^",
        ];
        for pattern in patterns {
            for text in texts {
                let c_pattern = std::ffi::CString::new(*pattern).unwrap();
                let c_text = std::ffi::CString::new(*text).unwrap();
                // SAFETY: two valid C strings.
                let theirs = unsafe { libc::fnmatch(c_pattern.as_ptr(), c_text.as_ptr(), 0) } == 0;
                assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), theirs, "{pattern:?} on {text:?}");
            }
        }
    }

    #[test]
    fn a_list_matches_if_one_pattern_does() {
        assert!(matches_any(b"/x/*:*/libfoo.so*", b"/usr/lib/libfoo.so.1"));
        assert!(!matches_any(b"::", b""));
        assert!(!matches_any(b"", b""));
    }
}

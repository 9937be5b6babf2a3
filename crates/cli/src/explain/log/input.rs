//! The lines of a log: text, or the JSON of `journalctl -o json`. A line can have any length and any
//! bytes; a part of bounded length is kept. This module does not know what the lines say.

use std::fmt::Write as _;
use std::io::{self, BufRead};
use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;

/// The part of a line that is kept, in bytes. An entry of the journal has some kilobytes.
const MOST_LINE: usize = 64 << 10;

/// Calls a function with each line.
///
/// # Errors
/// Those of reading.
pub fn each(mut reader: impl BufRead, call: &mut impl FnMut(&str)) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        let available = match reader.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let end = available.iter().position(|byte| *byte == b'\n');
        let part = available.get(..end.unwrap_or(available.len())).unwrap_or_default();
        let room = MOST_LINE - line.len().min(MOST_LINE);
        line.extend_from_slice(part.get(..part.len().min(room)).unwrap_or_default());
        let (used, is_last) = (end.map_or(available.len(), |end| end + 1), available.is_empty());
        reader.consume(used);
        if end.is_some() || (is_last && !line.is_empty()) {
            let text = String::from_utf8_lossy(&line);
            match unwrapped(&text) {
                Some(text) => call(&text),
                None => call(&text),
            }
            line.clear();
        }
        if is_last {
            return Ok(());
        }
    }
}

/// Returns an entry of `journalctl -o json` as `journalctl -o short-iso` would show it; `None` for
/// another line.
fn unwrapped(line: &str) -> Option<String> {
    if !line.trim_start().starts_with('{') {
        return None;
    }
    let entry: Value = serde_json::from_str(line).ok()?;
    let text = |name: &str| match entry.get(name) {
        Some(Value::String(text)) => Some(text.clone()),
        // The journal's way to print what is not UTF-8.
        Some(Value::Array(bytes)) => {
            let bytes: Option<Vec<u8>> = bytes.iter().map(|byte| u8::try_from(byte.as_u64()?).ok()).collect();
            Some(String::from_utf8_lossy(&bytes?).into_owned())
        }
        _ => None,
    };
    let message = text("MESSAGE")?;
    let mut line = String::new();
    if let Some(time) = text("__REALTIME_TIMESTAMP").and_then(|time| time.parse().ok()) {
        let time = UNIX_EPOCH.checked_add(Duration::from_micros(time))?;
        let _ = write!(line, "{} ", humantime::format_rfc3339_seconds(time));
    }
    let identifier = text("SYSLOG_IDENTIFIER").unwrap_or_else(|| "kernel".to_owned());
    let _ = write!(line, "{} {identifier}: {message}", text("_HOSTNAME").unwrap_or_default());
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        // A small buffer, so that lines cross its end.
        each(io::BufReader::with_capacity(7, bytes), &mut |line: &str| lines.push(line.to_owned())).unwrap();
        lines
    }

    #[test]
    fn lines_of_any_length_are_read() {
        assert_eq!(lines(b"one\n\ntwo and a half\nlast"), ["one", "", "two and a half", "last"]);
        assert_eq!(lines(b""), Vec::<String>::new());
        let mut long = vec![b'x'; 10 << 20];
        long.extend(b"\nnext\n\xff\n");
        let found = lines(&long);
        assert_eq!((found[0].len(), &found[1..]), (MOST_LINE, &["next".to_owned(), "\u{fffd}".to_owned()][..]));
    }

    #[test]
    fn entries_of_the_journal_become_lines() {
        let entry = r#"{"MESSAGE":"a[1]: segfault at 0","SYSLOG_IDENTIFIER":"kernel","_HOSTNAME":"host","__REALTIME_TIMESTAMP":"1795826674766913"}"#;
        assert_eq!(lines(entry.as_bytes()), ["2026-11-28T00:44:34Z host kernel: a[1]: segfault at 0"]);
        assert_eq!(lines(br#"{"MESSAGE":[97,98]}"#), [" kernel: ab"]);
        for other in ["{", r#"{"MESSAGE":7}"#, "{not json}"] {
            assert_eq!(lines(other.as_bytes()), [other]);
        }
    }
}

//! The lines that differ, and those that are expected to.

use std::collections::HashSet;

/// A line that the program prints with the library and not without, or vice versa.
pub struct Expected {
    program: &'static str,
    mode: &'static str,
    /// `+` or `-`, and the line.
    line: &'static str,
    #[allow(dead_code, reason = "for people: every difference has one")]
    reason: &'static str,
}

/// The known differences. Each of them must occur.
pub const EXPECTED: &[Expected] = &[];

/// Returns the differences between two runs that are not expected, and the expected
/// ones that do not occur.
pub fn unexpected(program: &str, mode: &str, without: &[String], with: &[String]) -> Vec<String> {
    // Some programs print tens of thousands of lines.
    let (all_without, all_with): (HashSet<_>, HashSet<_>) = (without.iter().collect(), with.iter().collect());
    let missing = without.iter().filter(|line| !all_with.contains(line)).map(|line| format!("-{line}"));
    let new = with.iter().filter(|line| !all_without.contains(line)).map(|line| format!("+{line}"));
    let mut found: Vec<String> = missing.chain(new).collect();
    if found.is_empty() && without != with {
        found.push("+the same lines in another order".to_owned());
    }
    let known = EXPECTED.iter().filter(|known| known.program == program && known.mode == mode);
    let (mut complaints, mut expected) = (Vec::new(), Vec::new());
    for known in known {
        if found.iter().any(|line| line == known.line) {
            expected.push(known.line);
        } else {
            complaints.push(format!("{mode}: expected to differ, and does not: {}", known.line));
        }
    }
    complaints
        .extend(found.iter().filter(|line| !expected.contains(&line.as_str())).map(|line| format!("{mode}: {line}")));
    complaints
}

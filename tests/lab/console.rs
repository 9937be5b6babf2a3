//! Reads what a machine has printed: lines `lab: KIND WORD NUMBER WORD NUMBER...`,
//! among the other lines of a console.

use std::collections::BTreeMap;

/// One line: numbers by the words before them.
#[derive(Debug)]
pub struct Report {
    numbers: BTreeMap<String, u64>,
}

impl Report {
    /// Returns the number after this word, or 0 if the machine has not printed it.
    pub fn number(&self, word: &str) -> u64 {
        self.numbers.get(word).copied().unwrap_or(0)
    }

    /// Returns whether the machine has printed a number after this word.
    pub fn has(&self, word: &str) -> bool {
        self.numbers.contains_key(word)
    }
}

/// Returns the complete lines of this kind, in order. If the machine was reset, its
/// last line may be incomplete and is left out.
pub fn reports(said: &str, kind: &str) -> Vec<Report> {
    let start = format!("lab: {kind} ");
    said.split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .filter_map(|line| line.strip_prefix(&start))
        .filter_map(|rest| {
            let words: Vec<_> = rest.split_whitespace().collect();
            let numbers = words.chunks(2).map(|pair| Some((pair.first()?.to_string(), pair.get(1)?.parse().ok()?)));
            Some(Report { numbers: numbers.collect::<Option<_>>()? })
        })
        .collect()
}

/// Returns the only complete line of this kind.
///
/// # Errors
/// If there is none, or a second one. The message contains all that the machine
/// printed.
pub fn report(said: &str, kind: &str) -> Result<Report, String> {
    let mut all = reports(said, kind);
    match (all.pop(), all.is_empty()) {
        (Some(only), true) => Ok(only),
        _ => Err(format!("not exactly one line `lab: {kind} ...`\n{said}")),
    }
}

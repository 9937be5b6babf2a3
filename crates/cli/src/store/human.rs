//! How sizes, ages and counts are written for people, and the table of a list.

use std::fmt;
use std::time::Duration;

use indicatif::{HumanBytes, HumanDuration};

use crate::output::HEADING;

/// Formats a number of bytes.
pub fn bytes(bytes: u64) -> String {
    HumanBytes(bytes).to_string()
}

/// Formats an age in the largest unit that fits.
pub fn age(seconds: i64) -> String {
    match u64::try_from(seconds) {
        Ok(seconds) if seconds >= 60 => HumanDuration(Duration::from_secs(seconds)).to_string(),
        _ => "just now".to_owned(),
    }
}

/// Formats a number with its noun: "1 entry", "2 entries".
pub fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// A table with a heading. The columns before the last are as wide as their contents; numbers
/// are aligned to the right.
pub struct Table<const N: usize> {
    /// Titles, and whether a column holds numbers.
    pub columns: [(&'static str, bool); N],
    /// Rows.
    pub rows: Vec<[String; N]>,
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.chain([self.columns[column].0.len()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..N).map(width).collect();
        let line = |row: [&str; N]| {
            let cells = row.iter().enumerate().map(|(column, cell)| match (column + 1 == N, self.columns[column].1) {
                (true, _) => (*cell).to_owned(),
                (_, true) => format!("{cell:>width$}", width = widths[column]),
                _ => format!("{cell:<width$}", width = widths[column]),
            });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        writeln!(f, "{HEADING}{}{HEADING:#}", line(self.columns.map(|(title, _)| title)))?;
        self.rows.iter().try_for_each(|row| writeln!(f, "{}", line(row.each_ref().map(String::as_str))))
    }
}

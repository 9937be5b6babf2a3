//! A table with a line for each process: columns of numbers, then the command, which is cut where
//! the terminal ends.

use std::fmt;

use anstyle::Style;
use console::truncate_str;
use sopin_inspect::object::ObjectState;

use crate::output::{BAD, DOUBTFUL, GOOD, HEADING, shown};

/// Least width of the column with the command.
const MIN_COMMAND: usize = 16;

/// A cell, with its style.
pub type Cell = (String, Style);

/// The layout of a table. The columns before the command are aligned to the right.
pub struct ProcessTable<const N: usize> {
    names: [&'static str; N],
    widths: [usize; N],
    /// Columns for the command; `None` if it is not cut.
    room: Option<usize>,
}

impl<const N: usize> ProcessTable<N> {
    /// Makes the layout for these rows, and a terminal of so many columns if there is one.
    pub fn new(names: [&'static str; N], rows: &[[Cell; N]], columns: Option<usize>) -> Self {
        let widths = std::array::from_fn(|column| {
            let cells = rows.iter().map(|row| row[column].0.len());
            cells.chain([names[column].len()]).max().unwrap_or(0)
        });
        let before: usize = widths.iter().map(|width| width + 1).sum();
        let room = columns.map(|columns| columns.saturating_sub(before).max(MIN_COMMAND));
        Self { names, widths, room }
    }

    /// Writes the heading.
    pub fn heading(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, width) in self.names.iter().zip(&self.widths) {
            write!(f, "{HEADING}{name:>width$}{HEADING:#} ")?;
        }
        writeln!(f, "{HEADING}COMMAND{HEADING:#}")
    }

    /// Writes the line of a process.
    pub fn row(&self, f: &mut fmt::Formatter<'_>, row: &[Cell; N], command: &str) -> fmt::Result {
        for ((text, style), width) in row.iter().zip(&self.widths) {
            write!(f, "{style}{text:>width$}{style:#} ")?;
        }
        writeln!(f, "{}", self.room.map_or(command.into(), |room| truncate_str(command, room, "…")))
    }
}

/// Returns the command of a process: its arguments, or its name if it has overwritten them.
pub fn command(name: &str, arguments: &[String]) -> String {
    if arguments.iter().all(String::is_empty) {
        return format!("[{}]", shown(name));
    }
    shown(arguments.join(" ").trim_end())
}

/// Returns the style of a state.
pub fn style_of(state: ObjectState) -> Style {
    match state {
        ObjectState::Damaged => BAD,
        ObjectState::Exposed => DOUBTFUL,
        ObjectState::Relocated => Style::new(),
        ObjectState::Full => GOOD,
    }
}

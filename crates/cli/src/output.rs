//! Prints for people: lines on stderr, and text on stdout. Styles are dropped where the stream
//! is no terminal, `NO_COLOR` is set or `TERM` is `dumb` (anstream decides, for each stream).

use std::fmt::Display;
use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressStyle};

/// The style of what is wrong.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// The style of what may be wrong.
pub const DOUBTFUL: Style = AnsiColor::Yellow.on_default().bold();
/// The style of what is right.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// The style of a table's heading.
pub const HEADING: Style = Style::new().bold();

/// Writes text, which may contain styles, to stdout.
///
/// # Errors
/// Those of the stream. When it is a closed pipe, `SIGPIPE` has ended the
/// process already unless that is ignored.
pub fn print(text: impl Display) -> io::Result<()> {
    let mut stdout = anstream::stdout().lock();
    write!(stdout, "{text}")?;
    stdout.flush()
}

/// Writes text, which may contain styles, to stderr.
pub fn print_error(text: impl Display) {
    // If stderr cannot be written to, there is no other way to report that.
    let _ = write!(anstream::stderr(), "{text}");
}

/// Returns the number of columns of stdout, if it is a terminal.
pub fn columns() -> Option<usize> {
    console::Term::stdout().size_checked().map(|(_, columns)| columns.into())
}

/// Makes a progress bar, which is drawn only where stderr is a terminal, and not without steps.
pub fn progress(steps: usize) -> ProgressBar {
    if steps == 0 {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}").unwrap_or(ProgressStyle::default_bar());
    ProgressBar::new(steps as u64).with_style(style)
}

/// Prints `sopin: <thing>: <reason>; <way out>`.
pub fn error(failure: impl Display) {
    line(BAD, "", &failure);
}

/// Prints `sopin: warning: <thing>: <reason>`.
pub fn warn(thing: impl Display, reason: impl Display) {
    line(DOUBTFUL, "warning: ", &format_args!("{}: {reason}", shown(&thing.to_string())));
}

/// Returns a name in a form that can be shown on one line of a terminal, whatever it contains.
pub fn shown(name: &str) -> String {
    if name.is_empty() {
        return "''".to_owned();
    }
    let mut shown = String::with_capacity(name.len());
    for character in name.chars() {
        if character.is_control() { shown.extend(character.escape_default()) } else { shown.push(character) }
    }
    shown
}

fn line(style: Style, kind: &str, text: &dyn Display) {
    // If stderr cannot be written to, there is no other way to report that.
    let _ = writeln!(anstream::stderr(), "{style}sopin:{style:#} {style}{kind}{style:#}{text}");
}

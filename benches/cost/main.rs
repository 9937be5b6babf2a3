//! What protection costs, as ratios against the same work without it in the
//! same run. Prints a Markdown table and writes it to target/bench.md. Nothing
//! here fails because something was slow: the table says what the targets are.
//!
//! Arguments select workloads: `cargo bench --bench cost -- start calls`.

mod measure;
mod workloads;

use std::env;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use measure::{ByMode, MODES, Mode};

/// A row of the table.
pub struct Row {
    /// What was measured, with its unit.
    pub what: String,
    /// By mode: the number as people read it.
    pub cells: ByMode<String>,
    /// What is to be reached, and whether it was; or nothing.
    pub target: String,
}

impl Row {
    /// A row whose protected cells show the number and its ratio to native.
    fn with_ratios(what: &str, unit: &str, rounds: &measure::Rounds, target: String) -> Self {
        let number = |mode| format!("{:.3}", rounds.median(mode));
        let ratio = |mode| format!("{} ({:.3}x)", number(mode), rounds.ratio(mode));
        Self {
            what: format!("{what}, {unit}"),
            cells: MODES.map(|mode| if mode == Mode::Native { number(mode) } else { ratio(mode) }),
            target,
        }
    }
}

/// `relocated <= 1.02: met` or the like.
fn target(what: &str, number: f64, limit: f64) -> String {
    let verdict = if number <= limit { "met" } else { "missed" };
    format!("{what} at most {limit}: {number:.3}, {verdict}")
}

fn main() -> ExitCode {
    match measure_everything() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure_everything() -> Result<(), String> {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
    let library =
        env::var_os("SOPIN_TEST_LIBRARY").map_or_else(|| checkout.join("target/release/libsopin.so"), Into::into);
    let library =
        library.canonicalize().map_err(|error| format!("{}: {error}; run `make build`", library.display()))?;
    let bench = workloads::Bench::new(checkout, library)?;

    // cargo adds --bench to what the user asked for.
    let wanted: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let mut rows = Vec::new();
    for (name, measure) in workloads::ALL {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            rows.extend(measure(&bench)?);
        }
    }
    let table = render(&rows);
    print!("{table}");
    let output = checkout.join("target/bench.md");
    fs::write(&output, table).map_err(|error| format!("{}: {error}", output.display()))
}

fn render(rows: &[Row]) -> String {
    let mut table = String::from(
        "| what | native | off | relocated | full (memfd) | full (store) | target |\n|---|---|---|---|---|---|---|\n",
    );
    for Row { what, cells, target } in rows {
        // Writing to a String cannot fail.
        let _ = writeln!(table, "| {what} | {} | {target} |", cells.join(" | "));
    }
    table
}

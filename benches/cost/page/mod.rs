//! What was measured, as data, and what is made from it: the page, the chart, and
//! the table in README.

mod chart;
pub mod markdown;
mod variant;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use markdown::table;
pub use variant::Variant;

/// Where the numbers are kept.
pub const RESULTS: &str = "docs/benchmarks.json";

/// The lines around the table in README.
const BEGIN: &str = "<!-- make bench writes from here -->\n";
const END: &str = "<!-- to here -->\n";

/// The numbers as they are kept: a line for each section.
///
/// # Errors
/// When they cannot be written as JSON.
pub fn json(results: &Results) -> Result<String, serde_json::Error> {
    let sections: Result<Vec<_>, _> = results.sections.iter().map(serde_json::to_string).collect();
    let circumstances = serde_json::to_string(&results.circumstances)?;
    Ok(format!("{{\"circumstances\":{circumstances},\"sections\":[\n{}\n]}}\n", sections?.join(",\n")))
}

/// Every document that is made from the numbers: its path in the checkout and its
/// text.
///
/// # Errors
/// When README is not there or does not say where its table belongs.
pub fn documents(checkout: &Path, results: &Results) -> Result<[(&'static str, String); 3], String> {
    let readme = fs::read_to_string(checkout.join("README.md")).map_err(|error| format!("README.md: {error}"))?;
    let around = readme.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = around.ok_or_else(|| format!("README.md: no {BEGIN:?} and {END:?}"))?;
    let readme = format!("{before}{BEGIN}\n{}\n{END}{after}", markdown::summary(results));
    Ok([
        ("docs/benchmarks.md", markdown::page(results)),
        ("docs/benchmarks.svg", chart::chart(results)),
        ("README.md", readme),
    ])
}

/// Everything that one run of the benchmark has found.
#[derive(Serialize, Deserialize)]
pub struct Results {
    /// Where, when and of what: pairs of words for people.
    pub circumstances: Vec<(String, String)>,
    /// One for each kind of work.
    pub sections: Vec<Section>,
}

/// One kind of work.
#[derive(Serialize, Deserialize)]
pub struct Section {
    /// Its heading.
    pub title: String,
    /// What is done, and what is counted.
    pub about: String,
    /// How many numbers each cell is made of.
    pub rounds: usize,
    /// What was measured.
    pub columns: Vec<Column>,
}

/// One measure of all variants.
#[derive(Serialize, Deserialize)]
pub struct Column {
    /// What was measured.
    pub what: String,
    /// Of the value: ms, MiB...
    pub unit: String,
    /// How the variants are compared with the native run; in README, as the first
    /// says.
    pub compared: Vec<Compared>,
    /// The numbers.
    pub cells: BTreeMap<Variant, Cell>,
    /// What is to be reached.
    pub targets: Vec<Target>,
    /// Its name in the chart and, if `README_COLUMNS` has it, in the table of README.
    pub summary: Option<String>,
}

/// What is looked at: a number, or how it compares with that of the native run in
/// the same round.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compared {
    /// The number itself.
    No,
    /// Divided by it.
    Ratio,
    /// What is more than it.
    Extra,
}

/// The number of one variant.
#[derive(Serialize, Deserialize)]
pub struct Cell {
    /// What was measured.
    pub value: Spread,
    /// Of the rounds' ratios to the native run.
    pub ratio: Spread,
    /// Of the rounds' differences from the native run.
    pub extra: Spread,
}

/// Median and quartiles.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// A quarter is less.
    pub low: f64,
    /// Half are less.
    pub median: f64,
    /// A quarter is more.
    pub high: f64,
}

/// A promise about one cell.
#[derive(Serialize, Deserialize)]
pub struct Target {
    /// Whose.
    pub variant: Variant,
    /// Of the comparison, or of the value where there is none.
    pub compared: Compared,
    /// The most that its median may be.
    pub at_most: f64,
}

impl Column {
    /// A column without targets.
    pub fn new(what: &str, unit: &str, compared: &[Compared], cells: BTreeMap<Variant, Cell>) -> Self {
        Self {
            what: what.to_owned(),
            unit: unit.to_owned(),
            compared: compared.to_vec(),
            cells,
            targets: Vec::new(),
            summary: None,
        }
    }

    /// Gives it a target.
    pub fn add_target(&mut self, variant: Variant, compared: Compared, at_most: f64) {
        self.targets.push(Target { variant, compared, at_most });
    }

    /// The same with a target.
    #[must_use]
    pub fn target(mut self, variant: Variant, compared: Compared, at_most: f64) -> Self {
        self.add_target(variant, compared, at_most);
        self
    }

    /// The same, to be shown in the chart, and in README if `README_COLUMNS` has the name.
    #[must_use]
    pub fn in_summary(mut self, name: &str) -> Self {
        self.summary = Some(name.to_owned());
        self
    }
}

impl Cell {
    /// The number that the comparison is made with.
    pub fn compared(&self, compared: Compared) -> Spread {
        match compared {
            Compared::No => self.value,
            Compared::Ratio => self.ratio,
            Compared::Extra => self.extra,
        }
    }
}

impl Spread {
    /// Of these numbers.
    pub fn of(mut numbers: Vec<f64>) -> Self {
        numbers.sort_by(f64::total_cmp);
        let quantile = |part| round(quantile_of_sorted(&numbers, part));
        Self { low: quantile(0.25), median: quantile(0.5), high: quantile(0.75) }
    }
}

/// Ten-thousandths are more than any measurement here can tell.
fn round(number: f64) -> f64 {
    (number * 1e4).round() / 1e4
}

/// The value below which this part of the numbers lies, between two of them by
/// linear interpolation; 0 without numbers.
pub fn quantile_of_sorted(numbers: &[f64], part: f64) -> f64 {
    let Some(last) = numbers.len().checked_sub(1) else { return 0.0 };
    #[expect(clippy::cast_precision_loss, reason = "there are not so many numbers")]
    let place = part * last as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
    let below = place.floor() as usize;
    let above = (below + 1).min(last);
    numbers[below] + (numbers[above] - numbers[below]) * place.fract()
}

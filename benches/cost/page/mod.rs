//! The measured numbers as data, and what is made from them: the page, the chart, and
//! the table in README.

mod chart;
mod markdown;
pub mod situations;
mod variant;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use markdown::table;
pub use variant::Variant;

/// The file with the numbers.
pub const RESULTS: &str = "docs/benchmarks.json";

/// The lines around the table in README.
const BEGIN: &str = "<!-- make bench writes from here -->\n";
const END: &str = "<!-- to here -->\n";

/// Formats the numbers for their file, with a line for each section.
///
/// # Errors
/// If they cannot be written as JSON.
pub fn json(results: &Results) -> Result<String, serde_json::Error> {
    let sections: Result<Vec<_>, _> = results.sections.iter().map(serde_json::to_string).collect();
    let circumstances = serde_json::to_string(&results.circumstances)?;
    let measured = serde_json::to_string(&results.measured)?;
    let sections = sections?.join(",\n");
    Ok(format!("{{\"circumstances\":{circumstances},\"measured\":{measured},\"sections\":[\n{sections}\n]}}\n"))
}

/// Returns every document that is made from the numbers: its path in the checkout and
/// its text.
///
/// # Errors
/// If README does not exist or lacks the lines around its table.
pub fn documents(checkout: &Path, results: &Results) -> Result<[(&'static str, String); 3], String> {
    let readme = fs::read_to_string(checkout.join("README.md")).map_err(|error| format!("README.md: {error}"))?;
    let around = readme.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = around.ok_or_else(|| format!("README.md: no {BEGIN:?} and {END:?}"))?;
    let readme = format!("{before}{BEGIN}\n{}\n{END}{after}", situations::summary(results));
    Ok([
        ("docs/benchmarks.md", markdown::page(results)),
        ("docs/benchmarks.svg", chart::chart(results)),
        ("README.md", readme),
    ])
}

/// All results of one run of the benchmark.
#[derive(Serialize, Deserialize)]
pub struct Results {
    /// The machine, as pairs of words for people.
    pub circumstances: Vec<(String, String)>,
    /// When each section was measured, by its title, and with which version.
    pub measured: BTreeMap<String, String>,
    /// A section for each kind of work.
    pub sections: Vec<Section>,
}

/// One kind of work.
#[derive(Serialize, Deserialize)]
pub struct Section {
    /// Its heading.
    pub title: String,
    /// The work that is done, and what is counted.
    pub about: String,
    /// The number of rounds behind each cell.
    pub rounds: usize,
    pub columns: Vec<Column>,
}

/// One measure of all variants.
#[derive(Serialize, Deserialize)]
pub struct Column {
    /// The measured quantity.
    pub what: String,
    /// The unit of the values: ms, MiB...
    pub unit: String,
    /// The comparisons with the native run; README shows the first one.
    pub compared: Vec<Compared>,
    pub cells: BTreeMap<Variant, Cell>,
    pub targets: Vec<Target>,
    /// Its name in the chart, by which [`situations`] finds it.
    pub summary: Option<String>,
}

/// A number, or its comparison with that of the native run in the same round.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compared {
    /// The number itself.
    No,
    /// Divided by that of the native run.
    Ratio,
    /// Divided by that of the floor.
    Floor,
    /// The difference from that of the native run.
    Extra,
}

/// The number of one variant.
#[derive(Serialize, Deserialize)]
pub struct Cell {
    /// The measured values.
    pub value: Spread,
    /// The rounds' ratios to the native run.
    pub ratio: Spread,
    /// The rounds' differences from the native run.
    pub extra: Spread,
    /// The rounds' ratios to the floor, if that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_floor: Option<Spread>,
    /// The interval that has the true median of the ratios with a probability of 95 %, if the number of
    /// rounds was chosen for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio_interval: Option<[f64; 2]>,
}

/// Median and quartiles.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// A quarter of the numbers is less.
    pub low: f64,
    /// Half of the numbers are less.
    pub median: f64,
    /// A quarter of the numbers is more.
    pub high: f64,
}

/// A target for one cell.
#[derive(Serialize, Deserialize)]
pub struct Target {
    pub variant: Variant,
    /// The comparison that is limited; `No` limits the value itself.
    pub compared: Compared,
    /// The upper limit of its median.
    pub at_most: f64,
    /// Whether it limits the whole interval of the ratio.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub of_interval: bool,
}

impl Column {
    /// Makes a column without targets.
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

    /// Adds a target.
    pub fn add_target(&mut self, variant: Variant, compared: Compared, at_most: f64) {
        self.targets.push(Target { variant, compared, at_most, of_interval: false });
    }

    /// Returns the column with another target.
    #[must_use]
    pub fn target(mut self, variant: Variant, compared: Compared, at_most: f64) -> Self {
        self.add_target(variant, compared, at_most);
        self
    }

    /// Returns the column with a target for the whole interval of a ratio.
    #[must_use]
    pub fn target_of_interval(mut self, variant: Variant, at_most: f64) -> Self {
        self.targets.push(Target { variant, compared: Compared::Ratio, at_most, of_interval: true });
        self
    }

    /// Returns the column with a name, under which the chart shows it and [`situations`] finds it.
    #[must_use]
    pub fn in_summary(mut self, name: &str) -> Self {
        self.summary = Some(name.to_owned());
        self
    }
}

impl Cell {
    /// Returns the number of this comparison, if it was made.
    pub fn compared(&self, compared: Compared) -> Option<Spread> {
        match compared {
            Compared::No => Some(self.value),
            Compared::Ratio => Some(self.ratio),
            Compared::Floor => self.to_floor,
            Compared::Extra => Some(self.extra),
        }
    }
}

impl Spread {
    /// Computes the spread of these numbers.
    pub fn of(mut numbers: Vec<f64>) -> Self {
        numbers.sort_by(f64::total_cmp);
        let quantile = |part| round(quantile_of_sorted(&numbers, part));
        Self { low: quantile(0.25), median: quantile(0.5), high: quantile(0.75) }
    }
}

/// Returns an interval that has the median of the distribution of these numbers with a probability of
/// 95 %, whatever the distribution: that many of `n` numbers lie below the median is a matter of
/// `n` tosses of a coin. `None` if there are too few numbers.
pub fn interval_of_median(mut numbers: Vec<f64>) -> Option<[f64; 2]> {
    numbers.sort_by(f64::total_cmp);
    #[expect(clippy::cast_precision_loss, reason = "there are not so many numbers")]
    let count = numbers.len() as f64;
    // The normal approximation, rounded outwards.
    let below = ((count - 1.96 * count.sqrt()) / 2.0).floor() - 1.0;
    if below < 0.0 {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
    let below = below as usize;
    Some([round(*numbers.get(below)?), round(*numbers.get(numbers.len() - 1 - below)?)])
}

/// Rounds to ten-thousandths, which are finer than any measurement here.
fn round(number: f64) -> f64 {
    (number * 1e4).round() / 1e4
}

/// Returns the value below which this part of the numbers lies, interpolated linearly
/// between two of them; 0 without numbers.
pub fn quantile_of_sorted(numbers: &[f64], part: f64) -> f64 {
    let Some(last) = numbers.len().checked_sub(1) else { return 0.0 };
    #[expect(clippy::cast_precision_loss, reason = "there are not so many numbers")]
    let place = part * last as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
    let below = place.floor() as usize;
    let above = (below + 1).min(last);
    numbers[below] + (numbers[above] - numbers[below]) * place.fract()
}

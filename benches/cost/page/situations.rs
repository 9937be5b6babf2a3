//! What a user pays in a few real situations: the table of README, and the first part of the page.
//! Every number comes from a column that has a summary, by the name of that.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::markdown::{number, ratio};
use super::{Cell, Results, Variant};

/// The names of summaries.
pub mod names {
    pub const WEB_START: &str = "Flask service, start: CPU";
    pub const WEB_MEMORY: &str = "Flask service, 8 gunicorn workers: memory";
    pub const WEB_REQUEST: &str = "Flask service, a request: CPU";
    pub const WEB_THROUGHPUT: &str = "Flask service, requests per second";
    pub const SCIENCE_START: &str = "scientific service, start: CPU";
    /// The same, with so many rounds that it is known to one hundredth.
    pub const SCIENCE_START_KNOWN: &str = "scientific service, start: CPU, counted";
    pub const SCIENCE_MEMORY: &str = "scientific service, 8 gunicorn workers: memory";
    pub const SCIENCE_OLDER: &str = "scientific service, start: CPU, Linux before 6.11";
    pub const CONTAINER_START: &str = "scientific service in a container, start: CPU";
    pub const CONTAINER_MEMORY: &str = "scientific service in a container: memory";
    pub const TENSORFLOW_START: &str = "TensorFlow, start: CPU";
    pub const TENSORFLOW_FIRST: &str = "TensorFlow, start: elapsed";
    pub const PYTORCH_START: &str = "PyTorch, start: CPU";
    pub const PYTORCH_FIRST: &str = "PyTorch, start: elapsed";
    pub const TINY_START: &str = "running `/bin/true`";
    pub const TINY_DLOPEN: &str = "`dlopen` of a tiny library, 100 loaded";
}
use names::{
    CONTAINER_MEMORY, CONTAINER_START, PYTORCH_FIRST, PYTORCH_START, SCIENCE_MEMORY, SCIENCE_OLDER, SCIENCE_START,
    SCIENCE_START_KNOWN, TENSORFLOW_FIRST, TENSORFLOW_START, TINY_DLOPEN, TINY_START, WEB_MEMORY, WEB_REQUEST,
    WEB_START, WEB_THROUGHPUT,
};

/// A row of README's table: its name, the summary of its start and, if memory was measured, that.
pub const README_ROWS: [(&str, &str, Option<&str>); 5] = [
    ("small web service (Flask, SQLAlchemy, gunicorn)", WEB_START, Some(WEB_MEMORY)),
    ("scientific service (numpy, scipy, pandas, SQLAlchemy, gunicorn)", SCIENCE_START, Some(SCIENCE_MEMORY)),
    ("the same on Linux before 6.11", SCIENCE_OLDER, None),
    ("the same in a container, from the image", CONTAINER_START, Some(CONTAINER_MEMORY)),
    ("a short program (`/bin/true`)", TINY_START, None),
];

/// Looks numbers up.
struct Lookup<'a>(&'a Results);

impl Lookup<'_> {
    /// Returns a variant's cell in the column with this summary, and the column's unit.
    fn cell(&self, summary: &str, variant: Variant) -> Option<(&Cell, &str)> {
        let with = |summary: &str| {
            let mut columns = self.0.sections.iter().flat_map(|section| &section.columns);
            let column = columns.find(|column| column.summary.as_deref() == Some(summary))?;
            Some((column.cells.get(&variant)?, column.unit.as_str()))
        };
        let better = if summary == SCIENCE_START { with(SCIENCE_START_KNOWN) } else { None };
        better.or_else(|| with(summary))
    }

    /// Returns the native number with its unit.
    fn native(&self, summary: &str) -> Option<String> {
        let (cell, unit) = self.cell(summary, Variant::Native)?;
        Some(format!("{} {unit}", number(cell.value.median)).trim_end().to_owned())
    }

    fn ratio(&self, summary: &str, variant: Variant) -> Option<String> {
        self.cell(summary, variant).map(|(cell, _)| ratio(cell.ratio.median))
    }

    /// Returns the ratio, with the interval that has it if that is known.
    fn known_ratio(&self, summary: &str, variant: Variant) -> Option<String> {
        let (cell, _) = self.cell(summary, variant)?;
        let interval = cell.ratio_interval.map(|[from, to]| format!(" (95 %: {} to {})", ratio(from), ratio(to)));
        Some(format!("{}{}", ratio(cell.ratio.median), interval.unwrap_or_default()))
    }

    /// Returns the difference from native with its unit.
    fn extra(&self, summary: &str, variant: Variant) -> Option<String> {
        let (cell, unit) = self.cell(summary, variant)?;
        let sign = if cell.extra.median < 0.0 { "-" } else { "+" };
        Some(format!("{sign}{} {unit}", number(cell.extra.median.abs())))
    }

    /// Returns both: `+20 ms (1.015 times native)`.
    fn cost(&self, summary: &str, variant: Variant) -> Option<String> {
        Some(format!("{} ({} times native)", self.extra(summary, variant)?, self.ratio(summary, variant)?))
    }
}

/// Renders the table in README.
pub fn summary(results: &Results) -> String {
    let all = Lookup(results);
    let mut text = format!(
        "| | start, native | {} | {} | memory |\n|---|---:|---:|---:|---:|",
        Variant::Warm.name(),
        Variant::Cold.name()
    );
    for (name, start, memory) in README_ROWS {
        let memory =
            memory.and_then(|memory| all.ratio(memory, Variant::Warm).or_else(|| all.ratio(memory, Variant::Cold)));
        let cells = [all.native(start), all.ratio(start, Variant::Warm), all.ratio(start, Variant::Cold), memory];
        // Writing to a String cannot fail.
        let _ = write!(text, "\n| {name} |");
        for cell in cells {
            let _ = write!(text, " {} |", cell.unwrap_or_default());
        }
    }
    text.push('\n');
    if let (Some(requests), Some(cpu)) =
        (all.known_ratio(WEB_THROUGHPUT, Variant::Warm), all.known_ratio(WEB_REQUEST, Variant::Warm))
    {
        let _ = write!(
            text,
            "\nWhile the web service runs, to native: {requests} requests per second, {cpu} CPU for each.\n"
        );
    }
    let told = ["processor", "kernel"];
    let circumstances = results.circumstances.iter().filter(|(what, _)| told.contains(&what.as_str()));
    let mut values: Vec<_> = circumstances.map(|(_, value)| value.as_str()).collect();
    // A day is the beginning of what is noted, and sorts as text.
    let days: BTreeSet<_> = results.measured.values().filter_map(|measured| measured.split(',').next()).collect();
    values.extend(days);
    let _ = write!(text, "\n{}.\n", values.join(", "));
    text
}

/// Renders what users pay. A situation of which a number is missing is left out.
pub fn situations(results: &Results) -> String {
    let all = Lookup(results);
    let paragraphs = [web(&all), science(&all), container(&all), short_programs(&all), big_objects(&all)];
    let mut text = String::from(
        "## What you pay\n\n\
         The sections behind this one have the spread of each number, and how it was measured. A *warm* store has a copy\n\
         of every object; with a *cold* one the copies have to be made, once for each user of a machine.\n",
    );
    for paragraph in paragraphs.into_iter().flatten() {
        let _ = write!(text, "\n{paragraph}\n");
    }
    text.push_str(
        "\n[Text in huge pages](huge-pages.md) was tried, to make programs faster than without sopin: it gains nothing that\n\
         can be told from the noise, and costs memory.\n",
    );
    text
}

fn big_objects(all: &Lookup<'_>) -> Option<String> {
    Some(format!(
        "**TensorFlow, or PyTorch with CUDA.** A start costs {} and {} of CPU with a warm store. The first start copies\n\
         gigabytes: it takes {} and {} longer, and the store as much disk as the objects. Workers that start together\n\
         make one copy. Fill the store when you build the image (`sopin store fill`), and do not run these without a\n\
         store: each process would have copies of its own.",
        all.cost(TENSORFLOW_START, Variant::Warm)?,
        all.cost(PYTORCH_START, Variant::Warm)?,
        all.extra(TENSORFLOW_FIRST, Variant::Cold)?.trim_start_matches('+'),
        all.extra(PYTORCH_FIRST, Variant::Cold)?.trim_start_matches('+'),
    ))
}

fn web(all: &Lookup<'_>) -> Option<String> {
    Some(format!(
        "**A small web service** (Flask and SQLAlchemy under gunicorn). A start costs {} of CPU with a warm store, {} with\n\
         a cold one; natively it takes {}. Eight workers have {} times the memory. While they run, nothing of the\n\
         library is on their way: to native, {} requests per second, and {} CPU for each.",
        all.cost(WEB_START, Variant::Warm)?,
        all.cost(WEB_START, Variant::Cold)?,
        all.native(WEB_START)?,
        all.ratio(WEB_MEMORY, Variant::Warm)?,
        all.known_ratio(WEB_THROUGHPUT, Variant::Warm)?,
        all.known_ratio(WEB_REQUEST, Variant::Warm)?,
    ))
}

fn science(all: &Lookup<'_>) -> Option<String> {
    Some(format!(
        "**A scientific service** (numpy, scipy, pandas and SQLAlchemy). A start costs {} of CPU with a warm store, {}\n\
         with a cold one; natively it takes {}. On Linux before 6.11 it is {} with a warm store. Eight workers have {}\n\
         times the memory: they share the copies as they share the files natively.",
        all.cost(SCIENCE_START, Variant::Warm)?,
        all.cost(SCIENCE_START, Variant::Cold)?,
        all.native(SCIENCE_START)?,
        all.cost(SCIENCE_OLDER, Variant::Warm)?,
        all.ratio(SCIENCE_MEMORY, Variant::Warm)?,
    ))
}

fn container(all: &Lookup<'_>) -> Option<String> {
    Some(format!(
        "**The same in a container**, everything from the image. Nothing is copied, on no disk and in no memory: the first\n\
         start costs {} of CPU, memory is {} times native.",
        all.cost(CONTAINER_START, Variant::Cold)?,
        all.ratio(CONTAINER_MEMORY, Variant::Cold)?,
    ))
}

fn short_programs(all: &Lookup<'_>) -> Option<String> {
    let (tiny, _) = all.cell(TINY_START, Variant::Warm)?;
    Some(format!(
        "**A machine with many short programs.** Each start of a dynamically linked program costs {} with a warm store, so\n\
         a script that starts 1,000 programs takes {} s longer. Where that matters, preload the library into the service\n\
         only, and not into the shell, or set `SOPIN_CHILDREN=drop` so that the programs that a service starts run without\n\
         it. A program that loads many small plug-ins pays {} for each `dlopen`.",
        all.cost(TINY_START, Variant::Warm)?,
        // Microseconds of a thousand starts.
        number(tiny.extra.median / 1e3),
        all.cost(TINY_DLOPEN, Variant::Warm)?,
    ))
}

//! The page.

use std::fmt::Write;

use super::{Cell, Column, Compared, Results, Section, Spread, Variant, situations};

/// Renders `docs/benchmarks.md`.
pub fn page(results: &Results) -> String {
    let mut page = String::from(
        "# What sopin costs\n\n\
         <!-- Made by `make bench` from benchmarks.json; do not edit. -->\n\n\
         Every number is the median of interleaved rounds, in brackets the quartiles. A ratio or difference is that of two\n\
         neighbouring runs, native and not, and its own median: whatever else the machine did hit both. `make bench`\n\
         measures all of it anew, in about ten minutes on a quiet machine; `cargo bench --bench cost -- start imports` some\n\
         (`--quick` with one round, `--thorough` with four times as many).\n\n\
         ![Cost against native](benchmarks.svg)\n\n",
    );
    page.push_str(&situations::situations(results));
    page.push_str("\n## Where it was measured\n\n");
    for (what, value) in &results.circumstances {
        // Writing to a String cannot fail.
        let _ = writeln!(page, "- {what}: {value}");
    }
    page.push_str("\n## What is compared\n\n");
    for variant in Variant::ALL {
        if results.sections.iter().any(|section| has(section, variant)) {
            let _ = writeln!(page, "- {}: {}.", variant.name(), variant.description());
        }
    }
    page.push_str(MEMORY);
    page.push_str(COUNTS);
    for section in &results.sections {
        let _ = write!(page, "\n{}", table(section));
        if let Some(measured) = results.measured.get(&section.title) {
            let _ = write!(page, "\nMeasured {measured}.\n");
        }
    }
    page
}

const MEMORY: &str = "
## How memory is counted

*Memory* is the sum of Pss (`smaps_rollup`) over the processes, a page that k processes of the machine map counting as
1/k of it for each; and the pages of sopin's memfds that nobody has touched since they were written, which no Pss
shows. *Pages* are those that the processes map, each physical page once, whoever else maps it (`pagemap`), and the same
untouched pages. Page cache that nobody maps is in neither: it is clean, and given back when memory is short. So are the
pages of the original files once everybody maps copies of them.
";

const COUNTS: &str = "
## What is counted

CPU time of a start scatters by some hundredths from one round to the next: the sections that count show beside it what
does not. *Instructions* are those of user space, as callgrind of Valgrind executes them, once for each variant, with
`PYTHONHASHSEED=0`: two runs differ by less than a thousandth. They leave out the kernel's work, so that the
number of *system calls* (strace) and of *minor page faults* (`getrusage`) stand beside them; none of the three says what the
caches of the processor make of it, which only time shows. In the same sections the rounds go on until the median of
the CPU ratio is known to one hundredth: \"95 %\" is the interval that has it with that probability.
";

fn has(section: &Section, variant: Variant) -> bool {
    section.columns.iter().any(|column| column.cells.contains_key(&variant))
}

/// Renders one section with its table and the results of its targets.
pub fn table(section: &Section) -> String {
    let rounds = if section.rounds == 1 { "One round.".to_owned() } else { format!("{} rounds.", section.rounds) };
    let mut text = format!("## {}\n\n{} {}\n\n| |", section.title, section.about, rounds);
    for Column { what, unit, compared, .. } in &section.columns {
        let unit = if unit.is_empty() { String::new() } else { format!(", {unit}") };
        let _ = write!(text, " {what}{unit} |");
        for compared in compared {
            text.push_str(match compared {
                Compared::No => " |",
                Compared::Ratio => " to native |",
                Compared::Floor => " to the floor |",
                Compared::Extra => " more than native |",
            });
        }
    }
    text.push_str("\n|---|");
    for column in &section.columns {
        text.push_str(&"---:|".repeat(1 + column.compared.len()));
    }
    for variant in Variant::ALL.into_iter().filter(|variant| has(section, *variant)) {
        let _ = write!(text, "\n| {} |", variant.name());
        for column in &section.columns {
            let cell = column.cells.get(&variant);
            let _ = write!(text, " {} |", cell.map(|cell| spread(cell.value, Compared::No)).unwrap_or_default());
            for compared in &column.compared {
                let cell = cell.filter(|_| variant != Variant::Native);
                let _ = write!(text, " {} |", cell.map(|cell| with_interval(*compared, cell)).unwrap_or_default());
            }
        }
    }
    text.push('\n');
    for column in &section.columns {
        for target in &column.targets {
            let Some(cell) = column.cells.get(&target.variant) else { continue };
            let Some(Spread { median: reached, .. }) = cell.compared(target.compared) else { continue };
            let (limit, number) = match target.compared {
                Compared::No => (format!("{} {}", number(target.at_most), column.unit), number(reached)),
                Compared::Ratio => (format!("{:.3} times native", target.at_most), format!("{reached:.3}")),
                Compared::Floor => (format!("{:.3} times the floor", target.at_most), format!("{reached:.3}")),
                Compared::Extra => (format!("{:+} {}", target.at_most, column.unit), format!("{reached:+.1}")),
            };
            let interval = cell.ratio_interval.filter(|_| target.of_interval);
            let number = interval.map_or(number.clone(), |[from, to]| format!("{number}, 95 %: {from:.3} – {to:.3}"));
            let verdict = match interval {
                _ if reached > target.at_most => "**missed**",
                // Too few rounds, as with --quick, show nothing either.
                None if target.of_interval => "not shown",
                Some([_, to]) if to > target.at_most => "not shown",
                _ => "reached",
            };
            let whose = target.variant.name().replace("**", "");
            let _ = write!(text, "\nTarget, {}, {whose}: at most {limit}. It is {number}: {verdict}.\n", column.what);
        }
    }
    text
}

fn comparison(compared: Compared, cell: &Cell) -> String {
    cell.compared(compared).map(|number| spread(number, compared)).unwrap_or_default()
}

fn spread(spread: Spread, compared: Compared) -> String {
    let Spread { low, median, high } = spread;
    let show = |value: f64| match compared {
        Compared::No => number(value),
        Compared::Ratio | Compared::Floor => format!("{value:.3}"),
        Compared::Extra => format!("{value:+.1}"),
    };
    let (low, median, high) = (show(low), show(median), show(high));
    if low == high { median } else { format!("{median} ({low} – {high})") }
}

/// Formats a comparison, with the interval of its median if that is known.
fn with_interval(compared: Compared, cell: &Cell) -> String {
    match cell.ratio_interval.filter(|_| compared == Compared::Ratio) {
        None => comparison(compared, cell),
        Some([from, to]) => format!("{}, 95 %: {from:.3} – {to:.3}", comparison(compared, cell)),
    }
}

/// Formats a number with three significant digits.
pub fn number(value: f64) -> String {
    match value.abs() {
        0.0..1.0 => format!("{value:.3}"),
        1.0..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// Formats a ratio. Small differences from 1 matter, those of large ratios do not.
pub fn ratio(value: f64) -> String {
    if value < 1.1 { format!("{value:.3}") } else { format!("{value:.2}") }
}

//! Work that takes microseconds: starting a process, loading a tiny library, calling a
//! function.

use std::path::Path;
use std::process::Command;

use crate::page::situations::names;
use crate::page::{Column, Compared, Section, Variant, quantile_of_sorted};
use crate::rounds::{Rounds, interleave};
use crate::run;
use crate::site::{LIBRARIES, Site};

const START_ROUNDS: usize = 300;
const CALL_ROUNDS: usize = 7;
const LIBRARY_ROUNDS: usize = 5;
const MILLION_CALLS: u32 = 100;

/// Measures the start and end of the smallest program.
///
/// # Errors
/// If a program fails.
pub fn start(site: &Site) -> Result<Section, String> {
    let [wall, cpu] = interleave(site, &usual(), START_ROUNDS, |variant| {
        let (wall, cpu) = run::start_and_end(&mut site.command(Path::new("/bin/true"), variant))?;
        Ok([1e6 * wall.as_secs_f64(), 1e6 * cpu.as_secs_f64()])
    })?;
    let rounds = wall.count();
    let compared = [Compared::Ratio, Compared::Floor];
    let wall = Column::new("elapsed", "µs", &compared, wall.cells())
        .target(Variant::Warm, Compared::Floor, 1.15)
        .in_summary(names::TINY_START);
    let about = "`/bin/true`, from before `posix_spawn` to after `wait4`. Three objects and sopin's own are pinned.";
    Ok(Section {
        title: "Starting a tiny program".to_owned(),
        about: about.to_owned(),
        rounds,
        columns: vec![wall, Column::new("CPU of the program", "µs", &compared, cpu.cells())],
    })
}

/// Measures calls through the PLT into a library. sopin affects loading only, so they
/// should cost the same.
///
/// # Errors
/// If a program fails.
pub fn calls(site: &Site) -> Result<Section, String> {
    let variants = [Variant::Native, Variant::Relocated, Variant::Warm, Variant::Memfd];
    let [took] = interleave(site, &variants, CALL_ROUNDS, |variant| {
        let mut command = site.command(&site.built("calls"), variant);
        let took = run::run(command.arg(MILLION_CALLS.to_string()))?;
        Ok([number(took.trim())? / (1e6 * f64::from(MILLION_CALLS))])
    })?;
    Ok(Section {
        title: "Calling a pinned library".to_owned(),
        about: "One call of a function of another object through the PLT.".to_owned(),
        rounds: took.count(),
        columns: vec![Column::new("elapsed", "ns", &[Compared::Ratio], took.cells())],
    })
}

/// Measures the cost of one more tiny library when few, or many, are loaded.
///
/// # Errors
/// If a program fails.
pub fn libraries(site: &Site) -> Result<Section, String> {
    site.copy_tiny_libraries()?;
    let variants: Vec<_> = usual().into_iter().filter(|variant| *variant != Variant::Off).collect();
    let took = interleave(site, &variants, LIBRARY_ROUNDS, |variant| {
        let mut command = site.command(&site.built("libraries"), variant);
        took_around(command.arg(site.tiny_libraries(variant)).arg(LIBRARIES.to_string()), [100, 1000, 2000, LIBRARIES])
    })?;
    let [few, thousand, two_thousand, many] = &took;
    let rounds = few.count();
    let column = |loaded: &str, took: &Rounds| {
        let mut column = library_column(loaded, took);
        column.compared.push(Compared::Floor);
        column
    };
    let few = column("100", few).target(Variant::Warm, Compared::Floor, 1.25).in_summary(names::TINY_DLOPEN);
    let ratio_of_few = few.cells.get(&Variant::Warm).map_or(0.0, |cell| cell.ratio.median);
    let columns = vec![
        few,
        column("1,000", thousand),
        column("2,000", two_thousand).target(Variant::Warm, Compared::Ratio, ratio_of_few),
        column("5,000", many).in_summary("`dlopen` of a tiny library, 5,000 loaded"),
    ];
    Ok(Section {
        title: "Loading one tiny library".to_owned(),
        about: format!(
            "One `dlopen` by absolute path of a library with one function and 16 KiB of file, in a process that loads \
             {LIBRARIES} of them; the median of the hundred around each number of libraries loaded. At 2,000 the target is the \
             ratio at 100."
        ),
        rounds,
        columns,
    })
}

/// Runs the program that opens tiny libraries; returns how many microseconds one took around each
/// of these numbers of loaded libraries.
///
/// # Errors
/// When the program fails.
pub fn took_around<const N: usize>(command: &mut Command, counts: [usize; N]) -> Result<[f64; N], String> {
    let took: Vec<f64> = run::run(command)?.lines().map(number).collect::<Result<_, _>>()?;
    Ok(counts.map(|count| {
        let last = (count + 50).min(took.len());
        let mut around = took.get(last.saturating_sub(100)..last).unwrap_or_default().to_vec();
        around.sort_by(f64::total_cmp);
        quantile_of_sorted(&around, 0.5) / 1e3
    }))
}

/// Returns the column of what one library took with so many loaded.
pub fn library_column(loaded: &str, took: &Rounds) -> Column {
    Column::new(&format!("{loaded} loaded"), "µs", &[Compared::Ratio], took.cells())
}

/// Returns the variants of work that takes microseconds: a store is warm, or cold.
fn usual() -> Vec<Variant> {
    let is_usual = |variant: &Variant| !matches!(variant, Variant::Reread | Variant::Filled);
    Variant::ALL.into_iter().filter(is_usual).collect()
}

fn number(text: &str) -> Result<f64, String> {
    text.parse().map_err(|error| format!("{text:?}: {error}"))
}

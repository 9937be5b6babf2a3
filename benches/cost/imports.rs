//! Imports of Python packages: the cost of protection for a start, and for memory.

use std::fs;

use crate::counts;
use crate::memory;
use crate::page::situations::names;
use crate::page::{Column, Compared, Section, Variant, quantile_of_sorted};
use crate::rounds::{interleave, interleave_until_known};
use crate::run::{self, Held};
use crate::site::Site;

const VARIANTS: [Variant; 10] = [
    Variant::Native,
    Variant::Empty,
    Variant::Floor,
    Variant::Relocated,
    Variant::Warm,
    Variant::Reread,
    Variant::Cold,
    Variant::Memfd,
    Variant::Anonymous,
    Variant::Replaced,
];
const SCIENTIFIC_ROUNDS: usize = 7;
const SMALL_ROUNDS: usize = 11;
const COUNTED_ROUNDS: usize = 21;
const LOG_ROUNDS: usize = 1;

/// Measures the imports of a Python process that serves data.
///
/// # Errors
/// If a program fails.
pub fn scientific(site: &Site) -> Result<Section, String> {
    let mut section = importing(site, "scientific", SCIENTIFIC_ROUNDS, 150)?;
    section.title = format!("Importing numpy, scipy, pandas and SQLAlchemy, {}", section.title);
    for column in &mut section.columns {
        match column.what.as_str() {
            "CPU" => {
                column.add_target(Variant::Warm, Compared::Ratio, 1.012);
                column.summary = Some(names::SCIENCE_START.to_owned());
            }
            "elapsed" => column.add_target(Variant::Cold, Compared::Extra, 150.0),
            "memory" => {
                column.add_target(Variant::Warm, Compared::Extra, 4.0);
                column.summary = Some("scientific service, start: memory".to_owned());
            }
            _ => {}
        }
    }
    section.columns.push(time_per_object(site)?);
    Ok(section)
}

/// Counts what the imports of a process that serves data take with a warm store, and measures their
/// time until it is known to one hundredth.
///
/// # Errors
/// If a program fails, or valgrind or strace is not installed.
pub fn counted(site: &Site) -> Result<Section, String> {
    let variants = [Variant::Native, Variant::Empty, Variant::Warm];
    let importing = |variant| {
        let mut command = site.python(variant)?;
        command.arg(site.program("importing.py")).arg("scientific");
        Ok::<_, String>(command)
    };
    let [cpu, faults] = interleave_until_known(site, &variants, COUNTED_ROUNDS, Variant::Warm, |variant| {
        let usage = Held::start(&mut importing(variant)?)?.end_with_usage()?;
        #[expect(clippy::cast_precision_loss, reason = "there are not so many faults")]
        let faults = usage.minor_faults as f64;
        Ok([1e3 * usage.cpu.as_secs_f64(), faults])
    })?;
    let mut columns = counts::columns(&variants, importing, |_| ())?;
    if let Some(instructions) = columns.first_mut() {
        instructions.add_target(Variant::Warm, Compared::Ratio, 1.01);
    }
    columns.push(Column::new("minor page faults", "", &[Compared::Ratio, Compared::Extra], faults.cells()));
    let cpu = Column::new("CPU", "ms", &[Compared::Ratio, Compared::Extra], cpu.cells());
    columns.push(cpu.target(Variant::Warm, Compared::Ratio, 1.01).in_summary(names::SCIENCE_START_KNOWN));
    let (rounds, title) = (faults.count(), "Importing numpy, scipy, pandas and SQLAlchemy, counted".to_owned());
    Ok(Section { title, about: "The whole process, from its start to its end.".to_owned(), rounds, columns })
}

/// Measures the imports of a small web service.
///
/// # Errors
/// If a program fails.
pub fn small(site: &Site) -> Result<Section, String> {
    let mut section = importing(site, "app", SMALL_ROUNDS, 15)?;
    section.title = format!("Importing a small Flask and SQLAlchemy service, {}", section.title);
    if let Some(cpu) = section.columns.first_mut() {
        cpu.summary = Some(names::WEB_START.to_owned());
    }
    Ok(section)
}

/// Imports `module`, which must load at least this many objects.
fn importing(site: &Site, module: &str, rounds: usize, least: usize) -> Result<Section, String> {
    site.copy_packages()?;
    let start = |variant| Held::start(site.python(variant)?.arg(site.program("importing.py")).arg(module));
    start(Variant::Reread)?.end()?;
    site.drop_from_cache()?;
    let mut objects = 0;
    let mut distinct_known = true;
    let [cpu, elapsed, memory, pages] = interleave(site, &VARIANTS, rounds, |variant| {
        // Some machines reclaim pages of the page cache that no process has used for
        // half a minute (DAMON), so each variant's pages are used just before its
        // round.
        if !variant.writes() {
            start(variant)?.end()?;
        }
        let held = start(variant)?;
        let text = memory::text_of(held.pid(), &site.stores())?;
        if variant == Variant::Native {
            objects = text.files;
            if objects < least {
                return Err(format!("{module} brings {objects} objects only"));
            }
        }
        text.check(variant, least)?;
        let memory = memory::of(&[held.pid()], &site.stores())?;
        distinct_known &= memory.distinct.is_some();
        let elapsed = held.took;
        let cpu = held.end()?;
        Ok([
            1e3 * cpu.as_secs_f64(),
            1e3 * elapsed.as_secs_f64(),
            memory.proportional,
            memory.distinct.unwrap_or_default(),
        ])
    })?;
    let mut columns = vec![
        Column::new("CPU", "ms", &[Compared::Ratio, Compared::Extra], cpu.cells()),
        Column::new("elapsed", "ms", &[Compared::Extra], elapsed.cells()),
        Column::new("memory", "MiB", &[Compared::Extra], memory.cells()),
    ];
    if distinct_known {
        columns.push(Column::new("pages", "MiB", &[Compared::Extra], pages.cells()));
    }
    Ok(Section {
        title: format!("{objects} objects"),
        about: "CPU is user and system time of the whole process; elapsed is from before its start to after the last \
            import; memory is that of the process then."
            .to_owned(),
        rounds: cpu.count(),
        columns,
    })
}

/// Returns the times that the library itself prints at `SOPIN_LOG=info`, one for each
/// object.
fn time_per_object(site: &Site) -> Result<Column, String> {
    let log = site.built("sopin.log");
    let variants = [Variant::Relocated, Variant::Warm, Variant::Cold, Variant::Memfd];
    let [median] = interleave(site, &variants, LOG_ROUNDS, |variant| {
        // The library appends to the file.
        let _ = fs::remove_file(&log);
        let mut command = site.python(variant)?;
        command.env("SOPIN_LOG", "info").env("SOPIN_LOG_FILE", &log);
        run::run(command.arg(site.program("importing.py")).arg("scientific"))?;
        let lines = fs::read_to_string(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let mut took: Vec<f64> = lines.lines().filter_map(microseconds).collect();
        if took.is_empty() {
            return Err(format!("no line of {} says how long an object took", log.display()));
        }
        took.sort_by(f64::total_cmp);
        Ok([quantile_of_sorted(&took, 0.5)])
    })?;
    Ok(Column::new("in sopin, median object", "µs", &[], median.cells()))
}

/// Returns `31` from `libsopin: PATH: full, 24576 bytes, 31 us`.
fn microseconds(line: &str) -> Option<f64> {
    let (before, _) = line.split_once(" us")?;
    before.rsplit(' ').next()?.parse().ok()
}

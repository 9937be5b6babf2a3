//! A store with very many entries: what a program pays that finds its copies there or adds some, and what
//! the commands cost that go through all entries.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::large_store::{self, ENTRIES, Many};
use crate::page::{Column, Compared, Section, Variant};
use crate::rounds::{Rounds, interleave};
use crate::run;
use crate::site::Site;

/// [`Variant::Warm`] finds its copies in the store, [`Variant::Cold`] adds them.
const VARIANTS: [Variant; 2] = [Variant::Warm, Variant::Cold];
const START_ROUNDS: usize = 15;

/// Measures programs and commands with a store of [`ENTRIES`] entries.
///
/// # Errors
/// If a program fails, or the store cannot be made.
pub fn sizes(site: &Site) -> Result<Section, String> {
    let many = large_store::make(&site.built("many"), &site.built("libsmall.so"))?;
    let [own, large, ratio] = interleave(site, &VARIANTS, START_ROUNDS, |variant| {
        let own = start(site, variant, &own_store(site, variant))?;
        if variant == Variant::Cold {
            many.keep_only_made()?;
        }
        let large = start(site, variant, &many.store)?;
        Ok([own, large, large / own])
    })?;
    many.keep_only_made()?;
    let [list, listing, prune, pruning] = Rounds::once(&[Variant::Warm], |_| commands(site, &many))?;
    let count = own.count();
    let ratio = Column::new("in proportion", "", &[], ratio.cells());
    Ok(Section {
        title: "A store with very many entries".to_owned(),
        about: format!(
            "`/bin/true` with a store that has its copies alone, and with one that has {ENTRIES} other entries, of which each \
             500 have the same file names; the user and system time. A warm store has the program's copies. To a cold one \
             the program adds them, and looks for unneeded entries each time, which all programs together do once a minute \
             at most. The commands go through all entries and remove none: `sopin store list`, and `sopin store prune \
             --dry-run`, which compares each entry with its origin; each runs once."
        ),
        rounds: count,
        columns: vec![
            Column::new("`/bin/true`: CPU", "µs", &[], own.cells()),
            Column::new(&format!("with {ENTRIES} other entries"), "µs", &[], large.cells()),
            ratio.target(Variant::Warm, Compared::No, 1.05),
            Column::new("list: CPU", "ms", &[], list.cells()),
            Column::new("memory", "MiB", &[], listing.cells()),
            Column::new("prune: CPU", "ms", &[], prune.cells()),
            Column::new("memory", "MiB", &[], pruning.cells()),
        ],
    })
}

/// Returns a store that has only the program's copies, or none.
fn own_store(site: &Site, variant: Variant) -> PathBuf {
    if variant == Variant::Cold { site.new_store() } else { site.stores().join("true") }
}

/// Returns the time of a program with this store, in microseconds. The copies are there if the store is to
/// have them.
fn start(site: &Site, variant: Variant, store: &Path) -> Result<f64, String> {
    let mut command = site.command(Path::new("/bin/true"), variant);
    command.env("SOPIN_STORE", store);
    if variant == Variant::Warm {
        run::start_and_end(&mut command)?;
    }
    let (_, cpu) = run::start_and_end(&mut command)?;
    Ok(1e6 * cpu.as_secs_f64())
}

/// Returns the time and the memory of `list` and of `prune`, in milliseconds and MiB.
fn commands(site: &Site, many: &Many) -> Result<[f64; 4], String> {
    let measure = |words: &[&str]| {
        let mut command = site.command(&site.checkout.join("target/release/sopin"), Variant::Native);
        command.arg("store").args(words).arg("--store").arg(&many.store).stdin(Stdio::null());
        let (answer, usage) = run::output_and_usage(&mut command)?;
        let of_all =
            |line: &str| line.starts_with(&format!("{ENTRIES} entries")) || line.ends_with(&format!(" {ENTRIES} kept"));
        if !answer.lines().any(of_all) {
            return Err(format!("sopin store {}: not {ENTRIES} entries: {:?}", words.join(" "), answer.lines().last()));
        }
        Ok([1e3 * usage.cpu.as_secs_f64(), usage.peak_mib])
    };
    let [[list, listing], [prune, pruning]] = [measure(&["list"])?, measure(&["prune", "--dry-run"])?];
    Ok([list, listing, prune, pruning])
}

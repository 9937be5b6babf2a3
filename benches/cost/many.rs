//! Loading one more tiny library where thousands are loaded: what the library adds must not grow with
//! their number, on kernels with and without `PROCMAP_QUERY`.

use crate::older_kernels::OlderLibrary;
use crate::page::{Column, Compared, Section, Variant};
use crate::rounds::{Rounds, interleave};
use crate::site::Site;
use crate::small;

const ROUNDS: usize = 2;
const LOADED: usize = 10_000;
const COUNTS: [usize; 3] = [100, 1000, LOADED];

/// Measures the last of many loads.
///
/// # Errors
/// If a program fails.
pub fn libraries(site: &Site) -> Result<Section, String> {
    site.copy_many_tiny_libraries(LOADED)?;
    let older = OlderLibrary::copy(site)?;
    let variants = [Variant::Native, Variant::Floor, Variant::Warm];
    let took = interleave(site, &variants, ROUNDS, |variant| {
        let mut command = site.command(&site.built("libraries"), variant);
        command.arg(site.tiny_libraries(variant)).arg(LOADED.to_string());
        let [few, thousand, all] = small::took_around(&mut command, COUNTS)?;
        let [few_older, thousand_older, all_older] = older.took_around(site, variant, LOADED, COUNTS)?;
        Ok([few, thousand, all, few_older, thousand_older, all_older])
    })?;
    let rounds = took[0].count();
    let column = |what: &str, took: &Rounds| {
        Column::new(&format!("{what} loaded"), "µs", &[Compared::Ratio, Compared::Extra], took.cells())
    };
    let [few, thousand, all, few_older, thousand_older, all_older] = &took;
    // The last one of a kernel may cost no larger part of native than the first.
    let flat = |mut last: Column, first: &Column| {
        if let Some(first) = first.cells.get(&Variant::Warm) {
            last.add_target(Variant::Warm, Compared::Ratio, first.ratio.median);
        }
        last
    };
    let (few, few_older) = (column("100", few), column("before 6.11: 100", few_older));
    let columns = vec![
        column("1,000", thousand),
        flat(column("10,000", all), &few),
        column("before 6.11: 1,000", thousand_older),
        flat(column("before 6.11: 10,000", all_older), &few_older),
    ];
    Ok(Section {
        title: "Loading one tiny library among 10,000".to_owned(),
        about: "One `dlopen` as above, in a process that loads 10,000 libraries, and the same without `PROCMAP_QUERY`, as on \
            kernels before 6.11. At 10,000 the target is the ratio at 100."
            .to_owned(),
        rounds,
        columns: [few, few_older].into_iter().chain(columns).collect(),
    })
}

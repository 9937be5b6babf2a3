//! The cost of loading the library into a program that runs already: for how long it stops the
//! other threads.

use crate::page::{Column, Compared, Section, Variant};
use crate::rounds::{Rounds, interleave};
use crate::run;
use crate::site::Site;

const ROUNDS: usize = 15;

/// Measures late pins.
///
/// # Errors
/// If a program fails, or does not pin everything.
pub fn late(site: &Site) -> Result<Section, String> {
    let (small, small_objects) = gaps(site, "app")?;
    let (large, large_objects) = gaps(site, "scientific")?;
    let column = |objects: usize, gaps: &Rounds| {
        Column::new(&format!("{objects} objects: longest gap"), "ms", &[Compared::Extra], gaps.cells())
    };
    let columns = vec![column(small_objects, &small), column(large_objects, &large)];
    Ok(Section {
        title: "Loading the library into a program that runs already".to_owned(),
        about: "Python loads libsopin.so by `dlopen` after the imports of the Flask service, or of the scientific one, which \
                pins all objects. Another thread reads the clock all the time: the longest time between two readings while \
                the library is loaded. Natively the program waits instead, and the gaps are those that the scheduler makes."
            .to_owned(),
        rounds: small.count(),
        columns,
    })
}

/// Returns the longest gap in a process that has imported `module`, in milliseconds, and the number of
/// its objects before.
fn gaps(site: &Site, module: &str) -> Result<(Rounds, usize), String> {
    let mut objects = 0;
    let [gaps] = interleave(site, &[Variant::Native, Variant::Warm, Variant::Cold], ROUNDS, |variant| {
        let mut command = site.python(Variant::Native)?;
        command.arg(site.program("late.py")).arg(module).arg(site.built("libgaps.so"));
        if variant != Variant::Native {
            let store = if variant == Variant::Cold { site.new_store() } else { site.warm_store() };
            command.arg(&site.library).env("SOPIN_STORE", store);
        }
        let printed = run::run(&mut command)?;
        let numbers = printed
            .split_once(' ')
            .and_then(|(gap, objects)| Some((gap.parse::<f64>().ok()?, objects.trim().parse::<usize>().ok()?)));
        let (gap, found) = numbers.ok_or_else(|| format!("{command:?} prints {printed:?}"))?;
        objects = found;
        Ok([gap])
    })?;
    Ok((gaps, objects))
}

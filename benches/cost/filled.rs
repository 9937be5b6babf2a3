//! The first start with a system's store that `sopin store fill` has filled.

use std::fs;
use std::process::Command;

use crate::mounts::Mounts;
use crate::page::{Column, Compared, Section, Variant};
use crate::rounds::interleave;
use crate::run::{self, Held};
use crate::site::Site;

const ROUNDS: usize = 7;
const VARIANTS: [Variant; 4] = [Variant::Native, Variant::Warm, Variant::Cold, Variant::Filled];
/// The fewest objects of the system's store that a start must map.
const LEAST: usize = 150;

/// Keeps a mount namespace with another, empty `/var/lib`, so that the machine's own store stays as it
/// is, until the end of standard input.
const KEEPER: &str = "\
rm -rf \"$HERE\"
mkdir -p \"$HERE\"
mount --bind \"$HERE\" /var/lib
echo ready
read -r line || true
";

/// A mount namespace with a system's store of its own.
struct Namespace {
    keeper: Held,
    mounts: Mounts,
}

impl Namespace {
    fn new(site: &Site) -> Result<Self, String> {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-euc", KEEPER]);
        let keeper = Held::start(command.env("HERE", site.built("var-lib")))
            .map_err(|error| format!("no system's store can be made, for which root is needed: {error}"))?;
        let mounts = Mounts::of(keeper.pid())?;
        Ok(Self { keeper, mounts })
    }
}

/// Measures the imports of a process that serves data: the first start of a user, with and without a
/// system's store.
///
/// # Errors
/// If a program fails, or a start does not use the store.
pub fn filled(site: &Site) -> Result<Section, String> {
    let namespace = Namespace::new(site)?;
    let start = |variant| {
        let mut command = site.python(variant)?;
        command.arg(site.program("importing.py")).arg("scientific");
        if variant == Variant::Filled {
            namespace.mounts.enter(&mut command);
        }
        Held::start(&mut command)
    };
    let example = start(Variant::Native)?;
    let mut fill = Command::new(site.checkout.join("target/release/sopin"));
    fill.args(["store", "fill", "--used-by", &example.pid().to_string()]);
    run::run(namespace.mounts.enter(&mut fill))?;
    example.end()?;
    let [cpu, elapsed] = interleave(site, &VARIANTS, ROUNDS, |variant| {
        let held = start(variant)?;
        if variant == Variant::Filled {
            let mapped = copies_mapped_by(held.pid())?;
            if mapped < LEAST {
                return Err(format!("{mapped} objects are mapped from the system's store"));
            }
        }
        let elapsed = held.took;
        Ok([1e3 * held.end()?.as_secs_f64(), 1e3 * elapsed.as_secs_f64()])
    })?;
    namespace.keeper.end()?;
    Ok(Section {
        title: "The first start with a store that was filled beforehand".to_owned(),
        about: "Imports of numpy, scipy, pandas and SQLAlchemy. A cold start copies all objects, and with a filled store none: \
                `sopin store fill` has put those that every user may read into the system's store, and the others, which are \
                of the Python of this machine, are in the user's."
            .to_owned(),
        rounds: cpu.count(),
        columns: vec![
            Column::new("CPU", "ms", &[Compared::Ratio, Compared::Extra], cpu.cells()),
            Column::new("elapsed", "ms", &[Compared::Extra], elapsed.cells()),
        ],
    })
}

/// Returns how many files of a system's store a process maps executable.
fn copies_mapped_by(process: u32) -> Result<usize, String> {
    let maps = format!("/proc/{process}/maps");
    let maps = fs::read_to_string(&maps).map_err(|error| format!("{maps}: {error}"))?;
    let is_copy = |line: &&str| line.contains(" r-xp ") && line.contains("/sopin/") && !line.contains("/stores/");
    Ok(maps.lines().filter(is_copy).count())
}

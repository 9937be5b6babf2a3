//! Imports of `TensorFlow`, and of `PyTorch` with its CUDA libraries: what objects of a gigabyte cost.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::inodes;
use crate::memory;
use crate::page::situations::names;
use crate::page::{Column, Compared, Section, Variant};
use crate::rounds::interleave;
use crate::run::Held;
use crate::site::Site;

const VARIANTS: [Variant; 4] = [Variant::Native, Variant::Warm, Variant::Cold, Variant::Memfd];
/// Each of them takes half a minute.
const ROUNDS: usize = 2;
/// The packages: the module, its name, how many objects it loads at least, and the names of summaries.
const PACKAGES: [(&str, &str, usize, [&str; 2]); 2] = [
    ("tensorflow", "TensorFlow", 100, [names::TENSORFLOW_START, names::TENSORFLOW_FIRST]),
    ("torch", "PyTorch", 60, [names::PYTORCH_START, names::PYTORCH_FIRST]),
];

/// Returns whether the packages are there. They are too large to be made for every benchmark.
pub fn is_possible(site: &Site) -> bool {
    python(site).exists()
}

/// Measures the imports.
///
/// # Errors
/// If the packages are missing, or a program fails.
pub fn big(site: &Site) -> Result<Section, String> {
    if !is_possible(site) {
        return Err("no TensorFlow and PyTorch; run scripts/big-environment".to_owned());
    }
    let (mut columns, mut rounds) = (Vec::new(), 0);
    for (module, name, least, [start, first]) in PACKAGES {
        let [cpu, elapsed, memory, disk] =
            interleave(site, &VARIANTS, ROUNDS, |variant| import(site, variant, module, least))?;
        let column = |what: &str, unit, compared: &[Compared], rounds: &crate::rounds::Rounds| {
            Column::new(&format!("{name}: {what}"), unit, compared, rounds.cells())
        };
        columns.extend([
            column("CPU", "ms", &[Compared::Ratio], &cpu)
                .target(Variant::Warm, Compared::Ratio, 1.05)
                .in_summary(start),
            column("elapsed", "ms", &[Compared::Extra], &elapsed)
                .target(Variant::Warm, Compared::Extra, 100.0)
                .in_summary(first),
            column("memory", "MiB", &[Compared::Extra], &memory).target(Variant::Warm, Compared::Extra, 10.0),
            column("store", "MiB", &[], &disk),
        ]);
        rounds = cpu.count();
    }
    Ok(Section {
        title: "Importing TensorFlow, and PyTorch with its CUDA libraries".to_owned(),
        about: "`import tensorflow` and `import torch`, the packages that pip installs; there is no GPU. CPU, elapsed and \
            memory as above; the store is what its copies take on the disk. Where there is no store, the largest objects \
            exceed `SOPIN_PRIVATE_LIMIT` and are pinned in part."
            .to_owned(),
        rounds,
        columns,
    })
}

fn python(site: &Site) -> PathBuf {
    site.checkout.join("target/bench-big/bin/python")
}

/// Imports a module. Returns the four numbers of the columns.
fn import(site: &Site, variant: Variant, module: &str, least: usize) -> Result<[f64; 4], String> {
    let mut command = site.command(&python(site), variant);
    // Kept only until the end, because of its size.
    if variant == Variant::Warm {
        command.env("SOPIN_STORE", site.stores().join(format!("cold/{module}")));
    }
    if variant == Variant::Memfd {
        command.env("SOPIN_LOG", "off");
    }
    // The import makes as many threads as the machine has processors, and prints what it misses.
    command.env("OMP_NUM_THREADS", "1").env("TF_CPP_MIN_LOG_LEVEL", "3").env("PYTHONDONTWRITEBYTECODE", "1");
    command.arg(site.program("importing.py")).arg(module).stderr(std::process::Stdio::null());
    let store = store_of(&command);
    let held = Held::start(&mut command)?;
    let text = memory::text_of(held.pid(), &site.stores())?;
    if variant == Variant::Memfd {
        // The largest object stays in its file.
        text.check(variant, least / 2)?;
    } else {
        text.check(variant, least)?;
    }
    let memory = memory::of(&[held.pid()], &site.stores())?;
    let elapsed = held.took;
    let cpu = held.end()?;
    let disk = store.map_or(Ok(0), |store| {
        let mut blocks = 0;
        let mut add = |file: &Path| {
            blocks += fs::metadata(file)?.blocks();
            Ok(())
        };
        inodes::for_each_file(&store, &mut add).map(|()| blocks)
    });
    let disk = disk.map_err(|error: io::Error| error.to_string())?;
    #[expect(clippy::cast_precision_loss, reason = "no disk is that large")]
    let disk = disk as f64 / 2048.0;
    Ok([1e3 * cpu.as_secs_f64(), 1e3 * elapsed.as_secs_f64(), memory.proportional, disk])
}

/// Returns the directory of the store that a command uses.
fn store_of(command: &Command) -> Option<PathBuf> {
    let store = command.get_envs().find(|(name, _)| *name == "SOPIN_STORE")?.1?;
    (store != "off").then(|| store.into())
}

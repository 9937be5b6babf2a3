//! The cost of `sopin enable`: what loading the library adds to a start of Python.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::page::{Column, Compared, Section, Variant};
use crate::rounds::interleave;
use crate::run;
use crate::site::Site;

const ROUNDS: usize = 100;

/// The files that the wheel has, as far as a start reads them.
const INSTALL: &str = "set -eu
\"$1\" -m venv --without-pip --clear \"$2\"
for packages in \"$2\"/lib/python3.*/site-packages; do
    cp -a \"$3/python/src/.\" \"$packages\"
    cp \"$4\" \"$packages/sopin/libsopin.so\"
    \"$1\" \"$3/python/library_sums.py\" \"$4\" >\"$packages/sopin/libsopin.sums\"
    mkdir \"$packages/sopin-$5.dist-info\"
    # As pip does.
    \"$1\" -m compileall -q \"$packages\"
done
cp \"$3/target/release/sopin\" \"$2/bin/sopin\"
";

/// Measures the start and end of a Python that has nothing to do.
///
/// # Errors
/// If there is no Python, or a program fails.
pub fn enabled(site: &Site) -> Result<Section, String> {
    let (plain, enabled) = (environment(site, "plain")?, environment(site, "enabled")?);
    run::run(Command::new(enabled.join("bin/sopin")).arg("enable"))?;
    let [wall, cpu] = interleave(site, &[Variant::Native, Variant::Warm, Variant::Cold], ROUNDS, |variant| {
        let python = if variant == Variant::Native { &plain } else { &enabled };
        let mut command = site.command(&python.join("bin/python"), Variant::Native);
        match variant {
            Variant::Cold => command.env("SOPIN_STORE", site.new_store()),
            _ => command.env("SOPIN_STORE", site.warm_store()),
        };
        let (wall, cpu) = run::start_and_end(command.args(["-c", ""]))?;
        Ok([1e3 * wall.as_secs_f64(), 1e3 * cpu.as_secs_f64()])
    })?;
    Ok(Section {
        title: "Starting Python where `sopin enable` was run".to_owned(),
        about: "`python -c ''` in a virtual environment, natively without `sopin.pth`. With it, Python loads the library by \
                `dlopen`, which pins all objects after the program has begun; `LD_PRELOAD` costs what \"Starting a tiny \
                program\" shows."
            .to_owned(),
        rounds: wall.count(),
        columns: vec![
            Column::new("elapsed", "ms", &[Compared::Extra], wall.cells()).target(Variant::Warm, Compared::Extra, 3.0),
            Column::new("CPU of the program", "ms", &[Compared::Extra], cpu.cells()),
        ],
    })
}

/// Makes an environment with the package and the command.
fn environment(site: &Site, name: &str) -> Result<PathBuf, String> {
    let to = site.built("python").join(name);
    fs::create_dir_all(&to).map_err(|error| format!("{}: {error}", to.display()))?;
    let python = site.checkout.join("target/test-python/bin/python");
    let python = if python.exists() { python } else { Path::new("python3").to_owned() };
    let mut install = Command::new("sh");
    install.args(["-c", INSTALL, "sh"]).arg(python).arg(&to).arg(&site.checkout).arg(&site.library);
    run::run(install.arg(env!("CARGO_PKG_VERSION")))?;
    Ok(to)
}

//! The cost of examining every process of a machine.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::page::{Column, Compared, Section, Variant};
use crate::rounds::interleave;
use crate::run::{self, Held};
use crate::site::Site;

const PROCESSES: usize = 500;
const ROUNDS: usize = 5;

/// Measures `sopin status --all`.
///
/// # Errors
/// If a process does not start, or the command fails.
pub fn status(site: &Site) -> Result<Section, String> {
    let [cpu] = interleave(site, &[Variant::Native, Variant::Warm], ROUNDS, |variant| {
        let _processes = (0..PROCESSES).map(|_| waiting(site, variant)).collect::<Result<Vec<_>, _>>()?;
        let mut command = Command::new(site.checkout.join("target/release/sopin"));
        command.args(["status", "--all"]).stdin(Stdio::null());
        let (listed, cpu) = run::output_and_cpu(&mut command)?;
        // There is at least a line for each of these processes; other processes have
        // lines too.
        let lines = listed.lines().count();
        if lines < PROCESSES {
            return Err(format!("sopin status --all prints {lines} lines for {PROCESSES} processes"));
        }
        Ok([1e3 * cpu.as_secs_f64()])
    })?;
    Ok(Section {
        title: "Looking at every process".to_owned(),
        about: format!(
            "`sopin status --all` as root, besides {PROCESSES} processes of a shell that waits, which run without sopin or with \
             it. CPU is user and system time of the command."
        ),
        rounds: cpu.count(),
        columns: vec![Column::new("CPU", "ms", &[], cpu.cells()).target(Variant::Native, Compared::No, 1000.0).target(
            Variant::Warm,
            Compared::No,
            1000.0,
        )],
    })
}

/// Starts a process that does nothing.
fn waiting(site: &Site, variant: Variant) -> Result<Held, String> {
    Held::start(site.command(Path::new("/bin/sh"), variant).args(["-c", "echo; read _"]))
}

//! The cost of examining every process of a machine.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::page::{Column, Compared, Section, Variant};
use crate::rounds::{Rounds, interleave};
use crate::run::{self, Held};
use crate::site::Site;

const PROCESSES: usize = 5000;
const ROUNDS: usize = 3;

/// Measures `sopin status --all`.
///
/// # Errors
/// If a process does not start, or the command fails.
pub fn status(site: &Site) -> Result<Section, String> {
    let variants = [Variant::Native, Variant::Warm];
    let [elapsed, cpu, memory] = interleave(site, &variants, ROUNDS, |variant| {
        let crowd = crowd(site, variant)?;
        let mut command = Command::new(site.checkout.join("target/release/sopin"));
        command.args(["status", "--all"]).stdin(Stdio::null());
        let begin = Instant::now();
        let (listed, usage) = run::output_and_usage(&mut command)?;
        let elapsed = begin.elapsed();
        // There is at least a line for each of these processes; other processes have
        // lines too.
        let lines = listed.lines().count();
        if lines < PROCESSES {
            return Err(format!("sopin status --all prints {lines} lines for {PROCESSES} processes"));
        }
        crowd.end()?;
        Ok([1e3 * elapsed.as_secs_f64(), 1e3 * usage.cpu.as_secs_f64(), usage.peak_mib])
    })?;
    let column = |what: &str, unit: &str, rounds: &Rounds, most: f64| {
        let column = Column::new(what, unit, &[], rounds.cells());
        variants.into_iter().fold(column, |column, variant| column.target(variant, Compared::No, most))
    };
    Ok(Section {
        title: "Looking at every process".to_owned(),
        about: format!(
            "`sopin status --all` as root, besides {PROCESSES} processes of a shell that waits, which run without sopin or with \
             it. CPU is user and system time of the command, memory the most that it had at a time."
        ),
        rounds: cpu.count(),
        columns: vec![
            column("elapsed", "ms", &elapsed, 2000.0),
            column("CPU", "ms", &cpu, 1000.0),
            column("memory", "MiB", &memory, 64.0),
        ],
    })
}

/// Starts the processes, which do nothing.
fn crowd(site: &Site, variant: Variant) -> Result<Held, String> {
    let mut command = site.command(&site.built("crowd"), variant);
    Held::start(command.arg(PROCESSES.to_string()).arg(Path::new("/bin/sh")).args(["-c", "echo; read _"]))
}

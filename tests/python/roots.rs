//! The wheel beside other C libraries: in the roots that `scripts/lab-roots` has made, with their own
//! Python. pip decides by the tags of the wheel whether it is for such a machine.

use std::fs;
use std::path::Path;
use std::process::Command;

use libtest_mimic::Completion;
use rustix::fs::FlockOperation;

use super::Try;
use super::site::{self, Site};
use crate::common::library::checkout;
use crate::common::process::Outcome;

pub const TRIALS: &[(&str, Try)] = &[
    ("roots::glibc_2_31", |site, directory| beside(site, directory, "glibc-2.31", "manylinux_2_17")),
    ("roots::glibc_2_36", |site, directory| beside(site, directory, "glibc-2.36", "manylinux_2_17")),
    ("roots::glibc_2_41", |site, directory| beside(site, directory, "glibc-2.41", "manylinux_2_17")),
    ("roots::musl", |site, directory| beside(site, directory, "musl", "musllinux_1_2")),
];

fn beside(site: &Site, directory: &Path, system: &str, platform: &str) -> Result<Completion, String> {
    let root = Site::target("lab/roots").join(system);
    if !root.join(".made-from").exists() {
        return Ok(Completion::ignored_with(format!("no target/lab/roots/{system} (scripts/lab-roots make {system})")));
    }
    let (wheel, tools) = match (site.wheel(), Site::tools()) {
        (Ok(wheel), Ok(tools)) => (wheel, tools),
        (Err(reason), _) | (_, Err(reason)) => return reason.into_completion(),
    };
    let installed = directory.join("installed");
    let mut pip = Command::new(tools.join("bin/python"));
    pip.args(["-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-index", "--no-deps", "--target"]);
    pip.arg(&installed).args(["--only-binary", ":all:", "--implementation", "py", "--platform"]);
    pip.arg(format!("{platform}_{}", std::env::consts::ARCH)).arg(wheel);
    if let Err(reason) = site::succeed(&mut pip, directory, "pip") {
        return reason.into_completion();
    }
    // The suites of tests/lab hold the lock while they change the root.
    let lock = root.with_file_name(format!("{system}.lock"));
    let lock = fs::File::create(&lock).map_err(|error| format!("{}: {error}", lock.display()))?;
    rustix::fs::flock(&lock, FlockOperation::LockShared).map_err(|error| error.to_string())?;
    let mut enter = Command::new(checkout().join("scripts/lab-roots"));
    enter.arg("enter").arg(&root).args(["sh", "-eu"]).arg(site::program("root-trial")).arg(directory);
    let finished = site::run(&mut enter, directory, "trial")?;
    match finished.outcome {
        Outcome::Exit(42) => Ok(Completion::Completed),
        Outcome::Exit(69) => Ok(Completion::ignored_with(finished.stderr.trim().to_owned())),
        _ => Err(finished.to_string()),
    }
}

//! Runs suites beside other C libraries: `guest/suites` runs in a root that `scripts/lab-roots`
//! has made, on this machine's kernel, with the library and the command that
//! `scripts/dist-binaries` has built. One root has a Python for musl. The harness of the fixtures
//! is a static executable (`scripts/static-harness`) and uses the root's compiler and headers.
//!
//! `SOPIN_LAB`, `SOPIN_LAB_SUITES`, `SOPIN_LAB_FIXTURES` and `SOPIN_LAB_SKIP` choose, as for
//! machines ([`crate::systems`]).

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use libtest_mimic::{Completion, Failed, Trial};
use rustix::fs::FlockOperation;

use crate::common::{library, process};
use crate::results::{self, Results};
use crate::systems;

/// The default: all but the fixtures, which take a quarter of an hour, `calls`, which needs
/// strace, and `demo`, which takes minutes.
const SUITES: &str = "python,status,store";

/// The longest time for all suites, on a machine that has other work.
const TIMEOUT: Duration = Duration::from_secs(3600);

/// The names of `scripts/lab-roots`.
const SYSTEMS: [&str; 5] = ["glibc-2.31", "glibc-2.36", "glibc-2.41", "glibc-newest", MUSL];

/// The root whose Python is built for musl. Of the fixtures, only those for musl run there.
const MUSL: &str = "musl";

/// Returns one trial for each root. If `SOPIN_LAB` names no system, it runs too, provided that
/// the root and the files for it have been made; its results are not stored.
pub fn trials(run_directory: &Path) -> Vec<Trial> {
    let trial = |system: &'static str| {
        let directory = run_directory.join(system);
        let is_wanted = systems::is_wanted(system) || env::var_os("SOPIN_LAB").is_none();
        Trial::ignorable_test(format!("roots::{}", system.replace(['-', '.'], "_")), move || {
            if is_wanted { run(system, &directory) } else { Ok(systems::not_wanted(system)) }
        })
    };
    SYSTEMS.into_iter().map(trial).collect()
}

fn run(system: &str, directory: &Path) -> Result<Completion, Failed> {
    let target = library::checkout().join("target");
    let root = target.join("lab/roots").join(system);
    let files = ["dist/x86_64/libsopin.so", "dist/x86_64/sopin", "lab/harness/static"].map(|file| target.join(file));
    let marker = root.join(".made-from");
    let _alone = lock(&root)?;
    let suites = env::var("SOPIN_LAB_SUITES").unwrap_or_else(|_| SUITES.to_owned());
    // Only these use the harness.
    let needed =
        if suites.split(',').any(|suite| matches!(suite, "basic" | "fixtures" | results::FAILED)) { 3 } else { 2 };
    if let Some(missing) = files.iter().take(needed).chain([&marker]).find(|file| !file.exists()) {
        let reason = format!("no {} (make lab WHAT={system})", missing.display());
        return Ok(Completion::ignored_with(reason));
    }
    let commit = (systems::is_wanted(system) && !systems::are_others_selected()).then(results::commit).transpose()?;
    fs::create_dir(directory)?;
    // Suites rewrite the root's libraries, with the same bytes. If one is killed meanwhile, the
    // root must be made again: it is complete only while it has this file.
    let kept = directory.join("made-from");
    fs::copy(&marker, &kept)?;
    fs::remove_file(&marker)?;
    let mut command = command(system, &root, &files, &suites)?;
    let finished = process::run(&mut command, &directory.join("log"), TIMEOUT)?;
    if finished.stdout.lines().any(|line| line == "lab: done") {
        fs::copy(&kept, &marker)?;
    }
    let log = target.join(format!("lab/logs/{system}.stdout"));
    fs::create_dir_all(log.parent().unwrap_or(&target))?;
    fs::write(&log, format!("{}{}", finished.stdout, finished.stderr))?;
    let found = Results::read(&finished.stdout);
    results::keep_lines(system, &found)?;
    if let Some(commit) = commit {
        results::save(system, &found, &commit, &systems::skipped())?;
    }
    found.judge().map_err(|wrong| format!("{wrong}\nsee {}", log.display()))?;
    Ok(Completion::Completed)
}

/// Takes the lock of a root, which is held until the file is closed. Without it another run could
/// rewrite the same libraries at the same time, or `scripts/lab-roots` make the root anew meanwhile.
fn lock(root: &Path) -> Result<File, Failed> {
    let mut name = root.as_os_str().to_owned();
    name.push(".lock");
    fs::create_dir_all(root.parent().unwrap_or(root))?;
    let file = File::create(name)?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
}

fn command(
    system: &str,
    root: &Path,
    [library, command, harness]: &[PathBuf; 3],
    suites: &str,
) -> Result<Command, String> {
    let checkout = library::checkout();
    let mut enter = Command::new(checkout.join("scripts/lab-roots"));
    enter.arg("enter").arg(root).args(["/bin/busybox", "sh"]).arg(checkout.join("tests/lab/guest/suites"));
    enter.env("LAB_C_LIBRARY", if system == MUSL { "musl" } else { "glibc" });
    enter.env("LAB_ROOT", root).env("LAB_CHECKOUT", checkout).env("LAB_FIXTURES", systems::selected());
    enter.env("LAB_SUITES", suites).env("LAB_SKIP", systems::skipped());
    enter.env("LAB_FAILED", results::failed_fixtures(system)?);
    enter.env("SOPIN_TEST_LIBRARY", library).env("LAB_COMMAND", command).env("LAB_HARNESS", harness);
    Ok(enter)
}

//! Suites on other kernels and on another architecture. For each there is a machine with
//! the system of `scripts/lab-system`, in which `guest/suites` runs the harness of the
//! fixtures, a busy Python, the command and a store.
//!
//! `SOPIN_LAB` names the systems, or is `all`; `scripts/lab` prepares them and sets it.
//! `SOPIN_LAB_SUITES` names the suites: `basic` is some of the fixtures, `fixtures` is all
//! of them but those whose names contain a word of `SOPIN_LAB_SKIP`. Each of these is a
//! list with commas. Each test in a machine is a line of
//! `target/lab/results/SYSTEM.tests`; `target/lab/logs/SYSTEM.stdout` is the console.
//! `SOPIN_LAB_FIXTURES` names other fixtures for `basic`, and `SOPIN_LAB_PINS` has words of the names of
//! the trials that `pin` runs; no result is stored then.
//! `SOPIN_LAB_PROCESSORS` is the number of the machine's processors.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use libtest_mimic::{Completion, Failed, Trial};

use crate::common::dialogue::Dialogue;
use crate::common::library;
use crate::emulator::{Architecture, Hardware, add_drive};
use crate::machine::{Laboratory, MISSING, complaint, last_line, script};
use crate::results::{self, Results};

/// The default: all but the fixtures that take hours under emulation.
const SUITES: &str = "basic,python,status,store,calls,pin";

/// The fixtures of the suite `basic`, which cover each way into a process, each protection
/// level and each kind of backing.
pub const BASIC: [&str; 15] = [
    "startup_objects",
    "idle_relocated_pointer",
    "busy",
    "protections",
    "late_pin",
    "runtime_dlopen",
    "published_records",
    "gap_behind_dynamic",
    "shared_file_page",
    "linux_4_18",
    "without_procmap_query",
    "locked_limit",
    "store_fresh",
    "store_rewritten",
    "forked_while_pinning",
];

/// The longest time that a machine may run; all of the fixtures take hours.
const TIMEOUT: Duration = Duration::from_secs(4 * 3600);

/// A system on which suites are run.
#[derive(Clone, Copy)]
struct System {
    name: &'static str,
    /// The kernel's name in `scripts/lab-kernel`.
    kernel: &'static str,
    architecture: Architecture,
}

const SYSTEMS: [System; 7] = [
    System { name: "kernel-5.10", kernel: "5.10", architecture: Architecture::Amd64 },
    System { name: "kernel-6.1", kernel: "6.1", architecture: Architecture::Amd64 },
    System { name: "kernel-6.12", kernel: "6.12", architecture: Architecture::Amd64 },
    System { name: "kernel-newest", kernel: "newest", architecture: Architecture::Amd64 },
    System { name: "arm64", kernel: "arm64", architecture: Architecture::Arm64 },
    System { name: "arm64-16k", kernel: "arm64-16k", architecture: Architecture::Arm64 },
    System { name: "arm64-64k", kernel: "arm64-64k", architecture: Architecture::Arm64 },
];

/// Returns one trial for each system. Each holds the laboratory, so that only one machine runs.
pub fn trials(run_directory: &Path, laboratory: &Arc<Mutex<Laboratory>>) -> Vec<Trial> {
    SYSTEMS
        .into_iter()
        .map(|system| {
            let laboratory = Arc::clone(laboratory);
            let directory = run_directory.join(system.name);
            let is_wanted = is_wanted(system.name);
            Trial::ignorable_test(format!("systems::{}", system.name.replace(['-', '.'], "_")), move || {
                if !is_wanted {
                    return Ok(not_wanted(system.name));
                }
                let _alone = laboratory.lock().unwrap_or_else(PoisonError::into_inner);
                system.run(&directory)
            })
        })
        .collect()
}

/// Returns whether `SOPIN_LAB` names the system.
pub fn is_wanted(system: &str) -> bool {
    let wanted = env::var("SOPIN_LAB").unwrap_or_default();
    wanted == "all" || wanted.split(',').any(|name| name == system)
}

/// Returns the outcome of the trial of a system that `SOPIN_LAB` does not name.
pub fn not_wanted(system: &str) -> Completion {
    Completion::ignored_with(format!("make lab WHAT={system} runs it"))
}

/// Returns whether tests were selected that are not those of the suites.
pub fn are_others_selected() -> bool {
    env::var_os("SOPIN_LAB_FIXTURES").is_some() || env::var_os("SOPIN_LAB_PINS").is_some()
}

/// Returns the fixtures to run in the suite `basic`, separated by commas.
pub fn selected() -> String {
    env::var("SOPIN_LAB_FIXTURES").unwrap_or_else(|_| BASIC.join(","))
}

/// Returns the value of `SOPIN_LAB_SKIP`.
pub fn skipped() -> String {
    env::var("SOPIN_LAB_SKIP").unwrap_or_default()
}

/// Returns the number of processors of a machine. With two, threads of the fixtures run at the same
/// time. One is for a host that has other work: each of two often waits for the other one, also while the
/// host does not run that.
fn processors() -> Result<u8, String> {
    env::var("SOPIN_LAB_PROCESSORS")
        .map_or(Ok(2), |text| text.parse().map_err(|error| format!("SOPIN_LAB_PROCESSORS={text}: {error}")))
}

impl System {
    fn run(self, directory: &Path) -> Result<Completion, Failed> {
        let commit = results::commit()?;
        if let Some(missing) = self.prepare(directory)? {
            return Ok(Completion::ignored_with(missing));
        }
        let log = library::checkout().join(format!("target/lab/logs/{}.console", self.name));
        fs::create_dir_all(log.parent().unwrap_or(&log))?;
        let mut qemu = self.command(directory)?;
        let machine = Dialogue::start(&mut qemu, &log, TIMEOUT)
            .map_err(|error| format!("{}: {error}", self.architecture.emulator()))?;
        let finished = machine.finish()?;
        let found = Results::read(&finished.stdout);
        results::keep_lines(self.name, &found)?;
        if !are_others_selected() {
            results::save(self.name, &found, &commit, &skipped())?;
        }
        found.judge().map_err(|wrong| format!("{wrong}\nsee {}", log.with_extension("stdout").display()))?;
        Ok(Completion::Completed)
    }

    /// Makes the initramfs and the disk with parts of the checkout. Returns what this host
    /// lacks for that.
    fn prepare(self, directory: &Path) -> Result<Option<String>, String> {
        // A name that no fixture has would run nothing.
        let fixtures = library::checkout().join("tests/fixtures");
        if let Some(name) = selected().split(',').find(|name| !fixtures.join(name).join("main.c").exists()) {
            return Err(format!("no fixture {name}"));
        }
        let mut script = script("suites");
        script.args([self.kernel, self.architecture.name()]);
        script.args([self.built("libsopin.so")?, self.built("sopin")?, directory.to_owned()]);
        let output = script.output().map_err(|error| format!("scripts/lab-machine: {error}"))?;
        match output.status.code() {
            Some(0) => Ok(None),
            Some(MISSING) => Ok(Some(last_line(&output))),
            _ => Err(complaint(&output)),
        }
    }

    /// Returns the path of a file of this checkout, built for the architecture. What is built for
    /// publication needs no certain version of the C library.
    fn built(self, file: &str) -> Result<PathBuf, String> {
        let target = library::checkout().join("target");
        Ok(match self.architecture {
            Architecture::Amd64 if file == "libsopin.so" => library::path()?,
            Architecture::Amd64 => target.join("release").join(file),
            Architecture::Arm64 => target.join("dist/aarch64").join(file),
        })
    }

    fn command(self, directory: &Path) -> Result<std::process::Command, String> {
        let suites = env::var("SOPIN_LAB_SUITES").unwrap_or_else(|_| SUITES.to_owned());
        let checkout = library::checkout().display();
        let words = format!(
            "LAB_LAST_DISK=vdb LAB_SYSTEM=rw LAB_CHECKOUT={checkout} LAB_PROGRAM={checkout}/tests/lab/guest/suites \
             LAB_SUITES={suites} LAB_FIXTURES={} LAB_PINS={} LAB_FAILED={} LAB_FAILED_PINS={} LAB_SKIP={}",
            selected(),
            env::var("SOPIN_LAB_PINS").unwrap_or_default(),
            results::failed_fixtures(self.name)?,
            results::failed_pins(self.name)?,
            skipped()
        );
        let initramfs = directory.join("initramfs");
        let hardware = Hardware {
            architecture: self.architecture,
            kernel: self.kernel,
            initramfs: &initramfs,
            processors: processors()?,
            memory: 2048,
            words: &words,
        };
        let mut qemu = hardware.command();
        let systems = library::checkout().join("target/lab/systems");
        // QEMU forgets changes to this disk.
        add_drive(&mut qemu, &systems.join(format!("{}.img", self.architecture.name())), "snapshot=on");
        add_drive(&mut qemu, &directory.join("checkout.img"), "cache=unsafe");
        Ok(qemu)
    }
}

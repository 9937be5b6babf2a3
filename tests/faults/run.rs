//! Runs the host once with at most one failing call, and collects the results.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::calls::{self, Call};
use crate::common::process::{self, Outcome};
use crate::common::{library, scratch};
use crate::scenarios::{self, Always, Before, Scenario};

const TIMEOUT: Duration = Duration::from_secs(30);

/// The compiled host, and the directory of its runs.
pub struct Bench {
    directory: PathBuf,
    /// The directory of the host and its libraries. Its files never change, so that
    /// their copies in a store stay valid.
    pub host: PathBuf,
    warm: PathBuf,
    runs: AtomicU32,
}

/// A call that fails.
#[derive(Clone, Copy)]
pub struct Fault {
    pub call: &'static Call,
    /// The occurrence of the call that fails, from 1.
    pub step: usize,
    pub error: i32,
}

/// The results of a run.
#[derive(Debug)]
pub struct Observed {
    pub outcome: Outcome,
    /// The output that must be the same without the library.
    pub stdout: String,
    /// The library's messages.
    pub messages: Vec<String>,
    /// Segments that differ although they must not change.
    pub wrong: Vec<String>,
    /// Words of writable data that have changed since startup.
    pub changed: BTreeSet<String>,
    /// Sums of objects loaded later.
    pub sums: Vec<String>,
    /// Objects that are not immune to their files.
    pub exposed: BTreeSet<String>,
    /// The calls that the library made.
    pub calls: Vec<&'static Call>,
    /// Entries of the store that are not whole copies.
    pub broken_entries: Vec<String>,
}

impl Bench {
    /// Compiles the host. Fills a store, which takes as long as files need to settle.
    ///
    /// # Errors
    /// The compiler's messages, or the output of the run that fills the store.
    pub fn new(directory: &Path) -> Result<Self, String> {
        let host = directory.join("host");
        fs::create_dir(&host).map_err(|error| format!("{}: {error}", host.display()))?;
        let here = ["-L.", "-Wl,-rpath,$ORIGIN", "-Wl,--no-as-needed"];
        let builds: [(&str, &[&str]); 6] = [
            ("libarm.so", &["libarm.c", "-shared", "-fPIC", "-nostartfiles", "-ldl"]),
            ("libneeded.so", &["libdata.c", "-shared", "-fPIC", "-DDATA_CHECK=needed_check", "-larm"]),
            ("libearly.so", &["libdata.c", "-shared", "-fPIC", "-DDATA_CHECK=data_check"]),
            ("libplain.so", &["libdata.c", "-shared", "-fPIC", "-DDATA_CHECK=data_check", "-nostartfiles"]),
            ("main", &["host.c", "-larm", "-lneeded", "-ldl", "-pthread"]),
            ("supervisor", &["supervisor.c"]),
        ];
        let sources = library::checkout().join("tests/faults");
        for (output, arguments) in builds {
            let mut command = Command::new("cc");
            command.current_dir(&host).args(["-O1", "-g", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE"]);
            command.arg("-I").arg(library::checkout().join("tests/fixtures")).args(here).args(["-o", output]);
            command.arg(sources.join(arguments[0])).args(&arguments[1..]);
            let compiled = command.output().map_err(|error| format!("cc: {error}"))?;
            if !compiled.status.success() {
                return Err(String::from_utf8_lossy(&compiled.stderr).into_owned());
            }
        }
        let bench =
            Self { directory: directory.to_owned(), host, warm: directory.join("warm"), runs: AtomicU32::new(0) };
        bench.fill_store()?;
        Ok(bench)
    }

    /// Fills the store in two runs, so that it contains objects loaded later as well.
    fn fill_store(&self) -> Result<(), String> {
        std::thread::sleep(crate::common::protection::SETTLING_TIME);
        for name in ["store_fill", "store_hit_dlopen"] {
            let scenario = scenarios::ALL.iter().find(|scenario| scenario.name == name).ok_or("no such scenario")?;
            let directory = self.new_directory()?;
            let store = directory.join("store");
            if self.warm.exists() {
                scratch::copy_tree(&self.warm, &store).map_err(|error| error.to_string())?;
            }
            self.run_in(&directory, scenario, Some(&library::path()?), None, None)?;
            let _ = fs::remove_dir_all(&self.warm);
            fs::rename(&store, &self.warm).map_err(|error| format!("{name} has filled no store: {error}"))?;
        }
        Ok(())
    }

    /// Runs the host, with the library or without, with one fault or none.
    ///
    /// # Errors
    /// The reason why it could not be run.
    pub fn run(&self, scenario: &Scenario, preload: Option<&Path>, fault: Option<Fault>) -> Result<Observed, String> {
        self.run_once(scenario, preload, fault, None)
    }

    /// Runs the host under a filter that kills any process that makes `call`.
    ///
    /// # Errors
    /// The reason why it could not be run.
    pub fn run_killing(&self, scenario: &Scenario, preload: Option<&Path>, call: &Call) -> Result<Observed, String> {
        self.run_once(scenario, preload, None, Some(call))
    }

    fn run_once(
        &self,
        scenario: &Scenario,
        preload: Option<&Path>,
        fault: Option<Fault>,
        killing: Option<&Call>,
    ) -> Result<Observed, String> {
        let directory = self.new_directory()?;
        let store = directory.join("store");
        let copied = match scenario.store {
            Before::Nothing => Ok(()),
            Before::Everything => scratch::copy_tree(&self.warm, &store).and_then(|()| keep_times(&self.warm, &store)),
            Before::FromAnotherBoot => scratch::copy_tree(&self.warm, &store),
            Before::OldVersions => scratch::copy_tree(&self.warm, &store).and_then(|()| make_older(&store)),
        };
        copied.map_err(|error| format!("{}: {error}", store.display()))?;
        let observed = self.run_in(&directory, scenario, preload, fault, killing)?;
        fs::remove_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        Ok(observed)
    }

    fn new_directory(&self) -> Result<PathBuf, String> {
        let directory = self.directory.join(self.runs.fetch_add(1, Ordering::Relaxed).to_string());
        fs::create_dir(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        Ok(directory)
    }

    fn run_in(
        &self,
        directory: &Path,
        scenario: &Scenario,
        preload: Option<&Path>,
        fault: Option<Fault>,
        killing: Option<&Call>,
    ) -> Result<Observed, String> {
        let store = directory.join("store");
        let (calls, report) = (directory.join("calls"), directory.join("report"));
        let mut command = Command::new(self.host.join("supervisor"));
        let (number, step, error) = fault.map_or((0, 0, 0), |fault| (fault.call.number, fault.step, fault.error));
        command.current_dir(&self.host).arg(&calls).arg(&report);
        command.args([number.to_string(), step.to_string(), error.to_string()]);
        command.args(scenario.always.iter().map(Always::argument)).args(["--", "./main", scenario.activity]);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SOPIN_") {
                command.env_remove(name);
            }
        }
        command.env_remove("LD_PRELOAD").env("SOPIN_STORE", "off").env("SOPIN_LOG", "warn");
        for (name, value) in scenario.settings {
            let value =
                value.replace("{store}", &store.to_string_lossy()).replace("{dir}", &self.host.to_string_lossy());
            command.env(name, value.replace("{run}", &directory.to_string_lossy()));
        }
        if let Some(call) = killing {
            command.env("FAULTS_KILL", call.number.to_string());
        }
        if scenario.activity == "startup" {
            command.env("FAULTS_AT", "startup");
        }
        if let Some(preload) = preload {
            command.env("FAULTS_PRELOAD", preload);
        }
        let finished =
            process::run(&mut command, &directory.join("host.log"), TIMEOUT).map_err(|error| error.to_string())?;
        let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        let facts = read(&report);
        let facts = |kind: &str| -> Vec<String> {
            facts.lines().filter_map(|line| line.strip_prefix(kind)?.strip_prefix(' ')).map(str::to_owned).collect()
        };
        let said = finished.stderr + &read(&directory.join("log"));
        Ok(Observed {
            outcome: finished.outcome,
            stdout: finished.stdout,
            messages: said.lines().filter(|line| !line.starts_with("exposed: ")).map(str::to_owned).collect(),
            wrong: facts("wrong"),
            changed: facts("changed").into_iter().collect(),
            sums: facts("sum"),
            exposed: facts("exposed").into_iter().collect(),
            calls: read(&calls).lines().map(parse_call).collect::<Result<_, _>>()?,
            broken_entries: self.broken_entries(&store),
        })
    }

    /// Returns the entries that are not equal to the file of which they are a copy.
    fn broken_entries(&self, store: &Path) -> Vec<String> {
        let files = |directory: &Path| {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect::<Vec<_>>()
        };
        let copies = files(store).into_iter().filter(|path| path.is_dir()).flat_map(|key| files(&key));
        let is_broken = |copy: &PathBuf| {
            let name = copy.file_name().unwrap_or_default();
            name != ".source" && fs::read(copy).ok() != fs::read(self.host.join(name)).ok()
        };
        copies.filter(is_broken).map(|copy| copy.display().to_string()).collect()
    }
}

/// Gives the files of a copied store the times of the originals, which show that the
/// entries were written in this boot.
fn keep_times(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            keep_times(&entry.path(), &target)?;
        } else if entry.file_type()?.is_file() {
            fs::File::open(target)?.set_modified(entry.metadata()?.modified()?)?;
        }
    }
    Ok(())
}

/// Makes every entry one of an older version of its file, by changing the time in its
/// name.
fn make_older(store: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(store)? {
        let path = entry?.path();
        let older = path.to_string_lossy() + "0";
        fs::rename(&path, older.as_ref())?;
    }
    Ok(())
}

fn parse_call(line: &str) -> Result<&'static Call, String> {
    let number = line.split(' ').next().and_then(|number| number.parse().ok()).ok_or(line)?;
    calls::find(number).ok_or_else(|| format!("system call {number} is not in the table of tests/faults/calls.rs"))
}

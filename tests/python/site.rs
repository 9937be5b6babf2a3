//! What the trials share: the packages, which are built once in a run, and environments of which
//! each trial gets a copy, because it rewrites and damages what is in it.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use libtest_mimic::Completion;

use crate::common::library::checkout;
use crate::common::process::{self, Finished, Outcome};
use crate::common::{protection, rewrite};

const TIMEOUT: Duration = Duration::from_secs(300);

/// Why something that a trial needs is not there.
#[derive(Clone, Debug)]
pub enum Lack {
    /// The machine lacks it, so the trial is ignored.
    OfMachine(String),
    /// It should be there.
    Failure(String),
}

impl Lack {
    /// Returns how a trial ends that needs it.
    ///
    /// # Errors
    /// The failure.
    pub fn into_completion(self) -> Result<Completion, String> {
        match self {
            Self::OfMachine(reason) => Ok(Completion::ignored_with(reason)),
            Self::Failure(reason) => Err(reason),
        }
    }
}

impl From<String> for Lack {
    fn from(reason: String) -> Self {
        Self::Failure(reason)
    }
}

type Once = OnceLock<Result<PathBuf, Lack>>;

/// The files of a run.
pub struct Site {
    run_directory: PathBuf,
    packages: Once,
    environment: Once,
    services: Once,
}

impl Site {
    pub fn new(run_directory: PathBuf) -> Self {
        Self { run_directory, packages: Once::new(), environment: Once::new(), services: Once::new() }
    }

    /// Returns a path below `target`.
    pub fn target(name: &str) -> PathBuf {
        checkout().join("target").join(name)
    }

    /// Returns the directory of the files that are published, for this machine.
    pub fn binaries() -> PathBuf {
        Self::target("dist").join(env::consts::ARCH)
    }

    /// Returns the environment with the installers and checkers.
    pub fn tools() -> Result<PathBuf, Lack> {
        made_by_test_environments("test-tools")
    }

    /// Returns the directory with the wheel for this machine and the sources.
    pub fn packages(&self) -> Result<PathBuf, Lack> {
        self.packages.get_or_init(|| build_packages(&self.run_directory.join("packages"))).clone()
    }

    pub fn wheel(&self) -> Result<PathBuf, Lack> {
        only(&self.packages()?, ".whl").map_err(Lack::Failure)
    }

    pub fn sources(&self) -> Result<PathBuf, Lack> {
        only(&self.packages()?, ".tar.gz").map_err(Lack::Failure)
    }

    /// Returns an environment of `python3` with nothing but the wheel.
    pub fn environment(&self) -> Result<PathBuf, Lack> {
        let make = || {
            let (wheel, tools) = (self.wheel()?, Self::tools()?);
            let path = self.run_directory.join("environment");
            let mut venv = Command::new("python3");
            succeed(venv.args(["-m", "venv", "--without-pip"]).arg(&path), &self.run_directory, "venv")?;
            install(&wheel, &tools, &path, &self.run_directory)?;
            Ok(path)
        };
        self.environment.get_or_init(make).clone()
    }

    /// Returns an environment with the programs of `examples/python` and the wheel.
    pub fn services(&self) -> Result<PathBuf, Lack> {
        let make = || {
            let services = made_by_test_environments("test-services")?;
            let (wheel, tools) = (self.wheel()?, Self::tools()?);
            let path = self.run_directory.join("services");
            copy_with_own_objects(&services, &path)?;
            install(&wheel, &tools, &path, &self.run_directory)?;
            Ok(path)
        };
        self.services.get_or_init(make).clone()
    }
}

fn made_by_test_environments(name: &str) -> Result<PathBuf, Lack> {
    let path = Site::target(name);
    let reason = || Lack::OfMachine(format!("no target/{name} (scripts/test-environments)"));
    if path.join(".made-from").exists() { Ok(path) } else { Err(reason()) }
}

fn build_packages(to: &Path) -> Result<PathBuf, Lack> {
    dist_wheels(checkout(), to)?;
    Ok(to.to_owned())
}

/// Runs `scripts/dist-wheels` of a checkout for this machine's architecture.
pub fn dist_wheels(checkout: &Path, to: &Path) -> Result<(), Lack> {
    if !Site::binaries().join("sopin").exists() {
        return Err(Lack::OfMachine(format!("no {} (scripts/dist-binaries)", Site::binaries().display())));
    }
    fs::create_dir_all(to).map_err(|error| error.to_string())?;
    let mut command = Command::new(checkout.join("scripts/dist-wheels"));
    command.arg("--to").arg(to).arg(env::consts::ARCH);
    let finished = run(&mut command, to, "dist-wheels")?;
    match finished.outcome {
        Outcome::Exit(0) => Ok(()),
        Outcome::Exit(69) => Err(Lack::OfMachine(finished.stderr.lines().last().unwrap_or_default().to_owned())),
        _ => Err(Lack::Failure(finished.to_string())),
    }
}

/// Installs the wheel into an environment that may have no pip.
fn install(wheel: &Path, tools: &Path, environment: &Path, log: &Path) -> Result<(), Lack> {
    let mut pip = Command::new(tools.join("bin/python"));
    pip.args(["-m", "pip", "--quiet", "--disable-pip-version-check", "--python"]).arg(environment.join("bin/python"));
    succeed(pip.args(["install", "--no-index", "--no-deps"]).arg(wheel), log, "pip")
}

/// Returns the only file in a directory whose name ends so.
pub fn only(directory: &Path, end: &str) -> Result<PathBuf, String> {
    let entries = fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let found: Vec<_> = paths.filter(|path| path.to_string_lossy().ends_with(end)).collect();
    match found.as_slice() {
        [one] => Ok(one.clone()),
        others => Err(format!("not exactly one *{end}: {others:?}")),
    }
}

/// Returns the path of a program of this suite.
pub fn program(name: &str) -> PathBuf {
    checkout().join("tests/python").join(name)
}

/// Returns a command that runs a program of this suite by the Python of an environment.
pub fn script(environment: &Path, name: &str) -> Command {
    let mut command = Command::new(environment.join("bin/python"));
    command.arg(program(name));
    command
}

/// Runs a command without the settings of whoever runs the tests.
pub fn run(command: &mut Command, directory: &Path, name: &str) -> Result<Finished, String> {
    run_within(TIMEOUT, command, directory, name)
}

/// Does the same with a command that may take longer.
pub fn run_within(limit: Duration, command: &mut Command, directory: &Path, name: &str) -> Result<Finished, String> {
    let store = command.get_envs().find(|(name, _)| *name == "SOPIN_STORE").and_then(|(_, value)| value);
    let store: Option<OsString> = store.map(ToOwned::to_owned);
    protection::forget_settings(command);
    command.env("SOPIN_STORE", store.unwrap_or_else(|| "off".into())).env("PYTHONDONTWRITEBYTECODE", "1");
    process::run(command, &directory.join(name), limit).map_err(|error| format!("{command:?}: {error}"))
}

/// Runs a command that must succeed.
pub fn succeed(command: &mut Command, directory: &Path, name: &str) -> Result<(), Lack> {
    let finished = run(command, directory, name)?;
    if finished.outcome == Outcome::Exit(0) { Ok(()) } else { Err(Lack::Failure(format!("{command:?}\n{finished}"))) }
}

/// Copies a directory.
pub fn copy(from: &Path, to: &Path) -> Result<(), String> {
    copied(&["-a"], from, to)
}

/// Copies an environment whose shared objects are to be rewritten: only these are copied, and other
/// files, which nobody changes, are linked.
pub fn copy_with_own_objects(from: &Path, to: &Path) -> Result<(), String> {
    copied(&["-al"], from, to)?;
    let enters = |_: &Path| true;
    let files = crate::common::tree::files(to, enters).map_err(|error| error.to_string())?;
    for file in files {
        let is_one = !file.is_symlink() && rewrite::is_shared_object(&file).map_err(|error| error.to_string())?;
        if is_one {
            let new = file.with_extension("new");
            fs::copy(&file, &new).and_then(|_| fs::rename(&new, &file)).map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

fn copied(options: &[&str], from: &Path, to: &Path) -> Result<(), String> {
    let status = Command::new("cp").args(options).arg(from).arg(to).status().map_err(|error| error.to_string())?;
    if status.success() { Ok(()) } else { Err(format!("cp {} {}: {status}", from.display(), to.display())) }
}

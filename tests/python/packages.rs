//! The packages as files: what is in them, whether their tags are true, and whether a second build
//! has the same bytes.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Completion;

use super::Try;
use super::site::{self, Lack, Site};
use crate::common::library::checkout;
use crate::common::process::Outcome;

pub const TRIALS: &[(&str, Try)] = &[
    ("packages::contents", contents),
    ("packages::reproducible", reproducible),
    ("packages::twine", twine),
    ("packages::tags_of_glibc", tags_of_glibc),
    ("packages::typed", typed),
    ("packages::typed_wrongly_fails", typed_wrongly),
    ("packages::sources_build", sources_build),
];

/// The longest time for building the library and the command on a machine that has other work.
const BUILD_TIMEOUT: Duration = Duration::from_secs(3600);

/// Ends a trial that needs something that is not there.
macro_rules! needed {
    ($lookup:expr) => {
        match $lookup {
            Ok(found) => found,
            Err(reason) => return Lack::from(reason).into_completion(),
        }
    };
}

fn contents(site: &Site, directory: &Path) -> Result<Completion, String> {
    let packages = needed!(site.packages());
    let mut command = Command::new("python3");
    command.arg(site::program("wheel_test.py")).arg(packages).arg(Site::binaries()).arg(env!("CARGO_PKG_VERSION"));
    needed!(site::succeed(&mut command, directory, "wheel_test"));
    Ok(Completion::Completed)
}

/// Builds again in a directory of another name, by a user with another umask.
fn reproducible(site: &Site, directory: &Path) -> Result<Completion, String> {
    let packages = needed!(site.packages());
    let elsewhere = directory.join("a longer name");
    let files = "git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t \"$0\"";
    fs::create_dir_all(elsewhere.join("target")).map_err(|error| error.to_string())?;
    let mut command = Command::new("sh");
    command.args(["-c", &format!("umask 077; {files}")]).arg(&elsewhere).current_dir(checkout());
    if site::run(&mut command, directory, "copy")?.outcome != Outcome::Exit(0) {
        return Ok(Completion::ignored_with("this checkout is no repository of git"));
    }
    for shared in ["dist", "wheel-tools"] {
        symlink(Site::target(shared), elsewhere.join("target").join(shared)).map_err(|error| error.to_string())?;
    }
    let again = directory.join("packages");
    needed!(site::dist_wheels(&elsewhere, &again));
    for end in [".whl", ".tar.gz"] {
        let (one, other) = (site::only(&packages, end)?, site::only(&again, end)?);
        let bytes = |path: &Path| fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
        if one.file_name() != other.file_name() || bytes(&one)? != bytes(&other)? {
            return Err(format!("{} and {} differ", one.display(), other.display()));
        }
    }
    Ok(Completion::Completed)
}

fn twine(site: &Site, directory: &Path) -> Result<Completion, String> {
    let (tools, wheel, sources) = (needed!(Site::tools()), needed!(site.wheel()), needed!(site.sources()));
    let mut command = Command::new(tools.join("bin/twine"));
    needed!(site::succeed(command.args(["check", "--strict"]).arg(wheel).arg(sources), directory, "twine"));
    Ok(Completion::Completed)
}

/// auditwheel looks into the files. It knows one C library for each file, so `tests/dist.rs` and the
/// roots with musl show that the tag for musl is true.
fn tags_of_glibc(site: &Site, directory: &Path) -> Result<Completion, String> {
    let (tools, wheel) = (needed!(Site::tools()), needed!(site.wheel()));
    let mut command = Command::new(tools.join("bin/auditwheel"));
    let finished = site::run(command.arg("show").arg(wheel), directory, "auditwheel")?;
    let said = format!("\"manylinux_2_17_{}\"", env::consts::ARCH);
    let consistent = finished.stdout.split_once("consistent with").map_or("", |(_, tags)| tags);
    if finished.outcome == Outcome::Exit(0) && consistent.contains(&said) {
        Ok(Completion::Completed)
    } else {
        Err(finished.to_string())
    }
}

/// Runs mypy on a program that imports the installed package.
fn mypy(site: &Site, directory: &Path, program: &str) -> Result<Result<(bool, String), Lack>, String> {
    let (tools, environment) = match (Site::tools(), site.environment()) {
        (Ok(tools), Ok(environment)) => (tools, environment),
        (Err(reason), _) | (_, Err(reason)) => return Ok(Err(reason)),
    };
    let file = directory.join("user.py");
    fs::write(&file, program).map_err(|error| error.to_string())?;
    let mut command = Command::new(tools.join("bin/mypy"));
    command.arg("--strict").arg("--python-executable").arg(environment.join("bin/python"));
    command.arg("--cache-dir").arg(directory.join("cache")).arg("user.py").current_dir(directory);
    let finished = site::run(&mut command, directory, "mypy")?;
    Ok(Ok((finished.outcome == Outcome::Exit(0), finished.to_string())))
}

fn user_program() -> Result<String, String> {
    fs::read_to_string(site::program("user.py")).map_err(|error| error.to_string())
}

fn typed(site: &Site, directory: &Path) -> Result<Completion, String> {
    let (is_clean, said) = needed!(mypy(site, directory, &user_program()?)?);
    if is_clean { Ok(Completion::Completed) } else { Err(said) }
}

fn typed_wrongly(site: &Site, directory: &Path) -> Result<Completion, String> {
    let program = user_program()?.replace("sopin.start(period_seconds=2.5)", "sopin.start(period_seconds=\"2.5\")");
    let (is_clean, said) = needed!(mypy(site, directory, &program)?);
    let is_right = !is_clean && said.contains("incompatible type \"str\"") && said.contains("Found 1 error");
    if is_right { Ok(Completion::Completed) } else { Err(said) }
}

/// Builds a wheel of the sources by cargo, and uses it. It takes minutes, so it is done on request only.
fn sources_build(site: &Site, directory: &Path) -> Result<Completion, String> {
    if env::var_os("SOPIN_BUILD_SOURCES").is_none() {
        return Ok(Completion::ignored_with("takes minutes (SOPIN_BUILD_SOURCES=1)"));
    }
    let (tools, sources) = (needed!(Site::tools()), needed!(site.sources()));
    let mut pip = Command::new(Site::target("wheel-tools").join("bin/python"));
    pip.args(["-m", "pip", "--disable-pip-version-check", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]);
    pip.arg("--wheel-dir").arg(directory).arg(sources).env("CARGO_TARGET_DIR", Site::target("test-sources"));
    let built = site::run_within(BUILD_TIMEOUT, &mut pip, directory, "pip")?;
    if built.outcome != Outcome::Exit(0) {
        return Err(built.to_string());
    }
    let wheel = site::only(directory, &format!("-py3-none-linux_{}.whl", env::consts::ARCH))?;
    let mut command = site::script(&tools, "install_trial.py");
    command.arg("venv").arg(wheel).arg(&tools).arg(directory);
    let finished = site::run(&mut command, directory, "trial")?;
    if finished.outcome == Outcome::Exit(42) { Ok(Completion::Completed) } else { Err(finished.to_string()) }
}

//! The Python package: the wheel and the sources that `scripts/dist-wheels` makes of the files in
//! `target/dist`, installed by several installers, in environments in which `sopin enable` was run,
//! and under the programs of `examples/python`. Programs in Python do the work and exit with 42 if
//! all is right; here is what each needs, and which outcome is expected.
//!
//! What this machine cannot try is ignored with the reason. `scripts/test-environments` makes
//! what it needs.

#[path = "../common/mod.rs"]
mod common;

mod packages;
mod roots;
mod site;

use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;

use libtest_mimic::{Completion, Failed, Trial};

use common::process::Outcome;
use common::suite;
use site::Site;

/// The function of a trial. It receives the files of all trials and a directory of its own.
type Try = fn(&Site, &Path) -> Result<Completion, String>;

/// The same with what the trial's name says.
type Bound = Box<dyn Fn(&Site, &Path) -> Result<Completion, String> + Send>;

const INSTALLERS: [&str; 8] = ["venv", "debian", "virtualenv", "uv", "uv_symlinks", "pipx", "user", "target"];
const STARTS: [&str; 9] = [
    "options",
    "other_environment",
    "preloaded",
    "damaged",
    "known",
    "quickly",
    "loader_dies",
    "removed",
    "without_stderr",
];
/// The programs of `examples/python`, and the ways to protect each that are tried.
const SERVICES: [(&str, &[&str]); 6] = [
    ("gunicorn", &["run", "configured", "enabled"]),
    ("uwsgi", &["run", "enabled"]),
    ("uvicorn", &["run", "enabled"]),
    ("celery", &["run", "enabled"]),
    ("scheduler", &["run", "enabled"]),
    ("jupyter", &["enabled"]),
];

fn main() -> ExitCode {
    suite::run("python", |run_directory| Ok(trials(run_directory)), || ())
}

fn trials(run_directory: &Path) -> Vec<Trial> {
    let site = Arc::new(Site::new(run_directory.to_owned()));
    let mut all = Vec::new();
    let mut add = |name: String, try_one: Bound| {
        let site = Arc::clone(&site);
        let directory = run_directory.join(name.replace("::", "."));
        all.push(Trial::ignorable_test(name, move || {
            std::fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
            try_one(&site, &directory).map_err(|error| Failed::from(format!("{error}\nin {}", directory.display())))
        }));
    };
    for (name, try_one) in packages::TRIALS.iter().chain(roots::TRIALS) {
        let try_one: Try = *try_one;
        add((*name).to_owned(), Box::new(try_one));
    }
    for installer in INSTALLERS {
        add(format!("install::{installer}"), Box::new(move |site, directory| install(site, directory, installer)));
    }
    for case in STARTS {
        add(format!("enable::{case}"), Box::new(move |site, directory| enable(site, directory, case)));
    }
    for (program, ways) in SERVICES {
        let dies = Box::new(move |site: &Site, directory: &Path| serve(site, directory, program, "unprotected"));
        add(format!("{program}::unprotected_dies"), dies);
        for &way in ways {
            add(format!("{program}::{way}"), Box::new(move |site, directory| serve(site, directory, program, way)));
        }
    }
    all
}

fn install(site: &Site, directory: &Path, installer: &str) -> Result<Completion, String> {
    if installer == "debian" && !Path::new("/usr/bin/python3").exists() {
        return Ok(Completion::ignored_with("no /usr/bin/python3"));
    }
    let uv = Site::target("test-python").join("bin/uv");
    if installer.starts_with("uv") && !uv.exists() {
        return Ok(Completion::ignored_with("no target/test-python/bin/uv (scripts/test-environments)"));
    }
    let (wheel, tools) = match (site.wheel(), Site::tools()) {
        (Ok(wheel), Ok(tools)) => (wheel, tools),
        (Err(reason), _) | (_, Err(reason)) => return reason.into_completion(),
    };
    let mut command = site::script(&tools, "install_trial.py");
    command.arg(installer).arg(wheel).arg(tools).arg(directory).env("UV", uv);
    conclude(&mut command, directory, 42)
}

fn enable(site: &Site, directory: &Path, case: &str) -> Result<Completion, String> {
    let environment = match site.environment() {
        Ok(environment) => environment,
        Err(reason) => return reason.into_completion(),
    };
    let copy = directory.join("environment");
    site::copy(&environment, &copy)?;
    let mut command = Command::new("python3");
    command.arg(site::program("enable_trial.py")).arg(case).arg(copy);
    conclude(&mut command, directory, 42)
}

/// Lets a program answer while every shared object of its environment is rewritten.
fn serve(site: &Site, directory: &Path, program: &str, way: &str) -> Result<Completion, String> {
    let services = match site.services() {
        Ok(services) => services,
        Err(reason) => return reason.into_completion(),
    };
    let copy = directory.join("environment");
    site::copy_with_own_objects(&services, &copy)?;
    let mut command = site::script(&Site::target("test-services"), "service_trial.py");
    command.args([program, way]).arg(copy).current_dir(directory).env("SOPIN_STORE", directory.join("store"));
    conclude(&mut command, directory, if way == "unprotected" { 43 } else { 42 })
}

/// Runs a program, which must exit with this status.
fn conclude(command: &mut Command, directory: &Path, expected: i32) -> Result<Completion, String> {
    let finished = site::run(command, directory, "trial")?;
    if finished.outcome == Outcome::Exit(expected) { Ok(Completion::Completed) } else { Err(finished.to_string()) }
}

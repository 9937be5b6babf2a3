//! The examples that rewrite files of running programs after `sopin pin`: the script for a
//! deployment, `pip install`, the hook of apt. These trials show what the scripts execute; no
//! process maps the files, so none is pinned.

use std::env;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use libtest_mimic::Completion;

use super::Try;
use super::deployments::{conclude, example, run, unmet};
use super::stage::Stage;
use crate::common::process::Outcome;
use crate::common::protection::forget_settings;

pub const TRIALS: &[(&str, Try)] = &[
    ("deploy::in_place", deploy_in_place),
    ("deploy::without_sopin", deploy_without_sopin),
    ("deploy::usage", deploy_usage),
    ("deploy::pip_install", pip_install),
    ("apt::hook", apt_hook),
];

/// The hook's path of the command, which trials replace.
const INSTALLED: &str = "/usr/local/bin/sopin";

fn write(path: &Path, text: &str, mode: u32) -> Result<(), String> {
    fs::write(path, text)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        .map_err(|error| format!("{}: {error}", path.display()))
}

fn inode(path: &Path) -> Result<u64, String> {
    fs::metadata(path).map(|metadata| metadata.ino()).map_err(|error| format!("{}: {error}", path.display()))
}

/// Returns an example, with `directory` searched for programs before the directories of the
/// system.
fn script(name: &str, directory: &Path) -> Command {
    let mut command = Command::new(example(name));
    forget_settings(&mut command);
    let path = env::join_paths([directory, Path::new("/usr/bin"), Path::new("/bin")]).unwrap_or_default();
    command.env("PATH", path).env("SOPIN_STORE", "off");
    command
}

/// Deploys a new library over the old one. Returns whether it is the same file as before.
fn deploy(programs: &Path, directory: &Path) -> Result<(bool, String), String> {
    let (build, app) = (directory.join("build"), directory.join("app"));
    fs::create_dir_all(build.join("lib")).map_err(|error| error.to_string())?;
    fs::create_dir_all(app.join("lib")).map_err(|error| error.to_string())?;
    write(&app.join("lib/libshop.so"), "the old one", 0o644)?;
    write(&app.join("lib/libgone.so"), "no longer needed", 0o644)?;
    write(&build.join("lib/libshop.so"), "the new library", 0o644)?;
    let before = inode(&app.join("lib/libshop.so"))?;
    let finished = run(script("deploy/deploy", programs).arg(&build).arg(&app), directory, "deploy")?;
    let text = fs::read_to_string(app.join("lib/libshop.so")).map_err(|error| error.to_string())?;
    if finished.outcome != Outcome::Exit(0) || text != "the new library" || app.join("lib/libgone.so").exists() {
        return Err(finished.to_string());
    }
    Ok((inode(&app.join("lib/libshop.so"))? == before, finished.stderr))
}

fn deploy_in_place(stage: &Stage, directory: &Path) -> Result<Completion, String> {
    if let Some(reason) = unmet(&["cmd:rsync"]) {
        return Ok(Completion::ignored_with(reason));
    }
    let (is_same_file, said) = deploy(&stage.path("bin")?, directory)?;
    // Where others' processes may not be inspected, a warning says so.
    let is_right = is_same_file && !said.contains("not installed") && !said.contains("could not be pinned");
    if is_right { Ok(Completion::Completed) } else { Err(said) }
}

fn deploy_without_sopin(_: &Stage, directory: &Path) -> Result<Completion, String> {
    if let Some(reason) = unmet(&["cmd:rsync"]) {
        return Ok(Completion::ignored_with(reason));
    }
    if Path::new("/usr/bin/sopin").exists() {
        return Ok(Completion::ignored_with("sopin is installed in /usr/bin"));
    }
    let (is_same_file, said) = deploy(&directory.join("no-programs"), directory)?;
    let is_right = !is_same_file && said.starts_with("deploy: sopin is not installed; replacing files");
    if is_right { Ok(Completion::Completed) } else { Err(said) }
}

fn deploy_usage(stage: &Stage, directory: &Path) -> Result<Completion, String> {
    for (name, arguments) in [("deploy", &["one"][..]), ("deploy", &["1", "2", "3"]), ("pip-install", &["venv"])] {
        let mut command = script(&format!("deploy/{name}"), &stage.path("bin")?);
        let finished = run(command.args(arguments), directory, "usage")?;
        if finished.outcome != Outcome::Exit(125) || !finished.stderr.starts_with(&format!("usage: {name} ")) {
            return Err(finished.to_string());
        }
    }
    Ok(Completion::Completed)
}

/// In place of Python, a script prints its arguments and whether it has the library.
fn pip_install(stage: &Stage, directory: &Path) -> Result<Completion, String> {
    let environment = directory.join("venv");
    fs::create_dir_all(environment.join("bin")).map_err(|error| error.to_string())?;
    let python = "#!/bin/sh\necho \"$@\"; grep -c ' r-x.*/libsopin.so' /proc/self/maps; exit 7\n";
    write(&environment.join("bin/python"), python, 0o755)?;
    let mut command = script("deploy/pip-install", &stage.path("bin")?);
    let finished = run(command.arg(&environment).args(["--upgrade", "numpy"]), directory, "pip")?;
    let (arguments, mappings) = finished.stdout.split_once('\n').unwrap_or_default();
    let has_library = mappings.trim().parse::<u32>().is_ok_and(|mappings| mappings > 0);
    let is_right = finished.outcome == Outcome::Exit(7) && arguments == "-m pip install --upgrade numpy" && has_library;
    conclude(is_right, &finished)
}

/// Lets apt read the hook, and executes it as apt does, by `sh -c`, with another program in
/// place of the command: the hook would pin every process of this machine.
fn apt_hook(_: &Stage, directory: &Path) -> Result<Completion, String> {
    if let Some(reason) = unmet(&["cmd:apt-config"]) {
        return Ok(Completion::ignored_with(reason));
    }
    let mut command = Command::new("apt-config");
    command.arg("-c").arg(example("apt/90sopin")).args(["dump", "--format", "%v%n", "DPkg::Pre-Invoke"]);
    let finished = run(&mut command, directory, "apt-config")?;
    let hook = finished.stdout.lines().find(|line| line.contains(INSTALLED)).ok_or_else(|| finished.to_string())?;

    let program = directory.join("sopin");
    let hook = hook.replace(INSTALLED, &program.display().to_string());
    let called = directory.join("called");
    let mut apt = Command::new("sh");
    apt.args(["-c", &hook]);
    let finished = run(&mut apt, directory, "without")?;
    if finished.outcome != Outcome::Exit(0) || !finished.stderr.is_empty() {
        return Err(format!("without the command: {finished}"));
    }
    write(&program, &format!("#!/bin/sh\necho \"$@\" >'{}'; echo table; exit 3\n", called.display()), 0o755)?;
    let finished = run(&mut apt, directory, "with")?;
    let arguments = fs::read_to_string(called).map_err(|error| format!("{error}: {finished}"))?;
    let is_right = finished.outcome == Outcome::Exit(0) && finished.stdout.is_empty() && arguments == "pin --all\n";
    conclude(is_right, &finished)
}

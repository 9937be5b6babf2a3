//! The examples that start another program: the wrapper, the systemd drop-in; and the Python
//! package's configuration for gunicorn. (`tests/services` and `tests/containers` have the managers
//! of services and the images.)

use std::env;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use libtest_mimic::Completion;

use super::Try;
use super::python;
use super::stage::Stage;
use crate::common::library::checkout;
use crate::common::needs::Need;
use crate::common::process::{self, Finished, Outcome};
use crate::common::protection::{SETTLING_TIME, forget_settings};

pub const TRIALS: &[(&str, Try)] = &[
    ("wrapper::protects", wrapper_protects),
    ("wrapper::without_library", wrapper_without_library),
    ("systemd::verifies", systemd_verifies),
    ("systemd::service", systemd_service),
    ("gunicorn::starts_again", gunicorn_starts_again),
    ("gunicorn::user", gunicorn_user),
    ("gunicorn::unprotected_dies", gunicorn_unprotected),
];

const TIMEOUT: Duration = Duration::from_secs(100);

pub fn example(path: &str) -> PathBuf {
    checkout().join("examples").join(path)
}

pub fn run(command: &mut Command, directory: &Path, name: &str) -> Result<Finished, String> {
    process::run(command, &directory.join(name), TIMEOUT).map_err(|error| format!("{command:?}: {error}"))
}

pub fn conclude(holds: bool, finished: &Finished) -> Result<Completion, String> {
    if holds { Ok(Completion::Completed) } else { Err(finished.to_string()) }
}

pub fn unmet(words: &[&str]) -> Option<String> {
    words.iter().filter_map(|word| word.parse::<Need>().ok()).find_map(|need| need.unmet())
}

fn wrapper(library: &Path) -> Command {
    let mut command = Command::new(example("wrapper/protected"));
    forget_settings(&mut command);
    command.env("SOPIN_LIBRARY", library).env("SOPIN_STORE", "off");
    command
}

fn wrapper_protects(stage: &Stage, directory: &Path) -> Result<Completion, String> {
    let library = stage.path("lib/libsopin.so")?;
    let other = stage.path("lib/libsopin.so.0")?;
    let (own, others) = (library.display(), other.display());
    let lists = [
        (None, format!("{own}")),
        (Some(String::new()), format!("{own}")),
        (Some(format!("{others}")), format!("{own}:{others}")),
        (Some(format!("{own}")), format!("{own}")),
        (Some(format!("{others} {own}")), format!("{others} {own}")),
    ];
    for (before, after) in lists {
        let mut command = wrapper(&library);
        if let Some(before) = &before {
            command.env("LD_PRELOAD", before);
        }
        command.args(["sh", "-c", r#"printf '%s\n' "$LD_PRELOAD"; cat /proc/self/maps; exit 7"#]);
        let finished = run(&mut command, directory, "wrapper")?;
        let is_right = finished.outcome == Outcome::Exit(7)
            && finished.stdout.starts_with(&format!("{after}\n"))
            && finished.stdout.contains("libsopin.so")
            && finished.stderr.is_empty();
        if !is_right {
            return Err(format!("LD_PRELOAD={before:?}, wanted {after:?}: {finished}"));
        }
    }
    Ok(Completion::Completed)
}

fn wrapper_without_library(_: &Stage, directory: &Path) -> Result<Completion, String> {
    let absent = directory.join("libsopin.so");
    let finished = run(wrapper(&absent).args(["sh", "-c", "exit 7"]), directory, "wrapper")?;
    let said = format!("protected: {}: cannot be read; starting sh without protection\n", absent.display());
    if finished.outcome != Outcome::Exit(7) || finished.stderr != said {
        return Err(finished.to_string());
    }
    let finished = run(&mut wrapper(&absent), directory, "wrapper")?;
    let is_right = finished.outcome == Outcome::Exit(125) && finished.stderr.starts_with("usage: protected COMMAND");
    conclude(is_right, &finished)
}

/// Runs `systemd-analyze verify` on a service with this drop-in.
fn verify(drop_in: &str, directory: &Path) -> Result<Finished, String> {
    let unit = directory.join("example.service");
    let service = "[Service]\nExecStart=/bin/cat\nMemoryDenyWriteExecute=yes\nDynamicUser=yes\n";
    let drop_ins = directory.join("example.service.d");
    fs::create_dir_all(&drop_ins)
        .and_then(|()| fs::write(&unit, service))
        .and_then(|()| fs::write(drop_ins.join("sopin.conf"), drop_in))
        .map_err(|error| error.to_string())?;
    run(Command::new("systemd-analyze").arg("verify").arg(&unit), directory, "verify")
}

fn systemd_verifies(_: &Stage, directory: &Path) -> Result<Completion, String> {
    if let Some(reason) = unmet(&["cmd:systemd-analyze"]) {
        return Ok(Completion::ignored_with(reason));
    }
    let drop_in = fs::read_to_string(example("systemd/sopin.conf")).map_err(|error| error.to_string())?;
    // It exits with 0 even if it reports errors in a drop-in.
    let broken = verify(&drop_in.replace("CacheDirectory=%N", "CacheDirectory=/absolute"), directory)?;
    if !broken.stderr.contains("CacheDirectory= path is absolute") {
        return Err(format!("it does not read the drop-in: {broken}"));
    }
    let finished = verify(&drop_in, directory)?;
    conclude(finished.outcome == Outcome::Exit(0) && finished.stderr.is_empty(), &finished)
}

/// Starts a program as systemd would with the drop-in: with its environment, and with
/// the cache directory that it makes for the service's user.
fn systemd_service(stage: &Stage, directory: &Path) -> Result<Completion, String> {
    let drop_in = fs::read_to_string(example("systemd/sopin.conf")).map_err(|error| error.to_string())?;
    let cache = directory.join("cache/example");
    fs::DirBuilder::new().recursive(true).mode(0o755).create(&cache).map_err(|error| error.to_string())?;
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o755)).map_err(|error| error.to_string())?;
    let library = stage.path("lib/libsopin.so")?;
    wait_until_settled(&library)?;
    let mut command = Command::new("/bin/cat");
    command.arg("/proc/self/maps").env_clear().env("CACHE_DIRECTORY", &cache);
    let mut preloads = false;
    for assignment in drop_in.lines().filter_map(|line| line.strip_prefix("Environment=")) {
        let (name, value) = assignment.split_once('=').ok_or("Environment= without a value")?;
        preloads |= name == "LD_PRELOAD" && value == "/usr/local/lib/libsopin.so";
        command.env(name, if name == "LD_PRELOAD" { library.as_os_str() } else { value.as_ref() });
    }
    let finished = run(&mut command, directory, "service")?;
    let store = format!(" {}/sopin/", cache.display());
    let is_right = preloads
        && drop_in.lines().any(|line| line == "CacheDirectory=%N")
        && finished.outcome == Outcome::Exit(0)
        && finished.stdout.matches(&store).count() >= 4
        && finished.stderr.is_empty();
    conclude(is_right, &finished)
}

/// Waits until the store accepts a file that was just installed.
fn wait_until_settled(file: &Path) -> Result<(), String> {
    let changed = fs::metadata(file).and_then(|metadata| metadata.modified()).map_err(|error| error.to_string())?;
    let age = SystemTime::now().duration_since(changed).unwrap_or_default();
    std::thread::sleep(SETTLING_TIME.saturating_sub(age));
    Ok(())
}

/// Returns a gunicorn in a directory of its own, or why there is none.
fn gunicorn() -> Result<PathBuf, String> {
    // Trials run at the same time; the first one installs it.
    static INSTALLED: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    INSTALLED.get_or_init(install_gunicorn).clone()
}

fn install_gunicorn() -> Result<PathBuf, String> {
    const VERSION: &str = "gunicorn==23.0.0";
    let directory = checkout().join("target/test-gunicorn");
    if directory.join("bin/gunicorn").exists() {
        return Ok(directory);
    }
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]);
    let installed = pip.arg(&directory).arg(VERSION).output();
    if installed.is_ok_and(|installed| installed.status.success()) {
        Ok(directory)
    } else {
        Err("pip could not install gunicorn".to_owned())
    }
}

fn serve(library: &Path, directory: &Path, user: Option<&str>) -> Result<Result<Finished, String>, String> {
    let gunicorn = match gunicorn() {
        Ok(gunicorn) => gunicorn,
        Err(reason) => return Ok(Err(reason)),
    };
    let extension = match python::extension(directory)? {
        Ok(extension) => extension,
        Err(reason) => return Ok(Err(reason)),
    };
    wait_until_settled(&extension)?;
    let mut command = Command::new("python3");
    forget_settings(&mut command);
    let path = env::join_paths([gunicorn, checkout().join("python/src")]).map_err(|error| error.to_string())?;
    command.env("PYTHONPATH", path).env("PYTHONDONTWRITEBYTECODE", "1").env("SOPIN_LIBRARY", library);
    command.current_dir(directory).arg(checkout().join("tests/installed/gunicorn_trial.py"));
    command.arg(extension).args(user);
    run(&mut command, directory, "gunicorn").map(Ok)
}

fn survives(stage: &Stage, directory: &Path, user: Option<&str>) -> Result<Completion, String> {
    match serve(&stage.path("lib/libsopin.so")?, directory, user)? {
        Err(reason) => Ok(Completion::ignored_with(reason)),
        Ok(finished) => {
            let said = finished.stderr.contains("libsopin:") || finished.stderr.contains("not protected");
            conclude(finished.outcome == Outcome::Exit(42) && !said, &finished)
        }
    }
}

fn gunicorn_starts_again(stage: &Stage, directory: &Path) -> Result<Completion, String> {
    survives(stage, directory, None)
}

fn gunicorn_user(stage: &Stage, _: &Path) -> Result<Completion, String> {
    if let Some(reason) = unmet(&["root"]) {
        return Ok(Completion::ignored_with(reason));
    }
    // That user may not have access to the checkout, so everything is copied.
    let elsewhere = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir_in(env::temp_dir())
        .map_err(|error| error.to_string())?;
    survives(stage, elsewhere.path(), Some("nobody"))
}

fn gunicorn_unprotected(_: &Stage, directory: &Path) -> Result<Completion, String> {
    match serve(&directory.join("libsopin.so"), directory, None)? {
        Err(reason) => Ok(Completion::ignored_with(reason)),
        Ok(finished) => {
            let said = finished.stderr.contains("libsopin.so: not loaded; this service is not protected");
            conclude(finished.outcome == Outcome::Exit(43) && said, &finished)
        }
    }
}

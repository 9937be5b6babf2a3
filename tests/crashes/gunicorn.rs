//! The crash with which this project began: the wheel of `SQLAlchemy` is installed again over the
//! same files, as `shutil.copyfile` does it, and the workers of gunicorn die.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::dialogue::Dialogue;
use crate::common::library::checkout;
use crate::common::process::patience;
use crate::common::{protection, rewrite};
use crate::cores::{self, DEFAULT_FILTER};
use crate::explained::{self, Verdict};
use crate::hosts::{python, succeed};

/// The time in which the service becomes ready, and in which its worker dies.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The reinstallations under load, each of which may hit a worker that is not in the files.
const INSTALLATIONS: usize = 20;
/// The time between them, in which the master notices that its worker has died.
const PAUSE: Duration = Duration::from_millis(200);
/// Installs the compiled extensions of one directory into the other one.
const INSTALL: &str = "\
import pathlib, shutil, sys
for extension in pathlib.Path(sys.argv[1]).rglob('*.so'):
    shutil.copyfile(extension, pathlib.Path(sys.argv[2]) / extension.relative_to(sys.argv[1]))
";

/// Returns why it cannot be run here, if that is so.
pub fn unmet_need() -> Option<String> {
    let is_missing = !python().is_file() || !wheel().is_dir();
    is_missing.then(|| "no target/test-python or target/bench-packages: run scripts/test-environments".to_owned())
}

fn wheel() -> PathBuf {
    checkout().join("target/bench-packages/sqlalchemy/cyextension")
}

/// A gunicorn with one worker.
struct Service {
    process: Dialogue,
    log: PathBuf,
    port: u16,
    /// The directory of the extensions that it has loaded.
    extensions: PathBuf,
}

impl Service {
    fn start(directory: &Path) -> Result<Self, String> {
        let packages = directory.join("packages");
        rewrite::copy_installation(&checkout().join("target/bench-packages"), &packages)
            .map_err(|error| format!("{}: {error}", packages.display()))?;
        let example = checkout().join("examples/gunicorn");
        let log = directory.join("gunicorn.log");
        let set = |command: &mut Command| {
            protection::forget_settings(command);
            command.env("PYTHONPATH", format!("{}:{}", packages.display(), example.display()));
            command.env("PYTHONDONTWRITEBYTECODE", "1").env("DEMO_WORKERS", "1").env("DEMO_BIND", "127.0.0.1:0");
            command.env("DEMO_DATABASE", directory.join("shop.sqlite"));
        };
        let mut create = Command::new(python());
        create.arg(example.join("app.py"));
        set(&mut create);
        succeed(create)?;
        let mut command = cores::command(&python(), directory, DEFAULT_FILTER);
        command.args(["-m", "gunicorn", "-c"]).arg(example.join("gunicorn.conf.py")).arg("--chdir").arg(directory);
        command.arg("--log-file").arg(&log).arg("app:app");
        set(&mut command);
        let process = cores::start(command, directory)?;
        let extensions = packages.join("sqlalchemy/cyextension");
        let mut service = Self { process, log, port: 0, extensions };
        service.port = wait_for(|| service.printed_port().ok_or_else(|| "no port was printed".to_owned()))?;
        wait_for(|| request(service.port, 1))?;
        Ok(service)
    }

    fn printed(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Returns the port of a line like `Listening at: http://127.0.0.1:40001 (7)`.
    fn printed_port(&self) -> Option<u16> {
        let printed = self.printed();
        let (_, rest) = printed.split_once("Listening at: http://127.0.0.1:")?;
        rest.split(' ').next()?.parse().ok()
    }

    fn has_lost_a_worker(&self) -> bool {
        // The number of the signal with the mark that there is a core, or in later versions its name.
        self.printed().contains(" was sent ")
    }

    fn install(&self) -> Result<(), String> {
        let mut install = Command::new(python());
        protection::forget_settings(&mut install);
        install.args(["-c", INSTALL]).arg(wheel()).arg(&self.extensions);
        succeed(install)
    }
}

/// Installs while requests keep the worker busy.
///
/// # Errors
/// No worker dies, or its core is explained wrongly.
pub fn dies_under_load(directory: &Path) -> Result<(), String> {
    let service = Service::start(directory)?;
    let (port, is_over) = (service.port, AtomicBool::new(false));
    let installed = thread::scope(|scope| {
        scope.spawn(|| {
            for number in (1..20).cycle() {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                // A worker that dies does not answer.
                let _ = request(port, number);
            }
        });
        let installed = (0..INSTALLATIONS).try_for_each(|_| {
            thread::sleep(PAUSE);
            if service.has_lost_a_worker() { Ok(()) } else { service.install() }
        });
        let died = installed.and_then(|()| wait_for(|| died(&service)));
        is_over.store(true, Ordering::Relaxed);
        died
    });
    installed?;
    is_explained(service, directory)
}

/// Installs while the worker waits for the next request.
///
/// # Errors
/// No worker dies, or its core is explained wrongly.
pub fn dies_after_an_idle_moment(directory: &Path) -> Result<(), String> {
    let service = Service::start(directory)?;
    service.install()?;
    wait_for(|| {
        let _ = request(service.port, 1);
        died(&service)
    })?;
    is_explained(service, directory)
}

fn died(service: &Service) -> Result<(), String> {
    if service.has_lost_a_worker() { Ok(()) } else { Err(format!("no worker has died: {}", service.printed())) }
}

/// Checks the explanation of the worker's core.
fn is_explained(service: Service, directory: &Path) -> Result<(), String> {
    let Service { process, extensions, .. } = service;
    // This ends the master and the new worker.
    drop(process);
    let explanation = explained::explain(&cores::find(directory)?, directory)?;
    explanation.is_one_of(&[Verdict::Rewritten])?;
    explanation.says(&[&*extensions.to_string_lossy(), ".so"])
}

/// Asks the service for a customer.
fn request(port: u16, customer: usize) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    let mut connection = TcpStream::connect(("127.0.0.1", port)).map_err(failed)?;
    connection.set_read_timeout(Some(TIMEOUT)).map_err(failed)?;
    write!(connection, "GET /customer/{customer} HTTP/1.0\r\n\r\n").map_err(failed)?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).map_err(failed)?;
    if answer.contains(&format!("customer {customer}")) { Ok(()) } else { Err(format!("the answer is {answer:?}")) }
}

/// Tries again until it succeeds.
fn wait_for<T>(mut attempt: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    let deadline = Instant::now() + TIMEOUT * patience()?;
    loop {
        match attempt() {
            Ok(done) => return Ok(done),
            Err(error) if Instant::now() > deadline => return Err(format!("the time is over: {error}")),
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}

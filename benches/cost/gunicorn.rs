//! A gunicorn with its workers, from the first response of each to the end.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::http::Client;
use crate::page::Variant;
use crate::run;
use crate::site::Site;

const START: Duration = Duration::from_secs(120);
const END: Duration = Duration::from_secs(5);
/// With so many requests, every worker has finished what it does only once.
const WARMING_REQUESTS: usize = 20;

/// A service that gunicorn can serve.
#[derive(Clone, Copy)]
pub struct Application {
    /// Its name for gunicorn.
    pub module: &'static str,
    /// The path to request.
    pub path: &'static str,
    /// The least number of shared objects that a worker has.
    pub objects: usize,
}

/// The shop of `examples/gunicorn`.
pub const SHOP: Application = Application { module: "app:app", path: "/customer/7", objects: 15 };
/// `programs/science.py`.
pub const SCIENCE: Application = Application { module: "science:app", path: "/", objects: 150 };

/// The concurrency of the workers.
#[derive(Clone, Copy)]
pub enum Workers {
    /// One request at a time, on one connection for each.
    Sync,
    /// So many threads, with connections that are kept.
    Threads(usize),
}

/// A master and its workers, which are killed when this is dropped.
pub struct Gunicorn {
    master: Child,
    /// The address on which it listens.
    pub address: SocketAddr,
    /// The process numbers of its workers.
    pub workers: Vec<u32>,
}

impl Gunicorn {
    /// Starts it, without `--preload`, and waits until every worker has answered a
    /// number of requests.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(
        site: &Site,
        variant: Variant,
        application: Application,
        kind: Workers,
        workers: usize,
    ) -> Result<Self, String> {
        let database = create_database(site)?;
        let log = site.built(&format!("gunicorn-{variant:?}.log"));
        let written = File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let mut command = site.python(variant)?;
        command.env("DEMO_DATABASE", database).args(["-m", "gunicorn", "--bind", "127.0.0.1:0", "--workers"]);
        command.arg(workers.to_string()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(written).process_group(0);
        match kind {
            Workers::Sync => command.args(["--worker-class", "sync"]),
            Workers::Threads(threads) => {
                command.args(["--worker-class", "gthread", "--keep-alive", "60", "--threads", &threads.to_string()])
            }
        };
        let master = command.arg(application.module).spawn().map_err(|error| format!("gunicorn: {error}"))?;
        let mut gunicorn = Self { master, address: SocketAddr::from(([0, 0, 0, 0], 0)), workers: Vec::new() };
        let deadline = Instant::now() + START;
        let said = || fs::read_to_string(&log).unwrap_or_default();
        while gunicorn.workers.len() < workers {
            if Instant::now() > deadline || gunicorn.master.try_wait().is_ok_and(|ended| ended.is_some()) {
                return Err(format!("gunicorn ({}) did not start:\n{}", variant.name(), said()));
            }
            match address_in(&said()) {
                Some(address) => {
                    gunicorn.address = address;
                    gunicorn.workers = ask_all(address, application, workers, deadline).unwrap_or_default();
                }
                None => thread::sleep(Duration::from_millis(5)),
            }
        }
        Ok(gunicorn)
    }

    /// Returns the process numbers of master and workers.
    pub fn processes(&self) -> Vec<u32> {
        let mut processes = self.workers.clone();
        processes.push(self.master.id());
        processes
    }
}

impl Drop for Gunicorn {
    fn drop(&mut self) {
        // The master has not been waited for, so its number still names this group.
        if let Ok(group) = libc::pid_t::try_from(self.master.id()) {
            // SAFETY: kill(2) takes numbers and accesses no memory.
            unsafe { libc::kill(-group, libc::SIGKILL) };
        }
        let _ = self.master.wait();
        // This waits until the workers' memory has been released. Their parent was the
        // master, so another process reaps them.
        let deadline = Instant::now() + END;
        while self.workers.iter().any(|worker| has_memory(*worker)) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn has_memory(process: u32) -> bool {
    fs::read(format!("/proc/{process}/maps")).is_ok_and(|maps| !maps.is_empty())
}

/// Creates the database of the shop, which only reads it.
fn create_database(site: &Site) -> Result<std::path::PathBuf, String> {
    let database = site.built("shop.sqlite");
    if !database.exists() {
        let mut command = site.python(Variant::Native)?;
        run::run(command.env("DEMO_DATABASE", &database).arg(site.checkout.join("examples/gunicorn/app.py")))?;
    }
    Ok(database)
}

/// Returns the address from gunicorn's line `Listening at: http://127.0.0.1:PORT
/// (PID)`.
fn address_in(log: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once("Listening at: http://")?;
    rest.split_once(' ')?.0.parse().ok()
}

/// Sends requests from several threads until each of so many workers has answered often
/// enough. Returns the workers' process numbers.
fn ask_all(address: SocketAddr, application: Application, workers: usize, deadline: Instant) -> io::Result<Vec<u32>> {
    let answers = Mutex::new(BTreeMap::<u32, usize>::new());
    let is_done = || {
        let answers = answers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        answers.len() >= workers && answers.values().all(|count| *count >= WARMING_REQUESTS)
    };
    let ask = || -> io::Result<()> {
        while !is_done() && Instant::now() < deadline {
            let worker = worker_of(&Client::connect(address)?.get(application.path)?)?;
            *answers.lock().unwrap_or_else(std::sync::PoisonError::into_inner).entry(worker).or_default() += 1;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let asking: Vec<_> = (0..2 * workers).map(|_| scope.spawn(ask)).collect();
        asking.into_iter().try_for_each(|asking| asking.join().map_err(|_| io::Error::other("a client panicked"))?)
    })?;
    Ok(answers.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).into_keys().collect())
}

/// Returns which worker has sent this response.
///
/// # Errors
/// If the service does not send such responses.
pub fn worker_of(answer: &[u8]) -> io::Result<u32> {
    let answer: serde_json::Value = serde_json::from_slice(answer)?;
    let worker = answer["worker"].as_u64().and_then(|worker| worker.try_into().ok());
    worker.ok_or_else(|| io::Error::other(format!("no worker in {answer}")))
}

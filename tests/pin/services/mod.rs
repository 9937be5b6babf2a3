//! Services of other projects, started without the library from copies of their files, are pinned
//! while clients keep them busy. Then every shared object under them is rewritten. Each answer is
//! checked. The control is the same service, which dies of the same rewriting if it is not pinned.
//!
//! | module | what is particular |
//! |---|---|
//! | [`postgresql`] | sessions from before and after the pin, and a library that is loaded after it |
//! | [`java`] | compiled code, and threads that wait for the collector |
//! | [`redis`] | snapshots are written by forked children |
//! | [`nginx`] | new workers after the pin |
//! | [`golang`] | a scheduler of its own, which calls C |
//!
//! gunicorn is in `tests/demo.rs`.

mod copies;
mod golang;
mod java;
mod load;
mod nginx;
mod postgresql;
mod redis;
mod session;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Completion;

use crate::command::{self, Pin};
use crate::common::dialogue::Dialogue;
use crate::common::process::{Finished, Outcome};
use crate::common::protection;
use crate::common::rewrite::Rewrite;
use crate::{Case, Run, memory, patience, tasks};
use copies::Copies;
use load::{Client, Load};

const CLIENTS: usize = 3;
/// The time in which a service becomes ready, and in which one that is not pinned dies.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The time for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A service under test. Each trial has one of its own.
trait Service {
    /// Returns why it cannot be run here, or `None` if it can.
    fn unmet_need(&self) -> Option<String>;

    /// Copies its files, and starts it. Its further files are in `directory`.
    fn start(&mut self, run: &Run, copies: &Copies, directory: &Path) -> Result<Dialogue, String>;

    /// Makes a client; fails while the service is not ready.
    fn client(&self, number: usize) -> Result<Client, String>;

    /// Goes on after the pin. Returns further clients.
    fn after_pin(&mut self, _process: &Dialogue, _directory: &Path) -> Result<Vec<Client>, String> {
        Ok(Vec::new())
    }

    /// Asks the service to end, after everything was rewritten.
    fn end(&mut self, process: &mut Dialogue) -> Result<(), String>;

    /// Returns whether a service that was asked to end has ended well.
    fn ended_well(&self, finished: &Finished) -> bool;

    /// Returns whether one of its processes was killed.
    fn died(&self, process: &mut Dialogue) -> Result<bool, String> {
        process.is_over()
    }
}

pub fn cases() -> Vec<Case> {
    vec![
        case("postgresql", || Box::<postgresql::PostgreSql>::default()),
        case("java", || Box::<java::Java>::default()),
        case("redis", || Box::<redis::Redis>::default()),
        case("nginx", || Box::<nginx::Nginx>::default()),
        case("go", || Box::<golang::Go>::default()),
    ]
}

fn case(name: &str, make: fn() -> Box<dyn Service>) -> Case {
    Case::ignorable(format!("services::{name}"), move |run, own| {
        if let Some(reason) = make().unmet_need() {
            return Ok(Completion::ignored_with(reason));
        }
        for is_pinned in [true, false] {
            let directory = own.join(if is_pinned { "pinned" } else { "control" });
            fs::create_dir(&directory).map_err(|error| error.to_string())?;
            let service = make();
            let tried = if is_pinned { survives(service, run, &directory) } else { dies(service, run, &directory) };
            tried.map_err(|error| format!("{error}\n{}", logs(&directory)))?;
        }
        // The copies are large, and useful only if the trial failed.
        fs::remove_dir_all(own).map_err(|error| error.to_string())?;
        Ok(Completion::Completed)
    })
}

fn survives(mut service: Box<dyn Service>, run: &Run, directory: &Path) -> Result<(), String> {
    let (copies, mut process, mut load) = start(&mut *service, run, directory)?;
    let objects = copies.objects()?;
    let pin = pin_all(copies.root(), directory)?;
    is_whole(&pin, process.id(), &objects)?;
    load.goes_on().map_err(|error| pin.describe(&format!("then {error}")))?;
    has_nothing_to_do(&pin_all(copies.root(), directory)?)?;
    for client in service.after_pin(&process, directory)? {
        load.add(client)?;
    }
    for rewrite in [Rewrite::SameBytes, Rewrite::Traps, Rewrite::Empty] {
        rewrite.apply_to_all(&objects)?;
        load.goes_on().map_err(|error| pin.describe(&format!("after {rewrite:?}: {error}")))?;
    }
    load.stop()?;
    if service.died(&mut process)? {
        return Err(pin.describe("and the rewriting have killed a process"));
    }
    service.end(&mut process)?;
    let finished = process.finish()?;
    if service.ended_well(&finished) { Ok(()) } else { Err(pin.describe(&format!("then the service {finished}"))) }
}

fn dies(mut service: Box<dyn Service>, run: &Run, directory: &Path) -> Result<(), String> {
    let (copies, mut process, load) = start(&mut *service, run, directory)?;
    let objects = copies.objects()?;
    for rewrite in [Rewrite::SameBytes, Rewrite::Empty] {
        rewrite.apply_to_all(&objects)?;
    }
    let is_true = |holds: bool, otherwise: &str| if holds { Ok(()) } else { Err(otherwise.to_owned()) };
    wait_for(|| is_true(service.died(&mut process)?, "a service that is not pinned has to die of this"))?;
    // The client of a process that has died has waited for its answer in vain.
    wait_for(|| is_true(!load.failures().is_empty(), "a process was killed, and no client has noticed it"))
}

/// Starts a service, and clients that keep it busy.
fn start(service: &mut dyn Service, run: &Run, directory: &Path) -> Result<(Copies, Dialogue, Load), String> {
    let copies = Copies::new(&directory.join("copies"))?;
    let process = service.start(run, &copies, directory)?;
    let mut load = Load::new();
    for number in 0..CLIENTS {
        load.add(wait_for(|| first_client(service, number))?)?;
    }
    load.goes_on()?;
    Ok((copies, process, load))
}

fn first_client(service: &dyn Service, number: usize) -> Result<Client, String> {
    service.client(number).and_then(|mut client| client(0).map(|_| client))
}

/// Tries again until it succeeds.
fn wait_for<T>(mut attempt: impl FnMut() -> Result<T, String>) -> Result<T, String> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match attempt() {
            Ok(done) => return Ok(done),
            Err(error) if Instant::now() > deadline => return Err(format!("the time is over: {error}")),
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Starts a program, whose output is in `service.stdout` and `service.stderr`.
fn run_service(mut command: Command, directory: &Path) -> Result<Dialogue, String> {
    command.current_dir(directory);
    Dialogue::start(&mut command, &directory.join("service.log"), patience())
        .map_err(|error| format!("{command:?}: {error}"))
}

/// Pins every process that maps a file of the copies.
fn pin_all(root: &Path, directory: &Path) -> Result<Pin, String> {
    let mut command = Command::new(command::path()?);
    protection::forget_settings(&mut command);
    command.env("SOPIN_STORE", directory.join("store")).args(["pin", "--json", "--mapping"]).arg(root);
    command::run(&mut command, directory)
}

/// Checks that every process of the service is pinned whole, the first one before the others, and
/// that no file of the copies reaches any of them.
fn is_whole(pin: &Pin, first: u32, objects: &[PathBuf]) -> Result<(), String> {
    let processes = pin.answer["processes"].as_array().ok_or_else(|| pin.describe("pinned nothing"))?;
    let pids: Vec<_> = processes.iter().filter_map(|one| u32::try_from(one["pid"].as_u64()?).ok()).collect();
    if pids.first() != Some(&first) {
        return Err(pin.describe(&format!("did not begin with {first}, from which the others were forked")));
    }
    let objects_left = processes.iter().filter_map(|one| one["objects"].as_array()).flatten();
    if objects_left.into_iter().any(|object| object["after"] != "full") {
        return Err(pin.describe("did not pin everything"));
    }
    // There may be processes that the command must not ask whether they map a file.
    let is_partial = pin.outcome == Outcome::Exit(3) && pin.answer["passed_over"]["denied"] != 0;
    if !(pin.outcome == Outcome::Exit(0) || is_partial) || pin.answer["not_pinned"] != serde_json::json!([]) {
        return Err(pin.describe("did not pin every process"));
    }
    for pid in pids {
        match is_out_of_reach(pid, objects) {
            // A process that serves one session may have ended with that.
            Err(_) if tasks::state(pid).map_or(true, |state| state == 'Z') => {}
            reached => reached.map_err(|wrong| pin.describe(&wrong))?,
        }
    }
    Ok(())
}

/// Checks that a process is not traced, and that no file of the copies reaches it.
fn is_out_of_reach(pid: u32, objects: &[PathBuf]) -> Result<(), String> {
    tasks::none_is_traced(pid)?;
    for object in objects {
        let bytes = memory::exposed(pid, object)?;
        if bytes != 0 {
            return Err(format!("left {bytes} bytes of {} in {pid}", object.display()));
        }
    }
    Ok(())
}

/// Checks that a further pin of the same processes has stopped none.
fn has_nothing_to_do(pin: &Pin) -> Result<(), String> {
    let processes = pin.answer["processes"].as_array().ok_or_else(|| pin.describe("pinned nothing"))?;
    let is_idle = |one: &serde_json::Value| one["stops"] == 0 && one["objects"] == serde_json::json!([]);
    if processes.iter().all(is_idle) { Ok(()) } else { Err(pin.describe("has something to do")) }
}

/// Returns what the service has printed, for a trial that has failed.
fn logs(directory: &Path) -> String {
    let read = |name| {
        let text = fs::read_to_string(directory.join(name)).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    };
    ["service.stdout", "service.stderr", "error.log"].map(read).join("\n")
}

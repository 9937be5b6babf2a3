//! The cost of pinning programs that run already, by `sopin pin`: how long it stops them, what a
//! busy service notices, and how long it takes for many processes.

use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::gunicorn::{Gunicorn, SHOP, Workers};
use crate::http::Client;
use crate::load::{CLIENTS_PER_WORKER, WORKERS, connect_evenly};
use crate::page::{Column, Compared, Section, Variant};
use crate::rounds::{Rounds, interleave};
use crate::run::{self, Held};
use crate::site::Site;

const VARIANTS: [Variant; 2] = [Variant::Warm, Variant::Cold];
const PROCESSES: usize = 500;
const ROUNDS: usize = 7;
/// How long requests are counted before and after a pin.
const WINDOW: Duration = Duration::from_secs(1);

/// Measures `sopin pin`.
///
/// # Errors
/// If a program does not start, or is not pinned whole.
pub fn pin(site: &Site) -> Result<Section, String> {
    let (small, small_objects) = stops(site, "app", 15)?;
    let (large, large_objects) = stops(site, "scientific", 150)?;
    let [before, during, after] = interleave(site, &VARIANTS, ROUNDS, |variant| served(site, variant))?;
    let shell = site.copy_shell()?;
    let [elapsed, cpu] = interleave(site, &VARIANTS, ROUNDS, |variant| many(site, &shell, variant))?;
    let stop = |objects: usize, stops: &Rounds, most| {
        let column = Column::new(&format!("{objects} objects: longest stop"), "ms", &[], stops.cells());
        VARIANTS.into_iter().fold(column, |column, variant| column.target(variant, Compared::No, most))
    };
    Ok(Section {
        title: "Pinning programs that run already".to_owned(),
        about: format!(
            "`sopin pin` as root, with a store that has every copy already, or a new one. The first two programs are Python \
             after the imports of the Flask service and of the scientific one. The service is that of the requests above, \
             with {WORKERS} workers that are pinned with their master: requests per second for {} s before the \
             command, and in proportion to that while the command runs, and for {} s afterwards. The last columns are for \
             `sopin pin --mapping` of {PROCESSES} processes of a shell that waits; CPU is that of the command.",
            WINDOW.as_secs(),
            WINDOW.as_secs()
        ),
        rounds: small.count(),
        columns: vec![
            stop(small_objects, &small, 15.0),
            stop(large_objects, &large, 60.0),
            Column::new("service: before", "requests/s", &[], before.cells()),
            Column::new("service: meanwhile", "of before", &[], during.cells()),
            Column::new("service: after", "of before", &[], after.cells()),
            Column::new(&format!("{PROCESSES} processes: elapsed"), "ms", &[], elapsed.cells()),
            Column::new(&format!("{PROCESSES} processes: CPU"), "ms", &[], cpu.cells()),
        ],
    })
}

/// Returns the longest stops of a process that has imported `module`, in milliseconds, and the number
/// of its objects, which must be at least `least`.
fn stops(site: &Site, module: &str, least: usize) -> Result<(Rounds, usize), String> {
    let mut objects = 0;
    let [stops] = interleave(site, &VARIANTS, ROUNDS, |variant| {
        let mut command = site.python(Variant::Native)?;
        let process = Held::start(command.arg(site.program("importing.py")).arg(module))?;
        let answer = pin_now(command_for(site, variant).arg(process.pid().to_string()))?.0;
        let number = |name: &str| answer["processes"][0][name].as_u64();
        objects = number("objects_in_all").and_then(|objects| objects.try_into().ok()).unwrap_or_default();
        let stop = number("longest_stop_us").filter(|_| objects >= least);
        let stop = stop.ok_or_else(|| format!("sopin pin finds {objects} objects after the import of {module}"))?;
        process.end()?;
        Ok([Duration::from_micros(stop).as_secs_f64() * 1e3])
    })?;
    Ok((stops, objects))
}

/// Returns `sopin pin --json` with the store of this variant.
fn command_for(site: &Site, variant: Variant) -> Command {
    let mut command = site.command(&site.checkout.join("target/release/sopin"), Variant::Native);
    let store = if variant == Variant::Cold { site.new_store() } else { site.warm_store() };
    command.env("SOPIN_STORE", store).args(["pin", "--json"]);
    command
}

/// Runs a command that pins. Returns its answer and its user and system time.
fn pin_now(command: &mut Command) -> Result<(Value, Duration), String> {
    let (answer, cpu) = run::output_and_cpu(command)?;
    let answer: Value = serde_json::from_str(&answer).map_err(|error| format!("{command:?}: {error}"))?;
    let is_full = |object: &Value| object["after"] == "full";
    let is_whole = |process: &Value| process["objects"].as_array().is_some_and(|all| all.iter().all(is_full));
    let processes = answer["processes"].as_array().map(Vec::as_slice).unwrap_or_default();
    if processes.is_empty() || !processes.iter().all(is_whole) || answer["not_pinned"] != Value::Array(Vec::new()) {
        return Err(format!("{command:?} does not pin everything: {answer:#}"));
    }
    Ok((answer, cpu))
}

/// Pins a service under load. Returns its requests per second before, and in proportion to that
/// meanwhile and afterwards.
fn served(site: &Site, variant: Variant) -> Result<[f64; 3], String> {
    let gunicorn = Gunicorn::start(site, Variant::Native, SHOP, Workers::Threads(CLIENTS_PER_WORKER), WORKERS)?;
    let clients = connect_evenly(&gunicorn).map_err(|error| format!("gunicorn: {error}"))?;
    let is_over = AtomicBool::new(false);
    let ask = |mut client: Client| -> io::Result<Vec<Instant>> {
        let mut answered = Vec::new();
        while !is_over.load(Ordering::Relaxed) {
            client.get(SHOP.path)?;
            answered.push(Instant::now());
        }
        Ok(answered)
    };
    let (answered, pinned) = thread::scope(|scope| {
        let asking: Vec<_> = clients.into_iter().map(|client| scope.spawn(|| ask(client))).collect();
        let start = Instant::now();
        thread::sleep(WINDOW);
        let begin = Instant::now();
        let processes = gunicorn.processes().into_iter().map(|process| process.to_string());
        let pinned = pin_now(command_for(site, variant).args(processes));
        let end = Instant::now();
        thread::sleep(WINDOW);
        is_over.store(true, Ordering::Relaxed);
        let answered: Result<Vec<_>, String> = asking
            .into_iter()
            .map(|asking| {
                let answered = asking.join().map_err(|_| "a client panicked".to_owned())?;
                answered.map_err(|error| format!("gunicorn while it was pinned: {error}"))
            })
            .collect();
        (answered, pinned.map(|_| (start, begin, end)))
    });
    let (answered, (start, begin, end)) = (answered?.concat(), pinned?);
    let per_second = |from: Instant, to: Instant| {
        let count = answered.iter().filter(|time| (from..to).contains(time)).count();
        #[expect(clippy::cast_precision_loss, reason = "there are not so many requests")]
        let count = count as f64;
        count / (to - from).as_secs_f64()
    };
    let before = per_second(start, begin);
    if before == 0.0 {
        return Err("gunicorn answers no request within a second".to_owned());
    }
    Ok([before, per_second(begin, end) / before, per_second(end, end + WINDOW) / before])
}

/// Pins many processes. Returns how long that takes, and the time of the processor, in milliseconds.
fn many(site: &Site, shell: &Path, variant: Variant) -> Result<[f64; 2], String> {
    let start = |_| Held::start(site.command(shell, Variant::Native).args(["-c", "echo; read _"]));
    let _processes = (0..PROCESSES).map(start).collect::<Result<Vec<_>, _>>()?;
    let begin = Instant::now();
    let (answer, cpu) = pin_now(command_for(site, variant).arg("--mapping").arg(shell))?;
    let elapsed = begin.elapsed();
    let pinned = answer["processes"].as_array().map_or(0, Vec::len);
    if pinned != PROCESSES {
        return Err(format!("sopin pin --mapping pins {pinned} of {PROCESSES} processes"));
    }
    Ok([elapsed.as_secs_f64() * 1e3, cpu.as_secs_f64() * 1e3])
}

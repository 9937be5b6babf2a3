//! gunicorn under load: throughput and latency. The services of all variants run side
//! by side, and requests are sent to one after the other.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::gunicorn::{Gunicorn, SHOP, Workers, worker_of};
use crate::http::Client;
use crate::page::situations::names;
use crate::page::{Column, Compared, Section, Variant};
use crate::pooled::Pooled;
use crate::rounds::interleave;
use crate::site::Site;

const VARIANTS: [Variant; 4] = [Variant::Native, Variant::Empty, Variant::Warm, Variant::Memfd];
/// The number of workers of the service.
pub const WORKERS: usize = 2;
/// The number of connections to each.
pub const CLIENTS_PER_WORKER: usize = 2;
const ROUNDS: usize = 22;
const WINDOW: Duration = Duration::from_secs(1);
const CONNECTION_ATTEMPTS: usize = 1000;

/// The requests answered in one window.
struct Load {
    per_second: f64,
    /// CPU time of workers and master for each request, in milliseconds.
    cpu: f64,
    /// Latencies in milliseconds.
    latencies: Vec<f64>,
}

/// Measures throughput and latency of a small web service.
///
/// # Errors
/// If a service does not start, or a response is wrong.
pub fn service(site: &Site) -> Result<Section, String> {
    site.copy_packages()?;
    let mut services = BTreeMap::new();
    for variant in VARIANTS {
        // One run before the measurement fills the store.
        if variant == Variant::Warm {
            Gunicorn::start(site, variant, SHOP, Workers::Threads(CLIENTS_PER_WORKER), WORKERS)?;
        }
        let gunicorn = Gunicorn::start(site, variant, SHOP, Workers::Threads(CLIENTS_PER_WORKER), WORKERS)?;
        services.insert(variant, gunicorn);
        site.settle(variant)?;
    }
    let mut latencies = Pooled::default();
    let [throughput, cpu] = interleave(site, &VARIANTS, ROUNDS, |variant| {
        let load = load(&services[&variant])?;
        latencies.add(variant, load.latencies);
        Ok([load.per_second, load.cpu])
    })?;
    latencies.drop_first();
    let [throughput, cpu] = [throughput.with_intervals(), cpu.with_intervals()];
    let quantile = |what: &str, part: f64| Column::new(what, "ms", &[Compared::Ratio], latencies.cells(part));
    Ok(Section {
        title: "Serving requests with gunicorn".to_owned(),
        about: format!(
            "The small Flask and SQLAlchemy service with {WORKERS} `gthread` workers; {} clients, {CLIENTS_PER_WORKER} for each \
             worker, keep their connections and ask as fast as they are answered, for {} s a round. The clients run on the same \
             cores. CPU is that of master and workers. p50, p99 and p99.9 are those of all requests of all rounds, at least {} \
             for each variant, and \"95 %\" the interval of the ratio, by a bootstrap over the rounds; for requests per second \
             and CPU it is that of the median. A target with an interval is reached if the whole interval is within it.",
            WORKERS * CLIENTS_PER_WORKER,
            WINDOW.as_secs_f64(),
            latencies.least(),
        ),
        rounds: throughput.count(),
        columns: vec![
            Column::new("requests per second", "", &[Compared::Ratio], throughput.cells())
                .in_summary(names::WEB_THROUGHPUT),
            Column::new("CPU of a request", "ms", &[Compared::Ratio], cpu.cells())
                .target_of_interval(Variant::Warm, 1.02)
                .in_summary(names::WEB_REQUEST),
            quantile("p50", 0.5).target_of_interval(Variant::Warm, 1.02),
            quantile("p99", 0.99).target_of_interval(Variant::Warm, 1.05).in_summary("Flask service, a request: p99"),
            quantile("p99.9", 0.999).target_of_interval(Variant::Warm, 1.10),
        ],
    })
}

/// Sends requests for the length of a window.
fn load(gunicorn: &Gunicorn) -> Result<Load, String> {
    let clients = connect_evenly(gunicorn).map_err(|error| format!("gunicorn: {error}"))?;
    let cpu_before = cpu_of(gunicorn)?;
    let started = Instant::now();
    let ask = |mut client: Client| -> io::Result<Vec<f64>> {
        let mut took = Vec::new();
        // A connection stays with its worker, which sends the same response every time.
        let expected = client.get(SHOP.path)?;
        while started.elapsed() < WINDOW {
            let asked = Instant::now();
            let answer = client.get(SHOP.path)?;
            took.push(1e3 * asked.elapsed().as_secs_f64());
            if answer != expected {
                return Err(io::Error::other("another answer than before"));
            }
        }
        Ok(took)
    };
    let answered: Result<Vec<Vec<f64>>, String> = thread::scope(|scope| {
        let asking: Vec<_> = clients.into_iter().map(|client| scope.spawn(move || ask(client))).collect();
        let joined = asking.into_iter().map(|asking| asking.join().map_err(|_| "a client panicked".to_owned()));
        joined.map(|answered| answered?.map_err(|error| format!("gunicorn under load: {error}"))).collect()
    });
    let latencies = answered?.concat();
    let elapsed = started.elapsed();
    let cpu = cpu_of(gunicorn)?.saturating_sub(cpu_before);
    #[expect(clippy::cast_precision_loss, reason = "there are not so many requests")]
    let requests = latencies.len() as f64;
    Ok(Load { per_second: requests / elapsed.as_secs_f64(), cpu: 1e3 * cpu.as_secs_f64() / requests, latencies })
}

/// Makes the same number of connections to each worker. A worker keeps the connections
/// that it accepts, and a worker without any would leave a core idle.
///
/// # Errors
/// Those of the connections.
pub fn connect_evenly(gunicorn: &Gunicorn) -> io::Result<Vec<Client>> {
    let mut clients: BTreeMap<u32, Vec<Client>> = BTreeMap::new();
    for _ in 0..CONNECTION_ATTEMPTS {
        let mut client = Client::connect(gunicorn.address)?;
        let worker = worker_of(&client.get(SHOP.path)?)?;
        let its = clients.entry(worker).or_default();
        if its.len() < CLIENTS_PER_WORKER {
            its.push(client);
        }
        if clients.len() == WORKERS && clients.values().all(|its| its.len() == CLIENTS_PER_WORKER) {
            return Ok(clients.into_values().flatten().collect());
        }
    }
    Err(io::Error::other("one worker accepts every connection"))
}

/// Returns the user and system time of master and workers so far.
fn cpu_of(gunicorn: &Gunicorn) -> Result<Duration, String> {
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    let mut ticks = 0;
    for process in gunicorn.processes() {
        let stat =
            fs::read_to_string(format!("/proc/{process}/stat")).map_err(|error| format!("{process}: {error}"))?;
        // These are utime and stime of proc_pid_stat(5). The name before them may
        // contain blanks and parentheses.
        let numbers = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
        ticks += numbers.filter_map(|number| number.parse::<u64>().ok()).sum::<u64>();
    }
    Ok(Duration::from_millis(ticks * 1000 / ticks_per_second))
}

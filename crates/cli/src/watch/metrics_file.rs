//! `--metrics`: keeps a file of metrics up to date. Beside what the command has seen happen, it publishes what
//! `sopin status --metrics` does, from inspections that a thread makes slowly.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use sopin_inspect::Inspector;

use super::alerts::AlertCounts;
use super::index::Index;
use super::main_loop::Totals;
use super::scan;
use crate::metrics::{Census, Metrics};
use crate::output;

/// The least time between two versions of the file, and between two inspections of all processes.
const PERIOD: Duration = Duration::from_secs(1);
const CENSUS_PERIOD: Duration = Duration::from_secs(60);
/// The part of a processor's time that inspections take at most: one of so many.
const REST: u32 = 20;

/// The file.
pub struct MetricsFile {
    path: PathBuf,
    written: Option<Instant>,
    has_failed: bool,
    names_writers: bool,
    census: Arc<Mutex<Option<Census>>>,
}

impl MetricsFile {
    /// Begins to inspect processes.
    pub fn new(path: &Path, names_writers: bool, index: Arc<Mutex<Index>>) -> Self {
        let census = Arc::new(Mutex::new(None));
        let result = Arc::clone(&census);
        thread::spawn(move || {
            loop {
                let begun = Instant::now();
                let census = count(&index);
                *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(census);
                thread::sleep(CENSUS_PERIOD.saturating_sub(begun.elapsed()));
            }
        });
        Self { path: path.to_owned(), written: None, has_failed: false, names_writers, census }
    }

    /// Writes the file, unless it was written just now. A failure is reported once.
    pub fn write(&mut self, totals: &Totals, index: (usize, usize), dropped: u64, alerts: Option<AlertCounts>) {
        if self.written.is_some_and(|written| written.elapsed() < PERIOD) {
            return;
        }
        self.written = Some(Instant::now());
        let mut metrics = Metrics::new();
        if let Some(census) = &*self.census.lock().unwrap_or_else(PoisonError::into_inner) {
            census.write(&mut metrics);
        }
        self.events(&mut metrics, totals, index, dropped, alerts);
        let result = metrics.write_to(&self.path);
        if let Err(error) = &result
            && !self.has_failed
        {
            output::warn(self.path.display(), error);
        }
        self.has_failed = result.is_err();
    }

    fn events(
        &self,
        metrics: &mut Metrics,
        totals: &Totals,
        (processes, objects): (usize, usize),
        dropped: u64,
        alerts: Option<AlertCounts>,
    ) {
        let Totals { rewrites, damaged, ended, overflows, unreported, last, pinned, left, early, scan, .. } = *totals;
        let last = last.and_then(|last| last.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        for (name, kind, help, value) in [
            ("sopin_watch_processes", "gauge", "Watched processes.", processes as u64),
            ("sopin_watch_objects", "gauge", "Watched files of objects.", objects as u64),
            (
                "sopin_watch_names_writers",
                "gauge",
                "Whether the source of events names the writer (fanotify): 1 or 0.",
                self.names_writers.into(),
            ),
            ("sopin_watch_rewrites_total", "counter", "Rewritings in place of files that were mapped.", rewrites),
            (
                "sopin_watch_damaged_total",
                "counter",
                "How often a process was found damaged after a rewriting.",
                damaged,
            ),
            ("sopin_watch_ended_total", "counter", "How often a process had ended after a rewriting.", ended),
            (
                "sopin_watch_queue_overflows_total",
                "counter",
                "How often the kernel lost events, because its queue was full.",
                overflows,
            ),
            (
                "sopin_watch_unreported_total",
                "counter",
                "Changes of files that were not reported, because too many happened at a time.",
                unreported,
            ),
            (
                "sopin_watch_pinned_total",
                "counter",
                "Processes that were pinned before a file was opened for writing.",
                pinned,
            ),
            ("sopin_watch_left_total", "counter", "Processes that were to be pinned and were left.", left),
            (
                "sopin_watch_early_opens_total",
                "counter",
                "Opens for writing that went on before the processes were pinned.",
                early,
            ),
            ("sopin_watch_lines_dropped_total", "counter", "Lines that were not printed.", dropped),
            (
                "sopin_watch_last_rewrite_timestamp_seconds",
                "gauge",
                "When the last rewriting began, in seconds since 1970; 0 if there was none.",
                last.as_secs(),
            ),
        ] {
            metrics.single(name, kind, help, value);
        }
        metrics.single("sopin_watch_scan_seconds", "gauge", "Duration of the last scan.", scan.as_secs_f64());
        if let Some(AlertCounts { started, failed, dropped }) = alerts {
            let name = "sopin_watch_alerts_total";
            metrics.family(name, "counter", "Programs started by --exec, those that failed, and those not started.");
            for (result, count) in [("started", started), ("failed", failed), ("dropped", dropped)] {
                metrics.sample(name, &[("result", result)], count);
            }
        }
    }
}

/// Inspects the watched processes, with pauses.
fn count(index: &Mutex<Index>) -> Census {
    let inspector = Inspector::new(false);
    let mut census = Census::default();
    let pids: Vec<u32> = scan::lock(index).watched_pids().collect();
    for pid in pids {
        let begun = scan::processor_time();
        if let Ok(Some(report)) = inspector.inspect(pid, false) {
            census.add(&report);
        }
        thread::sleep(scan::processor_time().saturating_sub(begun) * REST);
    }
    census
}

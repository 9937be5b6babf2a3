//! The main thread: waits for news, scans, has processes inspected, and passes on what it finds, until a
//! signal or the end of the named processes ends it.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;

use super::alerts::Alerts;
use super::answer::{News, WatchLine};
use super::guard::report::GuardReport;
use super::human::ShownLine;
use super::judge;
use super::metrics_file::MetricsFile;
use super::printer::Printer;
use super::reader::Shared;
use super::rewrites::Rewriting;
use super::scan::{self, Scanned, Scanner};
use crate::exit::{Exit, Failure};
use crate::output::{self, shown};

/// Scans take at most this part of a processor's time; those that news cause, the other one.
const REST_OF_SCANS: u32 = 50;
const REST_AFTER_NEWS: u32 = 5;
/// The time for which the command waits after the end of the named processes: a rewriting that has ended them is reported
/// half a second after its last event at the latest, and the event may not have been read yet.
const LAST_NEWS: Duration = Duration::from_millis(800);

/// The state of the main thread.
pub struct MainLoop {
    pub scanner: Scanner,
    pub shared: Arc<Shared>,
    pub signals: SignalFd,
    pub period: Duration,
    pub printer: Printer,
    pub alerts: Option<Alerts>,
    pub metrics: Option<MetricsFile>,
    /// Descriptors of the named processes that have not ended; `None` if none were named.
    pub named: Option<Vec<OwnedFd>>,
    pub is_json: bool,
    pub is_verbose: bool,
    pub totals: Totals,
    /// The kinds of warnings that were given.
    pub warned: HashSet<&'static str>,
}

/// The counts since the start, and the times for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Number of rewritings.
    pub rewrites: u64,
    /// Number of times that a process was found damaged, or had ended, after one.
    pub damaged: u64,
    /// The same.
    pub ended: u64,
    /// Number of times that the kernel's queue was full.
    pub overflows: u64,
    /// Number of changes that were not reported, because too many happened at a time.
    pub unreported: u64,
    /// Number of alerts that were not given, as far as that was reported.
    pub unalerted: u64,
    /// When the last rewriting began.
    pub last: Option<SystemTime>,
    /// Number of processes that were pinned before a file was opened for writing, and that were left.
    pub pinned: u64,
    /// The same.
    pub left: u64,
    /// Number of opens that went on before that.
    pub early: u64,
    /// The time that the last scan took.
    pub scan: Duration,
}

impl MainLoop {
    /// Watches until the end.
    ///
    /// # Errors
    /// 3 when events or processes cannot be read any more, or the output cannot be written to.
    pub fn run(&mut self) -> Result<Exit, Failure> {
        let mut next_scan = self.after_scan(self.totals.scan);
        let mut ended: Option<Instant> = None;
        loop {
            let due = self.shared.rewrites().next_due();
            let wake = [Some(next_scan), due, ended].into_iter().flatten().min().unwrap_or(next_scan);
            self.wait(wake);
            // It has no value if it did not wake this thread.
            let _ = self.shared.news.read();
            if self.signals.read_signal().ok().flatten().is_some() {
                self.finish();
                return Ok(Exit::Success);
            }
            self.check()?;
            self.reports()?;
            self.news()?;
            if Instant::now() >= next_scan {
                next_scan = self.scan()?;
            }
            if ended.is_none() && self.named.as_ref().is_some_and(Vec::is_empty) {
                ended = Some(Instant::now() + LAST_NEWS);
            }
            if ended.is_some_and(|ended| Instant::now() >= ended) {
                self.finish();
                return Ok(if self.totals.damaged == 0 { Exit::Success } else { Exit::Damaged });
            }
        }
    }

    /// Waits for news, a signal, or the end of a named process, until a time at most.
    fn wait(&mut self, until: Instant) {
        let fixed = [self.signals.as_fd(), self.shared.news.as_fd()];
        let named = self.named.iter().flatten().map(AsFd::as_fd);
        let mut all: Vec<_> =
            fixed.into_iter().chain(named).map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN)).collect();
        // Rounded up: with 0 this would not wait in the last millisecond.
        let rest = until.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
        // An interrupted wait is a short one.
        let _ = poll(&mut all, PollTimeout::try_from(rest).unwrap_or(PollTimeout::MAX));
        let mut have_ended =
            all.into_iter().skip(fixed.len()).map(|one| one.any().unwrap_or(false)).collect::<Vec<_>>();
        have_ended.reverse();
        if let Some(named) = &mut self.named {
            named.retain(|_| !have_ended.pop().unwrap_or(false));
        }
    }

    /// Finds out whether another thread has failed.
    fn check(&self) -> Result<(), Failure> {
        let failure = |what: &str, error| Err(Failure::new(Exit::Uninspected, what, error));
        if let Some(error) = self.shared.take_failure() {
            return failure("events", error);
        }
        self.printer.take_failure().map_or(Ok(()), |error| failure("stdout", error))
    }

    /// Reports what the guard has done.
    fn reports(&mut self) -> Result<(), Failure> {
        for report in self.shared.take_reports() {
            if let GuardReport::GuardEnded { reason } | GuardReport::Failed { reason } = &report {
                self.finish();
                return Err(Failure::new(Exit::Uninspected, "--pin", reason));
            }
            let Some(news) = report.news() else { continue };
            match &news {
                News::Open(answer) => {
                    self.totals.pinned += answer.pinned.len() as u64;
                    self.totals.left += answer.left.len() as u64;
                }
                News::WentOn(_) => self.totals.early += 1,
                _ => {}
            }
            self.say(&WatchLine::new(SystemTime::now(), news));
        }
        Ok(())
    }

    /// Reports what has happened.
    fn news(&mut self) -> Result<(), Failure> {
        let (due, overflows, unreported) = {
            let mut rewrites = self.shared.rewrites();
            (rewrites.take_due(Instant::now()), rewrites.take_overflows(), rewrites.take_untracked())
        };
        if overflows != 0 {
            self.totals.overflows += overflows;
            self.say(&WatchLine::lost("kernel-queue", None));
        }
        if unreported != 0 {
            self.totals.unreported += unreported;
            self.say(&WatchLine::lost("rewritings", Some(unreported)));
        }
        if due.is_empty() {
            return Ok(());
        }
        if self.scanner.rested() >= self.scanner.cost() * REST_AFTER_NEWS {
            self.scan()?;
        }
        let due: Vec<Rewriting> = due.into_iter().map(|rewriting| self.with_later_mappers(rewriting)).collect();
        for line in judge::judge(&due) {
            if let News::Rewrite(answer) = &line.news {
                self.totals.rewrites += u64::from(!answer.ongoing);
                self.totals.damaged += answer.damaged as u64;
                self.totals.ended += answer.ended as u64;
                self.totals.last = Some(line.time);
            }
            self.say(&line);
        }
        self.write_metrics();
        Ok(())
    }

    /// Adds the processes that had mapped the file when it was rewritten, and that the index did not know then.
    fn with_later_mappers(&self, mut rewriting: Rewriting) -> Rewriting {
        let beginning = &mut rewriting.beginning;
        let known: HashSet<_> = beginning.mappers.iter().map(|mapper| (mapper.pid, mapper.start)).collect();
        let mut later = scan::lock(&self.shared.index).mappers(rewriting.inode);
        later.retain(|mapper| mapper.start < rewriting.ticks && !known.contains(&(mapper.pid, mapper.start)));
        beginning.mappers.append(&mut later);
        rewriting
    }

    fn print(&self, line: &WatchLine) {
        self.printer.say(if self.is_json {
            line.json()
        } else {
            ShownLine { line, is_verbose: self.is_verbose }.to_string()
        });
    }

    fn say(&self, line: &WatchLine) {
        self.print(line);
        if let Some(alerts) = &self.alerts {
            alerts.give(line);
        }
    }

    /// Reports the alerts that were not given since the last time; not for each of them, because there may be many.
    fn report_dropped_alerts(&mut self) {
        let dropped = self.alerts.as_ref().map_or(0, |alerts| alerts.counts().dropped);
        let new = dropped - self.totals.unalerted;
        if new != 0 {
            self.totals.unalerted = dropped;
            self.print(&WatchLine::lost("alerts", Some(new)));
        }
    }

    /// Scans, and returns when the next scan is due.
    fn scan(&mut self) -> Result<Instant, Failure> {
        let begun = Instant::now();
        let scanned = self.scanner.scan().map_err(|error| Failure::new(Exit::Uninspected, "/proc", error))?;
        self.warn(&scanned);
        self.report_dropped_alerts();
        Ok(self.after_scan(begun.elapsed()))
    }

    fn after_scan(&mut self, duration: Duration) -> Instant {
        self.totals.scan = duration;
        self.write_metrics();
        Instant::now() + (self.scanner.cost() * REST_OF_SCANS).max(self.period)
    }

    /// Warns about what the first scan that has it could not do.
    pub fn warn(&mut self, scanned: &Scanned) {
        if scanned.too_many != 0 && self.warned.insert("too many") {
            output::warn("objects", format_args!("{} are not watched, because there are too many", scanned.too_many));
        }
        if let Some((path, error)) = &scanned.unmarked
            && self.warned.insert("unmarked")
        {
            let path = shown(&String::from_utf8_lossy(path));
            output::warn(path, format_args!("not watched, perhaps others as well: {error}"));
        }
    }

    fn write_metrics(&mut self) {
        let Some(file) = &mut self.metrics else { return };
        let counts = scan::lock(&self.shared.index).counts();
        file.write(&self.totals, counts, self.printer.dropped(), self.alerts.as_ref().map(Alerts::counts));
    }

    fn finish(&mut self) {
        if let Some(alerts) = &self.alerts {
            alerts.finish();
        }
        self.printer.finish();
        self.write_metrics();
    }
}

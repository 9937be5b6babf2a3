//! `sopin watch`: says when a file is rewritten that processes have mapped as an object, by whom, and
//! what became of the processes.
//!
//! One thread reads the kernel's events and finds the writers' names; the main thread looks for new
//! processes and objects, inspects the processes concerned, and answers signals.
//!
//! | module | responsible for |
//! |---|---|
//! | [`index`] | which objects are mapped by which processes |
//! | [`scan`] | keeping the index up to date |
//! | [`events`] | the kernel's events, from one source or the other |
//! | [`fanotify`], [`inotify`] | the sources |
//! | [`writer`] | the name of a writer |
//! | [`rewrites`] | from events to rewritings |

pub mod events;
mod fanotify;
pub mod index;
mod inotify;
mod rewrites;
pub mod scan;
mod writer;

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::exit::{Exit, Failure};
use crate::output;
use crate::pin::file_tree::FileTree;
use events::{Event, Source};
use index::Index;
use rewrites::Rewrites;
use scan::{Scanner, Scope};
use writer::Writers;

/// How long the reader of events rests after many of them: meanwhile the kernel merges events of one
/// writer and one file.
const READER_RESTS: Duration = Duration::from_millis(10);
/// A scan takes at most this part of the time.
const SCANS_REST: u32 = 50;

/// Say when objects that processes have loaded are rewritten, and by whom
#[derive(Debug, clap::Args)]
pub struct WatchArgs {
    /// Processes to watch; without any, and without --mapping, every process is watched
    #[arg(value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pids: Vec<u32>,

    /// Watch every process, which is the default
    #[arg(long, conflicts_with_all = ["pids", "mapping"])]
    all: bool,

    /// Watch this file, or the files below this directory, in every process; may be given several times
    #[arg(long, value_name = "PATH", value_hint = clap::ValueHint::AnyPath, conflicts_with = "pids")]
    mapping: Vec<PathBuf>,

    /// Look for new processes and new objects every so many seconds
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = period)]
    period: Duration,
}

fn period(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number")?;
    let is_accepted = (0.05..=86_400.0).contains(&seconds);
    if is_accepted { Ok(Duration::from_secs_f64(seconds)) } else { Err("not from 0.05 to 86400".to_owned()) }
}

/// Watches until a signal ends it, or the processes that were named have ended.
///
/// # Errors
/// 3 when nothing can be watched.
pub fn watch(arguments: &WatchArgs) -> Result<Exit, Failure> {
    let unwatched = |what: &str, error: &dyn std::error::Error| Failure::new(Exit::Uninspected, what, error);
    let signals = block_signals().map_err(|errno| unwatched("signals", &errno))?;
    let source = Source::open().map_err(|error| unwatched("inotify", &error))?;
    let index = Arc::new(Mutex::new(Index::default()));
    let mut scanner = Scanner::new(arguments.scope(), Arc::clone(&index), vec![source.marks()]);
    scanner.scan().map_err(|error| unwatched("/proc", &error))?;
    let rewrites = Arc::new(Mutex::new(Rewrites::default()));
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let news = Arc::new(EventFd::from_flags(flags).map_err(|errno| unwatched("eventfd", &errno))?);
    let reader = Reader { source, index, rewrites: Arc::clone(&rewrites), news: Arc::clone(&news) };
    thread::spawn(move || reader.run());
    let mut next_scan = Instant::now() + arguments.period;
    loop {
        let due = rewrites.lock().unwrap_or_else(PoisonError::into_inner).next_due();
        wait(&[signals.as_fd(), news.as_fd()], due.map_or(next_scan, |due| due.min(next_scan)));
        let _ = news.read();
        if signals.read_signal().ok().flatten().is_some() {
            return Ok(Exit::Success);
        }
        let now = Instant::now();
        let ended = rewrites.lock().unwrap_or_else(PoisonError::into_inner).take_due(now);
        for rewriting in ended {
            output::print(format_args!("{rewriting:?}\n")).map_err(|error| unwatched("stdout", &error))?;
        }
        if now >= next_scan {
            scanner.scan().map_err(|error| unwatched("/proc", &error))?;
            next_scan = Instant::now() + (now.elapsed() * SCANS_REST).max(arguments.period);
        }
    }
}

/// Reads events, until the process ends.
struct Reader {
    source: Source,
    index: Arc<Mutex<Index>>,
    rewrites: Arc<Mutex<Rewrites>>,
    news: Arc<EventFd>,
}

impl Reader {
    fn run(&self) -> io::Error {
        let (mut events, mut writers) = (Vec::new(), Writers::default());
        loop {
            let has_more = match self.source.read(&mut events) {
                Ok(has_more) => has_more,
                Err(error) => return error,
            };
            for event in events.drain(..) {
                let Event::Changed(change) = event else { continue };
                let now = Instant::now();
                let begin = || {
                    let writer = writers.find(change.writer, now);
                    let mappers = scan::lock(&self.index).mappers(change.inode);
                    (!mappers.is_empty()).then_some((writer, mappers))
                };
                self.rewrites.lock().unwrap_or_else(PoisonError::into_inner).note(&change, now, begin);
            }
            let _ = self.news.write(1);
            if has_more {
                thread::sleep(READER_RESTS);
            }
        }
    }
}

/// Blocks the signals that end the command, and returns a descriptor that tells when one has arrived.
fn block_signals() -> nix::Result<SignalFd> {
    let awaited: SigSet = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
    awaited.thread_block()?;
    SignalFd::with_flags(&awaited, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// Waits until a descriptor can be read, or for a time.
fn wait(descriptors: &[std::os::fd::BorrowedFd], until: Instant) {
    // Rounded up: with 0 this would not wait in the last millisecond.
    let rest = until.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
    let timeout = PollTimeout::try_from(rest).unwrap_or(PollTimeout::MAX);
    let mut descriptors: Vec<_> =
        descriptors.iter().map(|descriptor| PollFd::new(*descriptor, PollFlags::POLLIN)).collect();
    // An interrupted wait is a short one.
    let _ = poll(&mut descriptors, timeout);
}

impl WatchArgs {
    fn scope(&self) -> Scope {
        if !self.pids.is_empty() {
            let mut pids = self.pids.clone();
            pids.sort_unstable();
            pids.dedup();
            return Scope::Processes(pids);
        }
        if self.mapping.is_empty() {
            return Scope::All;
        }
        let tree = |path: &PathBuf| {
            let (tree, error) = FileTree::new(path);
            if let Some(error) = error {
                output::warn(path.display(), error);
            }
            tree
        };
        Scope::Files(self.mapping.iter().map(tree).collect())
    }
}

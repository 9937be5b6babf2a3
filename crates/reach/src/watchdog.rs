//! Ends this process if a stop takes very long. Reading the memory of a process can take for ever, if
//! that maps a file whose server does not answer, or whose server is one of the stopped threads. No
//! signal handler runs meanwhile. When this process ends, the kernel resumes what it traces.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::ptrace;

/// The longest time for one stop. Each wait for a task ends long before.
const LONGEST: Duration = Duration::from_secs(60);
const PERIOD: Duration = Duration::from_secs(1);
/// Milliseconds that stand for "no process is stopped".
const NONE: u64 = 0;

/// The watchdog. It sleeps most of the time, until this process ends.
pub struct Watchdog {
    begin: Instant,
    /// When the present stop has begun, in milliseconds since `begin`.
    since: Arc<AtomicU64>,
}

impl Watchdog {
    /// Starts the thread, in which no signals are handled.
    ///
    /// # Errors
    /// Those of making a thread.
    pub fn start() -> Result<Self, Errno> {
        let (begin, since) = (Instant::now(), Arc::new(AtomicU64::new(NONE)));
        let watched = Arc::clone(&since);
        let mask = set_mask(u64::MAX)?;
        let spawned = thread::Builder::new().name("watchdog".to_owned()).spawn(move || watch(begin, &watched));
        set_mask(mask)?;
        spawned.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::AGAIN))?;
        Ok(Self { begin, since })
    }

    /// Notes that a process is being stopped.
    pub fn stop_begins(&self) {
        self.since.store(milliseconds(self.begin).max(1), Ordering::Relaxed);
    }

    /// Notes that it has been resumed.
    pub fn stop_ends(&self) {
        self.since.store(NONE, Ordering::Relaxed);
    }
}

fn watch(begin: Instant, since: &AtomicU64) {
    loop {
        thread::sleep(PERIOD);
        let stopped = since.load(Ordering::Relaxed);
        let limit = u64::try_from(LONGEST.as_millis()).unwrap_or(u64::MAX);
        if stopped != NONE && milliseconds(begin).saturating_sub(stopped) > limit {
            eprintln!(
                "sopin: a process was stopped for {} s, because its memory does not answer; gave up",
                LONGEST.as_secs()
            );
            // No destructors: the other thread may hold locks.
            // SAFETY: _exit has no precondition.
            unsafe { libc::_exit(EXIT) };
        }
    }
}

/// The exit status of the command for a process that could not be pinned.
const EXIT: i32 = 3;

fn milliseconds(begin: Instant) -> u64 {
    u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Sets the signals that this thread blocks, a bit for each; returns those before.
fn set_mask(mask: u64) -> Result<u64, Errno> {
    let mut before = 0_u64;
    // SAFETY: the kernel reads and writes 8 bytes of the two variables.
    let result = unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, &raw mut before, size_of::<u64>())
    };
    if result == 0 {
        return Ok(before);
    }
    Err(ptrace::last_error())
}

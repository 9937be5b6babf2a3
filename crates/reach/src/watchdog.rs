//! Ends this process if a stop takes very long, or if the user has interrupted it and the pin at hand
//! does not end. Reading a file or the memory of a process can take for ever, if the server of a file
//! does not answer, or is one of the stopped threads. No signal handler runs meanwhile. When this
//! process ends, the kernel resumes what it traces.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::ptrace;

/// The longest time for one stop, and between two looks at tasks that could not be released. Each wait
/// for a task ends long before.
const LONGEST: Duration = Duration::from_secs(60);
/// The longest time for the end of a pin that was interrupted.
const LONGEST_END: Duration = Duration::from_secs(5);
const PERIOD: Duration = Duration::from_secs(1);

/// The watchdog. It sleeps most of the time, until this process ends.
pub struct Watchdog {
    times: Arc<Times>,
}

/// What the watchdog looks at.
struct Times {
    begin: Instant,
    /// Since when tasks have been held, in milliseconds since `begin`; 0 if none are.
    held: AtomicU64,
    /// Whether a process is being pinned.
    is_pinning: AtomicBool,
}

impl Times {
    fn now(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

impl Watchdog {
    /// Starts the thread, in which no signals are handled.
    ///
    /// # Errors
    /// Those of making a thread.
    pub fn start() -> Result<Self, Errno> {
        let (held, is_pinning) = (AtomicU64::new(0), AtomicBool::new(false));
        let times = Arc::new(Times { begin: Instant::now(), held, is_pinning });
        let watched = Arc::clone(&times);
        let mask = set_mask(u64::MAX)?;
        let spawned = thread::Builder::new().name("watchdog".to_owned()).spawn(move || watch(&watched));
        set_mask(mask)?;
        spawned.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::AGAIN))?;
        Ok(Self { times })
    }

    /// Notes whether tasks are held now. If they were held before, their time begins anew.
    pub fn note_held(&self, are_held: bool) {
        self.times.held.store(if are_held { self.times.now() } else { 0 }, Ordering::Relaxed);
    }

    /// Notes whether a process is being pinned from now on.
    pub fn note_pinning(&self, is_pinning: bool) {
        self.times.is_pinning.store(is_pinning, Ordering::Relaxed);
    }
}

fn watch(times: &Times) {
    let mut interrupted: Option<Instant> = None;
    loop {
        thread::sleep(PERIOD);
        let held = times.held.load(Ordering::Relaxed);
        if held != 0 && Duration::from_millis(times.now().saturating_sub(held)) > LONGEST {
            give_up(format_args!(
                "a process was stopped for {} s, because its memory does not answer",
                LONGEST.as_secs()
            ));
        }
        let is_interrupted = ptrace::is_interrupted() || ptrace::is_interruption_waiting();
        let is_ending = is_interrupted && times.is_pinning.load(Ordering::Relaxed);
        interrupted = interrupted.or_else(|| Some(Instant::now())).filter(|_| is_ending);
        if interrupted.is_some_and(|since| since.elapsed() > LONGEST_END) {
            give_up(format_args!("interrupted, and a file or the memory of a process does not answer"));
        }
    }
}

fn give_up(reason: fmt::Arguments<'_>) -> ! {
    /// The exit status of the command for a process that could not be pinned.
    const EXIT: i32 = 3;
    eprintln!("sopin: {reason}; gave up");
    // No destructors: the other thread may hold locks.
    // SAFETY: _exit has no precondition.
    unsafe { libc::_exit(EXIT) }
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

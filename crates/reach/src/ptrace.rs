//! The requests of `ptrace(2)`, and waiting for tasks. Every wait ends when the time is up or
//! the user interrupts the command: a timer interrupts the system call.

use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use libc::{c_int, c_long, c_void, pid_t};
use rustix::io::Errno;
use sopin_core::sys::tracing::{self, TracedReport};
use sopin_core::thread_status::ThreadStatus;

/// The type of requests, which is not the same in all C libraries.
#[cfg(target_env = "musl")]
type Request = c_int;
#[cfg(not(target_env = "musl"))]
type Request = libc::c_uint;

/// `PTRACE_O_SUSPEND_SECCOMP`
pub const SUSPEND_SECCOMP: usize = 1 << 21;
/// `PTRACE_O_TRACESYSGOOD`
pub const MARK_CALLS: usize = 1;
const GETSIGMASK: Request = 0x420a;
const SETSIGMASK: Request = 0x420b;
const GET_RSEQ_CONFIGURATION: Request = 0x420f;
const GET_SYSCALL_USER_DISPATCH: Request = 0x4211;
/// How often a wait looks at the time.
const TICK: Duration = Duration::from_millis(20);

/// Whether the user has requested the end of the command.
static IS_INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Why waiting for a task has ended without a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoReport {
    /// The time was up.
    Late,
    /// The task does not exist any more.
    Gone,
}

/// The `struct ptrace_rseq_configuration` of `linux/ptrace.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct RseqConfiguration {
    /// Address of the task's `struct rseq`; 0 if it has none.
    pub pointer: u64,
    size: u32,
    /// What precedes an abort handler.
    pub signature: u32,
    flags: u32,
    pad: u32,
}

/// Makes a request whose arguments are numbers or, as the request defines, point to memory of the
/// size that it uses.
///
/// # Safety
/// As the request demands.
unsafe fn request(request: Request, task: pid_t, address: usize, data: usize) -> Result<c_long, Errno> {
    // SAFETY: this function's contract.
    let result = unsafe { libc::ptrace(request, task, address as *mut c_void, data as *mut c_void) };
    if result == -1 { Err(last_error()) } else { Ok(result) }
}

/// Returns the error of the last call of the C library in this thread.
pub fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Returns an error of sopin-core's system calls as one of this crate.
pub fn errno(errno: sopin_core::sys::Errno) -> Errno {
    Errno::from_raw_os_error(errno.0)
}

/// Begins to trace a task, without stopping it.
pub fn seize(task: pid_t, options: usize) -> Result<(), Errno> {
    tracing::seize(task, options).map_err(errno)
}

/// Sets the options of a task that has stopped.
pub fn set_options(task: pid_t, options: usize) -> Result<(), Errno> {
    // SAFETY: the request uses the numbers only.
    unsafe { request(libc::PTRACE_SETOPTIONS, task, 0, options) }.map(drop)
}

/// Has a task stop where signals are delivered.
pub fn interrupt(task: pid_t) -> Result<(), Errno> {
    tracing::interrupt(task).map_err(errno)
}

/// Resumes a task that has stopped, up to its next system call, and delivers the signal, unless that
/// is 0.
pub fn resume_to_call(task: pid_t, signal: c_int) -> Result<(), Errno> {
    // SAFETY: the request uses the numbers only.
    unsafe { request(libc::PTRACE_SYSCALL, task, 0, signal.cast_unsigned() as usize) }.map(drop)
}

/// Resumes a task that has stopped, and delivers the signal, unless that is 0.
pub fn resume(task: pid_t, signal: c_int) -> Result<(), Errno> {
    tracing::resume(task, signal).map_err(errno)
}

/// Resumes a task that has stopped and traces it no more.
pub fn detach(task: pid_t) -> Result<(), Errno> {
    tracing::detach(task).map_err(errno)
}

/// Reads a register set, of at most `limit` bytes.
pub fn register_set(task: pid_t, set: usize, limit: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; limit];
    let len = tracing::register_set(task, set, &mut bytes).map_err(errno)?.len();
    bytes.truncate(len);
    Ok(bytes)
}

/// Sets a register set.
pub fn set_register_set(task: pid_t, set: usize, bytes: &[u8]) -> Result<(), Errno> {
    tracing::set_register_set(task, set, bytes).map_err(errno)
}

/// Returns the signals that a task blocks, a bit for each.
pub fn signal_mask(task: pid_t) -> Result<u64, Errno> {
    let mut mask = 0_u64;
    // SAFETY: the kernel writes the 8 bytes of the local variable.
    unsafe { request(GETSIGMASK, task, size_of::<u64>(), (&raw mut mask).addr()) }?;
    Ok(mask)
}

/// Sets the signals that a task blocks.
pub fn set_signal_mask(task: pid_t, mask: u64) -> Result<(), Errno> {
    // SAFETY: the kernel reads the 8 bytes of the local variable.
    unsafe { request(SETSIGMASK, task, size_of::<u64>(), (&raw const mask).addr()) }.map(drop)
}

/// Returns where a task has its `struct rseq`. Fails before Linux 5.13.
pub fn rseq_configuration(task: pid_t) -> Result<RseqConfiguration, Errno> {
    let mut configuration = RseqConfiguration::default();
    let (size, address) = (size_of::<RseqConfiguration>(), (&raw mut configuration).addr());
    // SAFETY: the kernel writes at most `size` bytes, those of the local variable.
    unsafe { request(GET_RSEQ_CONFIGURATION, task, size, address) }?;
    Ok(configuration)
}

/// Returns whether the task's system calls are dispatched to a handler of its own
/// (`PR_SET_SYSCALL_USER_DISPATCH`). The kernel tells that since Linux 6.4.
pub fn dispatches_calls(task: pid_t) -> bool {
    // `struct ptrace_sud_config`: mode, selector, offset, length.
    let mut configuration = [0_u64; 4];
    let (size, address) = (size_of_val(&configuration), (&raw mut configuration).addr());
    // SAFETY: the kernel writes at most `size` bytes, those of the local variable.
    let read = unsafe { request(GET_SYSCALL_USER_DISPATCH, task, size, address) };
    read.is_ok() && configuration[0] != 0
}

/// Waits for a report of a task, until `deadline`.
pub fn wait(task: pid_t, deadline: Instant) -> Result<TracedReport, NoReport> {
    loop {
        match wait_for_a_tick(task)? {
            Some(report) => return Ok(report),
            None if Instant::now() < deadline => {}
            None => return Err(NoReport::Late),
        }
    }
}

/// Waits for a report of a task until the timer's next tick; `None` if there was none.
pub fn wait_for_a_tick(task: pid_t) -> Result<Option<TracedReport>, NoReport> {
    let mut status = 0;
    // SAFETY: the kernel writes the status into the local variable.
    let waited = unsafe { libc::waitpid(task, &raw mut status, libc::__WALL) };
    match last_error() {
        _ if waited == task => Ok(Some(tracing::report(status))),
        Errno::INTR => Ok(None),
        _ => Err(NoReport::Gone),
    }
}

/// Returns the report that a task has made already, if it has.
pub fn poll(task: pid_t) -> Result<Option<TracedReport>, NoReport> {
    tracing::poll(task).map_err(|_| NoReport::Gone)
}

/// Signals by which users end a command.
const INTERRUPTING: [c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// Makes waits end in time, and signals that end the command wait until processes are restored.
/// Dropping it stops the timer; the signals' handlers stay.
pub struct Watch;

impl Watch {
    /// Starts the timer, and handles SIGINT, SIGTERM and SIGHUP unless they are ignored.
    pub fn start() -> Self {
        handle(libc::SIGALRM, on_tick);
        for signal in INTERRUPTING {
            if !is_ignored(signal) {
                handle(signal, on_interrupt);
            }
        }
        set_timer(TICK);
        Self
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        set_timer(Duration::ZERO);
    }
}

/// Returns whether the user has requested the end of the command.
pub fn is_interrupted() -> bool {
    IS_INTERRUPTED.load(Ordering::Relaxed)
}

/// Returns whether the user has requested the end of the command, and the first thread has yet to handle
/// that, because it waits in the kernel. If it blocks the signals, they are not for it.
pub fn is_interruption_waiting() -> bool {
    let id = std::process::id().cast_signed();
    let Ok(ThreadStatus { signals, .. }) = ThreadStatus::of_thread(id, id) else { return false };
    let waiting = (signals.of_thread | signals.of_process) & !signals.blocked;
    INTERRUPTING.iter().any(|signal| waiting & 1 << (signal - 1) != 0)
}

/// Notices the ends of these tasks while it does something: the kernel lets no task be seized while
/// another thread is in execve(2), which waits until the ends of all traced threads are noticed. A
/// signal does not end that call either.
pub fn noticing_ends<T>(tasks: &[pid_t], something: impl FnOnce() -> T) -> T {
    TRACED.store(tasks.as_ptr().cast_mut(), Ordering::SeqCst);
    NUMBER_TRACED.store(tasks.len(), Ordering::SeqCst);
    let result = something();
    NUMBER_TRACED.store(0, Ordering::SeqCst);
    result
}

/// What [`noticing_ends`] was called with.
static TRACED: AtomicPtr<pid_t> = AtomicPtr::new(std::ptr::null_mut());
static NUMBER_TRACED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn on_tick(_: c_int) {
    let (traced, number) = (TRACED.load(Ordering::SeqCst), NUMBER_TRACED.load(Ordering::SeqCst));
    // SAFETY: errno is the thread's own.
    let errno = unsafe { *libc::__errno_location() };
    for index in 0..number {
        // SAFETY: while the number is not 0, the borrowed slice has as many elements, and the
        // handler runs in the thread that borrows it or while that waits.
        let task = unsafe { *traced.add(index) };
        notice_end(task);
    }
    // SAFETY: errno is the thread's own.
    unsafe { *libc::__errno_location() = errno };
}

/// Notices the end of a task. The report that a task has stopped stays where it is.
fn notice_end(task: pid_t) {
    // SAFETY: all bytes zero are a valid `siginfo_t`.
    let mut information: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let mut wait = |options| {
        let options = libc::WEXITED | libc::WNOHANG | libc::__WALL | options;
        // SAFETY: the kernel writes into the local variable.
        unsafe { libc::waitid(libc::P_PID, task.cast_unsigned(), &raw mut information, options) };
        information.si_code
    };
    // Of a traced task the kernel returns stops, too, although they are not asked for.
    if [libc::CLD_EXITED, libc::CLD_KILLED, libc::CLD_DUMPED].contains(&wait(libc::WNOWAIT)) {
        wait(0);
    }
}

extern "C" fn on_interrupt(_: c_int) {
    IS_INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Installs a handler without SA_RESTART, so that its signal interrupts system calls.
fn handle(signal: c_int, handler: extern "C" fn(c_int)) {
    // SAFETY: all bytes zero are a valid `sigaction`, with no flags and an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    // SAFETY: the action is complete, and its handler does only what signal handlers may do.
    unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
}

fn is_ignored(signal: c_int) -> bool {
    // SAFETY: all bytes zero are a valid `sigaction`.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes the present action into the local variable.
    let read = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) };
    read == 0 && action.sa_sigaction == libc::SIG_IGN
}

fn set_timer(interval: Duration) {
    let interval = libc::timeval { tv_sec: 0, tv_usec: interval.subsec_micros().into() };
    let timer = libc::itimerval { it_interval: interval, it_value: interval };
    // SAFETY: the timer is a complete value.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) };
}

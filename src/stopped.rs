//! Doing something while everything else that can store to the process's memory has stopped: its
//! other threads, and tasks that share the memory without being its threads. Where there are none
//! ([`alone`]), nothing has to stop.
//!
//! A thread cannot stop others of its own process by ptrace(2). So a helper does it, a task that
//! shares the memory and is a process of its own (see [`sys::run_in_helper`]). The thread that has
//! started it waits in the kernel and executes nothing, not even a signal handler. The helper
//! makes raw system calls only. It has the thread pointer of the waiting thread, so that this
//! library's code takes it for that thread. If it is killed, the kernel resumes all tasks; that
//! happens at the latest when its time is up.
//!
//! ```text
//! running   this thread starts the helper and waits
//!           the helper looks which processes share the memory                   (stopped::sharing)
//! stopping  it stops every task that it finds, until it finds no other          (stopped::tasks)
//! stopped   it looks for stores that the kernel makes meanwhile                 (stopped::kernel)
//!           it does the work
//! running   it resumes all tasks and ends
//! ```
//!
//! It is not done
//! - under a seccomp filter that refuses these calls, or may kill for them ([`crate::filters`]);
//! - if a debugger or strace traces the process, which then cannot be traced a second time;
//! - where the kernel or a security module refuses ptrace(2): to programs that are not dumpable
//!   (`PR_SET_DUMPABLE`), with `kernel.yama.ptrace_scope` above 0, both unless the process has
//!   CAP_SYS_PTRACE;
//! - if the process's children get their ids in another namespace: the helper would be the first
//!   process of that namespace, and its end would end it;
//! - for a thread with the policy SCHED_IDLE that may not have another one, because others would
//!   wait for it;
//! - if not every task stops in time.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use sopin_core::sys::{self, Errno, Fd, Result};
use sopin_core::thread_status::ThreadStatus;

pub use alone::{Alone, prove as prove_alone};
use sharing::Comparison;
use tasks::StoppedTasks;

mod alone;
mod kernel;
mod sharing;
mod tasks;

/// The reason why the work was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotStopped {
    /// A seccomp filter may kill for the calls.
    Filtered,
    /// A process traces this one.
    Traced,
    /// `/proc` shows the processes of another namespace, or does not say.
    OtherNumbers,
    /// Children get their ids in another namespace, or `/proc` does not say.
    ChildrenElsewhere,
    /// The kernel itself may store to the memory.
    KernelStores(&'static str),
    /// The helper only runs when no other process wants to.
    Idle,
    /// A task did not stop in time. It is in this state, a letter as in `/proc/PID/status`.
    Late(u8),
    /// The helper was killed, or had a copy of the memory, as emulators make it.
    Died,
    /// A system call has failed.
    Call(&'static str, Errno),
}

impl fmt::Display for NotStopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filtered => f.write_str("a seccomp filter may kill for it"),
            Self::Traced => f.write_str("another process traces this one"),
            Self::OtherNumbers => f.write_str("/proc has other process ids"),
            Self::ChildrenElsewhere => f.write_str("children of this process are in another PID namespace"),
            Self::KernelStores(what) => f.write_str(what),
            Self::Idle => f.write_str("the thread has the policy SCHED_IDLE, so that the others would wait too long"),
            Self::Late(state) => write!(f, "a task did not stop in time, which is in state {}", char::from(*state)),
            Self::Died => f.write_str("the helper was killed, or this is an emulator"),
            Self::Call(name, errno) => write!(f, "{name}: {errno}"),
        }
    }
}

/// A stop that has been made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stop {
    /// How many tasks were stopped.
    pub tasks: usize,
    /// The time from the beginning of stopping to the end of resuming, in nanoseconds.
    pub ns: u64,
}

/// Makes an error of a call in this module's words.
fn failed(name: &'static str) -> impl Fn(Errno) -> NotStopped {
    move |errno| NotStopped::Call(name, errno)
}

/// After this time, in microseconds, the helper is killed. It should have ended long before. But the
/// kernel lets no task be seized while another thread of its process is in execve(2), which in turn
/// waits until the ends of all traced threads are noticed.
const LIMIT: i64 = 500_000;

/// Bytes of the helper's stack. The kernel provides the pages that are used.
const STACK: usize = 256 << 10;

/// The memory of the helper's stack, with a page below it that cannot be accessed.
struct Stack {
    start: usize,
    len: usize,
}

impl Stack {
    fn new() -> Result<Self> {
        let (guard, flags) = (sys::page_size(), libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
        let len = guard + STACK;
        // SAFETY: without MAP_FIXED the contract of `mmap` demands nothing.
        let start = unsafe { sys::mmap(0, len, libc::PROT_READ | libc::PROT_WRITE, flags, None) }?;
        let stack = Self { start, len };
        // SAFETY: this value owns the mapping, and no reference points into it.
        unsafe { sys::mprotect(start, guard, libc::PROT_NONE) }?;
        Ok(stack)
    }

    fn end(&self) -> usize {
        self.start + self.len
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: `new` has mapped the memory for this value. The helper that has used it has ended.
        let _ = unsafe { sys::munmap(self.start, self.len) };
    }
}

/// The work of a helper, and its result.
struct Job<'a> {
    /// The process, and the thread that waits for the helper.
    process: i32,
    waiting: i32,
    work: &'a mut dyn FnMut(),
    result: core::result::Result<Stop, NotStopped>,
    /// The helper sets this behind the result. It may be killed while it stores the result.
    is_done: AtomicBool,
}

/// Calls `work` while everything else that can store to the process's memory has stopped. Signals
/// must be blocked in the calling thread. `work` runs in the helper: it must not use the C library,
/// and may wait for nothing. It may be killed at any instant, which is an error; what it was storing
/// then is incomplete.
///
/// # Errors
/// Why `work` was not called.
pub fn run(work: &mut dyn FnMut()) -> core::result::Result<Stop, NotStopped> {
    if !sys::may_have_helper() {
        return Err(NotStopped::Filtered);
    }
    let status = ThreadStatus::read_if(|_| true).map_err(failed("read /proc/thread-self/status"))?;
    if status.tracer != 0 {
        return Err(NotStopped::Traced);
    }
    let ids = (sys::getpid(), sys::gettid());
    if status.id_namespaces != 1 || ids != (status.process, status.thread) {
        return Err(NotStopped::OtherNumbers);
    }
    if !has_children_beside_it() {
        return Err(NotStopped::ChildrenElsewhere);
    }
    if status.held != 0 {
        return Err(NotStopped::KernelStores("a driver holds pages of the process"));
    }
    kernel::rule_out_registered()?;
    // A stop in vain would disturb the program.
    kernel::rule_out_stores(ids.0)?;
    let stack = Stack::new().map_err(failed("mmap"))?;
    let mut job =
        Job { process: ids.0, waiting: ids.1, work, result: Err(NotStopped::Died), is_done: AtomicBool::new(false) };
    // SAFETY: the stack was mapped for this call, is large enough for a sweep's functions, and its
    // end is the end of a page. The job lives until the helper has ended, since this thread waits
    // for that, and `be_helper` does not return. It and `work` make no use of the C library.
    let helper = unsafe { sys::run_in_helper(stack.end(), be_helper, (&raw mut job).expose_provenance()) };
    sys::tracing::wait_for_end(helper.map_err(failed("clone"))?);
    if job.is_done.load(Ordering::Acquire) { job.result } else { Err(NotStopped::Died) }
}

/// Returns whether children of this thread get ids in its own namespace. They do not after
/// `unshare(2)` and `setns(2)`; until there is a first child, the link for them cannot be read.
fn has_children_beside_it() -> bool {
    let (mut own, mut of_children) = ([0; 64], [0; 64]);
    let own = sys::readlinkat(&Fd::CWD, c"/proc/thread-self/ns/pid", &mut own);
    own.is_ok() && own == sys::readlinkat(&Fd::CWD, c"/proc/thread-self/ns/pid_for_children", &mut of_children)
}

/// Does the job whose address it gets.
///
/// # Safety
/// The address must be that of a [`Job`] that nothing else uses.
unsafe extern "C" fn be_helper(job: usize) -> ! {
    // SAFETY: nothing else uses the job: this function's contract.
    let job = unsafe { &mut *core::ptr::with_exposed_provenance_mut::<Job<'_>>(job) };
    job.result = job.run();
    job.is_done.store(true, Ordering::Release);
    sys::end_helper()
}

impl Job<'_> {
    fn run(&mut self) -> core::result::Result<Stop, NotStopped> {
        sys::limit_helper(LIMIT).map_err(failed("setitimer"))?;
        if !sys::hurry_helper() {
            return Err(NotStopped::Idle);
        }
        let mut comparison = Comparison::new(self.process, self.waiting)?;
        comparison.look_ahead()?;
        let begin = sys::monotonic_ns();
        let stopped = StoppedTasks::stop(self.process, self.waiting, &comparison)?;
        kernel::rule_out_stores(self.process)?;
        (self.work)();
        let tasks = stopped.len();
        // This resumes the tasks.
        drop(stopped);
        Ok(Stop { tasks, ns: sys::monotonic_ns() - begin })
    }
}

/// Reads the number of a process or a thread.
fn number(name: &[u8]) -> Option<i32> {
    core::str::from_utf8(name).ok()?.parse().ok()
}

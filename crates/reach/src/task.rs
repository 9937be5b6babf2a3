//! One task: a thread of the process, or of another process that shares its memory.

use std::cell::Cell;
use std::fs;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use sopin_core::current_call::CurrentCall;
use sopin_core::interrupted::{self, Repair};
#[cfg(target_arch = "aarch64")]
use sopin_core::registers::CallBefore;
use sopin_core::registers::Registers;
use sopin_core::sys::tracing::TracedReport;
use sopin_core::thread_status::ThreadStatus;

use crate::memory::word_at;
use crate::ptrace::{self, NoReport};

/// `CLONE_VFORK`
const WAITS_FOR_CHILD: u64 = 0x4000;

/// The longest time for tasks to begin system calls, before a stop.
const CALLS: Duration = Duration::from_millis(20);

/// A task that has had a processor for this time, and has not stopped, is busy in the kernel.
const BUSY: Duration = Duration::from_millis(50);

/// The longest time for a task to end that was killed.
const END: Duration = Duration::from_secs(2);

/// A task that this process traces.
pub struct Task {
    /// Its thread id.
    pub id: i32,
    /// The id of its process.
    pub process: u32,
    /// Whether it has stopped, so that its registers can be read.
    has_stopped: Cell<bool>,
    /// How long it had had a processor when it was first asked whether it needs one.
    run_time: Cell<Option<Duration>>,
    /// Set if it makes the interrupted system call again when it goes on, by [`Task::repair`].
    makes_call_again: Cell<bool>,
    /// The system call that it was in before it was stopped.
    #[cfg(target_arch = "aarch64")]
    before: Option<CallBefore>,
}

impl Task {
    /// Begins to trace a task and has it stop. `ESRCH` if it has ended.
    pub fn seize(process: u32, id: i32) -> Result<Self, Errno> {
        #[cfg(target_arch = "aarch64")]
        let before = CallBefore::read(process.cast_signed(), id);
        ptrace::seize(id, ptrace::MARK_CALLS)?;
        // If the task ends meanwhile, the wait reports it.
        let _ = ptrace::interrupt(id);
        Ok(Self {
            id,
            process,
            has_stopped: Cell::new(false),
            run_time: Cell::new(None),
            makes_call_again: Cell::new(false),
            #[cfg(target_arch = "aarch64")]
            before,
        })
    }

    /// Looks whether the task has stopped, and `waits` for that for a short time. Returns whether
    /// there is no need to wait any longer. One that waits for its child of `vfork(2)` cannot stop, but
    /// executes nothing: it stops as soon as it would.
    pub fn wait(&self, waits: bool) -> Result<bool, NoReport> {
        while !self.has_stopped.get() {
            let report = if waits { ptrace::wait_for_a_tick(self.id) } else { ptrace::poll(self.id) };
            match report? {
                Some(report) => self.note(report)?,
                None => return Ok(self.waits_for_child()),
            }
        }
        Ok(true)
    }

    /// Returns whether the task has stopped, or stops as soon as it gets a processor or would execute
    /// anything.
    pub fn needs_only_processor(&self) -> bool {
        let is_asleep = || status_of(self.process, self.id).is_some_and(|status| matches!(status.state, b'S' | b'D'));
        self.has_stopped.get() || !is_asleep() && !self.is_busy() || self.waits_for_child()
    }

    /// Returns whether the task has had a processor for long since this was asked first.
    fn is_busy(&self) -> bool {
        let path = format!("/proc/{}/task/{}/schedstat", self.process, self.id);
        // Nanoseconds. There is no such file on a kernel without CONFIG_SCHED_INFO.
        let text = fs::read_to_string(path).unwrap_or_default();
        let now = text.split_ascii_whitespace().next().and_then(|time| time.parse().ok()).map(Duration::from_nanos);
        let before = self.run_time.get();
        self.run_time.set(before.or(now));
        before.zip(now).is_some_and(|(before, now)| now.saturating_sub(before) > BUSY)
    }

    /// Returns whether the task waits for its child of `vfork(2)`.
    pub fn waits_for_child(&self) -> bool {
        // A new thread is shown in the same calls before it runs, but not in this state.
        let is_asleep = || status_of(self.process, self.id).is_some_and(|status| status.state == b'D');
        let is_vfork = |call: CurrentCall| match call.number {
            #[cfg(target_arch = "x86_64")]
            libc::SYS_vfork => true,
            libc::SYS_clone => call.arguments[0] & WAITS_FOR_CHILD != 0,
            // The argument points to a structure that begins with the flags.
            libc::SYS_clone3 => {
                word_at(self.process, call.arguments[0]).is_some_and(|flags| flags & WAITS_FOR_CHILD != 0)
            }
            _ => false,
        };
        CurrentCall::read(self.process.cast_signed(), self.id).is_some_and(is_vfork) && is_asleep()
    }

    /// Notes what the task has reported.
    fn note(&self, report: TracedReport) -> Result<(), NoReport> {
        match report {
            TracedReport::Stopped => self.has_stopped.set(true),
            // The signal is delivered now, and the task stops afterwards.
            TracedReport::Signal(signal) => ptrace::resume(self.id, signal).map_err(|_| NoReport::Gone)?,
            TracedReport::AtCall | TracedReport::Event => ptrace::resume(self.id, 0).map_err(|_| NoReport::Gone)?,
            TracedReport::Ended => return Err(NoReport::Gone),
        }
        Ok(())
    }

    /// Returns whether it has stopped, so that its registers can be read.
    pub fn has_stopped(&self) -> bool {
        self.has_stopped.get()
    }

    /// Notes that the task is executing something that it does not come back from in time. It is
    /// released when it does.
    pub fn note_lost(&self) {
        let _ = ptrace::interrupt(self.id);
        self.has_stopped.set(false);
    }

    /// Reads the registers of a task that has stopped.
    pub fn registers(&self) -> Result<Registers, Errno> {
        #[cfg_attr(target_arch = "x86_64", allow(unused_mut))]
        let mut registers = Registers::read(self.id).map_err(ptrace::errno)?;
        #[cfg(target_arch = "aarch64")]
        if let Some(before) = self.before {
            registers.note_call(before, before.may_have_ended(self.process.cast_signed(), self.id));
        }
        Ok(registers)
    }

    /// Makes the system call go on that the stop has interrupted; these are the registers.
    pub fn repair(&self, mut registers: Registers) -> Repair {
        let has_signal = || status_of(self.process, self.id).is_none_or(|status| status.has_signal());
        let repair = interrupted::repair(&mut registers, has_signal);
        if repair != Repair::None && registers.write(self.id).is_err() {
            return Repair::None;
        }
        self.makes_call_again.set(repair != Repair::None);
        repair
    }

    /// Returns whether the task, which has these registers, has stopped in a system call.
    pub fn is_in_call(&self, registers: &Registers) -> bool {
        registers.call().is_some() || self.makes_call_again.get()
    }

    /// Resumes the task and traces it no more. Returns whether that is done: it is not while the
    /// task cannot stop.
    pub fn release(&self) -> bool {
        while !self.has_stopped.get() {
            match ptrace::poll(self.id) {
                Ok(None) => return false,
                Ok(Some(report)) if self.note(report).is_ok() => {}
                Ok(Some(_)) | Err(_) => return true,
            }
        }
        if ptrace::detach(self.id).is_err() {
            // SIGKILL, or execve(2) in another thread, has woken it, and it ends. execve(2) does not
            // return before the end of a traced thread is noticed.
            let deadline = Instant::now() + END;
            while ptrace::wait(self.id, deadline).is_ok_and(|report| report != TracedReport::Ended) {
                let _ = ptrace::detach(self.id);
            }
        }
        true
    }
}

/// Waits for a short time until these tasks of a process wait in system calls. While one is running,
/// nothing shows the first argument of the call that it is beginning (aarch64), or that it is in no
/// restartable sequence (Linux before 5.13).
pub fn wait_for_calls(tasks: &[i32], process: u32) {
    let is_running = |id: &i32| {
        fs::read_to_string(format!("/proc/{process}/task/{id}/syscall")).is_ok_and(|text| text.starts_with("running"))
    };
    let deadline = Instant::now() + CALLS;
    while tasks.iter().any(is_running) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Reads the status of a task.
pub fn status_of(process: u32, task: i32) -> Option<ThreadStatus> {
    ThreadStatus::of_thread(process.cast_signed(), task).ok()
}

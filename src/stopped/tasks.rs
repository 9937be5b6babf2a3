//! Stopping the tasks that share the process's memory, and resuming them.

use sopin_core::interrupted;
use sopin_core::line::Line;
use sopin_core::listing::{DIRECTORY_TO_LIST, for_each_name};
use sopin_core::pages::PageVec;
#[cfg(target_arch = "aarch64")]
use sopin_core::registers::CallBefore;
use sopin_core::registers::Registers;
use sopin_core::sys::tracing::{self, TracedReport};
use sopin_core::sys::{self, Errno, Fd};
use sopin_core::thread_status::ThreadStatus;

use super::sharing::Comparison;
use super::{NotStopped, failed, number};

/// How long it may take until all tasks have stopped, in nanoseconds.
const PATIENCE: u64 = 50_000_000;
/// The same while one of those that have not stopped only waits for a processor. On a busy machine
/// it waits as long for its next instruction anyway, and so do those that have stopped.
const PATIENCE_FOR_PROCESSOR: u64 = 300_000_000;
/// How long tasks that have not stopped yet may take when they are resumed, in nanoseconds.
const PATIENCE_AT_END: u64 = 10_000_000;
/// The length of a nap between two looks at the tasks, in nanoseconds.
const NAP: i64 = 20_000;

/// Tasks that are traced. Dropping it resumes them.
pub struct StoppedTasks {
    tasks: PageVec<Task>,
}

#[derive(Clone, Copy)]
struct Task {
    process: i32,
    id: i32,
    state: TaskState,
    #[cfg(target_arch = "aarch64")]
    before: Option<CallBefore>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TaskState {
    /// It has not stopped yet.
    Running,
    Stopped,
    /// It has ended, or is traced no more.
    Gone,
}

impl StoppedTasks {
    /// Stops all tasks that share the memory, but this one and the one that waits for it. The first
    /// thread of the process is the last one, and is the first to be resumed: while it is traced, the
    /// kernel interrupts other threads even for signals that the process ignores (`sig_ignored` in
    /// kernel/signal.c), and the calls of threads that have not stopped are not repaired.
    pub fn stop(process: i32, waiting: i32, comparison: &Comparison) -> Result<Self, NotStopped> {
        let mut stopped = Self { tasks: PageVec::new() };
        let begin = sys::monotonic_ns();
        // A task that has not stopped yet may make others. So all have stopped when a look finds no
        // new one.
        loop {
            let known = stopped.tasks.len();
            stopped.seize_threads(process, &[waiting, process])?;
            stopped.wait(begin)?;
            if stopped.tasks.len() == known {
                comparison.for_each_sharer(|id| stopped.seize_threads(id, &[]))?;
                stopped.wait(begin)?;
            }
            if stopped.tasks.len() == known {
                stopped.seize_threads(process, &[waiting])?;
                stopped.wait(begin)?;
            }
            if stopped.tasks.len() == known {
                return Ok(stopped);
            }
            if sys::monotonic_ns() - begin > PATIENCE_FOR_PROCESSOR {
                return Err(NotStopped::Late(stopped.state_of_late()));
            }
        }
    }

    /// Returns how many tasks have stopped.
    pub fn len(&self) -> usize {
        self.tasks.iter().filter(|task| task.state == TaskState::Stopped).count()
    }

    /// Seizes the threads of a process that are not traced yet, but for some.
    fn seize_threads(&mut self, process: i32, but: &[i32]) -> Result<(), NotStopped> {
        let path = Line::<64>::format_raw(format_args!("/proc/{process}/task\0"));
        let directory = match sys::openat(&Fd::CWD, path.as_c_str(), DIRECTORY_TO_LIST, 0) {
            // It has ended meanwhile.
            Err(Errno(libc::ENOENT)) => return Ok(()),
            opened => opened.map_err(failed("open /proc/PID/task"))?,
        };
        let mut seized = Ok(());
        let listed = for_each_name(&directory, |name| {
            if let Some(id) = number(name.to_bytes())
                && !but.contains(&id)
                && seized.is_ok()
                && !self.tasks.iter().any(|task| task.id == id && task.state != TaskState::Gone)
            {
                seized = self.seize(process, id);
            }
        });
        listed.map_err(failed("read /proc/PID/task"))?;
        seized
    }

    fn seize(&mut self, process: i32, id: i32) -> Result<(), NotStopped> {
        let task = Task {
            process,
            id,
            state: TaskState::Running,
            #[cfg(target_arch = "aarch64")]
            before: CallBefore::read(process, id),
        };
        // Room comes first: a task that is traced must be in the table.
        self.tasks.push(task).map_err(failed("mmap"))?;
        let seized = tracing::seize(id, 0).and_then(|()| tracing::interrupt(id));
        match seized {
            Ok(()) => Ok(()),
            // It may have ended meanwhile. One that has is listed as long as it is the first thread.
            Err(errno) => {
                self.tasks.truncate(self.tasks.len().saturating_sub(1));
                let has_ended = errno == Errno(libc::ESRCH)
                    || errno == Errno(libc::EPERM) && task.status().is_none_or(|status| status.has_ended());
                if has_ended { Ok(()) } else { Err(NotStopped::Call("ptrace", errno)) }
            }
        }
    }

    /// Waits until all tasks have stopped or ended.
    fn wait(&mut self, begin: u64) -> Result<(), NotStopped> {
        while !self.look()? {
            let waited = sys::monotonic_ns() - begin;
            if waited > PATIENCE_FOR_PROCESSOR || (waited > PATIENCE && !self.is_one_running()) {
                return Err(NotStopped::Late(self.state_of_late()));
            }
            sys::nap(NAP);
        }
        Ok(())
    }

    /// Returns whether one of the tasks that have not stopped is running, or would if it had a
    /// processor. Those that cannot be interrupted may be waiting for a lock that it holds.
    fn is_one_running(&self) -> bool {
        let mut running = self.tasks.iter().filter(|task| task.state == TaskState::Running);
        running.any(|task| task.status().is_none_or(|status| status.state == b'R'))
    }

    /// Returns the state of the first task that has not stopped; `?` if there is none any more.
    fn state_of_late(&self) -> u8 {
        let late = self.tasks.iter().find(|task| task.state == TaskState::Running);
        late.and_then(Task::status).map_or(b'?', |status| status.state)
    }

    /// Takes the reports of the tasks. Returns whether all have stopped or ended.
    fn look(&mut self) -> Result<bool, NotStopped> {
        let mut have_all = true;
        for task in self.tasks.iter_mut().filter(|task| task.state == TaskState::Running) {
            task.look()?;
            have_all &= task.state != TaskState::Running;
        }
        Ok(have_all)
    }
}

impl Drop for StoppedTasks {
    fn drop(&mut self) {
        let deadline = sys::monotonic_ns() + PATIENCE_AT_END;
        // A task that has been interrupted and not stopped yet may be leaving a system call, which
        // must be made again. When the helper ends, the kernel releases those that do not stop.
        loop {
            let mut is_any_left = false;
            for task in self.tasks.iter_mut().rev() {
                let _ = task.look();
                if task.state == TaskState::Stopped {
                    // If it was killed, its end is noticed by another look.
                    let is_released = tracing::detach(task.id).is_ok();
                    task.state = if is_released { TaskState::Gone } else { TaskState::Running };
                }
                is_any_left |= task.state != TaskState::Gone;
            }
            if !is_any_left || sys::monotonic_ns() > deadline {
                return;
            }
            sys::nap(NAP);
        }
    }
}

impl Task {
    /// Takes the reports of the task that there are.
    fn look(&mut self) -> Result<(), NotStopped> {
        while self.state == TaskState::Running {
            match tracing::poll(self.id) {
                Ok(None) => return Ok(()),
                Ok(Some(TracedReport::Stopped)) => {
                    self.state = TaskState::Stopped;
                    self.repair()?;
                }
                // The signal is delivered now, and the task stops afterwards.
                Ok(Some(TracedReport::Signal(signal))) => drop(tracing::resume(self.id, signal)),
                Ok(Some(TracedReport::AtCall | TracedReport::Event)) => drop(tracing::resume(self.id, 0)),
                Ok(Some(TracedReport::Ended)) | Err(_) => self.state = TaskState::Gone,
            }
        }
        Ok(())
    }

    /// Makes the task's system call go on, if the stop has interrupted it and the kernel would not
    /// make it again.
    fn repair(&self) -> Result<(), NotStopped> {
        // It may have been killed.
        let Ok(mut registers) = Registers::read(self.id) else { return Ok(()) };
        if registers.instruction() == 0 {
            return Err(NotStopped::KernelStores("a thread of the kernel's works for the process"));
        }
        #[cfg(target_arch = "aarch64")]
        if let Some(before) = self.before {
            registers.note_call(before, before.may_have_ended(self.process, self.id));
        }
        let repaired = interrupted::repair(&mut registers, || self.status().is_none_or(|status| status.has_signal()));
        if repaired != interrupted::Repair::None {
            let _ = registers.write(self.id);
        }
        Ok(())
    }

    /// Returns its status, if it has not ended altogether.
    fn status(&self) -> Option<ThreadStatus> {
        ThreadStatus::of_thread(self.process, self.id).ok()
    }
}

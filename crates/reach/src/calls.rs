//! System calls that a stopped task is made to make. The task executes `syscall` instructions that
//! are somewhere in its memory anyway, with registers that are set for the call, and stops at its
//! entry and exit. All signals are blocked meanwhile.
//!
//! If this process dies in the middle, the task goes on by itself as if nothing had happened: see
//! [`crate::frame`]. The memory for the frame is a new mapping. In the first call, which makes it,
//! and in the last one, which unmaps it, the frame is on the task's own stack, below the part in
//! use, where the kernel would put that of a signal. The bytes that were there are put back. If the
//! stack has no room, the task does not survive the death of this process in these two calls.
//!
//! A call is made only if this process lives until the task is at its entry: up to then it is the
//! return from a signal handler, by which the task restores itself. Otherwise the task would make the
//! call when this process has died, while the other tasks go on, too. And if there is a seccomp
//! filter, that is not suspended any more: it would see the call, and most filters permit only this
//! one.

use std::ops::Range;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use sopin_core::registers::{NO_CALL, Registers};
use sopin_core::sys;
use sopin_core::sys::tracing::TracedReport;
use sopin_inspect::ProcessObjects;
use sopin_inspect::memory::{Bytes, FileBytes};

use crate::frame::{self, Frame};
use crate::instructions::Instructions;
use crate::memory::WritableMemory;
use crate::ptrace::{self, NoReport};
use crate::restartable;
use crate::task::{Task, status_of};

/// The longest time for a system call.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest time until the first call begins. A task that has been resumed runs at once if it gets
/// a processor.
const PATIENCE_FOR_PROCESSOR: Duration = Duration::from_secs(2);
/// The same for a task that sleeps instead: it is frozen.
const PATIENCE_WHILE_ASLEEP: Duration = Duration::from_millis(200);
/// The longest time for a task to stop that has not begun a call.
const STOP: Duration = Duration::from_secs(1);
const FRAME_ALIGNMENT: u64 = 64;

/// The reason why a call was not made, or has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The kernel's error.
    Failed(Errno),
    /// The task has not begun the call in time, because it is frozen or gets no processor. It can be
    /// restored, and makes no other call before.
    NotBegun,
    /// The task has ended, or does not stop any more. Nothing more can be done with it.
    Lost,
}

impl CallError {
    /// Returns whether the task makes no other call after this error.
    pub fn is_final(self) -> bool {
        matches!(self, Self::NotBegun | Self::Lost)
    }
}

impl From<Errno> for CallError {
    fn from(errno: Errno) -> Self {
        Self::Failed(errno)
    }
}

impl From<NoReport> for CallError {
    fn from(_: NoReport) -> Self {
        Self::Lost
    }
}

/// A task that makes system calls. Its registers and its signal mask are restored by
/// [`Caller::restore`].
pub struct Caller<'a> {
    task: &'a Task,
    readable: &'a FileBytes,
    memory: &'a WritableMemory,
    instructions: Instructions,
    /// The registers that the task gets back.
    saved: Registers,
    mask: u64,
    frame: Option<Frame>,
    /// The addresses of the task's own stack that are not in use.
    free_stack: Range<u64>,
    on_stack: Option<FrameOnStack>,
    blocks_signals: bool,
    /// The vector registers, where a system call shortens them: see [`frame::long_vectors`].
    vectors: Option<Vec<u8>>,
    progress: Progress,
}

/// How far a task has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// It has not made a call yet.
    New,
    /// It is in the middle of a call, and cannot be restored.
    InCall,
    /// It has made a call, so it is neither frozen nor without a processor.
    Runs,
    /// It has not begun a call in time. It stays where it is until it is restored.
    DoesNotRun,
}

/// A frame on the task's own stack.
struct FrameOnStack {
    frame: Frame,
    /// The bytes that were there before.
    before: Vec<u8>,
}

impl<'a> Caller<'a> {
    /// Prepares a task that has stopped, and maps its frame.
    pub fn prepare(
        task: &'a Task,
        instructions: Instructions,
        found: &ProcessObjects<'a>,
        memory: &'a WritableMemory,
    ) -> Result<Self, CallError> {
        let mut saved = task.registers()?;
        let is_in_call = task.is_in_call(&saved);
        if !restartable::leave(task.id, &mut saved, found.memory, is_in_call) {
            return Err(CallError::Failed(Errno::NOTSUP));
        }
        let vectors = if saved.call().is_none() { frame::long_vectors(task.id)? } else { None };
        let mask = ptrace::signal_mask(task.id)?;
        let free_stack = frame::free_stack(found.maps, saved.stack());
        let mut caller = Self {
            task,
            readable: found.memory,
            memory,
            instructions,
            saved,
            mask,
            frame: None,
            free_stack,
            on_stack: None,
            blocks_signals: false,
            vectors,
            progress: Progress::New,
        };
        match caller.map_frame() {
            Ok(()) => Ok(caller),
            Err(error) => {
                caller.restore();
                Err(error)
            }
        }
    }

    fn map_frame(&mut self) -> Result<(), CallError> {
        self.put_frame_on_stack();
        let mapped = self.map_anonymous(frame::ROOM).and_then(|address| self.fill_frame(address));
        if self.progress != Progress::InCall && self.point_to_frame().is_ok() {
            self.clear_stack();
        }
        mapped
    }

    fn make_frame(&self, address: u64) -> Result<Frame, Errno> {
        let resumed = frame::resumed_by_itself(&self.saved);
        frame::make(self.task.id, &resumed, self.mask, address, self.instructions.return_from_signal)
    }

    /// Puts a frame on the task's own stack, if there is room.
    fn put_frame_on_stack(&mut self) {
        let put = || {
            // Its size is known only when it is made.
            let len = self.make_frame(0)?.bytes.len() as u64;
            let address = self.free_stack.end.checked_sub(len).map_or(0, |address| address & !(FRAME_ALIGNMENT - 1));
            if address < self.free_stack.start {
                return Err(Errno::NOMEM);
            }
            let frame = self.make_frame(address)?;
            let before = self.readable.read_exact(address, frame.bytes.len())?;
            self.memory.write(address, &frame.bytes)?;
            Ok(FrameOnStack { frame, before })
        };
        self.on_stack = put().ok();
    }

    /// Lets the task return to the frame in the new mapping from now on.
    fn point_to_frame(&self) -> Result<(), Errno> {
        let frame = self.frame.as_ref().ok_or(Errno::NOENT)?;
        let mut registers = Registers::read(self.task.id).map_err(ptrace::errno)?;
        registers.set_stack(frame.stack);
        registers.write(self.task.id).map_err(ptrace::errno)
    }

    /// Puts back what was on the stack.
    fn clear_stack(&mut self) {
        if let Some(on_stack) = self.on_stack.take() {
            let _ = self.memory.write(on_stack.frame.stack, &on_stack.before);
        }
    }

    fn fill_frame(&mut self, address: u64) -> Result<(), CallError> {
        let made = self.make_frame(address);
        match made.and_then(|frame| self.memory.write(address, &frame.bytes).map(|()| frame)) {
            Ok(frame) => {
                self.frame = Some(frame);
                Ok(())
            }
            Err(errno) => {
                self.unmap(address, frame::ROOM)?;
                Err(errno.into())
            }
        }
    }

    /// Maps anonymous memory that can be read and written.
    pub fn map_anonymous(&mut self, len: usize) -> Result<u64, CallError> {
        let protection = (libc::PROT_READ | libc::PROT_WRITE) as u64;
        let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
        self.call(libc::SYS_mmap, [0, len as u64, protection, flags, u64::MAX, 0])
    }

    /// Has the task make a system call; returns its result.
    pub fn call(&mut self, number: i64, arguments: [u64; 6]) -> Result<u64, CallError> {
        let on_stack = self.on_stack.as_ref().map(|on_stack| &on_stack.frame);
        let frame = self.frame.as_ref().or(on_stack);
        let (stack, return_to) = match frame {
            Some(frame) => (frame.stack, frame.return_to),
            None => (self.saved.stack(), self.saved.instruction()),
        };
        let (before, stack_before) =
            frame.map_or((NO_CALL, stack), |frame| (libc::SYS_rt_sigreturn, frame.stack_of_return));
        let registers = self.saved.calling(self.instructions.call, stack_before, return_to, before, arguments);
        registers.write(self.task.id).map_err(ptrace::errno)?;
        if !self.blocks_signals {
            // From now on the frame has the mask that the task gets back.
            ptrace::set_signal_mask(self.task.id, u64::MAX)?;
            self.blocks_signals = true;
        }
        let is_first = self.progress == Progress::New;
        self.progress = Progress::InCall;
        let begin = Instant::now();
        // The first stop is at the entry, the second at the exit.
        if !self.run_to_call(|| self.begins_late(begin.elapsed(), is_first))? {
            return Err(self.stop_before_call(stack));
        }
        Registers::replace_call(self.task.id, number, stack).map_err(ptrace::errno)?;
        if !self.run_to_call(|| begin.elapsed() > PATIENCE)? {
            return Err(CallError::Lost);
        }
        let result = Registers::read(self.task.id).map_err(ptrace::errno)?.result();
        self.progress = Progress::Runs;
        let error = i32::try_from(-result).ok().filter(|error| (1..4096).contains(error));
        match error {
            Some(error) => Err(CallError::Failed(Errno::from_raw_os_error(error))),
            None => Ok(result.cast_unsigned()),
        }
    }

    /// Resumes the task up to the entry or the exit of a call. Returns whether it gets there in time.
    fn run_to_call(&self, is_late: impl Fn() -> bool) -> Result<bool, CallError> {
        ptrace::resume_to_call(self.task.id, 0)?;
        loop {
            let signal = match ptrace::wait_for_a_tick(self.task.id)? {
                Some(TracedReport::AtCall) => return Ok(true),
                Some(TracedReport::Ended) => return Err(CallError::Lost),
                // It cannot be blocked. The process counts as stopped from now on, and the task stops
                // when it is released.
                Some(TracedReport::Signal(libc::SIGSTOP)) => libc::SIGSTOP,
                // The instructions are gone. The task gets its signal.
                Some(TracedReport::Signal(signal)) => {
                    ptrace::resume(self.task.id, signal)?;
                    return Err(CallError::Lost);
                }
                Some(TracedReport::Stopped | TracedReport::Event) => 0,
                None if is_late() => return Ok(false),
                None => continue,
            };
            ptrace::resume_to_call(self.task.id, signal)?;
        }
    }

    /// Returns whether the task should have begun a call, for which it has had this time.
    fn begins_late(&self, waited: Duration, is_first: bool) -> bool {
        let is_asleep = || status_of(self.task.process, self.task.id).is_some_and(|status| status.state == b'S');
        if is_first {
            waited > PATIENCE_FOR_PROCESSOR || waited > PATIENCE_WHILE_ASLEEP && is_asleep()
        } else {
            waited > PATIENCE
        }
    }

    /// Has the task stop, which has not begun a call in time.
    fn stop_before_call(&mut self, stack: u64) -> CallError {
        match self.interrupt_before_call(stack) {
            Ok(true) => {
                self.progress = Progress::DoesNotRun;
                CallError::NotBegun
            }
            Ok(false) | Err(_) => CallError::Lost,
        }
    }

    fn interrupt_before_call(&self, stack: u64) -> Result<bool, CallError> {
        let id = self.task.id;
        ptrace::interrupt(id)?;
        let deadline = Instant::now() + STOP;
        loop {
            let signal = match ptrace::wait(id, deadline)? {
                TracedReport::Stopped => {
                    let registers = Registers::read(id).map_err(ptrace::errno)?;
                    return Ok(registers.instruction() == self.instructions.call);
                }
                // It has begun now. After a return from a signal handler the kernel would not make the
                // interrupted call again.
                TracedReport::AtCall => {
                    Registers::replace_call(id, NO_CALL, stack).map_err(ptrace::errno)?;
                    return Ok(true);
                }
                TracedReport::Signal(signal) => signal,
                TracedReport::Event => 0,
                TracedReport::Ended => return Ok(false),
            };
            ptrace::resume(id, signal)?;
        }
    }

    /// Returns the task.
    pub fn task(&self) -> &Task {
        self.task
    }

    /// Returns the address of the frame, which is in a new mapping.
    pub fn frame_address(&self) -> u64 {
        self.frame.as_ref().map_or(0, |frame| frame.stack)
    }

    /// Unmaps memory that the task has mapped.
    pub fn unmap(&mut self, address: u64, len: usize) -> Result<(), CallError> {
        self.call(libc::SYS_munmap, [address, len as u64, 0, 0, 0, 0]).map(drop)
    }

    /// Unmaps the frame, and gives the task back what it had. Returns whether that has succeeded;
    /// if not, the task has ended, or restores itself by its frame as soon as it can. A task that does
    /// not run keeps the memory of the frame.
    pub fn restore(mut self) -> bool {
        if let Some(frame) = self.frame.take().filter(|_| self.progress == Progress::Runs) {
            self.put_frame_on_stack();
            let _ = self.unmap(frame.stack, frame::ROOM);
        }
        let is_restored = self.progress != Progress::InCall && self.try_to_restore().is_ok();
        if is_restored {
            self.clear_stack();
        } else {
            self.task.note_lost();
        }
        is_restored
    }

    fn try_to_restore(&self) -> Result<(), CallError> {
        let id = self.task.id;
        // Where the task has stopped behind a call, the kernel does not make the interrupted call
        // again. It does where signals are delivered, so the task is made to stop there.
        ptrace::interrupt(id)?;
        let deadline = Instant::now() + PATIENCE;
        let mut signal = 0;
        loop {
            ptrace::resume(id, signal)?;
            signal = match ptrace::wait(id, deadline)? {
                TracedReport::Stopped => break,
                TracedReport::Ended => return Err(CallError::Lost),
                TracedReport::Signal(signal) => signal,
                TracedReport::AtCall | TracedReport::Event => 0,
            };
        }
        if let Some(vectors) = &self.vectors {
            ptrace::set_register_set(id, frame::LONG_VECTORS, vectors)?;
        }
        // Until the task has its own registers, it would return to a frame, which has the mask, too.
        ptrace::set_signal_mask(id, self.mask)?;
        self.saved.in_another_stop().write(id).map_err(ptrace::errno)?;
        Ok(())
    }
}

/// Returns the size of a page.
pub fn page() -> u64 {
    sys::page_size() as u64
}

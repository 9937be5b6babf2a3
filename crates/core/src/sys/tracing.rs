//! The requests of `ptrace(2)` by which a task stops others, and waiting for those.

use core::ffi::{c_int, c_uint};

use super::{Errno, Fd, Result, raw};
use crate::line::Line;

/// `NT_PRSTATUS` of `elf.h`: the general registers.
pub const GENERAL_REGISTERS: usize = 1;
/// `PTRACE_EVENT_STOP` of `linux/ptrace.h`
const EVENT_STOP: c_int = 128;
/// What `PTRACE_O_TRACESYSGOOD` adds to the signal of a stop at a call.
const AT_CALL: c_int = 0x80;

const CONT: c_int = 7;
const DETACH: c_int = 17;
const GETREGSET: c_int = 0x4204;
const SETREGSET: c_int = 0x4205;
pub(super) const SEIZE: c_int = 0x4206;
const INTERRUPT: c_int = 0x4207;
/// `KCMP_VM` of `linux/kcmp.h`
pub(super) const KCMP_VM: c_int = 1;

/// The report of a traced task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TracedReport {
    /// It has stopped because it was interrupted or is stopped anyway, where signals are delivered.
    Stopped,
    /// It has stopped at the entry or the exit of a system call, with `PTRACE_O_TRACESYSGOOD`.
    AtCall,
    /// It has stopped because it is about to get this signal.
    Signal(c_int),
    /// It has stopped for another reason.
    Event,
    /// It has ended.
    Ended,
}

/// Begins to trace a task with these options (`PTRACE_O_*`), without stopping it.
pub fn seize(task: c_int, options: usize) -> Result<()> {
    // SAFETY: the request uses the numbers only.
    unsafe { raw!(libc::SYS_ptrace, SEIZE, task, 0, options) }.map(drop)
}

/// Has a traced task stop where signals are delivered.
pub fn interrupt(task: c_int) -> Result<()> {
    // SAFETY: the request uses the numbers only.
    unsafe { raw!(libc::SYS_ptrace, INTERRUPT, task, 0, 0) }.map(drop)
}

/// Resumes a task that has stopped, and delivers the signal, unless that is 0.
pub fn resume(task: c_int, signal: c_int) -> Result<()> {
    // SAFETY: the request uses the numbers only.
    unsafe { raw!(libc::SYS_ptrace, CONT, task, 0, signal) }.map(drop)
}

/// Resumes a task that has stopped, and traces it no more.
pub fn detach(task: c_int) -> Result<()> {
    // SAFETY: the request uses the numbers only.
    unsafe { raw!(libc::SYS_ptrace, DETACH, task, 0, 0) }.map(drop)
}

/// Reads a register set of a task that has stopped; returns the part of `buffer` that it fills.
pub fn register_set(task: c_int, set: usize, buffer: &mut [u8]) -> Result<&mut [u8]> {
    let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: the kernel writes at most `iov_len` bytes into the exclusively borrowed buffer, and
    // their number into the local vector.
    unsafe { raw!(libc::SYS_ptrace, GETREGSET, task, set, &raw mut vector) }?;
    Ok(buffer.get_mut(..vector.iov_len).unwrap_or_default())
}

/// Sets a register set of a task that has stopped.
pub fn set_register_set(task: c_int, set: usize, bytes: &[u8]) -> Result<()> {
    let vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: the kernel only reads `iov_len` bytes of the borrowed slice, and the vector.
    unsafe { raw!(libc::SYS_ptrace, SETREGSET, task, set, &raw const vector) }.map(drop)
}

/// Returns what a traced task, or a child, has reported, if it has; `ECHILD` if there is no such
/// task.
pub fn poll(task: c_int) -> Result<Option<TracedReport>> {
    let mut status: c_int = 0;
    let (options, usage) = (libc::__WALL | libc::WNOHANG, core::ptr::null::<u8>());
    // SAFETY: the kernel writes the status into the local variable, and no resource usage, since
    // that pointer is null.
    let waited = unsafe { raw!(libc::SYS_wait4, task, &raw mut status, options, usage) }?;
    Ok((waited != 0).then(|| report(status)))
}

/// Returns whether two processes share their memory. `EPERM` if this process may not read that of
/// both, as by ptrace(2); `ENOSYS` where the kernel was built without `kcmp(2)`.
pub fn share_memory(first: c_int, second: c_int) -> Result<bool> {
    // SAFETY: this request compares what the two numbers name.
    unsafe { raw!(libc::SYS_kcmp, first, second, KCMP_VM, 0, 0) }.map(|order| order == 0)
}

/// Returns whether the first thread of a process has a memory, which is where its executable is mapped.
/// One that has ended has none, and neither has a task of the kernel.
pub fn has_memory(process: c_int) -> bool {
    let path = Line::<64>::format_raw(format_args!("/proc/{process}/exe\0"));
    let mut start_of_target = [0; 2];
    super::readlinkat(&Fd::CWD, path.as_c_str(), &mut start_of_target) != Err(Errno(libc::ENOENT))
}

/// Waits until a child has ended. It ignores interruptions by signals.
pub fn wait_for_end(child: c_int) {
    let none = core::ptr::null::<u8>();
    // SAFETY: the pointers for the status and the resource usage are null, so the kernel writes
    // to no memory.
    while unsafe { raw!(libc::SYS_wait4, child, none, libc::__WALL, none) } == Err(Errno(libc::EINTR)) {}
}

/// Returns the report that a status of `wait4(2)` contains.
pub fn report(status: c_int) -> TracedReport {
    if !libc::WIFSTOPPED(status) {
        return TracedReport::Ended;
    }
    match (status.cast_unsigned() >> 16, libc::WSTOPSIG(status)) {
        (event, _) if event == EVENT_STOP as c_uint => TracedReport::Stopped,
        (0, signal) if signal == libc::SIGTRAP | AT_CALL => TracedReport::AtCall,
        (0, signal) => TracedReport::Signal(signal),
        _ => TracedReport::Event,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "makes the calls")]
    fn a_task_that_does_not_exist_is_an_error() {
        let none = c_int::MAX;
        assert_eq!(seize(none, 0), Err(Errno(libc::ESRCH)));
        assert_eq!(poll(none), Err(Errno(libc::ECHILD)));
    }

    #[test]
    #[cfg_attr(miri, ignore = "makes the calls")]
    fn processes_that_share_their_memory_are_recognised() {
        let own = crate::sys::getpid();
        assert_eq!(share_memory(own, own), Ok(true));
        assert!(has_memory(own) && !has_memory(c_int::MAX));
        // Other users' processes cannot be compared.
        assert!(matches!(share_memory(own, 1), Ok(false) | Err(Errno(libc::EPERM))));
    }

    #[test]
    fn statuses_are_understood() {
        assert_eq!(report(0), TracedReport::Ended);
        assert_eq!(report(libc::SIGKILL), TracedReport::Ended);
        let stopped = |event: c_int, signal: c_int| report(event << 16 | signal << 8 | 0x7f);
        assert_eq!(stopped(EVENT_STOP, libc::SIGTRAP), TracedReport::Stopped);
        assert_eq!(stopped(EVENT_STOP, libc::SIGSTOP), TracedReport::Stopped);
        assert_eq!(stopped(0, libc::SIGUSR1), TracedReport::Signal(libc::SIGUSR1));
        assert_eq!(stopped(0, libc::SIGTRAP), TracedReport::Signal(libc::SIGTRAP));
        assert_eq!(stopped(0, libc::SIGTRAP | AT_CALL), TracedReport::AtCall);
        assert_eq!(stopped(1, libc::SIGTRAP), TracedReport::Event);
    }
}

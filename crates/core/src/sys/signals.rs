//! Signals of the calling thread.

use core::ffi::{c_int, c_void};

use super::{Errno, Result, call_ungated, padded, raw};

/// Signals that a thread raises by its own instructions. While they are blocked they kill the
/// process, and a sandbox that handles a filtered call in a handler of SIGSYS (`seccomp(2)`,
/// `SECCOMP_RET_TRAP`) could not run.
const SYNCHRONOUS: [c_int; 6] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP, libc::SIGSYS];

/// All signals of the calling thread blocked but the synchronous ones,
/// including the C library's own (32 and 33), until dropped. The kernel's mask is 64 bits.
pub struct SignalsBlocked(u64);

impl SignalsBlocked {
    /// Blocks the signals. If the call fails, which only a seccomp filter can cause, nothing is
    /// blocked and nothing will be restored.
    pub fn new() -> Result<Self> {
        Self::with(!SYNCHRONOUS.iter().fold(0_u64, |mask, number| mask | 1 << (number - 1)))
    }

    /// Blocks all signals, the synchronous ones too; this thread must raise none of those. The
    /// gate does not apply: the caller has tried that the call passes.
    pub fn all() -> Self {
        let (all, mut old) = (u64::MAX, 0_u64);
        let words = [
            libc::SIG_BLOCK.cast_unsigned() as usize,
            (&raw const all).expose_provenance(),
            (&raw mut old).expose_provenance(),
            8,
        ];
        // SAFETY: the kernel reads one mask of 8 bytes and writes one, as the size argument
        // says; both are live locals.
        let _ = unsafe { call_ungated(libc::SYS_rt_sigprocmask, padded(words)) };
        Self(old)
    }

    /// Blocks the signals of this mask.
    fn with(mask: u64) -> Result<Self> {
        let (blocked, mut old) = (mask, 0_u64);
        let how = libc::SIG_BLOCK;
        // SAFETY: the kernel reads one mask of 8 bytes and writes one, as the size argument
        // says; both are live locals.
        unsafe { raw!(libc::SYS_rt_sigprocmask, how, &raw const blocked, &raw mut old, 8) }?;
        Ok(Self(old))
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        let words = [libc::SIG_SETMASK.cast_unsigned() as usize, (&raw const self.0).expose_provenance(), 0, 8];
        // The call takes back an earlier one, also if the gate was closed since.
        // SAFETY: the kernel reads one mask of 8 bytes, which is a live local; a null pointer
        // makes it write none.
        let _ = unsafe { call_ungated(libc::SYS_rt_sigprocmask, padded(words)) };
    }
}

/// Discards the signal `number` if it is pending for the calling thread.
pub fn discard_pending_signal(number: c_int) {
    let mask = 1_u64 << (number - 1);
    let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let none = core::ptr::null::<c_void>();
    let (mask, zero) = (&raw const mask, &raw const zero);
    // SAFETY: the mask of 8 bytes and the timespec are live locals that the kernel reads; a
    // null pointer makes it write no siginfo.
    let _ = unsafe { raw!(libc::SYS_rt_sigtimedwait, mask, none, zero, 8) };
}

/// Returns whether signal `number` is pending for the calling thread.
pub fn is_signal_pending(number: c_int) -> bool {
    let mut pending = 0_u64;
    // SAFETY: the kernel writes a mask of 8 bytes to a live local.
    let asked = unsafe { raw!(libc::SYS_rt_sigpending, &raw mut pending, 8) };
    asked.is_ok() && pending & (1 << (number - 1)) != 0
}

/// Runs `work`, which may raise `number` in this thread, with that signal blocked, and discards
/// the signal afterwards unless it was pending before. Writing to a pipe without a reader
/// raises SIGPIPE, writing beyond `RLIMIT_FSIZE` raises SIGXFSZ, and either would kill the
/// host. If the signal cannot be blocked, `work` is not run unless there is no such limit.
pub fn absorbing<T>(number: c_int, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let blocked = SignalsBlocked::with(1 << (number - 1));
    if let Err(errno) = blocked
        && (number != libc::SIGXFSZ || super::file_size_limit() != Ok(u64::MAX))
    {
        return Err(errno);
    }
    let was_pending = is_signal_pending(number);
    let result = work();
    if matches!(result, Err(Errno(libc::EPIPE | libc::EFBIG))) && !was_pending {
        discard_pending_signal(number);
    }
    result
}

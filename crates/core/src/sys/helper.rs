//! A helper: a task that shares this process's memory, but is a process of its own.

use core::ffi::c_int;

use super::{Errno, Result, gate, raw};

/// The flags of `clone(2)`: those of vfork(2), so that the calling thread waits until the helper has
/// ended, and one by which a debugger of the program does not trace the helper. Without a signal for
/// its end, the program's calls that wait for children do not return it. The helper has descriptors
/// of its own. Emulators make a fork of such a call: Valgrind would abort the program for any other
/// combination of flags that shares the memory.
const FLAGS: c_int = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_UNTRACED;

/// Returns whether the filters in force permit helpers, and what they need to trace tasks
/// ([`super::tracing`]).
pub fn may_have_helper() -> bool {
    let calls = [
        libc::SYS_clone,
        libc::SYS_ptrace,
        libc::SYS_wait4,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_setitimer,
        libc::SYS_getpriority,
        libc::SYS_setpriority,
        libc::SYS_sched_getscheduler,
        libc::SYS_sched_setscheduler,
        libc::SYS_clock_gettime,
        libc::SYS_readlinkat,
        libc::SYS_getdents64,
    ];
    calls.into_iter().all(gate::passes_number)
}

/// Calls `function` in a helper with this argument, and waits until the helper has ended; only
/// SIGKILL ends the waiting earlier. Returns the id of the helper, which stays a zombie. Under an
/// emulator the helper may have a copy of the memory.
///
/// # Safety
/// * `stack_end` must be the end, aligned to 16 bytes, of writable memory that nothing else uses,
///   large enough for `function`.
/// * What `argument` refers to must be valid for `function`, which must not unwind. The helper has
///   the thread pointer of the calling thread, so `function` must neither use the C library nor
///   change thread-local variables.
#[cfg(not(miri))]
pub unsafe fn run_in_helper(
    stack_end: usize,
    function: unsafe extern "C" fn(usize) -> !,
    argument: usize,
) -> Result<c_int> {
    // SAFETY: this function's contract is that of `enter_helper`.
    match unsafe { enter_helper(stack_end, function, argument) } {
        error @ -4095..=-1 => Err(Errno(-error as i32)),
        id => Ok(id as c_int),
    }
}

/// Returns whether a helper can be made, and ends as it should: a filter may kill it. Without a gate,
/// for a process that tries calls.
pub fn try_helper() -> bool {
    unsafe extern "C" fn end(_: usize) -> ! {
        end_helper()
    }
    let mut stack = [0_u128; 128];
    let stack_end = stack.as_mut_ptr_range().end.expose_provenance();
    // SAFETY: nothing else uses the array, whose end is aligned to 16 bytes. `end` makes one system call,
    // for which it is large enough, and this function returns only when the helper has ended.
    let Ok(helper) = (unsafe { run_in_helper(stack_end, end, 0) }) else { return false };
    let mut status: c_int = 1;
    let address = (&raw mut status).expose_provenance();
    let arguments = [helper.cast_unsigned() as usize, address, libc::__WALL as usize, 0, 0, 0];
    // SAFETY: the kernel writes the status into the local variable, and no resource usage, since that
    // pointer is null.
    while unsafe { super::call_ungated(libc::SYS_wait4, arguments) } == Err(Errno(libc::EINTR)) {}
    status == 0
}

/// Under Miri there are no helpers.
///
/// # Safety
/// There is nothing to observe.
#[cfg(miri)]
pub unsafe fn run_in_helper(_: usize, _: unsafe extern "C" fn(usize) -> !, _: usize) -> Result<c_int> {
    Err(Errno(libc::ENOSYS))
}

/// Makes the system call; returns the kernel's answer in the calling thread.
///
/// # Safety
/// As for [`run_in_helper`].
#[cfg(all(target_arch = "x86_64", not(miri)))]
unsafe fn enter_helper(stack_end: usize, function: unsafe extern "C" fn(usize) -> !, argument: usize) -> isize {
    let result;
    // The kernel keeps all registers but rax, rcx and r11, and gives the helper the same ones but
    // for the result and the stack pointer. A frame pointer of 0 ends backtraces.
    // SAFETY: the calling thread executes nothing of this but the call. The helper has a stack of its
    // own, on which it calls `function`, which does not return: this function's contract.
    unsafe {
        core::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r13",
            "call r12",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone => result,
            in("rdi") FLAGS as usize,
            in("rsi") stack_end,
            in("rdx") 0_usize,
            in("r10") 0_usize,
            in("r8") 0_usize,
            in("r12") function,
            in("r13") argument,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// Makes the system call; returns the kernel's answer in the calling thread.
///
/// # Safety
/// As for [`run_in_helper`].
#[cfg(all(target_arch = "aarch64", not(miri)))]
unsafe fn enter_helper(stack_end: usize, function: unsafe extern "C" fn(usize) -> !, argument: usize) -> isize {
    let result;
    // The kernel keeps all registers but x0, and gives the helper the same ones but for x0 and the
    // stack pointer. A frame pointer of 0 ends backtraces.
    // SAFETY: the calling thread executes nothing of this but the call. The helper has a stack of its
    // own, on which it calls `function`, which does not return: this function's contract.
    unsafe {
        core::arch::asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x10",
            "blr x9",
            "brk #1",
            "2:",
            in("x8") libc::SYS_clone,
            inlateout("x0") FLAGS as usize => result,
            in("x1") stack_end,
            in("x2") 0_usize,
            in("x3") 0_usize,
            in("x4") 0_usize,
            in("x9") function,
            in("x10") argument,
            options(nostack),
        );
    }
    result
}

/// Has the kernel end this helper after so many microseconds, whatever it is doing then: a lock in
/// the kernel, for example, may be held by a thread that waits for this helper. Only this process's
/// timer and its action for SIGALRM change, which are a helper's own.
pub fn limit_helper(microseconds: i64) -> Result<()> {
    // `struct sigaction` of the kernel: handler, flags, restorer, mask. The default ends a process.
    let action = [libc::SIG_DFL, 0, 0, 0];
    let none = core::ptr::null::<usize>();
    // SAFETY: the kernel reads the action, a live local of its size with a mask of 8 bytes, and
    // writes no old one, since that pointer is null.
    unsafe { raw!(libc::SYS_rt_sigaction, libc::SIGALRM, action.as_ptr(), none, 8) }?;
    let signals = 1_u64 << (libc::SIGALRM - 1);
    // SAFETY: the kernel reads a mask of 8 bytes, a live local, and writes no old one.
    unsafe { raw!(libc::SYS_rt_sigprocmask, libc::SIG_UNBLOCK, &raw const signals, none, 8) }?;
    let never = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let time = libc::timeval { tv_sec: microseconds / 1_000_000, tv_usec: microseconds % 1_000_000 };
    let timer = libc::itimerval { it_interval: never, it_value: time };
    // SAFETY: the kernel reads the timer, a live local, and writes no old one.
    unsafe { raw!(libc::SYS_setitimer, libc::ITIMER_REAL, &raw const timer, none) }.map(drop)
}

/// Gives this helper a high priority, if that is permitted: others wait for it. Returns false if it
/// has the policy SCHED_IDLE and must keep it: then it only runs while no other process wants to.
pub fn hurry_helper() -> bool {
    const NICE: c_int = -10;
    // The kernel returns 20 minus the priority.
    // SAFETY: both calls use the numbers only.
    let now = unsafe { raw!(libc::SYS_getpriority, libc::PRIO_PROCESS as c_int, 0) };
    if now.is_ok_and(|now| 20 - now as c_int > NICE) {
        // SAFETY: as above.
        let _ = unsafe { raw!(libc::SYS_setpriority, libc::PRIO_PROCESS as c_int, 0, NICE) };
    }
    let priority: c_int = 0;
    // SAFETY: the first call uses the number only. The second one reads `struct sched_param`, which is
    // one int, a live local.
    unsafe {
        raw!(libc::SYS_sched_getscheduler, 0)
            .is_ok_and(|policy| policy as c_int & !libc::SCHED_RESET_ON_FORK != libc::SCHED_IDLE)
            || raw!(libc::SYS_sched_setscheduler, 0, libc::SCHED_OTHER, &raw const priority).is_ok()
    }
}

/// Ends a helper, by the call by which every program ends: under a filter it passes. Before Linux 5.16
/// a filter that kills the helper kills all processes that share its memory.
pub fn end_helper() -> ! {
    loop {
        // SAFETY: exit_group(2) has no arguments that refer to memory, and ends this process, which
        // is the helper alone.
        let _ = unsafe { super::call_ungated(libc::SYS_exit_group, [0; 6]) };
    }
}

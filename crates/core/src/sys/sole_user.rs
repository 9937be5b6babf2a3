//! Finds out whether any other task uses this process's memory.

use super::{Errno, Result, raw};

/// The flag of `unshare(2)` for memory, as an argument.
pub(super) const MEMORY: usize = libc::CLONE_VM as usize;

/// Returns whether the calling thread is the only task that uses this process's memory: the process
/// has one thread, and no other process shares the memory, as those do that `vfork(2)` or
/// `clone(2)` with CLONE_VM have made. The answer holds until this thread makes a task.
///
/// The kernel answers by `unshare(2)`: it does not unshare memory, so the call succeeds only if
/// there is nothing to unshare, and then has no effect. It compares the memory of all processes,
/// whether or not this one may trace them or sees them in `/proc` (`check_unshare_flags` in
/// kernel/fork.c and `current_is_single_threaded` in lib/is_single_threaded.c, since Linux 4.3).
/// gVisor refuses the call in any case.
///
/// # Errors
/// Those of a seccomp filter, and of a kernel without the call.
pub fn is_sole_user_of_memory() -> Result<bool> {
    // SAFETY: the call has no arguments that refer to memory. For this flag the kernel changes
    // nothing, see above.
    match unsafe { raw!(libc::SYS_unshare, libc::CLONE_VM) } {
        Ok(_) => Ok(true),
        Err(Errno(libc::EINVAL)) => Ok(false),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread;

    /// Runs `task` in a child that is made with these flags, and returns the status that it exits with.
    fn in_child(flags: usize, task: extern "C" fn(*mut libc::c_void) -> libc::c_int) -> libc::c_int {
        let mut stack = std::vec![0_u128; 4096];
        let end = stack.as_mut_ptr_range().end.cast();
        let flags = flags as libc::c_int | libc::SIGCHLD;
        let mut status = 0;
        // SAFETY: the stack is large enough for the task, which makes system calls only, and lives until
        // the child has ended.
        unsafe {
            let child = libc::clone(task, end, flags, core::ptr::null_mut());
            assert!(child > 0 && libc::waitpid(child, &raw mut status, 0) == child);
        }
        assert!(libc::WIFEXITED(status));
        libc::WEXITSTATUS(status)
    }

    extern "C" fn ask(_: *mut libc::c_void) -> libc::c_int {
        match is_sole_user_of_memory() {
            Ok(false) => 1,
            Ok(true) => 2,
            Err(_) => 3,
        }
    }

    extern "C" fn ask_beside_a_sharer(_: *mut libc::c_void) -> libc::c_int {
        extern "C" fn wait(ends: *mut libc::c_void) -> libc::c_int {
            // SAFETY: the argument is the address of the two ends of a pipe. They and the byte are live
            // until this task ends, since its maker waits for that.
            unsafe {
                let ends = ends.cast::<[libc::c_int; 2]>().read();
                let mut byte = 0_u8;
                libc::close(ends[1]);
                libc::read(ends[0], (&raw mut byte).cast(), 1);
            }
            0
        }
        let (mut ends, mut stack, mut status) = ([0; 2], [0_u128; 512], 0);
        // SAFETY: the pointers are to live locals. The task has a stack of its own.
        unsafe {
            libc::pipe(ends.as_mut_ptr());
            let end = stack.as_mut_ptr_range().end.cast();
            let sharer = libc::clone(wait, end, libc::CLONE_VM | libc::SIGCHLD, (&raw mut ends).cast());
            let beside = ask(core::ptr::null_mut());
            libc::close(ends[1]);
            libc::waitpid(sharer, &raw mut status, 0);
            // Its end makes this process the sole user again.
            10 * beside + ask(core::ptr::null_mut())
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "makes processes")]
    fn other_threads_and_other_processes_are_seen() {
        let (end, ended) = mpsc::channel::<()>();
        let other = thread::spawn(move || ended.recv());
        assert_eq!(is_sole_user_of_memory(), Ok(false));
        drop(end);
        let _ = other.join();
        assert_eq!(in_child(0, ask), 2);
        assert_eq!(in_child(libc::CLONE_VM as usize | libc::CLONE_VFORK as usize, ask), 1);
        assert_eq!(in_child(0, ask_beside_a_sharer), 12);
    }
}

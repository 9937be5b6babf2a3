//! Restores what a process has inherited and Rust's runtime changes before `main`: the runtime
//! ignores `SIGPIPE`, and opens `/dev/null` where a standard descriptor is closed
//! (`library/std/src/sys/pal/unix/mod.rs`, `init`). A program that then execs another passes
//! these changes on. Under systemd, which starts services with `SIGPIPE` ignored,
//! `Command::exec` would set the default action instead, and a service that relies on the
//! ignored signal would be killed by its first lost connection.
//!
//! A constructor, which runs before Rust's runtime, notes what was inherited; [`restore`] puts
//! it back. [`keep_children`] changes one more inherited action, for commands that wait for
//! children. This is a separate crate because the command forbids unsafe code.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use libc::c_int;

static SIGPIPE_WAS_IGNORED: AtomicBool = AtomicBool::new(false);
/// Bit n is set if descriptor n was closed.
static CLOSED: AtomicU8 = AtomicU8::new(0);

const STANDARD_DESCRIPTORS: [c_int; 3] = [libc::STDIN_FILENO, libc::STDOUT_FILENO, libc::STDERR_FILENO];

// SAFETY: pointers in this section are called once, before `main`, with
// arguments that a function of the C convention may ignore (gABI, "Initialization
// and Termination Functions").
#[used]
#[unsafe(link_section = ".init_array")]
static NOTE: extern "C" fn() = note;

extern "C" fn note() {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action sigaction(2) only writes the present one to `action`, a live
    // local.
    if unsafe { libc::sigaction(libc::SIGPIPE, std::ptr::null(), action.as_mut_ptr()) } == 0 {
        // SAFETY: sigaction(2) has succeeded, so it has written all of `action`.
        let action = unsafe { action.assume_init() };
        SIGPIPE_WAS_IGNORED.store(action.sa_sigaction == libc::SIG_IGN, Ordering::Relaxed);
    }
    for descriptor in STANDARD_DESCRIPTORS {
        // SAFETY: F_GETFD takes a descriptor and touches no memory.
        if unsafe { libc::fcntl(descriptor, libc::F_GETFD) } == -1 {
            CLOSED.fetch_or(1 << descriptor, Ordering::Relaxed);
        }
    }
}

/// Restores what was inherited. `SIGPIPE` has its inherited action at once, also for the
/// caller. Standard descriptors that were closed stay `/dev/null` for the caller, so that no
/// file that it opens becomes its stdout, and an exec closes them again.
pub fn restore() {
    if !SIGPIPE_WAS_IGNORED.load(Ordering::Relaxed) {
        // SAFETY: the default action installs no handler, so no code of this process can be run
        // by it.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    }
    let closed = CLOSED.load(Ordering::Relaxed);
    for descriptor in STANDARD_DESCRIPTORS.into_iter().filter(|descriptor| closed & (1 << descriptor) != 0) {
        // SAFETY: F_SETFD changes a flag of a descriptor that Rust's runtime has opened, and
        // touches no memory.
        unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// Lets this process wait for its children. Where `SIGCHLD` is ignored, as under a shell's
/// `trap '' CHLD`, the kernel keeps no exit status for a parent (`wait(2)`, ECHILD). Programs that
/// are started later get the default action, too, so a command that execs the user's program must
/// not call this.
pub fn keep_children() {
    // SAFETY: the default action installs no handler, so no code of this process can be run by it.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

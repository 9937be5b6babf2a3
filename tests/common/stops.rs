//! Whether a process can stop its own threads, for the tests of the library and of the command.

use std::fs;

/// Returns whether neither Yama nor a seccomp filter keeps a process from tracing its own threads.
pub fn stops_threads() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    (is_root || matches!(scope.trim(), "" | "0")) && !status.lines().any(|line| line == "Seccomp:\t2")
}

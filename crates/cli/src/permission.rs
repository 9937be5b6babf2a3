//! What the user can do where the kernel denies access to another process.

use std::fs;

/// Returns what the user can do where inspecting a process is denied.
pub fn remedy() -> String {
    let more = match yama_scope().as_str() {
        "" | "0" => String::new(),
        scope => format!(" (kernel.yama.ptrace_scope={scope})"),
    };
    if rustix::process::geteuid().is_root() {
        // The user is root of a container, or the process is in another user namespace.
        return "even root needs CAP_SYS_PTRACE in its user namespace, and no security module against it".to_owned();
    }
    format!("run as root or with CAP_SYS_PTRACE{more}")
}

/// Returns what the user can do where tracing a process is denied.
pub fn remedy_for_tracing() -> String {
    forbidden(&yama_scope()).map_or_else(remedy, str::to_owned)
}

/// Returns the remedy if Yama lets no process trace another; the kernel then refuses every new
/// value (security/yama/yama_lsm.c).
fn forbidden(scope: &str) -> Option<&'static str> {
    (scope == "3").then_some("kernel.yama.ptrace_scope=3 forbids it to every process until the machine is started anew")
}

fn yama_scope() -> String {
    fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_highest_level_of_yama_leaves_no_remedy() {
        for scope in ["", "0", "1", "2"] {
            assert_eq!(forbidden(scope), None);
        }
        assert!(forbidden("3").unwrap().contains("ptrace_scope=3"));
        assert!(!remedy_for_tracing().is_empty());
    }
}

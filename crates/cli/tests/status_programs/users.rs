//! The output of `sopin status` for a user without root's rights.

use std::process::Command;

use serde_json::Value;
use snapbox::str;

use crate::Case;
use crate::common::clean_process;
use crate::common::victim::{Running, Victim, object};

pub const CASES: &[Case] = &[
    Case { name: "a_process_of_another_user", needs: &["root", "setpriv"], test: a_process_of_another_user },
    Case { name: "ones_own_process", needs: &["root", "setpriv"], test: ones_own_process },
    Case { name: "a_kernel_thread", needs: &[], test: a_kernel_thread },
];

const NOBODY: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

fn as_nobody(victim: &Victim, arguments: &[&str]) -> snapbox::cmd::OutputAssert {
    let [program, rest @ ..] = NOBODY;
    victim.installation.command(program).args(rest).args(["bin/sopin", "status"]).args(arguments).assert()
}

fn a_process_of_another_user() -> Result<(), String> {
    let victim = Victim::new();
    let running = victim.start();
    as_nobody(&victim, &[&running.pid().to_string()]).code(3).stderr_eq("").stdout_eq(str![[r#"
[..]: could not be inspected: permission denied
Permission denied: run as root or with CAP_SYS_PTRACE[..]

"#]]);
    let output = as_nobody(&victim, &["--all", "--json"]).stderr_eq("").get_output().clone();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(answer["passed_over"]["denied"].as_u64().unwrap() >= 1);
    assert!(answer["remedy"].as_str().unwrap().starts_with("run as root or with CAP_SYS_PTRACE"));
    assert_ne!(output.status.code(), Some(0), "not every requested process could be inspected");
    Ok(())
}

/// The user may not open `/proc/PID/map_files`.
fn ones_own_process() -> Result<(), String> {
    let victim = Victim::new();
    let mut command = Command::new(NOBODY[0]);
    let command = clean_process(&mut command).args(&NOBODY[1..]).arg("./program");
    let running = Running::start(command.current_dir(victim.installation.path("")));
    let state = || {
        let output = as_nobody(&victim, &["--json", &running.pid().to_string()]).get_output().clone();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        let library = object(&answer["processes"][0], "libvictim.so").clone();
        (library["state"].clone(), library["file"]["state"].clone())
    };
    assert_eq!(state(), ("exposed".into(), "unchanged".into()));
    victim.rewrite(&running);
    assert_eq!(state(), ("damaged".into(), "rewritten".into()));
    Ok(())
}

fn a_kernel_thread() -> Result<(), String> {
    let victim = Victim::new();
    let is_kernels = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let flags = stat.rsplit(')').next().and_then(|rest| rest.split_ascii_whitespace().nth(6)?.parse::<u64>().ok());
        flags.is_some_and(|flags| flags & 0x0020_0000 != 0)
    };
    let Some(pid) = (1..1000).find(is_kernels) else { return Err("no kernel threads are to be seen".to_owned()) };
    victim.status(pid, &[]).code(3).stdout_eq(str![[r#"
[..]: could not be inspected: a kernel thread, which has no memory of its own

"#]]);
    Ok(())
}

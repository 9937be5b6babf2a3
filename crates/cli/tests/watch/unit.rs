//! The unit `examples/systemd/sopin-watch.service`: systemd accepts it, and what its sandbox leaves is enough
//! for the watch.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Case;
use crate::common::Installation;
use crate::watcher::{Rewriter, Watcher, scene};

pub const CASES: &[Case] = &[
    Case { name: "systemd_accepts_the_unit", needs: &["systemd-analyze"], test: systemd_accepts_the_unit },
    Case { name: "the_unit_is_a_sandbox", needs: &["systemd-analyze"], test: the_unit_is_a_sandbox },
    Case {
        name: "the_filter_of_the_unit_permits_every_call",
        needs: &["root", "systemd-analyze", "strace"],
        test: the_filter_permits_every_call,
    },
    Case {
        name: "the_capabilities_of_the_unit_are_enough",
        needs: &["root", "setpriv", "unshare"],
        test: the_capabilities_are_enough,
    },
];

fn text() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/systemd/sopin-watch.service");
    fs::read_to_string(path).unwrap()
}

/// Returns the value of a setting.
fn setting(name: &str) -> String {
    let text = text();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
    line.unwrap_or_else(|| panic!("no {name}=")).to_owned()
}

/// Writes the unit, for the command of an installation, with a change.
fn unit(installation: &Installation, from: &str, to: &str) -> PathBuf {
    let program = installation.path("bin/sopin");
    let text = text().replace("/usr/local/bin/sopin", program.to_str().unwrap());
    installation.file("sopin-watch.service", text.replace(from, to).as_bytes(), 0o644)
}

fn systemd_accepts_the_unit() {
    let installation = Installation::new();
    let verify = |from: &str, to: &str| {
        let mut command = Command::new("systemd-analyze");
        let output = command.args(["verify", "--man=no"]).arg(unit(&installation, from, to)).output().unwrap();
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(verify("", ""), "");
    assert!(verify("ProtectSystem=strict", "ProtectSystem=nonsense").contains("ignoring: nonsense"));
}

fn the_unit_is_a_sandbox() {
    let installation = Installation::new();
    let is_safe = |unit: PathBuf| {
        let mut command = Command::new("systemd-analyze");
        command.args(["security", "--offline=true", "--threshold=30", "--no-pager"]).arg(unit);
        command.output().unwrap().status.success()
    };
    assert!(is_safe(unit(&installation, "", "")));
    let bounding = format!("CapabilityBoundingSet={}", setting("CapabilityBoundingSet"));
    assert!(!is_safe(unit(&installation, &bounding, "")), "the threshold means something");
}

/// Returns the calls of a set, and of the sets in it.
fn calls(sets: &[(String, Vec<String>)], name: &str) -> HashSet<String> {
    let Some((_, members)) = sets.iter().find(|(known, _)| known == name) else { return [name.to_owned()].into() };
    members.iter().flat_map(|member| calls(sets, member)).collect()
}

fn the_filter_permits_every_call() {
    let output = Command::new("systemd-analyze").arg("syscall-filter").output().unwrap();
    let mut sets = Vec::<(String, Vec<String>)>::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        match line.trim() {
            name if line.starts_with('@') => sets.push((name.to_owned(), Vec::new())),
            "" => {}
            member if !member.starts_with('#') => sets.last_mut().unwrap().1.push(member.to_owned()),
            _ => {}
        }
    }
    let filter = setting("SystemCallFilter");
    let permitted: HashSet<String> = filter.split_ascii_whitespace().flat_map(|name| calls(&sets, name)).collect();
    assert!(permitted.len() > 200 && !permitted.contains("ptrace"));

    let victim = scene();
    let _running = victim.start();
    let path = victim.library.to_str().unwrap();
    let trace = victim.installation.path("trace");
    let metrics = victim.installation.path("sopin.prom");
    let watcher = Watcher::start_under(
        &victim.installation,
        &["strace", "-f", "-qq", "-o", trace.to_str().unwrap()],
        &["--json", "--mapping", path, "--metrics", metrics.to_str().unwrap(), "--exec", "true"],
    );
    let _rewriter = Rewriter::run(&victim.installation, &[], &["copy", path]);
    assert_eq!(watcher.next_about(&victim.library)["damaged"], 1);
    // strace passes the signal on.
    let traced = crate::common::victim::children(watcher.pid());
    assert!(Command::new("kill").arg(traced[0].to_string()).status().unwrap().success());
    let mut watcher = watcher;
    watcher.wait();
    let trace = fs::read_to_string(trace).unwrap();
    let made: HashSet<&str> = trace
        .lines()
        .filter_map(|line| line.split_once(' ')?.1.trim_start().split_once('(').map(|(name, _)| name))
        .filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'))
        .collect();
    assert!(made.contains("fanotify_mark") && made.contains("execve"), "{made:?}");
    let refused: Vec<_> = made.iter().filter(|name| !permitted.contains(**name)).collect();
    assert!(refused.is_empty(), "{refused:?}");
}

/// In a mount namespace with a read-only root directory, as `ProtectSystem=strict` makes it.
fn the_capabilities_are_enough() {
    let victim = scene();
    let others = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let _running = victim.start_under(&others);
    let path = victim.library.to_str().unwrap();
    let watched = |capabilities: &str| {
        let set = format!("--bounding-set=-all,{capabilities}");
        let script =
            "mount -o bind,remount,ro / 2>/dev/null || mount --bind / / && mount -o bind,remount,ro /; exec \"$@\"";
        let under = ["unshare", "-m", "sh", "-c", script, "sh", "setpriv", set.as_str(), "--no-new-privs"];
        let watcher = Watcher::start_under(&victim.installation, &under, &["--json", "--mapping", path]);
        let rewriter = Rewriter::run(&victim.installation, &[], &["copy", path]);
        let line = watcher.next_within(&victim.library, crate::watcher::SILENCE * 2);
        watcher.end();
        line.map(|line| (line["damaged"].clone(), line["writer"]["pid"] == rewriter.pid()))
    };
    let names = setting("CapabilityBoundingSet").to_lowercase();
    let all: Vec<String> = names.split_ascii_whitespace().map(|name| name.replace("cap_", "+")).collect();
    assert_eq!(watched(&all.join(",")), Some((1.into(), true)));
    // None of them can be left out, but for the one that matters only for files that are not readable for all.
    assert_eq!(watched("+sys_ptrace,+dac_read_search"), Some((1.into(), false)));
    assert_eq!(watched("+sys_admin,+dac_read_search"), None);
}

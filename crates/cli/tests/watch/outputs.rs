//! The programs that a watch executes, the metrics that it writes, and the names in JSON that its help documents.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Case;
use crate::common::clean_process;
use crate::common::sopin;
use crate::common::victim::Running;
use crate::watcher::{PATIENCE, Rewriter, Watcher, scene};

pub const CASES: &[Case] = &[
    Case { name: "a_program_is_executed", needs: &[], test: a_program_is_executed },
    Case { name: "names_never_become_code", needs: &[], test: names_never_become_code },
    Case { name: "programs_that_do_not_end", needs: &[], test: programs_that_do_not_end },
    Case { name: "metrics_follow_what_happens", needs: &[], test: metrics_follow_what_happens },
    Case { name: "status_has_the_same_metrics", needs: &[], test: status_has_the_same_metrics },
    Case { name: "the_help_lists_every_name_in_json", needs: &[], test: the_help_lists_every_name_in_json },
];

/// Waits until a file has this text in it, and returns all of it.
fn wait_for(path: &Path, text: &str) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = fs::read_to_string(path).unwrap_or_default();
        if found.contains(text) {
            return found;
        }
        assert!(Instant::now() < deadline, "no {text:?} in {found:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

const ALERT: &str = "#!/bin/sh\n# What it is given, and that it has no arguments.\n\
    { echo \"$#|$SOPIN_EVENT|$SOPIN_EVENT_FILE|$SOPIN_EVENT_DAMAGED|$SOPIN_EVENT_ENDED\"; cat; echo end; } >> alerts\n\
    echo printed\n";

fn a_program_is_executed() {
    let victim = scene();
    let _running = victim.start();
    let path = victim.library.to_str().unwrap();
    victim.installation.script("alert", ALERT);
    let watcher = Watcher::start(&victim.installation, &["--mapping", path, "--exec", "./alert"]);
    let _rewriter = Rewriter::run(&victim.installation, &[], &["copy", path]);
    let line = watcher.next_about(&victim.library);
    let text = wait_for(&victim.installation.path("alerts"), "end\n");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], format!("0|rewrite|{path}|1|0"));
    assert_eq!(serde_json::from_str::<Value>(lines[1]).unwrap(), line);
    assert_eq!(watcher.next_error(), "printed", "stdout has the lines only");
    // The program has been waited for.
    let deadline = Instant::now() + PATIENCE;
    while !watcher.children().is_empty() {
        assert!(Instant::now() < deadline, "{:?}", watcher.children());
    }
    watcher.end();
}

/// Names of files, programs and arguments are chosen by whoever writes them.
fn names_never_become_code() {
    let victim = scene();
    let name = "lib $(touch pwned);`touch pwned`\n\x1b[31m\"'.so";
    let library = victim.installation.path(name);
    // The loader is given the path by the program, not by the linker.
    fs::copy(&victim.library, &library).unwrap();
    let main = "#include <dlfcn.h>\n#include <stdio.h>\n\
        int main(int count, char **words) { (void)count; if (!dlopen(words[1], RTLD_NOW)) puts(dlerror());\n\
        puts(\"ready\"); fflush(stdout); getchar(); return 0; }\n";
    victim.installation.compile("loader", main, "cc", &["-ldl"]);
    let hostile = victim.installation.copy(&victim.installation.path("loader"), "$(touch p)\n;x");
    let mut command = std::process::Command::new(&hostile);
    let running = Running::start(clean_process(&mut command).arg(&library).current_dir(victim.installation.path("")));
    victim.installation.script("alert", ALERT);
    let pid = running.pid().to_string();
    let watcher = Watcher::start(&victim.installation, &[&pid, "--exec", "./alert"]);
    let people = Watcher::start_under(&victim.installation, &[], &[&pid]);
    let _rewriter = Rewriter::run(&victim.installation, &[], &["copy", library.to_str().unwrap()]);
    let line = watcher.next_about(&library);
    assert_eq!(line["processes"][0]["name"], "$(touch p)\n;x");
    let text = wait_for(&victim.installation.path("alerts"), "end\n");
    assert!(text.starts_with(&format!("0|rewrite|{}|1|0\n", library.to_str().unwrap())), "{text:?}");
    let text = people.next_line(PATIENCE).unwrap();
    assert!(text.contains("`touch pwned`\\n\\u{1b}[31m") && text.ends_with("$(touch p)\\n;x)"), "{text}");
    assert_eq!(people.next_line(Duration::from_millis(300)), None, "a line is a line");
    assert!(!victim.installation.path("pwned").exists() && !victim.installation.path("p").exists());
    people.end();
    watcher.end();
}

fn programs_that_do_not_end() {
    let victim = scene();
    let _running = victim.start();
    let path = victim.library.to_str().unwrap();
    victim.installation.script("alert", "#!/bin/sh\necho started >> alerts\nexec sleep 1000\n");
    let watcher = Watcher::start(&victim.installation, &["--mapping", path, "--exec", "./alert"]);
    for _ in 0..8 {
        let _rewriter = Rewriter::run(&victim.installation, &[], &["same", path]);
        assert_eq!(watcher.next_about(&victim.library)["exposed"], 1, "watching goes on");
    }
    let alerts = victim.installation.path("alerts");
    wait_for(&alerts, &"started\n".repeat(4));
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(fs::read_to_string(&alerts).unwrap(), "started\n".repeat(4));
    assert_eq!(watcher.children().len(), 4);
    for child in watcher.children() {
        assert!(std::process::Command::new("kill").arg(child.to_string()).status().unwrap().success());
    }
    // Those that have waited are started now.
    wait_for(&alerts, &"started\n".repeat(8));
    let children = watcher.children();
    watcher.end();
    for child in children {
        assert!(std::process::Command::new("kill").arg(child.to_string()).status().unwrap().success());
    }
}

/// Reads metrics as strictly as the format is described: each has a HELP and a TYPE line before its
/// values, appears once, and has a number. Returns the values.
fn parse(text: &str) -> Vec<(String, f64)> {
    let (mut families, mut current, mut values) = (HashSet::new(), String::new(), Vec::new());
    let mut lines = text.strip_suffix('\n').expect("the last line ends").lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            help.split_once(' ').expect("a help text").0.clone_into(&mut current);
            let kind = lines.next().and_then(|line| line.strip_prefix(&format!("# TYPE {current} ")));
            let kind = kind.unwrap_or_else(|| panic!("no TYPE of {current}"));
            assert!(["counter", "gauge"].contains(&kind) && families.insert(current.clone()), "{line}");
            assert_eq!(kind == "counter", current.ends_with("_total"), "{current}");
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap();
        let plain = name.split('{').next().unwrap();
        assert!(plain == current && plain.starts_with("sopin_"), "{line}");
        assert!(plain.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{line}");
        values.push((name.to_owned(), value.parse().unwrap()));
    }
    values
}

fn value(values: &[(String, f64)], name: &str) -> f64 {
    values.iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("no {name}: {values:?}")).1
}

#[allow(clippy::float_cmp, reason = "they are numbers of things")]
fn metrics_follow_what_happens() {
    let victim = scene();
    let _running = victim.start();
    let path = victim.library.to_str().unwrap();
    let file = victim.installation.path("metrics/sopin.prom");
    fs::create_dir(file.parent().unwrap()).unwrap();
    let arguments = ["--mapping", path, "--period", "0.2", "--metrics", file.to_str().unwrap()];
    let watcher = Watcher::start(&victim.installation, &arguments);
    let values = parse(&wait_for(&file, "sopin_processes{state=\"exposed\"} 1\n"));
    for (name, expected) in [
        ("sopin_watch_processes", 1.0),
        ("sopin_watch_objects", 1.0),
        ("sopin_watch_rewrites_total", 0.0),
        ("sopin_watch_damaged_total", 0.0),
        ("sopin_processes{state=\"damaged\"}", 0.0),
        ("sopin_watch_names_writers", f64::from(u8::from(rustix::process::geteuid().is_root()))),
    ] {
        assert_eq!(value(&values, name), expected, "{name}");
    }
    let _rewriter = Rewriter::run(&victim.installation, &[], &["copy", path]);
    watcher.next_about(&victim.library);
    let values = parse(&wait_for(&file, "sopin_watch_damaged_total 1\n"));
    assert_eq!(value(&values, "sopin_watch_rewrites_total"), 1.0);
    assert!(value(&values, "sopin_watch_last_rewrite_timestamp_seconds") > 1e9);
    let files = fs::read_dir(file.parent().unwrap()).unwrap().count();
    assert_eq!(files, 1, "nothing is left beside the file");
    watcher.end();
}

#[allow(clippy::float_cmp, reason = "they are numbers of things")]
fn status_has_the_same_metrics() {
    let victim = scene();
    let running = victim.start();
    let pid = running.pid().to_string();
    let status = |arguments: &[&str]| {
        let output = victim.installation.sopin().args(["status", "--metrics"]).args(arguments).assert();
        (output.get_output().status.code(), parse(std::str::from_utf8(&output.get_output().stdout).unwrap()))
    };
    let (code, values) = status(&[&pid]);
    assert_eq!((code, value(&values, "sopin_processes{state=\"exposed\"}")), (Some(1), 1.0));
    assert_eq!(value(&values, "sopin_objects{state=\"exposed\"}"), 4.0);
    let _rewriter = Rewriter::run(&victim.installation, &[], &["copy", victim.library.to_str().unwrap()]);
    let (code, values) = status(&[&pid, "4194305"]);
    assert_eq!((code, value(&values, "sopin_processes{state=\"damaged\"}")), (Some(4), 1.0));
    assert_eq!(value(&values, "sopin_processes_not_inspected{reason=\"vanished\"}"), 1.0);
    // A metric that counts no events has the same name in both commands.
    let file = victim.installation.path("sopin.prom");
    let watcher = Watcher::start(&victim.installation, &[&pid, "--period", "0.2", "--metrics", file.to_str().unwrap()]);
    let others = parse(&wait_for(&file, "sopin_processes{"));
    watcher.end();
    let shared: Vec<_> = values.iter().filter(|(name, _)| !name.starts_with("sopin_processes_not_inspected")).collect();
    assert!(shared.len() > 8);
    for (name, number) in shared {
        assert_eq!(value(&others, name), *number, "{name}");
    }
}

fn the_help_lists_every_name_in_json() {
    let victim = scene();
    let _running = victim.start();
    let path = victim.library.to_str().unwrap();
    let watcher = Watcher::start(&victim.installation, &["--mapping", path]);
    let _rewriter = Rewriter::run(&victim.installation, &[], &["copy", path]);
    let line = watcher.next_about(&victim.library);
    let help = sopin().args(["watch", "--help"]).assert().get_output().stdout.clone();
    let help = String::from_utf8(help).unwrap();
    let words: Vec<&str> = help.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-')).collect();
    for part in [&line, &line["writer"], &line["processes"][0]] {
        for name in part.as_object().unwrap().keys() {
            assert!(words.contains(&name.as_str()), "{name} is not in the help");
        }
    }
    for name in ["kernel-queue", "rewritings", "output", "alerts", "no-privilege", "other-namespace", "ended"] {
        assert!(words.contains(&name), "{name} is not in the help");
    }
    watcher.end();
}

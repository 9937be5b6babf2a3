//! Ways to rewrite a file in place: who did it, and what became of the processes.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::Case;
use crate::common::victim::{Running, Victim};
use crate::common::{Installation, clean_process};
use crate::watcher::{PATIENCE, Rewriter, Watcher, scene};

pub const CASES: &[Case] = &[
    Case { name: "a_copy_over_the_file", needs: &[], test: a_copy_over_the_file },
    Case { name: "cp_and_dd", needs: &["cp", "dd"], test: cp_and_dd },
    Case { name: "without_truncation", needs: &[], test: without_truncation },
    Case { name: "truncate_without_open", needs: &[], test: truncate_without_open },
    Case { name: "pinned_and_damaged_are_counted", needs: &[], test: pinned_and_damaged_are_counted },
    Case { name: "a_process_that_dies_of_it", needs: &[], test: a_process_that_dies_of_it },
    Case { name: "another_mount_and_another_name", needs: &["root", "unshare"], test: another_mount_and_another_name },
    Case { name: "another_pid_namespace", needs: &["root", "unshare"], test: another_pid_namespace },
    Case { name: "new_processes_and_new_objects", needs: &[], test: new_processes_and_new_objects },
    Case { name: "processes_that_appeared_since_the_last_scan", needs: &["root"], test: processes_since_the_last_scan },
];

fn watch(victim: &Victim) -> Watcher {
    Watcher::start(&victim.installation, &["--mapping", victim.library.to_str().unwrap()])
}

/// Returns the writer that a line names. Without root's rights it is not known.
fn assert_writer(line: &Value, pid: u32, name: &str) {
    let writer = &line["writer"];
    if rustix::process::geteuid().is_root() {
        assert_eq!((&writer["pid"], &writer["name"]), (&json!(pid), &json!(name)), "{line:#}");
    } else {
        assert_eq!((&writer["pid"], &writer["unknown"]), (&Value::Null, &json!("no-privilege")), "{line:#}");
    }
}

fn assert_counts(line: &Value, expected: &[(&str, u64)]) {
    for state in ["full", "relocated", "exposed", "damaged", "ended", "not_inspected"] {
        let count = expected.iter().find(|(name, _)| *name == state).map_or(0, |(_, count)| *count);
        assert_eq!(line[state], count, "{state}: {line:#}");
    }
}

fn a_copy_over_the_file() {
    let victim = scene();
    let running = victim.start();
    let watcher = watch(&victim);
    let path = victim.library.to_str().unwrap();
    let rewriter = Rewriter::run(&victim.installation, &[], &["copy", path]);
    let line = watcher.next_about(&victim.library);
    assert_writer(&line, rewriter.pid(), "rewriter");
    if rustix::process::geteuid().is_root() {
        assert_eq!(line["writer"]["command"].as_array().unwrap()[1..], [json!("copy"), json!(path)]);
    }
    assert_eq!((&line["event"], &line["ongoing"]), (&json!("rewrite"), &json!(false)));
    assert_counts(&line, &[("damaged", 1)]);
    let process = &line["processes"][0];
    assert_eq!((&process["pid"], &process["name"]), (&json!(running.pid()), &json!("program")));
    assert_eq!(process["state"], "damaged");
    assert!(process["reverted_words"].as_u64().unwrap() > 2048, "{line:#}");
    // One rewriting is one line.
    watcher.is_silent_about(&victim.library);
    watcher.end();
}

/// These may have ended before their names are read.
fn cp_and_dd() {
    let victim = scene();
    let running = victim.start();
    let watcher = watch(&victim);
    let copy = victim.installation.copy(&victim.library, "copy.so");
    let (copy, path) = (copy.to_str().unwrap(), victim.library.to_str().unwrap());
    for words in [&["cp", copy, path][..], &["dd", &format!("if={copy}"), &format!("of={path}"), "conv=notrunc"]] {
        let mut child = Command::new(words[0]).args(&words[1..]).stderr(std::process::Stdio::null()).spawn().unwrap();
        let pid = child.id();
        assert!(child.wait().unwrap().success());
        let line = watcher.next_about(&victim.library);
        assert_counts(&line, &[("damaged", 1)]);
        if rustix::process::geteuid().is_root() {
            assert_eq!(line["writer"]["pid"], pid, "{line:#}");
            let name = &line["writer"]["name"];
            assert!(*name == words[0] || *name == Value::Null && line["writer"]["unknown"] == "ended", "{line:#}");
        }
    }
    assert!(!running.ends_well());
    watcher.end();
}

fn without_truncation() {
    let victim = scene();
    let running = victim.start();
    let watcher = watch(&victim);
    let rewriter = Rewriter::run(&victim.installation, &[], &["same", victim.library.to_str().unwrap()]);
    let line = watcher.next_about(&victim.library);
    assert_writer(&line, rewriter.pid(), "rewriter");
    assert_counts(&line, &[("exposed", 1)]);
    assert!(running.ends_well(), "the bytes are the same");
    watcher.end();
}

/// The kernel has no open file of the writer then.
fn truncate_without_open() {
    let victim = scene();
    let running = victim.start();
    let watcher = watch(&victim);
    let rewriter = Rewriter::run(&victim.installation, &[], &["truncate", victim.library.to_str().unwrap()]);
    let line = watcher.next_about(&victim.library);
    assert_writer(&line, rewriter.pid(), "rewriter");
    assert_counts(&line, &[("damaged", 1)]);
    watcher.is_silent_about(&victim.library);
    drop(running);
    watcher.end();
}

fn pinned_and_damaged_are_counted() {
    let victim = scene();
    let unprotected = victim.start();
    let protected = [victim.start_protected(&[]), victim.start_protected(&[])];
    let relocated = victim.start_protected(&[("SOPIN_MODE", "relocated")]);
    let people = Watcher::start_under(&victim.installation, &[], &["--mapping", victim.library.to_str().unwrap()]);
    let watcher = watch(&victim);
    let rewriter = Rewriter::run(&victim.installation, &[], &["copy", victim.library.to_str().unwrap()]);
    let line = watcher.next_about(&victim.library);
    assert_counts(&line, &[("full", 2), ("relocated", 1), ("damaged", 1)]);
    assert_eq!(line["processes"][0]["pid"], unprotected.pid(), "the worst comes first");
    let text = people.next_line(PATIENCE).unwrap();
    let who = if rustix::process::geteuid().is_root() {
        let program = victim.installation.path("rewriter");
        format!("rewriter ({}, `{} copy {}`)", rewriter.pid(), program.display(), victim.library.display())
    } else {
        "an unknown process".to_owned()
    };
    // A command is cut on a line.
    let (time, rest) = text.split_once(' ').unwrap();
    assert_eq!(time.split(':').count(), 3, "{text}");
    assert!(rest.starts_with(&who[..who.len().min(100)]), "{text}");
    let end = format!(
        "rewrote {} in place: 2 processes pinned, 1 relocated, 1 damaged ({} program)",
        victim.library.display(),
        unprotected.pid()
    );
    assert!(rest.ends_with(&end), "{text}");
    for running in protected {
        assert!(running.ends_well());
    }
    assert!(relocated.ends_well() && !unprotected.ends_well());
    people.end();
    watcher.end();
}

fn a_process_that_dies_of_it() {
    let victim = scene();
    let (running, survivor) = (victim.start(), victim.start_protected(&[]));
    let watcher = watch(&victim);
    let pid = running.pid();
    // The writer does not close the file, so the rewriting has not ended when the process dies.
    let _rewriter = Rewriter::run(&victim.installation, &[], &["empty", victim.library.to_str().unwrap()]);
    assert!(!running.ends_well());
    let line = watcher.next_about(&victim.library);
    assert_counts(&line, &[("full", 1), ("ended", 1)]);
    assert_eq!((&line["processes"][0]["pid"], &line["processes"][0]["state"]), (&json!(pid), &json!("ended")));
    assert!(survivor.ends_well());
    watcher.end();
}

/// The writer reaches the file by another path of another mount namespace, and by a hard link.
fn another_mount_and_another_name() {
    let victim = scene();
    let _running = victim.start();
    let watcher = watch(&victim);
    let directory = victim.installation.path("");
    let elsewhere = victim.installation.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::hard_link(&victim.library, victim.installation.path("hard-link.so")).unwrap();
    for name in ["libvictim.so", "hard-link.so"] {
        let script = "mount --bind \"$1\" \"$2\" && shift 2 && exec \"$@\"";
        let under =
            ["unshare", "-m", "sh", "-c", script, "sh", directory.to_str().unwrap(), elsewhere.to_str().unwrap()];
        let path = elsewhere.join(name);
        let rewriter = Rewriter::run(&victim.installation, &under, &["copy", path.to_str().unwrap()]);
        // The path is that by which the process has mapped it.
        let line = watcher.next_about(&victim.library);
        assert_writer(&line, rewriter.pid(), "rewriter");
        assert_counts(&line, &[("damaged", 1)]);
        assert!(!path.exists(), "the mount is not seen here");
    }
    watcher.end();
}

fn another_pid_namespace() {
    let victim = scene();
    let _running = victim.start();
    let watcher = watch(&victim);
    // A namespace below that of the watcher: it knows the writer by a number of its own.
    let path = victim.library.to_str().unwrap();
    let rewriter = Rewriter::run(&victim.installation, &["unshare", "-p", "--fork"], &["copy", path]);
    let line = watcher.next_about(&victim.library);
    assert_writer(&line, crate::common::victim::children(rewriter.pid())[0], "rewriter");
    // The watcher in one below that of the writer.
    let inner = Watcher::start_under(
        &victim.installation,
        &[
            "unshare",
            "-p",
            "--fork",
            // The program reads without end.
            "--kill-child",
            "--mount-proc",
            "sh",
            "-c",
            "./program < /dev/zero > /dev/null & sleep 1; exec \"$@\"",
            "sh",
        ],
        &["--json", "--mapping", path],
    );
    let _writer = Rewriter::run(&victim.installation, &[], &["same", path]);
    let line = inner.next_about(&victim.library);
    assert_eq!((&line["writer"]["pid"], &line["writer"]["unknown"]), (&Value::Null, &json!("other-namespace")));
    drop(inner);
    watcher.end();
}

fn new_processes_and_new_objects() {
    let installation = Installation::new();
    Rewriter::compile(&installation);
    let library = installation.compile("plugin.so", crate::common::victim::LIBRARY, "cc", &["-shared", "-fPIC"]);
    let main = "#include <dlfcn.h>\n#include <stdio.h>\n\
        int main(void) { puts(\"ready\"); fflush(stdout); getchar();\n\
        if (!dlopen(\"./plugin.so\", RTLD_NOW)) puts(dlerror()); getchar(); return 0; }\n";
    installation.compile("program", main, "cc", &["-ldl"]);
    let metrics = installation.path("sopin.prom");
    let files = installation.path("");
    let arguments = ["--mapping", files.to_str().unwrap(), "--period", "0.1", "--metrics", metrics.to_str().unwrap()];
    // The command itself is in the directory; it does not watch itself.
    let watcher = Watcher::start(&installation, &arguments);
    let mut command = Command::new("./program");
    let mut running = Running::start(clean_process(&mut command).current_dir(&files));
    // The index has every process, also those that map none of the files.
    let text = || fs::read_to_string(&metrics).unwrap_or_default();
    let objects = |count: u32| format!("sopin_watch_objects {count}\n");
    let wait = |count: u32| {
        let deadline = std::time::Instant::now() + PATIENCE;
        while !text().contains(&objects(count)) {
            assert!(std::time::Instant::now() < deadline, "{}", text());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    wait(1);
    running.say("x");
    wait(2);
    let rewriter = Rewriter::run(&installation, &[], &["copy", library.to_str().unwrap()]);
    let line = watcher.next_about(&library);
    assert_writer(&line, rewriter.pid(), "rewriter");
    assert_counts(&line, &[("damaged", 1)]);
    // This program, too, is in the directory.
    drop((running, rewriter));
    wait(0);
    watcher.end();
}

/// The file is known, and the process is newer than the last look.
fn processes_since_the_last_scan() {
    let victim = scene();
    let first = victim.start();
    let watcher =
        Watcher::start(&victim.installation, &["--mapping", victim.library.to_str().unwrap(), "--period", "86400"]);
    let second = victim.start();
    second.settle();
    // It does not look again immediately after a look.
    std::thread::sleep(Duration::from_secs(3));
    let _rewriter = Rewriter::run(&victim.installation, &[], &["copy", victim.library.to_str().unwrap()]);
    let line = watcher.next_about(&victim.library);
    assert_counts(&line, &[("damaged", 2)]);
    // One that was started afterwards has nothing to do with it.
    let third = victim.start();
    third.settle();
    drop((first, second, third));
    watcher.end();
}

//! Writers that write ten thousand times in a second, and many files at a time.

use std::fs;
use std::iter;
use std::time::{Duration, Instant};

use crate::Case;
use crate::common::clean_process;
use crate::common::victim::{LIBRARY, Running, Victim};
use crate::watcher::{PATIENCE, Rewriter, SILENCE, Watcher, scene};

pub const CASES: &[Case] = &[
    Case { name: "ten_thousand_writes_a_second", needs: &[], test: ten_thousand_writes_a_second },
    Case { name: "lost_events_of_fanotify", needs: &["root"], test: lost_events_of_fanotify },
    Case { name: "lost_events_of_inotify", needs: &["root", "setpriv"], test: lost_events_of_inotify },
    Case { name: "many_files_of_one_writer", needs: &[], test: many_files_of_one_writer },
    Case { name: "many_processes_of_one_file", needs: &[], test: many_processes_of_one_file },
];

/// Bytes of memory that the watch may take, and how much of a processor: both are far above what it takes on
/// a machine that has nothing else to do.
const MOST_KIB: u64 = 40 << 10;
const MOST_GROWTH_KIB: u64 = 4 << 10;
const MOST_PROCESSOR: f64 = 0.5;

fn memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

/// Returns the processor time of a process, in seconds.
fn processor(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

fn ten_thousand_writes_a_second() {
    let victim = scene();
    let other = victim.installation.compile("libother.so", LIBRARY, "cc", &["-shared", "-fPIC"]);
    let program = victim.installation.path("program.c");
    victim.installation.compile("second", &fs::read_to_string(program).unwrap(), "cc", &[other.to_str().unwrap()]);
    let _running = victim.start();
    let mut command = std::process::Command::new("./second");
    let _second = Running::start(clean_process(&mut command).current_dir(victim.installation.path("")));
    let directory = victim.installation.path("");
    let watcher = Watcher::start(&victim.installation, &["--mapping", directory.to_str().unwrap()]);
    let path = victim.library.to_str().unwrap();
    for reopens in [&[][..], &["reopen"]] {
        let words = [&["hammer", path, "10000", "4"], reopens].concat();
        let before = (memory(watcher.pid()), processor(watcher.pid()));
        let mut rewriter = Rewriter::start(&victim.installation, &[], &words);
        std::thread::sleep(Duration::from_secs(1));
        // Meanwhile it sees everything else.
        {
            let _copier = Rewriter::run(&victim.installation, &[], &["same", other.to_str().unwrap()]);
            assert_eq!(watcher.next_about(&other)["exposed"], 1);
        }
        rewriter.wait_until_done();
        // On a busy machine it may rest for so long that a rewriting has ended: half a second. So there are more
        // lines than two, but not as many as writes.
        let lines: Vec<_> = iter::from_fn(|| watcher.next_within(&victim.library, SILENCE)).collect();
        assert!((1..=20).contains(&lines.len()), "{lines:#?}");
        assert_eq!(lines.last().unwrap()["ongoing"], false, "{lines:#?}");
        let after = (memory(watcher.pid()), processor(watcher.pid()));
        assert!(after.0 < MOST_KIB && after.0 - before.0 < MOST_GROWTH_KIB, "{before:?} {after:?}");
        assert!(after.1 - before.1 < 4.0 * MOST_PROCESSOR, "{before:?} {after:?}");
    }
    watcher.end();
}

/// Stops the watch while events come, more than the kernel keeps for it.
fn assert_loss_is_reported(watcher: Watcher, victim: &Victim, words: &[&str]) {
    watcher.send("STOP");
    drop(Rewriter::run(&victim.installation, &[], words));
    watcher.send("CONT");
    let deadline = Instant::now() + 2 * PATIENCE;
    loop {
        let line = watcher.next_line(deadline.saturating_duration_since(Instant::now())).expect("it says so");
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        if line["event"] == "lost" && line["what"] == "kernel-queue" {
            break;
        }
    }
    assert!(memory(watcher.pid()) < MOST_KIB);
    // It goes on.
    while watcher.next_within(&victim.library, SILENCE).is_some() {}
    let rewriter = Rewriter::run(&victim.installation, &[], &["copy", victim.library.to_str().unwrap()]);
    let line = watcher.next_about(&victim.library);
    assert_eq!(line["damaged"], 1, "{line:#}");
    drop(rewriter);
    watcher.end();
}

/// Returns how many events the kernel keeps.
fn queue(of: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/sys/fs/{of}/max_queued_events"));
    text.map_or(16_384, |text| text.trim().parse().unwrap())
}

/// The kernel merges the events of one process and one file, so this takes many processes; some more than the
/// queue has places, because the watch may read events until it has stopped.
fn lost_events_of_fanotify() {
    let victim = scene();
    let _running = victim.start();
    let path = victim.library.to_str().unwrap();
    let watcher = Watcher::start(&victim.installation, &["--mapping", path]);
    assert_loss_is_reported(watcher, &victim, &["fork", path, &(queue("fanotify") + 4000).to_string()]);
}

/// It merges an event with the one before it only.
fn lost_events_of_inotify() {
    let victim = scene();
    let other = victim.installation.compile("libother.so", LIBRARY, "cc", &["-shared", "-fPIC"]);
    let source = fs::read_to_string(victim.installation.path("program.c")).unwrap();
    victim.installation.compile(
        "both",
        &source,
        "cc",
        &["-Wl,--no-as-needed", victim.library.to_str().unwrap(), other.to_str().unwrap()],
    );
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let mut command = std::process::Command::new(nobody[0]);
    let command = clean_process(&mut command).args(&nobody[1..]).arg("./both");
    let _running = Running::start(command.current_dir(victim.installation.path("")));
    let directory = victim.installation.path("");
    let arguments = ["--json", "--mapping", directory.to_str().unwrap()];
    let watcher = Watcher::start_under(&victim.installation, &nobody, &arguments);
    let (path, count) = (victim.library.to_str().unwrap(), queue("inotify").to_string());
    assert_loss_is_reported(watcher, &victim, &["alternate", path, other.to_str().unwrap(), &count]);
}

fn many_files_of_one_writer() {
    const FILES: usize = 60;
    let victim = scene();
    let installation = &victim.installation;
    let plugins: Vec<_> =
        (0..FILES).map(|number| installation.copy(&victim.library, &format!("plugins/{number}.so"))).collect();
    let main = "#include <dlfcn.h>\n#include <stdio.h>\n\
        int main(int count, char **words) { for (int i = 1; i < count; i++)\n\
        if (!dlopen(words[i], RTLD_NOW | RTLD_LOCAL)) puts(dlerror());\n\
        puts(\"ready\"); fflush(stdout); getchar(); return 0; }\n";
    installation.compile("loader", main, "cc", &["-ldl"]);
    let mut command = std::process::Command::new("./loader");
    let _running = Running::start(clean_process(&mut command).args(&plugins).current_dir(installation.path("")));
    let directory = installation.path("plugins");
    let watcher = Watcher::start(installation, &["--mapping", directory.to_str().unwrap()]);
    assert!(watcher.greeting.last().unwrap().starts_with("sopin: watching 60 files of 1 process"));
    // As an installer does it: one process, one file after the other.
    let bytes = fs::read(&plugins[0]).unwrap();
    for plugin in &plugins {
        fs::write(plugin, &bytes).unwrap();
    }
    let mut seen = std::collections::HashSet::new();
    while seen.len() < FILES {
        let line = watcher.next_line(PATIENCE).expect("a line for each file");
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["damaged"], 1, "{line:#}");
        assert!(seen.insert(line["file"].as_str().unwrap().to_owned()), "one line each: {line:#}");
    }
    watcher.end();
}

fn many_processes_of_one_file() {
    const PROCESSES: u64 = 30;
    let victim = scene();
    let all: Vec<_> = (0..PROCESSES).map(|_| victim.start()).collect();
    let path = victim.library.to_str().unwrap();
    let watcher = Watcher::start(&victim.installation, &["--mapping", path]);
    let people = Watcher::start_under(&victim.installation, &[], &["--mapping", path]);
    let _rewriter = Rewriter::run(&victim.installation, &[], &["copy", path]);
    let line = watcher.next_about(&victim.library);
    assert_eq!((line["damaged"].as_u64(), line["processes"].as_array().unwrap().len()), (Some(PROCESSES), 30));
    let text = people.next_line(PATIENCE).unwrap();
    assert!(text.contains("30 processes damaged (") && text.ends_with(" and 25 more)"), "{text}");
    drop(all);
    people.end();
    watcher.end();
}

//! The ways in which a watch ends, and the exit status of each.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Case;
use crate::common::{clean_process, sopin, zombie};
use crate::watcher::{Rewriter, Watcher, scene};

pub const CASES: &[Case] = &[
    Case { name: "signals_end_it", needs: &[], test: signals_end_it },
    Case { name: "it_ends_with_the_last_process", needs: &[], test: it_ends_with_the_last_process },
    Case { name: "damage_is_the_status", needs: &[], test: damage_is_the_status },
    Case { name: "what_cannot_be_watched", needs: &[], test: what_cannot_be_watched },
    Case { name: "an_output_that_is_closed", needs: &[], test: an_output_that_is_closed },
    Case { name: "an_output_that_is_not_read", needs: &[], test: an_output_that_is_not_read },
];

fn signals_end_it() {
    let victim = scene();
    let running = victim.start();
    for signal in ["TERM", "INT", "HUP"] {
        let mut watcher = Watcher::start(&victim.installation, &[&running.pid().to_string()]);
        watcher.send(signal);
        let status = watcher.wait();
        assert_eq!((status.code(), status.signal()), (Some(0), None), "{signal}");
    }
}

fn it_ends_with_the_last_process() {
    let victim = scene();
    let (one, other) = (victim.start(), victim.start());
    let pids = [one.pid().to_string(), other.pid().to_string()];
    // Long before the next look.
    let arguments = ["--period", "1000", pids[0].as_str(), pids[1].as_str()];
    let mut watcher = Watcher::start(&victim.installation, &arguments);
    assert!(one.ends_well());
    assert_eq!(watcher.next_line(Duration::from_millis(300)), None);
    assert!(other.ends_well());
    assert_eq!(watcher.wait().code(), Some(0));
}

fn damage_is_the_status() {
    let victim = scene();
    let running = victim.start();
    let mut watcher = Watcher::start(&victim.installation, &[&running.pid().to_string()]);
    let _rewriter = Rewriter::run(&victim.installation, &[], &["copy", victim.library.to_str().unwrap()]);
    assert_eq!(watcher.next_about(&victim.library)["damaged"], 1);
    assert!(!running.ends_well());
    assert_eq!(watcher.wait().code(), Some(4));
    // A rewriting that ends the process at once is reported nevertheless.
    let victim = scene();
    let running = victim.start();
    let mut watcher = Watcher::start(&victim.installation, &[&running.pid().to_string()]);
    let _rewriter = Rewriter::run(&victim.installation, &[], &["empty", victim.library.to_str().unwrap()]);
    assert!(!running.ends_well());
    assert_eq!(watcher.next_about(&victim.library)["ended"], 1);
    assert_eq!(watcher.wait().code(), Some(0));
}

fn what_cannot_be_watched() {
    let watch = |arguments: &[&str]| sopin().arg("watch").args(arguments).assert().stdout_eq("");
    watch(&["4194305"]).code(3).stderr_eq("sopin: 4194305: no such process\n");
    let mut child = zombie();
    watch(&[&child.id().to_string()]).code(3);
    child.wait().unwrap();
    for arguments in
        [&["0"][..], &["x"], &["--all", "1"], &["--mapping", "/", "1"], &["--period", "0"], &["--period", "x"]]
    {
        watch(arguments).code(2);
    }
}

fn an_output_that_is_closed() {
    let victim = scene();
    let _running = victim.start();
    let path = victim.library.to_str().unwrap();
    let mut command = Command::new(victim.installation.path("bin/sopin"));
    let command = clean_process(&mut command).args(["watch", "--mapping", path]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    drop(child.stdout.take());
    let begun = Instant::now();
    let status = loop {
        let _rewriter = Rewriter::run(&victim.installation, &[], &["same", path]);
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(begun.elapsed() < Duration::from_secs(20));
    };
    // As every program whose reader has gone, unless SIGPIPE was ignored, as under systemd.
    assert!(status.signal() == Some(13) || status.code() == Some(3), "{status}");
}

/// It is ended by a signal although a line waits to be printed.
fn an_output_that_is_not_read() {
    let victim = scene();
    let _running = victim.start();
    let path = victim.library.to_str().unwrap();
    let mut command = Command::new(victim.installation.path("bin/sopin"));
    let command = clean_process(&mut command).args(["watch", "--json", "--mapping", path]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let stdout = child.stdout.take().unwrap();
    // The smallest pipe holds a page.
    rustix::pipe::fcntl_setpipe_size(&stdout, 4096).unwrap();
    let is_full = || rustix::io::ioctl_fionread(&stdout).unwrap() > 3500;
    let begun = Instant::now();
    while !is_full() {
        assert!(begun.elapsed() < Duration::from_secs(60));
        let _rewriter = Rewriter::run(&victim.installation, &[], &["same", path]);
        std::thread::sleep(Duration::from_millis(200));
    }
    for _ in 0..5 {
        let _rewriter = Rewriter::run(&victim.installation, &[], &["same", path]);
    }
    std::thread::sleep(Duration::from_millis(500));
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    let signalled = Instant::now();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(signalled.elapsed() < Duration::from_secs(5), "{:?}", signalled.elapsed());
}

//! `sopin pin`: which processes are selected, what is refused, exit statuses, and the command that
//! is executed next. These tests need no process that is pinned, only some that are selected.

#![allow(clippy::needless_raw_string_hashes, reason = "snapbox writes snapshots so")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::victim::{LIBRARY, Running, Victim, children};
use common::{Installation, clean_process, missing, sopin, terminal, zombie};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use snapbox::str;

/// A number that the kernel gives to no process (`PID_MAX_LIMIT` in include/linux/threads.h).
const NO_PROCESS: &str = "4194305";

/// Returns the JSON output of a dry run.
fn dry_run(arguments: &[&str]) -> Value {
    let output = sopin().args(["pin", "--dry-run", "--json"]).args(arguments).assert().get_output().clone();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&answer["schema"], &answer["dry_run"]), (&1.into(), &true.into()));
    answer
}

/// Returns the selected processes, those that could be pinned and those that could not, each in
/// the order in which they come.
fn selected(arguments: &[&str]) -> Vec<u32> {
    let answer = dry_run(arguments);
    let of = |name: &str| answer[name].as_array().unwrap().clone();
    let processes = [of("processes"), of("not_pinned")].concat();
    processes.iter().map(|process| u32::try_from(process["pid"].as_u64().unwrap()).unwrap()).collect()
}

/// Returns the command, to be started as a child. No signal is ignored, as SIGINT would be if these
/// tests are run in the background of a shell.
fn child(arguments: &[&str]) -> Command {
    let mut command = Command::new("env");
    clean_process(&mut command).args(["--default-signal", env!("CARGO_BIN_EXE_sopin"), "pin"]).args(arguments);
    command
}

/// Reads the first line of a child's output.
fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    line
}

/// A victim whose program has a child, which maps the library, too.
fn forking_victim() -> Victim {
    let installation = Installation::new();
    let library = installation.compile("libvictim.so", LIBRARY, "cc", &["-shared", "-fPIC"]);
    let main = "#include <stdio.h>\n#include <unistd.h>\nextern int (*const table[2048])(void);\n\
        int main(void) {\n\
        int ends[2];\n\
        if (pipe(ends) != 0) return 1;\n\
        if (fork() == 0) { close(ends[1]); return read(ends[0], ends, 1) != 0; }\n\
        puts(\"ready\"); fflush(stdout); getchar(); return table[0] == 0; }\n";
    installation.compile("program", main, "cc", &[library.to_str().unwrap()]);
    Victim { installation, library }
}

#[test]
fn processes_that_map_a_path_are_selected_parents_first() {
    let victim = forking_victim();
    let running = victim.start();
    let expected = [running.pid(), running.child()];
    let root = victim.installation.path("");
    let user = rustix::process::geteuid().as_raw();
    let (own, other) = (user.to_string(), (user + 1).to_string());
    let (root, library) = (root.to_str().unwrap(), victim.library.to_str().unwrap());
    for paths in [&["--mapping", root][..], &["--mapping", library], &["--mapping", "/no/such", "--mapping", library]] {
        assert_eq!(selected(paths), expected, "{paths:?}");
        assert_eq!(selected(&[paths, &["--user", &own]].concat()), expected, "{paths:?}");
        assert!(selected(&[paths, &["--user", &other]].concat()).is_empty(), "{paths:?}");
    }
    for paths in [&root[..root.len() - 2], &format!("{library}.1")] {
        assert!(selected(&["--mapping", paths]).is_empty(), "{paths}");
    }
    let pids = expected.map(|pid| pid.to_string());
    assert_eq!(selected(&[&pids[1], &pids[0]]), expected, "numbers are sorted, too");
    assert_eq!(selected(&[&pids[1], "--mapping", "/no/such"]), expected[1..], "a number needs no path");
    for many in [&["--all"][..], &["--user", &own]] {
        let selected = selected(many);
        let place = |pid| selected.iter().position(|selected| *selected == pid).unwrap();
        assert!(place(expected[0]) < place(expected[1]), "{many:?}: {selected:?}");
    }
    assert!(running.ends_well());
}

#[test]
fn a_file_that_was_removed_is_still_mapped() {
    let victim = Victim::new();
    let running = victim.start();
    fs::remove_file(&victim.library).unwrap();
    assert_eq!(selected(&["--mapping", victim.library.to_str().unwrap()]), [running.pid()]);
    assert_eq!(selected(&["--mapping", victim.installation.path("").to_str().unwrap()]), [running.pid()]);
    assert!(running.ends_well());
}

/// In another mount namespace, the kernel shows other paths: there the file itself counts.
#[test]
fn a_file_that_is_mounted_elsewhere_is_the_same_file() {
    if missing(&["root", "unshare", "mount"]).is_some() {
        return;
    }
    let victim = Victim::new();
    let root = victim.installation.path("");
    let script = format!("mount --bind '{}' /mnt && cd /mnt && exec \"$@\"", root.display());
    let mut command = Command::new("unshare");
    clean_process(&mut command).args(["--mount", "sh", "-c", &script, "sh"]);
    let running = Running::start(command.arg("./program"));
    let maps = fs::read_to_string(format!("/proc/{}/maps", running.pid())).unwrap();
    assert!(maps.contains(" /mnt/program\n"), "{maps}");
    assert_eq!(selected(&["--mapping", root.join("program").to_str().unwrap()]), [running.pid()]);
    assert!(!selected(&["--mapping", "/mnt"]).contains(&running.pid()), "that is another directory here");
    assert!(running.ends_well());
}

/// Its own files in `/proc` are empty, those of its other threads are not.
#[test]
fn a_process_whose_first_thread_has_ended_is_selected() {
    let installation = Installation::without_library();
    let main = "#include <pthread.h>\n#include <stdio.h>\n#include <stdlib.h>\n\
        static void *other(void *nothing) {\n\
        char state = 0;\n\
        while (state != 'Z') { FILE *status = fopen(\"/proc/self/stat\", \"r\");\n\
        if (status == 0 || fscanf(status, \"%*d %*s %c\", &state) != 1) exit(1);\n\
        fclose(status); }\n\
        puts(\"ready\"); fflush(stdout); getchar(); exit(0); return nothing; }\n\
        int main(void) { pthread_t thread; pthread_create(&thread, 0, other, 0); pthread_exit(0); }\n";
    let program = installation.compile("program", main, "cc", &["-pthread"]);
    let running = Running::start(&mut Command::new(&program));
    assert_eq!(selected(&["--mapping", program.to_str().unwrap()]), [running.pid()]);
    assert_eq!(selected(&[&running.pid().to_string()]), [running.pid()]);
    assert!(running.ends_well());
}

#[test]
fn processes_that_cannot_be_inspected_are_reported() {
    let mut child = zombie();
    let pid = child.id();
    sopin().args(["pin", &pid.to_string()]).assert().code(3).stderr_eq("").stdout_eq(str![[r#"
[..]: could not be pinned: it has ended and waits for its parent

"#]]);
    assert!(selected(&["--all"]).iter().all(|selected| *selected != pid), "it is passed over");
    assert_ne!(dry_run(&["--all"])["passed_over"]["zombies"], 0);
    child.wait().unwrap();
    sopin().args(["pin", NO_PROCESS]).assert().code(3).stderr_eq("").stdout_eq(str![[r#"
4194305: could not be pinned: no such process

"#]]);
    sopin().args(["pin", "--json", NO_PROCESS]).assert().code(3).stderr_eq("").stdout_eq(str![[r#"
{
  "schema": 1,
  "dry_run": false,
  "processes": [],
  "not_pinned": [
    {
      "pid": 4194305,
      "name": null,
      "error": "vanished",
      "reason": "no such process",
      "way_out": null
    }
  ],
  "passed_over": {
    "kernel_threads": 0,
    "zombies": 0,
    "vanished": 0,
    "denied": 0,
    "failed": 0
  },
  "remedy": null
}

"#]]);
    sopin().args(["pin", "--dry-run", NO_PROCESS]).assert().code(3).stdout_eq(str![[r#"
4194305: could not be pinned: no such process
Nothing was stopped or pinned (--dry-run).

"#]]);
}

#[test]
fn the_command_does_not_stop_itself_or_its_tracer() {
    let own = "exec \"$0\" pin --json $$";
    let output = Command::new("sh").args(["-c", own, env!("CARGO_BIN_EXE_sopin")]).output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &answer["not_pinned"][0]["error"]), (Some(3), &"own".into()), "{answer:#}");

    if missing(&["strace"]).is_none() {
        let mut strace = Command::new("strace");
        strace.args(["-o", "/dev/null", "sh", "-c", "exec \"$0\" pin $PPID", env!("CARGO_BIN_EXE_sopin")]);
        let output = clean_process(&mut strace).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let expected =
            " (strace): could not be pinned: it traces this command; run sopin pin without the debugger or strace\n";
        assert!(text.ends_with(expected) && output.status.code() == Some(3), "{text}");
    }
}

#[test]
fn the_command_line_is_checked() {
    for (arguments, code) in [
        (&[][..], 2),
        (&["0"], 2),
        (&["x"], 2),
        (&["-1"], 2),
        (&["--all", "1"], 2),
        (&["--mapping"], 2),
        (&["--watch", "--all"], 2),
        (&["--strict", "--all"], 2),
        (&["--mode", "fulll", "--all"], 2),
        (&["--exclude", "relative", "--all"], 2),
        (&["--private-limit", "much", "--all"], 2),
        (&["--no-such-option"], 2),
        (&["--user", "no such user"], 2),
        // Statuses below 125 are the command's.
        (&["--", "true"], 125),
        (&["x", "--", "true"], 125),
        (&["--json", NO_PROCESS, "--", "true"], 125),
        (&["--dry-run", NO_PROCESS, "--", "true"], 125),
        (&["--user", "no such user", "--", "true"], 125),
    ] {
        let refused = sopin().arg("pin").args(arguments).assert().code(code).stdout_eq("");
        assert!(!refused.get_output().stderr.is_empty(), "{arguments:?}");
    }
    sopin().arg("pin").assert().stderr_eq(str![[r#"
error: the following required arguments were not provided:
  <PID|--all|--mapping <PATH>|--user <USER>>

Usage: sopin pin [OPTIONS] [PID]... [-- COMMAND [ARGUMENT]...]

For more information, try '--help'.

"#]]);
    sopin().args(["pin", "--user", "no such user"]).assert().stderr_eq(str![[r#"
sopin: no such user: no such user; a number is accepted, too

"#]]);
}

#[test]
fn values_of_variables_are_checked_as_by_the_library() {
    let command = sopin().env("SOPIN_MODE", "fulll").env("SOPIN_LOG", "loud").args(["pin", NO_PROCESS]);
    command.assert().code(3).stderr_eq(str![[r#"
sopin: warning: SOPIN_MODE: "fulll" is not understood; accepted: full, relocated, off; using full

"#]]);
    let command = sopin().env("SOPIN_MODE", "fulll").args(["pin", "--mode", "relocated", NO_PROCESS]);
    command.assert().code(3).stderr_eq("");
}

#[test]
fn the_command_is_executed_in_place_of_sopin() {
    let script = "echo $$; exec \"$0\" pin 4194305 -- sh -c 'echo $$; echo $SOPIN_STORE,$LD_PRELOAD; cat; exit 7'";
    let mut command = Command::new("sh");
    let command = clean_process(&mut command).args(["-c", script, env!("CARGO_BIN_EXE_sopin")]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = command.spawn().unwrap();
    running.stdin.take().unwrap().write_all(b"input\n").unwrap();
    let output = running.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert!(lines.len() == 4 && lines[0] == lines[1], "{text}");
    assert_eq!(lines[2..], ["off,", "input"]);
    let warning = "sopin: warning: 4194305: could not be pinned: no such process\n";
    assert_eq!(String::from_utf8(output.stderr).unwrap(), warning);
}

#[test]
fn a_command_that_cannot_be_executed() {
    let installation = Installation::without_library();
    installation.file("data", b"#!/bin/sh\n", 0o644);
    for watch in [&[][..], &["--watch"]] {
        let pin = || installation.sopin().args(["pin", NO_PROCESS]).args(watch);
        pin().args(["--", "no-such-program"]).assert().code(127).stdout_eq("").stderr_eq(str![[r#"
sopin: warning: 4194305: could not be pinned: no such process
sopin: no-such-program: no such program in PATH

"#]]);
        pin().args(["--", "./data"]).assert().code(126).stdout_eq("").stderr_eq(str![[r#"
sopin: warning: 4194305: could not be pinned: no such process
sopin: ./data: no permission to execute it

"#]]);
        // The kernel does not know such a file; it is a script of the shell.
        installation.script("script", "echo $1; exit 3\n");
        pin().args(["--", "./script", "ran"]).assert().code(3).stdout_eq("ran\n");
    }
}

#[test]
fn strict_executes_nothing_unless_everything_is_pinned() {
    for watch in [&[][..], &["--watch"]] {
        let pin = || sopin().args(["pin", "--strict", NO_PROCESS]).args(watch).args(["--", "echo", "ran"]);
        pin().assert().code(125).stdout_eq("").stderr_eq(str![[r#"
sopin: warning: 4194305: could not be pinned: no such process
sopin: echo: not executed, because not everything is pinned; without --strict it is executed all the same

"#]]);
    }
    let verbose = sopin().args(["pin", "--verbose", NO_PROCESS, "--", "echo", "ran"]);
    verbose.assert().code(0).stdout_eq("ran\n").stderr_eq(str![[r#"
4194305: could not be pinned: no such process

"#]]);
}

#[test]
fn a_path_that_does_not_exist_is_a_warning() {
    let output =
        sopin().args(["pin", "--mapping", "/no/such", "--", "echo", "ran"]).assert().code(0).stdout_eq("ran\n");
    let text = String::from_utf8(output.get_output().stderr.clone()).unwrap();
    assert!(text.starts_with("sopin: warning: /no/such: No such file or directory"), "{text}");
}

#[test]
fn watching_ends_with_the_status_of_the_command() {
    let status = |script: &str| child(&["--watch", NO_PROCESS, "--", "sh", "-c", script]).status().unwrap().code();
    assert_eq!(status("exit 7"), Some(7));
    assert_eq!(status("sleep 0.6; exit 8"), Some(8));
    assert_eq!(status("kill -KILL $$"), Some(128 + 9));
}

/// As under nohup, and from a parent that blocks a signal.
#[test]
fn watching_leaves_the_signals_of_the_command_as_they_were() {
    let script = "trap '' HUP PIPE; exec \"$@\"";
    let run = |words: &[&str]| {
        let mut command = Command::new("sh");
        clean_process(&mut command).args(["-c", script, "sh"]).args(words).stderr(Stdio::null());
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let grep = ["grep", "^Sig[BI]", "/proc/self/status"];
    let sopin = env!("CARGO_BIN_EXE_sopin");
    let alone = run(&grep);
    let ignored = alone.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
    let ignored = u64::from_str_radix(ignored, 16).unwrap();
    let set = [Signal::HUP, Signal::PIPE].iter().fold(0, |set, signal| set | 1 << (signal.as_raw() - 1));
    assert_eq!(ignored & set, set, "{alone}");
    assert_eq!(run(&[&[sopin, "pin", "--watch", NO_PROCESS, "--"], &grep[..]].concat()), alone);
    assert_eq!(run(&[&[sopin, "pin", NO_PROCESS, "--"], &grep[..]].concat()), alone);
}

#[test]
fn signals_are_passed_on_to_the_command() {
    for (signal, name) in [(Signal::TERM, "TERM"), (Signal::INT, "INT"), (Signal::HUP, "HUP"), (Signal::USR1, "USR1")] {
        let script = format!("trap 'echo got {name}; exit 9' {name}; echo ready; while :; do sleep 0.05; done");
        let mut running =
            child(&["--watch", NO_PROCESS, "--", "sh", "-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
        assert_eq!(first_line(&mut running), "ready\n");
        kill_process(Pid::from_child(&running), signal).unwrap();
        let output = running.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(9), format!("got {name}\n").as_bytes()));
    }
}

/// The terminal sends its signal to both processes, so the command would get it twice.
#[test]
fn a_signal_of_the_terminal_is_not_passed_on() {
    if missing(&["setsid"]).is_some() {
        return;
    }
    // A shell would run its trap once for two signals.
    let installation = Installation::without_library();
    let main = "#include <signal.h>\n#include <stdio.h>\n#include <time.h>\n\
        static volatile sig_atomic_t number;\n\
        static void count(int signal) { (void)signal; number++; }\n\
        int main(void) { signal(SIGINT, count); puts(\"ready\"); fflush(stdout);\n\
        struct timespec rest = { 1, 0 };\n\
        while (nanosleep(&rest, &rest) != 0) {}\n\
        printf(\"got %d.\\n\", (int)number); return 0; }\n";
    let counter = installation.compile("counter", main, "cc", &[]);
    let (program, mut user) = terminal();
    let mut command = Command::new("setsid");
    clean_process(&mut command).args(["--ctty", "--wait", "env", "--default-signal", env!("CARGO_BIN_EXE_sopin")]);
    command.args(["pin", "--watch", NO_PROCESS, "--"]).arg(counter);
    command.stdin(program.try_clone().unwrap()).stdout(program.try_clone().unwrap());
    let mut running = command.stderr(Stdio::null()).spawn().unwrap();
    drop((command, program));
    let mut text = Vec::new();
    let mut byte = [0];
    while user.read_exact(&mut byte).is_ok() {
        text.push(byte[0]);
        if text.ends_with(b"ready\r\n") {
            for _ in 0..8 {
                user.write_all(b"\x03").unwrap();
                std::thread::sleep(Duration::from_millis(60));
            }
        }
    }
    let text = String::from_utf8(text).unwrap();
    let got = text.split_once("got ").unwrap().1.split_once('.').unwrap().0;
    // Some may have been joined, if the machine is busy.
    assert!((1..=8).contains(&got.parse::<u32>().unwrap()), "{text:?}");
    assert!(running.wait().unwrap().success());
}

#[test]
fn the_command_runs_although_no_process_reads_the_warnings() {
    for watch in [&[][..], &["--watch"]] {
        let script = "\"$@\" 2>&1 >&3 | :";
        let mut command = Command::new("sh");
        clean_process(&mut command).args(["-c", &format!("exec 3>&1; {script}"), "sh", "sh", "-c"]);
        // The reader has ended before the warning is written.
        command.args(["sleep 0.2; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_sopin"), "pin", NO_PROCESS]);
        let output = command.args(watch).args(["--", "echo", "ran"]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "ran\n", "{watch:?}");
    }
}

/// It waits for the command, not for the processes that it pins.
#[test]
fn watching_does_not_wait_for_the_processes() {
    let victim = Victim::new();
    let running = victim.start();
    let begun = Instant::now();
    let status = child(&["--watch", &running.pid().to_string(), "--", "sh", "-c", "exit 5"]).status().unwrap();
    assert!(status.code() == Some(5) && begun.elapsed() < Duration::from_secs(10));
    assert!(children(running.pid()).is_empty());
    assert!(running.ends_well());
}

#[test]
fn the_name_of_a_process_is_shown_on_one_line() {
    let installation = Installation::without_library();
    let program = installation.copy("/bin/sleep".as_ref(), "red\x1b[31m\n");
    let mut running = Command::new(program).arg("60").spawn().unwrap();
    let output = sopin().args(["pin", "--dry-run", &running.id().to_string()]).assert().get_output().clone();
    running.kill().unwrap();
    running.wait().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("red\\u{1b}[31m\\n") && !text.contains('\x1b'), "{text}");
}

/// Without the pin, the program ends badly (`a_damaged_process` in `status.rs`).
#[test]
fn what_is_pinned_outlives_the_command() {
    if missing(&["root"]).is_some() {
        return;
    }
    let victim = Victim::new();
    let running = victim.start();
    running.settle();
    let copy = victim.installation.copy(&victim.library, "copy");
    let (library, copy) = (victim.library.to_str().unwrap(), copy.to_str().unwrap());
    let pin = sopin().args(["pin", "--strict", &running.pid().to_string(), "--", "cp", copy, library]);
    pin.assert().code(0).stdout_eq("").stderr_eq("");
    victim.status(running.pid(), &[]).code(0);
    assert!(running.ends_well());
}

#[test]
fn what_is_loaded_while_the_command_runs_is_pinned() {
    if missing(&["root"]).is_some() {
        return;
    }
    let installation = Installation::new();
    let library = installation.compile("libvictim.so", LIBRARY, "cc", &["-shared", "-fPIC"]);
    let main = "#include <dlfcn.h>\n#include <stdio.h>\n\
        int main(void) { puts(\"ready\"); fflush(stdout); getchar();\n\
        void *late = dlopen(\"./libvictim.so\", RTLD_NOW);\n\
        getchar(); int (*const *table)(void) = dlsym(late, \"table\"); return table[1024]() != 42; }\n";
    installation.compile("program", main, "cc", &[]);
    let victim = Victim { installation, library };
    let mut running = victim.start();
    let pid = running.pid().to_string();
    let wait = format!("while ! grep -q libvictim /proc/{pid}/maps; do sleep 0.05; done; sleep 3");
    let script = format!("echo ready; {wait}; cp copy libvictim.so; exit 7");
    victim.installation.copy(&victim.library, "copy");
    let mut watching = child(&["--watch", &pid, "--", "sh", "-c", &script]);
    let mut watching = watching.current_dir(victim.installation.path("")).stdout(Stdio::piped()).spawn().unwrap();
    assert_eq!(first_line(&mut watching), "ready\n");
    running.say("x");
    assert_eq!(watching.wait().unwrap().code(), Some(7));
    victim.status(running.pid(), &[]).code(0);
    running.say("x");
    assert!(running.ends_well());
}

//! `sopin run`: the program gets the same as without it, and the library.

#![allow(clippy::needless_raw_string_hashes, reason = "snapbox writes snapshots so")]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::process::{self, Stdio};

use common::{Installation, clean_process, library};
use rustix::process::{Pid, Signal, kill_process};

fn stdout(output: &process::Output) -> String {
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Returns what `sh -c SCRIPT` prints under `sopin run`, with an `LD_PRELOAD` that it
/// inherits.
fn preload_in_program(installation: &Installation, inherited: &str) -> String {
    let run = installation.sopin().env("LD_PRELOAD", inherited).args(["run", "--", "sh", "-c", "echo $LD_PRELOAD"]);
    stdout(run.assert().success().get_output()).trim_end().to_owned()
}

#[test]
fn the_library_is_in_the_program() {
    let installation = Installation::new();
    let script = "grep -c '^[^ ]* r-x.*/lib/libsopin.so$' /proc/self/maps; echo $LD_PRELOAD";
    let output = installation.sopin().args(["run", "--", "sh", "-c", script]).assert().success();
    let printed = stdout(output.get_output());
    let (mappings, preload) = printed.split_once('\n').unwrap();
    assert!(mappings.parse::<u32>().unwrap() > 0);
    assert_eq!(preload.trim_end(), installation.library());
}

#[test]
fn other_preloaded_libraries_stay_behind_it() {
    let installation = Installation::new();
    for inherited in ["libm.so.6", "libm.so.6:libdl.so.2", "libm.so.6 libdl.so.2", ":libm.so.6 ", " libm.so.6"] {
        let expected = format!("{}:{inherited}", installation.library());
        assert_eq!(
            preload_in_program(&installation, inherited),
            expected.split_whitespace().collect::<Vec<_>>().join(" ")
        );
    }
    for nothing in ["", ":", " : "] {
        assert_eq!(preload_in_program(&installation, nothing), installation.library(), "{nothing:?}");
    }
}

#[test]
fn it_is_never_preloaded_twice() {
    let installation = Installation::new();
    let library = installation.library();
    let link = installation.path("other.so").display().to_string();
    symlink(&library, &link).unwrap();
    let hard_link = installation.path("hard.so").display().to_string();
    std::fs::hard_link(&library, &hard_link).unwrap();
    let spellings = [
        library.clone(),
        library.replace("/lib/", "/bin/../lib/"),
        library.replace("/lib/", "//lib/./"),
        "./lib/libsopin.so".to_owned(),
        link,
        hard_link,
        "/proc/self/cwd/lib/libsopin.so".to_owned(),
    ];
    for spelling in &spellings {
        for list in [spelling.clone(), format!("libm.so.6:{spelling}"), format!("{spelling} libm.so.6")] {
            assert_eq!(preload_in_program(&installation, &list), list);
        }
    }
}

#[test]
fn a_bare_name_that_the_loader_has_found_is_the_library() {
    let installation = Installation::new();
    let run = |search_path: &str| {
        let command = installation.sopin().env("LD_PRELOAD", "libsopin.so").env("LD_LIBRARY_PATH", search_path);
        let output = command.args(["run", "--", "sh", "-c", "echo $LD_PRELOAD"]).assert().success();
        String::from_utf8(output.get_output().stdout.clone()).unwrap()
    };
    assert_eq!(run(&installation.path("lib").display().to_string()), "libsopin.so\n");
    // The loader does not find the library here, and reports that.
    assert_eq!(run("/nowhere"), format!("{}:libsopin.so\n", installation.library()));
}

#[test]
fn options_become_variables_and_nothing_else_changes() {
    let installation = Installation::new();
    let script = "echo $SOPIN_MODE,$SOPIN_STORE,$SOPIN_LOG";
    let run = |options: &[&str]| {
        let command = installation.sopin().env("SOPIN_MODE", "off").env("SOPIN_LOG", "error").arg("run");
        stdout(command.args(options).args(["--", "sh", "-c", script]).assert().success().get_output())
    };
    assert_eq!(run(&[]), "off,off,error\n");
    assert_eq!(run(&["--mode", "relocated"]), "relocated,off,error\n");
    let store = installation.path("store").display().to_string();
    assert_eq!(run(&["--mode=full", "--store", &store, "--log=off"]), format!("full,{store},off\n"));
    assert_eq!(run(&["--log", "warn", "--store", "off"]), "off,off,warn\n");
}

#[test]
fn the_environment_keeps_its_order_and_every_byte() {
    let installation = Installation::new();
    let environment = [("ZZ", "1"), ("A", "b=c"), ("M", ""), ("_", "x\ny")];
    let mut plain = process::Command::new("env");
    plain.arg("-0").env_clear().env("PATH", "/usr/bin:/bin").envs(environment).env("SOPIN_STORE", "off");
    let mut under_sopin = process::Command::new(installation.path("bin/sopin"));
    under_sopin.args(["run", "env", "-0"]).env_clear().env("PATH", "/usr/bin:/bin");
    under_sopin.envs(environment).env("SOPIN_STORE", "off");
    under_sopin.env("N", OsStr::from_bytes(b"\xff\xfe"));
    plain.env("N", OsStr::from_bytes(b"\xff\xfe"));
    let expected =
        [plain.output().unwrap().stdout, b"LD_PRELOAD=".to_vec(), installation.library().into_bytes(), vec![0]];
    assert_eq!(under_sopin.output().unwrap().stdout, expected.concat());
}

#[test]
fn arguments_arrive_as_they_were_given() {
    let installation = Installation::new();
    let words = [b"a b".as_slice(), b"", b"\xff", b"--mode", b"--", b"-x", b"--help"].map(OsStr::from_bytes);
    for separator in [&["--"][..], &[]] {
        let command = installation.sopin().arg("run").args(separator).args(["printf", "<%s>"]).args(words);
        let output = command.assert().success();
        assert_eq!(output.get_output().stdout, b"<a b><><\xff><--mode><--><-x><--help>");
    }
}

#[test]
fn the_program_is_called_what_the_user_called_it() {
    let installation = Installation::new();
    let own = |program: &str| {
        let command = installation.sopin().args(["run", program, "-c", "tr '\\0' ' ' < /proc/$$/cmdline; :"]);
        stdout(command.assert().success().get_output()).split(' ').next().unwrap().to_owned()
    };
    assert_eq!(own("sh"), "sh");
    assert_eq!(own("/bin/sh"), "/bin/sh");
}

#[test]
fn the_program_has_the_process_id() {
    let installation = Installation::new();
    let mut command = process::Command::new(installation.path("bin/sopin"));
    clean_process(&mut command).args(["run", "--", "sh", "-c", "echo $$"]).stdout(Stdio::piped());
    let child = command.spawn().unwrap();
    let id = child.id();
    assert_eq!(stdout(&child.wait_with_output().unwrap()), format!("{id}\n"));
}

#[test]
fn the_program_gets_the_signals() {
    let installation = Installation::new();
    let mut command = process::Command::new(installation.path("bin/sopin"));
    let script = "trap 'exit 33' USR1; echo ready; while :; do read line; done";
    clean_process(&mut command).args(["run", "--", "sh", "-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    kill_process(Pid::from_child(&child), Signal::USR1).unwrap();
    // Its stdin stays open, so that only the signal can end it.
    let input = child.stdin.take();
    assert_eq!(child.wait().unwrap().code(), Some(33));
    drop(input);
}

#[test]
fn every_exit_status_is_the_programs() {
    let installation = Installation::new();
    for status in 0..=255 {
        installation.sopin().args(["run", "--", "sh", "-c", &format!("exit {status}")]).assert().code(status);
    }
}

#[test]
fn a_program_killed_by_a_signal_has_that_status() {
    let installation = Installation::new();
    // Programs inherit the ignored signals of this process, which may run under
    // nohup(1) or in the background.
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    let ignored = u64::from_str_radix(ignored.trim(), 16).unwrap();
    for signal in [1, 2, 6, 9, 11, 13, 15].into_iter().filter(|signal| ignored & 1 << (signal - 1) == 0) {
        let mut command = process::Command::new(installation.path("bin/sopin"));
        clean_process(&mut command).args(["run", "--", "sh", "-c", &format!("ulimit -c 0; kill -{signal} $$")]);
        assert_eq!(command.status().unwrap().signal(), Some(signal));
    }
}

/// systemd starts services with SIGPIPE ignored, nohup(1) with SIGHUP, and some
/// supervisors leave signals blocked. Rust's runtime would change SIGPIPE.
#[test]
fn signal_dispositions_are_handed_on() {
    let installation = Installation::new();
    let sopin = installation.path("bin/sopin").display().to_string();
    let ask = "grep -E '^Sig(Ign|Blk|Cgt)' /proc/self/status";
    for before in ["", "--ignore-signal=PIPE", "--ignore-signal=HUP", "--block-signal=USR1", "--ignore-signal=SEGV"] {
        let outcome = |under: &str| {
            let script = format!("exec env --default-signal=PIPE {before} {under} {ask}");
            let mut command = process::Command::new("sh");
            stdout(&clean_process(&mut command).args(["-c", &script]).output().unwrap())
        };
        assert_eq!(outcome(&format!("{sopin} run --")), outcome(""), "env {before}");
        assert_ne!(
            outcome("--ignore-signal=PIPE"),
            outcome("--default-signal=PIPE"),
            "the probe must distinguish the two dispositions"
        );
    }
}

#[test]
fn an_unread_warning_does_not_stop_the_program() {
    let installation = Installation::new();
    installation.script("program", "#!/usr/bin/env -S -i /bin/sh\nexit 42\n");
    for redirection in ["", "2>/dev/full", "2>&-"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = process::Command::new("sh");
        let script = format!("exec \"$0\" run ./program {redirection}");
        clean_process(&mut command).args(["-c", &script]).arg(installation.path("bin/sopin"));
        command.current_dir(installation.path("")).stderr(writer);
        assert_eq!(command.status().unwrap().code(), Some(42), "{redirection}");
    }
}

#[test]
fn descriptors_are_handed_on_and_none_is_added() {
    let installation = Installation::new();
    let sopin = installation.path("bin/sopin").display().to_string();
    let ask = "sh -c 'for n in 0 1 2 3 4 5 6 7 8 9; do test -e /proc/$$/fd/$n && echo -n $n; done; :' 7</dev/null";
    for closed in ["", "0<&-", "2>&-", "0<&- 2>&-"] {
        let outcome = |under: &str| {
            let mut command = process::Command::new("sh");
            clean_process(&mut command).args(["-c", &format!("exec {under} {ask} {closed}")]);
            stdout(&command.output().unwrap())
        };
        assert_eq!(outcome(&format!("{sopin} run --")), outcome("env"), "{closed:?}");
        assert!(outcome("env").contains('7'));
    }
}

#[test]
fn it_finds_its_library_where_installations_have_it() {
    let multiarch = format!("lib/{}-linux-gnu", std::env::consts::ARCH);
    for directory in ["lib", "lib64", &multiarch, "bin"] {
        let installation = Installation::with_library_in(directory);
        let output = installation.sopin().args(["run", "--", "sh", "-c", "echo $LD_PRELOAD"]).assert().success();
        let expected = installation.path(directory).join("libsopin.so");
        assert_eq!(stdout(output.get_output()).trim_end(), expected.to_str().unwrap());
    }
}

#[test]
fn it_finds_its_library_by_the_soname() {
    let installation = Installation::without_library();
    let library = installation.copy(&library(), concat!("lib/libsopin.so.", env!("CARGO_PKG_VERSION_MAJOR")));
    let output = installation.sopin().args(["run", "--", "sh", "-c", "echo $LD_PRELOAD"]).assert().success();
    assert_eq!(stdout(output.get_output()).trim_end(), library.to_str().unwrap());
}

#[test]
fn it_finds_its_library_by_its_real_path() {
    let installation = Installation::new();
    let link = installation.path("link");
    symlink(installation.path("bin/sopin"), &link).unwrap();
    let output = installation.command(link).args(["run", "--", "sh", "-c", "echo $LD_PRELOAD"]).assert().success();
    assert_eq!(stdout(output.get_output()).trim_end(), installation.library());
}

/// An upgrade changes where the link leads, and later children of the program should
/// find the new library.
#[test]
fn a_link_to_the_library_is_kept() {
    let installation = Installation::with_library_in("versions");
    std::fs::create_dir(installation.path("lib")).unwrap();
    symlink("../versions/libsopin.so", installation.library()).unwrap();
    let output = installation.sopin().args(["run", "--", "sh", "-c", "echo $LD_PRELOAD"]).assert().success();
    assert_eq!(stdout(output.get_output()).trim_end(), installation.library());
}

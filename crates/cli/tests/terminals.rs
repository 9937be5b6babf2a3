//! Differences on a terminal: colour, unless it is turned off, and lines that fit.

mod common;

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::termios::{Winsize, tcsetwinsize};

use common::{Installation, clean_process, terminal};

/// Returns what a terminal as stdout and stderr shows of a command.
fn shown(installation: &Installation, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    shown_in(installation, 0, arguments, environment)
}

/// Does the same on a terminal of so many columns.
fn shown_in(installation: &Installation, columns: u16, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let (program, mut user) = terminal();
    let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&program, size).unwrap();
    let mut command = Command::new(installation.path("bin/sopin"));
    clean_process(&mut command).env("TERM", "xterm").args(arguments).envs(environment.iter().copied());
    command.stdout(program.try_clone().unwrap()).stderr(program).stdin(Stdio::null());
    command.spawn().unwrap().wait().unwrap();
    drop(command);
    // The kernel keeps the text until it is read, and ends it with EIO.
    let mut text = Vec::new();
    let _ = user.read_to_end(&mut text);
    String::from_utf8(text).unwrap()
}

#[test]
fn a_terminal_gets_colour_unless_it_is_not_wanted() {
    let installation = Installation::new();
    for arguments in [&["check", "sh"][..], &["run", "no-such-program"], &["run", "--nonsense"], &["run", "--help"]] {
        let plain = shown(&installation, arguments, &[("NO_COLOR", "1")]);
        assert!(!plain.contains('\x1b') && !plain.is_empty(), "{arguments:?}: {plain:?}");
        assert_eq!(shown(&installation, arguments, &[("TERM", "dumb")]), plain);
        assert!(shown(&installation, arguments, &[]).contains("\x1b["), "{arguments:?}");
    }
}

#[test]
fn output_without_a_terminal_gets_no_colour() {
    let installation = Installation::new();
    let mut command = Command::new(installation.path("bin/sopin"));
    clean_process(&mut command).env("TERM", "xterm").args(["check", "sh"]);
    let output = command.output().unwrap();
    assert!(output.status.success() && !output.stdout.contains(&b'\x1b'));
}

#[test]
fn commands_are_cut_where_a_terminal_ends() {
    let installation = Installation::new();
    let argument = "é".repeat(300);
    let mut running = Command::new("sleep").args(["60"]).arg0(&argument).spawn().unwrap();
    let pid = running.id().to_string();
    let line = |columns, more: &[&str]| {
        let arguments = [&["status", &pid], more].concat();
        let text = shown_in(&installation, columns, &arguments, &[("NO_COLOR", "1")]);
        text.lines().nth(1).unwrap().to_owned()
    };
    let cut = line(100, &[]);
    assert!(cut.chars().count() == 100 && cut.ends_with("éé…"), "{cut}");
    // The line is not shortened to nothing.
    assert!(line(20, &[]).ends_with("éé…"));
    for whole in [line(100, &["--verbose"]), line(1000, &[])] {
        assert!(whole.ends_with(&format!("{argument} 60")), "{whole}");
    }
    running.kill().unwrap();
    running.wait().unwrap();
}

//! Colour: only on a terminal, and only if nobody minds.

mod common;

use std::io::Read;
use std::process::{Command, Stdio};

use common::{Installation, clean_process, terminal};

/// What a terminal as stdout and stderr shows of a command.
fn shown(installation: &Installation, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let (program, mut user) = terminal();
    let mut command = Command::new(installation.path("bin/sopin"));
    clean_process(&mut command).env("TERM", "xterm").args(arguments).envs(environment.iter().copied());
    command.stdout(program.try_clone().unwrap()).stderr(program).stdin(Stdio::null());
    command.spawn().unwrap().wait().unwrap();
    drop(command);
    // The kernel keeps what was written until it is read, and ends with EIO.
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
fn what_is_no_terminal_gets_none() {
    let installation = Installation::new();
    let mut command = Command::new(installation.path("bin/sopin"));
    clean_process(&mut command).env("TERM", "xterm").args(["check", "sh"]);
    let output = command.output().unwrap();
    assert!(output.status.success() && !output.stdout.contains(&b'\x1b'));
}

//! Checks the purpose of the project: a program whose library is rewritten in place
//! continues under `sopin run`, and dies without it.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};

use common::{Installation, clean_process};

/// A library with a table of relocated pointers, at the end of two pages so that
/// truncation removes it.
const LIBRARY: &str = "static int answer(void) { return 42; }\n\
    int (*const table[2048])(void) = { [0 ... 2047] = answer };\n";
const PROGRAM: &str = "#include <stdio.h>\n\
    extern int (*const table[2048])(void);\n\
    int main(void) { puts(\"ready\"); fflush(stdout); getchar(); return table[1024](); }\n";

/// Runs the program under a command, rewrites its library with the same bytes while it
/// waits, and lets it continue.
fn rewritten_under(under: &[&str]) -> ExitStatus {
    let installation = Installation::new();
    let library = installation.compile("libvictim.so", LIBRARY, "cc", &["-shared", "-fPIC"]);
    // With -z now, no symbol of the library is looked up while it is being rewritten.
    // Otherwise mode `relocated`, which protects only idle processes, would not be
    // enough.
    installation.compile("program", PROGRAM, "cc", &[library.to_str().unwrap(), "-Wl,-z,now"]);
    let mut words = under.iter().copied().chain(["./program"]);
    let mut command = Command::new(words.next().unwrap());
    clean_process(&mut command).args(words).current_dir(installation.path(""));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let bytes = fs::read(&library).unwrap();
    fs::write(&library, bytes).unwrap();
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    child.wait().unwrap()
}

#[test]
fn a_program_survives_its_library_being_rewritten() {
    for mode in ["full", "relocated"] {
        assert_eq!(rewritten_under(&["bin/sopin", "run", "--mode", mode, "--"]).code(), Some(42), "{mode}");
    }
}

#[test]
fn a_program_without_sopin_does_not_survive() {
    for under in [&["env"][..], &["bin/sopin", "run", "--mode", "off", "--"]] {
        let status = rewritten_under(under);
        assert!([Some(11), Some(7)].contains(&status.signal()), "{under:?}: {status}");
    }
}

//! `--help` and `--version`. (`src/manual.rs` compares the manual pages, and `tools.rs`
//! lets shells and formatters read the texts.)

#![allow(clippy::needless_raw_string_hashes, reason = "snapbox writes snapshots so")]

mod common;

use common::sopin;
use snapbox::str;

#[test]
fn help() {
    sopin().args(["run", "--help"]).assert().success().stderr_eq("").stdout_eq(str![[r#"
Run a program under libsopin.so

The command finds the library by its own path, puts it in front of LD_PRELOAD unless it is there
already, and executes the program in its own place: the program has the command's process id and
gets its signals.

The command prints a warning when the library cannot get into the program: when the program is
statically linked, is made for another machine, would get more rights than the caller has (setuid,
setgid, file capabilities), or is a script whose interpreter is one of these. The program runs all
the same. If the loader of another C library would refuse to start the program with the library,
LD_PRELOAD stays as it is.

Usage: sopin run [OPTIONS] [--] COMMAND [ARGUMENT]...

Arguments:
  <COMMAND>...
          The program and its arguments

Options:
      --mode <MODE>
          What to pin (SOPIN_MODE)
          
          [possible values: full, relocated, off]

      --store <DIR>
          Where the copies shared by processes live: an absolute path, or off (SOPIN_STORE)

      --log <LEVEL>
          What the library prints on stderr (SOPIN_LOG)
          
          [possible values: off, error, warn, info, debug]

  -h, --help
          Print help (see a summary with '-h')

Exit status:
  125  sopin itself failed
  126  the program was found and could not be executed
  127  the program was not found
  Otherwise it is that of the program.

Examples:
  sopin run -- gunicorn app:app
  sopin run --mode relocated --log info -- python3 server.py

"#]]);
    sopin().args(["check", "-h"]).assert().success().stderr_eq("").stdout_eq(str![[r#"
Predict whether libsopin.so can get into a program

Usage: sopin check [OPTIONS] [--] COMMAND [ARGUMENT]...

Arguments:
  <COMMAND>...  The program, as it would be given to sopin run; none of its code runs

Options:
      --json  Print JSON
  -h, --help  Print help (see more with '--help')

"#]]);
    sopin().args(["completions", "--help"]).assert().success().stderr_eq("").stdout_eq(str![[r#"
Print completions for a shell

`make install` puts them where bash, zsh and fish look. Without it, have the shell read them at its
start, for instance bash: source <(sopin completions bash)

Usage: sopin completions <SHELL>

Arguments:
  <SHELL>
          The shell
          
          [possible values: bash, elvish, fish, powershell, zsh]

Options:
  -h, --help
          Print help (see a summary with '-h')

Exit status:
  0  the completions were printed
  2  the command line was not understood

"#]]);
}

#[test]
fn version() {
    let expected = format!("sopin {}\n", env!("CARGO_PKG_VERSION"));
    sopin().arg("--version").assert().success().stderr_eq("").stdout_eq(expected);
}

#[test]
fn a_shell_that_is_not_known() {
    sopin().args(["completions", "tcsh"]).assert().code(2).stdout_eq("").stderr_eq(str![[r#"
error: invalid value 'tcsh' for '<SHELL>'
  [possible values: bash, elvish, fish, powershell, zsh]

  tip: a similar value exists: 'zsh'

For more information, try '--help'.

"#]]);
}

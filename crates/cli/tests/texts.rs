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
#[allow(clippy::too_many_lines, reason = "they are those of the help")]
fn help_of_pin() {
    sopin().args(["pin", "--help"]).assert().success().stderr_eq("").stdout_eq(str![[r#"
Pin the shared objects of processes that run already

Use this before you rewrite files of programs that were started without libsopin.so. The command
gives each process the same mappings that the library would have given it. It loads nothing into the
process and runs no code there: it stops all threads of the process by ptrace(2), has one of them
make the system calls, and resumes them. A process is stopped for some milliseconds at a time, and
for 100 ms in vain, a few times, if a thread of it does not stop, because it waits for a disk or a
server. It notices nothing, except that a blocking call may take longer, or transfer less than it
was asked to. For up to half a second, the command waits for a moment at which neither happens.

A pin is a snapshot: what a process loads later is not pinned. Start programs under sopin run for
permanent protection.

With COMMAND the command pins, and then executes COMMAND in its own place. It prints nothing but
warnings about what is not pinned, on stderr, and executes COMMAND all the same, unless --strict is
given. COMMAND itself is not pinned; start it with sopin run if it rewrites its own objects.

Pinning takes the permission to trace a process (ptrace(2)): that of root or CAP_SYS_PTRACE, or the
same user where kernel.yama.ptrace_scope is 0. Processes under a seccomp filter need CAP_SYS_ADMIN,
too.

After SIGINT, SIGTERM or SIGHUP the command completes the object at hand and ends. If a file's
server does not answer, it ends after 5 seconds.

While "schema" in the JSON is 1, names keep their meaning, and new ones may be added.

Usage: sopin pin [OPTIONS] [PID]... [-- COMMAND [ARGUMENT]...]

Arguments:
  [PID]...
          Processes to pin

  [COMMAND]...
          The command to execute when the processes are pinned, and its arguments

Options:
      --all
          Pin every process that may be pinned

      --mapping <PATH>
          Pin every process that maps this file, or a file below this directory; may be given
          several times

      --user <USER>
          Pin every process of this user: a name or a number

      --dry-run
          Stop nothing, and only say what the command would do; it may make copies in the store

      --json
          Print JSON

  -v, --verbose
          Show a line for each object, and commands in full; with COMMAND print the table on stderr

      --watch
          Stay until COMMAND has ended, and pin what is loaded and started meanwhile; signals are
          passed on to COMMAND

      --strict
          Do not execute COMMAND unless everything that was asked for is pinned

      --mode <MODE>
          What to pin (SOPIN_MODE)
          
          [possible values: full, relocated, off]

      --store <DIR>
          Where the copies shared by processes live: an absolute path, or off (SOPIN_STORE)

      --private-limit <BYTES>
          How much private memory a process may hold for copies where no store can be used, for
          example 64M; 0: none (SOPIN_PRIVATE_LIMIT)

      --exclude <GLOBS>
          Objects to leave alone: colon-separated globs over absolute paths (SOPIN_EXCLUDE)

      --only <GLOBS>
          The only objects to pin: colon-separated globs over absolute paths (SOPIN_ONLY)

  -h, --help
          Print help (see a summary with '-h')

Which processes: those whose PID is given, and those that meet the criteria. --mapping and
--user narrow each other; --all alone selects every process. Parents are pinned before their
children, because what they fork later has the pins. Processes that appear meanwhile are
pinned, too. The command never pins itself.

Columns:
  OBJECTS    all objects of the process; those that were out of their files' reach already are
             not in the next three columns
  PINNED     objects that are full now; sopin-status(1) explains the states
  RELOCATED  objects that are relocated now
  LEFT       objects that are exposed or damaged now; a line below gives the reason
  THREADS    threads that were stopped, also those of processes that share the memory
  STOP-MS    milliseconds of the longest stop
  REPAIRED   interrupted system calls that were made to go on
  RESTARTED  those of them whose timeout began anew, although 10 ms of it or more had passed
  CUT-SHORT  system calls that returned a part of a transfer because of the stop

JSON:
  dry_run       whether the command only predicts what it would do
  processes[]   pid, uid, name, command[], has_library, objects[], objects_in_all, tasks, stops,
                longest_stop_us, calls_repaired, timeouts_restarted, transfers_cut_short, errors[];
                in the order in which they were pinned
  objects[]     path, start, end, before, after (full, relocated, exposed, damaged), bytes, reason;
                only objects that were not out of their files' reach before
  not_pinned[]  pid, name, error, reason, way_out
  error         vanished, denied, kernel-thread, zombie, own, traced, tracer, other-machine,
                filtered, unsuitable, frozen, does-not-stop, does-not-run, interrupted, failed
  passed_over   kernel_threads, zombies, vanished, denied, failed: numbers of processes
  remedy        what to do where permission was denied, or null

Exit status:
  0  everything that was asked for is pinned
  1  an object is left exposed, or is damaged
  2  the command line was not understood
  3  a process that was asked for could not be pinned, or not be inspected
  Where several apply, 1 comes before 3. With --dry-run it is what the status would be.
  With COMMAND it is that of COMMAND (with --watch 128 and the signal's number, if a signal has
  ended it), or:
  125  sopin itself failed, or with --strict not everything is pinned
  126  COMMAND was found and could not be executed
  127  COMMAND was not found

Examples:
  sopin pin $(systemctl show -P MainPID shop)
  sopin pin --mapping /srv/shop -- rsync -a --inplace build/ /srv/shop/
  sopin pin --watch --mapping venv -- venv/bin/pip install --upgrade numpy
  sopin pin --all --json | jq '.not_pinned[]'

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

//! Counts that hardly differ between two runs of a program: its instructions in user space, which
//! callgrind of Valgrind counts, and its system calls, which strace counts.

use std::process::{Command, Stdio};

use crate::page::{Column, Compared, Variant};
use crate::rounds::Rounds;

const VALGRIND: [&str; 3] = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"];
const STRACE: [&str; 4] = ["strace", "--follow-forks", "--summary-only", "--quiet=all"];

/// Returns the columns with the counts of these variants. `command` makes the program that a variant
/// runs, and `enter` changes the command that counts it.
///
/// # Errors
/// If a program fails, or does not count.
pub fn columns(
    variants: &[Variant],
    mut command: impl FnMut(Variant) -> Result<Command, String>,
    mut enter: impl FnMut(&mut Command),
) -> Result<Vec<Column>, String> {
    let [instructions, calls] = Rounds::once(variants, |variant| {
        let mut counted = |counter: &[&str], number: fn(&str) -> Option<f64>| {
            let mut counting = under(counter, command(variant)?.env("PYTHONHASHSEED", "0"));
            enter(&mut counting);
            count(&mut counting, number)
        };
        Ok([counted(&VALGRIND, collected)? / 1e6, counted(&STRACE, total)?])
    })?;
    Ok(vec![
        Column::new("instructions", "millions", &[Compared::Ratio, Compared::Extra], instructions.cells()),
        Column::new("system calls", "", &[Compared::Ratio, Compared::Extra], calls.cells()),
    ])
}

/// Returns a command that runs another one under a program that counts. What concerns the loader is not
/// for that program itself.
fn under(counter: &[&str], program: &Command) -> Command {
    let (name, options) = counter.split_first().expect("a program");
    let mut command = Command::new(name);
    command.args(options);
    for (name, value) in program.get_envs() {
        let Some(value) = value else {
            command.env_remove(name);
            continue;
        };
        if counter == STRACE && name.to_string_lossy().starts_with("LD_") {
            let mut setting = name.to_owned();
            setting.push("=");
            setting.push(value);
            command.arg("--env").arg(setting);
        } else {
            command.env(name, value);
        }
    }
    command.arg(program.get_program()).args(program.get_args());
    command
}

/// Runs a program whose last lines on stderr have the `number`.
fn count(command: &mut Command, number: fn(&str) -> Option<f64>) -> Result<f64, String> {
    let output = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).output();
    let output = output.map_err(|error| format!("{command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let found = said.lines().rev().find_map(number).filter(|_| output.status.success());
    found.ok_or_else(|| format!("{command:?}: {}: {said}", output.status))
}

/// Returns the number of callgrind's line `==PID== Collected : NUMBER`.
fn collected(line: &str) -> Option<f64> {
    line.split_once("== Collected : ")?.1.trim().parse().ok()
}

/// Returns the number of calls in the line of strace's table that ends in `total`: percent, seconds,
/// microseconds for a call, calls, errors.
fn total(line: &str) -> Option<f64> {
    line.strip_suffix(" total")?.split_whitespace().nth(3)?.parse().ok()
}

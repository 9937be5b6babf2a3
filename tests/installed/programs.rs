//! A C program that is compiled as its first comment says, and the command, both from
//! the staged tree.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Completion;

use super::Try;
use super::stage::Stage;
use crate::common::dialogue::Dialogue;
use crate::common::library::checkout;
use crate::common::needs::Need;
use crate::common::process::{self, Finished, Outcome};
use crate::common::protection::forget_settings;
use crate::common::rewrite::Rewrite;

pub const TRIALS: &[(&str, Try)] = &[
    ("c::linked", linked),
    ("c::linked_relocated", linked_relocated),
    ("c::turned_off_dies", turned_off_dies),
    ("command::run", command_runs),
];

const TIMEOUT: Duration = Duration::from_secs(60);

/// Returns the indented lines of the comment that start with `cc`.
fn build_lines(source: &Path) -> Result<Vec<String>, String> {
    let text = fs::read_to_string(source).map_err(|error| format!("{}: {error}", source.display()))?;
    let lines = text.lines().filter_map(|line| line.strip_prefix(" *     ")).filter(|line| line.starts_with("cc "));
    Ok(lines.map(str::to_owned).collect())
}

/// Builds the host and its plugin with the lines in their comments.
fn build(stage: &Stage, directory: &Path) -> Result<(), String> {
    for name in ["host.c", "plugin.c"] {
        let source = checkout().join("examples/c").join(name);
        fs::copy(&source, directory.join(name)).map_err(|error| error.to_string())?;
        let lines = build_lines(&source)?;
        let [line] = lines.as_slice() else { return Err(format!("{name}: not exactly one line that builds it")) };
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{line} -Wextra -Werror")]).current_dir(directory);
        shell.env("PKG_CONFIG_PATH", stage.path("lib/pkgconfig")?).env("PKG_CONFIG_SYSROOT_DIR", stage.root()?);
        // pkg-config omits flags for the system's own directories unless these
        // variables are set.
        shell.env("PKG_CONFIG_ALLOW_SYSTEM_CFLAGS", "1").env("PKG_CONFIG_ALLOW_SYSTEM_LIBS", "1");
        let log = directory.join(name).with_extension("build");
        let built = process::run(&mut shell, &log, TIMEOUT).map_err(|error| error.to_string())?;
        if built.outcome != Outcome::Exit(0) {
            return Err(format!("{line}\n{built}"));
        }
    }
    Ok(())
}

/// Runs the host, rewrites the plugin's file, and has the host call the plugin again.
fn rewritten(stage: &Stage, directory: &Path, mode: &str, rewrite: Rewrite) -> Result<Finished, String> {
    build(stage, directory)?;
    let mut command = Command::new("./host");
    forget_settings(&mut command);
    command.arg("./plugin.so").current_dir(directory);
    command.env("LD_LIBRARY_PATH", stage.path("lib")?).env("SOPIN_STORE", "off").env("SOPIN_MODE", mode);
    let mut host =
        Dialogue::start(&mut command, &directory.join("host.run"), TIMEOUT).map_err(|error| error.to_string())?;
    host.wait_for("./plugin.so: 42", 1)?;
    rewrite.apply(&directory.join("plugin.so")).map_err(|error| error.to_string())?;
    host.say("");
    // A host that dies never prints the line; the caller judges its outcome.
    let _ = host.wait_for("./plugin.so: 42", 2);
    host.finish()
}

fn unmet() -> Option<String> {
    ["cmd:pkg-config", "cmd:cc"].into_iter().filter_map(|word| word.parse::<Need>().ok()).find_map(|need| need.unmet())
}

fn survives(stage: &Stage, directory: &Path, mode: &str, rewrite: Rewrite) -> Result<Completion, String> {
    if let Some(reason) = unmet() {
        return Ok(Completion::ignored_with(reason));
    }
    let finished = rewritten(stage, directory, mode, rewrite)?;
    let has = |what: &str| finished.stdout.lines().any(|line| line.contains(what));
    let plugin = directory.join("plugin.so");
    let pinned = format!("{mode:<10} ");
    let is_listed =
        finished.stdout.lines().any(|line| line.starts_with(&pinned) && line.ends_with(&*plugin.to_string_lossy()));
    let version = format!("libsopin {}: ", env!("CARGO_PKG_VERSION"));
    if finished.outcome == Outcome::Exit(0) && is_listed && has(&version) && has(" 0 exposed") {
        return if finished.stderr.is_empty() { Ok(Completion::Completed) } else { Err(finished.to_string()) };
    }
    Err(finished.to_string())
}

fn linked(stage: &Stage, directory: &Path) -> Result<Completion, String> {
    survives(stage, directory, "full", Rewrite::Traps)
}

fn linked_relocated(stage: &Stage, directory: &Path) -> Result<Completion, String> {
    survives(stage, directory, "relocated", Rewrite::SameBytes)
}

fn turned_off_dies(stage: &Stage, directory: &Path) -> Result<Completion, String> {
    if let Some(reason) = unmet() {
        return Ok(Completion::ignored_with(reason));
    }
    let finished = rewritten(stage, directory, "off", Rewrite::SameBytes)?;
    let said = "host: all objects: Pinning is turned off (SOPIN_MODE=off)";
    match finished.outcome {
        Outcome::Signal(7 | 11) if finished.stderr.contains(said) => Ok(Completion::Completed),
        _ => Err(format!("survived, or did not say that pinning is off: {finished}")),
    }
}

fn command_runs(stage: &Stage, directory: &Path) -> Result<Completion, String> {
    let mut command = Command::new(stage.path("bin/sopin")?);
    forget_settings(&mut command);
    command.args(["run", "--log", "info", "--", "cat"]).env("SOPIN_STORE", "off");
    let log = directory.join("run");
    let finished = process::run(&mut command, &log, TIMEOUT).map_err(|error| error.to_string())?;
    let installed = stage.path(&format!("lib/libsopin.so.{}", env!("CARGO_PKG_VERSION")))?;
    let line = format!("libsopin: {}: full, ", installed.display());
    if finished.outcome == Outcome::Exit(0) && finished.stderr.lines().any(|printed| printed.starts_with(&line)) {
        Ok(Completion::Completed)
    } else {
        Err(finished.to_string())
    }
}

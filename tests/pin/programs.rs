//! Programs of other projects, started without the library, are pinned while they compute. Then
//! every shared object of their installations is rewritten. `tests/hosts` has the controls: the
//! same programs die of the same rewriting when they are not pinned.

use std::path::Path;

use libtest_mimic::Completion;

use crate::command;
use crate::common::dialogue::Dialogue;
use crate::common::protection;
use crate::common::rewrite::Rewrite;
use crate::hosts::{self, Loading, Program};
use crate::subject::passed;
use crate::{Case, Run, patience, tasks};

/// Programs that load everything before they are ready.
const NAMES: [&str; 2] = ["python_science", "node_addons"];

pub fn cases() -> Vec<Case> {
    let programs = || hosts::all().into_iter().filter(|program| program.loading == Loading::Preloaded);
    let chosen = programs().filter(|program| NAMES.contains(&program.name));
    let case = |program: Program| {
        Case::ignorable(format!("programs::{}", program.name), move |run, own| survives_rewriting(run, own, &program))
    };
    chosen.map(case).collect()
}

fn survives_rewriting(_: &Run, directory: &Path, program: &Program) -> Result<Completion, String> {
    if let Some(reason) = program.unmet_need() {
        return Ok(Completion::ignored_with(reason));
    }
    let installation = directory.join("installation");
    program.install(&installation)?;
    let native = result(&start(program, &installation, directory, "once")?.finish()?.stdout)?;
    let objects = hosts::rewritten(&installation)?;
    let mut process = start(program, &installation, directory, "busy")?;
    process.wait_for("ready", 1)?;
    let pin = command::pin(process.id(), directory)?;
    pin.is_whole()?;
    tasks::none_is_traced(process.id())?;
    for rewrite in [Rewrite::SameBytes, Rewrite::Traps, Rewrite::Empty] {
        rewrite.apply_to_all(&objects)?;
        // One tick may have begun before the rewriting ended; the next two have not.
        let ticks = process.count("tick") + 3;
        process.wait_for("tick", ticks).map_err(|error| pin.describe(&format!("after {rewrite:?}: {error}")))?;
    }
    process.say("stop");
    let finished = process.finish()?;
    passed(&finished)?;
    if result(&finished.stdout)? != native {
        return Err(format!("not the result {native:?}; it {finished}"));
    }
    // The installation is large, and useful only if the trial failed.
    std::fs::remove_dir_all(&installation).map_err(|error| error.to_string())?;
    Ok(Completion::Completed)
}

fn start(program: &Program, installation: &Path, directory: &Path, work: &str) -> Result<Dialogue, String> {
    let mut command = program.command(installation, work);
    protection::forget_settings(&mut command);
    let log = directory.join(format!("{work}.log"));
    Dialogue::start(&mut command, &log, patience()).map_err(|error| format!("{command:?}: {error}"))
}

/// Returns what follows `result` in the last line.
fn result(stdout: &str) -> Result<String, String> {
    let last = stdout.lines().last().unwrap_or_default();
    last.strip_prefix("result ").map(str::to_owned).ok_or_else(|| format!("no result in {stdout:?}"))
}

//! `sopin explain CORE`: reads a core dump, has sopin-inspect judge, and prints the answer.

use std::path::Path;

use sopin_inspect::core_dump::CoreDump;
use sopin_inspect::post_mortem;
use sopin_inspect::post_mortem::system::System;
use sopin_inspect::post_mortem::verdict::Answer;

use super::ExplainArgs;
use super::answer::{CoreAnswer, SCHEMA};
use super::human::CorePage;
use super::input;
use crate::exit::{Exit, Failure};
use crate::output;

/// Prints what a core dump shows.
///
/// # Errors
/// 3 when it cannot be read, or the answer cannot be printed.
pub fn explain(arguments: &ExplainArgs, path: &Path) -> Result<Exit, Failure> {
    let debug: Vec<&Path> = arguments.debug_dir.iter().map(AsRef::as_ref).collect();
    let system = System::new(arguments.sysroot.as_deref(), &debug)
        .map_err(|(path, errno)| Failure::new(Exit::Uninspected, path.display(), std::io::Error::from(errno)))?;
    let input = input::open(path)?;
    let dump = CoreDump::read(&input.file, input.size)
        .map_err(|flaw| Failure::new(Exit::Uninspected, path.display(), flaw))?;
    let mut explanation = post_mortem::explain(&dump, &system, arguments.verbose);
    explanation.errors.extend(input.flaw);
    let exit = match explanation.verdict.answer {
        Answer::Rewritten => Exit::Damaged,
        Answer::Nothing => Exit::Success,
        Answer::Unknown => Exit::Uninspected,
    };
    let answer = CoreAnswer { schema: SCHEMA, compression: input.compression, explanation };
    let unwritten = |error: &dyn std::error::Error| Failure::new(Exit::Uninspected, "stdout", error);
    let printed = if arguments.json {
        let json = serde_json::to_string_pretty(&answer).map_err(|error| unwritten(&error))?;
        output::print(format_args!("{json}\n"))
    } else {
        output::print(CorePage { explanation: &answer.explanation, is_verbose: arguments.verbose })
    };
    printed.map_err(|error| unwritten(&error))?;
    Ok(exit)
}

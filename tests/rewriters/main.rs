//! Runs the programs that give an installed shared object other bytes, each against a
//! process that is using that object: without the library, with it in mode `relocated`,
//! and in mode `full`, in which the process must survive all of them with the right
//! results.
//!
//! The results are written to `target/rewriters.md`. docs/rewriters.md is such a table,
//! and must agree with this run (`make rewriters` makes it again). Chance decides by
//! which signal a process dies without protection, and whether `relocated` saves a busy
//! one; the other columns are compared.

#[path = "../common/mod.rs"]
mod common;

mod page;
mod table;
mod trial;

use std::fs;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use common::protection::Protection;
use common::{library, process, scratch};
use page::Page;
use trial::{Bench, Verdict};

const PROTECTIONS: [Protection; 3] = [Protection::Unprotected, Protection::Relocated, Protection::Full];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    match conclude(&arguments) {
        Ok(code) => code,
        Err(message) => {
            eprintln!("rewriters: {message}");
            ExitCode::FAILURE
        }
    }
}

fn conclude(arguments: &Arguments) -> Result<ExitCode, String> {
    process::forbid_core_files().map_err(|error| format!("core files: {error}"))?;
    let run_directory = scratch::for_this_run("rewriters").map_err(|error| error.to_string())?;
    let bench = Arc::new(Bench::new(&run_directory)?);
    let page = Arc::new(Mutex::new(Page::default()));

    let mut trials = Vec::new();
    for rewriter in table::ALL {
        for protection in PROTECTIONS {
            let (bench, page) = (Arc::clone(&bench), Arc::clone(&page));
            let name = format!("{}::{protection}", rewriter.name);
            trials.push(Trial::ignorable_test(name, move || {
                let seen = bench.try_on(rewriter, protection)?;
                if let Verdict::Seen(fate) = &seen {
                    page.lock().unwrap_or_else(PoisonError::into_inner).add(rewriter.name, protection, *fate);
                }
                judge(&seen, rewriter, protection)
            }));
        }
    }
    let conclusion = libtest_mimic::run(arguments, trials);
    if arguments.list || conclusion.has_failed() {
        return Ok(conclusion.exit_code());
    }
    fs::remove_dir_all(&run_directory).map_err(|error| format!("{}: {error}", run_directory.display()))?;
    let page = page.lock().unwrap_or_else(PoisonError::into_inner);
    if conclusion.num_filtered_out == 0 {
        let written = library::checkout().join("target/rewriters.md");
        fs::write(&written, page.render(&bench.versions()))
            .map_err(|error| format!("{}: {error}", written.display()))?;
    }
    let documented = library::checkout().join("docs/rewriters.md");
    match fs::read_to_string(&documented) {
        _ if std::env::var_os("SOPIN_NEW_TABLE").is_some() => {}
        Ok(text) => page.compare(&text)?,
        Err(error) => return Err(format!("{}: {error}; make rewriters makes it", documented.display())),
    }
    Ok(ExitCode::SUCCESS)
}

fn judge(seen: &Verdict, rewriter: &table::Rewriter, protection: Protection) -> Result<Completion, Failed> {
    let fate = match seen {
        Verdict::Seen(fate) => fate,
        Verdict::NotHere(reason) => return Ok(Completion::ignored_with(reason.clone())),
    };
    if fate.has_kept_inode != rewriter.changes_mapped_file {
        return Err(format!("table: changes the mapped file: {}; {fate:?}", rewriter.changes_mapped_file).into());
    }
    let must_survive = match protection {
        Protection::Unprotected => !rewriter.changes_mapped_file,
        // In mode `relocated`, text follows the file. Tests with idle processes show
        // what that mode promises.
        Protection::Relocated if rewriter.changes_mapped_file => return Ok(Completion::Completed),
        Protection::Relocated | Protection::Full | Protection::Stored => true,
    };
    if fate.has_survived() == must_survive {
        Ok(Completion::Completed)
    } else {
        Err(format!("has to survive: {must_survive}; {fate:?}").into())
    }
}

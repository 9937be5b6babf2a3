//! `sopin explain`: says whether a crash came of a file that was rewritten in place, from the core
//! dump or from a line of the kernel's log.
//!
//! sopin-inspect reads and judges; these modules have the command line and the answers:
//!
//! | module | responsible for |
//! |---|---|
//! | [`core`](mod@core) | a core dump |
//! | [`input`] | a dump's file: compressed, or from a pipe |
//! | [`answer`](mod@answer) | the answer about a dump, as in JSON |
//! | [`human`] | the same, for people |
//! | [`log`] | lines of the kernel's log |

mod answer;
mod core;
mod human;
mod input;
mod log;

use std::ffi::OsString;
use std::path::PathBuf;

use crate::exit::{Exit, Failure};

const MORE: &str = "\
Exit status:
  0  nothing points to a file that was rewritten
  2  the command line was not understood
  3  it cannot be told, or the input cannot be read
  4  a file was rewritten in place, and the process died of that

Examples:
  sopin explain core
  sopin explain --log 'segfault at 46e0 ip 00000000000046e0 sp 00007ffeb240c128 error 14' --in /srv/shop
";

/// Explain a crash: from a core dump, or a line of the kernel's log
#[derive(Debug, clap::Args)]
#[command(after_long_help = MORE)]
pub struct ExplainArgs {
    /// The core dump; - reads it from stdin
    #[arg(value_name = "CORE", required_unless_present = "log", conflicts_with = "log")]
    pub core: Option<PathBuf>,

    /// A line of the kernel's log instead; - reads lines from stdin
    #[arg(long, value_name = "LINE")]
    pub log: Option<OsString>,

    /// Look files up below this directory, as if it was the root directory
    #[arg(long, value_name = "DIR")]
    pub sysroot: Option<PathBuf>,

    /// Look in this directory too for files and debug information by build-id; may be given several times
    #[arg(long, value_name = "DIR")]
    pub debug_dir: Vec<PathBuf>,

    /// With --log: look for the address in the objects below this directory; may be given several times
    #[arg(long = "in", value_name = "DIR", requires = "log")]
    pub directories: Vec<PathBuf>,

    /// With --log: look for the address in the objects of this package
    #[arg(long, value_name = "NAME", requires = "log")]
    pub package: Option<String>,

    /// With --log: look for the address in the objects of this process
    #[arg(long, value_name = "PID", requires = "log", value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: Option<u32>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// Show a line for each object, and every word
    #[arg(short, long)]
    pub verbose: bool,
}

/// Prints the answer.
///
/// # Errors
/// 3 when the input cannot be read, or the answer cannot be printed.
pub fn explain(arguments: &ExplainArgs) -> Result<Exit, Failure> {
    match (&arguments.log, &arguments.core) {
        (Some(line), _) => log::explain(arguments, line),
        (None, Some(path)) => core::explain(arguments, path),
        (None, None) => unreachable!("clap requires one of them"),
    }
}

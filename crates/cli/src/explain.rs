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
Verdicts about a line of the kernel's log:
  signature  nothing is mapped at the address of the instruction, which looks like that of a function
             without its load base: a relocated pointer has what the file has again. With --in,
             --package or --pid a pointer in the file of one of the objects holds the address
  possible   the line does not show it: SIGBUS, an access at the address of data, an invalid opcode
  nothing    an address that no object has, such as a null pointer

JSON with --log:
  verdict    the worst of the crashes: signature, possible, nothing
  lines, crashes, suppressed (lines that the kernel has left out)
  groups[]   crashes that are the same: program, count, pids[], first, last, message, signal, ip,
             address, error[], object, sign, verdict, reason, small_address, candidates[],
             candidate_count
  object     name, start, size, has_instruction; null if the kernel has named none
  sign       jump, access, null-call, low-jump, null-access, elsewhere, bus, invalid-opcode,
             own-trap, other-trap, broken-memory, incomplete
  candidates[]  path, names[], words (pointers that would hold the address), holders[], changed
  names[], holders[]  kind (function, plt, datum), name, offset, section
  others     signature, possible, nothing: numbers of crashes that are in no group
  searched   objects, unread[] (path, reason), unread_count; null if no place was named
  next[]     what to do next

Exit status:
  0  nothing points to a file that was rewritten
  2  the command line was not understood
  3  it cannot be told, or the input cannot be read
  4  a file was rewritten in place, and the process died of that; a line has the signature of it

Examples:
  sopin explain core
  journalctl -k | sopin explain --log - --in /srv/shop
  sopin explain --package libssl3 --log \\
    'python3[4574]: segfault at 46e0 ip 00000000000046e0 sp 00007ffeb240c128 error 14'
";

/// Explain a crash: from a core dump, or a line of the kernel's log
///
/// With --log the command reads lines in the formats of dmesg, journalctl (also -o json), syslog and
/// /dev/kmsg, of kernels for x86-64 and aarch64. A line is less than a core dump: it shows one address.
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

    /// With --log: look for the address in this file, or the objects below this directory; may be given
    /// several times
    #[arg(long = "in", value_name = "DIR", requires = "log")]
    pub directories: Vec<PathBuf>,

    /// With --log: look for the address in the objects of this package, of dpkg, rpm or a Python environment
    #[arg(long, value_name = "NAME", requires = "log")]
    pub package: Option<String>,

    /// With --log: look for the address in the objects that this process maps
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

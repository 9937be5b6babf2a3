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
Verdicts about a core dump:
  rewritten, certain  a relocated word had its value from the file again, and the process jumped
                      to that or accessed what is there; or the process touched a page behind the
                      end of an object's file
  rewritten, likely   an object was rewritten, and the process died in it, in a call from it, or with
                      a pointer to such a word in a register; or gdb has dumped it alive
  nothing             nothing points to a file that was rewritten
  unknown             an object was rewritten, and nothing connects the crash with it; or the dump or
                      the files do not suffice

Verdicts about a line of the kernel's log:
  signature  nothing is mapped at the address of the instruction, which looks like that of a function
             without its load base: a relocated pointer has what the file has again. With --in,
             --package or --pid a pointer in the file of one of the objects holds the address
  possible   the line does not show it: SIGBUS, an access at the address of data, an invalid opcode
  nothing    an address that no object has, such as a null pointer

JSON about a core dump:
  schema       1: names keep their meaning, and new ones may be added
  compression  none, gzip, zstd, lz4
  verdict      answer (rewritten, nothing, unknown), certainty (certain, likely), object, sentence,
               way_out (what to do to learn more)
  crash        signal, name, code, address, thread, instruction, caller, stack, sender, alive
  instruction, caller  address, object, offset (the address without the base)
  registers    the registers of the thread by their names
  caught       the fault that the program's own handler had caught before it ended the process,
               of the form of crash; null if there is none
  addresses[]  what (instruction, address), address, object, names[], words (relocated words that hold
               the address in the file), reverted (and that held it in the process)
  process      pid, uid, name, arguments, threads, protected (objects that libsopin.so had protected)
  dump         origin (kernel, gdb), machine, page, cut
  objects[]    path, deleted, base, start, end, data, protected, file, mapped_build_id, file_build_id,
               intact_words, missing_words, bytes_beyond_end, damage, unjudged
  file         loaded (the version that was loaded), other, absent, unknown
  damage       reverted_words, bytes_lost, clean_words, dynamic, other_build, words[]; null if there
               is none
  words[]      address, section, symbol, offset, value, expected; 16 from all sections, or all with --verbose
  errors[]     what could not be determined

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
  sopin explain /var/lib/systemd/coredump/core.gunicorn.33.*.zst
  coredumpctl dump gunicorn | sopin explain -
  sopin explain --sysroot /srv/images/shop --debug-dir ~/debug core
  journalctl -k | sopin explain --log - --in /srv/shop
  sopin explain --package libssl3 --log \\
    'python3[4574]: segfault at 46e0 ip 00000000000046e0 sp 00007ffeb240c128 error 14'
";

/// Explain a crash: from a core dump, or a line of the kernel's log
///
/// The command says whether a process died because a shared object was rewritten in place, as by cp,
/// rsync --inplace or an old pip. The file is then truncated, the kernel drops what the loader has
/// stored to its pages, and the process jumps to an address without the object's load address.
///
/// A core dump can be of the kernel, of systemd-coredump, also compressed by gzip, zstd or lz4 and cut
/// off, or of gdb (gcore), of x86-64 or aarch64. The command compares the relocated words in it
/// with the files that the process had mapped. They are looked up by their paths, below --sysroot if the
/// process died elsewhere or in a container, and by their build-ids. What is compressed or comes from
/// a pipe is copied to TMPDIR or /var/tmp.
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

    /// Look in this directory, too, for objects (.build-id/xx/yyyy) and their debugging information
    /// (.build-id/xx/yyyy.debug); may be given several times
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

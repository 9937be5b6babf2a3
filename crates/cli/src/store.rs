//! `sopin store`: what is in the stores, whether it is intact, and away with what
//! nobody needs.
//!
//! | module | responsible for |
//! |---|---|
//! | [`place`] | which stores there are, and that a directory is one |
//! | [`entry`] | what lies in a store, read through directory descriptors |
//! | [`users`] | which processes map it |
//! | [`list`] | `sopin store list` |
//! | [`verify`] | `sopin store verify` |
//! | [`prune`] | `sopin store prune` |
//! | [`human`] | sizes, ages and tables |
//!
//! What a key and an origin say, which places are tried, what is needed for how
//! long, and how an entry is removed is sopin-core's, so that command and library
//! cannot differ.

use std::ffi::OsString;
use std::time::Duration;

use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::output;
use crate::settings::value_of;

mod entry;
mod human;
mod list;
mod place;
mod prune;
mod users;
mod verify;

/// Of the JSON output of all three; changes when something in it changes its
/// meaning.
const SCHEMA: u32 = 1;

const MORE: &str = "\
Which stores: the one that --store or SOPIN_STORE names; else all that exist of those that
libsopin.so would try for this user in this environment.

Exit status:
  0  done; verify: everything is intact
  1  verify: something is not; prune: something could not be removed
  2  the command line was not understood
  3  a store could not be looked at

Examples:
  sopin store list
  sopin store verify --store /var/cache/sopin
  sopin store prune --older-than 7days --dry-run
";

const AFTER_LIST: &str = "\
Exit status:
  0  done
  2  the command line was not understood
  3  a store could not be looked at

JSON output:
  schema                   1; changes when a field changes its meaning
  stores                   each with its path, entries and totals
  entries                  each with its key, file, origin, state, size, allocated, shared,
                           last_use, users
  totals                   entries, size, allocated, shared, in_use, outdated
  processes_not_inspected  how many could not be looked at for whether they are users
  Sizes are in bytes, shared is null where the file system does not tell; last_use is in
  seconds since the epoch; users are process ids.
";

const AFTER_VERIFY: &str = "\
Exit status:
  0  everything is intact
  1  something is not
  2  the command line was not understood
  3  a store could not be looked at

JSON output:
  schema    1; changes when a field changes its meaning
  stores    each with its path, number of entries, how many were compared with their
            origins, and problems
  problems  each with the name of the entry, its origin, reason and way_out
";

const AFTER_PRUNE: &str = "\
Exit status:
  0  done
  1  something could not be removed
  2  the command line was not understood
  3  a store could not be looked at

JSON output:
  schema   1; changes when a field changes its meaning
  dry_run  whether nothing was really removed
  stores   each with its path, removed, failed, kept, kept_in_use, size
  removed  each with its name, origin, reason and size in bytes
  failed   names of what could not be removed
  kept     number of entries; kept_in_use of them for being mapped
  size     of what was removed, in bytes
";

/// Look after the copies that libsopin.so maps
///
/// A store holds immutable copies of shared objects. It cleans itself while programs
/// add to it, and everything in it can be made again: it may be removed as a whole at
/// any time, and nothing here has to be run.
#[derive(Debug, clap::Args)]
#[command(after_long_help = MORE, subcommand_value_name = "COMMAND")]
pub struct StoreArgs {
    #[command(subcommand)]
    command: StoreCommand,

    /// The store's directory (SOPIN_STORE)
    #[arg(long, global = true, value_name = "DIR", value_parser = value_of(c"SOPIN_STORE"), value_hint = clap::ValueHint::DirPath)]
    store: Option<OsString>,

    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum StoreCommand {
    /// List the copies, who maps them, and what has become of their origins
    ///
    /// STATE is current if the file at ORIGIN still is the version that was copied,
    /// superseded if another one is there, gone if none is, and unknown if that cannot be
    /// told from here, as of another container's files or remote ones. LAST USE is exact to half an hour.
    #[command(after_long_help = AFTER_LIST)]
    List,
    /// Check every copy
    ///
    /// Its owner, mode, type and size, and its bytes if its origin still is the version that
    /// was copied; and that nothing else lies in the store.
    #[command(after_long_help = AFTER_VERIFY)]
    Verify,
    /// Remove copies that nobody needs
    ///
    /// Those of files that were rewritten or removed, those that have not been used for long,
    /// and what is damaged. What a process maps stays, unless it is damaged: that
    /// process keeps what it has, and others get a new copy.
    #[command(after_long_help = AFTER_PRUNE)]
    Prune {
        /// Remove what has not been used for so long; files that cannot be seen from here
        /// count for a day at most
        #[arg(long, value_name = "DURATION", default_value = "30days", value_parser = humantime::parse_duration)]
        older_than: Duration,

        /// Only say what would be removed
        #[arg(long)]
        dry_run: bool,
    },
}

/// Does what was asked for.
///
/// # Errors
/// 3 when no store could be looked at.
pub fn store(arguments: &StoreArgs) -> Result<Exit, Failure> {
    let stores = place::find(arguments.store.as_deref())?;
    match &arguments.command {
        StoreCommand::List => list::list(&stores, arguments.json),
        StoreCommand::Verify => verify::verify(&stores, arguments.json),
        StoreCommand::Prune { older_than, dry_run } => prune::prune(&stores, *older_than, *dry_run, arguments.json),
    }
}

/// Prints an answer for people or for programs.
fn print(json: bool, answer: &(impl Serialize + std::fmt::Display)) -> Result<(), Failure> {
    let unwritten = |error: &dyn std::error::Error| Failure::new(Exit::Uninspected, "stdout", error);
    let printed = if json {
        let text = serde_json::to_string_pretty(answer).map_err(|error| unwritten(&error))?;
        output::print(format_args!("{text}\n"))
    } else {
        output::print(answer)
    };
    printed.map_err(|error| unwritten(&error))
}

//! `sopin store`: lists, verifies, prunes and fills the stores.
//!
//! | module | responsible for |
//! |---|---|
//! | [`place`] | which stores exist, and whether a directory is one |
//! | [`open_store`] | a store that is open |
//! | [`entry`] | the entries of a store, read through directory descriptors |
//! | [`users`] | which processes map an entry |
//! | [`bytes`] | whether the bytes of an entry are its origin's |
//! | [`fill`](mod@fill) | `sopin store fill` |
//! | [`list`] | `sopin store list` |
//! | [`verify`] | `sopin store verify` |
//! | [`prune`] | `sopin store prune` |
//! | [`human`] | sizes, ages and tables |
//! | [`printing`] | an answer, for people or for programs |
//!
//! sopin-store determines what keys and origins mean, which directories are tried, how long an
//! entry is needed and how it is removed, so that command and library cannot differ.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::exit::{Exit, Failure};
use crate::settings::value_of;

mod bytes;
mod entry;
mod fill;
mod human;
mod list;
mod open_store;
mod place;
mod printing;
mod prune;
mod users;
mod verify;

const MORE: &str = "\
Which stores: with --system the system's, /var/lib/sopin; else the one that --store or
SOPIN_STORE names; else all that exist of those that libsopin.so would try for this user in
this environment. Programs look into the system's store first. Only root writes it, and only
with fill and prune; every user can read what is in it.

Exit status:
  0  done; verify: every copy is intact
  1  verify: a copy is not intact; prune: an entry could not be removed; fill: a named file could
     not be copied
  2  the command line was not understood
  3  a store could not be read, or must not be written to

Examples:
  sopin store list
  sopin store verify --store /var/cache/sopin
  sopin store prune --older-than 7days --dry-run
  sopin store fill /usr/lib/x86_64-linux-gnu /srv/shop
  sopin store prune --system
";

const AFTER_FILL: &str = "\
Exit status:
  0  done
  1  a file or process that was named could not be copied
  2  the command line was not understood
  3  the store could not be used, or this is not root

JSON output:
  schema      1; changes when a field changes its meaning
  path        of the store
  added       copies, each with the path of its file and size in bytes
  were_there  how many copies were there already
  size        of what was added, in bytes
  skipped     how many files of directories and processes were not copied, by reason:
              not_objects, not_for_everybody, elsewhere, need_no_copy, not_suited, vanished, changing
  left_out    the objects among them that programs may load, each with its path and reason
  failed      files that could not be copied, each with its name, reason and way_out

Examples:
  sopin store fill /usr/lib/x86_64-linux-gnu /srv/shop
  sopin store fill --used-by 4711 --used-by 4712
";

const AFTER_LIST: &str = "\
Exit status:
  0  done
  2  the command line was not understood
  3  a store could not be read

JSON output:
  schema                   1; changes when a field changes its meaning
  stores                   each with its path, entries and totals
  entries                  each with its key, file, origin, state, size, allocated, shared,
                           on_disk, verity, last_use, users
  totals                   entries, size, allocated, shared, in_use, outdated
  processes_not_inspected  how many could not be asked whether they map an entry
  Sizes are in bytes, shared is null where the file system does not report it; on_disk is
  whether the copy is known to have reached the disk and has a build-id, so that programs
  believe it after a reboot; verity whether fs-verity protects it; last_use is in seconds
  since the epoch; users are process ids.
";

const AFTER_VERIFY: &str = "\
Exit status:
  0  every copy is intact
  1  a copy is not intact, or another file is in the store
  2  the command line was not understood
  3  a store could not be read

JSON output:
  schema    1; changes when a field changes its meaning
  stores    each with its path, number of entries, how many were compared with their
            origins, and problems
  problems  each with the name of the entry, its origin, reason and way_out
";

const AFTER_PRUNE: &str = "\
Exit status:
  0  done
  1  an entry could not be removed
  2  the command line was not understood
  3  a store could not be read

JSON output:
  schema                   1; changes when a field changes its meaning
  dry_run                  whether the command only says what it would remove
  stores                   each with its path, removed, failed, kept, kept_in_use, size
  removed                  each with its name, origin, reason and size in bytes
  failed                   names of entries that could not be removed
  kept                     number of entries; kept_in_use of them because a process maps them
  size                     of what was removed, in bytes
  processes_not_inspected  with --system: how many could not be asked what they map; while
                           there are any, every entry counts as in use
";

/// Maintain the copies that libsopin.so maps
///
/// A store holds immutable copies of shared objects. It cleans itself while programs add
/// to it, and programs can make everything in it again: you can remove a whole store at
/// any time, and need not run any of these commands.
#[derive(Debug, clap::Args)]
#[command(after_long_help = MORE, subcommand_value_name = "COMMAND")]
pub struct StoreArgs {
    #[command(subcommand)]
    command: StoreCommand,

    /// The store's directory (SOPIN_STORE)
    #[arg(long, global = true, value_name = "DIR", value_parser = value_of(c"SOPIN_STORE"), value_hint = clap::ValueHint::DirPath)]
    store: Option<OsString>,

    /// Use the system's store, /var/lib/sopin
    #[arg(long, global = true)]
    system: bool,

    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum StoreCommand {
    /// List the copies, which processes map them, and the states of their origins
    ///
    /// ORIGIN is the file that was copied. STATE is current if that file still is the version
    /// that was copied, superseded if another version is there, gone if no file is, and
    /// unknown if the command cannot find out, as for files of another container or of a
    /// remote file system. It is own if one process has the copy for itself, because the file
    /// was just being written; no other process uses that copy, and it is removed after its
    /// process has ended. LAST USE is exact to half an hour.
    #[command(after_long_help = AFTER_LIST)]
    List,
    /// Check every copy
    ///
    /// The command checks the owner, mode, type and size of each copy, and its bytes if its
    /// origin still is the version that was copied; and that no other file is in the store.
    /// A copy that the owner of the store has compared is known to be on the disk from then
    /// on, so programs need not compare it after a reboot. A copy without a build-id they need
    /// not compare until the next reboot.
    #[command(after_long_help = AFTER_VERIFY)]
    Verify,
    /// Remove copies that no process needs, and damaged copies
    ///
    /// The command removes copies of files that were rewritten or removed, copies that have
    /// not been used for long, and copies with which verify finds something wrong, their bytes
    /// included. A copy that a process maps stays unless it is damaged: that process then
    /// keeps what it has, and others get a new copy.
    ///
    /// The system's store does not record when copies were used: copies of files that are
    /// still the same stay there, unless --older-than is given.
    #[command(after_long_help = AFTER_PRUNE)]
    Prune {
        /// Remove copies that have not been used for so long, by default 30days; copies of files
        /// that cannot be seen from here are kept for a day at most
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        older_than: Option<Duration>,

        /// Only say what the command would remove
        #[arg(long)]
        dry_run: bool,
    },
    /// Put copies into the system's store before any program needs them
    ///
    /// Programs of every user then map the copies that root has made, from their first start
    /// on; privileged programs use no other store. Use this in installers, in images of
    /// machines, and for services that run already. When a file is rewritten later, programs
    /// make copies in the stores of their users, until you fill the system's store again.
    ///
    /// Only root can do this. Every user can read what is in the system's store, so the
    /// command copies a file only if every user may read it and may pass every directory on
    /// its path. So it leaves out what is in the home directory of root, if only root may enter
    /// that. It names what it leaves out, and why; programs copy that to the stores of their
    /// users. It copies shared objects, and programs that a loader loads; it passes over other
    /// files in directories. It waits for a file that has changed within the last 2 seconds.
    ///
    /// After a reboot, each start of a program compares the copies of objects without a build-id
    /// with what it has mapped, until root runs this command again, or sopin store verify --system.
    #[command(after_long_help = AFTER_FILL)]
    Fill {
        /// Files and directories; the command does not follow symbolic links in directories,
        /// and does not enter other file systems below a directory
        #[arg(value_name = "PATH", required_unless_present = "used_by", value_hint = clap::ValueHint::AnyPath)]
        paths: Vec<PathBuf>,

        /// Copy the objects that this process maps; may be given several times
        #[arg(long, value_name = "PID")]
        used_by: Vec<u32>,
    },
}

/// Executes the subcommand.
///
/// # Errors
/// 3 when no store could be opened.
pub fn store(arguments: &StoreArgs) -> Result<Exit, Failure> {
    let is_fill = matches!(arguments.command, StoreCommand::Fill { .. });
    if arguments.store.is_some() && (arguments.system || is_fill) {
        let reason = if is_fill { "fill writes the system's store" } else { "it is not the system's store" };
        return Err(Failure::new(Exit::Usage, "--store", reason).with_way_out("leave it out"));
    }
    let find = || if arguments.system { place::find_system() } else { place::find(arguments.store.as_deref()) };
    match &arguments.command {
        StoreCommand::Fill { paths, used_by } => fill::fill(paths, used_by, arguments.json),
        StoreCommand::List => list::list(&find()?, arguments.json),
        StoreCommand::Verify => verify::verify(&find()?, arguments.json),
        StoreCommand::Prune { older_than, dry_run } => {
            if arguments.system {
                place::check_root("only root removes from the system's store")?;
            }
            prune::prune(&find()?, *older_than, *dry_run, arguments.json)
        }
    }
}

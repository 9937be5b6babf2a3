//! The store: immutable copies of object files, shared by every process of
//! the user or, in the system's store, by every process of the machine.
//!
//! ```text
//! <store>/                      0700, the user's; the system's: 0755, root's
//!   <key>/                      the same: one version of one file, see `name`
//!     libfoo.so                 0444: the copy, complete but for `omissions`, or absent; for
//!                               what its modification time means, see `mark`
//!     .source -> <its directories>/usr/lib/libfoo.so, see `origin`
//!     .debug -> /usr/lib/.debug where debuggers look, see `debug_link`
//!   own-<thread>-<time>/        the same for one process alone, see `own`
//!   .looked                     when unneeded entries were last looked for
//! ```
//!
//! An entry is written to a file without a name. It gets its name only after the identity of
//! the origin was checked once more, so a writer that is killed at any instant leaves nothing
//! behind. Processes that add the same entry at once do not wait for each other, unless it
//! is large (see `turn`): one of them links it first, and the others use that. Entries are never modified, only unlinked (see
//! `clean`).
//!
//! A process that maps an entry holds a shared `flock(2)` on it through that mapping, for as
//! long as the mapping exists. The locks show which entries are in use.
//!
//! This crate follows no symbolic link and trusts no name: it opens every directory and entry
//! and then checks its status. What it believes, and why that is justified:
//!
//! | is believed | because |
//! |---|---|
//! | the directory | only its owner and root can change where its path leads (`proven_path`), and its owner is root or the user whose rights the process has, no more and no less ([`sopin_core::credentials`]) |
//! | that an entry is this version of the file | device, inode, size and times are the same, on a file system whose kernel moves them with every change, and they are not an image builder's; elsewhere the bytes are compared with what is mapped |
//! | that it is the object's | it has the build-id that is in memory |
//! | its bytes | it was written in this boot, or is known to be on the disk (`mark`); else they are compared with the file's |
//!
//! | module | responsible for |
//! |---|---|
//! | `store` | [`Store`]: finding, making and filling entries |
//! | `name` | [`Identity`], and the names of entries |
//! | `origin_file` | the file that is copied |
//! | `settled` | whether its identity determines its contents |
//! | `copy` | making a copy, and comparing one with its file |
//! | `omissions` | what a copy of a large file leaves out |
//! | `turn` | which of several processes copies a large file |
//! | `mark` | what the modification time of an entry says |
//! | `proof` | whether an entry may be mapped |
//! | `origin` | the file that an entry was copied from, and its freshness |
//! | `debug_link` | the link by which debuggers find debugging information |
//! | `own` | entries that one process uses alone |
//! | `clean` | which entries are removed, and when |
//! | `older_versions`, `known_origins` | which entries a new one replaces |
//! | `part` | going through all names in a large store part by part |
//! | `removal` | removing one entry |
//! | `places`, `proven_path` | opening the directories of stores, and whether one may be trusted |
//! | `listing` | the names in a directory |
//!
//! What is forbidden in [`sopin_core`] is forbidden here, for the same reasons.

#![no_std]
#![deny(missing_docs)]
// The exceptions of sopin-core, for its reasons.
#![allow(clippy::must_use_candidate, clippy::return_self_not_must_use, clippy::missing_errors_doc)]
#![allow(clippy::doc_markdown)]
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]

#[cfg(test)]
extern crate std;

mod clean;
mod copy;
mod debug_link;
mod known_origins;
mod mark;
mod name;
mod older_versions;
mod omissions;
mod origin;
mod origin_file;
mod own;
mod part;
mod places;
mod proof;
#[cfg(test)]
mod properties;
mod proven_path;
mod removal;
mod settled;
mod store;
mod turn;
// On real directories, of which the interpreter has none.
#[cfg(all(test, not(miri)))]
mod tests;

pub use clean::{Allowance, LOOKED};
pub use copy::{TEMPORARY, equals_origin};
pub use debug_link::DEBUG;
pub use mark::{note_compared, says_on_disk};
pub use name::{Identity, Version};
pub use omissions::Omissions;
pub use origin::{Freshness, LINK, Origin};
pub use origin_file::OriginFile;
pub use own::is_name as is_own_entry;
pub use part::{NEXT, NEXT_OWN};
pub use places::{Known, SYSTEM};
pub use proof::{CacheEntry, InMemory, MappedRanges, Proof};
pub use removal::{ABANDONED_SECONDS, remove_entry, remove_unless_in_use};
pub use settled::{NOT_SETTLED, SETTLING_SECONDS, is_unsettled};
pub use store::{Filled, Store};

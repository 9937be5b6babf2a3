//! The ways to run the same program: without sopin, with it, and with alternatives to
//! it.

use serde::{Deserialize, Serialize};

/// A way to run a program. The order is that of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// Without any change.
    Native,
    /// With an empty library preloaded.
    Empty,
    /// With only the system calls that the work needs (`programs/rivals.c`).
    Floor,
    /// With `SOPIN_MODE=off`.
    Off,
    /// With `SOPIN_MODE=relocated`.
    Relocated,
    /// With `SOPIN_MODE=full` and a store that has every copy already.
    Warm,
    /// The same, after the copies have been dropped from the page cache.
    Reread,
    /// With `SOPIN_MODE=full` and an empty store.
    Cold,
    /// With a system's store that was filled.
    Filled,
    /// With `SOPIN_MODE=full` and no store.
    Memfd,
    /// With every segment in anonymous memory (`programs/rivals.c`).
    Anonymous,
    /// With every object copied and renamed (`programs/rivals.c`).
    Replaced,
}

impl Variant {
    /// Every variant, in the order of the tables.
    pub const ALL: [Self; 12] = [
        Self::Native,
        Self::Empty,
        Self::Floor,
        Self::Off,
        Self::Relocated,
        Self::Warm,
        Self::Reread,
        Self::Cold,
        Self::Filled,
        Self::Memfd,
        Self::Anonymous,
        Self::Replaced,
    ];

    /// Returns its name in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Empty => "an empty library",
            Self::Floor => "the floor",
            Self::Off => "sopin, `off`",
            Self::Relocated => "sopin, `relocated`",
            Self::Warm => "**sopin, warm store**",
            Self::Reread => "sopin, warm store, after a reboot",
            Self::Cold => "sopin, cold store",
            Self::Filled => "sopin, filled store",
            Self::Memfd => "sopin, memfd",
            Self::Anonymous => "anonymous copies",
            Self::Replaced => "atomic replacement",
        }
    }

    /// Returns a description for the readers of the page.
    pub fn description(self) -> &'static str {
        match self {
            Self::Native => "nothing preloaded, nothing protected",
            Self::Empty => {
                "a library without code is preloaded: what loading any library costs; where that cannot matter, the \
                 noise of the machine"
            }
            Self::Floor => {
                "a library that does nothing but the system calls and copies the work needs, without finding anything \
                 out or checking it: per object one `open`, `fstat` and `close`; per read-only segment one `mmap` of a \
                 file; per writable segment one `mmap`, `process_vm_readv` and `mremap`, and one `mprotect` of what is \
                 read-only after relocation"
            }
            Self::Off => "`SOPIN_MODE=off`: loaded, and nothing pinned",
            Self::Relocated => "`SOPIN_MODE=relocated`: writable and relocated memory only, which saves idle processes",
            Self::Warm => {
                "the default, `SOPIN_MODE=full`, when the store has a copy of every object: every start but the first"
            }
            Self::Reread => {
                "the same when the copies were dropped from the page cache once and have come in from the disk again. The \
                 page cache keeps a file in pieces as large as it was written in, and a larger piece is mapped as a \
                 whole: faster, and more of it"
            }
            Self::Cold => {
                "the same with a new, empty store each time (the objects' own pages are in the page cache): the first \
                 start after an installation, once per machine and user"
            }
            Self::Filled => {
                "`sopin store fill` has put a copy of every object into the system's store that every user may read; what \
                 only its owner may read is in the user's: the first start of each other user has nothing to copy"
            }
            Self::Memfd => "`SOPIN_MODE=full` with `SOPIN_STORE=off`: each process has copies of its own",
            Self::Anonymous => {
                "a library that copies every segment of every object into anonymous memory and moves it into place: the \
                 same immunity by the simplest means"
            }
            Self::Replaced => {
                "a library that copies the file of every object as it is loaded and renames the copy over it (no \
                 `fsync`), so that the process keeps an inode nobody can open: the workaround that needs no \
                 remapping, but write access to the installation. Objects of the operating system are copied and \
                 renamed elsewhere, which costs the same and protects nothing"
            }
        }
    }

    /// Returns whether it leaves work for the disk, which must not be done during the
    /// next measurement.
    pub fn writes(self) -> bool {
        matches!(self, Self::Cold | Self::Replaced)
    }
}

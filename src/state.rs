//! Everything that the library's lock protects, in parts that can be borrowed separately.

use sopin_core::private_memory::PrivateMemory;

use crate::object_path::PathRoom;
use crate::registry::Registry;
use crate::report::Reporter;
use crate::sources::KnownStores;
use crate::workspace::Workspace;

/// The state that the lock protects. What every sweep changes comes first, so that it is on one page.
#[repr(C)]
pub struct State {
    registry: Registry,
    workspace: Workspace,
    known_stores: KnownStores,
    private_memory: PrivateMemory,
    reporter: Reporter,
    path_room: PathRoom,
}

/// The parts of the state, borrowed at the same time for a sweep, which needs all of them.
pub struct Parts<'a> {
    /// The objects that are known.
    pub registry: &'a mut Registry,
    /// The settings in force, and the log.
    pub reporter: &'a mut Reporter,
    /// How much memory the private copies of this process take.
    pub private_memory: &'a mut PrivateMemory,
    pub known_stores: &'a mut KnownStores,
    /// Room for one path.
    pub path_room: &'a mut [u8],
    pub workspace: &'a mut Workspace,
}

impl State {
    /// Makes the state before the first sweep.
    pub const fn new() -> Self {
        Self {
            registry: Registry::new(),
            reporter: Reporter::new(),
            private_memory: PrivateMemory::new(),
            known_stores: KnownStores::new(),
            path_room: [0; size_of::<PathRoom>()],
            workspace: Workspace::new(),
        }
    }

    /// Borrows all parts.
    pub const fn parts(&mut self) -> Parts<'_> {
        let Self { registry, reporter, private_memory, known_stores, path_room, workspace } = self;
        Parts { registry, reporter, private_memory, known_stores, path_room, workspace }
    }

    /// Borrows the table of objects.
    pub const fn registry(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// Borrows the settings and the log.
    pub const fn reporter(&mut self) -> &mut Reporter {
        &mut self.reporter
    }
}

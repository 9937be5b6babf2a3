//! Everything that the lock protects, each part apart from the others.

use crate::object_path::PathRoom;
use crate::private_memory::PrivateMemory;
use crate::registry::Registry;
use crate::report::Reporter;
use crate::sources::KnownStores;
use crate::workspace::Workspace;

/// What the lock protects.
pub struct State {
    registry: Registry,
    reporter: Reporter,
    private_memory: PrivateMemory,
    known_stores: KnownStores,
    path_room: PathRoom,
    workspace: Workspace,
}

/// The parts of the state, borrowed at the same time: for a sweep, which needs all of them.
pub struct Parts<'a> {
    /// The objects that are known.
    pub registry: &'a mut Registry,
    /// The settings in force, and where messages go.
    pub reporter: &'a mut Reporter,
    /// How much memory this process's own copies take.
    pub private_memory: &'a mut PrivateMemory,
    /// The directories that were proven to be stores.
    pub known_stores: &'a mut KnownStores,
    /// Room for one path.
    pub path_room: &'a mut [u8],
    /// Memory that sweeps use one after the other.
    pub workspace: &'a mut Workspace,
}

impl State {
    /// Makes the state of a process in which nothing has happened.
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

    /// Borrows the settings, and what messages go through.
    pub const fn reporter(&mut self) -> &mut Reporter {
        &mut self.reporter
    }
}

//! The preparations before the first sweep: reading the settings, registering fork handlers,
//! and removing the library from `LD_PRELOAD` for children. If the settings cannot be read, no
//! object may be pinned, and the next sweep tries again.

use core::sync::atomic::{AtomicBool, Ordering};

use sopin_core::cause::{Cause, Operation};
use sopin_core::memory::ProcessMemory;
use sopin_core::mode::Mode;
use sopin_core::object::{Object, file_name};
use sopin_core::settings::{Children, Complaint, Level, Settings};
use sopin_core::sys;

use crate::environment;
use crate::filters::{self, Looked};
use crate::loader::Loaded;
use crate::lock::{self, Guard};
use crate::log::Log;
use crate::own;
use crate::published;
use crate::state::Parts;

/// Whether the settings have been read and the fork handlers registered.
#[unsafe(link_section = ".data.sopin")]
static IS_PREPARED: AtomicBool = AtomicBool::new(false);

/// Whether the mode is `off`; false until the settings have been read.
#[unsafe(link_section = ".data.sopin")]
static IS_OFF: AtomicBool = AtomicBool::new(false);

/// Whether the library has removed itself from `LD_PRELOAD`.
#[unsafe(link_section = ".data.sopin")]
static IS_PRELOAD_DROPPED: AtomicBool = AtomicBool::new(false);

/// Returns whether the user has turned pinning off.
pub fn is_off() -> bool {
    IS_OFF.load(Ordering::Relaxed)
}

/// Returns whether [`initialise`] has succeeded.
pub fn is_initialised() -> bool {
    IS_PREPARED.load(Ordering::Acquire)
}

/// Makes the preparations with the library's lock, which `lock` takes, unless they were made
/// before. `None` if the lock cannot be taken.
pub fn prepare(lock: fn(Looked) -> Option<Guard>) -> Option<sys::Result<()>> {
    if is_initialised() {
        return Some(Ok(()));
    }
    filters::look().and_then(lock).map(|mut guard| initialise(&mut guard))
}

/// Reads the settings and registers the fork handlers, unless that was done before.
pub fn initialise(guard: &mut Guard) -> sys::Result<()> {
    if is_initialised() {
        return Ok(());
    }
    let reporter = guard.reporter();
    if let Err(errno) = reporter.configure(read_settings) {
        let message = format_args!("the settings cannot be read: {errno}; left unmodified");
        reporter.line_once(Cause::call(Operation::ReadSettings, errno), Level::Error, message);
        return Err(errno);
    }
    let mode = reporter.settings().mode;
    IS_OFF.store(mode == Mode::Off, Ordering::Relaxed);
    published::set_mode(mode);
    lock::prepare_for_forks();
    // A thread that sees this without the lock sees the mode as well.
    IS_PREPARED.store(true, Ordering::Release);
    Ok(())
}

fn read_settings(settings: &mut Settings, log: &mut Log) -> sys::Result<()> {
    let mut complaints = 0;
    *settings = environment::settings(&mut |_| complaints += 1)?;
    if complaints != 0 {
        let mut complain = |complaint: &Complaint<'_>| log.line(settings, Level::Error, format_args!("{complaint}"));
        environment::settings(&mut complain)?;
    }
    Ok(())
}

/// Removes this library from `LD_PRELOAD` under `SOPIN_CHILDREN=drop`, once the C library knows
/// the environment.
pub fn drop_preload_when_ready(guard: &mut Guard, memory: &ProcessMemory, objects: &[Loaded]) {
    let Parts { reporter, path_room, .. } = guard.parts();
    if reporter.settings().children == Children::Drop
        && !IS_PRELOAD_DROPPED.load(Ordering::Relaxed)
        && environment::is_ready()
    {
        IS_PRELOAD_DROPPED.store(true, Ordering::Relaxed);
        drop_own_preload(memory, objects, path_room);
    }
}

fn drop_own_preload(memory: &ProcessMemory, objects: &[Loaded], room: &mut [u8]) {
    let own = objects.iter().find(|loaded| {
        let object = Object::read(memory, loaded.base, loaded.headers, loaded.header_count);
        object.is_ok_and(|object| own::is_in(object.span))
    });
    if let Some(Ok(path)) = own.map(|own| memory.read_string(own.name, room)) {
        environment::drop_from_preload(file_name(path));
    }
}

//! The records of this process in the form of the C interface.

use core::ffi::{c_int, c_void};
use core::fmt::Write as _;
use core::ptr;

use sopin_core::line::Line;
use sopin_core::memory::ProcessMemory;
use sopin_core::mode::Mode;
use sopin_core::pages::PageVec;
use sopin_core::records::{MAX_TEXT, Reached, ReasonAt, Record, TextAt};
use sopin_core::sys;
use sopin_core::vmas::{FileId, Maps};

use super::types::sopin_error::{SOPIN_EBUSY, SOPIN_ESYSTEM};
use super::types::sopin_mode::*;
use super::types::sopin_reached::*;
use super::types::{sopin_error, sopin_mode, sopin_object, sopin_reached, sopin_totals};
use crate::filters;
use crate::loader::{self, Loaded, ObjectList};
use crate::lock;
use crate::object_path::ObjectPath;
use crate::original;
use crate::preparation;
use crate::published;
use crate::registry::Registry;

const fn mode_code(mode: Mode) -> sopin_mode {
    match mode {
        Mode::Full => SOPIN_MODE_FULL,
        Mode::Relocated => SOPIN_MODE_RELOCATED,
        Mode::Off => SOPIN_MODE_OFF,
    }
}

const fn reached_code(reached: Reached) -> sopin_reached {
    match reached {
        Reached::Pending => SOPIN_PENDING,
        Reached::Full => SOPIN_FULL,
        Reached::Relocated => SOPIN_RELOCATED,
        Reached::Exposed => SOPIN_EXPOSED,
        Reached::Excluded => SOPIN_EXCLUDED,
        Reached::NoFile => SOPIN_NO_FILE,
    }
}

/// The published record of an object, with only names and addresses if it is not recorded, and
/// the file from which it was loaded, if that is known.
type Described = (Record, Option<FileId>);

/// Copies the mode in force and the records of all objects: first those of the loader's list in
/// its order, then those of other namespaces.
fn describe_all() -> Result<(Mode, PageVec<Described>), sopin_error> {
    let looked = filters::look().ok_or(SOPIN_EBUSY)?;
    let mut loaded = ObjectList::take();
    // A signal handler of the host that calls this as well during the iteration could wait for a
    // thread that forks, which waits for the end of this iteration. So signals are blocked.
    let signals = sys::SignalsBlocked::new().ok();
    loader::snapshot(&mut loaded).map_err(|_| SOPIN_EBUSY)?;
    drop(signals);
    let mut guard = lock::lock_in_handler(looked).ok_or(SOPIN_EBUSY)?;
    preparation::initialise(&mut guard).map_err(|_| SOPIN_ESYSTEM)?;
    let mode = guard.reporter().settings().mode;
    let objects = copy_records(guard.registry(), &loaded).map_err(|_| SOPIN_ESYSTEM)?;
    Ok((mode, objects))
}

fn copy_records(registry: &mut Registry, listed: &[Loaded]) -> sys::Result<PageVec<Described>> {
    let mut objects = PageVec::new();
    for loaded in listed {
        objects.push(match registry.look_up(loaded.headers) {
            Some((entry, record)) => (record, entry.original),
            None => (published::unrecorded(loaded), None),
        })?;
    }
    for index in 0..registry.all_published().len() {
        let Some(record) = registry.all_published().get(index).copied() else { break };
        if record.is_in_other_namespace() {
            let original = registry.recorded(record.headers as usize).and_then(|entry| entry.original);
            objects.push((record, original))?;
        }
    }
    Ok(objects)
}

/// Returns the totals over all objects.
pub fn sum() -> Result<sopin_totals, sopin_error> {
    let (mode, objects) = describe_all()?;
    let mut totals = sopin_totals {
        size: size_of::<sopin_totals>(),
        mode: mode_code(mode) as c_int,
        reserved: 0,
        objects: objects.len(),
        pending: 0,
        full: 0,
        relocated: 0,
        exposed: 0,
        excluded: 0,
        no_file: 0,
        bytes: 0,
    };
    for (record, _) in objects.iter() {
        let count = match record.reached().unwrap_or_default() {
            Reached::Pending => &mut totals.pending,
            Reached::Full => &mut totals.full,
            Reached::Relocated => &mut totals.relocated,
            Reached::Exposed => &mut totals.exposed,
            Reached::Excluded => &mut totals.excluded,
            Reached::NoFile => &mut totals.no_file,
        };
        *count += 1;
        totals.bytes += record.bytes;
    }
    Ok(totals)
}

/// The longest reason in bytes: two texts, a colon and a blank between them, and a NUL.
const REASON: usize = 2 * MAX_TEXT + 3;

/// A visit of all objects in turn. The path is in memory from [`PageVec`], because the host's
/// stack may be small.
pub struct ObjectVisit {
    objects: PageVec<Described>,
    memory: ProcessMemory,
    path_room: PageVec<u8>,
    /// The text of the mappings, if the kernel does not answer single questions about them.
    maps: Option<Maps>,
    reason: Line<REASON>,
    /// How many objects have been shown.
    shown: usize,
    object: Option<sopin_object>,
}

impl ObjectVisit {
    /// Begins a visit of the objects that exist now.
    pub fn begin() -> Result<Self, sopin_error> {
        let (_, objects) = describe_all()?;
        let path_room = PageVec::filled(0, libc::PATH_MAX as usize).map_err(|_| SOPIN_ESYSTEM)?;
        let (memory, reason) = (ProcessMemory::own(), Line::new());
        Ok(Self { objects, memory, path_room, maps: None, reason, shown: 0, object: None })
    }

    /// Returns the next object. Its texts are in the buffers of this visit until the next call.
    pub fn next(&mut self) -> Option<&sopin_object> {
        let (record, original) = *self.objects.get(self.shown)?;
        self.shown += 1;
        let path = read_path(&record, original, &mut self.maps, &self.memory, &mut self.path_room);
        self.reason.clear();
        let has_reason = write_reason(&mut self.reason, &record).is_some();
        self.object = Some(sopin_object {
            size: size_of::<sopin_object>(),
            path: path.as_c_str().as_ptr(),
            base: record.base as usize as *const c_void,
            reached: reached_code(record.reached().unwrap_or_default()) as c_int,
            error: errno_of(&record),
            reason: if has_reason { self.reason.as_bytes().as_ptr().cast() } else { ptr::null() },
            bytes: record.bytes,
        });
        self.object.as_ref()
    }
}

/// Reads the path of an object's original file, or the loader's name for the object where the
/// path cannot be found out. It opens the mappings for every object, because the library keeps
/// no descriptor open while the host's code runs; `kept` has their text if it has to be read.
fn read_path<'a>(
    record: &Record,
    original: Option<FileId>,
    kept: &mut Option<Maps>,
    memory: &ProcessMemory,
    room: &'a mut [u8],
) -> ObjectPath<'a> {
    let (base, headers, name) = (record.base as usize, record.headers as usize, record.name as usize);
    let loaded = Loaded { base, headers, header_count: 0, name };
    // No range of an object that is not recorded was replaced, so its headers still map the file.
    let unchanged = (record.start == 0).then_some(headers);
    let mut maps = kept.take().map_or_else(Maps::open, Ok).ok();
    let shown = maps.as_mut().and_then(|maps| original::shown_at(record, original, maps)).or(unchanged);
    let path = match (&mut maps, shown) {
        (Some(maps), Some(address)) => ObjectPath::mapped_at(address, maps, memory, &loaded, room),
        _ => ObjectPath::named_by_loader(memory, &loaded, room),
    };
    *kept = maps.and_then(Maps::without_descriptor);
    path
}

/// Returns the error of the system call that failed, or 0.
fn errno_of(record: &Record) -> c_int {
    match record.cause().map(|cause| cause.reason) {
        Some(ReasonAt::Errno(errno)) => errno.0,
        Some(ReasonAt::Words(_)) | None => 0,
    }
}

/// Writes why the object has not reached a higher protection level, as a C string. `None` if
/// nothing went wrong.
fn write_reason(line: &mut Line<REASON>, record: &Record) -> Option<()> {
    let cause = record.cause()?;
    let operation = text(cause.operation)?;
    let written = match cause.reason {
        ReasonAt::Errno(errno) => write!(line, "{operation}: {errno}"),
        ReasonAt::Words(words) => write!(line, "{operation}: {}", text(words)?),
    };
    line.terminate();
    written.ok()
}

/// Returns the text at an address in this library.
fn text(at: TextAt) -> Option<&'static str> {
    // SAFETY: `at` comes from a record of this process. Only this library writes those
    // (`Record::set_cause`), with the address and the length of a `&'static str`. The text lives as
    // long as the library, which is linked with `-z nodelete` and so is never unloaded.
    let bytes = unsafe { core::slice::from_raw_parts(at.address as usize as *const u8, at.len) };
    core::str::from_utf8(bytes).ok()
}

//! The records of this process in the form of the C interface.

use core::ffi::{c_int, c_void};
use core::fmt::Write as _;
use core::ptr;

use sopin_core::line::Line;
use sopin_core::memory::OwnMemory;
use sopin_core::pages::PageVec;
use sopin_core::records::{MAX_TEXT, Reached, ReasonAt, Record, TextAt};
use sopin_core::settings::Mode;
use sopin_core::sys::Errno;
use sopin_core::vmas::Maps;

use super::types::sopin_mode::*;
use super::types::sopin_reached::*;
use super::types::{sopin_mode, sopin_object, sopin_reached, sopin_totals};
use crate::request::{self, Description, Refusal};

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

/// The sums over what `description` lists.
pub fn sum(description: &Description) -> sopin_totals {
    let mut totals = sopin_totals {
        size: size_of::<sopin_totals>(),
        mode: mode_code(description.mode) as c_int,
        reserved: 0,
        objects: description.objects.len(),
        pending: 0,
        full: 0,
        relocated: 0,
        exposed: 0,
        excluded: 0,
        no_file: 0,
        bytes: 0,
    };
    for object in description.objects.iter() {
        let count = match object.record.reached().unwrap_or_default() {
            Reached::Pending => &mut totals.pending,
            Reached::Full => &mut totals.full,
            Reached::Relocated => &mut totals.relocated,
            Reached::Exposed => &mut totals.exposed,
            Reached::Excluded => &mut totals.excluded,
            Reached::NoFile => &mut totals.no_file,
        };
        *count += 1;
        totals.bytes += object.record.bytes;
    }
    totals
}

/// Longest reason: two texts, a colon and a blank, a NUL.
const REASON: usize = 2 * MAX_TEXT + 3;

/// A walk over the objects. The stack may be a small one of the host's, so the
/// path is in pages.
pub struct Walk {
    description: Description,
    memory: OwnMemory,
    path: PageVec<u8>,
    reason: Line<REASON>,
    /// How many objects have been shown.
    shown: usize,
    object: Option<sopin_object>,
}

impl Walk {
    /// A walk over what there is now.
    pub fn begin() -> Result<Self, Refusal> {
        let description = request::describe_all()?;
        let path = PageVec::filled(0, libc::PATH_MAX as usize).map_err(|_| Refusal::System)?;
        Ok(Self { description, memory: OwnMemory::new(), path, reason: Line::new(), shown: 0, object: None })
    }

    /// The next object, with its texts in the buffers.
    pub fn next(&mut self) -> Option<&sopin_object> {
        let object = *self.description.objects.get(self.shown)?;
        self.shown += 1;
        // Opened anew for every object: no descriptor of ours is open while the
        // host's code runs.
        let mut maps = Maps::open().ok();
        let path = request::read_path(&object, maps.as_mut(), &self.memory, &mut self.path).as_c_str().as_ptr();
        self.reason.clear();
        let has_reason = write_reason(&mut self.reason, &object.record).is_some();
        self.object = Some(sopin_object {
            size: size_of::<sopin_object>(),
            path,
            base: object.record.base as usize as *const c_void,
            reached: reached_code(object.record.reached().unwrap_or_default()) as c_int,
            error: errno_of(&object.record).map_or(0, |errno| errno.0),
            reason: if has_reason { self.reason.as_bytes().as_ptr().cast() } else { ptr::null() },
            bytes: object.record.bytes,
        });
        self.object.as_ref()
    }
}

fn errno_of(record: &Record) -> Option<Errno> {
    match record.cause()?.reason {
        ReasonAt::Errno(errno) => Some(errno),
        ReasonAt::Words(_) => None,
    }
}

/// Writes why not more was reached, as a C string.
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

/// A text of this library's own, by its address.
fn text(at: TextAt) -> Option<&'static str> {
    // SAFETY: records of this process hold the addresses and lengths of static
    // texts of this library.
    let bytes = unsafe { core::slice::from_raw_parts(at.address as usize as *const u8, at.len) };
    core::str::from_utf8(bytes).ok()
}

//! The host's surroundings: settings, `LD_PRELOAD` for the programs that it
//! starts, and how many threads it has.

use core::ffi::{CStr, c_char};

use sopin_core::pages::read_whole;
use sopin_core::preload_list::{self, Remainder};
use sopin_core::settings::{Complaint, Settings};
use sopin_core::sys::{self, Result};

unsafe extern "C" {
    /// `environ(7)`
    static mut environ: *mut *mut c_char;
}

/// Reads the settings; under `AT_SECURE` the defaults.
pub fn settings(complain: impl FnMut(&Complaint<'_>)) -> Result<Settings> {
    if sys::is_secure_execution() {
        return Ok(Settings::new());
    }
    if is_ready() {
        return Settings::read(|name| variable(name).map(CStr::to_bytes), complain);
    }
    // What the program was started with (proc_pid_environ(5)).
    let block = read_whole(&sys::open(c"/proc/self/environ", libc::O_RDONLY, 0)?)?;
    Settings::read(|name| find(&block, name.to_bytes()), complain)
}

/// Returns whether the C library knows the environment. It does not yet while an
/// object linked with `-z initfirst` is initialised.
pub fn is_ready() -> bool {
    // SAFETY: read once.
    !unsafe { environ }.is_null()
}

/// Returns the value of an environment variable. Like every use of the environment it
/// must not run at the same time as a `setenv(3)`: it is called once, at the
/// first sweep, which in a preloaded library comes before any thread.
fn variable(name: &CStr) -> Option<&'static CStr> {
    // SAFETY: the name is a C string; the answer lives until the variable is
    // changed, and all values are copied before the sweep ends.
    let value = unsafe { libc::getenv(name.as_ptr()) };
    // SAFETY: getenv returns null or a C string.
    (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) })
}

/// Returns the value of a variable in a block of NUL-terminated entries.
fn find<'a>(block: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    block.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(name)?.strip_prefix(b"="))
}

/// Returns whether the calling thread is the process's only one.
pub fn has_one_thread() -> Result<bool> {
    // The directory has a link for itself, one for its entry in its parent,
    // and one for every thread (fs/proc/base.c, proc_task_getattr).
    sys::stat(c"/proc/self/task").map(|status| status.st_nlink == 3)
}

/// Takes every entry whose file name is `own_name` off `LD_PRELOAD`, in place:
/// the strings of the environment only get shorter.
pub fn drop_from_preload(own_name: &[u8]) {
    const NAME: &[u8] = b"LD_PRELOAD=";
    // SAFETY: read once; the array ends with a null pointer.
    let mut slot = unsafe { environ };
    if slot.is_null() {
        return;
    }
    loop {
        // SAFETY: not beyond the terminating null pointer.
        let string = unsafe { *slot };
        if string.is_null() {
            return;
        }
        // SAFETY: entries of the environment are C strings.
        let len = unsafe { libc::strlen(string) };
        // SAFETY: the string is writable, as putenv(3) and the kernel give it,
        // and nobody else uses it while the host starts.
        let entry = unsafe { core::slice::from_raw_parts_mut(string.cast::<u8>(), len + 1) };
        let kept = match entry.strip_prefix(NAME) {
            Some(_) => preload_list::remove(entry.get_mut(NAME.len()..len).unwrap_or_default(), own_name),
            None => Remainder::Unchanged,
        };
        match kept {
            Remainder::Unchanged => {}
            Remainder::Bytes(count) => {
                if let Some(end) = entry.get_mut(NAME.len() + count) {
                    *end = 0;
                }
            }
            Remainder::Nothing => {
                // SAFETY: moves the rest of the array, its end included, down by one.
                unsafe { remove_slot(slot) };
                continue;
            }
        }
        // SAFETY: the slot was not the last.
        slot = unsafe { slot.add(1) };
    }
}

/// # Safety
/// `slot` must be an element of a null-terminated array, not its end.
unsafe fn remove_slot(slot: *mut *mut c_char) {
    let mut slot = slot;
    loop {
        // SAFETY: per the caller, the next element exists.
        let next = unsafe { *slot.add(1) };
        // SAFETY: as above.
        unsafe { *slot = next };
        if next.is_null() {
            return;
        }
        // SAFETY: the next element is not the end.
        slot = unsafe { slot.add(1) };
    }
}

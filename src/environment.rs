//! What the library reads of the host's environment: the settings, `LD_PRELOAD` for the
//! programs that the host starts, and how many threads it has.

use core::ffi::{CStr, c_char};

use sopin_core::pages::read_whole;
use sopin_core::preload_list::{self, Remainder};
use sopin_core::settings::{Complaint, Settings};
use sopin_core::sys::{self, Result};

unsafe extern "C" {
    /// `environ(7)`
    static mut environ: *mut *mut c_char;
}

/// Reads the settings. Under `AT_SECURE` it returns the defaults, because the user who has
/// set the environment has fewer rights than the program.
pub fn settings(complain: &mut dyn FnMut(&Complaint<'_>)) -> Result<Settings> {
    if sys::is_secure_execution() {
        return Ok(Settings::new());
    }
    if is_ready() {
        return Settings::read(|name| variable(name).map(CStr::to_bytes), complain);
    }
    // The environment that the program was started with (proc_pid_environ(5)).
    let block = read_whole(&sys::open(c"/proc/self/environ", libc::O_RDONLY, 0)?)?;
    Settings::read(|name| find(&block, name.to_bytes()), complain)
}

/// Returns whether the C library knows the environment. It does not yet while an
/// object linked with `-z initfirst` is initialised.
pub fn is_ready() -> bool {
    // SAFETY: `environ` is an aligned pointer of the C library, which only setenv(3) and the host
    // change. This reads it during the first sweeps, when no other thread does so, see `variable`.
    !unsafe { environ }.is_null()
}

/// Returns the value of an environment variable. Like every use of the environment it
/// must not run at the same time as a `setenv(3)`. Only the first sweep calls it, which in
/// a preloaded library comes before the host creates threads. If a program loads the library
/// at run time, its other threads must not change the environment meanwhile.
fn variable(name: &CStr) -> Option<&'static CStr> {
    // SAFETY: `name` is a C string. No thread changes the environment during the first sweep, see
    // above.
    let value = unsafe { libc::getenv(name.as_ptr()) };
    // SAFETY: a result of getenv(3) that is not null is a C string. It lives until the host
    // changes the variable, and `Settings::read` copies all values before the sweep ends.
    (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) })
}

/// Returns the value of a variable in a block of NUL-terminated entries.
fn find<'a>(block: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    block.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(name)?.strip_prefix(b"="))
}

/// Returns whether the calling thread is the process's only one.
pub fn has_one_thread() -> Result<bool> {
    // The directory has two links of its own (`.` and its entry in the parent directory),
    // and one more for every thread (fs/proc/base.c, proc_task_getattr).
    sys::stat(c"/proc/self/task").map(|status| status.st_nlink == 3)
}

/// Removes every entry whose file name is `own_name` from `LD_PRELOAD`, in place: the
/// strings of the environment only get shorter, so that no memory is needed. If a program
/// loads the library at run time, its other threads must not use the environment meanwhile.
pub fn drop_from_preload(own_name: &[u8]) {
    const NAME: &[u8] = b"LD_PRELOAD=";
    // SAFETY: `environ` is an aligned pointer of the C library. No other thread uses the
    // environment during the first sweeps, see above.
    let mut slot = unsafe { environ };
    if slot.is_null() {
        return;
    }
    loop {
        // SAFETY: `environ(7)` is an array that ends with a null pointer. `slot` begins at its
        // first element and advances only past elements that are not null.
        let string = unsafe { *slot };
        if string.is_null() {
            return;
        }
        // SAFETY: the elements of `environ(7)` that are not null are C strings.
        let len = unsafe { libc::strlen(string) };
        // SAFETY: `len + 1` bytes are the string and its NUL. They are writable: the kernel puts
        // them on the stack, and putenv(3) takes strings that may be changed. No other thread
        // uses them during the first sweeps, see above.
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
                // SAFETY: `slot` is an element of the array and not its end, since `string` is
                // not null. No other thread uses the array during the first sweeps.
                unsafe { remove_slot(slot) };
                continue;
            }
        }
        // SAFETY: `string` is not null, so the array has another element after this one.
        slot = unsafe { slot.add(1) };
    }
}

/// Removes an element of an array: moves all later ones, the terminating null pointer
/// included, down by one.
///
/// # Safety
/// `slot` must be an element of a writable array that ends with a null pointer, and not that
/// end. No other thread may use the array during the call.
unsafe fn remove_slot(slot: *mut *mut c_char) {
    let mut slot = slot;
    loop {
        // SAFETY: `slot` is not the end of the array: at first by this function's contract, later
        // because the loop stops at the end. So the next element exists.
        let next = unsafe { *slot.add(1) };
        // SAFETY: `slot` is an element of the array, which is writable and which no other thread
        // uses: this function's contract.
        unsafe { *slot = next };
        if next.is_null() {
            return;
        }
        // SAFETY: the next element exists, as above.
        slot = unsafe { slot.add(1) };
    }
}

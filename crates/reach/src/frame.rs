//! The signal frame by which a task restores itself if this process dies while the task makes
//! system calls for it. The kernel then resumes the task, which returns from the instructions of
//! the call: not to its own code but to a return from a signal handler (`rt_sigreturn(2)`), by
//! which the kernel sets all registers and the signal mask from the frame.
//!
//! If all goes well, no task ever returns to the frame.

use std::ops::Range;

use sopin_core::registers::Registers;
use sopin_inspect::maps::{self, Mapping};

#[cfg_attr(target_arch = "x86_64", path = "frame/x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "frame/aarch64.rs")]
mod architecture;

/// Bytes for a frame: that of aarch64 has 4688, that of x86-64 as many as the processor's
/// registers need, 11 KiB with AMX.
pub const ROOM: usize = 16 << 10;

pub use architecture::{LONG_VECTORS, long_vectors, make};

/// Bytes below the stack pointer that a function may use without moving it.
const RED_ZONE: u64 = 128;

/// A frame, and how the task gets there.
pub struct Frame {
    /// Its bytes, for the address that it was made for.
    pub bytes: Vec<u8>,
    /// The stack pointer behind a call, where it returns to `return_to`.
    pub stack: u64,
    /// The stack pointer with which the system call `rt_sigreturn` itself finds the frame.
    pub stack_of_return: u64,
    /// The address to which the instructions of the call return.
    pub return_to: u64,
}

/// Puts a word into the bytes of a frame.
fn put(bytes: &mut [u8], offset: usize, value: u64) {
    if let Some(place) = bytes.get_mut(offset..offset + 8) {
        place.copy_from_slice(&value.to_ne_bytes());
    }
}

/// Returns the addresses below the part of a stack that is in use, as far as it is mapped.
pub fn free_stack(maps: &[Mapping], pointer: u64) -> Range<u64> {
    let end = pointer.saturating_sub(RED_ZONE);
    match maps::at(maps, end) {
        Some(mapping) if mapping.is_readable && mapping.is_writable && !mapping.is_shared && !mapping.has_file() => {
            mapping.start..end
        }
        _ => 0..0,
    }
}

/// Returns the registers with which a task goes on if the kernel does not make its interrupted
/// call again, because it returns from a signal frame.
pub fn resumed_by_itself(saved: &Registers) -> Registers {
    /// `ERESTARTSYS`, `ERESTARTNOINTR`, `ERESTARTNOHAND`, `ERESTART_RESTARTBLOCK`
    const RESTARTS: [i64; 4] = [-512, -513, -514, -516];
    if cfg!(target_arch = "x86_64") && saved.call().is_some() && RESTARTS.contains(&saved.result()) {
        saved.calling_again()
    } else {
        *saved
    }
}

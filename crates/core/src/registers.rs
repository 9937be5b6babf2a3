//! The registers of a task, by architecture. Each has the same type, `Registers`, and the same
//! constants.

use libc::user_regs_struct as General;

use crate::sys::tracing::{self, GENERAL_REGISTERS};
use crate::sys::{Errno, Result};

#[cfg_attr(target_arch = "x86_64", path = "registers/x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "registers/aarch64.rs")]
mod architecture;

#[cfg(target_arch = "aarch64")]
pub use architecture::CallBefore;
pub use architecture::{CALL, IO_PGETEVENTS, NO_CALL, RETURN_FROM_SIGNAL, Registers};

/// Bytes of the general registers.
const LEN: usize = size_of::<General>();

/// Reads the general registers of a task that has stopped. `EXDEV` if it executes 32-bit code.
fn read_general(task: i32) -> Result<General> {
    let mut bytes = [0; LEN];
    if tracing::register_set(task, GENERAL_REGISTERS, &mut bytes)?.len() != LEN {
        return Err(Errno(libc::EXDEV));
    }
    // SAFETY: the structure consists of integers, for which any bytes are valid.
    Ok(unsafe { core::mem::transmute::<[u8; LEN], General>(bytes) })
}

/// Sets the general registers of a task that has stopped.
fn write_general(task: i32, general: &General) -> Result<()> {
    // SAFETY: the structure consists of integers without padding between them.
    let bytes = unsafe { core::mem::transmute::<General, [u8; LEN]>(*general) };
    tracing::set_register_set(task, GENERAL_REGISTERS, &bytes)
}

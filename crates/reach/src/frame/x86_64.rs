//! `struct rt_sigframe` of x86-64 (arch/x86/include/asm/sigframe.h): the address to return to,
//! `struct ucontext`, and behind that the state of the processor as XSAVE stores it, or FXSAVE where the
//! processor has no XSAVE (many virtual machines).

use rustix::io::Errno;
use sopin_core::registers::Registers;

use super::{Frame, ROOM, put};
use crate::ptrace;

/// `NT_X86_XSTATE` of `elf.h`
const XSTATE: usize = 0x202;
/// `NT_PRFPREG` of `elf.h`: the state as FXSAVE stores it.
const LEGACY_STATE: usize = 2;
const LEGACY_BYTES: usize = 512;
/// Offset of `struct ucontext` in the frame.
const CONTEXT: usize = 8;
/// Offset of `struct sigcontext`: behind the flags, a link and the alternate stack.
const REGISTERS: usize = CONTEXT + 40;
/// Offset of the flags of the alternate stack.
const STACK_FLAGS: usize = CONTEXT + 24;
/// Offset of the pointer to the state: word 23 of `struct sigcontext`.
const STATE_POINTER: usize = REGISTERS + 23 * 8;
/// Offset of the signal mask, behind the 32 words of `struct sigcontext`.
const MASK: usize = REGISTERS + 32 * 8;
/// Offset at which this module puts the state; a multiple of 64.
const STATE: usize = 1024;
/// Offset of `struct _fpx_sw_bytes` in the state. In what `ptrace(2)` reads, the components of the
/// state stand there.
const SOFTWARE: usize = 464;
const MAGIC1: u32 = 0x4650_5853;
const MAGIC2: u32 = 0x4650_5845;
/// `UC_FP_XSTATE`
const STATE_OF_XSAVE: u64 = 1;
/// `UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS`
const FLAGS: u64 = 6;

/// There is no such register set here.
pub const LONG_VECTORS: usize = 0;

/// Returns nothing: a system call changes no vector register.
#[allow(clippy::unnecessary_wraps, reason = "the signature is that of aarch64")]
pub fn long_vectors(_task: i32) -> Result<Option<Vec<u8>>, Errno> {
    Ok(None)
}

/// Makes the frame for `address`, a multiple of the page size, of a task that has stopped. The
/// task gets these registers and this signal mask. The instructions that return from a signal
/// handler are at `return_from_signal`.
pub fn make(
    task: i32,
    registers: &Registers,
    mask: u64,
    address: u64,
    return_from_signal: u64,
) -> Result<Frame, Errno> {
    let (state, flags) = match ptrace::register_set(task, XSTATE, ROOM - STATE - 8) {
        Ok(state) => (of_xsave(state)?, FLAGS | STATE_OF_XSAVE),
        Err(Errno::NODEV) => (of_fxsave(ptrace::register_set(task, LEGACY_STATE, LEGACY_BYTES)?)?, FLAGS),
        Err(errno) => return Err(errno),
    };
    let mut bytes = vec![0; STATE + state.len()];
    put(&mut bytes, 0, return_from_signal);
    put(&mut bytes, CONTEXT, flags);
    // No flags of this kind exist, so the kernel leaves the alternate stack as it is.
    put(&mut bytes, STACK_FLAGS, u64::from(u32::MAX));
    for (index, word) in registers.sigcontext().into_iter().enumerate() {
        put(&mut bytes, REGISTERS + index * 8, word);
    }
    put(&mut bytes, STATE_POINTER, address + STATE as u64);
    put(&mut bytes, MASK, mask);
    if let Some(place) = bytes.get_mut(STATE..) {
        place.copy_from_slice(&state);
    }
    // The instructions of the call return to the frame's first word.
    Ok(Frame { bytes, stack: address, stack_of_return: address + CONTEXT as u64, return_to: return_from_signal })
}

/// Completes the state that XSAVE stores: the kernel finds its size and its components in it.
fn of_xsave(mut state: Vec<u8>) -> Result<Vec<u8>, Errno> {
    let size = u32::try_from(state.len()).map_err(|_| Errno::OVERFLOW)?;
    let components = state.get(SOFTWARE..SOFTWARE + 8).and_then(|bytes| bytes.first_chunk::<8>().copied());
    let components = u64::from_ne_bytes(components.ok_or(Errno::NOTSUP)?);
    let software = state.get_mut(SOFTWARE..SOFTWARE + 48).ok_or(Errno::NOTSUP)?;
    software.fill(0);
    put(software, 0, u64::from(MAGIC1) | u64::from(size + 4) << 32);
    put(software, 8, components);
    put(software, 16, u64::from(size));
    state.extend(MAGIC2.to_ne_bytes());
    Ok(state)
}

/// Completes the state that FXSAVE stores: the kernel finds in it that there is no more.
fn of_fxsave(mut state: Vec<u8>) -> Result<Vec<u8>, Errno> {
    state.get_mut(SOFTWARE..LEGACY_BYTES).ok_or(Errno::NOTSUP)?.fill(0);
    Ok(state)
}

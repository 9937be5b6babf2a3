//! `struct rt_sigframe` of aarch64 (arch/arm64/kernel/signal.c): `siginfo_t`, `struct ucontext`,
//! and in that, behind the registers, records of which this module writes the one with the vector
//! registers. A task that uses SVE loses what the longer registers have beyond 128 bits, as it
//! may in any system call.

use rustix::io::Errno;
use sopin_core::registers::Registers;

use super::{Frame, put};
use crate::ptrace;

/// `NT_PRFPREG` of `elf.h`: 32 registers of 16 bytes, FPSR, FPCR.
const VECTORS: usize = 2;
const VECTOR_BYTES: usize = 32 * 16;
/// Offset of `struct ucontext`, behind `siginfo_t`.
const CONTEXT: usize = 128;
/// Offset of the flags of the alternate stack.
const STACK_FLAGS: usize = CONTEXT + 24;
/// Offset of the signal mask.
const MASK: usize = CONTEXT + 40;
/// Offset of `struct sigcontext`, which begins with the address of a fault.
const REGISTERS: usize = CONTEXT + 176;
/// Offset of the records, of which there are 4096 bytes.
const RECORDS: usize = REGISTERS + 288;
const RECORD_BYTES: usize = 4096;
/// `FPSIMD_MAGIC`, and the size of its record.
const FPSIMD: u64 = 0x4650_8001 | (16 + VECTOR_BYTES as u64) << 32;

/// `NT_ARM_SVE` of `elf.h`
pub const LONG_VECTORS: usize = 0x405;
/// `NT_ARM_SSVE`
const STREAMING: usize = 0x40b;
/// Bytes of the largest set: vectors of 256 bytes.
const LONG_VECTORS_ROOM: usize = 16 << 10;
/// The offset of the flags in `struct user_sve_header`.
const FLAGS: usize = 12;
/// The flag for registers with more than 128 bits.
const HAS_LONG: u8 = 1;

/// Returns the vector registers of a task that has stopped outside a system call, if they have more
/// than 128 bits: a system call clears the rest (Documentation/arch/arm64/sve.rst). `ENOTSUP` if
/// the task is in the streaming mode of SME, which a system call ends.
pub fn long_vectors(task: i32) -> Result<Option<Vec<u8>>, Errno> {
    let read = |set| ptrace::register_set(task, set, LONG_VECTORS_ROOM).ok();
    let has_long = |set: &Vec<u8>| set.get(FLAGS).is_some_and(|flags| flags & HAS_LONG != 0);
    if read(STREAMING).is_some_and(|set| has_long(&set)) {
        return Err(Errno::NOTSUP);
    }
    Ok(read(LONG_VECTORS).filter(has_long))
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
    let vectors = ptrace::register_set(task, VECTORS, VECTOR_BYTES + 16)?;
    let (values, states) = vectors.split_at_checked(VECTOR_BYTES).ok_or(Errno::NOTSUP)?;
    let states = states.first_chunk::<8>().ok_or(Errno::NOTSUP)?;
    let mut bytes = vec![0; RECORDS + RECORD_BYTES];
    // No flags of this kind exist, so the kernel leaves the alternate stack as it is.
    put(&mut bytes, STACK_FLAGS, u64::from(u32::MAX));
    put(&mut bytes, MASK, mask);
    for (index, word) in registers.sigcontext().into_iter().enumerate() {
        put(&mut bytes, REGISTERS + 8 + index * 8, word);
    }
    put(&mut bytes, RECORDS, FPSIMD);
    put(&mut bytes, RECORDS + 8, u64::from_ne_bytes(*states));
    if let Some(place) = bytes.get_mut(RECORDS + 16..RECORDS + 16 + VECTOR_BYTES) {
        place.copy_from_slice(values);
    }
    Ok(Frame { bytes, stack: address, stack_of_return: address, return_to: return_from_signal })
}

//! Whether an object's `_init` begins by calling `__gmon_start__`, and in which object that
//! function is.
//!
//! `crti.o` of the GNU toolchain gives nearly every object an `_init` that loads the address of
//! the weak symbol `__gmon_start__` from the object's GOT and calls it if it is not null. If
//! that GOT slot holds the address of *this library's* `__gmon_start__`, the object announces
//! itself to the library before any of its constructors runs. An object that has not announced
//! itself has run none of its code. That proves that no thread can be storing to its data.
//!
//! This module only decodes instructions. The decoders of all architectures are compiled on all
//! architectures, so that they are tested everywhere.

use crate::memory::{Along, ProcessMemory};
use crate::sys::Result;

/// Bytes of `_init` that are decoded.
pub const INIT_LEN: usize = 32;
/// The landing instruction with which a function of x86-64 may begin.
pub(crate) const ENDBR64: &[u8] = &[0xf3, 0x0f, 0x1e, 0xfa];

/// Returns whether the `_init` function at `init` provably calls the function at
/// `callee` through its `__gmon_start__` slot. `code` has the function's beginning if that has been
/// read already.
pub fn init_calls(memory: &ProcessMemory, init: usize, code: &Along<INIT_LEN>, callee: usize) -> Result<bool> {
    let code = beginning(memory, init, code)?;
    let slot = if cfg!(target_arch = "x86_64") {
        x86_64_slot(&code, init)
    } else if cfg!(target_arch = "aarch64") {
        match aarch64_helper(&code, init) {
            Some(helper) => aarch64_slot(&memory.read::<[u8; INIT_LEN]>(helper)?, helper),
            None => None,
        }
    } else {
        None
    };
    holds(memory, slot, callee)
}

/// Returns whether a call that returns to `caller` was made by the `_init` function at `init` as
/// [`init_calls`] describes it: then the slot has the address of the function that was called, and
/// need not be read. Always false on architectures other than x86-64.
pub fn init_has_called(memory: &ProcessMemory, init: usize, code: &Along<INIT_LEN>, caller: usize) -> Result<bool> {
    if !cfg!(target_arch = "x86_64") || caller.wrapping_sub(init) > INIT_LEN {
        return Ok(false);
    }
    Ok(x86_64_return(&beginning(memory, init, code)?, init) == Some(caller))
}

/// Returns the beginning of the function at `init`, from `code` if that has it.
fn beginning(memory: &ProcessMemory, init: usize, code: &Along<INIT_LEN>) -> Result<[u8; INIT_LEN]> {
    code.at(init).map_or_else(|| memory.read(init), |code| Ok(*code))
}

/// Returns the address behind the call in an `_init` of x86-64.
fn x86_64_return(code: &[u8], address: usize) -> Option<usize> {
    /// `test %rax,%rax; je` behind the call; `call *%rax`.
    const TEST_AND_CALL: &[u8] = &[0x48, 0x85, 0xc0, 0x74, 0x02, 0xff, 0xd0];
    const MOV_RIP_RAX_LEN: usize = 7;
    x86_64_slot(code, address)?;
    let start = code.windows(TEST_AND_CALL.len()).position(|bytes| bytes == TEST_AND_CALL)?;
    let prologue = if code.starts_with(ENDBR64) { ENDBR64.len() } else { 0 } + 4;
    (start == prologue + MOV_RIP_RAX_LEN).then_some(address + start + TEST_AND_CALL.len())
}

/// Returns whether a slot was found and holds the address `callee`.
pub(crate) fn holds(memory: &ProcessMemory, slot: Option<usize>, callee: usize) -> Result<bool> {
    match slot {
        Some(slot) => Ok(memory.read::<u64>(slot)? == callee as u64),
        None => Ok(false),
    }
}

/// Returns the address of the slot in an `_init` of x86-64: `[endbr64]; sub $8,%rsp; mov
/// slot(%rip),%rax; test; je; call`.
fn x86_64_slot(code: &[u8], address: usize) -> Option<usize> {
    const SUB_8_RSP: &[u8] = &[0x48, 0x83, 0xec, 0x08];
    const MOV_RIP_RAX: &[u8] = &[0x48, 0x8b, 0x05];
    const TEST_RAX: &[u8] = &[0x48, 0x85, 0xc0];
    let rest = code.strip_prefix(ENDBR64).unwrap_or(code);
    let rest = rest.strip_prefix(SUB_8_RSP)?.strip_prefix(MOV_RIP_RAX)?;
    let (displacement, rest) = rest.split_first_chunk::<4>()?;
    rest.strip_prefix(TEST_RAX)?;
    let next = address + (code.len() - rest.len());
    next.checked_add_signed(i32::from_le_bytes(*displacement) as isize)
}

/// Returns the address of `call_weak_fn` in an `_init` of aarch64: `[paciasp or bti]; stp
/// x29,x30,[sp,#-16]!; mov x29,sp; bl call_weak_fn`.
fn aarch64_helper(code: &[u8], address: usize) -> Option<usize> {
    let (index, branch) = words(code).enumerate().take(5).find(|(_, word)| word >> 26 == 0b10_0101)?;
    (address + 4 * index).checked_add_signed(branch_offset(branch))
}

/// Returns how many bytes away the target of a `b` or `bl` of aarch64 is.
pub(crate) fn branch_offset(branch: u32) -> isize {
    sign_extend(branch & 0x03ff_ffff, 26) * 4
}

/// Returns the address of the slot in a `call_weak_fn` of aarch64: `[bti]; adrp x0,slot; ldr
/// x0,[x0,#slot]; cbz x0; b`.
pub(crate) fn aarch64_slot(code: &[u8], address: usize) -> Option<usize> {
    let (index, adrp) = words(code).enumerate().take(2).find(|(_, word)| word & 0x9f00_001f == 0x9000_0000)?;
    let load = words(code).nth(index + 1)?;
    // ldr x0, [x0, #imm12 * 8]
    if load & 0xffc0_03ff != 0xf940_0000 {
        return None;
    }
    let pages_away = sign_extend(((adrp >> 5) & 0x7_ffff) << 2 | (adrp >> 29) & 3, 21);
    let page = ((address + 4 * index) & !0xfff).checked_add_signed(pages_away << 12)?;
    page.checked_add(((load >> 10) & 0xfff) as usize * 8)
}

/// An instruction of aarch64 without the bits of addresses, and the mask that clears these.
pub(crate) type Instruction = (u32, u32);

/// Returns whether the words begin with these instructions.
pub(crate) fn begin_with<'a>(
    mut words: impl Iterator<Item = u32>,
    instructions: impl IntoIterator<Item = &'a Instruction>,
) -> bool {
    instructions.into_iter().all(|(wanted, mask)| words.next().is_some_and(|word| word & mask == *wanted))
}

pub(crate) fn words(code: &[u8]) -> impl Iterator<Item = u32> + '_ {
    code.chunks_exact(4).map(|word| word.try_into().map_or(0, u32::from_le_bytes))
}

/// Returns the low `bits` bits of `value` as a signed number.
fn sign_extend(value: u32, bits: u32) -> isize {
    let shift = 32 - bits;
    ((value << shift).cast_signed() >> shift) as isize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Errno;

    #[test]
    fn decodes_the_x86_64_init_of_gcc_12() {
        // 1000: sub $0x8,%rsp; 1004: mov 0x2fc5(%rip),%rax # 3fd0; test; je; call *%rax
        let code =
            [0x48, 0x83, 0xec, 0x08, 0x48, 0x8b, 0x05, 0xc5, 0x2f, 0, 0, 0x48, 0x85, 0xc0, 0x74, 0x02, 0xff, 0xd0];
        assert_eq!(x86_64_slot(&code, 0x1000), Some(0x3fd0));
    }

    #[test]
    fn decodes_the_x86_64_init_with_indirect_branch_tracking() {
        // 1000: endbr64; sub $0x8,%rsp; 1008: mov 0x2fc1(%rip),%rax # 3fd0
        let code =
            [0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x83, 0xec, 0x08, 0x48, 0x8b, 0x05, 0xc1, 0x2f, 0, 0, 0x48, 0x85, 0xc0];
        assert_eq!(x86_64_slot(&code, 0x1000), Some(0x3fd0));
    }

    #[test]
    fn the_address_behind_the_call_is_decoded() {
        const CODE: [u8; 22] = [
            0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x83, 0xec, 0x08, 0x48, 0x8b, 0x05, 0xc1, 0x2f, 0, 0, 0x48, 0x85, 0xc0, 0x74,
            0x02, 0xff, 0xd0,
        ];
        assert_eq!((x86_64_return(&CODE, 0x1000), x86_64_return(&CODE[4..], 0x1004)), (Some(0x1016), Some(0x1016)));
        // A call of another register, a longer jump, and an instruction before the test.
        for (index, byte) in [(21, 0xd1), (19, 0x04), (15, 0x90)] {
            let mut other = CODE;
            other[index] = byte;
            assert_eq!(x86_64_return(&other, 0x1000), None, "{index}");
        }
    }

    #[test]
    fn another_function_is_no_proof() {
        // push %rbp; mov %rsp,%rbp; ...
        let code = [0x55, 0x48, 0x89, 0xe5, 0x48, 0x8b, 0x05, 0, 0, 0, 0, 0x48, 0x85, 0xc0, 0, 0, 0, 0];
        assert_eq!(x86_64_slot(&code, 0x1000), None);
        assert_eq!(x86_64_slot(&[0x48, 0x83, 0xec, 0x08, 0x48, 0x8b, 0x05], 0x1000), None);
    }

    #[test]
    fn decodes_the_aarch64_init_of_gcc_12() {
        // 440: nop; stp x29,x30,[sp,#-16]!; mov x29,sp; 44c: bl 4a0
        let init = [0x1f, 0x20, 0x03, 0xd5, 0xfd, 0x7b, 0xbf, 0xa9, 0xfd, 0x03, 0x00, 0x91, 0x15, 0x00, 0x00, 0x94];
        assert_eq!(aarch64_helper(&init, 0x440), Some(0x4a0));
        // 4a0: adrp x0,1f000; ldr x0,[x0,#4064]; cbz x0,4b0; b
        let helper = [0xe0, 0x00, 0x00, 0xf0, 0x00, 0xf0, 0x47, 0xf9, 0x40, 0x00, 0x00, 0xb4, 0xf9, 0xff, 0xff, 0x17];
        assert_eq!(aarch64_slot(&helper, 0x4a0), Some(0x1ffe0));
    }

    #[test]
    fn an_init_that_cannot_be_read_is_an_error() {
        assert_eq!(init_calls(&ProcessMemory::own(), 8, &Along::nothing(), 8), Err(Errno(libc::EFAULT)));
        assert_eq!(init_has_called(&ProcessMemory::own(), 8, &Along::nothing(), 4096), Ok(false));
    }
}

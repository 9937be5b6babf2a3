//! Recognises the entry point of an executable that is linked with musl's `crt1.o`.
//!
//! glibc's loader initialises the program's objects before it jumps to the executable's entry
//! point. musl's C library initialises them when the code at the entry point has called
//! `__libc_start_main`. The code of `crt1.o` does nothing before (source: musl, `crt_arch.h` and
//! `crt/crt1.c`). This module only decodes instructions; what it does not recognise, such as the
//! entry point of a program that has its own, proves nothing.

use crate::crti::{self, Instruction};
use crate::memory::ProcessMemory;
use crate::object::Object;
use crate::sys::Result;

/// Bytes of the entry point that are decoded.
const CODE_LEN: usize = 32;

/// Returns whether the code at the entry point of the executable `object` is that of `crt1.o`.
/// False if the object does not begin with its ELF header.
pub fn is_entry_of(memory: &ProcessMemory, object: &Object) -> Result<bool> {
    const MAGIC: u64 = u32::from_le_bytes(*b"\x7fELF") as u64;
    // These are the words of an Elf64_Ehdr: e_entry is the fourth.
    let [identification, _, _, entry] = memory.read::<[u64; 4]>(object.span.start)?;
    if identification & 0xffff_ffff != MAGIC {
        return Ok(false);
    }
    let code = memory.read::<[u8; CODE_LEN]>(object.base.wrapping_add(entry as usize))?;
    Ok(if cfg!(target_arch = "x86_64") {
        is_x86_64(&code)
    } else if cfg!(target_arch = "aarch64") {
        is_aarch64(&code)
    } else {
        false
    })
}

/// Recognises `xor %rbp,%rbp; mov %rsp,%rdi; lea _DYNAMIC(%rip),%rsi; and $-16,%rsp; call
/// _start_c`
fn is_x86_64(code: &[u8]) -> bool {
    const BEFORE: &[u8] = &[0x48, 0x31, 0xed, 0x48, 0x89, 0xe7, 0x48, 0x8d, 0x35];
    const BEHIND: &[u8] = &[0x48, 0x83, 0xe4, 0xf0, 0xe8];
    let rest = code.strip_prefix(BEFORE).and_then(<[u8]>::split_first_chunk::<4>);
    rest.is_some_and(|(_, rest)| rest.starts_with(BEHIND))
}

/// Recognises `mov x29,#0; mov x30,#0; mov x0,sp; adrp x1,_DYNAMIC; add x1,x1,#_DYNAMIC; and
/// sp,x0,#-16; b _start_c`. lld puts `nop; adr x1,_DYNAMIC` in place of the two instructions with
/// the address if that is near.
fn is_aarch64(code: &[u8]) -> bool {
    // Each instruction without the bits of an address, and the mask that clears these.
    const BEFORE: [Instruction; 3] = [(0xd280_001d, !0), (0xd280_001e, !0), (0x9100_03e0, !0)];
    const FAR: [Instruction; 2] = [(0x9000_0001, 0x9f00_001f), (0x9100_0021, 0xffc0_03ff)];
    const NEAR: [Instruction; 2] = [(0xd503_201f, !0), (0x1000_0001, 0x9f00_001f)];
    const BEHIND: [Instruction; 2] = [(0x927c_ec1f, !0), (0x1400_0000, 0xfc00_0000)];
    let is_start =
        |address: &[Instruction; 2]| crti::begin_with(crti::words(code), BEFORE.iter().chain(address).chain(&BEHIND));
    is_start(&FAR) || is_start(&NEAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_musl_is_known() {
        // xor; mov; lea 0x2dc3(%rip); and; call
        let code = [
            0x48, 0x31, 0xed, 0x48, 0x89, 0xe7, 0x48, 0x8d, 0x35, 0xc3, 0x2d, 0, 0, 0x48, 0x83, 0xe4, 0xf0, 0xe8, 0, 0,
        ];
        assert!(is_x86_64(&code));
        let code = [
            0x1d, 0, 0x80, 0xd2, 0x1e, 0, 0x80, 0xd2, 0xe0, 0x03, 0, 0x91, 0xe1, 0, 0, 0xb0, 0x21, 0x80, 0x37, 0x91,
            0x1f, 0xec, 0x7c, 0x92, 0x01, 0, 0, 0x14,
        ];
        assert!(is_aarch64(&code));
        // lld: nop; adr x1,_DYNAMIC
        let code = [
            0x1d, 0, 0x80, 0xd2, 0x1e, 0, 0x80, 0xd2, 0xe0, 0x03, 0, 0x91, 0x1f, 0x20, 0x03, 0xd5, 0x81, 0x41, 0x08,
            0x10, 0x1f, 0xec, 0x7c, 0x92, 0x02, 0, 0, 0x14,
        ];
        assert!(is_aarch64(&code));
        assert!(!is_aarch64(&code[..24]));
    }

    #[test]
    fn another_start_is_not() {
        // glibc: xor %ebp,%ebp; mov %rdx,%r9; pop %rsi
        assert!(!is_x86_64(&[0x31, 0xed, 0x49, 0x89, 0xd1, 0x5e, 0x48, 0x89, 0xe2]));
        assert!(!is_aarch64(&[0x1f, 0x20, 0x03, 0xd5, 0x1d, 0, 0x80, 0xd2]));
        assert!(!is_aarch64(&[]));
    }
}

//! Recognises the functions with which objects for aarch64 find out whether the processor has
//! atomic instructions (LSE). They have a priority, so on musl they run before the object announces
//! itself. Objects that are written in Rust have one or the other.
//!
//! * `init_have_lse_atomics` of GCC (source: `libgcc/config/aarch64/lse-init.c`) asks
//!   `getauxval(3)`.
//! * `init_lse` of newer versions of Rust (source: `library/std/src/sys/configure_builtins.rs`)
//!   asks `std_detect`, which keeps what it finds out.
//!
//! Both store a flag to the object's data, the second one also the words that `std_detect` keeps.
//! They start no thread, and nothing stores to memory after they have returned.
//!
//! This module decodes instructions, on all architectures.

use crate::crti::{self, Instruction};
use crate::memory::ProcessMemory;

/// Bytes of a function that are decoded.
const CODE_LEN: usize = 44;

const RETURN: Instruction = (0xd65f_03c0, !0);

/// Returns whether the function at this address is one of them.
pub fn is_setup(memory: &ProcessMemory, function: usize) -> bool {
    let Ok(code) = memory.read::<[u8; CODE_LEN]>(function) else { return false };
    if is_of_compiler(&code) {
        return true;
    }
    let Some(store) = of_rust(&code, function) else { return false };
    memory.read::<[u8; 16]>(store).is_ok_and(|code| stores_flag(&code))
}

/// Recognises `mov x0,#AT_HWCAP; bl getauxval; ubfx x0,x0,#HWCAP_ATOMICS,#1; strb w0,[x1,flag];
/// ret`. The compiler puts the load of the page's address and what makes the frame between them
/// in different orders.
fn is_of_compiler(code: &[u8]) -> bool {
    const BETWEEN: [Instruction; 8] = [
        // paciasp; autiasp
        (0xd503_233f, !0),
        (0xd503_23bf, !0),
        // stp x29,x30,[sp,#-16]!; mov x29,sp; ldp x29,x30,[sp],#16
        (0xa9bf_7bfd, !0),
        (0x9100_03fd, !0),
        (0xa8c1_7bfd, !0),
        // str x30,[sp,#-16]!; ldr x30,[sp],#16
        (0xf81f_0ffe, !0),
        (0xf841_07fe, !0),
        // adrp x1,flag
        (0x9000_0001, 0x9f00_001f),
    ];
    const NARROW: Instruction = (0x5308_2000, !0);
    const WIDE: Instruction = (0xd348_2000, !0);
    let function = |bit| [(0xd280_0200, !0), (0x9400_0000, 0xfc00_0000), bit, (0x3900_0020, 0xffc0_03ff), RETURN];
    let is_essential = |word: &u32| !BETWEEN.iter().any(|(wanted, mask)| word & mask == *wanted);
    [NARROW, WIDE].iter().any(|bit| crti::begin_with(crti::words(code).filter(is_essential), &function(*bit)))
}

/// Recognises `init_lse`, and returns the address of the function that stores the flag:
/// `adrp x8,words; ldr x8,[x8,words]; cbz x8,1f; tbnz w8,#30,2f; 0: ret; 1: stp; mov x29,sp; bl
/// detect_and_initialize; ldp; tbz w0,#30,0b; 2: b __rust_enable_lse`.
fn of_rust(code: &[u8], address: usize) -> Option<usize> {
    const FUNCTION: [Instruction; 11] = [
        (0x9000_0008, 0x9f00_001f),
        (0xf940_0108, 0xffc0_03ff),
        (0xb400_0068, !0),
        (0x37f0_00e8, !0),
        RETURN,
        (0xa9bf_7bfd, !0),
        (0x9100_03fd, !0),
        (0x9400_0000, 0xfc00_0000),
        (0xa8c1_7bfd, !0),
        (0x36f7_ff60, !0),
        (0x1400_0000, 0xfc00_0000),
    ];
    let last = crti::words(code).nth(FUNCTION.len() - 1)?;
    let from = address.checked_add(4 * (FUNCTION.len() - 1))?;
    crti::begin_with(crti::words(code), &FUNCTION).then_some(())?;
    from.checked_add_signed(crti::branch_offset(last))
}

/// Recognises `adrp x8,flag; mov w9,#1; strb w9,[x8,flag]; ret`.
fn stores_flag(code: &[u8]) -> bool {
    crti::begin_with(
        crti::words(code),
        &[(0x9000_0008, 0x9f00_001f), (0x5280_0029, !0), (0x3900_0109, 0xffc0_03ff), RETURN],
    )
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn bytes<const N: usize>(words: [u32; N]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn recognises_the_function_of_compilers() {
        // cryptography and pydantic-core for musllinux
        let wheel =
            [0xf81f_0ffe, 0xd280_0200, 0x97ff_c182, 0x5308_2000, 0xb000_4921, 0xf841_07fe, 0x390d_4020, 0xd65f_03c0];
        assert!(is_of_compiler(&bytes(wheel)));
        // Debian's GCC 10 and 12
        let gcc = [
            0xa9bf_7bfd,
            0xd280_0200,
            0x9100_03fd,
            0x9400_0000,
            0x5308_2000,
            0x9000_0001,
            0xa8c1_7bfd,
            0x3900_0020,
            0xd65f_03c0,
        ];
        assert!(is_of_compiler(&bytes(gcc)));
        // GCC 14, with signed return addresses
        let signed = [
            0xd503_233f,
            0xa9bf_7bfd,
            0xd280_0200,
            0x9100_03fd,
            0x9400_0000,
            0x9000_0001,
            0xd348_2000,
            0xa8c1_7bfd,
            0xd503_23bf,
            0x3900_0020,
            0xd65f_03c0,
        ];
        assert!(is_of_compiler(&bytes(signed)));
        // It must ask for AT_HWCAP, for that bit, and do nothing else.
        for (index, word) in [(1, 0xd280_0340), (3, 0x5309_2400), (6, 0xb90d_4020), (7, 0x1400_0000)] {
            let mut other = wheel;
            other[index] = word;
            assert!(!is_of_compiler(&bytes(other)), "{index}");
        }
        assert!(!is_of_compiler(&bytes(wheel)[..28]));
    }

    #[test]
    fn recognises_the_function_of_rust() {
        // orjson: 1ee00; the last instruction is b 2d74c
        let code = [
            0xd000_0188,
            0xf940_3908,
            0xb400_0068,
            0x37f0_00e8,
            0xd65f_03c0,
            0xa9bf_7bfd,
            0x9100_03fd,
            0x97ff_bc0c,
            0xa8c1_7bfd,
            0x36f7_ff60,
            0x1400_3a49,
        ];
        assert_eq!(of_rust(&bytes(code), 0x1_ee00), Some(0x2_d74c));
        for index in 0..code.len() {
            let mut other = code;
            other[index] = 0xd503_201f;
            assert_eq!(of_rust(&bytes(other), 0x1_ee00), None, "{index}");
        }
        let store = [0xf000_0108, 0x5280_0029, 0x3906_e109, 0xd65f_03c0];
        assert!(stores_flag(&bytes(store)));
        assert!(!stores_flag(&bytes([0xf000_0108, 0x5280_0029, 0xf906_e109, 0xd65f_03c0])));
        assert!(!is_of_compiler(&bytes(code)));
        assert!(!is_setup(&ProcessMemory::own(), 8));
    }
}

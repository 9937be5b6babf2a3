//! Decides whether an object announces itself on musl: whether the first of its functions that the
//! loader calls does nothing before it calls `__register_frame_info`, and in which object that is.
//!
//! `crtbeginS.o` of a GCC that is built for musl gives nearly every object a function that calls
//! `__register_frame_info` if any object defines it (source: `libgcc/crtstuff.c`, `frame_dummy`).
//! It is the first entry of DT_INIT_ARRAY and `_init` does nothing, or, before GCC 10, `_init`
//! calls it first. The `_init` of an object with OpenSSL calls a function that [`crate::openssl`]
//! recognises, and functions that [`crate::lse_atomics`] recognises may come before the first entry
//! ([`Before`]). clang's `crtbeginS.o` has a function of the same purpose (source: LLVM,
//! `compiler-rt/lib/builtins/crtbegin.c`). If the slot in the GOT that this function tests holds
//! the address of *this library's* `__register_frame_info`, the object announces itself before
//! any of its constructors runs. [`crate::crti`] finds out the same of objects for glibc. Like
//! that module, this one only decodes instructions.

use crate::crti::{self, ENDBR64};
use crate::lse_atomics;
use crate::memory::ProcessMemory;
use crate::object::Dynamic;
use crate::openssl;
use crate::sys::Result;

/// Bytes of a function that are decoded.
const CODE_LEN: usize = 32;

/// Functions that find out what the processor can do that are skipped at most: an object that is
/// linked from parts of different origin has two.
const MAX_SETUPS: usize = 2;

/// `push %rax`, with which musl's `crti.o` begins `_init`.
const PUSH_RAX: &[u8] = &[0x50];
/// `pop %rax; ret`, with which musl's `crtn.o` ends it.
const POP_RAX_RET: &[u8] = &[0x58, 0xc3];

/// The first instructions of DT_INIT, which the loader calls before the entries of DT_INIT_ARRAY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Init {
    /// It does nothing.
    Empty,
    /// It begins by calling the function at this address, and does more.
    Calls(usize),
    /// It calls the function at this address, and does nothing else.
    CallsOnly(usize),
    /// It does something else.
    Other,
}

/// The code of an object that runs before it announces itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// There is none.
    Nothing,
    /// It runs a known function, which stores to the object's data and starts nothing.
    KnownCode,
}

/// Returns what the code of an object with that dynamic section does before it provably calls the
/// function at `callee` through its slot of `__register_frame_info`. `None` if it does something
/// else, or does not call it.
pub fn begins_by_calling(memory: &ProcessMemory, dynamic: &Dynamic, callee: usize) -> Result<Option<Before>> {
    let init = match dynamic.init {
        0 => Init::Empty,
        address => decode_init(&memory.read(address)?, address),
    };
    let (init, mut before) = match init {
        Init::CallsOnly(function) if openssl::is_cpuid_setup(memory, function) => (Init::Empty, Before::KnownCode),
        init => (init, Before::Nothing),
    };
    let first = match init {
        Init::Calls(function) | Init::CallsOnly(function) => function,
        Init::Empty => match first_of_array(memory, dynamic)? {
            Some((index, function)) => {
                if index != 0 {
                    before = Before::KnownCode;
                }
                function
            }
            None => return Ok(None),
        },
        Init::Other => return Ok(None),
    };
    let code = memory.read::<[u8; CODE_LEN]>(first)?;
    let slot = if cfg!(target_arch = "x86_64") {
        x86_64_slot(&code, first)
    } else if cfg!(target_arch = "aarch64") {
        crti::aarch64_slot(&code, first)
    } else {
        None
    };
    Ok(crti::holds(memory, slot, callee)?.then_some(before))
}

/// Returns the first function in DT_INIT_ARRAY that does more than find out what the processor can
/// do, with its index, if there is one among the first few.
fn first_of_array(memory: &ProcessMemory, dynamic: &Dynamic) -> Result<Option<(usize, usize)>> {
    for index in 0..(dynamic.init_array_size / size_of::<u64>()).min(MAX_SETUPS + 1) {
        let function = memory.read::<u64>(dynamic.init_array + index * size_of::<u64>())? as usize;
        if !(cfg!(target_arch = "aarch64") && lse_atomics::is_setup(memory, function)) {
            return Ok(Some((index, function)));
        }
    }
    Ok(None)
}

fn decode_init(code: &[u8; CODE_LEN], address: usize) -> Init {
    if cfg!(target_arch = "x86_64") {
        x86_64_init(code, address)
    } else if cfg!(target_arch = "aarch64") {
        aarch64_init(code)
    } else {
        Init::Other
    }
}

/// Decodes an `_init` of x86-64: `push %rax; [call]...; pop %rax; ret`.
fn x86_64_init(code: &[u8], address: usize) -> Init {
    const CALL: &[u8] = &[0xe8];
    let decoded = || {
        let rest = code.strip_prefix(PUSH_RAX)?;
        if rest.starts_with(POP_RAX_RET) {
            return Some(Init::Empty);
        }
        let (displacement, rest) = rest.strip_prefix(CALL)?.split_first_chunk::<4>()?;
        let next = address.checked_add(code.len() - rest.len())?;
        let function = next.checked_add_signed(i32::from_le_bytes(*displacement) as isize)?;
        Some(if rest.starts_with(POP_RAX_RET) { Init::CallsOnly(function) } else { Init::Calls(function) })
    };
    decoded().unwrap_or(Init::Other)
}

/// Decodes an `_init` of aarch64: `stp x29,x30,[sp,#-16]!; mov x29,sp; ldp x29,x30,[sp],#16; ret`.
fn aarch64_init(code: &[u8]) -> Init {
    const EMPTY: [u32; 4] = [0xa9bf_7bfd, 0x9100_03fd, 0xa8c1_7bfd, 0xd65f_03c0];
    if crti::words(code).take(EMPTY.len()).eq(EMPTY) { Init::Empty } else { Init::Other }
}

/// Returns the address of the slot that a function of x86-64 tests first: `[endbr64]; [cmpb
/// $0,flag(%rip); jne]; cmpq $0,slot(%rip)`. The flag, of clang's function, is 0 at the first
/// call.
fn x86_64_slot(code: &[u8], address: usize) -> Option<usize> {
    const CMPB_RIP: &[u8] = &[0x80, 0x3d];
    const CMPQ_RIP: &[u8] = &[0x48, 0x83, 0x3d];
    const JNE: u8 = 0x75;
    let rest = code.strip_prefix(ENDBR64).unwrap_or(code);
    let behind_flag = |rest: &'_ [u8]| {
        let (test, rest) = rest.strip_prefix(CMPB_RIP)?.split_first_chunk::<7>()?;
        matches!(test, [_, _, _, _, 0, JNE, _]).then_some(code.len() - rest.len())
    };
    let rest = match behind_flag(rest) {
        Some(at) => code.get(at..)?,
        None => rest,
    };
    let (test, rest) = rest.strip_prefix(CMPQ_RIP)?.split_first_chunk::<5>()?;
    let [first, second, third, fourth, 0] = *test else { return None };
    let next = address.checked_add(code.len() - rest.len())?;
    next.checked_add_signed(i32::from_le_bytes([first, second, third, fourth]) as isize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn musl_has_an_init_that_does_nothing() {
        assert_eq!(x86_64_init(&[0x50, 0x58, 0xc3], 0x1000), Init::Empty);
        let code = [0xfd, 0x7b, 0xbf, 0xa9, 0xfd, 0x03, 0, 0x91, 0xfd, 0x7b, 0xc1, 0xa8, 0xc0, 0x03, 0x5f, 0xd6];
        assert_eq!(aarch64_init(&code), Init::Empty);
    }

    #[test]
    fn gcc_9_calls_frame_dummy_in_init() {
        // 2000: push %rax; call 2380; call 5bff; pop %rax; ret
        let code = [0x50, 0xe8, 0x7a, 0x03, 0, 0, 0xe8, 0xf4, 0x3b, 0, 0, 0x58, 0xc3];
        assert_eq!(x86_64_init(&code, 0x2000), Init::Calls(0x2380));
    }

    #[test]
    fn an_init_with_openssl_calls_one_function() {
        // d6000: push %rax; call 6f5920; pop %rax; ret
        let code = [0x50, 0xe8, 0x1a, 0xf9, 0x61, 0, 0x58, 0xc3];
        assert_eq!(x86_64_init(&code, 0xd_6000), Init::CallsOnly(0x6f_5920));
    }

    #[test]
    fn another_init_is_no_proof() {
        assert_eq!(x86_64_init(&[0x48, 0x83, 0xec, 0x08, 0x48, 0x8b, 0x05], 0x1000), Init::Other);
        assert_eq!(x86_64_init(&[0x50, 0x55, 0x58, 0xc3], 0x1000), Init::Other);
        assert_eq!(aarch64_init(&[0xfd, 0x7b, 0xbf, 0xa9, 0xfd, 0x03, 0, 0x91, 0, 0, 0, 0x94]), Init::Other);
    }

    #[test]
    fn decodes_the_frame_dummy_of_gcc() {
        // 2380: cmpq $0,0x6c70(%rip) # 8ff8; je; push %rbp; lea; lea; mov; call
        let code = [0x48, 0x83, 0x3d, 0x70, 0x6c, 0, 0, 0, 0x74, 0x18, 0x55, 0x48, 0x8d, 0x35, 0xce, 0x6e, 0, 0];
        assert_eq!(x86_64_slot(&code, 0x2380), Some(0x8ff8));
        let marked = [ENDBR64, &code].concat();
        assert_eq!(x86_64_slot(&marked, 0x237c), Some(0x8ff8));
        // 2104: adrp x0,17000; ldr x0,[x0,#4088]; cbz x0,2130
        let code = [0xa0, 0, 0, 0xb0, 0, 0xfc, 0x47, 0xf9, 0x20, 0x01, 0, 0xb4];
        assert_eq!(crti::aarch64_slot(&code, 0x2104), Some(0x17ff8));
    }

    #[test]
    fn decodes_the_function_of_clang() {
        // 1000: cmpb $0,flag(%rip); jne; 1009: cmpq $0,0x2fef(%rip) # 4000; movb; je
        let code = [0x80, 0x3d, 0x10, 0, 0, 0, 0, 0x75, 0x27, 0x48, 0x83, 0x3d, 0xef, 0x2f, 0, 0, 0, 0xc6, 0x05];
        assert_eq!(x86_64_slot(&code, 0x1000), Some(0x4000));
    }

    #[test]
    fn another_function_is_no_proof() {
        assert_eq!(x86_64_slot(&[0x53, 0x48, 0x8d, 0x1d, 0, 0, 0, 0], 0x1000), None);
        assert_eq!(x86_64_slot(&[0x80, 0x3d, 0x10, 0, 0, 0, 1, 0x75, 0x27, 0x48, 0x83, 0x3d], 0x1000), None);
        assert_eq!(x86_64_slot(&[0x48, 0x83, 0x3d, 0x10, 0, 0], 0x1000), None);
    }
}

//! Recognises `OPENSSL_cpuid_setup`, which objects with OpenSSL for x86-64 call in `_init`, before
//! they announce themselves on musl (source: OpenSSL, `crypto/x86_64cpuid.pl`, `crypto/cpuid.c`).
//! The function asks the processor what it can do, reads an environment variable, and stores the
//! result in a variable of the object. It starts no thread, and nothing else that stores to memory
//! after it has returned.
//!
//! It is recognised by the name of that variable, whose address it loads as its first argument for
//! `getenv(3)` at its beginning. Its own name is not among an object's dynamic symbols.

use crate::memory::ProcessMemory;

/// Bytes of the function among which is the load of the address.
const CODE_LEN: usize = 64;

/// The name of the variable.
const VARIABLE: &[u8; 16] = b"OPENSSL_ia32cap\0";

/// Returns whether the function at this address is `OPENSSL_cpuid_setup`.
pub fn is_cpuid_setup(memory: &ProcessMemory, function: usize) -> bool {
    let Ok(code) = memory.read::<[u8; CODE_LEN]>(function) else { return false };
    first_arguments(&code, function).any(|argument| memory.read(argument) == Ok(*VARIABLE))
}

/// Returns the addresses of each `lea displacement(%rip),%rdi` in the code at `address`. Bytes
/// within another instruction may look like one, so the caller must look at what is there.
fn first_arguments(code: &[u8], address: usize) -> impl Iterator<Item = usize> {
    const LEA_RDI_RIP: [u8; 3] = [0x48, 0x8d, 0x3d];
    const LEN: usize = 7;
    code.windows(LEN).enumerate().filter_map(move |(at, window)| {
        let (displacement, _) = window.strip_prefix(&LEA_RDI_RIP)?.split_first_chunk::<4>()?;
        let next = address.checked_add(at)?.checked_add(LEN)?;
        next.checked_add_signed(i32::from_le_bytes(*displacement) as isize)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_argument() {
        // 6f592b: nopl; 6f5930: push %r15; lea 0x170d36(%rip),%rdi # 86666f; push %r14
        let code = [0x0f, 0x1f, 0x44, 0, 0, 0x41, 0x57, 0x48, 0x8d, 0x3d, 0x36, 0x0d, 0x17, 0, 0x41, 0x56];
        assert!(first_arguments(&code, 0x6f_592b).eq([0x86_666f]));
        assert_eq!(first_arguments(&code[..13], 0x6f_592b).next(), None);
        assert_eq!(first_arguments(&[0x48, 0x8d, 0x35, 0, 0, 0, 0], 0x1000).next(), None);
    }

    #[test]
    fn recognises_the_function_by_its_argument() {
        // A function and the strings that it refers to, 64 bytes behind it.
        let function = |variable: &[u8]| {
            let mut object = [0x90; 96];
            object[10..17].copy_from_slice(&[0x48, 0x8d, 0x3d, 47, 0, 0, 0]);
            object[64..64 + variable.len()].copy_from_slice(variable);
            is_cpuid_setup(&ProcessMemory::own(), (&raw const object).expose_provenance())
        };
        assert!(function(b"OPENSSL_ia32cap\0"));
        assert!(!function(b"OPENSSL_ia32capable\0"));
        assert!(!function(b"LD_LIBRARY_PATH\0"));
        assert!(!is_cpuid_setup(&ProcessMemory::own(), 8));
    }
}

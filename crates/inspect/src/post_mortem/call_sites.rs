//! Recognises return addresses on a stack: there is a call in front of each. Pointers to functions
//! are on stacks, too, and show nothing about who has called.

use crate::core_dump::DumpMachine;

/// Bytes in front of a return address that can belong to the call.
pub const LONGEST_CALL: usize = 7;

/// Returns whether these bytes can end with a call.
pub fn ends_with_call(machine: DumpMachine, code: [u8; LONGEST_CALL]) -> bool {
    match machine {
        DumpMachine::X86_64 => {
            // `call rel32`, or `call r/m64`: FF with 2 in the middle bits of the byte behind it, and as
            // many bytes more as its addressing needs.
            let is_indirect = |at: usize| match code.get(at..) {
                Some([0xff, modrm, rest @ ..]) if modrm >> 3 & 7 == 2 => operand(*modrm, rest) == Some(rest.len()),
                _ => false,
            };
            code[2] == 0xe8 || (0..6).any(is_indirect)
        }
        DumpMachine::Aarch64 => {
            let instruction = u32::from_le_bytes([code[3], code[4], code[5], code[6]]);
            // BL, BLR, and BLRAA to BLRABZ.
            instruction >> 26 == 0b10_0101
                || instruction & 0xffff_fc1f == 0xd63f_0000
                || instruction & 0xfeff_f800 == 0xd63f_0800
        }
    }
}

/// Returns the number of bytes that an operand takes behind its ModRM byte.
fn operand(modrm: u8, rest: &[u8]) -> Option<usize> {
    let (mode, register) = (modrm >> 6, modrm & 7);
    let sib = usize::from(mode != 3 && register == 4);
    let has_base = sib == 0 || rest.first()? & 7 != 5;
    Some(match mode {
        0 if register == 5 => 4,
        0 if has_base => sib,
        1 => sib + 1,
        0 | 2 => sib + 4,
        _ => 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_x86_64() {
        let is_call = |code: [u8; 7]| ends_with_call(DumpMachine::X86_64, code);
        assert!(is_call([0x90, 0x90, 0xe8, 1, 2, 3, 4]), "call rel32");
        assert!(is_call([0x90, 0x90, 0x90, 0x90, 0x90, 0xff, 0xd0]), "call *%rax");
        assert!(is_call([0x90, 0xff, 0x15, 1, 2, 3, 4]), "call *x(%rip)");
        assert!(is_call([0x90, 0x90, 0x90, 0x90, 0xff, 0x50, 0x18]), "call *24(%rax)");
        assert!(is_call([0xff, 0x94, 0xc3, 1, 2, 3, 4]), "call *x(%rbx,%rax,8)");
        assert!(is_call([0x90, 0x90, 0x90, 0x90, 0xff, 0x14, 0xc3]), "call *(%rbx,%rax,8)");
        assert!(!is_call([0x90; 7]) && !is_call([0x90, 0x90, 0x90, 0x90, 0x90, 0xff, 0xe0]), "jmp *%rax");
        assert!(!is_call([0x90, 0x90, 0x90, 0xff, 0xd0, 0x90, 0x90]), "not directly in front");
    }

    #[test]
    fn calls_of_aarch64() {
        let is_call = |instruction: u32| {
            let mut code = [0; 7];
            code[3..].copy_from_slice(&instruction.to_le_bytes());
            ends_with_call(DumpMachine::Aarch64, code)
        };
        assert!(is_call(0x9400_0010) && is_call(0xd63f_0020) && is_call(0xd73f_0a11), "bl, blr x1, blraa");
        assert!(!is_call(0x1400_0010) && !is_call(0xd61f_0020) && !is_call(0xd65f_03c0), "b, br x1, ret");
    }
}

//! The addresses of witness pages: above the stack.
//!
//! Profilers and debuggers that look a library up in `/proc/PID/maps` take the first mapping of
//! its name for its beginning (py-spy does), so the one page of the original file that stays
//! mapped must have a higher address than the object. There is seldom room between objects, and
//! the stack grows into the space below it. Above it are gigabytes that the kernel uses for
//! nothing but the vDSO, unless the address space is not randomised.

use crate::object::Span;

/// The vDSO is placed in the same 2 MiB as the top of the stack
/// (arch/x86/entry/vdso/vma.c).
const VDSO_AREA: usize = 2 << 20;
/// Gaps smaller than this are not used; the kernel then chooses the address.
const MIN_ROOM: usize = 64 << 20;

/// Returns the address to request from the kernel, given an address at the top of the stack. It
/// is different for each object, and as hard to guess as the object's own address. `None` if
/// there is little room.
pub fn place_for(object: Span, stack_top: usize, page: usize) -> Option<usize> {
    let start = stack_top.checked_next_multiple_of(VDSO_AREA)?;
    // The end of user space: a power of two, less one page that stays free.
    let end = stack_top.checked_next_power_of_two()?.checked_sub(page)?;
    let room = end.checked_sub(start)?;
    let room = 1 << room.checked_ilog2()?;
    (room >= MIN_ROOM).then_some(start + (object.start & (room - 1) & !(page - 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 4096;

    fn place(object: usize, stack_top: usize) -> Option<usize> {
        place_for(Span { start: object, end: object + PAGE }, stack_top, PAGE)
    }

    #[test]
    fn is_above_the_stack_and_within_user_space() {
        for stack_top in [0x7ffc_1234_5ff8, 0x7fff_0000_0000, 0x7ffd_ffff_fff8] {
            let place = place(0x7f12_3456_7000, stack_top).unwrap();
            assert!(place > stack_top && place < 0x7fff_ffff_e000 && place.is_multiple_of(PAGE));
        }
    }

    #[test]
    fn is_another_for_every_object() {
        let libraries: std::vec::Vec<_> =
            (0..1000).map(|n| place(0x7f12_3456_7000 + n * PAGE, 0x7ffc_1234_5ff8)).collect();
        assert!(libraries.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn address_spaces_of_39_and_48_bits_have_room_too() {
        assert_eq!(place(0x55_5555_4000, 0x7f_c000_0000).unwrap() >> 30, 0x7f_c000_0000_usize >> 30);
        assert!(place(0xaaaa_5555_4000, 0xfffc_1234_5ff8).unwrap() < 0xffff_ffff_f000);
    }

    #[test]
    fn is_none_without_randomisation() {
        assert_eq!(place(0x7f12_3456_7000, 0x7fff_ffff_eff8), None);
        assert_eq!(place(0x7f12_3456_7000, 0), None);
    }
}

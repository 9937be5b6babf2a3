//! What processors of aarch64 can do.

use crate::vmas::Protection;

/// `PROT_BTI` (`arch/arm64/include/uapi/asm/mman.h`)
const PROT_BTI: Protection = 0x10;
/// `HWCAP2_BTI` (`arch/arm64/include/uapi/asm/hwcap.h`)
const HWCAP2_BTI: u64 = 1 << 17;

/// Returns the protection of an executable range whose indirect branch targets the
/// processor checks; `None` if it does not.
pub fn branch_target_bits() -> Option<Protection> {
    // SAFETY: getauxval only reads the process's auxiliary vector.
    let capabilities = unsafe { libc::getauxval(libc::AT_HWCAP2) };
    (capabilities & HWCAP2_BTI != 0).then_some(PROT_BTI)
}

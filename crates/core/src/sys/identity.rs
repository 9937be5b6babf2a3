//! The user and group ids and the capabilities of the calling thread.

use super::{Result, raw};

/// The real, effective and saved id of a user or group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    /// Real id.
    pub real: u32,
    /// Effective id.
    pub effective: u32,
    /// Saved set-id.
    pub saved: u32,
}

impl Ids {
    /// Returns the id if all three are the same.
    pub fn single(&self) -> Option<u32> {
        (self.real == self.effective && self.effective == self.saved).then_some(self.effective)
    }
}

/// Calls `getresuid(2)`.
pub fn user_ids() -> Result<Ids> {
    let mut ids = Ids::default();
    let (real, effective, saved) = (&raw mut ids.real, &raw mut ids.effective, &raw mut ids.saved);
    // SAFETY: the kernel writes three words of 32 bits, to three live locals.
    unsafe { raw!(libc::SYS_getresuid, real, effective, saved) }?;
    Ok(ids)
}

/// Calls `getresgid(2)`.
pub fn group_ids() -> Result<Ids> {
    let mut ids = Ids::default();
    let (real, effective, saved) = (&raw mut ids.real, &raw mut ids.effective, &raw mut ids.saved);
    // SAFETY: the kernel writes three words of 32 bits, to three live locals.
    unsafe { raw!(libc::SYS_getresgid, real, effective, saved) }?;
    Ok(ids)
}

/// Returns whether the kernel permits processes of the same user to trace this one
/// (`PR_GET_DUMPABLE` of `prctl(2)`). It does not after this process has changed its user or
/// has called `prctl(PR_SET_DUMPABLE, 0)`.
pub fn is_dumpable() -> Result<bool> {
    // SAFETY: this request touches no memory.
    let dumpable = unsafe { raw!(libc::SYS_prctl, libc::PR_GET_DUMPABLE, 0, 0, 0, 0) }?;
    Ok(dumpable == 1)
}

/// Sets of capabilities, a bit for each (`capabilities(7)`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// In force.
    pub effective: u64,
    /// What may be made effective. Effective and ambient ones are among them.
    pub permitted: u64,
}

/// Calls `capget(2)` for the calling thread.
pub fn capabilities() -> Result<Capabilities> {
    const VERSION_3: u32 = 0x2008_0522;
    let mut header = [VERSION_3, 0];
    // Effective, permitted and inheritable ones: the lower half of each, then the upper.
    let mut data = [[0_u32; 3]; 2];
    // SAFETY: the header is a live local, and `data` has room for the two structs that the
    // kernel writes for version 3.
    unsafe { raw!(libc::SYS_capget, header.as_mut_ptr(), data.as_mut_ptr()) }?;
    let [[effective, permitted, _], [effective_high, permitted_high, _]] = data;
    let join = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
    Ok(Capabilities { effective: join(effective, effective_high), permitted: join(permitted, permitted_high) })
}

//! Who the calling thread is: its user and group ids and its capabilities.

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
    /// The one id, if all three are the same.
    pub fn single(&self) -> Option<u32> {
        (self.real == self.effective && self.effective == self.saved).then_some(self.effective)
    }
}

/// `getresuid(2)`.
pub fn user_ids() -> Result<Ids> {
    let mut ids = Ids::default();
    let (real, effective, saved) = (&raw mut ids.real, &raw mut ids.effective, &raw mut ids.saved);
    // SAFETY: the kernel fills three live words.
    unsafe { raw!(libc::SYS_getresuid, real, effective, saved) }?;
    Ok(ids)
}

/// `getresgid(2)`.
pub fn group_ids() -> Result<Ids> {
    let mut ids = Ids::default();
    let (real, effective, saved) = (&raw mut ids.real, &raw mut ids.effective, &raw mut ids.saved);
    // SAFETY: the kernel fills three live words.
    unsafe { raw!(libc::SYS_getresgid, real, effective, saved) }?;
    Ok(ids)
}

/// Sets of capabilities, a bit for each (`capabilities(7)`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// In force.
    pub effective: u64,
    /// What may be made effective. Effective and ambient ones are among them.
    pub permitted: u64,
}

/// `capget(2)` of the calling thread.
pub fn capabilities() -> Result<Capabilities> {
    const VERSION_3: u32 = 0x2008_0522;
    let mut header = [VERSION_3, 0];
    // Effective, permitted and inheritable ones: the lower half of each, then the upper.
    let mut data = [[0_u32; 3]; 2];
    // SAFETY: a live header, and room for the two structs of version 3.
    unsafe { raw!(libc::SYS_capget, header.as_mut_ptr(), data.as_mut_ptr()) }?;
    let [[effective, permitted, _], [effective_high, permitted_high, _]] = data;
    let join = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
    Ok(Capabilities { effective: join(effective, effective_high), permitted: join(permitted, permitted_high) })
}

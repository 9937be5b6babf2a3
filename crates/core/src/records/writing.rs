//! The code for a writer outside the process, while all of its threads have stopped.

use core::mem::offset_of;

use super::{Reached, Record};

impl Record {
    /// Sets that another process has pinned the object: so many bytes of it, to this level. `witness`
    /// is the address of a page that maps its original file, if that process has mapped one.
    pub fn set_pinned(&mut self, reached: Reached, bytes: u64, witness: Option<u64>) {
        self.set_reached(reached);
        self.set_cause(None);
        self.bytes += bytes;
        self.witness = witness.filter(|_| self.witness == 0).unwrap_or(self.witness);
    }

    /// Returns the bytes of the record, which [`Record::decode`] decodes.
    pub fn encode(&self) -> [u8; size_of::<Self>()] {
        let mut bytes = [0; size_of::<Self>()];
        let mut put = |offset: usize, field: &[u8]| {
            for (to, from) in bytes.iter_mut().skip(offset).zip(field) {
                *to = *from;
            }
        };
        put(offset_of!(Self, headers), &self.headers.to_ne_bytes());
        put(offset_of!(Self, base), &self.base.to_ne_bytes());
        put(offset_of!(Self, name), &self.name.to_ne_bytes());
        put(offset_of!(Self, start), &self.start.to_ne_bytes());
        put(offset_of!(Self, end), &self.end.to_ne_bytes());
        put(offset_of!(Self, witness), &self.witness.to_ne_bytes());
        put(offset_of!(Self, bytes), &self.bytes.to_ne_bytes());
        put(offset_of!(Self, operation), &self.operation.to_ne_bytes());
        put(offset_of!(Self, reason), &self.reason.to_ne_bytes());
        put(offset_of!(Self, errno), &self.errno.to_ne_bytes());
        put(offset_of!(Self, operation_len), &[self.operation_len]);
        put(offset_of!(Self, reason_len), &[self.reason_len]);
        put(offset_of!(Self, reached), &[self.reached]);
        put(offset_of!(Self, in_other_namespace), &[self.in_other_namespace]);
        bytes
    }
}

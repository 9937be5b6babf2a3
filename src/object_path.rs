//! The path of one object, as a value that borrows the buffer into which it was read. So no
//! other path can be read into that buffer while the value is in use.

use core::ffi::CStr;

use sopin_core::line::Text;
use sopin_core::memory::ProcessMemory;
use sopin_core::object::file_name;
use sopin_core::vmas::Maps;

use crate::loader::Loaded;

/// Room for the longest path that the kernel accepts, with its NUL. It is too large for the
/// host's stack, which may be small.
pub type PathRoom = [u8; libc::PATH_MAX as usize];

/// The path of an object's file, or a name that stands for it in messages.
#[derive(Clone, Copy)]
pub struct ObjectPath<'a> {
    /// The bytes of the path and the NUL behind them.
    terminated: &'a [u8],
}

impl<'a> ObjectPath<'a> {
    /// Reads the path of the file that is mapped at `address` into `buffer`. If it cannot be
    /// read there, the loader's name stands for it.
    pub fn mapped_at(
        address: usize,
        maps: &mut Maps,
        memory: &ProcessMemory,
        loaded: &Loaded,
        buffer: &'a mut [u8],
    ) -> Self {
        let room = buffer.len().saturating_sub(1);
        let room = buffer.get_mut(..room).unwrap_or_default();
        let len = match maps.path_at(address, room) {
            Ok(path) if !path.is_empty() => path.len(),
            _ => read_loader_name(memory, loaded, room),
        };
        Self::terminate(buffer, len)
    }

    /// Reads the loader's name of an object into `buffer`.
    pub fn named_by_loader(memory: &ProcessMemory, loaded: &Loaded, buffer: &'a mut [u8]) -> Self {
        let len = read_loader_name(memory, loaded, buffer);
        Self::terminate(buffer, len)
    }

    /// Writes words for the objects that were loaded together with `root` into `buffer`. There is
    /// no `root` if the loader's list could not be read.
    pub fn of_group(memory: &ProcessMemory, root: Option<&Loaded>, buffer: &'a mut [u8]) -> Self {
        let len = root.map(|loaded| read_loader_name(memory, loaded, buffer));
        let all = if len.is_some() { &b" and the objects just loaded with it"[..] } else { b"the objects just loaded" };
        let rest = buffer.get_mut(len.unwrap_or(0)..).unwrap_or_default();
        let len = len.unwrap_or(0) + copy_name(all, rest);
        Self::terminate(buffer, len)
    }

    /// Ends a name of `len` bytes with a NUL. If it fills the buffer, its last byte is cut.
    fn terminate(buffer: &'a mut [u8], len: usize) -> Self {
        let len = len.min(buffer.len().saturating_sub(1));
        if let Some(end) = buffer.get_mut(len) {
            *end = 0;
        }
        Self { terminated: buffer.get(..=len).unwrap_or_default() }
    }

    /// Returns a path that was kept, by [`ObjectPath::terminated`].
    pub const fn kept(terminated: &'a [u8]) -> Self {
        Self { terminated }
    }

    /// Returns the bytes of the path and the NUL behind them.
    pub const fn terminated(self) -> &'a [u8] {
        self.terminated
    }

    /// Returns the bytes of the path.
    pub fn as_bytes(self) -> &'a [u8] {
        self.terminated.split_last().map_or(&[], |(_, path)| path)
    }

    /// Returns the path as a C string.
    pub fn as_c_str(self) -> &'a CStr {
        CStr::from_bytes_until_nul(self.terminated).unwrap_or_default()
    }

    /// Returns the path for messages.
    pub fn text(self) -> Text<'a> {
        Text(self.as_bytes())
    }

    /// Returns the part of the path behind the last slash.
    pub fn file_name(self) -> &'a [u8] {
        file_name(self.as_bytes())
    }

    /// Returns the path without the suffix that `/proc/PID/maps` appends for an unlinked file.
    pub fn without_deleted(self) -> &'a [u8] {
        without_deleted(self.as_bytes())
    }
}

/// Returns `path` without the suffix that `/proc/PID/maps` appends for an unlinked file.
pub fn without_deleted(path: &[u8]) -> &[u8] {
    path.strip_suffix(b" (deleted)").unwrap_or(path)
}

/// Reads the loader's name of an object into `buffer`; returns its length. Words stand for the
/// executable, whose name is empty in the loader's list, and for a name that cannot be read.
fn read_loader_name(memory: &ProcessMemory, loaded: &Loaded, buffer: &mut [u8]) -> usize {
    match memory.read_string(loaded.name, buffer) {
        Ok(name) if !name.is_empty() => name.len(),
        Ok(_) => copy_name(b"the executable", buffer),
        Err(_) => copy_name(b"an object whose name cannot be read", buffer),
    }
}

/// Copies as much of a name into `buffer` as fits; returns the number of bytes.
fn copy_name(name: &[u8], buffer: &mut [u8]) -> usize {
    buffer.iter_mut().zip(name).map(|(slot, byte)| *slot = *byte).count()
}

//! Links a copy to the directory with its origin's separate debugging information. Debuggers
//! look for the file that the section `.gnu_debuglink` names beside the file that is mapped, in
//! `.debug` below that, and by its directory in `/usr/lib/debug`. The mapped file is the copy,
//! so an entry has a link, [`DEBUG`], to the directory in which debuggers would find the
//! debugging information for the origin.
//!
//! Debuggers find the files that distributions package by build-id below
//! `/usr/lib/debug/.build-id` and need no link for those. So no link is made to a directory
//! that does not have the file.

use core::ffi::CStr;

use sopin_core::object::file_name;
use sopin_core::pages::PageVec;
use sopin_core::sys::{self, Fd};

/// The file name of the link.
pub const DEBUG: &CStr = c".debug";

const SECTION: &[u8] = b".gnu_debuglink\0";
/// Bytes of section headers, and of their names, that are read.
const ROOM: usize = 16 << 10;

/// Makes the link in the entry's `directory`, if a directory has the debugging information.
pub fn make(directory: &Fd, copy: &Fd, origin: &CStr) {
    if let Some(target) = find(copy, origin)
        && let Ok(target) = CStr::from_bytes_with_nul(&target)
    {
        // Another process that adds the same entry may have been first.
        let _ = sys::symlinkat(target, directory, DEBUG);
    }
}

/// Returns the path of the directory that has the debugging information of `origin`, with a
/// NUL.
fn find(copy: &Fd, origin: &CStr) -> Option<PageVec<u8>> {
    let mut headers = PageVec::zeroed(ROOM).ok()?;
    let mut content = [0; 256];
    let name = CStr::from_bytes_until_nul(read_section(copy, &mut headers, &mut content)?).ok()?;
    let name = name.to_bytes();
    if name.is_empty() || name.contains(&b'/') {
        return None;
    }
    let path = origin.to_bytes();
    let parent = path.strip_suffix(file_name(path))?.strip_suffix(b"/")?;
    // An object that names itself contains its debugging information.
    let places = [(&b""[..], &b""[..]), (b"", b"/.debug"), (b"/usr/lib/debug", b"")];
    let is_own = |place: usize| place == 0 && name == file_name(path);
    places.iter().enumerate().filter(|(place, _)| !is_own(*place)).find_map(|(_, (before, behind))| {
        let mut file = PageVec::new();
        for part in [before, parent, behind, b"/", name, b"\0"] {
            file.extend(part).ok()?;
        }
        sys::stat(CStr::from_bytes_with_nul(&file).ok()?).ok()?;
        file.truncate(before.len() + parent.len() + behind.len());
        if file.is_empty() {
            file.push(b'/').ok()?;
        }
        file.push(0).ok()?;
        Some(file)
    })
}

/// Reads the section of that name from an ELF file (`elf(5)`).
fn read_section<'a>(file: &Fd, headers: &mut [u8], content: &'a mut [u8]) -> Option<&'a [u8]> {
    let mut start = [0; size_of::<libc::Elf64_Ehdr>()];
    sys::pread_all(file, &mut start, 0).ok().filter(|read| read.starts_with(b"\x7fELF\x02"))?;
    let half = |bytes: &[u8], at: usize| Some(usize::from(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?)));
    let word = |bytes: &[u8], at: usize| Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let (offset, size) = (word(&start, 40)?, half(&start, 58)?);
    let (count, names) = (half(&start, 60)?, half(&start, 62)?);
    if size != size_of::<libc::Elf64_Shdr>() || count * size > headers.len() / 2 {
        return None;
    }
    let (headers, text) = headers.split_at_mut_checked(count * size)?;
    let headers = sys::pread_all(file, headers, offset).ok()?;
    let place = |header: &[u8]| Some((word(header, 24)?, usize::try_from(word(header, 32)?).ok()?));
    let (offset, len) = place(headers.get(names * size..)?)?;
    let text = sys::pread_all(file, text.get_mut(..len)?, offset).ok()?;
    let is_it = |header: &&[u8]| {
        let name = header.first_chunk().map(|name| u32::from_ne_bytes(*name) as usize);
        name.and_then(|name| text.get(name..)).is_some_and(|name| name.starts_with(SECTION))
    };
    let (offset, len) = place(headers.chunks_exact(size).find(is_it)?)?;
    sys::pread_all(file, content.get_mut(..len)?, offset).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "makes files")]
    fn a_file_that_is_not_an_object_has_no_names() {
        let file = sys::memfd_create(c"test").unwrap();
        for content in [&b""[..], b"\x7fELF\x02", &[0xff; 4096]] {
            sys::pwrite_from(&file, content.as_ptr().addr(), content.len(), 0).unwrap();
            assert!(find(&file, c"/usr/lib/libfoo.so").is_none());
        }
    }
}

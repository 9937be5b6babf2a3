//! The mappings of this process.
//!
//! It uses the first of two interfaces that works: the `PROCMAP_QUERY` ioctl (Linux 6.11,
//! `include/uapi/linux/fs.h`), which looks one VMA up in a fraction of a microsecond, and the
//! text of `/proc/PID/maps` (`proc_pid_maps(5)`), parsed once for a sweep. This module and
//! [`crate::memory`] are the only ones that read memory which this crate did not allocate.

use crate::object::Span;
use crate::pages::{PageVec, read_whole};
use crate::sys::{self, Errno, Fd, Result};

/// `PROT_READ`, `PROT_WRITE` and `PROT_EXEC` of a VMA.
pub type Protection = i32;

/// The file that a VMA maps, in the numbers that the kernel shows in
/// `/proc/PID/maps`. Overlayfs and btrfs may show other numbers in `stat(2)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileId {
    /// Major and minor device number.
    pub device: (u32, u32),
    /// Inode number.
    pub inode: u64,
}

/// One mapping of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vma {
    /// The pages.
    pub span: Span,
    /// What accesses are allowed.
    pub protection: Protection,
    /// `MAP_SHARED`.
    pub is_shared: bool,
    /// Offset in the file of the first byte.
    pub offset: u64,
    /// The file.
    pub file: FileId,
}

impl Vma {
    /// Returns whether loads are allowed.
    pub fn is_readable(&self) -> bool {
        self.protection & libc::PROT_READ != 0
    }

    /// Returns whether stores are allowed.
    pub fn is_writable(&self) -> bool {
        self.protection & libc::PROT_WRITE != 0
    }

    /// Returns whether execution is allowed.
    pub fn is_executable(&self) -> bool {
        self.protection & libc::PROT_EXEC != 0
    }
}

/// The argument of `PROCMAP_QUERY`.
#[repr(C)]
#[derive(Default)]
struct ProcmapQuery {
    size: u64,
    query_flags: u64,
    query_addr: u64,
    vma_start: u64,
    vma_end: u64,
    vma_flags: u64,
    vma_page_size: u64,
    vma_offset: u64,
    inode: u64,
    dev_major: u32,
    dev_minor: u32,
    vma_name_size: u32,
    build_id_size: u32,
    vma_name_addr: u64,
    build_id_addr: u64,
}

const QUERY_SHARED: u64 = 0x08;
const QUERY_COVERING_OR_NEXT: u64 = 0x10;
const QUERY_FILE_BACKED: u64 = 0x20;

/// A line of the text that is about a file.
#[derive(Clone, Copy)]
struct TextLine {
    vma: Vma,
    /// Start and end of the path in the text, in which the kernel has escaped some characters.
    path: (u32, u32),
}

enum Interface {
    Query,
    Text { text: PageVec<u8>, entries: PageVec<TextLine> },
}

/// The mappings of this process. Holds a descriptor: made for one sweep.
pub struct Maps {
    file: Fd,
    interface: Interface,
}

impl Maps {
    /// Opens the mappings of this process.
    pub fn open() -> Result<Self> {
        let file = sys::open_own_proc_file(c"/proc/self/maps", c"/proc/thread-self/maps")?;
        Ok(Self { file, interface: Interface::Query })
    }

    /// Discards what was read before the mappings were changed.
    pub fn refresh(&mut self) -> Result<()> {
        match self.interface {
            Interface::Query => Ok(()),
            Interface::Text { .. } => self.reread(),
        }
    }

    /// Replaces `found` by the file-backed VMAs that lie in `span`, cut to it.
    pub fn file_backed_in(&mut self, span: Span, found: &mut PageVec<Vma>) -> Result<()> {
        found.clear();
        let mut address = span.start;
        while address < span.end {
            let Some(vma) = self.file_backed_at_or_after(address)? else { break };
            if vma.span.start >= span.end {
                break;
            }
            found.push(cut(&vma, &span))?;
            address = vma.span.end;
        }
        Ok(())
    }

    /// Returns the file-backed VMA that contains `address`.
    pub fn file_backed_at(&mut self, address: usize) -> Result<Option<Vma>> {
        Ok(self.file_backed_at_or_after(address)?.filter(|vma| vma.span.contains(address)))
    }

    /// Returns the path of the file mapped at `address`, as `/proc/PID/maps` shows it:
    /// absolute, with " (deleted)" behind the path of an unlinked file.
    pub fn path_at<'a>(&mut self, address: usize, buffer: &'a mut [u8]) -> Result<&'a [u8]> {
        if matches!(self.interface, Interface::Query) {
            match self.query(address, 0, Some(&mut *buffer)) {
                Ok(answer) => {
                    let len = (answer.vma_name_size as usize).saturating_sub(1);
                    return Ok(buffer.get(..len).unwrap_or_default());
                }
                Err(error @ Errno(libc::ENOENT | libc::ENAMETOOLONG)) => return Err(error),
                Err(_) => self.reread()?,
            }
        }
        match &self.interface {
            Interface::Query => Err(Errno(libc::ENOENT)),
            Interface::Text { text, entries } => {
                let entry = entries.iter().find(|entry| entry.vma.span.contains(address)).ok_or(Errno(libc::ENOENT))?;
                let (start, end) = entry.path;
                unescape(text.get(start as usize..end as usize).unwrap_or_default(), buffer)
            }
        }
    }

    /// Returns the file-backed VMA that contains `address`, or the next one.
    pub fn file_backed_at_or_after(&mut self, address: usize) -> Result<Option<Vma>> {
        if matches!(self.interface, Interface::Query) {
            match self.query(address, QUERY_COVERING_OR_NEXT | QUERY_FILE_BACKED, None) {
                Ok(answer) => return Ok(Some(vma_of_answer(&answer))),
                Err(Errno(libc::ENOENT)) => return Ok(None),
                // ENOTTY of older kernels, EPERM and others of filters.
                Err(_) => self.reread()?,
            }
        }
        match &self.interface {
            Interface::Query => Ok(None),
            Interface::Text { entries, .. } => {
                let first = entries.partition_point(|entry| entry.vma.span.end <= address);
                let rest = entries.get(first..).unwrap_or_default();
                Ok(rest.iter().map(|entry| entry.vma).find(|vma| vma.file.inode != 0))
            }
        }
    }

    /// Asks the kernel for the VMA at `address`, with its name in `name`.
    fn query(&self, address: usize, flags: u64, name: Option<&mut [u8]>) -> Result<ProcmapQuery> {
        let mut argument = ProcmapQuery {
            size: size_of::<ProcmapQuery>() as u64,
            query_flags: flags,
            query_addr: address as u64,
            ..ProcmapQuery::default()
        };
        if let Some(name) = name {
            argument.vma_name_size = u32::try_from(name.len()).unwrap_or(u32::MAX);
            argument.vma_name_addr = name.as_mut_ptr().addr() as u64;
        }
        // SAFETY: PROCMAP_QUERY reads and writes a `struct procmap_query`, which is what
        // ProcmapQuery is, and writes at most the stated size to the name buffer, which is live
        // and has that size.
        unsafe { sys::ioctl(&self.file, sys::PROCMAP_QUERY, &mut argument) }?;
        Ok(argument)
    }

    /// Reads and parses the text.
    fn reread(&mut self) -> Result<()> {
        self.interface = parse(read_whole(&self.file)?)?;
        Ok(())
    }
}

/// Returns the lines of the text that are of the known form.
fn parse(text: PageVec<u8>) -> Result<Interface> {
    let mut entries = PageVec::new();
    let mut start = 0;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        if let Some((vma, path)) = parse_line(line.strip_suffix(b"\n").unwrap_or(line)) {
            let path_start = start + path;
            let path_end = start + line.len() - usize::from(line.ends_with(b"\n"));
            entries.push(TextLine { vma, path: (path_start as u32, path_end as u32) })?;
        }
        start += line.len();
    }
    Ok(Interface::Text { text, entries })
}

#[cfg(test)]
impl Maps {
    /// Mappings as this text has them.
    pub(crate) fn of_text(text: &[u8]) -> Self {
        let mut copy = PageVec::new();
        copy.extend(text).unwrap();
        // Nothing is read from the file again unless the maps are refreshed.
        Self { file: Fd::CWD, interface: parse(copy).unwrap() }
    }
}

fn cut(vma: &Vma, span: &Span) -> Vma {
    let cut = vma.span.intersection(span);
    Vma { span: cut, offset: vma.offset + (cut.start - vma.span.start) as u64, ..*vma }
}

fn vma_of_answer(answer: &ProcmapQuery) -> Vma {
    Vma {
        span: Span { start: answer.vma_start as usize, end: answer.vma_end as usize },
        // PROCMAP_QUERY_VMA_READABLE, _WRITABLE and _EXECUTABLE are PROT_*.
        protection: (answer.vma_flags & 7) as Protection,
        is_shared: answer.vma_flags & QUERY_SHARED != 0,
        offset: answer.vma_offset,
        file: FileId { device: (answer.dev_major, answer.dev_minor), inode: answer.inode },
    }
}

/// Parses `start-end rwxp offset major:minor inode   path`; the VMA and where
/// in the line the path begins. `None` for anything else.
pub fn parse_line(line: &[u8]) -> Option<(Vma, usize)> {
    let (start, rest) = number(line, 16, b'-')?;
    let (end, rest) = number(rest, 16, b' ')?;
    let (flags, rest) = rest.split_first_chunk::<5>()?;
    let (offset, rest) = number(rest, 16, b' ')?;
    let (major, rest) = number(rest, 16, b':')?;
    let (minor, rest) = number(rest, 16, b' ')?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (inode, path) = rest.split_at_checked(digits)?;
    let inode = core::str::from_utf8(inode).ok()?.parse().ok()?;
    let path = path.iter().position(|byte| *byte != b' ').unwrap_or(path.len());
    let has = |index: usize, letter: u8, bit: i32| if flags.get(index) == Some(&letter) { bit } else { 0 };
    let vma = Vma {
        span: Span { start: start as usize, end: end as usize },
        protection: has(0, b'r', libc::PROT_READ) | has(1, b'w', libc::PROT_WRITE) | has(2, b'x', libc::PROT_EXEC),
        is_shared: flags.get(3) == Some(&b's'),
        offset,
        file: FileId { device: (u32::try_from(major).ok()?, u32::try_from(minor).ok()?), inode },
    };
    (start < end).then_some((vma, line.len() - rest.len() + digits + path))
}

/// Returns a number in `radix` up to `separator`, and what follows the separator.
fn number(text: &[u8], radix: u32, separator: u8) -> Option<(u64, &[u8])> {
    let end = text.iter().position(|byte| *byte == separator)?;
    let digits = core::str::from_utf8(text.get(..end)?).ok()?;
    if digits.starts_with('+') {
        return None;
    }
    Some((u64::from_str_radix(digits, radix).ok()?, text.get(end + 1..)?))
}

/// Undoes the octal escapes of the kernel's `seq_path` (it escapes newlines).
pub fn unescape<'a>(path: &[u8], buffer: &'a mut [u8]) -> Result<&'a [u8]> {
    let mut rest = path;
    let mut len = 0;
    while let Some((first, tail)) = rest.split_first() {
        let escaped =
            tail.first_chunk::<3>().filter(|digits| *first == b'\\' && digits.iter().all(|d| matches!(d, b'0'..=b'7')));
        let byte = if let Some(digits) = escaped {
            rest = tail.get(3..).unwrap_or_default();
            digits.iter().fold(0_u8, |value, digit| value.wrapping_mul(8).wrapping_add(digit - b'0'))
        } else {
            rest = tail;
            *first
        };
        *buffer.get_mut(len).ok_or(Errno(libc::ENAMETOOLONG))? = byte;
        len += 1;
    }
    Ok(buffer.get(..len).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maps_by_text() -> Maps {
        let mut maps = Maps::open().unwrap();
        maps.reread().unwrap();
        maps
    }

    #[test]
    fn the_ioctl_has_the_number_of_the_kernel_header() {
        assert_eq!(sys::PROCMAP_QUERY, 0xc000_0000 | (size_of::<ProcmapQuery>() as u64) << 16 | 0x66 << 8 | 0x11);
    }

    #[test]
    fn parses_a_line_of_proc_maps() {
        let line = b"7f0c1a000000-7f0c1a002000 r-xp 00001000 08:1f 1234567                    /usr/lib/a b.so";
        let (vma, path) = parse_line(line).unwrap();
        assert_eq!(vma.span, Span { start: 0x7f0c_1a00_0000, end: 0x7f0c_1a00_2000 });
        assert_eq!(vma.protection, libc::PROT_READ | libc::PROT_EXEC);
        assert!(!vma.is_shared && !vma.is_writable());
        assert_eq!((vma.offset, vma.file.device, vma.file.inode), (0x1000, (8, 0x1f), 1_234_567));
        assert_eq!(&line[path..], b"/usr/lib/a b.so");
    }

    #[test]
    fn parses_a_line_without_a_path() {
        let (vma, path) = parse_line(b"1000-2000 rw-s 00000000 00:00 0 ").unwrap();
        assert!(vma.is_shared && vma.is_writable() && vma.file == FileId::default());
        assert_eq!(path, 32);
    }

    #[test]
    fn refuses_what_is_no_line_of_proc_maps() {
        for line in ["", "-", "1000-2000", "2000-1000 r--p 0 0:0 0 ", "+10-2000 r--p 0 0:0 0 ", "1-2 r--p 0 0:0 x"] {
            assert!(parse_line(line.as_bytes()).is_none(), "{line}");
        }
    }

    #[test]
    fn octal_escapes_are_decoded() {
        let mut buffer = [0; 16];
        assert_eq!(unescape(b"/a\\012b\\", &mut buffer), Ok(&b"/a\nb\\"[..]));
        assert_eq!(unescape(&[b'x'; 17], &mut buffer), Err(Errno(libc::ENAMETOOLONG)));
    }

    #[test]
    #[cfg_attr(miri, ignore = "reads /proc/self/maps")]
    fn both_sources_see_the_same() {
        let here = both_sources_see_the_same as *const () as usize;
        let everything = Span { start: 0, end: 1 << 47 };
        let mut answers: [PageVec<Vma>; 2] = [PageVec::new(), PageVec::new()];
        let mut names = [[0; 4096]; 2];
        let mut paths: [&[u8]; 2] = [&[], &[]];
        let sources = [Maps::open().unwrap(), maps_by_text()];
        for (((mut maps, answer), name), path) in sources.into_iter().zip(&mut answers).zip(&mut names).zip(&mut paths)
        {
            let vma = maps.file_backed_at(here).unwrap().unwrap();
            assert_eq!(vma.protection, libc::PROT_READ | libc::PROT_EXEC);
            maps.file_backed_in(vma.span, answer).unwrap();
            assert_eq!(**answer, [vma]);
            let lower_half = Span { start: vma.span.start, end: here & !0xfff };
            maps.file_backed_in(lower_half, answer).unwrap();
            *path = maps.path_at(here, name).unwrap();
        }
        assert_eq!(*answers[0], *answers[1]);
        assert_eq!(paths[0], paths[1]);
        assert_eq!(std::path::Path::new(std::str::from_utf8(paths[0]).unwrap()), std::env::current_exe().unwrap());
        let mut maps = maps_by_text();
        maps.file_backed_in(everything, &mut answers[0]).unwrap();
        assert!(answers[0].len() > 8);
        assert_eq!(maps.file_backed_at(8), Ok(None));
    }
}

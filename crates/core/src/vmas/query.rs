//! The `PROCMAP_QUERY` ioctl of `/proc/PID/maps` (Linux 6.11, `include/uapi/linux/fs.h`). Once a
//! kernel has refused it as unknown, it is not made any more.

use core::sync::atomic::{AtomicBool, Ordering};

use super::{FileId, Protection, Vma};
use crate::object::Span;
use crate::sys::{self, Errno, Fd, Result};

/// The argument of `PROCMAP_QUERY`.
#[repr(C)]
#[derive(Default)]
pub struct ProcmapQuery {
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

const SHARED: u64 = 0x08;
const COVERING_OR_NEXT: u64 = 0x10;
const FILE_BACKED: u64 = 0x20;

/// Returns the VMA of a file that contains `address`, or the next one. `ENOENT` if there is none.
pub fn file_backed_at_or_after(maps: &Fd, address: usize) -> Result<Vma> {
    let answer = ask(maps, address, COVERING_OR_NEXT | FILE_BACKED, None)?;
    Ok(Vma {
        span: Span { start: answer.vma_start as usize, end: answer.vma_end as usize },
        // PROCMAP_QUERY_VMA_READABLE, _WRITABLE and _EXECUTABLE are PROT_*.
        protection: (answer.vma_flags & 7) as Protection,
        is_shared: answer.vma_flags & SHARED != 0,
        offset: answer.vma_offset,
        file: FileId { device: (answer.dev_major, answer.dev_minor), inode: answer.inode },
    })
}

/// Returns the path that `/proc/PID/maps` shows for `address`. `ENOENT` if nothing is mapped
/// there.
pub fn path_at<'a>(maps: &Fd, address: usize, buffer: &'a mut [u8]) -> Result<&'a [u8]> {
    let answer = ask(maps, address, 0, Some(&mut *buffer))?;
    let len = (answer.vma_name_size as usize).saturating_sub(1);
    Ok(buffer.get(..len).unwrap_or_default())
}

/// Asks for the VMA at `address`, with its name in `name`.
fn ask(maps: &Fd, address: usize, flags: u64, name: Option<&mut [u8]>) -> Result<ProcmapQuery> {
    /// Relaxed: a thread that does not know yet makes one call more.
    #[unsafe(link_section = ".data.sopin")]
    static KERNEL_LACKS_IT: AtomicBool = AtomicBool::new(false);
    if KERNEL_LACKS_IT.load(Ordering::Relaxed) {
        return Err(Errno(libc::ENOTTY));
    }
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
    let asked = unsafe { sys::ioctl(maps, sys::PROCMAP_QUERY, &mut argument) };
    if asked == Err(Errno(libc::ENOTTY)) {
        KERNEL_LACKS_IT.store(true, Ordering::Relaxed);
    }
    asked.map(|_| argument)
}

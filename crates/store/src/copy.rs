//! Makes copies, and compares a copy with its file.

use core::ffi::CStr;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use sopin_core::cause::{Cause, Operation};
use sopin_core::line::Line;
use sopin_core::pages::PageVec;
use sopin_core::slices;
use sopin_core::sys::{self, Errno, Fd, FileSystem, KeptFromChildren};

use crate::mark::Mark;
use crate::name::Identity;
use crate::omissions::Omissions;
use crate::origin_file::OriginFile;

/// The beginning of the names of unfinished copies.
pub const TEMPORARY: &str = ".new-";

/// Bytes copied per call: what the kernel maps around a page fault
/// (`fault_around_bytes`, mm/memory.c).
pub const COPY_STEP: usize = 64 << 10;
/// The size in bytes from which on the zeroes of a sparse file are left out of its copy too.
const MAY_BE_SPARSE: usize = 1 << 20;
/// Bytes of two files that are compared at once. A host that has locked its memory must have
/// room for twice as much within its limit.
const COMPARED: usize = 16 << 10;

/// A whole copy that has no name yet, mode 0444.
pub struct UnnamedCopy<'a> {
    file: Fd,
    /// The name that it has in the store where the file system has no files without names.
    temporary: Option<Temporary<'a>>,
    /// Device and inode number of `file`.
    numbers: (u64, u64),
    mark: Option<Mark>,
}

struct Temporary<'a> {
    name: Line<64>,
    store: &'a Fd,
}

impl<'a> UnnamedCopy<'a> {
    /// Copies all of `origin`, sharing blocks where the file system can, and checks that
    /// `origin` is still the same version.
    pub fn of(origin: &OriginFile<'_>, store: &'a Fd, buffer: &mut PageVec<u8>) -> Result<Self, Cause> {
        write_back(origin)?;
        Self::make(origin, store, buffer, true)
    }

    /// Copies a file whose times do not determine its contents. The copy is used for a short
    /// time, so this waits for nothing.
    pub fn of_unsettled(origin: &OriginFile<'_>, store: &'a Fd, buffer: &mut PageVec<u8>) -> Result<Self, Cause> {
        Self::make(origin, store, buffer, false)
    }

    fn make(origin: &OriginFile<'_>, store: &'a Fd, buffer: &mut PageVec<u8>, seals: bool) -> Result<Self, Cause> {
        let mut copy = Self::new(store)?;
        // Another thread may fork during the copy.
        let kept = KeptFromChildren::new(&copy.file);
        if sys::absorbing(libc::SIGXFSZ, || sys::clone_file(origin.file, &copy.file)).is_err() {
            copy.write(origin, buffer).map_err(Operation::CopyToStore.failed())?;
        }
        drop(kept);
        let copied = sys::fstat(copy.file.raw()).map_err(Operation::Fstat.failed())?;
        if !is_still(origin)? || copied.st_size.cast_unsigned() != origin.identity.size {
            return Err(Cause::words(Operation::CopyToStore, "the file has changed meanwhile"));
        }
        copy.numbers = (copied.st_dev, copied.st_ino);
        copy.mark =
            if seals && copy.has_become_immutable() { Some(Mark::on_disk(copied.st_ino)) } else { Mark::this_boot() };
        // The umask applies to the mode at creation, so the mode is set here.
        sys::fchmod(&copy.file, 0o444).map_err(Operation::Fchmod.failed())?;
        if copy.temporary.is_none() {
            copy.put_mark();
        }
        Ok(copy)
    }

    fn new(store: &'a Fd) -> Result<Self, Cause> {
        let flags = libc::O_TMPFILE | libc::O_RDWR;
        match sys::openat(store, c".", flags, 0o600) {
            Ok(file) => {
                let file = file.above_stderr().map_err(Operation::Fcntl.failed())?;
                return Ok(Self { file, temporary: None, numbers: (0, 0), mark: None });
            }
            Err(Errno(libc::EOPNOTSUPP | libc::EISDIR | libc::ENOENT | libc::EINVAL)) => {}
            Err(errno) => return Err(Cause::call(Operation::OpenNewStoreEntry, errno)),
        }
        // A process that is killed leaves this file behind; `clean` removes it later.
        let (pid, now) = (sys::gettid(), sys::monotonic_ns());
        let name = Line::<64>::format_raw(format_args!("{TEMPORARY}{pid}-{now:x}\0"));
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_RDWR;
        let file = sys::openat(store, name.as_c_str(), flags, 0o600)
            .and_then(Fd::above_stderr)
            .map_err(Operation::OpenNewStoreEntry.failed())?;
        Ok(Self { file, temporary: Some(Temporary { name, store }), numbers: (0, 0), mark: None })
    }

    /// Writes all bytes of `origin`, except what [`Omissions`] are. Where the file system has large
    /// folios, the page cache then holds each piece in one folio, which one page fault maps. Folios
    /// larger than that would be mapped as a whole by Linux 6.18 and would count as the process's
    /// memory.
    fn write(&self, origin: &OriginFile<'_>, buffer: &mut PageVec<u8>) -> sys::Result<()> {
        let size = usize::try_from(origin.identity.size).map_err(|_| Errno(libc::EFBIG))?;
        let omissions = Omissions::worthwhile(origin.file, origin.identity.size);
        let may_be_sparse = size >= MAY_BE_SPARSE && is_sparse(origin)?;
        sys::absorbing(libc::SIGXFSZ, || {
            let sent = if omissions.is_empty() && !may_be_sparse { self.send(origin, size)? } else { 0 };
            self.write_rest(origin, sent..size, &omissions, may_be_sparse, buffer)
        })
    }

    /// Lets the kernel copy `size` bytes without passing them through memory of this process.
    /// Returns how many it has copied: fewer if it cannot, or if a filter forbids that.
    fn send(&self, origin: &OriginFile<'_>, size: usize) -> sys::Result<usize> {
        let mut sent = 0;
        while sent < size {
            // After a short count the next piece ends where it would have ended otherwise.
            let len = (COPY_STEP - sent % COPY_STEP).min(size - sent);
            match sys::sendfile(&self.file, origin.file, sent as u64, len) {
                Ok(0) => break,
                Ok(written) => sent += written,
                Err(Errno(libc::EINTR)) => {}
                // The file would exceed the process's limit. Only this error comes with a signal.
                Err(errno @ Errno(libc::EFBIG)) => return Err(errno),
                Err(_) => break,
            }
        }
        Ok(sent)
    }

    /// Writes the `rest` of the bytes by way of `buffer`, without the omissions and, if the file
    /// `may_be_sparse`, without pieces of zeroes.
    fn write_rest(
        &self,
        origin: &OriginFile<'_>,
        rest: Range<usize>,
        omissions: &Omissions,
        may_be_sparse: bool,
        buffer: &mut PageVec<u8>,
    ) -> sys::Result<()> {
        let Range { start: mut copied, end: size } = rest;
        if copied < size && buffer.len() < COPY_STEP {
            *buffer = PageVec::zeroed(COPY_STEP)?;
        }
        while copied < size {
            let next = omissions.next_copied(copied as u64);
            let room = buffer.len().min(usize::try_from(next.end - next.start).unwrap_or(usize::MAX));
            copied = usize::try_from(next.start).map_err(|_| Errno(libc::EFBIG))?;
            let room = buffer.get_mut(..room).unwrap_or_default();
            let read = match sys::pread(origin.file, room, copied as u64) {
                // On file systems such as FUSE a signal can interrupt the write.
                Err(Errno(libc::EINTR)) => continue,
                read => read?,
            };
            let piece = buffer.get_mut(..read).unwrap_or_default();
            omissions.apply(piece, copied as u64);
            let mut piece = &*piece;
            if piece.is_empty() {
                break;
            }
            // The copy gets its size from the last piece.
            if may_be_sparse && copied + piece.len() < size && slices::is_zero(piece) {
                copied += piece.len();
                continue;
            }
            while !piece.is_empty() {
                match sys::pwrite_from(&self.file, piece.as_ptr().addr(), piece.len(), copied as u64) {
                    Err(Errno(libc::EINTR)) => {}
                    Err(errno) => return Err(errno),
                    Ok(0) => return Err(Errno(libc::EIO)),
                    // After a short count the next attempt returns the reason.
                    Ok(written) => {
                        copied += written;
                        piece = piece.get(written..).unwrap_or_default();
                    }
                }
            }
        }
        Ok(())
    }

    /// Enables fs-verity where the administrator has chosen it when making the file system.
    /// Then no process can write to the copy or truncate it, not even one of its owner, and it
    /// is on the disk. The kernel enables it only for a file that no process has open for
    /// writing. It reads the copy once more and waits for the disk, which is the price of the
    /// feature. A power loss before the copy has its name leaves an inode for fsck(8) to
    /// remove.
    fn has_become_immutable(&mut self) -> bool {
        /// The file system without it that was met last: its device, or 0.
        static WITHOUT: AtomicU64 = AtomicU64::new(0);
        let Ok(status) = sys::fstat(self.file.raw()) else { return false };
        if WITHOUT.load(Ordering::Relaxed) == status.st_dev {
            return false;
        }
        if !FileSystem::of(&self.file).is_ok_and(|status| status.may_offer_verity()) {
            return false;
        }
        let path = Line::<64>::format_raw(format_args!("/proc/self/fd/{}\0", self.file.raw()));
        let Ok(reader) = sys::open(path.as_c_str(), libc::O_RDONLY, 0).and_then(Fd::above_stderr) else {
            return false;
        };
        self.file = reader;
        let result = sys::enable_verity(&self.file);
        // The kernel, or the file system as it was made, does not have it.
        if let Err(Errno(libc::ENOTTY | libc::EOPNOTSUPP)) = result {
            WITHOUT.store(status.st_dev, Ordering::Relaxed);
        }
        result.is_ok()
    }

    /// Returns the file, open for reading at least.
    pub fn file(&self) -> &Fd {
        &self.file
    }

    /// Returns whether `status` is that of this copy.
    pub fn has_status(&self, status: &libc::stat) -> bool {
        (status.st_dev, status.st_ino) == self.numbers
    }

    /// Writes the copy to the disk and prepares the mark of an entry that is there and was compared
    /// in this boot.
    pub fn secure(&mut self, has_build_id: bool) -> Result<(), Cause> {
        sys::fsync(&self.file).map_err(Operation::Fsync.failed())?;
        let (_, inode) = self.numbers;
        self.mark = Mark::of_compared(has_build_id).or(Some(Mark::on_disk(inode)));
        if self.temporary.is_none() {
            self.put_mark();
        }
        Ok(())
    }

    /// Gives the copy its name. A file with a temporary name is recognised as abandoned by its
    /// modification time, so the mark, which changes that time, comes last.
    pub fn link(&self, directory: &Fd, file_name: &CStr) -> sys::Result<()> {
        if let Some(Temporary { name, store }) = &self.temporary {
            sys::linkat(store, name.as_c_str(), directory, file_name)?;
            self.put_mark();
            return Ok(());
        }
        let path = Line::<64>::format_raw(format_args!("/proc/self/fd/{}\0", self.file.raw()));
        sys::linkat(&Fd::CWD, path.as_c_str(), directory, file_name)
    }

    /// Writes the mark. A failure is ignored, because an entry without a mark is compared with
    /// its file before it is used.
    fn put_mark(&self) {
        if let Some(mark) = self.mark {
            let _ = mark.put_on(&self.file);
        }
    }
}

impl Drop for UnnamedCopy<'_> {
    fn drop(&mut self) {
        if let Some(Temporary { name, store }) = &self.temporary {
            let _ = sys::unlinkat(store, name.as_c_str(), 0);
        }
    }
}

/// Writes the dirty pages of `origin` back. From then on a store through a shared mapping
/// changes its times, which a store to a page that is already dirty does not.
fn write_back(origin: &OriginFile<'_>) -> Result<(), Cause> {
    sys::write_back(origin.file).map_err(Operation::WriteFileBack.failed())
}

/// Returns whether the file still is the version that it was.
fn is_still(origin: &OriginFile<'_>) -> Result<bool, Cause> {
    let now = sys::fstat(origin.file.raw()).map_err(Operation::Fstat.failed())?;
    Ok(Identity::of(&now) == origin.identity)
}

/// Returns whether parts of the file may have no blocks.
fn is_sparse(origin: &OriginFile<'_>) -> sys::Result<bool> {
    const BLOCK: u64 = 512;
    let status = sys::fstat(origin.file.raw())?;
    Ok(status.st_blocks.cast_unsigned().saturating_mul(BLOCK) < origin.identity.size)
}

/// Returns whether an entry holds the bytes of its file except for [`Omissions`], and false if the entry cannot be read.
/// It fails if the file cannot be read, or is not the same version before and after.
pub fn equals_origin(entry: &Fd, origin: &OriginFile<'_>) -> Result<bool, Cause> {
    let call = |errno| Cause::call(Operation::CompareStoreEntry, errno);
    write_back(origin)?;
    let mut buffers = [PageVec::zeroed(COMPARED).map_err(call)?, PageVec::zeroed(COMPARED).map_err(call)?];
    let omissions = Omissions::of_entry(entry, origin.file, origin.identity.size);
    let mut offset = 0;
    let is_equal = loop {
        let [ours, theirs] = &mut buffers;
        let next = omissions.next_copied(offset);
        offset = next.start;
        let room = theirs.len().min(usize::try_from(next.end - next.start).unwrap_or(usize::MAX));
        let (ours, theirs) = (ours.get_mut(..room).unwrap_or_default(), theirs.get_mut(..room).unwrap_or_default());
        let read = sys::pread_all(origin.file, theirs, offset).map_err(call)?.len();
        let theirs = theirs.get_mut(..read).unwrap_or_default();
        omissions.apply(theirs, offset);
        if !sys::pread_all(entry, ours, offset).is_ok_and(|ours| slices::equal(ours, &*theirs)) {
            break false;
        }
        if theirs.is_empty() {
            break true;
        }
        offset += theirs.len() as u64;
    };
    if is_still(origin)? {
        Ok(is_equal)
    } else {
        Err(Cause::words(Operation::CompareStoreEntry, "the file has changed meanwhile"))
    }
}

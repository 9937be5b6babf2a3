//! Reading an address space, of this process or of another one, without faulting.
//!
//! A page of a mapped file that has been truncated raises SIGBUS when it is
//! touched. So headers, dynamic sections and segments of loaded objects are
//! never dereferenced: the kernel copies them and reports what it cannot read.
//! The exception is [`crate::symbols`], which reads the tables of an object in
//! place.

use core::cell::Cell;
use core::mem::MaybeUninit;

use crate::cause::Operation;
use crate::once::{OnceCell, get_or_init};
use crate::sys::{self, Errno, Fd, Result};

/// Plain C data: any bytes are a valid value.
///
/// # Safety
/// The type must have no invalid bit patterns and no references.
pub unsafe trait Plain: Copy {}

// SAFETY: integers have no invalid bit patterns.
unsafe impl Plain for u8 {}
// SAFETY: an integer has no invalid bit patterns.
unsafe impl Plain for u64 {}
// SAFETY: a struct of integers.
unsafe impl Plain for libc::Elf64_Phdr {}
// SAFETY: a struct of integers has no invalid bit patterns.
unsafe impl Plain for libc::Elf64_Sym {}
// SAFETY: an array of plain values is plain.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

/// Reader of a process's memory: by `process_vm_readv(2)` or, where that is refused (kernels
/// before 4.8 under a container's seccomp profile), `/proc/self/mem`. Holds a descriptor in the
/// second case, so it is made for one sweep and dropped after it.
pub struct ProcessMemory {
    /// This process's id, determined when it is first needed: most readers read nothing.
    pid: Cell<Option<i32>>,
    /// Opened when `process_vm_readv` has failed with something other than
    /// a bad address.
    file: OnceCell<Result<Fd>>,
}

impl ProcessMemory {
    /// Returns a reader of this process's memory that has opened nothing yet.
    pub fn own() -> Self {
        Self { pid: Cell::new(None), file: OnceCell::new() }
    }

    /// Notes the id of this process, as system calls use it. A reader that is used again after a
    /// fork must be told the child's: otherwise it reads the parent's memory.
    pub fn know_process(&self, id: i32) {
        self.pid.set(Some(id));
    }

    /// Returns the id of this process.
    fn process(&self) -> i32 {
        self.pid.get().unwrap_or_else(|| {
            let id = sys::getpid();
            self.know_process(id);
            id
        })
    }

    /// Returns a reader of the memory of another process, by `file`, its `/proc/PID/mem`. That is
    /// the memory of one program image, while the process may execute another program at any
    /// time.
    pub fn of(file: Fd) -> Self {
        let reader = Self::own();
        let _ = get_or_init(&reader.file, || Ok(file));
        reader
    }

    /// Copies exactly `len` bytes from `from` to `to`. On error some bytes of
    /// the target may have been written. `EFAULT`: part of the source cannot
    /// be read, as after a truncation of the mapped file.
    ///
    /// # Safety
    /// `[to, to + len)` must be writable memory that nothing else uses during the call.
    pub unsafe fn copy(&self, to: *mut u8, from: usize, len: usize) -> Result<()> {
        if self.file.get().is_none() {
            // SAFETY: `[to, to + len)` is writable and unused: this function's contract.
            match unsafe { sys::copy_process_memory(self.process(), to, from, len) } {
                Ok(copied) if copied == len => return Ok(()),
                Ok(_) | Err(Errno(libc::EFAULT)) => return Err(Errno(libc::EFAULT)),
                Err(_) => {}
            }
        }
        let file = get_or_init(&self.file, open_memory);
        let file = file.as_ref().map_err(|error| *error)?;
        // SAFETY: `[to, to + len)` is writable and unused: this function's contract.
        unsafe { copy_from(file, to, from, len) }
    }

    /// Copies like [`ProcessMemory::copy`], and reads what is read `along` by the same system call,
    /// if it can.
    ///
    /// # Safety
    /// As for [`ProcessMemory::copy`].
    pub unsafe fn copy_along<const N: usize>(
        &self,
        to: *mut u8,
        from: usize,
        len: usize,
        along: &mut Along<N>,
    ) -> Result<()> {
        if self.file.get().is_none() && along.wanted != 0 {
            let ranges = [(to, from, len), (along.bytes.as_mut_ptr(), along.start, along.wanted)];
            // SAFETY: `[to, to + len)` is writable and unused, this function's contract; so are the
            // bytes of `along`, which is borrowed exclusively and wants no more than it has.
            if let Ok(copied) = unsafe { sys::copy_process_ranges(self.process(), ranges) }
                && copied >= len
            {
                (along.len, along.wanted) = (copied - len, 0);
                return Ok(());
            }
        }
        // SAFETY: this function's contract is that of `copy`.
        unsafe { self.copy(to, from, len) }
    }

    /// Copies like [`ProcessMemory::copy`], also from pages of this process that it has made
    /// inaccessible: the kernel lets a debugger read those, and a process its own.
    ///
    /// # Safety
    /// As for [`ProcessMemory::copy`].
    pub unsafe fn copy_inaccessible(&self, to: *mut u8, from: usize, len: usize) -> Result<()> {
        // SAFETY: this function's contract is that of `copy`.
        match unsafe { self.copy(to, from, len) } {
            Err(Errno(libc::EFAULT)) if self.file.get().is_none() => {
                let file = open_memory()?;
                // SAFETY: `[to, to + len)` is writable and unused: this function's contract.
                unsafe { copy_from(&file, to, from, len) }
            }
            copied => copied,
        }
    }

    /// Returns the name of the operation that reads, for messages.
    pub fn operation(&self) -> Operation {
        match self.file.get() {
            None => Operation::ProcessVmReadv,
            Some(Ok(_)) => Operation::ReadMemory,
            Some(Err(_)) => Operation::OpenMemory,
        }
    }

    /// Reads a value at `address`, which need not be aligned.
    pub fn read<T: Plain>(&self, address: usize) -> Result<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: `value` is a live local of exactly this size, to which there is no other
        // reference.
        unsafe { self.copy(value.as_mut_ptr().cast(), address, size_of::<T>()) }?;
        // SAFETY: `copy` has succeeded, so it has written all bytes, and any bytes are a valid
        // `Plain`.
        Ok(unsafe { value.assume_init() })
    }

    /// Reads the NUL-terminated string at `address` into `buffer`; `EFAULT` if
    /// it cannot be read, `ENAMETOOLONG` if it does not fit.
    pub fn read_string<'a>(&self, address: usize, buffer: &'a mut [u8]) -> Result<&'a [u8]> {
        // By at most 64 bytes at a time, ending at multiples of 64, so that
        // the copy never crosses into a page that the string does not touch.
        let mut len = 0;
        while len < buffer.len() {
            let step = 64 - (address + len) % 64;
            let room = buffer.get_mut(len..).unwrap_or_default();
            let step = step.min(room.len());
            // SAFETY: `room` is a part of the exclusively borrowed buffer and at least `step`
            // bytes long.
            unsafe { self.copy(room.as_mut_ptr(), address + len, step) }?;
            let read = room.get(..step).unwrap_or_default();
            if let Some(end) = read.iter().position(|byte| *byte == 0) {
                return Ok(buffer.get(..len + end).unwrap_or_default());
            }
            len += step;
        }
        Err(Errno(libc::ENAMETOOLONG))
    }
}

/// Up to `N` bytes that are read along with others by one system call. That they could not be read
/// is no error: who needs them reads them then.
#[derive(Clone, Copy)]
pub struct Along<const N: usize> {
    start: usize,
    /// How many are to be read by the next call.
    wanted: usize,
    /// How many have been read.
    len: usize,
    bytes: [u8; N],
}

impl<const N: usize> Along<N> {
    /// Reads nothing.
    pub const fn nothing() -> Self {
        Self { start: 0, wanted: 0, len: 0, bytes: [0; N] }
    }

    /// Reads from `start` on, no further than up to the next address that is a multiple of `N`, a power
    /// of two: that is on the same page, so that a string at `start` reaches at least as far, or ends
    /// before.
    pub const fn in_block_of(start: usize) -> Self {
        Self { start, wanted: N - start % N, ..Self::nothing() }
    }

    /// Returns `M` bytes at `address`, if they have been read.
    pub fn at<const M: usize>(&self, address: usize) -> Option<&[u8; M]> {
        let start = address.checked_sub(self.start)?;
        self.bytes.get(..self.len)?.get(start..)?.first_chunk()
    }

    /// Returns the string at the start, without its NUL, if it has been read whole.
    pub fn string(&self) -> Option<&[u8]> {
        let read = self.bytes.get(..self.len)?;
        read.get(..read.iter().position(|byte| *byte == 0)?)
    }
}

/// Copies exactly `len` bytes at `from` of the memory behind `file` to `to`.
///
/// # Safety
/// `[to, to + len)` must be writable memory that nothing else uses during the call.
unsafe fn copy_from(file: &Fd, to: *mut u8, from: usize, len: usize) -> Result<()> {
    // SAFETY: `[to, to + len)` is writable and unused, this function's contract, so an exclusive
    // slice of it is sound for the rest of the call; any bytes are valid `u8`s.
    let target = unsafe { core::slice::from_raw_parts_mut(to, len) };
    match sys::pread(file, target, from as u64) {
        Ok(copied) if copied == len => Ok(()),
        // The kernel calls a bad address EIO here.
        Ok(_) | Err(Errno(libc::EIO)) => Err(Errno(libc::EFAULT)),
        Err(error) => Err(error),
    }
}

/// Opens `/proc/self/mem`; `ENXIO` if it is not this process's memory at these
/// addresses but that of an emulator, which keeps the program's memory elsewhere.
fn open_memory() -> Result<Fd> {
    let file = sys::open_own_proc_file(c"/proc/self/mem", c"/proc/thread-self/mem")?;
    let known = *b"libsopin";
    let known = core::hint::black_box(&known);
    let mut read = [0; 8];
    match sys::pread(&file, &mut read, known.as_ptr().expose_provenance() as u64) {
        Ok(_) if read == *known => Ok(file),
        Ok(_) | Err(Errno(libc::EIO)) => Err(Errno(libc::ENXIO)),
        Err(errno) => Err(errno),
    }
}

impl Default for ProcessMemory {
    fn default() -> Self {
        Self::own()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::PageVec;
    use std::vec::Vec;

    /// Returns a reader whose first choice has been refused.
    fn reader_of_the_file() -> ProcessMemory {
        let memory = ProcessMemory::own();
        memory.file.set(open_memory()).unwrap();
        memory
    }

    fn reads_values(memory: &ProcessMemory) {
        let values = [0x89_u8, 0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0x01];
        // One byte further, so that the value is not aligned somewhere or other.
        let address = (&raw const values).expose_provenance() + 1;
        assert_eq!(memory.read(address), Ok(u64::from_ne_bytes(*values.last_chunk().unwrap())));
        assert_eq!(memory.read::<u64>(8), Err(Errno(libc::EFAULT)));
    }

    fn read_along<const N: usize>(memory: &ProcessMemory, from: usize, along: &mut Along<N>) -> Result<u64> {
        let mut value = 0_u64;
        // SAFETY: the value is a live local of 8 bytes.
        unsafe { memory.copy_along((&raw mut value).cast(), from, 8, along) }.map(|()| value)
    }

    #[test]
    fn something_else_is_read_along() {
        #[repr(align(64))]
        struct Aligned([u8; 64]);
        let (value, text) = (7_u64, Aligned(core::array::from_fn(|index| if index == 60 { 0 } else { b'x' })));
        let (address, text) = ((&raw const value).expose_provenance(), text.0.as_ptr().expose_provenance());
        let memory = ProcessMemory::own();
        let mut along = Along::<64>::in_block_of(text + 40);
        assert_eq!(read_along(&memory, address, &mut along), Ok(7));
        assert_eq!((along.string(), along.at(text + 42)), (Some(&[b'x'; 20][..]), Some(b"xxxx")));
        let beyond = [along.at::<4>(text + 39), along.at::<4>(text + 61), along.at::<4>(text + 64)];
        assert_eq!(beyond, [None; 3]);
        let mut endless = Along::<32>::in_block_of(text);
        assert_eq!((read_along(&memory, address, &mut endless), endless.string()), (Ok(7), None));
        // One of the two cannot be read.
        let mut unreadable = Along::<64>::in_block_of(8);
        assert_eq!((read_along(&memory, address, &mut unreadable), unreadable.at::<1>(8)), (Ok(7), None));
        assert_eq!(read_along(&memory, 8, &mut along), Err(Errno(libc::EFAULT)));
    }

    #[test]
    #[cfg_attr(miri, ignore = "reads /proc/self/mem")]
    fn nothing_is_read_along_through_the_file() {
        let value = 7_u64;
        let address = (&raw const value).expose_provenance();
        let mut along = Along::<64>::in_block_of(address);
        assert_eq!(read_along(&reader_of_the_file(), address, &mut along), Ok(7));
        assert_eq!(along.at::<8>(address), None);
    }

    #[test]
    fn reads_values_by_the_system_call() {
        reads_values(&ProcessMemory::own());
    }

    #[test]
    #[cfg_attr(miri, ignore = "reads /proc/self/mem")]
    fn reads_values_through_the_file() {
        reads_values(&reader_of_the_file());
    }

    #[test]
    fn reads_strings_piece_by_piece() {
        let end = sys::page_size();
        let mut page = PageVec::zeroed(end).unwrap();
        let start = page.as_ptr().expose_provenance();
        let text: Vec<u8> = (0..150).map(|index| b'a' + index % 26).collect();
        // From before one multiple of 64, from one, across several, and up to the end.
        for (offset, len) in [(60, 3), (60, 4), (60, 5), (64, 1), (64, 64), (1, 150), (70, 0), (end - 100, 99)] {
            page.fill(0);
            page[offset..offset + len].copy_from_slice(&text[..len]);
            let mut buffer = [0xff; 151];
            assert_eq!(ProcessMemory::own().read_string(start + offset, &mut buffer), Ok(&text[..len]));
            let room = &mut buffer[..len];
            assert_eq!(ProcessMemory::own().read_string(start + offset, room), Err(Errno(libc::ENAMETOOLONG)));
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "unmaps half of a mapping")]
    fn reads_strings_that_end_right_before_an_unreadable_page() {
        let page = sys::page_size();
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping; its second page is given up at once.
        let start = unsafe { sys::mmap(0, 2 * page, protection, flags, None) }.unwrap();
        // SAFETY: nothing uses the second page.
        unsafe { sys::munmap(start + page, page) }.unwrap();
        let text = b"libfoo.so\0";
        let address = start + page - text.len();
        // SAFETY: the test has made this mapping, and its first page is writable.
        unsafe { core::ptr::copy_nonoverlapping(text.as_ptr(), address as *mut u8, text.len()) };
        let memory = ProcessMemory::own();
        let mut buffer = [0; 200];
        assert_eq!(memory.read_string(address, &mut buffer), Ok(&b"libfoo.so"[..]));
        assert_eq!(memory.read_string(address, &mut buffer[..4]), Err(Errno(libc::ENAMETOOLONG)));
        assert_eq!(memory.read_string(start + page, &mut buffer), Err(Errno(libc::EFAULT)));
        // SAFETY: the test uses no address in the mapping any more.
        unsafe { sys::munmap(start, page) }.unwrap();
    }
}

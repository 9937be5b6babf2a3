//! Finding out which other processes share the process's memory.
//!
//! The kernel compares the memory of two processes by `kcmp(2)`. The filters of container engines
//! refuse that call, some kernels lack it, and it does not tell about a process that this one may not
//! trace, although that may share the memory: it has other capabilities, or has changed its user. Then
//! the helper changes a word and looks for its value in the memory of the other process. The kernel lets
//! a task read the memory of any other one if it is its own (`mm_access` in kernel/fork.c).
//!
//! The memory of a task is chosen when it is made (CLONE_VM), and changed only by execve(2), which gives
//! it a memory of its own. So a process that does not share the memory never will, and after the stop
//! only those are looked at that have appeared since [`Comparison::look_ahead`].

use core::sync::atomic::{AtomicU64, Ordering};

use sopin_core::line::Line;
use sopin_core::listing::{DIRECTORY_TO_LIST, for_each_name};
use sopin_core::memory::ProcessMemory;
use sopin_core::pages::PageVec;
use sopin_core::sys::{self, Errno, Fd, tracing};

use super::{NotStopped, failed, number};

/// Finds the processes that share the memory. It is made in the helper.
pub struct Comparison {
    process: i32,
    helper: i32,
    /// Whether the kernel compares. Otherwise, and where it does not tell, the word shows it.
    by_kernel: bool,
    word: AtomicU64,
    /// Processes that do not share the memory, in ascending order.
    strangers: PageVec<i32>,
}

/// What is added to the word each time. The word never has a value for a second time.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Comparison {
    /// Makes a comparison with this process, whose memory this helper shares, and of which this thread
    /// has not ended. It fails in an emulator that has made a fork of the helper.
    pub fn new(process: i32, thread: i32) -> Result<Self, NotStopped> {
        let (helper, word) = (sys::getpid(), AtomicU64::new(sys::monotonic_ns()));
        let by_kernel = tracing::share_memory(helper, thread).is_ok();
        let comparison = Self { process, helper, by_kernel, word, strangers: PageVec::new() };
        match comparison.is_shared_with(thread) {
            Ok(true) => Ok(comparison),
            Ok(false) => Err(NotStopped::Died),
            Err(errno) => Err(NotStopped::Call("read /proc/PID/mem", errno)),
        }
    }

    /// Looks at all processes before anything has stopped. To read the memory of a process the kernel
    /// waits for a lock, which that process could hold for long.
    pub fn look_ahead(&mut self) -> Result<(), NotStopped> {
        let mut strangers = PageVec::new();
        let mut noted = Ok(());
        self.for_each(|id, is_sharer| {
            if !is_sharer && noted.is_ok() {
                noted = strangers.push(id);
            }
            Ok(())
        })?;
        noted.map_err(failed("mmap"))?;
        // `/proc` is in ascending order, and where it is not, processes are compared once more.
        self.strangers = strangers;
        Ok(())
    }

    /// Calls `found` for each other process that shares the memory.
    pub fn for_each_sharer(&self, mut found: impl FnMut(i32) -> Result<(), NotStopped>) -> Result<(), NotStopped> {
        self.for_each(|id, is_sharer| if is_sharer { found(id) } else { Ok(()) })
    }

    /// Passes each other process that is not known to be a stranger, and whether it shares the memory.
    fn for_each(&self, mut each: impl FnMut(i32, bool) -> Result<(), NotStopped>) -> Result<(), NotStopped> {
        let all = sys::openat(&Fd::CWD, c"/proc", DIRECTORY_TO_LIST, 0).map_err(failed("open /proc"))?;
        let mut result = Ok(());
        let listed = for_each_name(&all, |name| {
            let is_other = |id: &i32| *id != self.process && *id != self.helper;
            let is_unknown = |id: &i32| self.strangers.binary_search(id).is_err();
            if let Some(id) = number(name.to_bytes()).filter(is_other).filter(is_unknown)
                && result.is_ok()
            {
                let shared = self.is_shared_with(id).or_else(|errno| match errno {
                    // It is gone, or it is another user's, and has another memory.
                    Errno(libc::ENOENT | libc::ESRCH | libc::EPERM | libc::EACCES) => Ok(false),
                    errno => Err(NotStopped::Call("compare the memory of processes", errno)),
                });
                result = shared.and_then(|is_shared| each(id, is_shared));
            }
        });
        listed.map_err(failed("read /proc"))?;
        result
    }

    fn is_shared_with(&self, other: i32) -> Result<bool, Errno> {
        if tracing::has_memory(other) {
            return self.is_task_sharer(other);
        }
        // Its first thread may have ended, and has no memory any more. The others go on.
        let path = Line::<64>::format_raw(format_args!("/proc/{other}/task\0"));
        let threads = sys::openat(&Fd::CWD, path.as_c_str(), DIRECTORY_TO_LIST, 0)?;
        let mut shared = Ok(false);
        for_each_name(&threads, |name| {
            if let Some(id) = number(name.to_bytes()).filter(|id| *id != other)
                && shared == Ok(false)
            {
                shared = self.is_task_sharer(id);
            }
        })?;
        shared
    }

    fn is_task_sharer(&self, task: i32) -> Result<bool, Errno> {
        if self.by_kernel {
            match tracing::share_memory(self.helper, task) {
                Err(Errno(libc::EPERM)) => {}
                told => return told,
            }
        }
        // A process that was forked since the word has changed has its value. So it changes again.
        for _ in 0..2 {
            let value = self.word.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
            match read_word(task, self.word.as_ptr().expose_provenance()) {
                Ok(read) if read == value => {}
                Ok(_) | Err(Errno(libc::EFAULT)) => return Ok(false),
                Err(errno) => return Err(errno),
            }
        }
        Ok(true)
    }
}

/// Reads a word in the memory of a task. `EPERM` or `EACCES` if this one may not read it.
fn read_word(task: i32, address: usize) -> Result<u64, Errno> {
    let mut word = 0_u64;
    // SAFETY: the local variable has the length that is copied, and nothing else uses it.
    let copied = unsafe { sys::copy_process_memory(task, (&raw mut word).cast(), address, size_of::<u64>()) };
    match copied {
        Ok(len) if len == size_of::<u64>() => Ok(word),
        Ok(_) => Err(Errno(libc::EFAULT)),
        Err(errno @ Errno(libc::EFAULT | libc::ESRCH)) => Err(errno),
        // A filter may refuse that call. The file can be opened only by its owner and by those who may
        // override that.
        Err(_) => {
            let path = Line::<64>::format_raw(format_args!("/proc/{task}/mem\0"));
            ProcessMemory::of(sys::open(path.as_c_str(), libc::O_RDONLY, 0)?).read(address)
        }
    }
}

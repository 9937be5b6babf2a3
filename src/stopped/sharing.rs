//! Finding out which other processes share the process's memory.

use core::sync::atomic::{AtomicU64, Ordering};

use sopin_core::line::Line;
use sopin_core::listing::{DIRECTORY_TO_LIST, for_each_name};
use sopin_core::memory::ProcessMemory;
use sopin_core::sys::{self, Errno, Fd, tracing};

use super::{NotStopped, failed, number};

/// Tells which processes share the memory. It is made in the helper.
pub struct Comparison {
    process: i32,
    /// A thread of the process that has not ended, as its first one may have: such a one has no memory.
    thread: i32,
    helper: i32,
    /// Without `kcmp(2)`: a word that is looked for in the memory of others. The filters of container
    /// engines refuse that call.
    word: Option<AtomicU64>,
}

/// What is added to the word each time. The word never has a value for a second time.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Comparison {
    /// Makes a comparison with this process, whose memory this helper shares, and of which this thread
    /// has not ended. It fails in an emulator that has made a fork of the helper.
    pub fn new(process: i32, thread: i32) -> Result<Self, NotStopped> {
        let helper = sys::getpid();
        let by_kernel = Self { process, thread, helper, word: None };
        match by_kernel.is_shared_with(thread) {
            Ok(true) => return Ok(by_kernel),
            Ok(false) => return Err(NotStopped::Died),
            Err(_) => {}
        }
        let by_word = Self { process, thread, helper, word: Some(AtomicU64::new(sys::monotonic_ns())) };
        match by_word.is_shared_with(thread).map_err(failed("read /proc/PID/mem"))? {
            true => Ok(by_word),
            false => Err(NotStopped::Died),
        }
    }

    /// Does with a comparison by a word, before anything has stopped, what it does later: to read the
    /// memory of a process the kernel waits for a lock, which that process could hold for long.
    pub fn rehearse(&self) -> Result<(), NotStopped> {
        if self.word.is_some() { self.for_each_sharer(|_| Ok(())) } else { Ok(()) }
    }

    /// Calls `found` for each other process that shares the memory.
    ///
    /// The kernel does not tell about processes of other users. They do not share the memory: when a
    /// task changes its user, the kernel makes its memory one that is not dumpable, of which no task
    /// can be seized.
    pub fn for_each_sharer(&self, mut found: impl FnMut(i32) -> Result<(), NotStopped>) -> Result<(), NotStopped> {
        let all = sys::openat(&Fd::CWD, c"/proc", DIRECTORY_TO_LIST, 0).map_err(failed("open /proc"))?;
        let mut result = Ok(());
        let listed = for_each_name(&all, |name| {
            let id = number(name.to_bytes()).filter(|id| *id != self.process && *id != self.helper);
            if let Some(id) = id.filter(|_| result.is_ok()) {
                result = match self.is_shared_with(id) {
                    Ok(true) => found(id),
                    Ok(false) | Err(Errno(libc::EPERM | libc::EACCES | libc::ENOENT | libc::ESRCH)) => Ok(()),
                    Err(errno) => Err(NotStopped::Call("compare the memory of processes", errno)),
                };
            }
        });
        listed.map_err(failed("read /proc"))?;
        result
    }

    fn is_shared_with(&self, other: i32) -> Result<bool, Errno> {
        let Some(word) = &self.word else { return tracing::share_memory(self.thread, other) };
        let path = Line::<64>::format_raw(format_args!("/proc/{other}/mem\0"));
        let memory = ProcessMemory::of(sys::open(path.as_c_str(), libc::O_RDONLY, 0)?);
        // A process that was forked since the word has changed has its value. So it changes again.
        for _ in 0..2 {
            let value = word.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
            match memory.read::<u64>(word.as_ptr().expose_provenance()) {
                Ok(read) if read == value => {}
                Ok(_) | Err(Errno(libc::EFAULT)) => return Ok(false),
                Err(errno) => return Err(errno),
            }
        }
        Ok(true)
    }
}

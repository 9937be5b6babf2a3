//! Stores that the kernel makes to a process's memory while all of its tasks have stopped:
//! requests that were submitted before, to io_uring or to the older interface for asynchronous
//! I/O. Their pages are held by the kernel, so a store would go to memory that the process has no
//! longer.

use std::fs;
use std::os::unix::ffi::OsStrExt;

use sopin_core::kernel_stores;
use sopin_core::object::Span;
use sopin_inspect::maps::Mapping;
use sopin_inspect::process::Process;

/// Where the kernel may store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelStores {
    /// Anywhere, for this reason.
    anywhere: Option<&'static str>,
    /// The buffers that are registered with an io_uring.
    buffers: Vec<Span>,
}

const REQUESTS: &str = "requests to an io_uring are in flight, whose results may be stored there";
const BUFFER: &str = "a buffer of an io_uring is registered there";
const ASYNCHRONOUS: &str = "the process uses asynchronous I/O, whose results may be stored there";

impl KernelStores {
    /// Finds out where the kernel may store to the memory of a process that has stopped.
    pub fn of(process: &Process, maps: &[Mapping]) -> Self {
        let (pid, thread) = (process.pid, process.thread);
        let mut stores = Self::default();
        if maps.iter().any(|mapping| mapping.names().0.starts_with(kernel_stores::REQUESTS)) {
            stores.anywhere = Some(ASYNCHRONOUS);
        }
        let is_worker = |task: i32| {
            let name = fs::read_to_string(format!("/proc/{pid}/task/{task}/comm")).unwrap_or_default();
            name.starts_with("iou-")
        };
        if crate::stop::tasks_of(pid).into_iter().any(is_worker) {
            stores.anywhere = Some(REQUESTS);
        }
        for entry in fs::read_dir(format!("/proc/{thread}/fd")).into_iter().flatten().flatten() {
            if fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str().as_bytes() == kernel_stores::RING) {
                let name = entry.file_name();
                let text = fs::read_to_string(format!("/proc/{thread}/fdinfo/{}", name.display()));
                stores.add_ring(text.ok().as_deref());
            }
        }
        stores
    }

    /// Adds a ring that the kernel describes so (`io_uring_show_fdinfo` in io_uring/fdinfo.c).
    fn add_ring(&mut self, text: Option<&str>) {
        let value = |name: &str| {
            let line = text?.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.trim().parse::<u32>().ok()
        };
        let (Some(submitted), Some(completed)) = (value("CachedSqHead"), value("CachedCqTail")) else {
            self.anywhere = Some(REQUESTS);
            return;
        };
        let list = |name: &'static str| {
            let rest = text.unwrap_or_default().lines().skip_while(move |line| !line.starts_with(name)).skip(1);
            rest.take_while(|line| line.starts_with(' '))
        };
        // One request can complete several times, so the numbers can be equal by chance. Then it
        // waits, and is listed.
        if submitted != completed || list("PollList:").next().is_some() {
            self.anywhere = Some(REQUESTS);
        }
        for line in list("UserBufs:") {
            // "    0: 0x7f0000001000/4096"
            let numbers = line.split_once(": 0x").and_then(|(_, rest)| rest.split_once('/'));
            let number = |text: &str, radix| usize::from_str_radix(text.trim(), radix).ok();
            match numbers.and_then(|(start, len)| Some((number(start, 16)?, number(len, 10)?))) {
                Some((start, len)) => self.buffers.push(Span { start, end: start.saturating_add(len) }),
                None if line.contains("<none>") => {}
                None => self.anywhere = Some(REQUESTS),
            }
        }
    }

    /// Returns why a writable range must be left, if it must.
    pub fn reason_to_leave(&self, span: Span) -> Option<&'static str> {
        let is_in = |buffer: &Span| !buffer.intersection(&span).is_empty();
        self.anywhere.or_else(|| self.buffers.iter().any(is_in).then_some(BUFFER))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: Span = Span { start: 0x7f00_0000_1000, end: 0x7f00_0000_2000 };

    fn ring(text: &str) -> KernelStores {
        let mut stores = KernelStores::default();
        stores.add_ring(Some(text));
        stores
    }

    #[test]
    fn an_idle_ring_stores_nothing() {
        let idle =
            "SqMask:\t0x7\nCachedSqHead:\t4\nCqTail:\t4\nCachedCqTail:\t4\nUserFiles:\t0\nUserBufs:\t0\nPollList:\n";
        assert_eq!(ring(idle), KernelStores::default());
        assert_eq!(ring(idle).reason_to_leave(PAGE), None);
    }

    #[test]
    fn requests_and_unknown_forms_may_store_anywhere() {
        assert_eq!(ring("CachedSqHead:\t5\nCachedCqTail:\t4\n").reason_to_leave(PAGE), Some(REQUESTS));
        let several_times = "CachedSqHead:\t2\nCachedCqTail:\t2\nPollList:\n  op=13, task_works=0\nCqOverflowList:\n";
        assert_eq!(ring(several_times).reason_to_leave(PAGE), Some(REQUESTS));
        assert_eq!(ring("pos:\t0\n").reason_to_leave(PAGE), Some(REQUESTS));
    }

    #[test]
    fn registered_buffers_are_left() {
        let text =
            "CachedSqHead:\t0\nCachedCqTail:\t0\nUserBufs:\t2\n    0: 0x7f0000001800/4096\n    1: <none>\nPollList:\n";
        assert_eq!(ring(text).reason_to_leave(PAGE), Some(BUFFER));
        assert_eq!(ring(text).reason_to_leave(Span { start: 0x1000, end: 0x2000 }), None);
    }
}

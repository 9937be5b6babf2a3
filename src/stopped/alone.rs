//! Finds out whether there is any other thread to stop. A process of one thread whose memory no other process shares
//! does nothing else while that thread is in this library, and needs no helper.

use sopin_core::cause::Cause;
use sopin_core::kernel_stores::KernelStore;
use sopin_core::sys::{self, SignalsBlocked, gate};
use sopin_core::thread_status::ThreadStatus;

use super::kernel;

/// Proves that nothing but this thread can store to the process's memory while this value lives.
/// All signals are blocked meanwhile, also the synchronous ones: another process can send those too,
/// and a handler could store, or start a thread. So this thread must raise none of them, and must
/// make no task.
pub struct Alone {
    _signals: SignalsBlocked,
}

/// Finds out whether nothing but this thread can store to the process's memory. `None` in doubt.
///
/// This needs less than a helper does: neither the right to trace the process, nor a `/proc` that shows
/// other processes. Under a seccomp filter that may kill for a call of the library it is not tried,
/// because such a filter may also raise SIGSYS. `mapped_now` reads the mappings and returns by which the
/// kernel may store, if it can.
pub fn prove(mapped_now: impl FnOnce() -> Result<Option<KernelStore>, Cause>) -> Option<Alone> {
    if gate::is_closed() {
        return None;
    }
    let alone = Alone { _signals: SignalsBlocked::all() };
    let is_sole_user = sys::is_sole_user_of_memory() == Ok(true);
    let no_driver_stores = || ThreadStatus::read_if(|_| true).is_ok_and(|status| status.held == 0);
    (is_sole_user && no_driver_stores() && kernel::rule_out_own_stores(mapped_now).is_ok()).then_some(alone)
}

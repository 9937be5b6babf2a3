//! Groups the crashes that differ only in process and time. It takes bounded memory, so that it can read the log
//! of a year. It only counts the crashes of further groups for which there is no room.

use sopin_inspect::kernel_log::{CrashEvent, LogSign, LogVerdict, LoggedCrash};

/// The most groups of each verdict, so that crashes of one kind leave room for those of another.
const MOST_GROUPS: usize = 64;
/// The most process ids that a group keeps.
const MOST_PIDS: usize = 16;

/// Crashes that are the same.
#[derive(Debug)]
pub struct CrashGroup {
    /// The first of them.
    pub crash: LoggedCrash,
    /// When the last of them was.
    pub last: Option<String>,
    /// Number of crashes in the group.
    pub count: u64,
    /// The first process ids.
    pub pids: Vec<u32>,
}

/// All crashes of a log.
#[derive(Debug, Default)]
pub struct CrashGroups {
    groups: Vec<CrashGroup>,
    /// Numbers of crashes for which there was no room, by verdict.
    pub others: OtherCrashes,
}

/// Numbers of crashes that are in no group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct OtherCrashes {
    /// Those with the signature.
    pub signature: u64,
    /// Those that may be of the kind.
    pub possible: u64,
    /// The others.
    pub nothing: u64,
}

impl CrashGroups {
    /// Adds a crash.
    pub fn add(&mut self, crash: LoggedCrash) {
        let verdict = crash.sign().verdict();
        let of_verdict = self.groups.iter().filter(|group| group.crash.sign().verdict() == verdict).count();
        if let Some(group) = self.groups.iter_mut().find(|group| is_same(&group.crash, &crash)) {
            group.count += 1;
            group.last = crash.when.or(group.last.take());
            if let Some(pid) = crash.pid.filter(|pid| group.pids.len() < MOST_PIDS && !group.pids.contains(pid)) {
                group.pids.push(pid);
            }
        } else if of_verdict < MOST_GROUPS {
            let (last, pids) = (crash.when.clone(), crash.pid.into_iter().collect());
            self.groups.push(CrashGroup { crash, last, count: 1, pids });
        } else {
            match verdict {
                LogVerdict::Signature => self.others.signature += 1,
                LogVerdict::Possible => self.others.possible += 1,
                LogVerdict::Nothing => self.others.nothing += 1,
            }
        }
    }

    /// Returns whether there was no crash.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Returns the groups in the order of their first crashes.
    pub fn iter(&self) -> impl Iterator<Item = &CrashGroup> {
        self.groups.iter()
    }

    /// Returns the groups, those that prove most first.
    pub fn into_sorted(mut self) -> Vec<CrashGroup> {
        self.groups.sort_by_key(|group| std::cmp::Reverse(group.crash.sign().verdict()));
        self.groups
    }
}

impl Extend<LoggedCrash> for CrashGroups {
    fn extend<T: IntoIterator<Item = LoggedCrash>>(&mut self, crashes: T) {
        crashes.into_iter().for_each(|crash| self.add(crash));
    }
}

/// Objects have another base in each process, so addresses in them are compared without it.
fn is_same(one: &LoggedCrash, other: &LoggedCrash) -> bool {
    let exception = |crash: &LoggedCrash| match &crash.event {
        CrashEvent::Trap(kind) | CrashEvent::Exception(kind, _) => Some(kind.clone()),
        _ => None,
    };
    let place = |crash: &LoggedCrash| {
        let object = crash.object.as_ref().filter(|object| crash.ip.is_some_and(|ip| object.has(ip)))?;
        Some((object.name.clone(), object.offset.or(Some(crash.ip?.wrapping_sub(object.start)))))
    };
    one.program == other.program
        && one.sign() == other.sign()
        && one.signal() == other.signal()
        && one.small_address() == other.small_address()
        && exception(one) == exception(other)
        && (one.sign() == LogSign::Jump || place(one) == place(other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sopin_inspect::kernel_log::KernelLog;

    fn groups(lines: impl IntoIterator<Item = String>) -> CrashGroups {
        let (mut log, mut groups) = (KernelLog::default(), CrashGroups::default());
        for line in lines {
            groups.extend(log.line(&line));
        }
        groups.extend(log.finish());
        groups
    }

    fn jump(pid: u64, address: u64) -> String {
        format!("[ {pid}.0] a[{pid}]: segfault at {address:x} ip {address:016x} sp 00007ffce8fe9ac8 error 14")
    }

    #[test]
    fn crashes_at_one_place_are_one_group() {
        let read = |pid: u64, base: u64| {
            format!("a[{pid}]: segfault at 10 ip {:016x} sp 7ffc error 4 in a[{base:x}+1000]", base + 0x212)
        };
        let found = groups([
            jump(1, 0xad0),
            read(2, 0x5649_d5d5_0000),
            jump(3, 0xad0),
            read(4, 0x5649_d5d6_0000),
            jump(5, 0xad8),
        ]);
        let counts: Vec<(u64, &[u32])> = found.iter().map(|group| (group.count, &*group.pids)).collect();
        assert_eq!(counts, [(2, &[1, 3][..]), (2, &[2, 4]), (1, &[5])]);
        assert_eq!(found.iter().next().unwrap().last.as_deref(), Some("[ 3.0]"));
        assert_eq!(found.into_sorted()[2].crash.sign(), LogSign::NullAccess);
    }

    #[test]
    fn a_long_log_takes_bounded_memory_and_loses_no_verdict() {
        let flood = (0..20_000).map(|pid| format!("b{}[{pid}]: segfault at 0 ip 0 sp 0 error 14", pid % 5000));
        let signatures = (0..100).map(|pid| jump(pid, 0x1000 + pid * 16));
        let found = groups(flood.chain(signatures));
        assert_eq!(found.iter().count(), 2 * MOST_GROUPS);
        assert_eq!((found.others.signature, found.others.possible), (36, 0));
        let in_groups: u64 = found.iter().map(|group| group.count).sum();
        assert_eq!(in_groups + found.others.signature + found.others.nothing, 20_100);
        assert!(found.iter().all(|group| group.pids.len() <= MOST_PIDS));
    }
}

//! Finds the processes that are to be pinned, parents before their children: a child that is
//! forked after its parent was pinned has the pins already.

use std::collections::HashSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::iter;

use sopin_inspect::maps;
use sopin_inspect::process::{self, Process, Trouble};

use super::file_tree::FileTree;
use crate::exit::{Exit, Failure};
use crate::status::answer::PassedOver;

/// A bound for the number of a process's ancestors. Parents are read one after the other, and
/// numbers may be used again meanwhile, so a chain of them might never end.
const MAX_ANCESTORS: usize = 1000;

/// Which processes are to be pinned: those that were named, and those that meet the criteria.
pub struct Selection {
    /// The processes that were named by number.
    pub named: Vec<u32>,
    /// The criteria; `None` if only processes that were named are to be pinned.
    pub criteria: Option<Criteria>,
    /// Whether the search notes what each process has loaded.
    pub notes_loads: bool,
}

/// The conditions that a process must meet, all of them.
pub struct Criteria {
    /// Its effective user.
    pub user: Option<u32>,
    /// The files of which it maps one; empty if that does not matter.
    pub trees: Vec<FileTree>,
}

/// A selected process.
#[derive(Debug, PartialEq, Eq)]
pub struct SelectedProcess {
    /// Its process id.
    pub pid: u32,
    /// When it was made. Together with the process id that is unique.
    pub start: u64,
    /// The name of its first thread.
    pub name: String,
    /// Whether it was named by number.
    pub is_named: bool,
    /// A hash of the files that it maps; 0 if that was not requested.
    pub loads: u64,
    depth: usize,
}

/// The processes that were found.
#[derive(Default)]
pub struct Found {
    /// Those to pin, parents before children.
    pub processes: Vec<SelectedProcess>,
    /// Those that were named and cannot be inspected.
    pub troubled: Vec<(u32, Trouble)>,
    /// Those that were passed over because they do not concern the user, or may not be inspected.
    pub passed_over: PassedOver,
}

impl Selection {
    /// Returns whether every process is selected.
    pub fn is_all(&self) -> bool {
        self.criteria.as_ref().is_some_and(|criteria| criteria.user.is_none() && criteria.trees.is_empty())
    }

    /// Finds the processes. This process is passed over unless it was named.
    ///
    /// # Errors
    /// 3 when there is no `/proc`.
    pub fn find(&self) -> Result<Found, Failure> {
        let mut found = Found::default();
        let named: HashSet<u32> = self.named.iter().copied().collect();
        for pid in &named {
            match open(*pid) {
                Ok(process) => {
                    let loads = if self.notes_loads { loads(&process).unwrap_or(0) } else { 0 };
                    found.processes.push(SelectedProcess::new(*pid, process, true, loads));
                }
                Err(trouble) => found.troubled.push((*pid, trouble)),
            }
        }
        if let Some(criteria) = &self.criteria {
            let pids = process::all().map_err(|error| Failure::new(Exit::Uninspected, "/proc", error))?;
            let namespace = mount_namespace("self");
            for pid in pids.into_iter().filter(|pid| *pid != std::process::id() && !named.contains(pid)) {
                match self.consider(pid, criteria, namespace.as_deref()) {
                    Ok(process) => found.processes.extend(process),
                    Err(trouble) => pass_over(&mut found.passed_over, &trouble),
                }
            }
        }
        found.processes.sort_by_key(|process| (process.depth, process.pid));
        found.troubled.sort_by_key(|(pid, _)| *pid);
        Ok(found)
    }

    /// Returns the process if it meets the criteria.
    fn consider(
        &self,
        pid: u32,
        criteria: &Criteria,
        namespace: Option<&[u8]>,
    ) -> Result<Option<SelectedProcess>, Trouble> {
        let process = open(pid)?;
        if let Some(user) = criteria.user
            && effective_user(&process)? != user
        {
            return Ok(None);
        }
        let mut loads = 0;
        if self.notes_loads || !criteria.trees.is_empty() {
            let maps = maps::parse(&process.require("maps")?);
            let has_own_paths = mount_namespace(&pid.to_string()).as_deref() == namespace;
            let is_mapped = |tree: &FileTree| maps.iter().any(|mapping| tree.is_mapped_by(mapping, has_own_paths));
            if !criteria.trees.is_empty() && !criteria.trees.iter().any(is_mapped) {
                return Ok(None);
            }
            loads = hash(&maps);
        }
        Ok(Some(SelectedProcess::new(pid, process, false, loads)))
    }
}

impl SelectedProcess {
    /// Returns what distinguishes the process from all others, also from later ones.
    pub fn key(&self) -> (u32, u64) {
        (self.pid, self.start)
    }

    fn new(pid: u32, process: Process, is_named: bool, loads: u64) -> Self {
        let facts = process.facts;
        let parent_of = |pid: u32| Process::open(pid).ok().map(|process| process.facts.parent);
        let depth = depth(facts.parent, parent_of);
        Self { pid, start: facts.start, name: facts.name, is_named, loads, depth }
    }
}

/// Opens a process. If its first thread has ended and others go on, that is one of them: the
/// files of the first thread are empty then.
pub fn open(pid: u32) -> Result<Process, Trouble> {
    match Process::open(pid) {
        Err(Trouble::Zombie) => {
            let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            let mut threads = tasks.filter_map(|task| Process::open(task.file_name().to_str()?.parse().ok()?).ok());
            threads.next().ok_or(Trouble::Zombie)
        }
        result => result,
    }
}

/// Returns the number of the ancestors of a process, of which this is the parent.
fn depth(parent: u32, parent_of: impl Fn(u32) -> Option<u32>) -> usize {
    iter::successors(Some(parent), |pid| parent_of(*pid)).take_while(|pid| *pid != 0).take(MAX_ANCESTORS).count()
}

/// Counts a process that is passed over.
pub fn pass_over(counts: &mut PassedOver, trouble: &Trouble) {
    let PassedOver { kernel_threads, zombies, vanished, denied, failed } = counts;
    *match trouble {
        Trouble::KernelThread => kernel_threads,
        Trouble::Zombie => zombies,
        Trouble::Vanished => vanished,
        Trouble::Denied => denied,
        Trouble::Failed(_) => failed,
    } += 1;
}

/// Returns the effective user. The owner of the process's directory is root if the process is
/// not dumpable (`proc(5)`).
fn effective_user(process: &Process) -> Result<u32, Trouble> {
    let status = process.require("status")?;
    user_in(&status).ok_or_else(|| Trouble::Failed("/proc/PID/status: not understood".to_owned()))
}

fn user_in(status: &[u8]) -> Option<u32> {
    let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"Uid:"))?;
    std::str::from_utf8(line).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Returns the number of a mount namespace, as a text; `None` if it may not be read.
pub fn mount_namespace(process: &str) -> Option<Vec<u8>> {
    Some(rustix::fs::readlink(format!("/proc/{process}/ns/mnt"), Vec::new()).ok()?.into_bytes())
}

fn loads(process: &Process) -> Option<u64> {
    process.read("maps").ok().map(|text| hash(&maps::parse(&text)))
}

/// Returns a hash of the files that are mapped, and where.
fn hash(maps: &[maps::Mapping]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for mapping in maps.iter().filter(|mapping| mapping.has_file() && !mapping.is_shared) {
        (mapping.start, mapping.end, mapping.file.device, mapping.file.inode).hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::process::{Child, Command};

    /// A child that is killed when it is dropped.
    struct Sleeper(Child);

    impl Sleeper {
        fn start() -> Self {
            Self(Command::new("sleep").arg("60").spawn().unwrap())
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            // It has not been waited for, so its number is still its own.
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn select(named: &[u32], criteria: Option<Criteria>) -> Found {
        Selection { named: named.to_vec(), criteria, notes_loads: false }.find().unwrap()
    }

    fn criteria(user: Option<u32>, paths: &[&str]) -> Criteria {
        Criteria { user, trees: paths.iter().map(|path| FileTree::new(Path::new(path)).0).collect() }
    }

    fn pids(found: &Found) -> Vec<u32> {
        found.processes.iter().map(|process| process.pid).collect()
    }

    #[test]
    fn the_depth_is_the_number_of_ancestors() {
        let parents = |pid| match pid {
            40 => Some(30),
            30 => Some(1),
            1 => Some(0),
            _ => None,
        };
        assert_eq!(depth(40, parents), 3);
        assert_eq!(depth(1, parents), 1);
        assert_eq!(depth(0, parents), 0);
        // The parent is outside of what this process sees, or has just ended.
        assert_eq!(depth(77, parents), 1);
        assert_eq!(depth(5, |_| Some(5)), MAX_ANCESTORS, "the chain ends though it is a circle");
    }

    #[test]
    fn parents_come_before_their_children() {
        let (own, child) = (std::process::id(), Sleeper::start());
        let parent = std::os::unix::process::parent_id();
        let expected = [parent, own, child.0.id()];
        for named in [[own, child.0.id(), parent], [child.0.id(), own, parent]] {
            assert_eq!(pids(&select(&named, None)), expected);
        }
    }

    #[test]
    fn a_process_is_selected_once_and_the_command_never_by_criteria() {
        let child = Sleeper::start();
        let id = child.0.id();
        let found = select(&[id, id], Some(criteria(None, &[])));
        assert_eq!(pids(&found).iter().filter(|pid| **pid == id).count(), 1);
        assert!(found.processes.iter().find(|process| process.pid == id).unwrap().is_named);
        assert!(!pids(&found).contains(&std::process::id()));
        // A number that the kernel never gives away (PID_MAX_LIMIT).
        let found = select(&[4_194_305], None);
        assert_eq!((found.processes.len(), &found.troubled), (0, &vec![(4_194_305, Trouble::Vanished)]));
    }

    #[test]
    fn criteria_narrow_each_other_and_numbers_add() {
        let child = Sleeper::start();
        let id = child.0.id();
        let user = rustix::process::geteuid().as_raw();
        let program = std::fs::read_link(format!("/proc/{id}/exe")).unwrap();
        let program = program.to_str().unwrap();
        for (user, paths, is_selected) in [
            (Some(user), &[][..], true),
            (Some(user), &[program], true),
            (None, &[program], true),
            (None, &["/no/such", program], true),
            (Some(user.wrapping_add(1)), &[program], false),
            (Some(user), &["/no/such"], false),
        ] {
            let found = select(&[], Some(criteria(user, paths)));
            assert_eq!(pids(&found).contains(&id), is_selected, "{user:?} {paths:?}");
            let found = select(&[id], Some(criteria(user, paths)));
            assert!(pids(&found).contains(&id));
        }
    }

    #[test]
    fn only_files_and_their_places_count_as_loads() {
        let text = "1000-2000 r-xp 00000000 08:01 11 /a\n3000-4000 rw-p 00000000 00:00 0 [heap]\n";
        let more = format!("{text}5000-6000 rw-p 00000000 00:00 0 \n");
        let other = format!("{text}5000-6000 r-xp 00000000 08:01 12 /b\n");
        let of = |text: &str| hash(&maps::parse(text.as_bytes()));
        assert_eq!(of(text), of(&more));
        assert_ne!(of(text), of(&other));
    }

    #[test]
    fn the_effective_user_is_the_second_number() {
        assert_eq!(user_in(b"Name:\tx\nUid:\t1000\t33\t34\t35\n"), Some(33));
        assert_eq!(user_in(b"Name:\tx\n"), None);
    }
}

//! Somebody who damages a store while it is in use: the user's own mistakes,
//! cleaning jobs, and root.

use std::fs::{self, DirEntry, File, OpenOptions, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// A reproducible sequence of numbers (xorshift).
pub struct Random(pub u64);

impl Random {
    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).expect("it is below a usize")
    }
}

/// The ways to damage a store.
#[derive(Clone, Copy, Debug)]
enum Damage {
    EntryUnlinked,
    EntryWritable,
    EntrySymlink,
    EntryAnotherFile,
    EntryTruncated,
    KeyRemoved,
    KeyWritable,
    KeySymlink,
    KeyFile,
    StoreWritable,
}

use Damage::{
    EntryAnotherFile, EntrySymlink, EntryTruncated, EntryUnlinked, EntryWritable, KeyFile, KeyRemoved, KeySymlink,
    KeyWritable, StoreWritable,
};

const ALL: [Damage; 10] = [
    EntryUnlinked,
    EntryWritable,
    EntrySymlink,
    EntryAnotherFile,
    EntryTruncated,
    KeyRemoved,
    KeyWritable,
    KeySymlink,
    KeyFile,
    StoreWritable,
];

/// A thread that damages a store until it is told to stop.
pub struct Vandal {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<[usize; ALL.len()]>,
}

impl Vandal {
    /// Begins. `bait` is what links lead to: traps that must never be executed.
    pub fn start(store: PathBuf, bait: PathBuf, mut random: Random) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut done = [0; ALL.len()];
            while !stopped.load(Ordering::Relaxed) {
                let which = random.below(ALL.len());
                // The library removes entries at the same time: what cannot be
                // damaged any more is not counted.
                done[which] += usize::from(damage(&store, &bait, ALL[which], &mut random).is_some());
                thread::sleep(Duration::from_micros(500));
            }
            done
        });
        Self { stop, thread }
    }

    /// Ends; `Err` names a kind of damage that was never done.
    pub fn stop(self) -> Result<String, String> {
        self.stop.store(true, Ordering::Relaxed);
        let done = self.thread.join().map_err(|_| "the vandal panicked")?;
        let list: Vec<String> = ALL.iter().zip(done).map(|(kind, count)| format!("{kind:?}: {count}")).collect();
        let list = list.join(", ");
        if done.contains(&0) { Err(format!("not every damage was done: {list}")) } else { Ok(list) }
    }
}

/// `None` if there was nothing to damage, or it went away meanwhile.
fn damage(store: &Path, bait: &Path, kind: Damage, random: &mut Random) -> Option<()> {
    if matches!(kind, StoreWritable) {
        fs::set_permissions(store, Permissions::from_mode(0o777)).ok()?;
        thread::sleep(Duration::from_micros(200));
        return fs::set_permissions(store, Permissions::from_mode(0o700)).ok();
    }
    let key = any_of(store, random)?.path();
    match kind {
        KeyRemoved => return fs::remove_dir_all(&key).ok(),
        KeyWritable => return fs::set_permissions(&key, Permissions::from_mode(0o777)).ok(),
        KeySymlink | KeyFile => {
            fs::remove_dir_all(&key).ok()?;
            let made = if matches!(kind, KeyFile) { File::create(&key).map(drop) } else { symlink(bait, &key) };
            return made.ok();
        }
        _ => {}
    }
    let entry = fs::read_dir(&key).ok()?.flatten().find(|file| file.file_name() != ".source")?.path();
    match kind {
        EntryUnlinked => fs::remove_file(&entry).ok(),
        EntryWritable => fs::set_permissions(&entry, Permissions::from_mode(0o666)).ok(),
        EntrySymlink | EntryAnotherFile => {
            // In one step, as a lookup in between would find nothing.
            let new = entry.with_extension("vandal");
            let traps = vec![0xCC; usize::try_from(fs::metadata(&entry).ok()?.len()).ok()?];
            if matches!(kind, EntrySymlink) {
                // To what looks like an entry but for the link.
                let target = bait.with_extension(traps.len().to_string());
                if !target.exists() {
                    fs::write(&target, traps).ok()?;
                    fs::set_permissions(&target, Permissions::from_mode(0o444)).ok()?;
                }
                symlink(target, &new).ok()?;
            } else {
                fs::write(&new, traps).ok()?;
                fs::set_permissions(&new, Permissions::from_mode(0o666)).ok()?;
            }
            fs::rename(&new, &entry).ok()
        }
        EntryTruncated => truncate_unless_in_use(&entry),
        _ => None,
    }
}

fn any_of(store: &Path, random: &mut Random) -> Option<DirEntry> {
    let keys: Vec<DirEntry> = fs::read_dir(store).ok()?.flatten().collect();
    let chosen = random.below(keys.len().max(1));
    keys.into_iter().nth(chosen)
}

/// What is in use is locked: truncating that would break processes, which no
/// library can prevent. While we hold the lock nobody begins to use it.
fn truncate_unless_in_use(entry: &Path) -> Option<()> {
    let reader = File::open(entry).ok()?;
    // SAFETY: the descriptor is open, and flock(2) touches no memory.
    if unsafe { libc::flock(reader.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
        return None;
    }
    // Root may write to what is read-only; another user makes it writable.
    let writer = OpenOptions::new().write(true).open(entry).ok()?;
    let half = writer.metadata().ok()?.len() / 2;
    writer.set_len(half).ok()
}

//! A thread that damages a store while it is in use, as the user's own mistakes,
//! cleaning jobs, and root can.

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
    /// Returns a number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).expect("it is below a usize")
    }
}

/// One way to damage a store. It returns `None` if there was nothing to damage, or if
/// that disappeared meanwhile.
type Damage = fn(&mut Scene) -> Option<()>;

const DAMAGES: [(&str, Damage); 10] = [
    ("entry unlinked", |scene| fs::remove_file(scene.entry()?).ok()),
    ("entry writable", |scene| set_mode(&scene.entry()?, 0o666)),
    ("entry a link", Scene::replace_entry_by_link),
    ("entry another file", Scene::replace_entry_by_file),
    ("entry truncated", |scene| truncate_unless_in_use(&scene.entry()?)),
    ("key removed", |scene| fs::remove_dir_all(scene.key()?).ok()),
    ("key writable", |scene| set_mode(&scene.key()?, 0o777)),
    ("key a link", |scene| {
        let key = scene.key()?;
        fs::remove_dir_all(&key).ok()?;
        symlink(&scene.bait, &key).ok()
    }),
    ("key a file", |scene| {
        let key = scene.key()?;
        fs::remove_dir_all(&key).ok()?;
        File::create(&key).ok().map(drop)
    }),
    ("store writable", |scene| {
        set_mode(&scene.store, 0o777)?;
        thread::sleep(Duration::from_micros(200));
        set_mode(&scene.store, 0o700)
    }),
];

/// A thread that damages a store until it is told to stop.
pub struct Vandal {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<[usize; DAMAGES.len()]>,
}

impl Vandal {
    /// Starts the thread. `bait` is where links lead: a file of traps that must never
    /// be executed.
    pub fn start(store: PathBuf, bait: PathBuf, random: Random) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut scene = Scene { store, bait, random };
            let mut done = [0; DAMAGES.len()];
            while !stopped.load(Ordering::Relaxed) {
                let which = scene.random.below(DAMAGES.len());
                // The library removes entries at the same time. Damage to an entry that
                // no longer exists is not counted.
                done[which] += usize::from(DAMAGES[which].1(&mut scene).is_some());
                thread::sleep(Duration::from_micros(500));
            }
            done
        });
        Self { stop, thread }
    }

    /// Ends the thread. `Err` names a kind of damage that was never done.
    pub fn stop(self) -> Result<String, String> {
        self.stop.store(true, Ordering::Relaxed);
        let done = self.thread.join().map_err(|_| "the vandal panicked")?;
        let list: Vec<String> = DAMAGES.iter().zip(done).map(|((kind, _), count)| format!("{kind}: {count}")).collect();
        let list = list.join(", ");
        if done.contains(&0) { Err(format!("not every damage was done: {list}")) } else { Ok(list) }
    }
}

/// The store to damage, and what is needed for that.
struct Scene {
    store: PathBuf,
    bait: PathBuf,
    random: Random,
}

impl Scene {
    /// Returns the directory of an arbitrary entry.
    fn key(&mut self) -> Option<PathBuf> {
        let keys: Vec<DirEntry> = fs::read_dir(&self.store).ok()?.flatten().collect();
        let chosen = self.random.below(keys.len().max(1));
        keys.get(chosen).map(DirEntry::path)
    }

    /// Returns the copy in an arbitrary entry.
    fn entry(&mut self) -> Option<PathBuf> {
        let files = fs::read_dir(self.key()?).ok()?;
        files.flatten().find(|file| file.file_name() != ".source").map(|file| file.path())
    }

    /// Replaces an entry by a link. Only the link itself distinguishes its target from
    /// an entry.
    fn replace_entry_by_link(&mut self) -> Option<()> {
        let entry = self.entry()?;
        let traps = traps_as_large_as(&entry)?;
        let target = self.bait.with_extension(traps.len().to_string());
        if !target.exists() {
            fs::write(&target, traps).ok()?;
            set_mode(&target, 0o444)?;
        }
        replace(&entry, |new| symlink(target, new).ok())
    }

    fn replace_entry_by_file(&mut self) -> Option<()> {
        let entry = self.entry()?;
        let traps = traps_as_large_as(&entry)?;
        replace(&entry, |new| {
            fs::write(new, traps).ok()?;
            set_mode(new, 0o666)
        })
    }
}

/// Replaces an entry in one step, because a lookup in between would find nothing.
fn replace(entry: &Path, make: impl FnOnce(&Path) -> Option<()>) -> Option<()> {
    let new = entry.with_extension("vandal");
    make(&new)?;
    fs::rename(&new, entry).ok()
}

fn traps_as_large_as(entry: &Path) -> Option<Vec<u8>> {
    Some(vec![0xCC; usize::try_from(fs::metadata(entry).ok()?.len()).ok()?])
}

fn set_mode(path: &Path, mode: u32) -> Option<()> {
    fs::set_permissions(path, Permissions::from_mode(mode)).ok()
}

/// Truncates a copy that no process uses. A copy in use is locked: truncating it would
/// harm processes, which no library can prevent. While this thread holds the lock, no
/// process begins to use the copy.
fn truncate_unless_in_use(entry: &Path) -> Option<()> {
    let reader = File::open(entry).ok()?;
    // SAFETY: the descriptor is open, and flock(2) touches no memory.
    if unsafe { libc::flock(reader.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
        return None;
    }
    // Root may open a read-only file for writing. Another user cannot, unless another
    // damage has made it writable.
    let writer = OpenOptions::new().write(true).open(entry).ok()?;
    let half = writer.metadata().ok()?.len() / 2;
    writer.set_len(half).ok()
}

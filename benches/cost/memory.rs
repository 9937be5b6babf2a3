//! The memory of a set of processes, and what their objects are mapped from.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::page::Variant;

const MEMFD: &str = "/memfd:sopin:";
const KIB_PER_MIB: f64 = 1024.0;

/// The memory of a set of processes, in MiB unless stated otherwise.
#[derive(Default)]
pub struct Memory {
    /// The sum of the Pss of all processes, and what no Pss shows: pages of memfds that
    /// no process has touched since they were written.
    pub proportional: f64,
    /// Every physical page that one of the processes maps, counted once even if other
    /// processes map it too, and the same untouched pages. `None` without the right to
    /// read page frame numbers.
    pub distinct: Option<f64>,
    /// Resident pages mapped from the store, summed over the processes.
    pub store_resident: f64,
    /// The same in proportion, which is the memory that they really use.
    pub store_proportional: f64,
}

/// The files from which the executable memory of a process is mapped, as numbers of
/// files.
#[derive(Default)]
pub struct Text {
    /// Entries of the store.
    pub stored: usize,
    /// Memfds.
    pub memfds: usize,
    /// Files that have been deleted or replaced.
    pub replaced: usize,
    /// Other files, among them the witness pages of pinned objects.
    pub files: usize,
    /// Ranges that are mapped from no file.
    pub anonymous_ranges: usize,
}

struct Vma {
    start: u64,
    end: u64,
    is_executable: bool,
    inode: u64,
    path: String,
    /// Sizes in KiB, by their names in `proc_pid_smaps(5)`.
    sizes: HashMap<String, u64>,
}

impl Vma {
    fn kib(&self, name: &str) -> u64 {
        self.sizes.get(name).copied().unwrap_or_default()
    }
}

/// Measures the processes as one.
///
/// # Errors
/// If one of them has ended or belongs to another user.
pub fn of(processes: &[u32], store: &Path) -> Result<Memory, String> {
    let mut proportional = 0;
    let (mut store_resident, mut store_proportional) = (0, 0);
    let mut frames = Some(HashSet::new());
    // For each memfd, the KiB that one process maps, and the Pss of all.
    let mut memfds: HashMap<u64, (u64, u64)> = HashMap::new();
    for process in processes {
        let rollup = read(*process, "smaps_rollup")?;
        proportional += parse(&rollup).first().map_or(0, |all| all.kib("Pss"));
        let mut mapped: HashMap<u64, u64> = HashMap::new();
        for vma in parse(&read(*process, "smaps")?) {
            if vma.path.starts_with(MEMFD) {
                *mapped.entry(vma.inode).or_default() += vma.kib("Size");
                memfds.entry(vma.inode).or_default().1 += vma.kib("Pss");
            } else if Path::new(&vma.path).starts_with(store) {
                store_resident += vma.kib("Rss");
                store_proportional += vma.kib("Pss");
            }
            if let Some(known) = &mut frames
                && !add_frames(*process, &vma, known).map_err(|error| format!("pagemap of {process}: {error}"))?
            {
                frames = None;
            }
        }
        for (inode, size) in mapped {
            let largest = &mut memfds.entry(inode).or_default().0;
            *largest = size.max(*largest);
        }
    }
    let untouched: u64 = memfds.values().map(|(size, touched)| size.saturating_sub(*touched)).sum();
    let frames = frames.map(|frames| frames.len() as u64 * page_size() / 1024);
    Ok(Memory {
        proportional: mebibytes(proportional + untouched),
        distinct: frames.map(|kib| mebibytes(kib + untouched)),
        store_resident: mebibytes(store_resident),
        store_proportional: mebibytes(store_proportional),
    })
}

fn page_size() -> u64 {
    rustix::param::page_size() as u64
}

#[expect(clippy::cast_precision_loss, reason = "no machine has that much memory")]
fn mebibytes(kib: u64) -> f64 {
    kib as f64 / KIB_PER_MIB
}

/// Adds the frames of the pages that are present. Returns `false` if the kernel does
/// not show their numbers.
fn add_frames(process: u32, vma: &Vma, frames: &mut HashSet<u64>) -> io::Result<bool> {
    const PRESENT: u64 = 1 << 63;
    const NUMBER: u64 = (1 << 55) - 1;
    // This page belongs to the kernel and has no frames.
    if vma.path == "[vsyscall]" {
        return Ok(true);
    }
    let pagemap = File::open(format!("/proc/{process}/pagemap"))?;
    let (first, last) = (vma.start / page_size(), vma.end / page_size());
    let mut entries = vec![0; usize::try_from((last - first) * 8).map_err(io::Error::other)?];
    pagemap.read_exact_at(&mut entries, first * 8)?;
    for entry in entries.chunks_exact(8).filter_map(|entry| entry.try_into().ok()).map(u64::from_ne_bytes) {
        if entry & PRESENT != 0 {
            if entry & NUMBER == 0 {
                return Ok(false);
            }
            frames.insert(entry & NUMBER);
        }
    }
    Ok(true)
}

/// Returns from what the executable memory of a process is mapped.
///
/// # Errors
/// As for [`of`].
pub fn text_of(process: u32, store: &Path) -> Result<Text, String> {
    let mut text = Text::default();
    let mut seen = HashSet::new();
    for vma in parse(&read(process, "smaps")?).into_iter().filter(|vma| vma.is_executable) {
        if vma.path.is_empty() {
            text.anonymous_ranges += 1;
        } else if seen.insert(vma.inode) && vma.inode != 0 {
            match &vma.path {
                path if path.starts_with(MEMFD) => text.memfds += 1,
                path if Path::new(path).starts_with(store) => text.stored += 1,
                path if path.ends_with(" (deleted)") => text.replaced += 1,
                _ => text.files += 1,
            }
        }
    }
    Ok(text)
}

impl Text {
    /// Checks that the variant has had the effect for which it is measured, on at least
    /// so many objects.
    ///
    /// # Errors
    /// A description of what was found instead.
    pub fn check(&self, variant: Variant, least: usize) -> Result<(), String> {
        // The interpreter's own modules and the system's libraries are not replaced by
        // copies, and a small service has few other objects.
        let least = if variant == Variant::Replaced { least / 3 } else { least };
        let done = match variant {
            Variant::Native | Variant::Empty | Variant::Off | Variant::Floor | Variant::Relocated => self.files,
            Variant::Warm | Variant::Reread | Variant::Cold | Variant::Filled => self.stored,
            Variant::Memfd => self.memfds,
            Variant::Anonymous => self.anonymous_ranges,
            Variant::Replaced => self.replaced,
        };
        if done >= least {
            return Ok(());
        }
        Err(format!("{}: {done} objects instead of {least} are as it should have made them", variant.name()))
    }
}

fn read(process: u32, file: &str) -> Result<String, String> {
    fs::read_to_string(format!("/proc/{process}/{file}")).map_err(|error| format!("{file} of {process}: {error}"))
}

/// Parses the VMAs of an smaps file.
fn parse(smaps: &str) -> Vec<Vma> {
    let mut vmas: Vec<Vma> = Vec::new();
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(first) = words.next() else { continue };
        if let Some(name) = first.strip_suffix(':') {
            if let (Some(vma), Some(Ok(kib))) = (vmas.last_mut(), words.next().map(str::parse)) {
                vma.sizes.insert(name.to_owned(), kib);
            }
            continue;
        }
        let span =
            first.split_once('-').map(|(start, end)| (u64::from_str_radix(start, 16), u64::from_str_radix(end, 16)));
        let Some((Ok(start), Ok(end))) = span else { continue };
        let is_executable = words.next().is_some_and(|mode| mode.contains('x'));
        let inode = words.nth(2).and_then(|inode| inode.parse().ok()).unwrap_or_default();
        let path = words.next().map_or("", |path| &line[path.as_ptr().addr() - line.as_ptr().addr()..]).to_owned();
        vmas.push(Vma { start, end, is_executable, inode, path, sizes: HashMap::new() });
    }
    vmas
}

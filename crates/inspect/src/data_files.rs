//! Files that a process maps and that are no objects of the loader's: a JVM's `lib/modules`,
//! archives of classes, fonts, caches, databases. The library does not protect them. This module
//! finds those that somebody could truncate or write to, and says who.
//!
//! It leaves out what has no file that a tool could rewrite (memfd, System V shared memory,
//! devices, `/dev/shm`, `/proc`, `/sys`), copies of the library's, and files to which no process
//! can write. It must not wait for a server: files for which one answers (FUSE, NFS) are listed
//! unexamined.

use std::collections::BTreeMap;

use crate::disk;
use crate::files::{View, Writability};
use crate::maps::{self, Mapping};
use crate::object::InspectedObject;
use crate::report::DataFileReport;

/// The beginnings of paths that are no files in directories of the user's.
const NOT_FILES: [&[u8]; 5] = [b"/dev/", b"/proc/", b"/sys/", b"/memfd:", b"/dmabuf:"];

/// The beginnings of the paths of the kernel's own files of shared memory (`shmem_kernel_file_setup`
/// and its callers), which are deleted files in `/`. A file that has a name may begin so, too.
const KERNELS_FILES: [&[u8]; 5] = [b"/SYSV", b"/[", b"/anon_hugepage", b"/i915", b"/drm mm object"];

/// Bits of `st_mode` that let the group and others write.
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;

/// The mappings of one file that are of one kind.
struct Group<'a> {
    mapping: &'a Mapping,
    bytes: u64,
    count: usize,
}

/// Returns the data files of a process of this user, the largest first.
pub fn find(maps: &[Mapping], objects: &[InspectedObject], view: &View, user: u32) -> Vec<DataFileReport> {
    let is_objects = |mapping: &Mapping| {
        objects.iter().any(|object| {
            let is_within = object.span.0 <= mapping.start && mapping.start < object.span.1;
            let is_original = object.original.is_some_and(|original| original.start == mapping.start);
            let witness = object.said.as_ref().map_or(0, |said| said.record.witness);
            is_within || is_original || (mapping.start <= witness && witness < mapping.end)
        })
    };
    let mut groups = BTreeMap::<_, Group>::new();
    let files = maps.iter().filter(|mapping| mapping.has_file() && mapping.is_accessible());
    for mapping in files.filter(|mapping| may_be_rewritten(mapping) && !is_objects(mapping)) {
        let (device, inode) = (mapping.file.device, mapping.file.inode);
        let key = (&mapping.path, device, inode, mapping.is_shared, mapping.is_writable);
        let group = groups.entry(key).or_insert(Group { mapping, bytes: 0, count: 0 });
        group.bytes += mapping.end - mapping.start;
        group.count += 1;
    }
    let mut reports: Vec<_> = groups.into_values().filter_map(|group| report(&group, view, user)).collect();
    reports.sort_by(|one, other| other.mapped_kib.cmp(&one.mapped_kib).then_with(|| one.path.cmp(&other.path)));
    reports
}

/// Returns whether a mapping's path may be that of a file which a tool could rewrite.
fn may_be_rewritten(mapping: &Mapping) -> bool {
    let (path, seems_deleted) = mapping.names();
    let is_kernels = || KERNELS_FILES.iter().any(|name| path.starts_with(name)) && !path[1..].contains(&b'/');
    path.starts_with(b"/")
        && NOT_FILES.iter().all(|beginning| !path.starts_with(beginning))
        && !(seems_deleted && is_kernels())
        && maps::copy_at(mapping).is_none()
}

fn report(group: &Group, view: &View, user: u32) -> Option<DataFileReport> {
    let Group { mapping, bytes, count } = *group;
    let file = (!view.may_wait_for_ever(mapping)).then(|| view.mapped(mapping));
    // `ENODEV`: a device, whose pages no truncation takes away.
    if file.as_ref().is_some_and(|file| {
        matches!(file.writability, Writability::Unwritable | Writability::InImage)
            || file.identity == Err(rustix::io::Errno::NODEV)
    }) {
        return None;
    }
    let ownership = file.and_then(|file| file.ownership);
    let (path, seems_deleted) = mapping.names();
    // A file that has a name may have one that ends like the kernel's mark.
    let has_name = ownership.is_some_and(|ownership| ownership.links != 0);
    let path = if seems_deleted && has_name { disk::path(mapping, view) } else { path };
    Some(DataFileReport {
        path: String::from_utf8_lossy(path).into_owned(),
        mapped_kib: bytes >> 10,
        mappings: count,
        shared: mapping.is_shared,
        writable: mapping.is_writable,
        deleted: ownership.map_or(seems_deleted, |ownership| ownership.links == 0),
        owner: ownership.map(|ownership| ownership.user),
        group: ownership.map(|ownership| ownership.group),
        mode: ownership.map(|ownership| format!("{:04o}", ownership.mode & 0o7777)),
        others: ownership
            .map(|ownership| ownership.user != user || ownership.mode & (GROUP_WRITES | OTHERS_WRITE) != 0),
        consequence: consequence(mapping.is_shared, mapping.is_writable),
    })
}

/// Returns what the process suffers when the file is truncated or written to (`mmap(2)`;
/// `unmap_mapping_pages` in mm/memory.c, which takes private copies away, too).
fn consequence(is_shared: bool, is_writable: bool) -> &'static str {
    match (is_shared, is_writable) {
        (false, true) => {
            "truncated: SIGBUS, and its own changes are lost; written to: pages that it has not changed change"
        }
        (true, true) => "truncated: SIGBUS, and its stores are lost; written to: it reads the new bytes",
        (_, false) => "truncated: SIGBUS; written to: it reads the new bytes",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Files;
    use crate::process::Process;

    fn mapping(path: &str) -> Mapping {
        Mapping { path: path.into(), ..Mapping::default() }
    }

    #[test]
    fn what_no_tool_rewrites_is_left_out() {
        for path in [
            "/dev/zero (deleted)",
            "/dev/shm/x",
            "/memfd:jit (deleted)",
            "/SYSV00000000 (deleted)",
            "/[aio] (deleted)",
            "/i915 (deleted)",
            "/drm mm object (deleted)",
            "anon_inode:[io_uring]",
            "/s/0123abcd-fe00-2a-1000-10-11/libx.so",
            "/sys/bus/pci/devices/0/resource0",
        ] {
            assert!(!may_be_rewritten(&mapping(path)), "{path}");
        }
        for path in [
            "/usr/lib/locale/locale-archive",
            "/srv/db (deleted)",
            "/x y",
            "/SYSVOL/db",
            "/SYSVOL/db (deleted)",
            "/[data]/db (deleted)",
            "/i915.cache",
        ] {
            assert!(may_be_rewritten(&mapping(path)), "{path}");
        }
    }

    #[test]
    fn mappings_of_one_kind_are_counted_together() {
        let (own, files) = (Process::open(std::process::id()).unwrap(), Files::default());
        let view = View::new(&own, &files);
        let path = std::env::current_exe().unwrap().into_os_string().into_encoded_bytes();
        let all = maps::parse(&own.read("maps").unwrap());
        // Without objects, those of the executable are data files, too.
        let ours: Vec<Mapping> = all.into_iter().filter(|mapping| mapping.path == path).collect();
        let bytes: u64 = ours.iter().map(|mapping| mapping.end - mapping.start).sum();
        let reports = find(&ours, &[], &view, own.user);
        assert_eq!(reports.iter().map(|report| report.mappings).sum::<usize>(), ours.len());
        assert_eq!(reports.iter().map(|report| report.mapped_kib).sum::<u64>(), bytes >> 10);
        assert!(reports.len() <= 2 && reports.iter().all(|report| !report.deleted && !report.shared));
        assert!(reports[0].mapped_kib >= reports[reports.len() - 1].mapped_kib);
        let stranger = find(&ours, &[], &view, own.user + 1);
        assert!(stranger.iter().all(|report| report.others == Some(true)));
    }
}

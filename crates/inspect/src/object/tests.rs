//! Which mappings make which state.

use super::*;
use crate::files::Files;
use crate::image::tests::file;
use crate::memory::tests::Array;
use crate::process::Process;

const BASE: u64 = 0x7f00_0000_0000;
const KEY: &str = "/s/0123abcd-fe00-2a-1000-10-11";

/// Returns the state of an object and its pinned bytes. The object has text of two pages, of
/// which the first has headers only, then RELRO, data, bss; a line is a VMA and what it maps.
fn state_of(mappings: [(&str, &str); 4]) -> Option<(ObjectState, u64)> {
    let places = [
        "7f0000000000-7f0000002000",
        "7f0000002000-7f0000003000",
        "7f0000003000-7f0000004000",
        "7f0000004000-7f0000005000",
    ];
    let lines = places.iter().zip(mappings).map(|(place, (flags, path))| {
        let (device, inode) =
            if path.is_empty() || path.starts_with('[') { ("00:00", 0) } else { ("fd:7f", path.len()) };
        format!("{place} {flags} 00000000 {device} {inode} {path}\n")
    });
    let maps = maps::parse(lines.collect::<String>().as_bytes());
    assert_eq!(maps.len(), 4);
    let (process, files) = (Process::open(std::process::id()).unwrap(), Files::default());
    let view = View::new(&process, &files);
    let memory = Array(BASE, file());
    let scene =
        Scene { maps: &maps, memory: Some(&memory), view: &view, executable: None, published: None, page: 0x1000 };
    let listed = Listed { base: BASE, name: b"/x.so".to_vec(), dynamic: BASE + 0x2900, namespace: 0 };
    let objects = scene.objects(Some(&List { objects: vec![listed.clone(), listed], is_cut: false }));
    assert!(objects.len() < 2, "one object is listed once");
    let object = objects.first()?;
    assert_eq!(object.span, (BASE, BASE + 0x5000));
    Some((object.state(), object.pinned()))
}

#[test]
fn the_state_follows_from_what_the_ranges_map() {
    let bss = ("rw-p", "");
    let file = |flags| (flags, "/x.so");
    let nothing_pinned = [file("r-xp"), file("r--p"), bss, bss];
    assert_eq!(state_of(nothing_pinned), Some((ObjectState::Exposed, 0)));
    assert_eq!(state_of([file("r-xp"), file("rw-p"), bss, bss]).unwrap().0, ObjectState::Exposed);
    assert_eq!(state_of([file("r-xp"), ("r--p", ""), bss, bss]), Some((ObjectState::Relocated, 0x1000)));
    let entry = format!("{KEY}/x.so");
    assert_eq!(state_of([("r-xp", &entry), ("r--p", ""), bss, bss]), Some((ObjectState::Full, 0x3000)));
    assert_eq!(state_of([("r-xp", &entry), ("rw-p", &entry), bss, bss]), Some((ObjectState::Full, 0x3000)));
    let memfd = ("r-xp", "/memfd:sopin:x.so (deleted)");
    assert_eq!(state_of([memfd, ("r--p", ""), bss, bss]), Some((ObjectState::Full, 0x3000)));
    assert_eq!(state_of([memfd, file("r--p"), bss, bss]).unwrap().0, ObjectState::Exposed);
    // The program may make them accessible again.
    assert_eq!(state_of([memfd, file("---p"), bss, bss]).unwrap().0, ObjectState::Exposed);
    assert_eq!(state_of([file("---p"), ("r--p", ""), bss, bss]).unwrap().0, ObjectState::Relocated);
    let mixed = [("r-xp", entry.as_str()), ("r--p", ""), file("rw-p"), bss];
    assert_eq!(state_of(mixed).unwrap().0, ObjectState::Exposed, "a program may map files into its bss");
}

#[test]
fn mappings_without_files_are_not_objects() {
    assert_eq!(state_of([("r-xp", "[vdso]"), ("r--p", ""), ("rw-p", ""), ("rw-p", "")]), None);
}

/// The same bytes at every address.
struct Everywhere(Vec<u8>);

impl Bytes for Everywhere {
    fn read_some(&self, _: u64, buffer: &mut [u8]) -> Result<usize, rustix::io::Errno> {
        Array(0, self.0.clone()).read_some(0, buffer)
    }
}

#[test]
fn a_list_of_objects_that_are_all_everywhere_is_cut() {
    const PAGES: u64 = 2000;
    let line = |page: u64| {
        let (start, flags) = (BASE + page * 0x1000, if page.is_multiple_of(2) { "r--p" } else { "rw-p" });
        format!("{start:x}-{:x} {flags} 00000000 fd:7f 6 /x.so\n", start + 0x1000)
    };
    let maps = maps::parse((0..PAGES).map(line).collect::<String>().as_bytes());
    let (process, files) = (Process::open(std::process::id()).unwrap(), Files::default());
    let view = View::new(&process, &files);
    let mut bytes = file();
    // The size in memory of the second segment.
    let size = image::ELF_HEADER + image::PROGRAM_HEADER + 40;
    bytes[size..size + 8].copy_from_slice(&(PAGES * 0x1000 - 0x2800).to_ne_bytes());
    let memory = Everywhere(bytes);
    let scene =
        Scene { maps: &maps, memory: Some(&memory), view: &view, executable: None, published: None, page: 0x1000 };
    let listed = |index: u64| {
        let base = BASE + 8 * index;
        Listed { base, name: b"/x.so".to_vec(), dynamic: base + 0x2900, namespace: 0 }
    };
    let found = |count: u64| scene.objects(Some(&List { objects: (0..count).map(listed).collect(), is_cut: false }));
    assert_eq!(found(2).len(), 2);
    let parts: usize = found(1000).iter().map(|object| object.parts.len()).sum();
    assert!((4000..40_000).contains(&parts), "{parts}");
}

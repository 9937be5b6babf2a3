//! What a copy of a large file leaves out, and what it never does.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::vec;
use std::vec::Vec;

use sopin_core::sys;

use super::scratch::{Opened, Scratch, c_string, settle};
use super::{entry, intact, replaced};
use crate::{Identity, Omissions, equals_origin};

/// The size of the debugging information of these objects, in bytes.
const DEBUG: usize = 65 << 20;
/// The end of the only segment, in the middle of a page of any size.
const SEGMENT_END: usize = 0x1_2345;
const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PROGBITS: u32 = 1;
const NOBITS: u32 = 8;

/// A section of an object: its name, type, flags, and its place in the file.
#[derive(Clone)]
struct Section(&'static str, u32, u64, usize, usize);

/// What a compiler has made with `-g`.
fn usual() -> Vec<Section> {
    let end = SEGMENT_END + DEBUG;
    vec![
        Section("", 0, 0, 0, 0),
        Section(".text", PROGBITS, 6, 0x1000, SEGMENT_END - 0x1000),
        Section(".bss", NOBITS, 3, SEGMENT_END, 4 * DEBUG),
        Section(".debug_abbrev", PROGBITS, 0, SEGMENT_END, 0x345),
        Section(".debug_info", PROGBITS, 0, SEGMENT_END + 0x345, DEBUG - 0x345),
        Section(".debug_frame", PROGBITS, 0, end, 0x2_0000),
        Section(".symtab", 2, 0, end + 0x2_0000, 0x2_0000),
        Section(".shstrtab", 3, 0, end + 0x4_0000, 0x200),
    ]
}

/// Returns an object with these sections, whose headers are at the end, or at `headers`. No byte of
/// its other parts is zero.
fn object(sections: &[Section], headers: Option<usize>) -> Vec<u8> {
    let end = sections.iter().filter(|section| section.1 != NOBITS).map(|section| section.3 + section.4).max().unwrap();
    let headers = headers.unwrap_or(end.next_multiple_of(8));
    let mut file = vec![0xa5; end.max(headers + 64 * sections.len())];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01\x01\0");
    put(32, &64_u64.to_ne_bytes());
    put(40, &(headers as u64).to_ne_bytes());
    for (at, half) in [(54, 56), (56, 1), (58, 64), (60, sections.len() as u16), (62, sections.len() as u16 - 1)] {
        put(at, &u16::to_ne_bytes(half));
    }
    put(64, &PT_LOAD.to_ne_bytes());
    for (at, word) in [(8, 0), (32, SEGMENT_END), (40, SEGMENT_END)] {
        put(64 + at, &word.to_ne_bytes());
    }
    let (mut name, names) = (0, sections.last().unwrap().3);
    for (index, Section(text, kind, flags, offset, size)) in sections.iter().enumerate() {
        put(names + name, text.as_bytes());
        put(names + name + text.len(), b"\0");
        let header = headers + 64 * index;
        put(header, &(name as u32).to_ne_bytes());
        put(header + 4, &kind.to_ne_bytes());
        for (at, word) in [(8, *flags), (24, *offset as u64), (32, *size as u64)] {
            put(header + at, &word.to_ne_bytes());
        }
        name += text.len() + 1;
    }
    file
}

fn disk(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}

fn copy_of(scratch: &Scratch) -> PathBuf {
    scratch.only_key().join("libbig.so")
}

/// Returns whether the store would believe the copy after a comparison.
fn is_believed(scratch: &Scratch, origin: &Path) -> bool {
    let copy = sys::open(&c_string(&copy_of(scratch)), libc::O_RDONLY, 0).unwrap();
    equals_origin(&copy, &Opened::new(origin).origin()).unwrap()
}

fn write_into(copy: &Path, bytes: &[u8], offset: u64) {
    fs::set_permissions(copy, Permissions::from_mode(0o644)).unwrap();
    File::options().write(true).open(copy).unwrap().write_all_at(bytes, offset).unwrap();
    fs::set_permissions(copy, Permissions::from_mode(0o444)).unwrap();
}

#[test]
fn debugging_information_is_left_out_and_everything_else_is_copied() {
    let scratch = Scratch::new();
    let whole = object(&usual(), None);
    let path = scratch.write("libbig.so", &whole);
    let (copy, has_changed) = entry(&scratch.store(), &path);
    assert!(!has_changed && copy.len() == whole.len());
    let headers = whole.len() - 64 * usual().len();
    // The hole is within the sections, and none of the largest pages is in part a hole.
    let (start, end) = (SEGMENT_END.next_multiple_of(0x1_0000), (SEGMENT_END + DEBUG) / 0x1_0000 * 0x1_0000);
    assert!(copy[..start] == whole[..start] && copy[end..headers] == whole[end..headers]);
    assert!(copy[start..end].iter().all(|byte| *byte == 0));
    assert!(disk(&copy_of(&scratch)) < 2 << 20);
    // The headers say which sections have no bytes, and nothing else.
    for (index, section) in usual().iter().enumerate() {
        let (ours, theirs) = (&copy[headers + 64 * index..][..64], &whole[headers + 64 * index..][..64]);
        let mut expected = theirs.to_vec();
        if [".debug_abbrev", ".debug_info"].contains(&section.0) {
            expected[4..8].copy_from_slice(&NOBITS.to_ne_bytes());
            expected[32..40].fill(0);
        }
        assert_eq!(ours, expected, "{}", section.0);
    }
    assert!(is_believed(&scratch, &path));
    // Another process uses it as it is.
    assert!(entry(&scratch.store(), &path) == (copy, false));
}

#[test]
fn every_byte_that_is_copied_is_compared() {
    let scratch = Scratch::new();
    let whole = object(&usual(), None);
    let path = scratch.write("libbig.so", &whole);
    let (copy, _) = entry(&scratch.store(), &path);
    let file = copy_of(&scratch);
    let headers = whole.len() - 64 * usual().len();
    let start = SEGMENT_END.next_multiple_of(0x1_0000);
    for offset in [0, 0x1000, SEGMENT_END - 1, SEGMENT_END, start - 1, SEGMENT_END + DEBUG, headers, whole.len() - 1] {
        write_into(&file, &[!copy[offset]], offset as u64);
        assert!(!is_believed(&scratch, &path), "{offset:#x}");
        write_into(&file, &[copy[offset]], offset as u64);
        assert!(is_believed(&scratch, &path), "{offset:#x}");
    }
    // A copy that says to have the sections, but has a hole.
    write_into(&file, &PROGBITS.to_ne_bytes(), (headers + 64 * 3 + 4) as u64);
    assert!(!is_believed(&scratch, &path));
}

#[test]
fn a_copy_that_has_everything_is_believed_too() {
    let scratch = Scratch::new();
    let whole = object(&usual(), None);
    let path = scratch.write("libbig.so", &whole);
    entry(&scratch.store(), &path);
    // As a file system makes it that shares blocks, or an older version of the library.
    write_into(&copy_of(&scratch), &whole, 0);
    assert!(is_believed(&scratch, &path));
    assert_eq!(entry(&scratch.store(), &path), intact(&whole));
    let inside = SEGMENT_END.next_multiple_of(0x1_0000);
    write_into(&copy_of(&scratch), b"other", inside as u64);
    assert!(!is_believed(&scratch, &path));
    fs::File::open(copy_of(&scratch)).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    let (copy, has_changed) = entry(&scratch.store(), &path);
    assert!(has_changed && copy[inside..inside + 5] == [0; 5]);
    assert_ne!(replaced(&copy), intact(&whole));
}

#[test]
fn nothing_is_left_out_of_unusual_files() {
    let with = |index: usize, section: Section| {
        let mut sections = usual();
        sections[index] = section;
        sections
    };
    let debug = SEGMENT_END + 0x345;
    let cases = [
        ("the headers could be mapped", object(&usual(), Some(0x1_8000))),
        ("another section lies in it", object(&with(6, Section(".symtab", 2, 0, debug + 0x10_0000, 64)), None)),
        ("it lies in the segment", object(&with(4, Section(".debug_info", PROGBITS, 0, 0x2000, DEBUG)), None)),
        ("it ends behind the file", object(&with(2, Section(".debug_x", PROGBITS, 0, debug, 0)), None)),
        ("a section of the program", object(&with(4, Section(".debug_info", PROGBITS, 2, debug, DEBUG - 0x345)), None)),
        ("too little", object(&with(4, Section(".debug_info", PROGBITS, 0, debug, 63 << 20)), None)),
        ("an executable", object(&usual(), None)),
        ("the headers are not aligned", object(&usual(), Some(SEGMENT_END + DEBUG + 0x5_0001))),
    ];
    for (case, mut bytes) in cases {
        if case == "an executable" {
            bytes[56..58].copy_from_slice(&2_u16.to_ne_bytes());
            bytes[120..124].copy_from_slice(&PT_INTERP.to_ne_bytes());
        }
        if case == "it ends behind the file" {
            let header = bytes.len() - 64 * usual().len() + 64 * 2;
            bytes[header + 32..header + 40].copy_from_slice(&u64::MAX.to_ne_bytes());
        }
        let file = sys::memfd_create(c"test").unwrap();
        sys::pwrite_from(&file, bytes.as_ptr().addr(), bytes.len(), 0).unwrap();
        let copied = Omissions::worthwhile(&file, bytes.len() as u64).next_copied(0);
        assert_eq!(copied, 0..u64::MAX, "{case}");
    }
}

#[test]
fn a_copy_is_sparse_where_its_file_is() {
    let scratch = Scratch::new();
    let path = scratch.0.join("libbig.so");
    let file = File::create(&path).unwrap();
    for offset in [0, 3 << 20, 5 << 20] {
        file.write_all_at(&[1; 100], offset).unwrap();
    }
    // It ends in a hole.
    file.set_len(8 << 20).unwrap();
    drop(file);
    settle(&path);
    let (copy, _) = entry(&scratch.store(), &path);
    assert!(copy == fs::read(&path).unwrap());
    assert!(is_believed(&scratch, &path));
    let (ours, theirs) = (disk(&copy_of(&scratch)), disk(&path));
    assert!(theirs < 1 << 20 && ours < 1 << 20, "{ours} {theirs}");
    assert_eq!(Opened::new(&path).identity, Identity::of(&sys::stat(&c_string(&path)).unwrap()));
}

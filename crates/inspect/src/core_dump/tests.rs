//! Dumps that are made here, so that they can be of any machine and cut or changed anywhere.

use super::*;
use crate::image::tests::header;
use crate::memory::tests::Array;
use object::elf::{PF_R, PF_W, PF_X};

/// Makes a dump.
pub struct Builder {
    pub machine: u16,
    pub notes: Vec<Vec<u8>>,
    pub ranges: Vec<(u64, u32, Vec<u8>, u64)>,
}

fn words(values: &[u64]) -> Vec<u8> {
    values.iter().copied().flat_map(u64::to_ne_bytes).collect()
}

impl Builder {
    pub fn new(machine: u16) -> Self {
        Self { machine, notes: Vec::new(), ranges: Vec::new() }
    }

    pub fn note(&mut self, kind: u32, owner: &str, content: &[u8]) -> &mut Self {
        let mut note = Vec::new();
        let sizes = [owner.len() + 1, content.len()].map(|size| u32::try_from(size).unwrap());
        for half in [sizes[0], sizes[1], kind] {
            note.extend(half.to_ne_bytes());
        }
        for part in [&[owner.as_bytes(), b"\0"].concat()[..], content] {
            note.extend(part);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        self.notes.push(note);
        self
    }

    /// Adds a thread at an instruction, with a signal.
    pub fn thread(&mut self, id: u32, signal: u16, instruction: u64, stack: u64, link: u64) -> &mut Self {
        let is_x86 = self.machine == EM_X86_64;
        let mut bytes = vec![0; if is_x86 { 336 } else { 392 }];
        bytes[12..14].copy_from_slice(&signal.to_ne_bytes());
        bytes[32..36].copy_from_slice(&id.to_ne_bytes());
        let places = if is_x86 { [16, 19, 16] } else { [32, 31, 30] };
        for (index, value) in places.into_iter().zip([instruction, stack, link]).take(if is_x86 { 2 } else { 3 }) {
            bytes[112 + 8 * index..][..8].copy_from_slice(&value.to_ne_bytes());
        }
        self.note(object::elf::NT_PRSTATUS, "CORE", &bytes)
    }

    pub fn signal(&mut self, signal: i32, code: i32, address: u64) -> &mut Self {
        let mut bytes = vec![0; 128];
        bytes[..4].copy_from_slice(&signal.to_ne_bytes());
        bytes[8..12].copy_from_slice(&code.to_ne_bytes());
        bytes[16..24].copy_from_slice(&address.to_ne_bytes());
        self.note(object::elf::NT_SIGINFO, "CORE", &bytes)
    }

    pub fn files(&mut self, files: &[(u64, u64, u64, &str)]) -> &mut Self {
        let mut bytes = words(&[files.len() as u64, 0x1000]);
        for (start, end, offset, _) in files {
            bytes.extend(words(&[*start, *end, offset / 0x1000]));
        }
        for (.., path) in files {
            bytes.extend([path.as_bytes(), b"\0"].concat());
        }
        self.note(object::elf::NT_FILE, "CORE", &bytes)
    }

    /// Adds a range of `size` bytes, of which the dump has the first ones.
    pub fn range(&mut self, start: u64, size: u64, flags: u32, content: &[u8]) -> &mut Self {
        self.ranges.push((start, flags, content.to_vec(), size));
        self
    }

    pub fn build(&self) -> Vec<u8> {
        let notes = self.notes.concat();
        let count = self.ranges.len() + 1;
        let mut at = (ELF_HEADER + count * PROGRAM_HEADER) as u64;
        let mut headers = header(PT_NOTE, 0, at, 0, notes.len() as u64, 0);
        at += notes.len() as u64;
        let mut contents = notes;
        for (start, flags, content, size) in &self.ranges {
            headers.extend(header(PT_LOAD, *flags, at, *start, content.len() as u64, *size));
            contents.extend(content);
            at += content.len() as u64;
        }
        let mut bytes = vec![0; ELF_HEADER];
        bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        bytes[16..18].copy_from_slice(&ET_CORE.to_ne_bytes());
        bytes[18..20].copy_from_slice(&self.machine.to_ne_bytes());
        bytes[32..40].copy_from_slice(&(ELF_HEADER as u64).to_ne_bytes());
        bytes[54..56].copy_from_slice(&56_u16.to_ne_bytes());
        bytes[56..58].copy_from_slice(&u16::try_from(count).unwrap().to_ne_bytes());
        [bytes, headers, contents].concat()
    }
}

fn ordinary(machine: u16) -> Builder {
    let mut builder = Builder::new(machine);
    builder.thread(7, 11, 0xad0, 0x9000, 0x5010).signal(11, 1, 0xad0).thread(8, 0, 0x5020, 0xa000, 0);
    builder.files(&[(0x4000, 0x6000, 0, "/lib/x.so"), (0x6000, 0x7000, 0x2000, "/lib/x.so (deleted)")]);
    builder.note(object::elf::NT_AUXV, "CORE", &words(&[6, 0x1000, 0, 0]));
    builder.range(0x4000, 0x2000, PF_R | PF_X, &[1; 0x1000]);
    builder.range(0x6000, 0x1000, PF_R | PF_W, &[2; 0x1000]);
    builder
}

#[test]
fn both_machines_are_read() {
    for (machine, link) in [(EM_X86_64, None), (EM_AARCH64, Some(0x5010))] {
        let bytes = ordinary(machine).build();
        let file = Array(0, bytes.clone());
        let dump = CoreDump::read(&file, bytes.len() as u64).unwrap();
        let notes = &dump.notes;
        assert_eq!((notes.threads.len(), notes.threads[0].id, notes.threads[0].signal), (2, 7, 11));
        let ThreadRegisters { instruction, stack, link: found, .. } = notes.threads[0].registers;
        assert_eq!((instruction, stack, found), (0xad0, 0x9000, link));
        assert_eq!(notes.fault, Some(Fault { signal: 11, code: 1, address: 0xad0 }));
        let files = notes.files.as_ref().unwrap();
        assert_eq!((files[1].start, files[1].offset, &*files[1].path), (0x6000, 0x2000, &b"/lib/x.so (deleted)"[..]));
        assert_eq!((notes.origin, notes.auxv.as_ref().unwrap().page()), (DumpOrigin::Kernel, Some(0x1000)));
        assert!(!notes.is_cut && !dump.is_cut());
    }
}

#[test]
fn what_was_not_dumped_is_distinguished() {
    let bytes = ordinary(EM_X86_64).build();
    let file = Array(0, bytes.clone());
    let dump = CoreDump::read(&file, bytes.len() as u64).unwrap();
    assert_eq!(dump.content(0x4800), Content::Dumped(0x5000));
    assert_eq!(dump.content(0x5000), Content::Omitted(0x6000));
    assert_eq!(dump.content(0x6000), Content::Dumped(0x7000));
    assert_eq!(dump.content(0x3000), Content::Unknown(0x4000));
    assert_eq!(dump.content(0x7000), Content::Unknown(u64::MAX));
    assert_eq!(dump.read_exact(0x4ffe, 2), Ok(vec![1, 1]));
    assert_eq!(dump.read_some(0x4ffe, &mut [0; 8]), Ok(2), "up to what was left out");
    assert_eq!(dump.read_some(0x5000, &mut [0; 8]), Err(Errno::IO));
    // Without the last 0x800 bytes.
    let len = bytes.len() - 0x800;
    let file = Array(0, bytes[..len].to_vec());
    let dump = CoreDump::read(&file, len as u64).unwrap();
    assert_eq!((dump.content(0x6000), dump.content(0x6800)), (Content::Dumped(0x6800), Content::Cut(0x7000)));
    assert!(dump.is_cut());
}

#[test]
fn other_files_are_refused() {
    let read = |bytes: Vec<u8>| {
        let len = bytes.len() as u64;
        CoreDump::read(&Array(0, bytes), len).map(drop)
    };
    assert_eq!(read(b"#!/bin/sh\n".repeat(10)), Err(DumpFlaw::Foreign));
    assert_eq!(read(crate::image::tests::file()), Err(DumpFlaw::NotADump));
    assert_eq!(read(ordinary(3).build()), Err(DumpFlaw::OtherMachine));
    let mut small = ordinary(EM_X86_64).build();
    small[4] = 1;
    assert_eq!(read(small), Err(DumpFlaw::OtherMachine));
    let mut huge = ordinary(EM_X86_64).build();
    huge[56..58].copy_from_slice(&60_000_u16.to_ne_bytes());
    assert_eq!(read(huge), Err(DumpFlaw::Cut));
    assert_eq!(read(b"\x7fELF\x02\x01".to_vec()), Err(DumpFlaw::Cut));
}

#[test]
fn gdbs_order_of_notes_shows_its_origin() {
    let mut builder = Builder::new(EM_X86_64);
    let mut about = vec![0; 136];
    about[24..28].copy_from_slice(&4711_u32.to_ne_bytes());
    about[40..44].copy_from_slice(b"prog");
    about[56..66].copy_from_slice(b"./prog x  ");
    builder.note(object::elf::NT_PRPSINFO, "CORE", &about).thread(1, 0, 0, 0, 0);
    let bytes = builder.build();
    let file = Array(0, bytes.clone());
    let dump = CoreDump::read(&file, bytes.len() as u64).unwrap();
    assert_eq!((dump.notes.origin, dump.notes.pid), (DumpOrigin::Gdb, Some(4711)));
    assert_eq!((&dump.notes.name[..], &dump.notes.arguments[..]), (&b"prog"[..], &b"./prog x"[..]));
}

#[test]
fn a_dump_that_is_cut_anywhere_is_read_or_refused() {
    let bytes = ordinary(EM_X86_64).build();
    for len in 0..bytes.len() - 0x1800 {
        let file = Array(0, bytes[..len].to_vec());
        if let Ok(dump) = CoreDump::read(&file, len as u64) {
            assert!(dump.is_cut() && dump.notes.threads.len() <= 2, "{len}");
        }
    }
}

#[test]
fn the_headers_say_where_a_dump_ends() {
    let bytes = ordinary(EM_AARCH64).build();
    let file = Array(0, bytes.clone());
    let end = bytes.len() as u64;
    assert_eq!(extent(&file, end), Ok(Some(end)));
    let headers = (ELF_HEADER + 3 * PROGRAM_HEADER) as u64;
    assert_eq!((extent(&file, 63), extent(&file, headers - 1)), (Ok(None), Ok(None)));
    assert_eq!(extent(&file, headers), Ok(Some(end)));
    assert_eq!(extent(&Array(0, vec![0; 4096]), 4096), Err(DumpFlaw::Foreign));
    let mut far = bytes;
    far[39] = 1;
    assert_eq!(extent(&Array(0, far), end), Err(DumpFlaw::Malformed));
}

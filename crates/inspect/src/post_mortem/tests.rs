//! Explains dumps that these tests build. Each test makes an object of either machine, the memory of a process that
//! had loaded it, and the dump of that memory.

use super::report::Relation;
use super::verdict::Certainty;
use super::*;
use crate::core_dump::tests::Builder;
use crate::image::tests::header;
use crate::memory::tests::Array;
use object::elf::{
    DT_DEBUG, DT_RELA, DT_RELASZ, DT_STRTAB, DT_SYMTAB, EM_AARCH64, EM_X86_64, NT_PRPSINFO, PF_R, PF_W, PF_X,
    PT_DYNAMIC, PT_GNU_RELRO, PT_LOAD, PT_NOTE, PT_PHDR,
};
use std::path::PathBuf;

const BASE: u64 = 0x7f00_0000_0000;
const STACK: u64 = 0x7ffd_0000_0000;
const EXECUTABLE: u64 = 0x5500_0000_0000;
const PATH: &str = "/lib/x.so";
/// Its relocated words begin here, and each holds the address of a function.
const WORDS: usize = 0x2200;
const COUNT: usize = 16;

/// A directory that is removed in the end.
struct Root(PathBuf);

impl Root {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sopin-post-mortem-{}-{name}", std::process::id()));
        std::fs::create_dir_all(path.join("lib")).unwrap();
        Self(path)
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.0.join(path.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Returns a number as an index.
fn index(number: u64) -> usize {
    usize::try_from(number).unwrap()
}

fn put(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_ne_bytes());
}

/// Returns the file of an object with headers, text and relocated data of a page each. Another build
/// has another build-id, a page of text more, and functions at other addresses.
fn object(machine: u16, is_other_build: bool) -> Vec<u8> {
    let shift = if is_other_build { 0x1000 } else { 0 };
    let data = 0x2000 + shift;
    let mut bytes = vec![0; index(data) + 0x1000];
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    bytes[16] = 3;
    bytes[18..20].copy_from_slice(&machine.to_ne_bytes());
    put(&mut bytes, 32, 64);
    bytes[54..56].copy_from_slice(&56_u16.to_ne_bytes());
    let headers = [
        header(PT_LOAD, PF_R, 0, 0, 0x1000, 0x1000),
        header(PT_LOAD, PF_R | PF_X, 0x1000, 0x1000, 0x1000 + shift, 0x1000 + shift),
        header(PT_LOAD, PF_R | PF_W, data, data, 0x1000, 0x1000),
        header(PT_DYNAMIC, PF_R | PF_W, data, data, 0x60, 0x60),
        header(PT_GNU_RELRO, PF_R, data, data, 0x1000, 0x1000),
        header(PT_NOTE, PF_R, 0x300, 0x300, 36, 36),
    ];
    bytes[56] = u8::try_from(headers.len()).unwrap();
    bytes[64..64 + 56 * headers.len()].copy_from_slice(&headers.concat());
    let note = [4_u32, 20, 3].map(u32::to_ne_bytes).concat();
    bytes[0x300..0x30c].copy_from_slice(&note);
    bytes[0x30c..0x310].copy_from_slice(b"GNU\0");
    bytes[0x310..0x324].fill(if is_other_build { 0xcd } else { 0xab });
    let (relative, start) = (if machine == EM_X86_64 { 8 } else { 1027 }, data + (WORDS as u64 & 0xfff));
    for number in 0..COUNT as u64 {
        let (entry, place, addend) = (0x400 + 24 * index(number), start + 8 * number, 0x1100 + shift + 0x10 * number);
        put(&mut bytes, entry, place);
        put(&mut bytes, entry + 8, relative);
        put(&mut bytes, entry + 16, addend);
        put(&mut bytes, index(place), addend);
    }
    let dynamic = [(DT_STRTAB, 0x380), (DT_SYMTAB, 0x390), (DT_RELA, 0x400), (DT_RELASZ, 24 * COUNT as u64)];
    for (number, (tag, value)) in dynamic.into_iter().enumerate() {
        put(&mut bytes, index(data) + 16 * number, tag.into());
        put(&mut bytes, index(data) + 16 * number + 8, value);
    }
    bytes
}

/// Returns the object's data as the loader has relocated it.
fn relocated(file: &[u8]) -> Vec<u8> {
    let mut data = file[0x2000..0x3000].to_vec();
    for index in 0..COUNT {
        put(&mut data, (WORDS & 0xfff) + 8 * index, BASE + 0x1100 + 0x10 * index as u64);
    }
    for index in 0..3 {
        let at = 16 * index + 8;
        let value = u64::from_ne_bytes(data[at..at + 8].try_into().unwrap());
        put(&mut data, at, BASE + value);
    }
    data
}

/// Returns the memory of an executable with the loader's list, which has the object.
fn executable() -> Vec<u8> {
    let mut bytes = vec![0; 0x1000];
    let headers = [
        header(PT_PHDR, PF_R, 64, 64, 0xa8, 0xa8),
        header(PT_LOAD, PF_R | PF_W, 0, 0, 0x1000, 0x1000),
        header(PT_DYNAMIC, PF_R | PF_W, 0x800, 0x800, 0x20, 0x20),
    ];
    bytes[64..64 + 3 * 56].copy_from_slice(&headers.concat());
    for (at, value) in [
        (0x800, DT_DEBUG.into()),
        (0x808, EXECUTABLE + 0x900),
        // `struct r_debug`: version and first object.
        (0x900, 1),
        (0x908, EXECUTABLE + 0xa00),
        // `struct link_map`: base, name, dynamic section, next.
        (0xa00, BASE),
        (0xa08, EXECUTABLE + 0xb00),
        (0xa10, BASE + 0x2000),
    ] {
        put(&mut bytes, at, value);
    }
    bytes[0xb00..0xb00 + PATH.len()].copy_from_slice(PATH.as_bytes());
    bytes
}

/// The facts from which a dump is built.
struct Death<'a> {
    machine: u16,
    signal: (i32, i32, u64),
    instruction: u64,
    path: &'a str,
    /// The first page of the file, as it was in the end.
    first: &'a [u8],
    data: Option<&'a [u8]>,
    is_of_gdb: bool,
}

impl<'a> Death<'a> {
    fn jump(machine: u16, target: u64, first: &'a [u8], data: &'a [u8]) -> Self {
        let signal = (11, 1, target);
        let first = &first[..0x1000];
        Self { machine, signal, instruction: target, path: PATH, first, data: Some(data), is_of_gdb: false }
    }

    fn dump(&self) -> Vec<u8> {
        let mut builder = Builder::new(self.machine);
        if self.is_of_gdb {
            builder.note(NT_PRPSINFO, "CORE", &[0; 136]);
        }
        let caller = BASE + 0x1010;
        let signal = u16::try_from(self.signal.0).unwrap();
        builder.thread(7, signal, self.instruction, STACK, caller);
        if self.signal.0 != 0 {
            builder.signal(self.signal.0, self.signal.1, self.signal.2);
        }
        let path = self.path;
        builder.files(&[
            (BASE, BASE + 0x1000, 0, path),
            (BASE + 0x1000, BASE + 0x2000, 0x1000, path),
            (BASE + 0x2000, BASE + 0x3000, 0x2000, path),
        ]);
        let auxv = [3, EXECUTABLE + 64, 5, 3, 6, 0x1000, 0, 0];
        builder.note(6, "CORE", &auxv.map(u64::to_ne_bytes).concat());
        builder.range(EXECUTABLE, 0x1000, PF_R | PF_W, &executable());
        builder.range(BASE, 0x1000, PF_R, self.first);
        builder.range(BASE + 0x1000, 0x1000, PF_R | PF_X, &[]);
        match self.data {
            Some(data) => _ = builder.range(BASE + 0x2000, 0x1000, PF_R, data),
            None if self.is_of_gdb => {}
            None => _ = builder.range(BASE + 0x2000, 0x1000, PF_R, &[]),
        }
        builder.range(STACK, 0x1000, PF_R | PF_W, &caller.to_ne_bytes().repeat(512));
        builder.build()
    }

    fn explain(&self, root: &Root, debug: &[&Root]) -> Explanation {
        explain_bytes(self.dump(), root, debug)
    }
}

fn explain_bytes(bytes: Vec<u8>, root: &Root, debug: &[&Root]) -> Explanation {
    let size = bytes.len() as u64;
    let file = Array(0, bytes);
    let debug: Vec<_> = debug.iter().map(|root| &*root.0).collect();
    let system = System::new(Some(&root.0), &debug).unwrap();
    super::explain(&CoreDump::read(&file, size).unwrap(), &system, true)
}

fn answer(explanation: &Explanation) -> (Answer, Option<Certainty>) {
    (explanation.verdict.answer, explanation.verdict.certainty)
}

const CERTAIN: (Answer, Option<Certainty>) = (Answer::Rewritten, Some(Certainty::Certain));
const LIKELY: (Answer, Option<Certainty>) = (Answer::Rewritten, Some(Certainty::Likely));
const NOTHING: (Answer, Option<Certainty>) = (Answer::Nothing, None);
const UNKNOWN: (Answer, Option<Certainty>) = (Answer::Unknown, None);

#[test]
fn a_jump_to_a_reverted_word_is_certain_on_both_machines() {
    for machine in [EM_X86_64, EM_AARCH64] {
        let (root, file) = (Root::new(&format!("jump-{machine}")), object(machine, false));
        root.write(PATH, &file);
        let explanation = Death::jump(machine, 0x1110, &file, &file[0x2000..]).explain(&root, &[]);
        assert_eq!(answer(&explanation), CERTAIN, "{explanation:#?}");
        let damage = explanation.objects[0].damage.as_ref().unwrap();
        assert_eq!((damage.reverted_words, damage.words.len()), (COUNT, COUNT));
        assert_eq!((damage.words[1].value, damage.words[1].expected), (Some(0x1110), Some(BASE + 0x1110)));
        assert!(explanation.verdict.sentence.contains("16 relocated words had their values from the file again"));
        assert!(explanation.verdict.sentence.contains("the jump to 0x1110"), "{}", explanation.verdict.sentence);
        assert_eq!((explanation.addresses[0].words, explanation.addresses[0].reverted), (1, 1));
        assert_eq!(explanation.crash.caller.as_ref().unwrap().offset, Some(0x1010));
        assert_eq!(explanation.objects[0].file, Relation::Loaded);
    }
}

/// The negative control: the same jump, with all words intact.
#[test]
fn intact_words_clear_the_files() {
    for machine in [EM_X86_64, EM_AARCH64] {
        let (root, file) = (Root::new(&format!("intact-{machine}")), object(machine, false));
        root.write(PATH, &file);
        for target in [0, 0x1110] {
            let data = relocated(&file);
            let explanation = Death::jump(machine, target, &file, &data).explain(&root, &[]);
            assert_eq!(answer(&explanation), NOTHING, "{explanation:#?}");
            assert_eq!(explanation.objects[0].intact_words, COUNT);
        }
    }
}

#[test]
fn one_word_on_a_page_that_was_stored_to_is_enough() {
    let (root, file) = (Root::new("one"), object(EM_X86_64, false));
    root.write(PATH, &file);
    let mut data = relocated(&file);
    put(&mut data, 0x210, 0x1120);
    let explanation = Death::jump(EM_X86_64, 0x1120, &file, &data).explain(&root, &[]);
    assert_eq!(answer(&explanation), CERTAIN);
    assert!(explanation.verdict.sentence.contains(": 1 relocated word had its value from the file again;"));
}

#[test]
fn what_the_dump_leaves_out_cannot_be_told() {
    let (root, file) = (Root::new("out"), object(EM_X86_64, false));
    root.write(PATH, &file);
    let death = Death { data: None, ..Death::jump(EM_X86_64, 0x1110, &file, &[]) };
    let explanation = death.explain(&root, &[]);
    assert_eq!(answer(&explanation), UNKNOWN);
    assert!(explanation.verdict.sentence.contains("the dump leaves out 16 of its relocated words"));
    assert!(explanation.verdict.way_out.unwrap().contains("coredump_filter 0x33"));
    // Nothing in the file is at such an address, so that what is left out does not matter.
    let elsewhere = Death { data: None, ..Death::jump(EM_X86_64, 0x20_0000, &file, &[]) };
    assert_eq!(answer(&elsewhere.explain(&root, &[])), UNKNOWN, "no word at all was examined");
}

/// gdb leaves out what has no private page, so the words were the file's.
#[test]
fn gdb_leaves_out_what_has_reverted() {
    let (root, file) = (Root::new("gdb"), object(EM_X86_64, false));
    root.write(PATH, &file);
    let jump = Death::jump(EM_X86_64, 0x1110, &file, &[]);
    let explanation = Death { data: None, is_of_gdb: true, ..jump }.explain(&root, &[]);
    assert_eq!(answer(&explanation), LIKELY, "{explanation:#?}");
    let alive = Death { data: None, is_of_gdb: true, signal: (0, 0, 0), ..Death::jump(EM_X86_64, BASE, &file, &[]) };
    let explanation = alive.explain(&root, &[]);
    assert_eq!((answer(&explanation), explanation.crash.alive), (LIKELY, true));
    assert!(explanation.verdict.sentence.starts_with("This process was damaged when it was dumped"));
}

#[test]
fn a_page_behind_the_end_of_the_file() {
    let (root, file) = (Root::new("end"), object(EM_X86_64, false));
    let sigbus = |code: i32| {
        let jump = Death::jump(EM_X86_64, BASE + 0x1080, &file, &[0; 0x1000]);
        Death { signal: (7, code, BASE + 0x2200), ..jump }
    };
    // The file is short now.
    root.write(PATH, &file[..0x1800]);
    assert_eq!(answer(&sigbus(2).explain(&root, &[])), CERTAIN);
    // It is whole again; the zeroes in the dump show that it was not.
    root.write(PATH, &file);
    let explanation = sigbus(2).explain(&root, &[]);
    assert_eq!(answer(&explanation), CERTAIN);
    assert_eq!(explanation.objects[0].damage.as_ref().unwrap().bytes_lost, 0x1000);
    // It is whole, and so was the memory: the disk may have failed.
    let data = relocated(&file);
    assert_eq!(answer(&Death { data: Some(&data), ..sigbus(2) }.explain(&root, &[])), LIKELY);
    assert_eq!(answer(&Death { data: Some(&data), ..sigbus(1) }.explain(&root, &[])), NOTHING, "misaligned");
}

#[test]
fn the_object_is_found_by_its_build_id_where_its_file_is_gone() {
    let (root, debug, file) = (Root::new("gone"), Root::new("build-id"), object(EM_AARCH64, false));
    let death = Death { path: "/lib/x.so (deleted)", ..Death::jump(EM_AARCH64, 0x1110, &file, &file[0x2000..]) };
    let explanation = death.explain(&root, &[]);
    assert_eq!((answer(&explanation), explanation.objects[0].file), (UNKNOWN, Relation::Absent));
    assert!(explanation.verdict.way_out.unwrap().contains("--debug-dir"));
    debug.write(&format!(".build-id/ab/{}", "ab".repeat(19)), &file);
    assert_eq!(answer(&death.explain(&root, &[&debug])), CERTAIN);
    let data = relocated(&file);
    assert_eq!(answer(&Death { data: Some(&data), ..death }.explain(&root, &[&debug])), NOTHING);
}

/// Written over without truncation: the words are intact, and the text is another's.
#[test]
fn another_build_in_place_shows_in_the_first_page() {
    let (root, file, other) = (Root::new("build"), object(EM_X86_64, false), object(EM_X86_64, true));
    root.write(PATH, &other);
    let data = relocated(&file);
    let death = |instruction| Death { instruction, ..Death::jump(EM_X86_64, 8, &other, &data) };
    let explanation = death(BASE + 0x1088).explain(&root, &[]);
    assert_eq!(answer(&explanation), LIKELY, "{explanation:#?}");
    assert!(explanation.verdict.sentence.contains("the file had become another build; it died in that object"));
    assert_eq!(explanation.objects[0].file, Relation::Other);
    // With truncation, the data are another's, too.
    let reverted = Death::jump(EM_X86_64, 0x2110, &other, &other[0x2000..0x3000]);
    assert_eq!(answer(&reverted.explain(&root, &[])), LIKELY);
}

/// A good upgrade: the process has kept the old file, which has no name any more.
#[test]
fn a_file_that_was_replaced_clears_itself() {
    let (root, file) = (Root::new("replaced"), object(EM_X86_64, false));
    root.write(PATH, &object(EM_X86_64, true));
    let data = relocated(&file);
    for path in [PATH, "/lib/x.so (deleted)"] {
        let null = Death { path, ..Death::jump(EM_X86_64, 0, &file, &data) };
        let explanation = null.explain(&root, &[]);
        assert_ne!(explanation.verdict.answer, Answer::Rewritten, "{explanation:#?}");
        let damage = explanation.objects[0].damage.is_some();
        assert_eq!((damage, explanation.objects[0].file), (false, Relation::Other));
    }
}

#[test]
fn damage_that_nothing_connects_with_the_end_is_reported_as_such() {
    let (root, file) = (Root::new("abort"), object(EM_X86_64, false));
    root.write(PATH, &file);
    let elsewhere = 0x5500_0000_1000;
    let abort = Death { signal: (6, -6, 7), ..Death::jump(EM_X86_64, elsewhere, &file, &file[0x2000..]) };
    let explanation = abort.explain(&root, &[]);
    assert_eq!(answer(&explanation), UNKNOWN);
    assert!(explanation.verdict.sentence.contains("it cannot be told whether the process died of that"));
    assert!(explanation.objects[0].damage.is_some());
}

#[test]
fn a_dump_without_mapped_files_cannot_be_told() {
    let root = Root::new("empty");
    let mut builder = Builder::new(EM_X86_64);
    builder.thread(7, 11, 0xad0, STACK, 0);
    let explanation = explain_bytes(builder.build(), &root, &[]);
    assert_eq!(answer(&explanation), UNKNOWN);
    assert!(explanation.verdict.sentence.contains("NT_FILE"));
    let explanation = explain_bytes(Builder::new(EM_X86_64).range(0x1000, 0x1000, PF_R, &[1; 8]).build(), &root, &[]);
    assert_eq!(answer(&explanation), UNKNOWN);
}

/// Neither a dump nor a file can make it panic, whatever is in them.
#[test]
fn any_bytes_are_survived() {
    let (root, file) = (Root::new("bytes"), object(EM_X86_64, false));
    root.write(PATH, &file);
    let death = Death::jump(EM_X86_64, 0x1110, &file, &file[0x2000..]);
    let dump = death.dump();
    let system = System::new(Some(&root.0), &[]).unwrap();
    let try_it = |bytes: Vec<u8>, size: u64| {
        let file = Array(0, bytes);
        if let Ok(dump) = CoreDump::read(&file, size) {
            let _ = super::explain(&dump, &system, false);
        }
    };
    let size = dump.len() as u64;
    // At every boundary of the headers and the notes, and in between.
    for len in (0..0x900).step_by(4) {
        try_it(dump[..len].to_vec(), len as u64);
    }
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    let extremes = [0, 1, 0x7f, 0xff, 0x80];
    for round in 0..1500 {
        let mut bytes = dump.clone();
        for _ in 0..=random(6) {
            // Most of the headers and notes are in front.
            let at = random(if round % 3 == 0 { bytes.len() } else { 0x900 });
            let len = [1, 4, 8][random(3)].min(bytes.len() - at);
            bytes[at..at + len].fill(extremes[random(extremes.len())]);
        }
        try_it(bytes, size);
        if round % 4 == 0 {
            let mut hostile = file.clone();
            for _ in 0..=random(4) {
                let at = random(if round % 8 == 0 { hostile.len() } else { 0x600 });
                hostile[at] = extremes[random(extremes.len())];
            }
            root.write(PATH, &hostile);
            try_it(dump.clone(), size);
        }
    }
}

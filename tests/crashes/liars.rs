//! Cores that lie. Whoever can make a process crash writes most of its core, and a core may be damaged
//! besides. The command ends in time, with little memory, whatever the numbers say; it opens no file
//! of which reading has an effect or no end; and it prints no control characters.

mod changes;
mod files;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use crate::cases;
use crate::common::needs::Need;
use crate::cores::DEFAULT_FILTER;
use crate::dump::{Dump, Load, MappedFile, NT_FILE, NT_PRSTATUS, Note};
use crate::explained::{self, Explanation, Verdict};
use crate::hosts::{Builds, Host};

use Verdict::{Rewritten, Unknown};

/// The address space that the command has, in KiB: its own code, and buffers.
const MEMORY: u32 = 1 << 20;

/// A trial.
pub struct Liar {
    pub name: &'static str,
    pub needs: &'static [&'static str],
    pub test: fn(&Lying) -> Result<(), String>,
}

const fn liar(name: &'static str, test: fn(&Lying) -> Result<(), String>) -> Liar {
    Liar { name, needs: &[], test }
}

pub const ALL: &[Liar] = &[
    liar("no_core", no_core),
    liar("header_counts", header_counts),
    liar("note_lengths", note_lengths),
    liar("file_counts", file_counts),
    liar("overlapping_ranges", overlapping_ranges),
    liar("extreme_ranges", extreme_ranges),
    liar("paths_with_control_characters", paths_with_control_characters),
    liar("many_threads", many_threads),
    liar("files_without_an_end", files::files_without_an_end),
    liar("files_that_are_no_objects", files::files_that_are_no_objects),
    Liar {
        needs: &["root", "filesystem:fuse", "cmd:python3"],
        ..liar("a_server_that_answers_nothing", files::a_server_that_answers_nothing)
    },
    liar("changed_cores", changes::changed_cores),
    liar("changed_objects", changes::changed_objects),
    Liar { needs: &["cmd:zstd", "cmd:gzip"], ..liar("bombs", files::bombs) },
    liar("a_core_that_is_a_device", files::a_core_that_is_a_device),
];

impl Liar {
    /// Returns why it cannot be run here, if that is so.
    pub fn unmet_need(&self) -> Option<String> {
        let need = |word: &&str| word.parse::<Need>().map_or_else(Some, |need| need.unmet());
        self.needs.iter().find_map(need).or_else(|| Host::Cpp.unmet_need())
    }

    /// Runs the trial.
    ///
    /// # Errors
    /// The command was deceived.
    pub fn run(&self, builds: &Builds, directory: &Path) -> Result<(), String> {
        let core = cases::find("same_bytes::call").crash(Host::Cpp, builds, directory, DEFAULT_FILTER)?.core;
        let lying = Lying { directory, core: &core, dump: Dump::read(&core)? };
        // The parts are understood, and make a core that is as good.
        lying.explain(&lying.dump)?.is_one_of(&[Rewritten])?;
        (self.test)(&lying)
    }
}

/// A true core, and what a trial makes of it.
pub struct Lying<'a> {
    directory: &'a Path,
    core: &'a Path,
    dump: Dump,
}

impl Lying<'_> {
    fn explain(&self, dump: &Dump) -> Result<Explanation, String> {
        self.explain_bytes(&dump.to_bytes())
    }

    fn explain_bytes(&self, bytes: &[u8]) -> Result<Explanation, String> {
        let liar = self.directory.join("liar");
        fs::write(&liar, bytes).map_err(|error| error.to_string())?;
        self.explain_file(&liar)
    }

    /// Explains a file, with a bound on memory.
    fn explain_file(&self, file: &Path) -> Result<Explanation, String> {
        let mut command = Command::new("sh");
        let script = format!("ulimit -v {MEMORY}; exec \"$1\" explain \"$2\"");
        command.args(["-euc", &script, "sh"]).arg(explained::command()?).arg(file);
        let explanation = explained::run(command, self.directory)?;
        is_printable(&explanation)?;
        Ok(explanation)
    }

    /// Explains a core of which nothing that is wrong may be believed, but the rest may.
    fn any(&self, dump: &Dump) -> Result<(), String> {
        self.explain(dump).map(drop)
    }

    /// Tries a dump that `change` makes of the true one.
    fn changed(&self, change: impl FnOnce(&mut Dump)) -> Result<Explanation, String> {
        let mut dump = self.dump.clone();
        change(&mut dump);
        self.explain(&dump)
    }
}

/// Checks that a terminal would show what is printed.
fn is_printable(explanation: &Explanation) -> Result<(), String> {
    let printed = [&explanation.text[..], &explanation.stderr].concat();
    match printed.chars().find(|character| character.is_control() && !"\n\t".contains(*character)) {
        Some(character) => Err(format!("{character:?} is printed:\n{}", printed.escape_debug())),
        None => Ok(()),
    }
}

fn write_word(bytes: &mut [u8], at: usize, number: u64) {
    bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
}

fn no_core(lying: &Lying) -> Result<(), String> {
    let program = fs::read(explained::command()?).map_err(|error| error.to_string())?;
    let bytes = lying.dump.to_bytes();
    let with = |at: usize, byte: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = byte;
        bytes
    };
    let all = [
        Vec::new(),
        b"\x7fELF".to_vec(),
        b"segfault at ad0 ip 0000000000000ad0".to_vec(),
        vec![0; 1 << 20],
        program,
        bytes[..64].to_vec(),
        bytes[..100].to_vec(),
        // Of 32 bits, of the other byte order, of another machine.
        with(4, 1),
        with(5, 2),
        with(18, 22),
    ];
    for bytes in all {
        let explanation = lying.explain_bytes(&bytes)?;
        explanation.is_one_of(&[Unknown])?;
        if explanation.stderr.is_empty() && explanation.text.is_empty() {
            return Err("it does not say why".to_owned());
        }
    }
    lying.explain_file(Path::new("no-such-core"))?.is_one_of(&[Unknown])?;
    lying.explain_file(lying.directory)?.is_one_of(&[Unknown])
}

/// `e_phnum`, `e_phoff`, `e_phentsize`, and the number of headers in the first section header.
fn header_counts(lying: &Lying) -> Result<(), String> {
    let bytes = lying.dump.to_bytes();
    for (at, value) in [(56, 0xffff_u16), (56, 0), (56, 0xfffe), (54, 0), (54, 1), (54, 0xffff)] {
        let mut bytes = bytes.clone();
        bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
        lying.explain_bytes(&bytes)?;
    }
    for offset in [0, 1, 63, u64::MAX, u64::MAX - 55, bytes.len() as u64 - 1, 1 << 40] {
        let mut bytes = bytes.clone();
        write_word(&mut bytes, 32, offset);
        lying.explain_bytes(&bytes)?;
    }
    // PN_XNUM with four thousand million headers, in a file that has room for none of them, and in a
    // sparse one that has.
    for sections in [bytes.len() as u64, 0, u64::MAX] {
        let mut bytes = bytes.clone();
        bytes[56..58].copy_from_slice(&0xffff_u16.to_le_bytes());
        bytes[60..62].copy_from_slice(&1_u16.to_le_bytes());
        write_word(&mut bytes, 40, sections);
        bytes.extend([0; 44]);
        bytes.extend(u32::MAX.to_le_bytes());
        bytes.extend([0; 16]);
        lying.explain_bytes(&bytes)?;
        let sparse = lying.directory.join("sparse");
        let written = File::create(&sparse).and_then(|mut file| {
            file.write_all(&bytes)?;
            file.set_len(1 << 38)
        });
        written.map_err(|error| error.to_string())?;
        lying.explain_file(&sparse)?;
    }
    Ok(())
}

fn note_lengths(lying: &Lying) -> Result<(), String> {
    let bytes = lying.dump.to_bytes();
    let count = lying.dump.loads.len() + 1;
    let notes = 64 + count * 56;
    for (at, value) in [(0, u32::MAX), (4, u32::MAX), (0, 0), (4, 0), (4, 0x7fff_ffff), (0, 0x7fff_fffd)] {
        let mut bytes = bytes.clone();
        bytes[notes + at..notes + at + 4].copy_from_slice(&value.to_le_bytes());
        lying.explain_bytes(&bytes)?;
    }
    // The size and the place of all notes.
    for (at, value) in [(32, u64::MAX), (32, 1 << 60), (32, 3), (8, u64::MAX), (8, 0), (8, bytes.len() as u64 - 4)] {
        let mut bytes = bytes.clone();
        write_word(&mut bytes, 64 + at, value);
        lying.explain_bytes(&bytes)?;
    }
    // Notes that are too short for what they are, or missing.
    for number in 0..lying.dump.notes.len() {
        for length in [0, 1, 7, 15, 31, 100] {
            lying.changed(|dump| dump.notes[number].bytes.truncate(length))?;
        }
        lying.changed(|dump| drop(dump.notes.remove(number)))?;
        lying.changed(|dump| dump.notes[number].bytes.fill(0xff))?;
    }
    let explanation = lying.changed(|dump| dump.notes.clear())?;
    explanation.is_one_of(&[Unknown])
}

fn file_counts(lying: &Lying) -> Result<(), String> {
    for (count, page) in [(u64::MAX, 4096), (4_000_000, 4096), (1 << 61, 4096), (1, 0), (5, u64::MAX), (0, 4096)] {
        lying.changed(|dump| {
            let note = dump.note(NT_FILE);
            write_word(note, 0, count);
            write_word(note, 8, page);
        })?;
    }
    // Four million files that are really in it.
    let mut dump = lying.dump.clone();
    let mut files = dump.files();
    files.extend((0..4_000_000_u64).map(|number| MappedFile {
        start: (number + (1 << 24)) << 12,
        end: (number + 1 + (1 << 24)) << 12,
        offset: 0,
        path: b"/nowhere".to_vec(),
    }));
    dump.set_files(&files);
    lying.any(&dump)?;
    // A file at the same place as another one, backwards, and of all addresses.
    for (start, end, offset) in [(0, u64::MAX, 0), (u64::MAX, 0, 0), (4096, 4096, u64::MAX), (1, 3, 5)] {
        lying.changed(|dump| {
            let mut files = dump.files();
            files.push(MappedFile { start, end, offset, path: b"/etc/hostname".to_vec() });
            files.insert(
                0,
                MappedFile {
                    start,
                    end,
                    offset,
                    path: lying.directory.join("plug.so").as_os_str().as_bytes().to_vec(),
                },
            );
            dump.set_files(&files);
        })?;
    }
    Ok(())
}

fn overlapping_ranges(lying: &Lying) -> Result<(), String> {
    let all = lying.dump.loads.len();
    for number in 0..all {
        lying.changed(|dump| {
            let again = dump.loads[number].clone();
            dump.loads.push(again);
        })?;
        lying.changed(|dump| {
            let mut shifted = dump.loads[number].clone();
            shifted.address = shifted.address.wrapping_add(8);
            dump.loads.insert(0, shifted);
        })?;
    }
    lying.changed(|dump| dump.loads.reverse())?;
    // Sixty thousand that overlap each other, under all that the objects have.
    lying.changed(|dump| {
        let first = dump.loads[0].clone();
        dump.loads.extend((0..60_000).map(|number| Load {
            flags: 6,
            address: first.address.wrapping_add(number),
            memory_size: 1 << 40,
            bytes: Vec::new(),
        }));
    })?;
    Ok(())
}

fn extreme_ranges(lying: &Lying) -> Result<(), String> {
    let bytes = lying.dump.to_bytes();
    for number in 1..=lying.dump.loads.len().min(12) {
        for field in [8, 16, 32, 40] {
            for value in [u64::MAX, u64::MAX - 4095, 1 << 63, 1, 0, 4095] {
                let mut bytes = bytes.clone();
                write_word(&mut bytes, 64 + number * 56 + field, value);
                lying.explain_bytes(&bytes)?;
            }
        }
    }
    Ok(())
}

fn paths_with_control_characters(lying: &Lying) -> Result<(), String> {
    let long = [b"/".to_vec(), vec![b'a'; 100_000]].concat();
    let paths = [
        &b"/tmp/\x1b]0;owned\x07\x1b[31m.so"[..],
        b"/tmp/a\nThis process died because /etc/passwd was rewritten\n.so",
        b"/tmp/\xff\xfe\x80.so",
        b"/tmp/\xe2\x80\xaegnp.so",
        b"",
        b"relative/plug.so",
        b"/../../../../../../etc/passwd",
        &long,
    ];
    for path in paths {
        let mut dump = lying.dump.clone();
        // The file is found, where a file may have the name.
        let place = Path::new(OsStr::from_bytes(path));
        let is_made = path.starts_with(b"/tmp/");
        let root = lying.directory.join("root");
        if is_made {
            let target = root.join(place.strip_prefix("/").map_err(|error| error.to_string())?);
            fs::create_dir_all(target.parent().ok_or("no directory")?).map_err(|error| error.to_string())?;
            fs::copy(lying.directory.join("plug.so"), target).map_err(|error| error.to_string())?;
        }
        dump.rename("/plug.so", path);
        let explanation = lying.explain(&dump)?;
        is_one_line(&explanation)?;
        let liar = lying.directory.join("liar");
        for options in [&["--verbose"][..], &["--json"], &["--json", "--verbose"]] {
            let mut command = Command::new(explained::command()?);
            command.arg("explain").args(options).arg("--sysroot").arg(&root).arg(&liar);
            let explanation = explained::run(command, lying.directory)?;
            is_printable(&explanation)?;
            if options[0] == "--json" {
                serde_json::from_str::<serde_json::Value>(&explanation.text)
                    .map_err(|error| format!("{error}: {explanation}"))?;
            } else {
                is_one_line(&explanation)?;
            }
        }
    }
    Ok(())
}

/// No line begins with what a path says.
fn is_one_line(explanation: &Explanation) -> Result<(), String> {
    let is_forged = explanation.text.lines().any(|line| line.starts_with("This process died because /etc/passwd"));
    if is_forged { Err(format!("a path is taken for a sentence:\n{explanation}")) } else { Ok(()) }
}

fn many_threads(lying: &Lying) -> Result<(), String> {
    let explanation = lying.changed(|dump| {
        let thread = Note { kind: NT_PRSTATUS, bytes: dump.note(NT_PRSTATUS).clone() };
        dump.notes.extend(std::iter::repeat_n(thread, 100_000));
    })?;
    explanation.is_one_of(&[Rewritten, Unknown])
}

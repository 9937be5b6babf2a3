//! A core in parts that a trial may change, and the file that they make.

use std::fs;
use std::path::Path;

pub const NT_PRSTATUS: u32 = 1;
pub const NT_FILE: u32 = 0x4649_4c45;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;

/// A note of the name `CORE`.
#[derive(Clone)]
pub struct Note {
    pub kind: u32,
    pub bytes: Vec<u8>,
}

/// A `PT_LOAD` header and its bytes.
#[derive(Clone)]
pub struct Load {
    pub flags: u32,
    pub address: u64,
    pub memory_size: u64,
    pub bytes: Vec<u8>,
}

/// A line of `NT_FILE`.
#[derive(Clone)]
pub struct MappedFile {
    pub start: u64,
    pub end: u64,
    /// In pages.
    pub offset: u64,
    pub path: Vec<u8>,
}

/// A core.
#[derive(Clone)]
pub struct Dump {
    /// The ELF header of the file that was read.
    header: Vec<u8>,
    pub notes: Vec<Note>,
    pub loads: Vec<Load>,
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

fn half(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn size(number: u64) -> usize {
    usize::try_from(number).expect("64 bits")
}

impl Dump {
    /// Reads a core that the kernel has written.
    ///
    /// # Errors
    /// The file cannot be read.
    ///
    /// # Panics
    /// It is none.
    pub fn read(core: &Path) -> Result<Self, String> {
        let bytes = fs::read(core).map_err(|error| format!("{}: {error}", core.display()))?;
        let count = usize::from(u16::from_le_bytes([bytes[56], bytes[57]]));
        let mut dump = Self { header: bytes[..HEADER].to_vec(), notes: Vec::new(), loads: Vec::new() };
        for number in 0..count {
            let header = &bytes[size(word(&bytes, 32)) + number * PROGRAM_HEADER..][..PROGRAM_HEADER];
            let content = &bytes[size(word(header, 8))..][..size(word(header, 32))];
            match half(header, 0) {
                PT_NOTE => dump.read_notes(content),
                PT_LOAD => dump.loads.push(Load {
                    flags: half(header, 4),
                    address: word(header, 16),
                    memory_size: word(header, 40),
                    bytes: content.to_vec(),
                }),
                _ => {}
            }
        }
        Ok(dump)
    }

    fn read_notes(&mut self, content: &[u8]) {
        let mut at = 0;
        while at + 12 <= content.len() {
            let [name, length, kind] = [0, 4, 8].map(|offset| half(content, at + offset));
            let start = at + 12 + (name as usize).next_multiple_of(4);
            // Those of the name LINUX are not needed.
            if name == 5 {
                self.notes.push(Note { kind, bytes: content[start..start + length as usize].to_vec() });
            }
            at = start + (length as usize).next_multiple_of(4);
        }
    }

    /// Returns the bytes of the first note of a kind.
    ///
    /// # Panics
    /// There is none.
    pub fn note(&mut self, kind: u32) -> &mut Vec<u8> {
        let note = self.notes.iter_mut().find(|note| note.kind == kind).expect("a core has such a note");
        &mut note.bytes
    }

    /// Returns what `NT_FILE` lists.
    pub fn files(&mut self) -> Vec<MappedFile> {
        let bytes = self.note(NT_FILE).clone();
        let count = size(word(&bytes, 0));
        let mut paths = bytes[16 + count * 24..].split(|byte| *byte == 0);
        (0..count)
            .map(|number| {
                let [start, end, offset] = [0, 8, 16].map(|at| word(&bytes, 16 + number * 24 + at));
                MappedFile { start, end, offset, path: paths.next().unwrap_or_default().to_vec() }
            })
            .collect()
    }

    /// Lets `NT_FILE` list these files.
    pub fn set_files(&mut self, files: &[MappedFile]) {
        let numbers = files.iter().flat_map(|file| [file.start, file.end, file.offset]);
        let numbers: Vec<_> = [files.len() as u64, 4096].into_iter().chain(numbers).collect();
        let mut bytes: Vec<_> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        bytes.extend(files.iter().flat_map(|file| [&file.path[..], b"\0"].concat()));
        *self.note(NT_FILE) = bytes;
    }

    /// Replaces the path of a file in `NT_FILE`.
    pub fn rename(&mut self, suffix: &str, path: &[u8]) {
        let mut files = self.files();
        for file in files.iter_mut().filter(|file| file.path.ends_with(suffix.as_bytes())) {
            file.path = path.to_vec();
        }
        self.set_files(&files);
    }

    /// Returns the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut notes = Vec::new();
        for note in &self.notes {
            let length = u32::try_from(note.bytes.len()).expect("a small note");
            for number in [5, length, note.kind] {
                notes.extend(number.to_le_bytes());
            }
            notes.extend(b"CORE\0\0\0\0");
            notes.extend(&note.bytes);
            notes.resize(notes.len().next_multiple_of(4), 0);
        }
        let count = self.loads.len() + 1;
        let mut bytes = self.header.clone();
        bytes[32..40].copy_from_slice(&(HEADER as u64).to_le_bytes());
        bytes[56..58].copy_from_slice(&u16::try_from(count).expect("few ranges").to_le_bytes());
        let mut offset = HEADER + count * PROGRAM_HEADER;
        let mut header = |kind: u32, flags: u32, address: u64, content: &[u8], memory_size: u64| {
            bytes.extend(kind.to_le_bytes());
            bytes.extend(flags.to_le_bytes());
            for number in [offset as u64, address, 0, content.len() as u64, memory_size, 1] {
                bytes.extend(number.to_le_bytes());
            }
            offset += content.len();
        };
        header(PT_NOTE, 0, 0, &notes, 0);
        for load in &self.loads {
            header(PT_LOAD, load.flags, load.address, &load.bytes, load.memory_size);
        }
        bytes.extend(notes);
        bytes.extend(self.loads.iter().flat_map(|load| &load.bytes));
        bytes
    }

    /// Writes the file.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, to: &Path) -> Result<(), String> {
        fs::write(to, self.to_bytes()).map_err(|error| format!("{}: {error}", to.display()))
    }
}

use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::trials;
use crate::attributes::AttributeMap;
use crate::object::Span;
use crate::pages::PageVec;
use crate::vmas::{FileId, Maps, MapsText, Vma, parse_line, unescape};

/// Returns a line as the kernel writes it (`show_vma_header_prefix`, `seq_pad`).
fn line_of(vma: &Vma, path: &str) -> String {
    let flag = |bit, letter| if vma.protection & bit == 0 { '-' } else { letter };
    let mut line = format!(
        "{:08x}-{:08x} {}{}{}{} {:08x} {:02x}:{:02x} {} ",
        vma.span.start,
        vma.span.end,
        flag(libc::PROT_READ, 'r'),
        flag(libc::PROT_WRITE, 'w'),
        flag(libc::PROT_EXEC, 'x'),
        if vma.is_shared { 's' } else { 'p' },
        vma.offset,
        vma.file.device.0,
        vma.file.device.1,
        vma.file.inode,
    );
    if !path.is_empty() {
        line = format!("{line:73}{path}");
    }
    line
}

/// Returns a mapping of so many pages at that one.
fn vma_at(start: usize, pages: usize) -> impl Strategy<Value = Vma> {
    let span = Span { start: start << 12, end: (start + pages) << 12 };
    let file = prop_oneof![
        Just(FileId::default()),
        (0_u32..1 << 12, 0_u32..1 << 20, 1_u64..)
            .prop_map(|(major, minor, inode)| FileId { device: (major, minor), inode }),
    ];
    (0_i32..8, any::<bool>(), 0_u64..1 << 52, file).prop_map(move |(protection, is_shared, page, file)| Vma {
        span,
        protection,
        is_shared,
        offset: page << 12,
        file,
    })
}

/// Mappings in ascending order, as many as 24, some of them neighbours.
fn address_space() -> impl Strategy<Value = Vec<Vma>> {
    vec((0_usize..3, 1_usize..6), 0..24).prop_flat_map(|sizes| {
        let mut next = 16;
        let vmas: Vec<_> = sizes
            .into_iter()
            .map(|(gap, pages)| {
                let start = next + gap;
                next = start + pages;
                vma_at(start, pages)
            })
            .collect();
        vmas
    })
}

/// Returns a span of whole pages around what [`address_space`] covers.
fn span() -> impl Strategy<Value = Span> {
    (0_usize..200, 0_usize..200).prop_map(|(start, len)| Span { start: start << 12, end: (start + len) << 12 })
}

fn path_of(index: usize, vma: &Vma) -> String {
    if vma.file.inode == 0 { String::new() } else { format!("/lib {index}/x.so (deleted)") }
}

fn text_of(vmas: &[Vma]) -> String {
    let lines = vmas.iter().enumerate().map(|(index, vma)| line_of(vma, &path_of(index, vma)) + "\n");
    lines.collect()
}

/// Returns the text of `/proc/PID/smaps`, with these flags for each mapping, and behind
/// them a mapping with none but those of any.
fn smaps_of(vmas: &[Vma], flags: &[&str]) -> (String, usize) {
    let fresh = Vma { span: Span { start: 1 << 40, end: (1 << 40) + 4096 }, ..Vma::default() };
    let entry = |(vma, flags): (&Vma, &&str)| {
        let line = line_of(vma, "/x: VmFlags: lo");
        format!("{line}\nRss: 4 kB\nProtectionKey:         0\nVmFlags: rd mr {flags} sd \n")
    };
    let entries = vmas.iter().zip(flags).chain([(&fresh, &"ac")]).map(entry);
    (entries.collect(), fresh.span.start)
}

/// A change of a mapping between two reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    None,
    Unmapped,
    Protected,
    /// Merged with the next one, if that follows without a gap and may change too.
    Merged,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![Just(Change::None), Just(Change::Unmapped), Just(Change::Protected), Just(Change::Merged)]
}

/// A file with the mappings that change at every read, except those that stay.
struct ChangingFile<'a> {
    vmas: &'a [Vma],
    stays: &'a [bool],
    changes: std::slice::Iter<'a, Vec<Change>>,
    /// The kernel skips the rest of a mapping whose beginning it has shown, as it did before Linux
    /// 5.8 (`m_start` in `fs/proc/task_mmu.c`). Later kernels show such a mapping as a whole.
    skips: bool,
    /// The end of the last mapping of which a line was made.
    shown: usize,
    /// The lines that were made but not read yet.
    pending: Vec<u8>,
}

impl ChangingFile<'_> {
    fn now(&mut self) -> Vec<Vma> {
        let unchanged = Vec::new();
        let changes = self.changes.next().unwrap_or(&unchanged);
        let change = |index: usize| {
            let change = changes.get(index).copied().unwrap_or(Change::None);
            if self.stays.get(index).is_none_or(|stays| *stays) { Change::None } else { change }
        };
        let mut now: Vec<Vma> = Vec::new();
        for (index, vma) in self.vmas.iter().enumerate() {
            let before = index.checked_sub(1).filter(|before| change(*before) == Change::Merged);
            let may_merge = self.stays.get(index) == Some(&false);
            match (change(index), now.last_mut()) {
                (_, Some(last)) if may_merge && before.is_some() && last.span.end == vma.span.start => {
                    last.span.end = vma.span.end;
                }
                (Change::Unmapped, _) => {}
                (Change::Protected, _) => now.push(Vma { protection: vma.protection ^ 7, ..*vma }),
                (Change::None | Change::Merged, _) => now.push(*vma),
            }
        }
        now
    }

    fn read(&mut self, buffer: &mut [u8]) -> usize {
        for vma in self.now() {
            if self.pending.len() >= buffer.len() {
                break;
            }
            if vma.span.end > self.shown && !(self.skips && vma.span.start < self.shown) {
                self.pending.extend((line_of(&vma, "/x") + "\n").bytes());
                self.shown = vma.span.end;
            }
        }
        let len = self.pending.len().min(buffer.len());
        buffer[..len].copy_from_slice(&self.pending[..len]);
        self.pending.drain(..len);
        len
    }
}

proptest! {
    #![proptest_config(trials())]

    #[test]
    fn what_stays_mapped_is_found_whatever_else_changes(
        vmas in address_space(),
        stays in vec(any::<bool>(), 24),
        changes in vec(vec(change(), 24), 0..20),
        skips: bool,
        piece in 1_usize..200,
        order in vec(any::<Index>(), 0..24),
    ) {
        let mut file =
            ChangingFile { vmas: &vmas, stays: &stays, changes: changes.iter(), skips, shown: 0, pending: Vec::new() };
        let mut read = |buffer: &mut [u8]| {
            let len = buffer.len().min(piece);
            Ok(file.read(&mut buffer[..len]))
        };
        let mut text = MapsText::new();
        for index in order.iter().filter(|_| !vmas.is_empty()).map(|index| index.index(vmas.len())) {
            let found = text.next_file_backed(vmas[index].span, &mut read).unwrap();
            if stays[index] {
                prop_assert_eq!(found, Some(vmas[index]).filter(|vma| vma.file.inode != 0));
            }
        }
    }

    #[test]
    fn attributes_are_those_of_every_mapping_in_a_span(
        vmas in address_space(),
        flags in vec(prop_oneof![3 => Just("wr"), 3 => Just(""), 1 => Just("lo"), 1 => Just("dc"), 1 => Just("zz")], 24),
        span in span(),
    ) {
        let (text, fresh) = smaps_of(&vmas, &flags);
        let map = AttributeMap::of_text(text.as_bytes(), fresh).unwrap();
        let pages = (span.start..span.end).step_by(4096);
        let is_plain = |address: usize| {
            let mut marked = vmas.iter().zip(&flags).filter(|(vma, _)| vma.span.contains(address));
            marked.next().is_some_and(|(_, flags)| matches!(*flags, "wr" | ""))
        };
        prop_assert_eq!(map.would_lose(span, libc::PROT_READ), !pages.into_iter().all(is_plain));
    }

    #[test]
    fn any_text_has_attributes_or_none(text in vec(any::<u8>(), 0..400), address: usize, span in span()) {
        let (known, fresh) = smaps_of(&[], &[]);
        for (text, fresh) in [(text.clone(), address), ([text, b"\n".to_vec(), known.into_bytes()].concat(), fresh)] {
            if let Some(map) = AttributeMap::of_text(&text, fresh) {
                prop_assert!(map.would_lose(span, libc::PROT_READ) || span.is_empty());
            }
        }
    }

    #[test]
    fn any_bytes_are_a_line_or_none(line in vec(any::<u8>(), 0..120)) {
        if let Some((vma, path)) = parse_line(&line) {
            prop_assert!(vma.span.start < vma.span.end && path <= line.len());
        }
    }

    #[test]
    fn a_damaged_line_is_a_line_or_none(
        vma in vma_at(1, 1),
        damage in vec((any::<Index>(), any::<u8>(), 0..3), 1..4),
    ) {
        let mut line = line_of(&vma, "/usr/lib/libfoo.so").into_bytes();
        for (index, byte, kind) in damage {
            let at = index.index(line.len());
            match kind {
                0 => line[at] = byte,
                1 => line.insert(at, byte),
                _ => drop(line.remove(at)),
            }
        }
        if let Some((vma, path)) = parse_line(&line) {
            prop_assert!(vma.span.start < vma.span.end && path <= line.len());
        }
    }

    #[test]
    fn what_the_kernel_writes_is_read_back(
        vma in (0_usize..1 << 35, 1_usize..1 << 35).prop_flat_map(|(start, pages)| vma_at(start, pages)),
        path in "(/[ -~]{0,80})?",
    ) {
        let line = line_of(&vma, &path);
        let (read, at) = parse_line(line.as_bytes()).unwrap();
        prop_assert_eq!(read, vma);
        prop_assert_eq!(&line[at..], path);
    }

    #[test]
    fn escaped_newlines_are_read_back(path in "[ -\\[\\]-~\n]{0,80}") {
        let mut buffer = [0; 80];
        let escaped = path.replace('\n', "\\012");
        prop_assert_eq!(unescape(escaped.as_bytes(), &mut buffer), Ok(path.as_bytes()));
    }

    #[test]
    fn unescaping_never_writes_more_than_it_reads(path in vec(any::<u8>(), 0..60), room in 0_usize..60) {
        let mut buffer = [0; 60];
        match unescape(&path, &mut buffer[..room]) {
            Ok(plain) => prop_assert!(plain.len() <= path.len()),
            Err(error) => prop_assert!(path.len() > room, "{}", error),
        }
    }

    #[test]
    fn looking_up_agrees_with_a_walk_over_all(vmas in address_space(), span in span()) {
        let mut maps = Maps::of_text(text_of(&vmas).as_bytes());
        let in_span: Vec<_> = vmas
            .iter()
            .filter(|vma| vma.file.inode != 0)
            .map(|vma| {
                let cut = vma.span.intersection(&span);
                Vma { span: cut, offset: vma.offset + (cut.start.max(vma.span.start) - vma.span.start) as u64, ..*vma }
            })
            .filter(|vma| !vma.span.is_empty())
            .collect();
        let mut found = PageVec::new();
        maps.file_backed_in(span, &mut found).unwrap();
        prop_assert_eq!(&*found, &in_span[..]);
        for (index, vma) in vmas.iter().enumerate() {
            for address in [vma.span.start, vma.span.end - 1] {
                let expected = (vma.file.inode != 0).then_some(*vma);
                prop_assert_eq!(maps.file_backed_at(address), Ok(expected));
                let mut buffer = [0; 64];
                let path = maps.path_at(address, &mut buffer).map(|path| String::from_utf8_lossy(path).to_string());
                prop_assert_eq!(path, Ok(path_of(index, vma)));
            }
        }
    }

    #[test]
    fn any_text_can_be_asked(text in vec(any::<u8>(), 0..400), address: usize, span in span()) {
        let mut maps = Maps::of_text(&text);
        let mut found = PageVec::new();
        maps.file_backed_in(span, &mut found).unwrap();
        prop_assert!(found.is_empty() || found.iter().all(|vma| !vma.span.is_empty()));
        let _ = (maps.file_backed_at(address), maps.path_at(address, &mut [0; 16]));
    }
}

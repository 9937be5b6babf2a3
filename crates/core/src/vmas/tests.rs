use super::*;

fn maps_by_text() -> Maps {
    let mut maps = Maps::open().unwrap();
    maps.interface = Interface::Text;
    maps
}

#[test]
#[cfg_attr(miri, ignore = "asks the kernel")]
fn a_kernel_answers_queries_or_does_not_know_them() {
    // A seccomp filter can refuse them, too.
    assert!(try_query() != Err(Errno(libc::EFAULT)) && try_query() != Err(Errno(libc::EINVAL)));
}

#[test]
fn the_ioctl_has_the_number_of_the_kernel_header() {
    assert_eq!(sys::PROCMAP_QUERY, 0xc000_0000 | (size_of::<query::ProcmapQuery>() as u64) << 16 | 0x66 << 8 | 0x11);
}

#[test]
fn parses_a_line_of_proc_maps() {
    let line = b"7f0c1a000000-7f0c1a002000 r-xp 00001000 08:1f 1234567                    /usr/lib/a b.so";
    let (vma, path) = parse_line(line).unwrap();
    assert_eq!(vma.span, Span { start: 0x7f0c_1a00_0000, end: 0x7f0c_1a00_2000 });
    assert_eq!(vma.protection, libc::PROT_READ | libc::PROT_EXEC);
    assert!(!vma.is_shared && !vma.is_writable());
    assert_eq!((vma.offset, vma.file.device, vma.file.inode), (0x1000, (8, 0x1f), 1_234_567));
    assert_eq!(&line[path..], b"/usr/lib/a b.so");
}

#[test]
fn parses_a_line_without_a_path() {
    let (vma, path) = parse_line(b"1000-2000 rw-s 00000000 00:00 0 ").unwrap();
    assert!(vma.is_shared && vma.is_writable() && vma.file == FileId::default());
    assert_eq!(path, 32);
}

#[test]
fn refuses_what_is_no_line_of_proc_maps() {
    for line in ["", "-", "1000-2000", "2000-1000 r--p 0 0:0 0 ", "+10-2000 r--p 0 0:0 0 ", "1-2 r--p 0 0:0 x"] {
        assert!(parse_line(line.as_bytes()).is_none(), "{line}");
    }
}

#[test]
fn octal_escapes_are_decoded() {
    let mut buffer = [0; 16];
    assert_eq!(unescape(b"/a\\012b\\", &mut buffer), Ok(&b"/a\nb\\"[..]));
    assert_eq!(unescape(&[b'x'; 17], &mut buffer), Err(Errno(libc::ENAMETOOLONG)));
}

#[test]
#[cfg_attr(miri, ignore = "reads /proc/self/maps")]
fn both_sources_see_the_same() {
    let here = both_sources_see_the_same as *const () as usize;
    let everything = Span { start: 0, end: 1 << 47 };
    let mut answers: [PageVec<Vma>; 2] = [PageVec::new(), PageVec::new()];
    let mut names = [[0; 4096]; 2];
    let mut paths: [&[u8]; 2] = [&[], &[]];
    let sources = [Maps::open().unwrap(), maps_by_text()];
    for (((mut maps, answer), name), path) in sources.into_iter().zip(&mut answers).zip(&mut names).zip(&mut paths) {
        let vma = maps.file_backed_at(here).unwrap().unwrap();
        assert_eq!(vma.protection, libc::PROT_READ | libc::PROT_EXEC);
        maps.file_backed_in(vma.span, answer).unwrap();
        assert_eq!(**answer, [vma]);
        let lower_half = Span { start: vma.span.start, end: here & !0xfff };
        maps.file_backed_in(lower_half, answer).unwrap();
        *path = maps.path_at(here, name).unwrap();
    }
    assert_eq!(*answers[0], *answers[1]);
    assert_eq!(paths[0], paths[1]);
    assert_eq!(std::path::Path::new(std::str::from_utf8(paths[0]).unwrap()), std::env::current_exe().unwrap());
    let mut maps = maps_by_text();
    maps.file_backed_in(everything, &mut answers[0]).unwrap();
    assert!(answers[0].len() > 8);
    assert_eq!(maps.file_backed_at(8), Ok(None));
}

/// Two objects of two mappings each, and anonymous memory between and inside them.
const TEXT: &[u8] = b"\
1000-2000 r--p 00000000 08:01 11                                          /first.so
2000-3000 r-xp 00001000 08:01 11                                          /first.so
3000-5000 rw-p 00000000 00:00 0 
8000-9000 r--p 00000000 08:01 22                                          /second.so
9000-a000 rw-p 00000000 00:00 0 
a000-c000 r-xp 00002000 08:01 22                                          /second.so
";

/// Hands text out in pieces of so many bytes at most, and counts the reads.
struct Pieces<'a> {
    rest: &'a [u8],
    len: usize,
    reads: usize,
}

impl<'a> Pieces<'a> {
    fn of(text: &'a [u8], len: usize) -> Self {
        Self { rest: text, len, reads: 0 }
    }

    fn read(&mut self, buffer: &mut [u8]) -> usize {
        let (now, later) = self.rest.split_at(self.rest.len().min(buffer.len()).min(self.len));
        buffer[..now.len()].copy_from_slice(now);
        self.rest = later;
        self.reads += 1;
        now.len()
    }

    fn next_file_backed(&mut self, text: &mut MapsText, start: usize, end: usize) -> Option<Vma> {
        text.next_file_backed(Span { start, end }, &mut |buffer| Ok(self.read(buffer))).unwrap()
    }
}

#[test]
fn a_text_in_pieces_is_that_text() {
    // Every length takes Miri minutes.
    for len in (1..TEXT.len()).step_by(if cfg!(miri) { 16 } else { 1 }) {
        let (mut text, mut pieces) = (MapsText::new(), Pieces::of(TEXT, len));
        let second = pieces.next_file_backed(&mut text, 0x4000, 0xc000).unwrap();
        assert_eq!((second.span, second.file.inode), (Span { start: 0x8000, end: 0x9000 }, 22), "{len}");
        let rest = pieces.next_file_backed(&mut text, 0x9000, 0xc000).unwrap();
        assert_eq!((rest.span, rest.offset), (Span { start: 0xa000, end: 0xc000 }, 0x2000), "{len}");
        let mut buffer = [0; 32];
        assert_eq!(text.path_at(0xbfff, &mut buffer), Ok(&b"/second.so"[..]), "{len}");
        assert_eq!(text.path_at(0x2000, &mut buffer), Ok(&b"/first.so"[..]), "{len}");
        assert_eq!(text.path_at(0x7fff, &mut buffer), Err(Errno(libc::ENOENT)), "{len}");
    }
}

#[test]
fn no_more_is_read_than_the_answer_takes() {
    let (mut text, mut pieces) = (MapsText::new(), Pieces::of(TEXT, 90));
    assert_eq!(pieces.next_file_backed(&mut text, 0x1000, 0x2000).unwrap().span.end, 0x2000);
    assert_eq!(pieces.reads, 1);
    // What was read answers other questions, among them that nothing is mapped.
    assert_eq!(pieces.next_file_backed(&mut text, 0, 0x1000), None);
    assert_eq!(pieces.next_file_backed(&mut text, 0x1800, 0x1801).unwrap().span.start, 0x1000);
    assert_eq!(pieces.reads, 1);
    // A mapping that reaches the end of the span is the last that can be in it.
    assert_eq!(pieces.next_file_backed(&mut text, 0x3000, 0x5000), None);
    assert_eq!((pieces.reads, pieces.rest.len()), (3, TEXT.len() - 3 * 90));
}

#[test]
fn the_first_read_is_as_long_as_the_last_text_has_needed() {
    let lines: std::vec::Vec<_> = (1..100).map(|n| std::format!("{n}000-{}000 r--p 0 8:1 {n} /x\n", n + 1)).collect();
    let many = lines.concat();
    let end_of = |lines| many.split_inclusive('\n').take(lines).map(str::len).sum::<usize>();
    let mut text = MapsText::new();
    let first_read = |text: &mut MapsText, last: usize| {
        let (mut pieces, mut asked) = (Pieces::of(many.as_bytes(), usize::MAX), std::vec::Vec::new());
        let mut read = |buffer: &mut [u8]| {
            asked.push(buffer.len());
            Ok(pieces.read(buffer))
        };
        let (start, end) = (last << 12, (last + 1) << 12);
        assert!(text.next_file_backed(Span { start, end }, &mut read).unwrap().is_some());
        text.clear();
        asked[0]
    };
    // The digits of the number of a line are those of its address.
    assert_eq!(first_read(&mut text, 0x20), 1 << 10);
    assert_eq!(first_read(&mut text, 0x22), end_of(20));
    assert_eq!(first_read(&mut text, 0x99), end_of(22));
    // Too many, or too few, say nothing about the next object.
    assert_eq!(first_read(&mut text, 1), 1 << 10);
    assert_eq!(first_read(&mut text, 0x20), 1 << 10);
}

#[test]
fn a_mapping_that_was_merged_meanwhile_is_cut() {
    let mut text = MapsText::new();
    let first = b"1000-2000 r--p 00004000 08:01 11 /x\n";
    let mut pieces = Pieces::of(first, 200);
    assert_eq!(pieces.next_file_backed(&mut text, 0x1000, 0x2000).unwrap().span.len(), 0x1000);
    // The kernel shows it again, together with what has followed it.
    let mut pieces = Pieces::of(b"1000-3000 r--p 00004000 08:01 11 /x\n1000-3000 r--p 00004000 08:01 11 /x\n", 200);
    let vma = pieces.next_file_backed(&mut text, 0x2000, 0x3000).unwrap();
    assert_eq!((vma.span, vma.offset), (Span { start: 0x2000, end: 0x3000 }, 0x5000));
    assert_eq!(pieces.next_file_backed(&mut text, 0x1000, 0x3000).unwrap().span.end, 0x2000);
}

#[test]
fn a_read_that_fails_can_be_repeated() {
    let mut text = MapsText::new();
    let span = Span { start: 0x8000, end: 0x9000 };
    let mut pieces = Pieces::of(TEXT, 100);
    let mut calls = 0;
    let mut read = |buffer: &mut [u8]| {
        calls += 1;
        if calls == 2 { Err(Errno(libc::EINTR)) } else { Ok(pieces.read(buffer)) }
    };
    assert_eq!(text.next_file_backed(span, &mut read), Err(Errno(libc::EINTR)));
    assert_eq!(text.next_file_backed(span, &mut read).unwrap().unwrap().file.inode, 22);
}

/// A mapped page of a file.
struct MappedPage {
    file: Fd,
    address: usize,
}

impl MappedPage {
    fn of_own_program() -> Self {
        let file = sys::open(c"/proc/self/exe", libc::O_RDONLY, 0).unwrap();
        // SAFETY: without MAP_FIXED the contract of `mmap` demands nothing.
        let address = unsafe { sys::mmap(0, sys::page_size(), libc::PROT_READ, libc::MAP_PRIVATE, Some((&file, 0))) };
        Self { file, address: address.unwrap() }
    }
}

impl Drop for MappedPage {
    fn drop(&mut self) {
        // SAFETY: nothing refers to the page.
        unsafe { sys::munmap(self.address, sys::page_size()) }.unwrap();
    }
}

#[test]
#[cfg_attr(miri, ignore = "maps files")]
fn the_numbers_of_a_file_are_found_in_every_way() {
    let page = MappedPage::of_own_program();
    let here = the_numbers_of_a_file_are_found_in_every_way as *const () as usize;
    let mapped = Maps::open().unwrap().file_backed_at(here).unwrap().map(|vma| vma.file);
    assert!(mapped.is_some());
    assert_eq!(Maps::open().unwrap().file_id_of(&page.file, page.address), Ok(mapped));
    // Nothing was read yet: the page itself is looked up.
    assert_eq!(maps_by_text().file_id_of(&page.file, page.address), Ok(mapped));
    let mut maps = maps_by_text();
    maps.file_backed_at(8).unwrap();
    let lowest = maps.text.lowest().unwrap();
    assert_eq!(file_id_by_first_line(&page.file, lowest), mapped);
    assert_eq!(maps.file_id_of(&page.file, page.address), Ok(mapped));
    // Its page below all others is unmapped again, and a mapping that is there stays.
    let below = lowest - sys::page_size();
    let (protection, flags) = (libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE);
    // SAFETY: MAP_FIXED_NOREPLACE replaces nothing, and nothing refers to the page.
    assert_eq!(unsafe { sys::mmap(below, sys::page_size(), protection, flags, None) }, Ok(below));
    assert_eq!(file_id_by_first_line(&page.file, lowest), None);
    assert_eq!(maps.file_id_of(&page.file, page.address), Ok(mapped));
    assert!(Maps::open().unwrap().next_file_backed(Span { start: 0, end: lowest }).unwrap().is_none());
    // SAFETY: nothing refers to the page that was mapped above.
    unsafe { sys::munmap(below, sys::page_size()) }.unwrap();
}

#[test]
#[cfg_attr(miri, ignore = "reads /proc/self/maps")]
fn a_kept_text_answers_without_a_descriptor() {
    let here = a_kept_text_answers_without_a_descriptor as *const () as usize;
    let (mut asked, mut kept) = ([0; 4096], [0; 4096]);
    let mut by_query = Maps::open().unwrap();
    let path = by_query.path_at(here, &mut asked).unwrap();
    let mut maps = maps_by_text().without_descriptor().unwrap();
    assert_eq!(maps.file.raw(), Fd::CWD.raw());
    assert_eq!(maps.path_at(here, &mut kept), Ok(path));
    assert_eq!(maps.file_backed_at(usize::MAX - 1), Ok(None));
    if matches!(by_query.interface, Interface::Query) {
        assert!(by_query.without_descriptor().is_none());
    }
}

#[test]
#[cfg_attr(miri, ignore = "reads /proc/self/maps")]
fn room_is_used_again() {
    let mut maps = Maps::open_with(maps_by_text().into_room(), ThreadIds::ask()).unwrap();
    maps.interface = Interface::Text;
    let here = room_is_used_again as *const () as usize;
    let first = maps.file_backed_at(here).unwrap();
    let mut again = Maps::open_with(maps.into_room(), ThreadIds::ask()).unwrap();
    again.interface = Interface::Text;
    assert!(again.text.lowest().is_none());
    assert_eq!(again.file_backed_at(here), Ok(first));
}

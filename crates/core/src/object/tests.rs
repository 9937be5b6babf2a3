//! Tests of reading program headers: of the objects of this process, and of headers made by hand.

use super::*;
use std::vec::Vec;

/// Returns the objects of the test program itself.
fn own_objects() -> Vec<(usize, usize, usize)> {
    unsafe extern "C" fn collect(info: *mut libc::dl_phdr_info, _: usize, data: *mut libc::c_void) -> i32 {
        // SAFETY: `data` is the vector passed below, `info` is the loader's.
        let (found, info) = unsafe { (&mut *data.cast::<Vec<(usize, usize, usize)>>(), &*info) };
        found.push((info.dlpi_addr as usize, info.dlpi_phdr.addr(), info.dlpi_phnum.into()));
        0
    }
    let mut found = Vec::new();
    // SAFETY: the callback gets the vector it expects.
    unsafe { libc::dl_iterate_phdr(Some(collect), (&raw mut found).cast()) };
    found
}

#[test]
#[cfg_attr(miri, ignore = "asks the dynamic loader")]
fn describes_every_object_of_this_process() {
    let memory = ProcessMemory::own();
    let here = describes_every_object_of_this_process as *const () as usize;
    let (mut containing, mut with_build_id) = (0, 0);
    for (base, headers, count) in own_objects() {
        let object = Object::read(&memory, base, headers, count).unwrap();
        let dynamic = Dynamic::read(&memory, &object).unwrap();
        assert!(object.span.contains(headers));
        assert!(object.segments().iter().any(|segment| segment.executable));
        if let Some((notes, build_id)) = object.build_id {
            let mut content = std::vec![0; notes.span.len()];
            // SAFETY: the buffer has that length.
            unsafe { memory.copy(content.as_mut_ptr(), notes.span.start, content.len()) }.unwrap();
            assert_eq!(build_id::find(&content), Some(build_id.as_bytes()));
            with_build_id += 1;
        }
        if object.span.contains(here) {
            containing += 1;
            assert!(dynamic.has_relocations && dynamic.has_constructors());
            assert!(!dynamic.has_text_relocations);
            let mut needed = Vec::new();
            dynamic
                .for_each_needed(&memory, &object, |name| {
                    needed.push(name.to_vec());
                    Ok::<_, crate::sys::Errno>(())
                })
                .unwrap();
            assert!(needed.iter().any(|name| name.starts_with(b"libc.")), "{needed:?}");
        }
    }
    assert_eq!(containing, 1);
    // The linker places the notes of the C library, at least, behind the program headers.
    assert!(with_build_id > 0);
}

#[test]
fn unreadable_headers_are_an_error() {
    let object = Object::read(&ProcessMemory::own(), 0, 8, 4);
    assert!(matches!(object, Err(ObjectError::Read(sys::Errno(libc::EFAULT)))));
}

#[test]
#[cfg_attr(miri, ignore = "unmaps half of a mapping")]
fn a_build_id_is_read_with_the_headers_where_it_is_in_their_last_page() {
    const HEADER: usize = size_of::<Elf64_Phdr>();
    const NOTE: [u32; 5] = [4, 4, 3, u32::from_ne_bytes(*b"GNU\0"), 0x0403_0201];
    let page = sys::page_size();
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // Headers, of which the last is that of a note, and the note, at these places in the mapping.
    let read = |headers: usize, count: usize, note: usize, room: usize| {
        // SAFETY: a new mapping; its second page is given up at once.
        let start = unsafe { sys::mmap(0, 2 * page, protection, flags, None) }.unwrap();
        // SAFETY: nothing uses the second page.
        unsafe { sys::munmap(start + page, page) }.unwrap();
        let load = Elf64_Phdr { p_type: PT_LOAD, p_vaddr: start as u64, p_memsz: page as u64, ..EMPTY_HEADER };
        let of_note = Elf64_Phdr { p_type: PT_NOTE, p_vaddr: (start + note) as u64, p_memsz: room as u64, ..load };
        for index in 0..count {
            let header = match index {
                0 => load,
                last if last + 1 == count => of_note,
                _ => EMPTY_HEADER,
            };
            // SAFETY: the tests below place the headers in the first page, which is writable.
            unsafe { ((start + headers + index * HEADER) as *mut Elf64_Phdr).write_unaligned(header) };
        }
        if note + size_of_val(&NOTE) <= page {
            // SAFETY: the note is in the first page, which is writable.
            unsafe { ((start + note) as *mut [u32; 5]).write_unaligned(NOTE) };
        }
        let found = Object::read(&ProcessMemory::own(), 0, start + headers, count).unwrap().build_id;
        // SAFETY: the test uses no address in the mapping any more.
        unsafe { sys::munmap(start, page) }.unwrap();
        found.map(|(_, build_id)| build_id)
    };
    let (found, len) = (BuildIdBytes::new(&[1, 2, 3, 4]), size_of_val(&NOTE));
    assert_eq!(read(64, 2, 64 + 2 * HEADER, len), found);
    // More headers than are read at a time.
    assert_eq!(read(64, 20, 64 + 20 * HEADER, len), found);
    // At the end of the last page.
    assert_eq!(read(page - 2 * HEADER - len, 2, page - len, len), found);
    assert_eq!(read(page - 2 * HEADER, 2, 0, len), None);
    // In front of the headers, in the next page, and too far behind the headers.
    assert_eq!(read(64, 2, 0, len), None);
    assert_eq!(read(64, 2, page - 8, len), None);
    assert_eq!(read(64, 2, 2048, len), None);
    // More notes than are looked at: those behind the build-id do not matter.
    assert_eq!(read(64, 2, 64 + 2 * HEADER, 600), found);
}

#[test]
fn too_many_segments_are_an_error() {
    let load = Elf64_Phdr { p_type: PT_LOAD, p_memsz: 1, ..EMPTY_HEADER };
    let headers = [load; MAX_SEGMENTS + 1];
    let object = Object::read(&ProcessMemory::own(), 0, headers.as_ptr().expose_provenance(), headers.len());
    assert!(matches!(object, Err(ObjectError::TooManySegments)));
}

#[test]
fn a_page_of_two_segments_belongs_to_the_later_one() {
    let load = |start, size| Elf64_Phdr { p_type: PT_LOAD, p_vaddr: start, p_memsz: size, ..EMPTY_HEADER };
    let read = |headers: &[Elf64_Phdr]| {
        Object::read(&ProcessMemory::own(), 0x10_0000, headers.as_ptr().expose_provenance(), headers.len())
    };
    let object = read(&[load(0, 0x1800), load(0x1900, 0x100), load(0x1a00, 0x1000)]).unwrap();
    let spans: Vec<_> = object.segments().iter().map(|segment| (segment.span.start, segment.span.end)).collect();
    assert_eq!(spans, [(0x10_0000, 0x10_1000), (0x10_1000, 0x10_1000), (0x10_1000, 0x10_3000)]);
    for headers in [[load(0x1000, 8), load(0, 8)], [load(0, 0x2800), load(0x1000, 8)]] {
        assert!(matches!(read(&headers), Err(ObjectError::Malformed)));
    }
}

#[test]
fn file_names_are_behind_the_last_slash() {
    assert_eq!(file_name(b"/usr/lib/libc.so.6"), b"libc.so.6");
    assert_eq!(file_name(b"libc.so.6"), b"libc.so.6");
    assert_eq!(file_name(b""), b"");
}

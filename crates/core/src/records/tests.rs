use super::*;
use crate::cause::Operation;
use crate::memory::ProcessMemory;
use std::string::String;
use std::vec;
use std::vec::Vec;

static HEADER: Header = Header::new("1.2.3");

/// Reads as a reader outside the process does: through the kernel, by address.
fn bytes_at(address: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    // SAFETY: the vector has room for `len` bytes.
    unsafe { ProcessMemory::own().copy(bytes.as_mut_ptr(), address as usize, len) }.unwrap();
    bytes
}

fn header_of(header: &Header) -> Seen {
    Seen::decode(&bytes_at((&raw const *header).expose_provenance() as u64, HEADER_SIZE)).unwrap()
}

fn record(number: u64, cause: Option<Cause>) -> Record {
    let mut record = Record { headers: number, base: number, bytes: number, ..Record::default() };
    record.set_cause(cause);
    record
}

#[test]
fn the_layout_is_that_of_version_1() {
    // Changing one of these changes VERSION, or breaks readers of old processes.
    assert_eq!((HEADER_SIZE, RECORD_SIZE), (64, 80));
    assert_eq!(offset_of!(Header, sequence), 24);
    assert_eq!(offset_of!(Header, library_version), 48);
    assert_eq!(offset_of!(Record, bytes), 48);
    assert_eq!(offset_of!(Record, errno), 72);
    assert_eq!(offset_of!(Record, reached), 78);
    for (code, reached) in Reached::ALL.into_iter().enumerate() {
        assert_eq!(usize::from(reached.code()), code);
    }
    assert_eq!(Reached::from_code(6), None);
}

#[test]
fn a_record_comes_back_from_its_bytes() {
    let mut written = record(7, Some(Cause::words(Operation::PinText, "some pages are modified")));
    written.set_span(Span { start: 0x1000, end: 0x5000 });
    written.set_reached(Reached::Relocated);
    written.set_in_other_namespace(true);
    let bytes = bytes_at((&raw const written).expose_provenance() as u64, RECORD_SIZE);
    let read = Record::decode(&bytes).unwrap();
    assert_eq!(read, written);
    assert_eq!((read.reached(), read.is_in_other_namespace()), (Some(Reached::Relocated), true));
    assert_eq!(read.span().len(), 0x4000);
    let Some(CauseAt { operation, reason: ReasonAt::Words(words) }) = read.cause() else { panic!("{read:?}") };
    let text = |at: TextAt| String::from_utf8(bytes_at(at.address, at.len)).unwrap();
    assert_eq!((text(operation).as_str(), text(words).as_str()), ("pin text", "some pages are modified"));
    assert_eq!(Record::decode(&bytes[..RECORD_SIZE - 1]), None);
    assert_eq!(written.encode()[..], bytes);
}

#[test]
fn what_was_pinned_from_outside_is_added() {
    let mut left = record(7, Some(Cause::words(Operation::PinText, "some pages are modified")));
    left.set_reached(Reached::Exposed);
    let mut pinned = left;
    pinned.set_pinned(Reached::Full, 0x3000, Some(0x9000));
    let expected = Record { bytes: 7 + 0x3000, witness: 0x9000, ..record(7, None) };
    assert_eq!((pinned.reached(), pinned.cause()), (Some(Reached::Full), None));
    assert_eq!(pinned, Record { reached: Reached::Full.code(), ..expected });
    // The library keeps the page that it has mapped itself.
    pinned.set_pinned(Reached::Full, 0, Some(0xa000));
    assert_eq!(pinned.witness, 0x9000);
}

#[test]
fn an_errno_is_published_as_a_number() {
    let failed = record(1, Some(Cause::call(Operation::Mmap, Errno(libc::ENOMEM))));
    assert_eq!(failed.cause().map(|cause| cause.reason), Some(ReasonAt::Errno(Errno(libc::ENOMEM))));
    assert_eq!(record(1, None).cause(), None);
}

#[test]
fn a_header_comes_back_from_its_bytes() {
    let header = Header::new("1.2.3");
    assert_eq!(header_of(&header).mode, None);
    header.set_mode(Mode::Relocated);
    let records = [record(1, None), record(2, None)];
    header.change().set_records(&records);
    let seen = header_of(&header);
    assert_eq!((seen.mode, seen.count, seen.library_version()), (Some(Mode::Relocated), 2, "1.2.3"));
    let bytes = bytes_at(seen.records, seen.count * seen.record_size);
    assert!(seen.decode_records(&bytes).eq(records));
}

#[test]
fn bytes_that_are_not_a_header_are_refused() {
    let good = bytes_at((&raw const HEADER).expose_provenance() as u64, HEADER_SIZE);
    let changed = |offset: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[offset] = value;
        Seen::decode(&bytes)
    };
    assert_eq!(Seen::decode(&good[..HEADER_SIZE - 1]), Err(NotAHeader::Foreign));
    assert_eq!(changed(0, b'x'), Err(NotAHeader::Foreign));
    assert_eq!(changed(offset_of!(Header, version), 9), Err(NotAHeader::Version(9)));
    assert_eq!(changed(offset_of!(Header, record_size), 8), Err(NotAHeader::Malformed));
    assert_eq!(changed(offset_of!(Header, count) + 7, 1), Err(NotAHeader::Malformed));
    // As many records as no process has, but for which a reader could have the memory.
    assert!(changed(offset_of!(Header, count) + 2, 1).is_ok());
    assert_eq!(changed(offset_of!(Header, count) + 2, 2), Err(NotAHeader::Malformed));
}

#[test]
fn a_later_version_may_have_longer_records() {
    let mut bytes = Vec::new();
    for number in [5, 6] {
        let written = record(number, None);
        bytes.extend(bytes_at((&raw const written).expose_provenance() as u64, RECORD_SIZE));
        bytes.extend([0xff; 16]);
    }
    let mut seen = header_of(&HEADER);
    seen.record_size += 16;
    assert!(seen.decode_records(&bytes).map(|record| record.headers).eq([5, 6]));
}

#[test]
fn an_unfinished_change_is_distinguished_from_a_finished_one() {
    let header = Header::new("1.2.3");
    let read = |header: &Header| read_consistently(3, || Ok::<_, ()>(header_of(header)), |_| Ok(())).unwrap().2;
    assert_eq!(read(&header), Consistency::Consistent);
    let change = header.change();
    assert_eq!(read(&header), Consistency::Torn);
    // As in a child whose parent was in the middle of a change.
    core::mem::forget(change);
    drop(header.change());
    assert_eq!(read(&header), Consistency::Consistent);
}

/// One thread repeatedly changes all records together, and a reader never sees only some of
/// them changed. Without the second look it would.
#[test]
#[cfg_attr(miri, ignore = "the reader races with the writer, as one in another process does")]
fn readers_see_all_of_a_change_or_nothing() {
    use std::sync::atomic::AtomicBool;
    static STOP: AtomicBool = AtomicBool::new(false);
    const COUNT: usize = 500;
    let mut records = vec![record(1, None); COUNT];
    HEADER.change().set_records(&records);
    let writer = std::thread::spawn(move || {
        let mut number = 1;
        while !STOP.load(Ordering::Relaxed) {
            number += 1;
            let change = HEADER.change();
            for slot in &mut records {
                *slot = record(number, None);
            }
            change.set_records(&records);
            drop(change);
            // About as long as a change and as a reader's two looks.
            std::thread::sleep(std::time::Duration::from_micros(100));
        }
        // Readers may still look at them.
        core::mem::forget(records);
    });
    let look = |seen: &Seen| Ok::<_, ()>(bytes_at(seen.records, seen.count * seen.record_size));
    let is_torn = |seen: &Seen, bytes: &[u8]| {
        let numbers: Vec<u64> = seen.decode_records(bytes).map(|record| record.headers).collect();
        assert_eq!(numbers.len(), COUNT);
        numbers.iter().any(|number| *number != numbers[0])
    };
    let (mut consistent, mut torn_without_second_look) = (0, 0);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while consistent < 200 || torn_without_second_look == 0 {
        assert!(std::time::Instant::now() < deadline, "{consistent} consistent, {torn_without_second_look} torn");
        let (seen, bytes, consistency) = read_consistently(64, || Ok(header_of(&HEADER)), look).unwrap();
        if consistency == Consistency::Consistent {
            assert!(!is_torn(&seen, &bytes));
            consistent += 1;
        }
        let seen = header_of(&HEADER);
        torn_without_second_look += usize::from(is_torn(&seen, &look(&seen).unwrap()));
    }
    STOP.store(true, Ordering::Relaxed);
    writer.join().unwrap();
}

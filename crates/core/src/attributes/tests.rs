use super::*;
use std::format;
use std::string::String;

/// Returns an entry as the kernel writes it, with some of its lines.
fn entry(start: usize, end: usize, protection: &str, rest: &str) -> String {
    format!(
        "{start:x}-{end:x} {protection} 00000000 fe:00 263 {:20}/usr/lib/VmFlags: lo.so\n\
         Size:                  4 kB\nLocked:                4 kB\nTHPeligible:           0\n{rest}",
        ""
    )
}

const FRESH: usize = 0x9000;

fn loses_between(text: &str, start: usize, end: usize) -> bool {
    let fresh = entry(FRESH, 0xa000, "rw-p", "ProtectionKey:         0\nVmFlags: rd wr mr mw me ac sd \n");
    let map = AttributeMap::of_text(format!("{text}{fresh}").as_bytes(), FRESH).unwrap();
    map.would_lose(Span { start, end }, libc::PROT_READ)
}

fn loses(rest: &str) -> bool {
    loses_between(&entry(0x1000, 0x2000, "r-xp", rest), 0x1000, 0x2000)
}

#[test]
fn ordinary_mappings_lose_nothing() {
    assert!(!loses("VmFlags: rd ex mr mw me sd \n"));
    assert!(!loses("ProtectionKey:         0\nVmFlags: rd wr mr mw me dw ac nr \n"));
    assert!(!loses("VmFlags: \n"));
}

#[test]
fn requested_attributes_are_recognised() {
    for flag in ["lo", "lf", "mg", "dc", "wf", "dd", "sr", "rr", "hg", "nh", "um", "uw", "ui", "sl", "bt", "mt", "ss"] {
        assert!(loses(&format!("VmFlags: rd ex mr mw me {flag} sd \n")), "{flag}");
    }
    assert!(loses("ProtectionKey:         3\nVmFlags: rd ex mr mw me sd \n"));
}

#[test]
fn unknown_attributes_count_as_lost() {
    for rest in ["VmFlags: rd ex zz\n", "VmFlags: rd exx\n", "VmFlags: r\n", "", "ProtectionKey: x\nVmFlags: rd\n"] {
        assert!(loses(rest), "{rest}");
    }
    let text = entry(0x1000, 0x2000, "r-xp", "VmFlags: rd ex mr mw me sd \n");
    assert!(loses_between(&text, 0x1000, 0x3000) && loses_between(&text, 0x4000, 0x5000));
    assert!(AttributeMap::of_text(text.as_bytes(), FRESH).is_none());
}

#[test]
fn flags_and_keys_are_found_behind_any_amounts() {
    // Bytes of amounts, on both sides of what is skipped at once. All of them take the interpreter minutes.
    let step = if cfg!(miri) { 37 } else { 1 };
    for len in (AMOUNTS - 150..AMOUNTS + 30).step_by(step).chain([0, 3 * AMOUNTS]) {
        for width in [28, 29, 90] {
            let mut amounts = String::new();
            while amounts.len() < len {
                let rest = (len - amounts.len()).min(width);
                amounts += &"x".repeat(rest.saturating_sub(1));
                amounts += "\n";
            }
            for (rest, is_lost) in [
                ("VmFlags: rd ex mr mw me lo \n", true),
                ("ProtectionKey:         3\nVmFlags: rd ex mr mw me \n", true),
                ("ProtectionKey:         0\nVmFlags: rd ex mr mw me \n", false),
            ] {
                let text = entry(0x1000, 0x2000, "r-xp", &format!("{amounts}{rest}"));
                let next = entry(0x2000, 0x3000, "r-xp", "VmFlags: rd ex mr mw me \n");
                assert_eq!(loses_between(&(text + &next), 0x1000, 0x2000), is_lost, "{len} {width} {rest}");
            }
        }
    }
}

#[test]
fn every_vma_of_a_range_counts() {
    let plain = "VmFlags: rd ex mr mw me sd \n";
    let text = entry(0x1000, 0x2000, "r-xp", plain)
        + &entry(0x2000, 0x3000, "r-xp", "VmFlags: rd ex mr mw me lo \n")
        + &entry(0x3000, 0x4000, "r-xp", plain);
    assert!(loses_between(&text, 0x1000, 0x4000) && loses_between(&text, 0x2800, 0x2900));
    assert!(!loses_between(&text, 0x1000, 0x2000) && !loses_between(&text, 0x3000, 0x4000));
}

#[test]
fn attributes_of_every_new_mapping_are_not_lost() {
    let locked = "VmFlags: rd wr mr mw me lo mg ac sd \n";
    let text = entry(0x1000, 0x2000, "r-xp", "VmFlags: rd ex mr mw me lo sd \n")
        + &entry(0x2000, 0x3000, "r-xp", "VmFlags: rd ex mr mw me lo dd sd \n")
        + &entry(FRESH, 0xa000, "rw-p", locked);
    let map = AttributeMap::of_text(text.as_bytes(), FRESH).unwrap();
    assert!(!map.would_lose(Span { start: 0x1000, end: 0x2000 }, libc::PROT_READ));
    assert!(map.would_lose(Span { start: 0x2000, end: 0x3000 }, libc::PROT_READ));
    // An unknown flag that everything has may be lost all the same.
    let text = entry(0x1000, 0x2000, "r-xp", "VmFlags: zz\n") + &entry(FRESH, 0xa000, "rw-p", "VmFlags: zz\n");
    let map = AttributeMap::of_text(text.as_bytes(), FRESH).unwrap();
    assert!(map.would_lose(Span { start: 0x1000, end: 0x2000 }, libc::PROT_READ));
}

#[test]
fn planned_bits_and_the_key_of_what_may_only_be_executed_are_kept() {
    let text = entry(0x1000, 0x2000, "--xp", "ProtectionKey: 1\nVmFlags: ex mr mw me bt sd \n")
        + &entry(FRESH, 0xa000, "rw-p", "ProtectionKey: 0\nVmFlags: rd wr mr mw me ac sd \n");
    let map = AttributeMap::of_text(text.as_bytes(), FRESH).unwrap();
    let span = Span { start: 0x1000, end: 0x2000 };
    assert!(!map.would_lose(span, libc::PROT_EXEC | 0x10));
    assert!(map.would_lose(span, libc::PROT_EXEC));
}

#[test]
fn checked_branches_are_shown_for_some_vmas_or_for_none() {
    let plain = entry(0x1000, 0x2000, "r-xp", "VmFlags: rd ex mr mw me sd \n");
    let fresh = entry(FRESH, 0xa000, "rw-p", "VmFlags: rd wr mr mw me ac sd \n");
    let checked = entry(0x2000, 0x3000, "r-xp", "VmFlags: rd ex mr mw me bt sd \n");
    let shown = |text: String, start, end| {
        AttributeMap::of_text(text.as_bytes(), FRESH).unwrap().has_branch_targets(Span { start, end })
    };
    assert_eq!(shown(format!("{plain}{fresh}"), 0x1000, 0x2000), None);
    let all = format!("{plain}{checked}{fresh}");
    assert_eq!(shown(all.clone(), 0x2000, 0x3000), Some(true));
    for (start, end) in [(0x1000, 0x2000), (0x1000, 0x3000), (0x2000, 0x4000), (0x5000, 0x6000)] {
        assert_eq!(shown(all.clone(), start, end), Some(false), "{start:#x}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "reads /proc/self/smaps")]
fn sees_what_this_process_asks_for() {
    let page = sys::page_size();
    let asked = PageVec::zeroed(3 * page).unwrap();
    let start = asked.as_ptr().addr();
    let loses = || AttributeMap::read().unwrap().would_lose(Span { start, end: start + page }, libc::PROT_READ);
    let advise = |advice| {
        // SAFETY: the pages belong to `asked`, and neither advice changes their contents.
        assert_eq!(unsafe { libc::madvise(start as *mut libc::c_void, page, advice) }, 0);
    };
    assert!(!loses());
    advise(libc::MADV_DONTFORK);
    assert!(loses());
    advise(libc::MADV_DOFORK);
    assert!(!loses());
}

#[test]
fn mappings_for_stores_of_the_kernel_are_found() {
    let fresh = entry(FRESH, 0xa000, "rw-p", "VmFlags: rd wr mr mw me ac sd \n");
    let found_with = |name: &str| {
        let other = entry(0x1000, 0x2000, "rw-s", "VmFlags: rd wr sh mr mw me ms sd \n");
        let text = other.replace("/usr/lib/VmFlags: lo.so", name) + &fresh;
        AttributeMap::of_text(text.as_bytes(), FRESH).unwrap().kernel_store()
    };
    assert_eq!(found_with("anon_inode:[io_uring]"), Some(KernelStore::Ring));
    assert_eq!(found_with("/[aio] (deleted)"), Some(KernelStore::Requests));
    assert_eq!(found_with("/srv/[io]/libx.so"), None);
}

//! Lines of real kernels. Where a comment does not say more, they are from dmesg of Linux 6.18 on
//! x86-64, of processes that have crashed for this.

use super::*;

fn parse(text: &str) -> LoggedCrash {
    let mut log = KernelLog::default();
    for line in text.lines() {
        assert_eq!(log.line(line), None, "{text}");
    }
    log.finish().unwrap_or_else(|| panic!("{text}"))
}

fn sign(text: &str) -> LogSign {
    parse(text).sign()
}

#[test]
fn a_jump_to_an_address_without_base_is_the_signature() {
    let text = "\
[13792.446545] hostcc[22746]: segfault at 227e ip 000000000000227e sp 00007fff02a7cbd8 error 14 likely on CPU 0 (core 0, socket 0)
[13792.446558] Code: Unable to access opcode bytes at 0x2254.";
    let crash = parse(text);
    assert_eq!((crash.program.as_str(), crash.pid, crash.signal()), ("hostcc", Some(22746), Some(11)));
    assert_eq!((crash.ip, crash.address, crash.error), (Some(0x227e), Some(0x227e), Some(0x14)));
    assert_eq!((crash.when.as_deref(), &crash.object), (Some("[13792.446545]"), &None));
    assert_eq!((crash.sign(), crash.small_address()), (LogSign::Jump, Some(0x227e)));
    assert_eq!(LogSign::Jump.verdict(), LogVerdict::Signature);
}

/// The first case of this project; its kernel names the next object above the address.
#[test]
fn older_kernels_name_an_object_that_is_not_at_the_address() {
    let crash = parse(
        "python3.5[4574]: segfault at ad0 ip 0000000000000ad0 sp 00007ffeb240c128 error 14 in python3.5[400000+3a9000]",
    );
    assert_eq!(
        crash.object,
        Some(LoggedObject { name: "python3.5".into(), start: 0x40_0000, size: 0x3a_9000, offset: None })
    );
    assert_eq!((crash.sign(), crash.small_address()), (LogSign::Jump, Some(0xad0)));
    assert!(!crash.object.unwrap().has(0xad0));
}

#[test]
fn jumps_of_other_bugs_are_not_the_signature() {
    let jump = |address: &str, rest: &str| {
        sign(&format!("crash[1]: segfault at {address} ip 0000{address:0>12} sp 00007ffecf599f98 error {rest}"))
    };
    assert_eq!(jump("0", "14 likely on CPU 1 (core 1, socket 0)"), LogSign::NullCall);
    assert_eq!(jump("10", "14"), LogSign::LowJump);
    assert_eq!(jump("3ff", "14"), LogSign::LowJump);
    assert_eq!(jump("400", "14"), LogSign::Jump);
    assert_eq!(jump("fffffff", "14"), LogSign::Jump);
    assert_eq!(jump("10000000", "14"), LogSign::Elsewhere);
    assert_eq!(jump("4141414141", "14"), LogSign::Elsewhere);
    // Data of the program: a page is mapped there.
    assert_eq!(jump("55dcf9c05060", "15 in crash[3060,55dcf9c05000+1000]"), LogSign::Elsewhere);
    assert_eq!(jump("404060", "15 in crash[3060,404000+1000]"), LogSign::Elsewhere);
    assert_eq!(jump("404060", "14 in crash[404000+1000]"), LogSign::Elsewhere, "the address is in the object");
    // A processor that does not report fetches.
    assert_eq!(jump("ad0", "4"), LogSign::Jump);
    assert_eq!(LogSign::NullCall.verdict(), LogVerdict::Nothing);
}

#[test]
fn people_cut_lines_off() {
    for line in [
        "segfault at ad0 ip 0000000000000ad0 ... error 14 in python3.5[...]",
        "[ 12.3] segfault at ad0 ip 0000000000000ad0 sp 00007ffeb240c128 error 14",
        "segfault at ad0 ip 0000000000000ad0",
    ] {
        let crash = parse(line);
        assert_eq!((crash.program.as_str(), crash.sign()), ("?", LogSign::Jump), "{line}");
    }
    for other in ["the segfault at ad0 ip ad0", "segfault at ad0", "segfault at x ip y"] {
        let mut log = KernelLog::default();
        log.line(other);
        assert_eq!(log.finish(), None, "{other}");
    }
}

#[test]
fn accesses_are_told_from_jumps() {
    let read = "[13865.742846] crash[29730]: segfault at 10 ip 00005649d5d50212 sp 00007ffd6d13f9f0 error 4 in crash[1212,5649d5d50000+1000] likely on CPU 1 (core 1, socket 0)";
    let crash = parse(read);
    assert_eq!((crash.sign(), crash.small_address()), (LogSign::NullAccess, None));
    let object = crash.object.unwrap();
    assert_eq!((object.name.as_str(), object.offset, object.start), ("crash", Some(0x1212), 0x5649_d5d5_0000));
    let write = "crash[29731]: segfault at 46e0 ip 000056175672623e sp 00007ffdb578a960 error 6 in crash[123e,561756726000+1000]";
    assert_eq!((sign(write), parse(write).small_address()), (LogSign::Access, Some(0x46e0)));
    assert_eq!(LogSign::Access.verdict(), LogVerdict::Possible);
    let text = "crash[29736]: segfault at 55ca94679189 ip 000055ca946792eb sp 00007ffd02f4ad80 error 7 in crash[12eb,55ca94679000+1000]";
    assert_eq!(sign(text), LogSign::Elsewhere);
}

#[test]
fn traps_are_parsed() {
    let opcode = parse(
        "[13865.747435] traps: crash[29733] trap invalid opcode ip:55639f0c7297 sp:7ffc8e23e900 error:0 in crash[1297,55639f0c7000+1000]",
    );
    assert_eq!((opcode.program.as_str(), opcode.pid, opcode.signal()), ("crash", Some(29733), Some(4)));
    assert_eq!((opcode.ip, opcode.sign()), (Some(0x5563_9f0c_7297), LogSign::InvalidOpcode));
    let own = "traps: crash[29733] trap invalid opcode ip:55639f0c7297 sp:7ffc8e23e900 error:0\nCode: 48 89 <0f> 0b c3";
    assert_eq!(sign(own), LogSign::OwnTrap);
    for (line, signal) in [
        (
            "traps: crash[29732] general protection fault ip:55bdeb4ec26f sp:7ffea7dba570 error:0 in crash[126f,55bdeb4ec000+1000]",
            11,
        ),
        (
            "traps: crash[29737] trap stack segment ip:5612f6dfb319 sp:7ffd8b973160 error:0 in crash[1319,5612f6dfb000+1000]",
            7,
        ),
        ("traps: crash[29738] trap int3 ip:556ab1ef333e sp:7ffee3d01c80 error:0 in crash[133e,556ab1ef3000+1000]", 5),
        // arch/x86/kernel/traps.c of older kernels.
        ("foo[12] general protection ip:7f0000001000 sp:7fff00001000 error:0 in libfoo.so[7f0000000000+2000]", 11),
        ("foo[12] trap divide error rip:400512 rsp:7fff00001000 error:0", 8),
        // exc_control_protection
        (
            "traps: foo[12] control protection ip:7f0000001000 sp:7fff00001000 ssp:7fff00002000 error:1(near ret) in libfoo.so[7f0000000000+2000]",
            11,
        ),
    ] {
        let crash = parse(line);
        assert_eq!((crash.sign(), crash.signal()), (LogSign::OtherTrap, Some(signal)), "{line}");
        assert!(["crash", "foo"].contains(&crash.program.as_str()), "{line}");
    }
}

#[test]
fn names_of_programs_can_have_brackets_and_spaces() {
    let crash = parse(
        "[13871.765162] crash [x] y[29742]: segfault at ad0 ip 0000000000000ad0 sp 00007ffce8fe9ac8 error 14 likely on CPU 1 (core 1, socket 0)",
    );
    assert_eq!((crash.program.as_str(), crash.pid), ("crash [x] y", Some(29742)));
    let named = "[13871.766913] crash [x] y[29743]: segfault at 401ad0 ip 0000000000401ad0 sp 00007ffdff858ca8 error 7 in crash [x] y[1ad0,401000+1000] likely on CPU 1 (core 1, socket 0)";
    let crash = parse(named);
    assert_eq!((crash.object.as_ref().unwrap().name.as_str(), crash.sign()), ("crash [x] y", LogSign::Elsewhere));
    let worker = parse(
        "Nov 28 00:44:34 host kernel: gunicorn: worke[4711]: segfault at ad0 ip 0000000000000ad0 sp 00007ffce8fe9ac8 error 14",
    );
    assert_eq!((worker.program.as_str(), worker.pid), ("gunicorn: worke", Some(4711)));
}

#[test]
fn stamps_are_removed() {
    let words = "python[22799]: segfault at 121c ip 000000000000121c sp 00007ffc9a74bde8 error 14";
    for (stamp, when) in [
        ("", None),
        ("[13865.737976] ", Some("[13865.737976]")),
        ("[    5.1][ T4711] ", Some("[    5.1][ T4711]")),
        ("[    5.1][    C0] ", Some("[    5.1][    C0]")),
        ("[Sat Nov 28 00:44:34 2026] ", Some("[Sat Nov 28 00:44:34 2026]")),
        ("[Nov28 00:44] ", Some("[Nov28 00:44]")),
        ("[  +0.001737] ", Some("[  +0.001737]")),
        ("kern  :info  : [13871.766913] ", Some("kern  :info  : [13871.766913]")),
        ("2026-11-28T00:44:34,766913+00:00 ", Some("2026-11-28T00:44:34,766913+00:00")),
        ("6,5126,13871766913,-;", Some("6,5126,13871766913,-;")),
        ("<6>[13865.737976] ", Some("<6>[13865.737976]")),
        ("Nov 28 00:44:34 host kernel: ", Some("Nov 28 00:44:34 host")),
        ("Nov 28 00:44:34 host kernel: [13865.737976] ", Some("Nov 28 00:44:34 host kernel: [13865.737976]")),
        ("2026-11-28T00:44:34+0000 host kernel: ", Some("2026-11-28T00:44:34+0000 host")),
        ("[13865.737976] host kernel: ", Some("[13865.737976] host")),
        ("  ", None),
    ] {
        let crash = parse(&format!("{stamp}{words}\r"));
        assert_eq!((crash.program.as_str(), crash.when.as_deref()), ("python", when), "{stamp}");
        assert_eq!(crash.message, words, "{stamp}");
    }
    let unknown = parse(&format!("19:15:37.209   565     0 I Kernel  : <6>[ 1389.481323] {words}"));
    assert_eq!(unknown.program, "python");
}

/// Of `__do_user_fault`, from logs of 4.14 and of 3.10.
#[test]
fn older_lines_of_aarch64() {
    let data = parse(
        "[   27.569683] udevd[1673]: unhandled level 2 translation fault (11) at 0x00000018, esr 0x92000006, in libc-2.26.so[7f9860d000+138000]\n[   27.605211] pc : [<0000007f9867eb10>] lr : [<0000007f98681b20>] pstate: 60000000",
    );
    assert_eq!((data.ip, data.address, data.syndrome), (Some(0x7f_9867_eb10), Some(0x18), Some(0x9200_0006)));
    assert_eq!((data.sign(), data.signal()), (LogSign::NullAccess, Some(11)));
    assert_eq!(data.object.unwrap().name, "libc-2.26.so");
    let jump = |address: &str| {
        format!("qmlscene[6540]: unhandled level 2 translation fault (11) at {address}, esr 0x82000006")
    };
    assert_eq!(sign(&jump("0x00000000")), LogSign::NullCall);
    assert_eq!((sign(&jump("0x00000ad0")), parse(&jump("0x00000ad0")).small_address()), (LogSign::Jump, Some(0xad0)));
    assert_eq!(sign("a[1]: unhandled level 3 translation fault (7) at 0x7f98001000, esr 0x92000007"), LogSign::Bus);
    assert_eq!(sign("mkfs.ext4[2167]: undefined instruction: pc=0000007f939a0700"), LogSign::InvalidOpcode);
}

/// Of `arm64_show_signal`, from logs of 4.19 and of 6.8. The address of the
/// access is not printed, and that of the instruction in a later line.
#[test]
fn newer_lines_of_aarch64() {
    let data = "detect_demo[2510]: unhandled exception: DABT (lower EL), ESR 0x92000046, level 2 translation fault in libnn_detect.so[7fbd4f0000+6000]
[  119.157935] CPU: 1 PID: 2510 Comm: detect_demo Tainted: G           O      4.19.81
[  119.160380] pstate: 80001000 (Nzcv daif -PAN -UAO)
[  119.160530] pc : 0000007fbd4f2d2c
[  119.160960] lr : 0000007fbd4f2a4c";
    let crash = parse(data);
    assert_eq!((crash.ip, crash.sign()), (Some(0x7f_bd4f_2d2c), LogSign::Incomplete));
    assert_eq!(crash.event, CrashEvent::Exception("level 2 translation fault".into(), None));
    let jump = "shop[7]: unhandled exception: IABT (lower EL), ESR 0x0000000082000006, level 2 translation fault\nCPU: 1 PID: 7 Comm: shop\npc : 0000000000000ad0\nlr : 0000ffff9a8b1234";
    assert_eq!((sign(jump), parse(jump).small_address()), (LogSign::Jump, Some(0xad0)));
    assert_eq!(sign(jump.lines().next().unwrap()), LogSign::Incomplete, "without the line of pc");
    let tag = "mte_test[2263]: unhandled exception: DABT (lower EL), ESR 0x0000000092000051, synchronous tag check fault in mte_test[b847a9c80000+1000]";
    assert_eq!(sign(tag), LogSign::Elsewhere);
    assert_eq!(
        sign("probe[1234]: unhandled exception: User debug trap in probe[aaaab4560000+1000]"),
        LogSign::OtherTrap
    );
}

#[test]
fn sigbus_has_lines_of_others_only() {
    let audit = "[  146.405910] audit: type=1701 audit(1688127394.108:6): auid=4294967295 uid=0 gid=0 ses=4294967295 pid=1252 comm=\"gunicorn\" exe=\"/usr/bin/python3.11\" sig=7 res=1";
    let crash = parse(audit);
    assert_eq!((crash.program.as_str(), crash.pid, crash.sign()), ("gunicorn", Some(1252), LogSign::Bus));
    let hexed = audit.replace("\"gunicorn\"", "612062");
    assert_eq!(parse(&hexed).program, "a b");
    let mut log = KernelLog::default();
    log.line(&audit.replace("sig=7", "sig=11"));
    assert_eq!(log.finish(), None, "SIGSEGV has a better line");
    for (line, program) in [
        ("/usr/bin/shop: shop: potentially unexpected fatal signal 7.", "shop"),
        ("shop/4711: potentially unexpected fatal signal 7.", "shop"),
        (
            "Nov 28 00:44:34 host systemd[1]: shop.service: Main process exited, code=dumped, status=7/BUS",
            "shop.service",
        ),
    ] {
        let crash = parse(line);
        assert_eq!((crash.program.as_str(), crash.sign()), (program, LogSign::Bus), "{line}");
    }
    let broken = parse("MCE: Killing shop:4711 due to hardware memory corruption fault at 7f0000001000");
    assert_eq!((broken.program.as_str(), broken.pid, broken.sign()), ("shop", Some(4711), LogSign::BrokenMemory));
}

#[test]
fn a_journal_is_read_line_by_line() {
    let mut log = KernelLog::default();
    let segfault = |pid: u32| format!("a[{pid}]: segfault at ad0 ip 0000000000000ad0 sp 00007ffce8fe9ac8 error 14");
    assert_eq!(log.line("usb 1-1: new high-speed USB device"), None);
    assert_eq!(log.line(&segfault(1)), None);
    assert_eq!(log.line("[13792.446540] show_signal_msg: 13 callbacks suppressed"), None);
    assert_eq!(log.line(&segfault(2)).unwrap().pid, Some(1));
    assert_eq!(log.finish().unwrap().pid, Some(2));
    assert_eq!((log.finish(), log.suppressed()), (None, 13));
    assert_eq!(lines::suppressed("net_ratelimit: 13 callbacks suppressed"), 0);
    // A line far behind continues no crash.
    let mut log = KernelLog::default();
    log.line("shop[7]: unhandled exception: IABT (lower EL), ESR 0x82000006, level 2 translation fault");
    for _ in 0..40 {
        log.line("something else");
    }
    log.line("pc : 0000000000000ad0");
    assert_eq!(log.finish().unwrap().ip, None);
}

#[test]
fn lines_that_are_cut_off_or_nonsense_do_no_harm() {
    let lines = [
        "[13865.742846] crash[29730]: segfault at 10 ip 00005649d5d50212 sp 00007ffd6d13f9f0 error 4 in crash[1212,5649d5d50000+1000] likely on CPU 1 (core 1, socket 0)",
        "[13865.747435] traps: crash[29733] trap invalid opcode ip:55639f0c7297 sp:7ffc8e23e900 error:0 in crash[1297,55639f0c7000+1000]",
        "[   27.569683] udevd[1673]: unhandled level 2 translation fault (11) at 0x00000018, esr 0x92000006, in libc-2.26.so[7f9860d000+138000]",
        "detect_demo[2510]: unhandled exception: DABT (lower EL), ESR 0x92000046, level 2 translation fault in libnn_detect.so[7fbd4f0000+6000]",
        "[  146.4] audit: type=1701 audit(1.1:6): uid=0 pid=1252 comm=\"\u{e9}\" exe=\"/usr/bin/python3.11\" sig=7 res=1",
    ];
    for line in lines {
        for at in 0..line.len() {
            let mut log = KernelLog::default();
            let (head, tail) = (line.get(..at), line.get(at..));
            let both = [head, tail, head, Some("Code: <0f> \u{20ac}"), tail];
            for part in both.into_iter().flatten() {
                if let Some(crash) = log.line(part) {
                    let _ = (crash.sign(), crash.signal(), crash.small_address());
                }
            }
        }
    }
    for nonsense in [
        "]: segfault at ",
        "[]: segfault at 1 ip 1",
        "a[1]: segfault at ffffffffffffffffff ip 1 sp 1 error 4",
        "<<<[[[",
        "kernel: ",
        "[1]",
        "",
    ] {
        let mut log = KernelLog::default();
        log.line(nonsense);
        assert_eq!(log.finish(), None, "{nonsense}");
    }
    let long = parse(&format!("a[1]: segfault at 0 ip 0 sp 0 error 4 in {}", "\u{e9}".repeat(9000)));
    assert_eq!(long.message.chars().count(), 512);
}

#[test]
fn error_codes_have_words() {
    assert_eq!(error_words(0x14), ["instruction fetch", "in user mode", "no page is mapped there"]);
    assert_eq!(error_words(0x15), ["instruction fetch", "in user mode", "the page forbids it"]);
    assert_eq!(error_words(4), ["read", "in user mode", "no page is mapped there"]);
    assert_eq!(error_words(7), ["write", "in user mode", "the page forbids it"]);
    assert_eq!(error_words(0x25).last(), Some(&"a protection key forbids it"));
    assert_eq!(syndrome_words(0x8200_0006), ["instruction fetch", "no page is mapped there"]);
    assert_eq!(syndrome_words(0x9200_0046), ["write", "no page is mapped there"]);
    assert_eq!(syndrome_words(0x9200_000f), ["read", "the page forbids it"]);
}

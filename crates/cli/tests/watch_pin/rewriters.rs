//! Programs that rewrite, and all ways in which the kernel lets a file be opened for writing.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use super::Case;
use super::watching::{Watch, pids, survives};
use crate::common::victim::{Running, Victim};

pub const CASES: &[Case] = &[
    Case { name: "rewriters::cp", needs: &["root", "cc"], test: || rewritten("cp \"$2\" \"$1\"") },
    Case { name: "rewriters::cat", needs: &["root", "cc"], test: || rewritten("cat \"$2\" > \"$1\"") },
    Case {
        name: "rewriters::rsync",
        needs: &["root", "cc", "rsync"],
        test: || rewritten("rsync --inplace --ignore-times \"$2\" \"$1\""),
    },
    Case {
        name: "rewriters::dd",
        needs: &["root", "cc"],
        test: || rewritten("dd if=\"$2\" of=\"$1\" conv=notrunc status=none"),
    },
    Case { name: "rewriters::truncate", needs: &["root", "cc"], test: || rewritten("truncate -s 0 \"$1\"") },
    Case {
        name: "rewriters::copyfile",
        needs: &["root", "cc", "python3"],
        test: || python("import shutil; shutil.copyfile(other, library)"),
    },
    Case {
        name: "rewriters::mapped",
        needs: &["root", "cc", "python3"],
        test: || {
            python(
                "import mmap\n\
                 with open(library, 'r+b') as file, mmap.mmap(file.fileno(), 0) as memory:\n\
                 \x20   memory[:] = b'\\xff' * len(memory)",
            )
        },
    },
    Case {
        name: "rewriters::emptied_by_an_open_for_reading",
        needs: &["root", "cc", "python3"],
        test: || python("os.open(library, os.O_RDONLY | os.O_TRUNC)"),
    },
    Case {
        name: "rewriters::by_proc",
        needs: &["root", "cc", "python3"],
        test: || python("open(f'/proc/self/fd/{os.open(library, os.O_RDONLY)}', 'wb')"),
    },
    Case {
        name: "rewriters::openat2",
        needs: &["root", "cc", "python3"],
        test: || {
            python(
                "import ctypes\n\
                 how = (ctypes.c_uint64 * 3)(os.O_WRONLY | os.O_TRUNC, 0, 0)\n\
                 assert ctypes.CDLL(None).syscall(437, -100, library.encode(), how, 24) > 0",
            )
        },
    },
    Case { name: "rewriters::io_uring", needs: &["root", "cc"], test: || io_uring("") },
    Case { name: "rewriters::io_uring_worker", needs: &["root", "cc"], test: || io_uring(" worker") },
    Case { name: "rewriters::of_32_bits", needs: &["root", "cc", "-m32"], test: program_of_32_bits },
    Case { name: "rewriters::readers_go_on_at_once", needs: &["root", "cc", "python3"], test: readers },
    Case { name: "rewriters::truncate_without_open", needs: &["root", "cc", "python3"], test: truncate_without_open },
    Case { name: "rewriters::open_since_before", needs: &["root", "cc", "python3"], test: open_since_before },
];

/// A program that empties a file which it opens by `io_uring`, in the call or in a worker of the kernel's.
const RING: &str = r"
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/io_uring.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int count, char **words)
{
    struct io_uring_params parameters = { 0 };
    int ring = syscall(SYS_io_uring_setup, 4, &parameters);
    if (ring < 0)
        return 77;
    char *queue = mmap(0, parameters.sq_off.array + 4 * parameters.sq_entries, PROT_READ | PROT_WRITE, MAP_SHARED, ring,
                       IORING_OFF_SQ_RING);
    struct io_uring_sqe *entry = mmap(0, parameters.sq_entries * sizeof *entry, PROT_READ | PROT_WRITE, MAP_SHARED, ring,
                                      IORING_OFF_SQES);
    char *results = mmap(0, parameters.cq_off.cqes + parameters.cq_entries * sizeof(struct io_uring_cqe),
                         PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_CQ_RING);
    memset(entry, 0, sizeof *entry);
    entry->opcode = IORING_OP_OPENAT;
    entry->fd = AT_FDCWD;
    entry->addr = (unsigned long)words[1];
    entry->open_flags = O_WRONLY | O_TRUNC;
    entry->flags = count > 2 ? IOSQE_ASYNC : 0;
    *(unsigned *)(queue + parameters.sq_off.array) = 0;
    *(unsigned *)(queue + parameters.sq_off.tail) = 1;
    if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, 0, 0) != 1)
        return 1;
    return ((struct io_uring_cqe *)(results + parameters.cq_off.cqes))->res < 0;
}
";

/// A program without a C library, because there may be none of 32 bits, that empties a file by open(2).
const PROGRAM_OF_32_BITS: &str = r#"
static long call(long number, long first, long second)
{
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(first), "c"(second), "d"(0) : "memory");
    return result;
}

__asm__(".globl _start\n_start: mov 8(%esp), %eax\npush %eax\ncall begin\n");

void begin(char *path)
{
    call(1, call(5, (long)path, 01001) < 0, 0);
}
"#;

/// Runs a script that rewrites a victim's library, `$1`. `$2` is a file of the same length with bytes
/// with which the victim cannot live.
fn rewritten(script: &str) -> Result<(), String> {
    let rewrite = |library: &Path, other: &Path| {
        let status = Command::new("sh").args(["-ec", script, "sh"]).arg(library).arg(other).status().unwrap();
        assert_ne!(status.code(), Some(77), "this kernel has no io_uring for this process");
        assert!(status.success(), "{script}: {status}");
    };
    is_survived(rewrite);
    Ok(())
}

fn python(program: &str) -> Result<(), String> {
    let program = format!("import os, sys\nlibrary, other = sys.argv[1:]\n{program}");
    is_survived(|library, other| {
        let status = Command::new("python3").args(["-c", &program]).arg(library).arg(other).status().unwrap();
        assert!(status.success(), "{program}: {status}");
    });
    Ok(())
}

/// Rewrites without and with a watch. The victim dies without it.
fn is_survived(rewrite: impl Fn(&Path, &Path)) {
    let victim = Victim::new();
    let other = other(&victim);
    let rewritten = || {
        let original = fs::read(&victim.library).unwrap();
        rewrite(&victim.library, &other);
        assert_ne!(fs::read(&victim.library).unwrap(), original, "it was not rewritten");
        original
    };
    let running = victim.start();
    running.settle();
    let original = rewritten();
    assert!(!survives(running), "the victim survives without the watch");
    fs::write(&victim.library, original).unwrap();

    let running = [victim.start(), victim.start()];
    running.iter().for_each(Running::settle);
    let watch = Watch::start(&victim);
    rewritten();
    let expected = running.each_ref().map(Running::pid);
    for running in running {
        assert!(survives(running), "{:?}", watch.said("open"));
    }
    let line = watch.wait_for("open", |_| true);
    let mut pinned = pids(&line, "pinned");
    pinned.sort_unstable();
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!((pinned, &line["late"], pids(&line, "left")), (expected, &false.into(), vec![]), "{line}");
    assert!(line["delay_us"].as_u64().unwrap() < 2_000_000, "{line}");
    assert!(watch.end(Signal::TERM).success());
}

fn other(victim: &Victim) -> std::path::PathBuf {
    let length = usize::try_from(fs::metadata(&victim.library).unwrap().len()).unwrap();
    victim.installation.file("other", &vec![0xff; length], 0o644)
}

fn io_uring(flag: &str) -> Result<(), String> {
    let victim = Victim::new();
    let program = victim.installation.compile("ring", RING, "cc", &[]);
    // The same call on another file shows whether the kernel lets this process do that.
    let other = other(&victim);
    if Command::new(&program).arg(&other).status().unwrap().code() == Some(77) {
        return Err("io_uring is not permitted here".to_owned());
    }
    rewritten(&format!("{} \"$1\"{flag}", program.display()))
}

fn program_of_32_bits() -> Result<(), String> {
    let victim = Victim::new();
    let flags = ["-m32", "-nostdlib", "-ffreestanding", "-static", "-fno-pie", "-no-pie", "-fno-stack-protector"];
    let program = victim.installation.compile("small", PROGRAM_OF_32_BITS, "cc", &flags);
    rewritten(&format!("{} \"$1\"", program.display()))
}

/// Opens for reading of a marked file do not wait, and no process is pinned for them. On a busy machine a thread that
/// opens a file may have to wait for a processor before it sleeps, and its call is shown only then.
fn readers() -> Result<(), String> {
    let victim = Victim::new();
    let running = victim.start();
    let watch = Watch::start(&victim);
    let busy = || Running::start(Command::new("sh").args(["-c", "echo ready; while :; do :; done"]));
    let _busy: Vec<Running> = (0..8).map(|_| busy()).collect();
    let program = "import os, sys, time\n\
        begun = time.monotonic()\n\
        for _ in range(1000): os.close(os.open(sys.argv[1], os.O_RDONLY))\n\
        sys.exit(time.monotonic() - begun > 20)";
    let status = Command::new("python3").args(["-c", program]).arg(&victim.library).status().unwrap();
    assert!(status.success());
    // One that could map the file executes it, too.
    assert!(
        Command::new("python3")
            .args(["-c", "import ctypes, sys; ctypes.CDLL(sys.argv[1])"])
            .arg(&victim.library)
            .status()
            .unwrap()
            .success()
    );
    assert!(survives(running));
    assert_eq!((watch.said("open").len(), watch.said("went-on").len()), (0, 0));
    Ok(())
}

/// A limit: truncate(2) opens nothing, so the kernel does not ask.
fn truncate_without_open() -> Result<(), String> {
    let victim = Victim::new();
    let running = victim.start();
    let watch = Watch::start(&victim);
    let program = "import os, sys; os.truncate(sys.argv[1], 0)";
    assert!(Command::new("python3").args(["-c", program]).arg(&victim.library).status().unwrap().success());
    assert!(!survives(running), "docs/watch.md and docs/limits.md say that it does not");
    assert_eq!(watch.said("open").len(), 0);
    Ok(())
}

/// A limit: a process that has had the file open for writing is not asked again.
fn open_since_before() -> Result<(), String> {
    let victim = Victim::new();
    let running = victim.start();
    let file = fs::OpenOptions::new().write(true).open(&victim.library).unwrap();
    let watch = Watch::start(&victim);
    file.set_len(0).unwrap();
    assert!(!survives(running), "docs/watch.md and docs/limits.md say that it does not");
    assert_eq!(watch.said("open").len(), 0);
    Ok(())
}

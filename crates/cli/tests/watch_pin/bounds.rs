//! A writer waits for 2 seconds at most, whatever the processes do that are to be pinned.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::fanotify::{
    EventFFlags, Fanotify, FanotifyEvent, FanotifyResponse, InitFlags, MarkFlags, MaskFlags, Response,
};
use serde_json::Value;

use super::Case;
use super::watching::{Watch, pids, ruin, survives, wait_until};
use crate::common::victim::{Running, Victim};

pub const CASES: &[Case] = &[
    Case { name: "bounds::a_process_that_does_not_stop", needs: &["root", "cc"], test: does_not_stop },
    Case { name: "bounds::many_that_do_not_stop", needs: &["root", "cc"], test: many_that_do_not_stop },
    Case { name: "bounds::a_process_that_another_one_traces", needs: &["root", "cc", "strace"], test: traced },
    Case { name: "bounds::the_writer_maps_the_file_itself", needs: &["root", "cc"], test: own_library },
    Case { name: "bounds::two_writers_that_map_what_the_other_writes", needs: &["root", "cc"], test: crosswise },
    Case { name: "bounds::very_many_writers", needs: &["root", "cc"], test: very_many },
    Case { name: "bounds::a_lease", needs: &["root", "cc", "python3"], test: lease },
];

/// A victim, of which a thread waits in the kernel where nothing stops it, until this is dropped: it opens a file
/// about which this process does not answer.
pub struct Unstoppable {
    running: Option<Running>,
    group: Fanotify,
    asked: Option<Vec<FanotifyEvent>>,
}

/// The victim's program, with a thread that opens a file.
const PROGRAM: &str = "#include <fcntl.h>\n#include <pthread.h>\n#include <stdio.h>\n\
    extern int (*const table[2048])(void);\n\
    static void *open_file(void *nothing) { open(\"blocked\", O_RDONLY); return nothing; }\n\
    int main(void) {\n\
    pthread_t thread; pthread_create(&thread, 0, open_file, 0);\n\
    puts(\"ready\"); fflush(stdout); while (getchar() != EOF) {}\n\
    return table[1024]() ? 0 : 1; }\n";

impl Unstoppable {
    pub fn start(victim: &Victim) -> Self {
        let program = victim.installation.path("unstoppable");
        if !program.exists() {
            victim.installation.compile("unstoppable", PROGRAM, "cc", &["-pthread", victim.library.to_str().unwrap()]);
        }
        let file = victim.installation.file("blocked", b"", 0o644);
        let flags = InitFlags::FAN_CLASS_CONTENT | InitFlags::FAN_CLOEXEC | InitFlags::FAN_NONBLOCK;
        let group = Fanotify::init(flags, EventFFlags::O_RDONLY | EventFFlags::O_CLOEXEC).unwrap();
        let file = File::open(file).unwrap();
        group.mark::<_, Path>(MarkFlags::FAN_MARK_ADD, MaskFlags::FAN_OPEN_PERM, file.as_fd(), None).unwrap();
        let running = Running::start(Command::new(program).current_dir(victim.installation.path("")));
        let mut asked = None;
        wait_until("the thread does not open the file", || {
            asked = group.read_events().ok();
            asked.is_some()
        });
        Self { running: Some(running), group, asked }
    }

    pub fn pid(&self) -> u32 {
        self.running.as_ref().unwrap().pid()
    }

    /// Lets the thread go on, and the victim end.
    pub fn survives(mut self) -> bool {
        self.answer();
        survives(self.running.take().unwrap())
    }

    fn answer(&mut self) {
        for event in self.asked.take().into_iter().flatten() {
            let _ = self.group.write_response(FanotifyResponse::new(event.fd().unwrap(), Response::FAN_ALLOW));
        }
    }
}

impl Drop for Unstoppable {
    fn drop(&mut self) {
        self.answer();
    }
}

fn does_not_stop() -> Result<(), String> {
    let victim = Victim::new();
    let unstoppable = Unstoppable::start(&victim);
    let watch = Watch::start(&victim);
    let time = ruin(&victim.library);
    assert!((1400..2600).contains(&time.as_millis()), "it was tried again: {time:?}");
    let line = watch.wait_for("open", |_| true);
    assert_eq!(pids(&line, "left"), [unstoppable.pid()], "{line}");
    // It is not tried again for a while, so the next writer hardly waits.
    let time = ruin(&victim.library);
    assert!(time.as_millis() < 1000, "{time:?}");
    assert!(!unstoppable.survives(), "it was not pinned, so it cannot survive");
    Ok(())
}

/// To try each takes a tenth of a second.
fn many_that_do_not_stop() -> Result<(), String> {
    let victim = Victim::new();
    let unstoppable: Vec<_> = (0..30).map(|_| Unstoppable::start(&victim)).collect();
    let watch = Watch::start(&victim);
    let time = ruin(&victim.library);
    assert!((1950..2600).contains(&time.as_millis()), "{time:?}");
    let line = watch.wait_for("went-on", |_| true);
    assert_eq!(
        (&line["reason"], line["writer"]["pid"].as_u64()),
        (&"late".into(), Some(std::process::id().into())),
        "{line}"
    );
    let line = watch.wait_for("open", |_| true);
    assert_eq!((&line["late"], pids(&line, "left").len()), (&true.into(), unstoppable.len()), "{line}");
    Ok(())
}

fn traced() -> Result<(), String> {
    let victim = Victim::new();
    let (running, other) = (victim.start(), victim.start());
    let mut strace =
        Command::new("strace").args(["-o", "/dev/null", "-p", &running.pid().to_string()]).spawn().unwrap();
    wait_until("strace does not attach", || {
        let status = fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap();
        !status.contains("TracerPid:\t0\n")
    });
    let watch = Watch::start(&victim);
    let time = ruin(&victim.library);
    assert!(time.as_millis() < 2600, "{time:?}");
    let line = watch.wait_for("open", |_| true);
    assert_eq!((pids(&line, "pinned"), pids(&line, "left")), (vec![other.pid()], vec![running.pid()]), "{line}");
    assert!(line["left"][0]["reason"].as_str().unwrap().contains("traces it"), "{line}");
    assert!(survives(other) && !survives(running));
    strace.wait().unwrap();
    Ok(())
}

/// A program that maps a library, and overwrites another one when it is told to. Then it calls its own.
const WRITER: &str = "#include <fcntl.h>\n#include <stdio.h>\n#include <string.h>\n#include <unistd.h>\n\
    extern int (*const table[2048])(void);\n\
    static char bytes[1 << 16];\n\
    int main(int count, char **words) {\n\
    puts(\"ready\"); fflush(stdout); getchar();\n\
    int file = open(words[1], O_WRONLY);\n\
    memset(bytes, 0xff, sizeof bytes);\n\
    if (file < 0 || write(file, bytes, sizeof bytes) < 0) return 3;\n\
    return table[1024]() ? 0 : 1; }\n";

fn writer(victim: &Victim, file: &Path) -> Running {
    let program = victim.installation.path("writer");
    if !program.exists() {
        victim.installation.compile("writer", WRITER, "cc", &[victim.library.to_str().unwrap()]);
    }
    Running::start(Command::new(program).arg(file))
}

/// It is left, because it waits in the kernel. The others are pinned.
fn own_library() -> Result<(), String> {
    let victim = Victim::new();
    let (running, writer) = (victim.start(), writer(&victim, &victim.library));
    let (watch, id) = (Watch::start(&victim), writer.pid());
    let begun = Instant::now();
    assert!(!writer.ends_well(), "it has overwritten its own library");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let line = watch.wait_for("open", |_| true);
    assert_eq!((pids(&line, "pinned"), pids(&line, "left")), (vec![running.pid()], vec![id]), "{line}");
    assert!(line["left"][0]["reason"].as_str().unwrap().contains("waits"), "{line}");
    assert!(survives(running));
    Ok(())
}

/// Each of the writers would have to be pinned before the other one goes on. Neither waits for long: if one watch
/// knows of both, it leaves them, and otherwise the time is up.
fn crosswise() -> Result<(), String> {
    assert!((0..ATTEMPTS).any(|_| both_wait(true)), "each time one of the writers went on at once");
    assert!(both_wait(false), "a watch let a writer go on that it was not pinning");
    Ok(())
}

/// The number of attempts until both writers open before either is pinned.
const ATTEMPTS: usize = 5;

/// Lets two writers overwrite what the other one maps. Returns whether both waited. A writer does not if it opens while
/// the same watch is pinning it, because it could not be stopped where it waits (the reason is `target`).
fn both_wait(is_one_watch: bool) -> bool {
    let victims = [Victim::new(), Victim::new()];
    let [first, second] = &victims;
    let running = [first.start(), second.start()];
    let writers = [writer(first, &second.library), writer(second, &first.library)];
    let watches =
        if is_one_watch { vec![Watch::start_for(&victims)] } else { vec![Watch::start(first), Watch::start(second)] };
    let begun = Instant::now();
    let threads = writers.map(|writer| thread::spawn(move || writer.end()));
    for thread in threads {
        thread.join().unwrap();
    }
    let limit = Duration::from_secs(if is_one_watch { 2 } else { 5 });
    assert!(begun.elapsed() < limit, "{is_one_watch} {:?}", begun.elapsed());
    let said =
        |event: &str, is_it: &dyn Fn(&Value) -> bool| watches.iter().any(|watch| watch.said(event).iter().any(is_it));
    let mut waited = 0;
    for (running, victim) in running.into_iter().zip(&victims) {
        let library = victim.library.to_str().unwrap();
        let (mut is_pinned, mut went_on) = (false, false);
        wait_until("it is not pinned", || {
            is_pinned = said("open", &|line| pids(line, "pinned").contains(&running.pid()));
            went_on = said("went-on", &|line| line["reason"] == "target" && line["file"] == library);
            is_pinned || went_on
        });
        if !went_on {
            assert!(survives(running));
            waited += 1;
        }
    }
    // While the watch pins one of them for the other, the other waits.
    assert_ne!(waited, 0);
    waited == 2
}

/// More writers than may wait at a time. The kernel refuses none of them.
fn very_many() -> Result<(), String> {
    let victim = Victim::new();
    let unstoppable = Unstoppable::start(&victim);
    let _watch = Watch::start(&victim);
    let library: PathBuf = victim.library.clone();
    let begun = Instant::now();
    let writers: Vec<_> = (0..700)
        .map(|_| {
            let library = library.clone();
            thread::spawn(move || fs::OpenOptions::new().append(true).open(library).map(drop))
        })
        .collect();
    for writer in writers {
        writer.join().unwrap().unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    assert!(unstoppable.survives(), "nothing was written");
    Ok(())
}

/// Maps an object, takes a write lease on it when it is told to, and keeps it although others wait.
const LEASEHOLDER: &str = "import fcntl, mmap, os, signal, sys, time\n\
    signal.signal(signal.SIGIO, signal.SIG_IGN)\n\
    file = os.open(sys.argv[1], os.O_RDONLY)\n\
    memory = mmap.mmap(file, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)\n\
    print('mapped', flush=True)\n\
    sys.stdin.readline()\n\
    while True:\n\
    \x20   try:\n\
    \x20       fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n\
    \x20       break\n\
    \x20   except BlockingIOError:\n\
    \x20       time.sleep(0.01)  # The watch has it open.\n\
    print('leased', flush=True)\n\
    sys.stdin.readline()\n";

/// The owner of a file can take a lease on it, whose end the kernel waits for when it opens the file for the guard. Others
/// open other files meanwhile.
fn lease() -> Result<(), String> {
    let victim = Victim::new();
    let running = victim.start();
    let leased = victim.installation.path("leased.so");
    fs::copy(&victim.library, &leased).unwrap();
    let mut holder = Command::new("python3");
    let mut holder =
        holder.args(["-c", LEASEHOLDER]).arg(&leased).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut tell, mut says) = (holder.stdin.take().unwrap(), BufReader::new(holder.stdout.take().unwrap()).lines());
    assert_eq!(says.next().unwrap().unwrap(), "mapped");
    let mut watch = Watch::start(&victim);
    watch.wait_for_mark(&leased);
    writeln!(tell).unwrap();
    assert_eq!(says.next().unwrap().unwrap(), "leased");
    let reader = thread::spawn(move || File::open(leased).map(drop));
    // Without the guard the reader would wait for the end of the lease. The kernel refuses the open, and the line says so.
    watch.wait_for("guard", |line| line["what"] == "refused" && line["error"].as_str().unwrap().contains("lease"));
    assert_eq!(reader.join().unwrap().unwrap_err().kind(), ErrorKind::PermissionDenied);
    let begun = Instant::now();
    File::open(&victim.library).unwrap();
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
    drop(tell);
    holder.wait().unwrap();
    assert!(survives(running));
    Ok(())
}

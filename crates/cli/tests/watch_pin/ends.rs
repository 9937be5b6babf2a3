//! When the watch, or the process that guards, ends or is stopped, the processes that wait for it go on.

use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use rustix::process::Signal;

use super::Case;
use super::bounds::Unstoppable;
use super::watching::{Watch, ruin, send, survives, wait_until};
use crate::common::clean_process;
use crate::common::victim::{Running, Victim};

pub const CASES: &[Case] = &[
    Case { name: "ends::the_watch_is_killed", needs: &["root", "cc"], test: || killed(Watch::pid, Signal::KILL) },
    Case { name: "ends::the_guard_is_killed", needs: &["root", "cc"], test: || killed(Watch::guard, Signal::KILL) },
    Case { name: "ends::the_watch_is_terminated", needs: &["root", "cc"], test: || killed(Watch::pid, Signal::TERM) },
    Case { name: "ends::a_dead_guard_ends_the_watch", needs: &["root", "cc"], test: guard_dies },
    Case { name: "ends::the_watch_is_stopped", needs: &["root", "cc"], test: watch_stopped },
    Case { name: "ends::the_guard_is_stopped", needs: &["root", "cc"], test: guard_stopped },
    Case { name: "ends::the_guard_does_not_answer", needs: &["root", "cc"], test: not_answering },
    Case {
        name: "ends::the_guard_waits_for_a_server",
        needs: &["root", "cc", "python3"],
        test: a_server_that_answers_nothing,
    },
    Case { name: "ends::a_library_of_the_watch", needs: &["root", "cc"], test: own_library },
    Case { name: "ends::no_core_dump", needs: &["root", "cc"], test: no_core_dump },
    Case { name: "ends::nothing_reads_the_output", needs: &["root", "cc"], test: not_read },
    Case { name: "ends::without_rights", needs: &["root"], test: without_rights },
];

/// Opens a file for writing in a thread, and returns it when it waits for an answer.
fn waiting_writer(file: &Path) -> JoinHandle<Instant> {
    let file = file.to_owned();
    let (sender, id) = std::sync::mpsc::channel();
    let thread = thread::spawn(move || {
        sender.send(nix::unistd::gettid()).unwrap();
        fs::OpenOptions::new().append(true).open(file).unwrap();
        Instant::now()
    });
    let stat = format!("/proc/self/task/{}/stat", id.recv().unwrap());
    wait_until("the writer does not wait", || fs::read_to_string(&stat).unwrap().contains(") D "));
    thread
}

fn killed(whom: fn(&Watch) -> u32, signal: Signal) -> Result<(), String> {
    let victim = Victim::new();
    let unstoppable = Unstoppable::start(&victim);
    let watch = Watch::start(&victim);
    let writer = waiting_writer(&victim.library);
    let begun = Instant::now();
    send(whom(&watch), signal);
    let time = writer.join().unwrap().saturating_duration_since(begun);
    assert!(time < Duration::from_millis(700), "{time:?}");
    // From now on no open waits.
    for _ in 0..100 {
        fs::OpenOptions::new().append(true).open(&victim.library).unwrap();
    }
    assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
    assert!(unstoppable.survives(), "nothing was written");
    Ok(())
}

/// A supervisor that starts the watch again must see that it does not guard any more.
fn guard_dies() -> Result<(), String> {
    let victim = Victim::new();
    let running = victim.start();
    let mut watch = Watch::start(&victim);
    send(watch.guard(), Signal::KILL);
    assert_eq!(watch.wait().code(), Some(3));
    assert!(survives(running));
    Ok(())
}

/// The guard is a process of its own and goes on.
fn watch_stopped() -> Result<(), String> {
    let victim = Victim::new();
    let running = victim.start();
    let watch = Watch::start(&victim);
    send(watch.pid(), Signal::STOP);
    let time = ruin(&victim.library);
    assert!(time < Duration::from_secs(2), "{time:?}");
    assert!(survives(running));
    send(watch.pid(), Signal::CONT);
    watch.wait_for("open", |_| true);
    assert!(watch.end(Signal::INT).success());
    Ok(())
}

/// The watch makes it go on.
fn guard_stopped() -> Result<(), String> {
    let victim = Victim::new();
    let running = victim.start();
    let watch = Watch::start(&victim);
    send(watch.guard(), Signal::STOP);
    let time = ruin(&victim.library);
    assert!(time < Duration::from_secs(2), "{time:?}");
    assert!(survives(running));
    watch.wait_for("guard", |line| line["what"] == "continued");
    Ok(())
}

/// A debugger stops the thread that answers. The watch ends the guard, and whoever waits goes on.
fn not_answering() -> Result<(), String> {
    let victim = Victim::new();
    let running = victim.start();
    let mut watch = Watch::start(&victim);
    let mut tasks = fs::read_dir(format!("/proc/{}/task", watch.guard())).unwrap().flatten();
    let answers = tasks.find(|task| fs::read_to_string(task.path().join("comm")).unwrap() == "answers\n").unwrap();
    let answers = nix::unistd::Pid::from_raw(answers.file_name().to_str().unwrap().parse().unwrap());
    ptrace::seize(answers, ptrace::Options::empty()).unwrap();
    ptrace::interrupt(answers).unwrap();
    let (library, begun) = (victim.library.clone(), Instant::now());
    let reader = thread::spawn(move || fs::File::open(library).unwrap());
    reader.join().unwrap();
    let time = begun.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(8)).contains(&time), "{time:?}");
    // The thread is there until its tracer has waited for it.
    while waitpid(answers, Some(WaitPidFlag::__WALL)).is_ok() {}
    assert_eq!(watch.wait().code(), Some(3));
    assert!(survives(running));
    Ok(())
}

/// Maps a page of a file that another process has open over its own dynamic section, which is read when it is
/// pinned. After that it calls nothing, because the addresses of functions may be in that page, too.
const UNREADABLE: &str = "#include <stdio.h>\n#include <stdlib.h>\n#include <sys/mman.h>\n\
    #include <sys/syscall.h>\n#include <unistd.h>\n\
    extern int (*const table[2048])(void);\n\
    extern char _DYNAMIC[];\n\
    int main(int count, char **words) {\n\
    int process = syscall(SYS_pidfd_open, atoi(words[1]), 0);\n\
    int file = syscall(SYS_pidfd_getfd, process, atoi(words[2]), 0);\n\
    if (file < 0 || !table[1024]()) return 3;\n\
    puts(\"ready\"); fflush(stdout);\n\
    mmap(_DYNAMIC - (unsigned long)_DYNAMIC % 4096, 4096, PROT_READ, MAP_FIXED | MAP_PRIVATE, file, 0);\n\
    for (volatile int forever = 1; forever;) {}\n\
    return 0; }\n";

/// The memory of a process is a file's whose server does not answer. The thread that pins waits for it where nothing
/// ends it, also not the end of the guard. Others open the library all the same.
fn a_server_that_answers_nothing() -> Result<(), String> {
    if !Path::new("/dev/fuse").exists() {
        return Err("no /dev/fuse".to_owned());
    }
    let victim = Victim::new();
    // Elsewhere, because the guard opens what is mapped below the directory.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    fs::write(path.join("served.py"), include_bytes!("../status_programs/served.py")).unwrap();
    fs::create_dir(path.join("mount")).unwrap();
    let server = Running::start(Command::new("python3").args(["served.py", "mount", "unread"]).current_dir(path));
    let mut files = fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().flatten();
    let file = files.find(|file| fs::read_link(file.path()).is_ok_and(|file| file.ends_with("mount/file"))).unwrap();
    victim.installation.compile("unreadable", UNREADABLE, "cc", &["-Wl,-z,now", victim.library.to_str().unwrap()]);
    let mut command = Command::new(victim.installation.path("unreadable"));
    let unreadable = Running::start(command.arg(server.pid().to_string()).arg(file.file_name()));
    let maps = format!("/proc/{}/maps", unreadable.pid());
    wait_until("it does not map the file", || fs::read_to_string(&maps).unwrap().contains("/mount/file"));

    let watch = Watch::start(&victim);
    let guard = watch.guard();
    fs::OpenOptions::new().append(true).open(&victim.library).unwrap();
    watch.wait_for("went-on", |line| line["reason"] == "late");
    assert!(watch.end(Signal::TERM).success());
    let state = fs::read_to_string(format!("/proc/{guard}/status")).unwrap_or_default();
    let library = victim.library.clone();
    let reader = thread::spawn(move || drop(fs::File::open(library).unwrap()));
    let begun = Instant::now();
    while !reader.is_finished() && begun.elapsed() < Duration::from_secs(5) {
        thread::sleep(Duration::from_millis(5));
    }
    let goes_on = reader.is_finished();
    // The end of the server ends all who wait.
    server.end();
    reader.join().unwrap();
    drop(unreadable);
    assert!(state.contains("State:\tZ"), "the guard could end, so nothing was tested: {state}");
    assert!(goes_on, "the kernel asks a guard that cannot answer");
    Ok(())
}

/// The C library of the watch itself is overwritten, and it goes on.
fn own_library() -> Result<(), String> {
    let victim = Victim::new();
    let running = victim.start();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let path =
        maps.lines().filter_map(|line| line.find('/').map(|at| &line[at..])).find(|path| path.ends_with("/libc.so.6"));
    let Some(path) = path else { return Err("no libc.so.6 is mapped".to_owned()) };
    let library = victim.installation.path("libc.so.6");
    fs::copy(path, &library).unwrap();
    let directory = victim.installation.path("");
    let watch = Watch::start_with(std::slice::from_ref(&victim), &[("LD_LIBRARY_PATH", &directory)]);
    for pid in [watch.pid(), watch.guard()] {
        let objects = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        assert!(objects.contains("libc.so.6"), "it has loaded another one: {objects}");
    }
    ruin(&library);
    ruin(&victim.library);
    assert!(survives(running));
    assert!(watch.end(Signal::INT).success());
    Ok(())
}

/// The program that makes a core dump of the guard would open libraries, and wait for the guard.
fn no_core_dump() -> Result<(), String> {
    let victim = Victim::new();
    let running = victim.start();
    let watch = Watch::start(&victim);
    let limits = fs::read_to_string(format!("/proc/{}/limits", watch.guard())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().filter(|word| *word == "1").count(), 2, "{core}");
    assert!(survives(running));
    Ok(())
}

/// The guard leaves out the reports that it cannot write, and goes on.
fn not_read() -> Result<(), String> {
    let victim = Victim::new();
    let running = victim.start();
    let watch = Watch::start(&victim);
    // A stopped watch does not read what the guard reports.
    send(watch.pid(), Signal::STOP);
    for _ in 0..3 {
        assert!(ruin(&victim.library) < Duration::from_secs(2));
    }
    assert!(survives(running));
    send(watch.pid(), Signal::KILL);
    Ok(())
}

fn without_rights() -> Result<(), String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sopin"));
    clean_process(&mut command).args(["watch", "--pin"]).uid(65534).gid(65534);
    let mut child = match command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn() {
        Ok(child) => child,
        // The checkout may be in a directory that only root may enter.
        Err(error) => return Err(format!("another user cannot start the command: {error}")),
    };
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3), "{said}");
    assert!(said.contains("--pin") && said.contains("CAP_SYS_ADMIN"), "{said}");
    Ok(())
}

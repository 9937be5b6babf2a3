//! A running `sopin watch`, and a program that rewrites files in ways that standard programs do not.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::victim::Victim;
use crate::common::{Installation, clean_process};

/// The longest wait for something that must happen.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The time for which a test checks that something does not happen.
pub const SILENCE: Duration = Duration::from_millis(1500);

/// A running watch. It is killed when dropped.
pub struct Watcher {
    child: Child,
    lines: Receiver<String>,
    errors: Receiver<String>,
    /// The lines that it printed on stderr until it had begun.
    pub greeting: Vec<String>,
}

impl Watcher {
    /// Starts `sopin watch --json`, and waits until it has begun.
    pub fn start(installation: &Installation, arguments: &[&str]) -> Self {
        Self::start_under(installation, &[], &[&["--json"], arguments].concat())
    }

    /// Starts it under another command.
    pub fn start_under(installation: &Installation, under: &[&str], arguments: &[&str]) -> Self {
        let mut watcher = Self::spawn(installation, under, arguments);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            let line = watcher.errors.recv_timeout(rest).expect("it begins to watch");
            watcher.greeting.push(line.clone());
            if line.starts_with("sopin: watching ") {
                return watcher;
            }
        }
    }

    fn spawn(installation: &Installation, under: &[&str], arguments: &[&str]) -> Self {
        let program = installation.path("bin/sopin").into_os_string().into_string().unwrap();
        let words: Vec<&str> = under.iter().copied().chain([program.as_str(), "watch"]).collect();
        let mut command = Command::new(words[0]);
        let command = clean_process(&mut command).args(&words[1..]).args(arguments);
        command.current_dir(installation.path("")).stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        let errors = lines_of(child.stderr.take().unwrap());
        Self { child, lines, errors, greeting: Vec::new() }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the next line about a file. Lines about other files, which other programs on this
    /// machine may cause, are passed over.
    pub fn next_about(&self, file: &Path) -> Value {
        self.next_within(file, PATIENCE).unwrap_or_else(|| panic!("no line about {}", file.display()))
    }

    /// Asserts that for a while no line comes about a file.
    pub fn is_silent_about(&self, file: &Path) {
        if let Some(line) = self.next_within(file, SILENCE) {
            panic!("{line:#}");
        }
    }

    /// Returns the next line about a file; `None` if none comes within a time.
    pub fn next_within(&self, file: &Path, time: Duration) -> Option<Value> {
        let deadline = Instant::now() + time;
        loop {
            let line = self.next_line(deadline.saturating_duration_since(Instant::now()))?;
            let line: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            assert_eq!(line["schema"], 1, "{line}");
            if line["file"] == file.to_str().unwrap() {
                return Some(line);
            }
        }
    }

    /// Returns the next line; `None` if none comes, or it has ended.
    pub fn next_line(&self, time: Duration) -> Option<String> {
        self.lines.recv_timeout(time).ok()
    }

    /// Returns the next line on stderr.
    pub fn next_error(&self) -> String {
        self.errors.recv_timeout(PATIENCE).unwrap()
    }

    /// Returns the programs that it has started: those of each of its threads.
    pub fn children(&self) -> Vec<u32> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap().flatten();
        let children = tasks.map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default());
        children
            .flat_map(|text| text.split_ascii_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>())
            .collect()
    }

    pub fn send(&self, signal: &str) {
        let status = Command::new("kill").args([&format!("-{signal}"), &self.pid().to_string()]).status();
        assert!(status.unwrap().success());
    }

    /// Waits until it has ended.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends it by SIGTERM.
    pub fn end(mut self) {
        self.send("TERM");
        let status = self.wait();
        assert_eq!((status.code(), status.signal()), (Some(0), None));
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads lines in a thread.
fn lines_of(stream: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

const REWRITER: &str = "#define _GNU_SOURCE\n\
    #include <fcntl.h>\n#include <stdlib.h>\n#include <stdio.h>\n#include <string.h>\n#include <sys/mman.h>\n\
    #include <sys/stat.h>\n#include <sys/wait.h>\n#include <time.h>\n#include <unistd.h>\n\
    static char bytes[1 << 20];\n\
    static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec * 1e-9; }\n\
    /* Does something to a file, says so, and lives on until its input ends. */\n\
    int main(int count, char **words) {\n\
    \x20   (void)count;\n\
    \x20   const char *how = words[1], *file = words[2];\n\
    \x20   int in = open(file, O_RDONLY), out;\n\
    \x20   ssize_t len = read(in, bytes, sizeof bytes);\n\
    \x20   close(in);\n\
    \x20   if (!strcmp(how, \"truncate\")) {\n\
    \x20       if (truncate(file, 4096) != 0) return 1;\n\
    \x20   } else if (!strcmp(how, \"copy\")) {\n\
    \x20       out = open(file, O_WRONLY | O_TRUNC);\n\
    \x20       if (write(out, bytes, len) != len) return 1;\n\
    \x20       close(out);\n\
    \x20   } else if (!strcmp(how, \"same\")) {\n\
    \x20       out = open(file, O_WRONLY);\n\
    \x20       if (write(out, bytes, len) != len) return 1;\n\
    \x20       close(out);\n\
    \x20   } else if (!strcmp(how, \"empty\")) {\n\
    \x20       out = open(file, O_WRONLY | O_TRUNC);\n\
    \x20   } else if (!strcmp(how, \"open\")) {\n\
    \x20       close(open(file, O_RDWR));\n\
    \x20   } else if (!strcmp(how, \"map\")) {\n\
    \x20       out = open(file, O_RDWR);\n\
    \x20       char *at = mmap(0, len, PROT_READ | PROT_WRITE, MAP_SHARED, out, 0);\n\
    \x20       at[len - 1] ^= 1;\n\
    \x20       msync(at, len, MS_SYNC);\n\
    \x20       pause();\n\
    \x20   } else if (!strcmp(how, \"alternate\")) {\n\
    \x20       int other = open(words[3], O_WRONLY);\n\
    \x20       out = open(file, O_WRONLY);\n\
    \x20       for (long left = atol(words[4]); left > 0; left--) {\n\
    \x20           if (pwrite(out, bytes, 1, 0) != 1 || pwrite(other, bytes, 1, 0) != 1) return 1;\n\
    \x20       }\n\
    \x20   } else if (!strcmp(how, \"fork\")) {\n\
    \x20       for (long left = atol(words[3]); left > 0; left--) {\n\
    \x20           pid_t child = fork();\n\
    \x20           if (child == 0) {\n\
    \x20               out = open(file, O_WRONLY);\n\
    \x20               _exit(pwrite(out, bytes, 1, 0) != 1);\n\
    \x20           }\n\
    \x20           if (child < 0 || waitpid(child, 0, 0) != child) return 1;\n\
    \x20       }\n\
    \x20   } else if (!strcmp(how, \"hammer\")) {\n\
    \x20       long all = atol(words[3]) * atol(words[4]);\n\
    \x20       double start = now(), each = 1.0 / atol(words[3]);\n\
    \x20       out = open(file, O_WRONLY);\n\
    \x20       for (long done = 0; done < all; done++) {\n\
    \x20           if (words[5]) { close(out); out = open(file, O_WRONLY); }\n\
    \x20           if (pwrite(out, bytes, 1, 0) != 1) return 1;\n\
    \x20           double rest = start + each * (done + 1) - now();\n\
    \x20           if (rest > 0.0005) usleep(rest * 1e6);\n\
    \x20       }\n\
    \x20       close(out);\n\
    \x20   }\n\
    \x20   puts(\"done\");\n\
    \x20   fflush(stdout);\n\
    \x20   while (getchar() != EOF) {}\n\
    \x20   return 0;\n\
    }\n";

/// A process that has rewritten a file, and is still there. It is killed when dropped.
pub struct Rewriter(Child);

impl Rewriter {
    /// Compiles the program.
    pub fn compile(installation: &Installation) {
        installation.compile("rewriter", REWRITER, "cc", &["-O1"]);
    }

    /// Starts it and waits until it has done its work. `under` is a command that executes it.
    pub fn run(installation: &Installation, under: &[&str], words: &[&str]) -> Self {
        let mut rewriter = Self::start(installation, under, words);
        rewriter.wait_until_done();
        rewriter
    }

    /// Starts it.
    pub fn start(installation: &Installation, under: &[&str], words: &[&str]) -> Self {
        let program = installation.path("rewriter").into_os_string().into_string().unwrap();
        let all: Vec<&str> = under.iter().copied().chain([program.as_str()]).chain(words.iter().copied()).collect();
        let mut command = Command::new(all[0]);
        let command = clean_process(&mut command).args(&all[1..]).stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    /// Waits until it has done its work.
    pub fn wait_until_done(&mut self) {
        let mut line = String::new();
        BufReader::new(self.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "done\n");
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Rewriter {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns an installation with a program, its library and the rewriter.
pub fn scene() -> Victim {
    let victim = Victim::new();
    Rewriter::compile(&victim.installation);
    victim
}

//! A process whose library can be rewritten while it waits, for the tests of `sopin
//! status`.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use snapbox::cmd::OutputAssert;

use super::{Installation, clean_process};

/// A library with a table of relocated pointers, at the end of two pages so that
/// truncation removes it, and a lazily bound call.
pub const LIBRARY: &str = "#include <unistd.h>\n\
    static int answer(void) { return getpid() ? 42 : 1; }\n\
    int (*const table[2048])(void) = { [0 ... 2047] = answer };\n\
    int (*changing[2048])(void) = { [0 ... 2047] = answer };\n";
/// A program that prints when it is ready, and waits for its input to end.
pub const PROGRAM: &str = "#include <stdio.h>\n\
    extern int (*const table[2048])(void);\n\
    extern int (*changing[2048])(void);\n\
    int main(void) {\n\
    \x20   changing[1] = 0;\n\
    \x20   puts(\"ready\");\n\
    \x20   fflush(stdout);\n\
    \x20   while (getchar() != EOF) {}\n\
    \x20   return table[1024]() && changing[1024] ? 0 : 1;\n\
    }\n";

/// A running process that has printed that it is ready. It is killed when dropped.
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    started: Instant,
}

impl Running {
    /// Starts a process and waits for its first line.
    pub fn start(command: &mut Command) -> Self {
        let started = Instant::now();
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "{command:?}");
        let stdin = child.stdin.take();
        Self { child, stdin, started }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the start of the process is longer ago than the granularity of
    /// clocks, so that a change of a file from now on is later than the start.
    pub fn settle(&self) {
        while self.started.elapsed() < Duration::from_millis(100) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Writes to its input.
    pub fn say(&mut self, text: &str) {
        self.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Ends its input. Returns whether it ended successfully.
    pub fn ends_well(self) -> bool {
        self.end().success()
    }

    /// Ends its input. Returns how it ended.
    pub fn end(mut self) -> ExitStatus {
        drop(self.stdin.take());
        self.child.wait().unwrap()
    }

    /// Returns its child, if the process itself is `unshare --fork` or similar.
    pub fn child(&self) -> u32 {
        children(self.pid())[0]
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the children of a process.
pub fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    text.split_ascii_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// An installation with the program and its library.
pub struct Victim {
    pub installation: Installation,
    pub library: PathBuf,
}

impl Victim {
    pub fn new() -> Self {
        Self::compiled(&[])
    }

    /// Compiles the library with more flags.
    pub fn compiled(flags: &[&str]) -> Self {
        let installation = Installation::new();
        let flags: Vec<_> = ["-shared", "-fPIC"].iter().chain(flags).copied().collect();
        let library = installation.compile("libvictim.so", LIBRARY, "cc", &flags);
        installation.compile("program", PROGRAM, "cc", &[library.to_str().unwrap()]);
        Self { installation, library }
    }

    /// Starts the program.
    pub fn start(&self) -> Running {
        self.start_under(&["env"])
    }

    /// Starts it under `sopin run`, with these variables.
    pub fn start_protected(&self, variables: &[(&str, &str)]) -> Running {
        let mut command = Command::new("bin/sopin");
        let command = clean_process(&mut command).args(["run", "--", "./program"]);
        Running::start(command.current_dir(self.installation.path("")).envs(variables.iter().copied()))
    }

    /// Starts it under a command that executes it or has it as a child.
    pub fn start_under(&self, under: &[&str]) -> Running {
        let mut words = under.iter().chain(&["./program"]);
        let mut command = Command::new(words.next().unwrap());
        let command = clean_process(&mut command).args(words);
        Running::start(command.current_dir(self.installation.path("")))
    }

    /// Rewrites the library in place with the same bytes, truncating it first.
    pub fn rewrite(&self, running: &Running) {
        running.settle();
        let bytes = fs::read(&self.library).unwrap();
        fs::write(&self.library, bytes).unwrap();
    }

    /// Runs `sopin status` on a process, with output for people.
    pub fn status(&self, pid: u32, arguments: &[&str]) -> OutputAssert {
        self.installation.sopin().arg("status").args(arguments).arg(pid.to_string()).assert()
    }

    /// Returns the process in the JSON output.
    pub fn json(&self, pid: u32) -> Value {
        let output = self.status(pid, &["--json"]).get_output().clone();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(answer["schema"], 1);
        assert_eq!(answer["not_inspected"], Value::Array(vec![]), "{answer:#}");
        answer["processes"][0].clone()
    }
}

/// Returns the object whose path ends like this.
pub fn object<'a>(process: &'a Value, ending: &str) -> &'a Value {
    let objects = process["objects"].as_array().unwrap();
    let found = objects.iter().find(|object| object["path"].as_str().unwrap().ends_with(ending));
    found.unwrap_or_else(|| panic!("no {ending}: {process:#}"))
}

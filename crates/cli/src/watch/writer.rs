//! Reads the name and the command of the process that has written to a file, while it has not ended.
//! Everything that is read of it is made up by that process, and may be long, so it is cut.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::time::{Duration, Instant};

use serde::Serialize;
use sopin_inspect::process::words_of_command;

use super::events::WriterId;
use crate::output::shown;
use crate::process_table;

/// Bytes of the arguments that are kept, and characters of them that are shown on a line.
const MAX_COMMAND: u64 = 1024;
const SHOWN_COMMAND: usize = 120;
/// The most writers that are remembered, and the time for which they are. One that writes to many files may have
/// ended when the event of the last one is read. No process gets the number of another so soon, because the
/// kernel gives out all others first.
const REMEMBERED: usize = 256;
const MEMORY: Duration = Duration::from_secs(2);

/// A writer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Writer {
    /// Its process id; null if that is not known.
    pub pid: Option<u32>,
    /// The name of its first thread; null if it had ended before it could be read.
    pub name: Option<String>,
    /// The arguments that it was started with, the first KiB of them.
    pub command: Vec<String>,
    /// The reason for which the process is not known: `no-privilege`, `other-namespace`, `ended`; null if it is.
    pub unknown: Option<&'static str>,
}

/// Finds the names of writers.
#[derive(Default)]
pub struct Writers {
    recent: HashMap<u32, (Writer, Instant)>,
}

impl Writers {
    /// Returns the writer of an event that was read just now.
    pub fn find(&mut self, id: WriterId, now: Instant) -> Writer {
        let pid = match id {
            WriterId::Process(pid) => pid,
            WriterId::OfAnotherNamespace => return Writer { unknown: Some("other-namespace"), ..Writer::default() },
            WriterId::NotTold => return Writer { unknown: Some("no-privilege"), ..Writer::default() },
        };
        let found = match read(pid) {
            Some(writer) => writer,
            None => match self.recent.get(&pid) {
                Some((writer, seen)) if now.duration_since(*seen) < MEMORY => writer.clone(),
                _ => return Writer { pid: Some(pid), unknown: Some("ended"), ..Writer::default() },
            },
        };
        if self.recent.len() >= REMEMBERED {
            self.recent.retain(|_, (_, seen)| now.duration_since(*seen) < MEMORY);
        }
        if self.recent.len() < REMEMBERED {
            self.recent.insert(pid, (found.clone(), now));
        }
        found
    }
}

/// Reads the name and the arguments of a process. A process that ends loses its arguments first, and its
/// name only when its parent has waited for it.
fn read(pid: u32) -> Option<Writer> {
    let command = words_of_command(&read_start(&format!("/proc/{pid}/cmdline")).unwrap_or_default());
    let name = read_start(&format!("/proc/{pid}/comm"));
    let name = name.map(|name| String::from_utf8_lossy(name.strip_suffix(b"\n").unwrap_or(&name)).into_owned());
    let name = name.or_else(|| Some(command.first()?.rsplit('/').next()?.to_owned()))?;
    Some(Writer { pid: Some(pid), name: Some(name), command, unknown: None })
}

fn read_start(path: &str) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path).ok()?.take(MAX_COMMAND).read_to_end(&mut text).ok()?;
    Some(text)
}

impl Writer {
    /// Returns the words for people.
    pub fn words(&self) -> String {
        let Some(pid) = self.pid else {
            return match self.unknown {
                Some("other-namespace") => "a process outside of this PID namespace".to_owned(),
                _ => "an unknown process".to_owned(),
            };
        };
        let Some(name) = &self.name else { return format!("a process that has ended ({pid})") };
        if self.command.iter().all(String::is_empty) {
            return format!("{} ({pid})", shown(name));
        }
        let command = process_table::command(name, &self.command);
        let command = console::truncate_str(&command, SHOWN_COMMAND, "…");
        format!("{} ({pid}, `{command}`)", shown(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_named_while_it_is_there_and_for_a_while_after() {
        let mut writers = Writers::default();
        let now = Instant::now();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let id = WriterId::Process(child.id());
        while writers.find(id, now).command != ["sleep", "60"] {
            std::thread::yield_now();
        }
        assert_eq!(writers.find(id, now).words(), format!("sleep ({}, `sleep 60`)", child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(writers.find(id, now + MEMORY / 2).name.as_deref(), Some("sleep"));
        let later = writers.find(id, now + MEMORY * 2);
        assert_eq!((later.name.as_ref(), later.unknown), (None, Some("ended")));
        assert_eq!(later.words(), format!("a process that has ended ({})", child.id()));
    }

    #[test]
    fn names_stay_on_one_line() {
        let words = |name: &str, command: &[&str]| {
            let command = command.iter().map(|word| (*word).to_owned()).collect();
            Writer { pid: Some(7), name: Some(name.to_owned()), command, unknown: None }.words()
        };
        assert_eq!(words("a\nb", &["x\x1b[31m", "y\r"]), "a\\nb (7, `x\\u{1b}[31m y`)");
        assert_eq!(words("a", &[""]), "a (7)");
        assert!(words("a", &[&"x".repeat(5000)]).chars().count() < SHOWN_COMMAND + 20);
        let unknown = |id| Writers::default().find(id, Instant::now()).words();
        assert_eq!(unknown(WriterId::NotTold), "an unknown process");
        assert!(unknown(WriterId::OfAnotherNamespace).contains("namespace"));
    }
}

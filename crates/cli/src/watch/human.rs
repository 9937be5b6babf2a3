//! Lines for people.

use std::fmt;
use std::time::SystemTime;

use anstyle::Style;

use super::answer::{ConcernedProcess, Lost, News, ProcessState, RewriteAnswer, WatchLine};
use crate::output::{BAD, DOUBTFUL, GOOD, shown};

/// How many processes are named for each state without `--verbose`.
const NAMED: usize = 5;

/// A line.
pub struct ShownLine<'a> {
    /// What it says.
    pub line: &'a WatchLine,
    /// Whether all processes are named.
    pub is_verbose: bool,
}

impl fmt::Display for ShownLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", clock(self.line.time))?;
        match &self.line.news {
            News::Rewrite(answer) => self.rewrite(f, answer),
            News::Lost(lost) => write!(f, "{DOUBTFUL}{}{DOUBTFUL:#}", words_of(lost)),
        }
    }
}

impl ShownLine<'_> {
    fn rewrite(&self, f: &mut fmt::Formatter<'_>, answer: &RewriteAnswer) -> fmt::Result {
        let verb = if answer.ongoing { "goes on rewriting" } else { "rewrote" };
        write!(f, "{} {verb} {} in place:", answer.writer.words(), shown(&answer.file))?;
        let parts = [
            (ProcessState::Full, answer.full, "pinned", GOOD),
            (ProcessState::Relocated, answer.relocated, "relocated", Style::new()),
            (ProcessState::Exposed, answer.exposed, "exposed", DOUBTFUL),
            (ProcessState::Damaged, answer.damaged, "damaged", BAD),
            (ProcessState::Ended, answer.ended, "ended since", BAD),
            (ProcessState::NotInspected, answer.not_inspected, "not inspected", DOUBTFUL),
        ];
        let mut is_first = true;
        for (state, count, word, style) in parts.into_iter().filter(|(_, count, ..)| *count != 0) {
            let noun = match (is_first, count) {
                (false, _) => "",
                (true, 1) => " process",
                (true, _) => " processes",
            };
            write!(f, "{} {style}{count}{noun} {word}{style:#}", if is_first { "" } else { "," })?;
            if self.is_verbose || !matches!(state, ProcessState::Full | ProcessState::Relocated) {
                self.names(f, &answer.processes, state, count)?;
            }
            is_first = false;
        }
        Ok(())
    }

    fn names(
        &self,
        f: &mut fmt::Formatter<'_>,
        processes: &[ConcernedProcess],
        state: ProcessState,
        count: usize,
    ) -> fmt::Result {
        let limit = if self.is_verbose { usize::MAX } else { NAMED };
        let named = processes.iter().filter(|process| process.state == state).take(limit);
        let named: Vec<String> = named.map(name).collect();
        write!(f, " ({}", named.join(", "))?;
        match count - named.len() {
            0 => write!(f, ")"),
            more => write!(f, " and {more} more)"),
        }
    }
}

fn name(process: &ConcernedProcess) -> String {
    let unjudged =
        if process.state == ProcessState::Exposed && process.reason.is_some() { ", perhaps damaged" } else { "" };
    format!("{} {}{unjudged}", process.pid, shown(&process.name))
}

fn words_of(lost: &Lost) -> String {
    let count = lost.count.map_or_else(String::new, |count| count.to_string());
    match lost.what {
        "kernel-queue" => "events were lost, because the kernel's queue was full: files may have been rewritten; \
                           sopin status --all shows what is damaged"
            .to_owned(),
        "rewritings" => format!("{count} changes of files are not reported, because too many happened at a time"),
        "output" => format!("{count} lines before this one are missing, because the output was not read"),
        _ => format!("{count} alerts were not given, because the earlier ones have not ended"),
    }
}

/// Returns the time of day.
fn clock(time: SystemTime) -> String {
    match jiff::Timestamp::try_from(time) {
        Ok(time) => time.to_zoned_datetime(jiff::tz::TimeZone::system()).strftime("%H:%M:%S").to_string(),
        Err(_) => "--:--:--".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::writer::Writer;

    fn process(pid: u32, state: ProcessState) -> ConcernedProcess {
        let name = "guni\ncorn".to_owned();
        ConcernedProcess { pid, name, state, reverted_words: 0, bytes_beyond_end: 0, reason: None }
    }

    fn text(states: &[ProcessState], is_verbose: bool) -> String {
        let command = ["pip", "install", "-U", "shop"].map(str::to_owned).to_vec();
        let mut answer = RewriteAnswer {
            file: "/srv/a\nb.so".to_owned(),
            device: 1,
            inode: 2,
            ongoing: false,
            writer: Writer { pid: Some(4242), name: Some("pip".to_owned()), command, unknown: None },
            full: 0,
            relocated: 0,
            exposed: 0,
            damaged: 0,
            ended: 0,
            not_inspected: 0,
            processes: Vec::new(),
            unlisted: 0,
        };
        for (state, pid) in states.iter().zip(1..) {
            *answer.count_mut(*state) += 1;
            answer.processes.push(process(pid, *state));
        }
        let line = WatchLine::new(SystemTime::now(), News::Rewrite(answer));
        let text = anstream::adapter::strip_str(&ShownLine { line: &line, is_verbose }.to_string()).to_string();
        text.split_once(' ').unwrap().1.to_owned()
    }

    #[test]
    fn a_line_says_who_what_and_to_whom() {
        use ProcessState::{Damaged, Ended, Exposed, Full, NotInspected, Relocated};
        let head = "pip (4242, `pip install -U shop`) rewrote /srv/a\\nb.so in place:";
        assert_eq!(
            text(&[Full, Full, Full, Damaged], false),
            format!("{head} 3 processes pinned, 1 damaged (4 guni\\ncorn)")
        );
        assert_eq!(text(&[Full], true), format!("{head} 1 process pinned (1 guni\\ncorn)"));
        assert_eq!(
            text(&[Relocated, Exposed, Ended, NotInspected], false),
            format!(
                "{head} 1 process relocated, 1 exposed (2 guni\\ncorn), 1 ended since (3 guni\\ncorn), \
                 1 not inspected (4 guni\\ncorn)"
            )
        );
        let many = text(&[Damaged; 9], false);
        assert!(many.contains("9 processes damaged (1 ") && many.ends_with(" and 4 more)"), "{many}");
    }

    #[test]
    fn the_clock_has_a_form() {
        let digits: Vec<_> = clock(SystemTime::now()).split(':').map(|part| part.parse::<u8>().unwrap()).collect();
        assert!(digits.len() == 3 && digits[0] < 24 && digits[1] < 60 && digits[2] < 61);
    }
}

//! Lines for people.

use std::fmt;
use std::time::SystemTime;

use anstyle::Style;

use super::answer::{ConcernedProcess, Lost, News, OpenAnswer, ProcessState, RewriteAnswer, WatchLine, WentOnAnswer};
use super::guard::report::Went;
use crate::output::{BAD, DOUBTFUL, GOOD, shown};

/// The most processes that are named for each state without `--verbose`.
const NAMED: usize = 5;

/// A line.
pub struct ShownLine<'a> {
    /// The line as in JSON.
    pub line: &'a WatchLine,
    /// True if all processes are named.
    pub is_verbose: bool,
}

impl fmt::Display for ShownLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", clock(self.line.time))?;
        match &self.line.news {
            News::Rewrite(answer) => self.rewrite(f, answer),
            News::Lost(lost) => write!(f, "{DOUBTFUL}{}{DOUBTFUL:#}", words_of(lost)),
            News::Open(answer) => self.open(f, answer),
            News::WentOn(answer) => went_on(f, answer),
            News::Guard(answer) => match &answer.error {
                None => write!(f, "{DOUBTFUL}the process that guards was stopped, and was made to go on{DOUBTFUL:#}"),
                Some(error) => {
                    let words =
                        "the kernel has refused an open of a guarded file, because it could not open it for the guard";
                    write!(f, "{BAD}{words}: {}{BAD:#}", shown(error))
                }
            },
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

    fn open(&self, f: &mut fmt::Formatter<'_>, answer: &OpenAnswer) -> fmt::Result {
        let OpenAnswer { file, writer, delay_us, late, pinned, left } = answer;
        write!(f, "{} opened {} for writing:", writer.words(), shown(file))?;
        let processes = |count: usize| if count == 1 { "1 process".to_owned() } else { format!("{count} processes") };
        if !pinned.is_empty() {
            write!(f, " {GOOD}{} pinned before{GOOD:#}", processes(pinned.len()))?;
            if self.is_verbose {
                let names: Vec<String> = pinned.iter().map(|one| format!("{} {}", one.pid, shown(&one.name))).collect();
                write!(f, " ({})", names.join(", "))?;
            }
            write!(f, ", in {} ms", delay_us.div_ceil(1000))?;
        }
        if !left.is_empty() {
            let separator = if pinned.is_empty() { "" } else { ";" };
            write!(f, "{separator} {DOUBTFUL}{} left{DOUBTFUL:#}", processes(left.len()))?;
            let limit = if self.is_verbose { usize::MAX } else { NAMED };
            for (index, one) in left.iter().take(limit).enumerate() {
                let reason = one.reason.as_deref().map(|reason| format!(": {}", shown(reason))).unwrap_or_default();
                write!(f, "{}{} {}{reason}", if index == 0 { " (" } else { ", " }, one.pid, shown(&one.name))?;
            }
            let more = left.len().saturating_sub(limit);
            if more != 0 {
                write!(f, " and {more} more")?;
            }
            f.write_str(")")?;
        }
        if *late { write!(f, "; {DOUBTFUL}the writer went on before this was done{DOUBTFUL:#}") } else { Ok(()) }
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

fn went_on(f: &mut fmt::Formatter<'_>, answer: &WentOnAnswer) -> fmt::Result {
    let reason = match answer.reason {
        Went::Late => "after 2 s, before all processes that map it were pinned",
        Went::Target => "at once, because it was being pinned itself",
        Went::Crowded => "at once, because too many others wait",
        Went::Stuck => "at once, because the guard waits for a process or a file that does not answer",
    };
    let file = shown(&answer.file);
    write!(f, "{} opened {file} for writing and {DOUBTFUL}went on {reason}{DOUBTFUL:#}", answer.writer.words())
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
    use crate::watch::guard::report::GuardedProcess;
    use crate::watch::index::Inode;
    use crate::watch::writer::Writer;

    fn process(pid: u32, state: ProcessState) -> ConcernedProcess {
        let name = "guni\ncorn".to_owned();
        ConcernedProcess { pid, name, state, reverted_words: 0, bytes_beyond_end: 0, reason: None }
    }

    fn text(states: &[ProcessState], is_verbose: bool) -> String {
        let command = ["pip", "install", "-U", "shop"].map(str::to_owned).to_vec();
        let writer = Writer { pid: Some(4242), name: Some("pip".to_owned()), command, unknown: None };
        let inode = Inode { device: 1, number: 2 };
        let mut answer = RewriteAnswer::new("/srv/a\nb.so".to_owned(), inode, false, writer);
        for (state, pid) in states.iter().zip(1..) {
            answer.add(process(pid, *state));
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

    fn guarded(pid: u32, reason: Option<&str>) -> GuardedProcess {
        GuardedProcess { pid, name: "guni\ncorn".to_owned(), reason: reason.map(str::to_owned) }
    }

    fn text_of(news: News, is_verbose: bool) -> String {
        let line = WatchLine::new(SystemTime::now(), news);
        let text = anstream::adapter::strip_str(&ShownLine { line: &line, is_verbose }.to_string()).to_string();
        text.split_once(' ').unwrap().1.to_owned()
    }

    #[test]
    fn a_line_about_an_open_says_who_was_pinned_and_who_was_left() {
        let writer = Writer { pid: Some(42), name: Some("cp".to_owned()), ..Writer::default() };
        let mut answer = OpenAnswer {
            file: "/srv/a\nb.so".to_owned(),
            writer: writer.clone(),
            delay_us: 12_345,
            late: false,
            pinned: vec![guarded(1, None), guarded(2, None)],
            left: Vec::new(),
        };
        let head = "cp (42) opened /srv/a\\nb.so for writing:";
        let text = |answer: &OpenAnswer, is_verbose| text_of(News::Open(answer.clone()), is_verbose);
        assert_eq!(text(&answer, false), format!("{head} 2 processes pinned before, in 13 ms"));
        let names = "(1 guni\\ncorn, 2 guni\\ncorn)";
        assert_eq!(text(&answer, true), format!("{head} 2 processes pinned before {names}, in 13 ms"));
        answer.left.push(guarded(3, Some("process 9 traces it")));
        answer.late = true;
        assert_eq!(
            text(&answer, false),
            format!(
                "{head} 2 processes pinned before, in 13 ms; 1 process left (3 guni\\ncorn: process 9 traces it); \
                 the writer went on before this was done"
            )
        );
        answer.pinned.clear();
        answer.left = (0..9).map(|pid| guarded(pid, None)).collect();
        let left = text(&answer, false);
        assert!(
            left.starts_with(&format!("{head} 9 processes left (0 guni")) && left.contains(" and 4 more)"),
            "{left}"
        );
        let early = WentOnAnswer { file: "/srv/a.so".to_owned(), writer, reason: Went::Late };
        assert_eq!(
            text_of(News::WentOn(early), false),
            "cp (42) opened /srv/a.so for writing and went on after 2 s, before all processes that map it were pinned"
        );
    }
}

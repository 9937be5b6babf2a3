//! The answer of `sopin explain --log`, for people: a paragraph for each crash, those that prove
//! most first.

use std::fmt;

use sopin_inspect::kernel_log::LogVerdict;
use sopin_inspect::small_addresses::{NamedAddress, NamedKind};

use super::answer::{LogAnswer, LoggedCrashes};
use super::search::{AddressCandidate, time_of};
use crate::output::{BAD, DOUBTFUL, GOOD, shown};

/// The most candidates that are shown without `--verbose`.
const FEW_CANDIDATES: usize = 5;

/// The answer as text.
pub struct LogPage<'a> {
    /// The answer.
    pub answer: &'a LogAnswer,
    /// True if nothing is left out.
    pub is_verbose: bool,
}

impl fmt::Display for LogPage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for group in &self.answer.groups {
            self.group(f, group)?;
        }
        self.remarks(f)
    }
}

impl LogPage<'_> {
    fn group(&self, f: &mut fmt::Formatter<'_>, group: &LoggedCrashes) -> fmt::Result {
        let (style, word) = match group.verdict {
            LogVerdict::Signature => (BAD, "looks like a file that was rewritten in place"),
            LogVerdict::Possible => (DOUBTFUL, "cannot be told from the log"),
            LogVerdict::Nothing => (GOOD, "does not look like it"),
        };
        write!(f, "{}", shown(&group.program))?;
        if let Some(pid) = group.pids.first() {
            write!(f, "[{pid}]")?;
        }
        if group.count > 1 {
            write!(f, ", {} times", group.count)?;
        }
        if group.verdict == LogVerdict::Nothing && !self.is_verbose {
            return writeln!(f, ": {style}{word}{style:#}: {}", group.reason);
        }
        let times = [&group.first, &group.last];
        match times.map(|time| time.as_deref().map(shown)) {
            [Some(first), Some(last)] if first != last => write!(f, ", {first} to {last}")?,
            [Some(first), _] => write!(f, ", {first}")?,
            _ => {}
        }
        writeln!(f, ": {style}{word}{style:#}")?;
        if self.is_verbose {
            writeln!(f, "    line     {}", shown(&group.message))?;
        }
        if !group.error.is_empty() {
            writeln!(f, "    error    {}", group.error.join(", "))?;
        }
        if let Some(object) = &group.object {
            let name = shown(&object.name);
            if object.has_instruction {
                writeln!(f, "    in       {name}")?;
            } else if group.ip.is_some() {
                writeln!(f, "    in       no object: {name} is the next one above, which older kernels name")?;
            }
        }
        writeln!(f, "    because  {}", group.reason)?;
        self.candidates(f, group)
    }

    fn candidates(&self, f: &mut fmt::Formatter<'_>, group: &LoggedCrashes) -> fmt::Result {
        let Some(address) = group.small_address else { return Ok(()) };
        let most = if self.is_verbose { usize::MAX } else { FEW_CANDIDATES };
        let shown_candidates = group.candidates.iter().take(most);
        let count = shown_candidates.len();
        for candidate in shown_candidates {
            writeln!(f, "    object   {}", ShownCandidate { candidate, address })?;
        }
        if let Some(more) = group.candidate_count.checked_sub(count).filter(|more| *more != 0) {
            let how = if self.is_verbose { "" } else { " (--verbose lists them)" };
            writeln!(f, "             and {more} more{how}: search fewer places")?;
        }
        Ok(())
    }

    fn remarks(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LogAnswer { lines, crashes, suppressed, groups, others, searched, .. } = self.answer;
        if groups.is_empty() {
            writeln!(
                f,
                "No crash in {lines} lines. The kernel does not log SIGBUS on x86-64, and on aarch64 it logs crashes only with debug.exception-trace=1."
            )?;
        }
        let more = others.signature + others.possible + others.nothing;
        if more != 0 {
            let signature = others.signature;
            writeln!(
                f,
                "{more} of {crashes} crashes are of yet other kinds and not shown; {signature} of these look like a file that was rewritten in place."
            )?;
        }
        if *suppressed != 0 {
            writeln!(f, "The kernel has left out {suppressed} lines: it logs at most 10 crashes in 5 seconds.")?;
        }
        for step in &self.answer.next {
            writeln!(f, "Next: {step}")?;
        }
        if let Some(searched) = searched {
            let objects = if searched.objects == 1 { "object was" } else { "objects were" };
            writeln!(f, "{} {objects} searched.", searched.objects)?;
            for unread in searched.unread.iter().take(if self.is_verbose { usize::MAX } else { 3 }) {
                writeln!(f, "{DOUBTFUL}{}{DOUBTFUL:#}: not searched: {}", shown(&unread.path), shown(&unread.reason))?;
            }
            if let Some(more) = searched.unread_count.checked_sub(3).filter(|more| *more != 0 && !self.is_verbose) {
                writeln!(f, "{more} more could not be searched.")?;
            }
        }
        Ok(())
    }
}

/// `0xad0 is distill_params of /srv/cutils.so; 1 pointer...`
struct ShownCandidate<'a> {
    candidate: &'a AddressCandidate,
    address: u64,
}

impl fmt::Display for ShownCandidate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AddressCandidate { path, names, words, holders, changed } = self.candidate;
        write!(f, "{:#x} is ", self.address)?;
        match names.first() {
            None => write!(f, "in")?,
            Some(NamedAddress { name: None, .. }) => write!(f, "a function without a symbol in")?,
            Some(NamedAddress { kind, name: Some(name), offset, .. }) => {
                if *kind == NamedKind::Plt {
                    write!(f, "the lazy PLT entry of ")?;
                }
                write!(f, "{}", shown(name))?;
                if *offset != 0 {
                    write!(f, "+{offset:#x}")?;
                }
                write!(f, " of")?;
            }
        }
        write!(
            f,
            " {}; {words} {} hold it",
            shown(path),
            if *words == 1 { "pointer would" } else { "pointers would" }
        )?;
        let held: Vec<String> = holders.iter().filter_map(|holder| holder.name.as_deref().map(shown)).collect();
        if let Some(first) = held.first() {
            write!(f, " ({first}{})", if *words > 1 { "..." } else { "" })?;
        }
        match time_of(*changed) {
            Some(time) => write!(f, "; the file was changed last at {time}"),
            None => Ok(()),
        }
    }
}

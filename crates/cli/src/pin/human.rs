//! The answer of `sopin pin`, for people: a table with a line for each process, lines for its
//! objects, and what was not pinned. Where a command is executed next, warnings instead.

use std::fmt;

use anstyle::Style;
use sopin_inspect::object::ObjectState;
use sopin_reach::report::{PinReport, PinnedObject};

use super::answer::{INTERRUPTED, NotPinned, PinAnswer, left};
use crate::output::{self, DOUBTFUL, GOOD, shown};
use crate::process_table::{Cell, ProcessTable, command, style_of};
use crate::status::answer::PassedOver;

/// The answer as text.
pub struct PinPage<'a> {
    /// The answer.
    pub answer: &'a PinAnswer,
    /// Whether there is a line for each object.
    pub is_verbose: bool,
    /// The number of columns of the terminal; `None` if it is not for a terminal.
    pub columns: Option<usize>,
}

/// The columns except the last, which has the command.
const COLUMNS: [&str; 10] =
    ["PID", "OBJECTS", "PINNED", "RELOCATED", "LEFT", "THREADS", "STOP-MS", "REPAIRED", "RESTARTED", "CUT-SHORT"];

/// How many of the objects that are left are listed without `--verbose`, for each process.
const LISTED: usize = 3;

impl fmt::Display for PinPage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PinAnswer { processes, dry_run, .. } = self.answer;
        let rows: Vec<_> = processes.iter().map(|process| cells(process, *dry_run)).collect();
        let table = ProcessTable::new(COLUMNS, &rows, self.columns.filter(|_| !self.is_verbose));
        if !rows.is_empty() {
            table.heading(f)?;
        }
        for (process, row) in processes.iter().zip(&rows) {
            table.row(f, row, &command(&process.name, &process.command))?;
            self.objects(f, process)?;
        }
        self.remarks(f)
    }
}

impl PinPage<'_> {
    fn objects(&self, f: &mut fmt::Formatter<'_>, process: &PinReport) -> fmt::Result {
        let limit = if self.is_verbose { usize::MAX } else { LISTED };
        for object in process.objects.iter().filter(|object| self.is_verbose || is_left(object)).take(limit) {
            writeln!(f, "    {}", ShownObject(object))?;
        }
        if let Some(more) = left(process).checked_sub(limit).filter(|more| *more != 0) {
            writeln!(f, "    and {more} more (--verbose lists them)")?;
        }
        for error in process.errors.iter().filter(|_| self.is_verbose) {
            writeln!(f, "    {DOUBTFUL}note{DOUBTFUL:#}      {}", shown(error))?;
        }
        Ok(())
    }

    /// Writes what is not in the table.
    fn remarks(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PinAnswer { processes, not_pinned, passed_over, remedy, dry_run, .. } = self.answer;
        let (interrupted, others): (Vec<_>, Vec<_>) =
            not_pinned.iter().partition(|process| process.error == INTERRUPTED);
        for process in others {
            writeln!(f, "{DOUBTFUL}{}{DOUBTFUL:#}: {}", subject(process.pid, process.name.as_deref()), why(process))?;
        }
        if !interrupted.is_empty() {
            writeln!(f, "{} not pinned, because the command was interrupted.", counted(interrupted.len()))?;
        }
        let PassedOver { vanished, denied, failed, .. } = *passed_over;
        if vanished != 0 {
            writeln!(f, "{} ended meanwhile.", counted(vanished))?;
        }
        if failed != 0 {
            writeln!(f, "{} could not be inspected.", counted(failed))?;
        }
        if let Some(remedy) = remedy {
            if denied == 0 {
                writeln!(f, "Permission denied: {remedy}.")?;
            } else {
                writeln!(f, "{} could not be inspected or traced (permission denied): {remedy}.", counted(denied))?;
            }
        }
        if processes.is_empty() && not_pinned.is_empty() && denied + failed == 0 {
            writeln!(f, "There is no such process.")?;
        }
        if *dry_run {
            writeln!(f, "Nothing was stopped or pinned (--dry-run).")?;
        } else if processes.iter().any(|process| !process.has_library) {
            writeln!(
                f,
                "Objects that a process loads later are not pinned. Start the program under sopin run to protect them, too."
            )?;
        }
        Ok(())
    }
}

/// Prints warnings about what is not pinned, where the table is not printed. An interruption is
/// reported once, for all processes.
pub fn warn(answer: &PinAnswer) {
    for process in answer.not_pinned.iter().filter(|process| process.error != INTERRUPTED) {
        output::warn(subject(process.pid, process.name.as_deref()), why(process));
    }
    for process in &answer.processes {
        let mut objects = process.objects.iter().filter(|object| is_left(object));
        if let Some(PinnedObject { path, after, reason, .. }) = objects.next() {
            let reason = reason.as_deref().map(|reason| format!(": {}", shown(reason))).unwrap_or_default();
            let more = match objects.count() {
                0 => String::new(),
                1 => "; 1 more object is left".to_owned(),
                more => format!("; {more} more objects are left"),
            };
            let subject = subject(process.pid, Some(&process.name));
            output::warn(subject, format_args!("{} is left {}{reason}{more}", shown(path), after.word()));
        }
    }
    let PassedOver { denied, failed, .. } = answer.passed_over;
    if denied + failed != 0 {
        let remedy = answer.remedy.as_ref().map(|remedy| format!(" (permission denied): {remedy}"));
        let reason = format!("could not be inspected or traced{}", remedy.unwrap_or_default());
        output::warn(counted(denied + failed), reason);
    } else if let Some(remedy) = &answer.remedy {
        output::warn("permission denied", remedy);
    }
}

/// Returns whether an object is left in its file's reach.
fn is_left(object: &PinnedObject) -> bool {
    object.after <= ObjectState::Exposed
}

/// Returns a number of processes with its noun.
fn counted(number: usize) -> String {
    if number == 1 { "1 process".to_owned() } else { format!("{number} processes") }
}

/// Returns a process in words.
fn subject(pid: u32, name: Option<&str>) -> String {
    name.map_or_else(|| pid.to_string(), |name| format!("{pid} ({})", shown(name)))
}

/// Returns why a process was not pinned, and the way out.
fn why(process: &NotPinned) -> String {
    let way_out = process.way_out.map(|way_out| format!("; {way_out}")).unwrap_or_default();
    format!("could not be pinned: {}{way_out}", shown(&process.reason))
}

/// Returns a row. Without a stop, the columns about it are empty.
fn cells(process: &PinReport, dry_run: bool) -> [Cell; COLUMNS.len()] {
    let plain = Style::new();
    let number = |number: usize| (number.to_string(), plain);
    let styled = |count: usize, style: Style| (count.to_string(), if count == 0 { plain } else { style });
    let of_stop = |text: String| (if dry_run || process.stops == 0 { "-".to_owned() } else { text }, plain);
    [
        (process.pid.to_string(), plain),
        number(process.objects_in_all),
        styled(process.count(ObjectState::Full), GOOD),
        number(process.count(ObjectState::Relocated)),
        styled(left(process), DOUBTFUL),
        of_stop(process.tasks.to_string()),
        of_stop(milliseconds(process.longest_stop_us)),
        of_stop(process.calls_repaired.to_string()),
        of_stop(process.timeouts_restarted.to_string()),
        of_stop(process.transfers_cut_short.to_string()),
    ]
}

/// Formats microseconds as milliseconds, rounded up so that a stop is never shown as shorter
/// than it was.
fn milliseconds(microseconds: u64) -> String {
    let tenths = microseconds.div_ceil(100);
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// A line about an object.
struct ShownObject<'a>(&'a PinnedObject);

impl fmt::Display for ShownObject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PinnedObject { path, before, after, bytes, reason, .. } = self.0;
        let style = style_of(*after);
        let (before, after) = (before.word(), after.word());
        write!(f, "{before:<9} -> {style}{after:<9}{style:#} {:>7} KiB  {}", bytes >> 10, shown(path))?;
        reason.as_deref().map_or(Ok(()), |reason| write!(f, ": {}", shown(reason)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pin::answer::tests::{object, report};
    use sopin_reach::report::PinRefusal;

    fn text(answer: &PinAnswer, is_verbose: bool) -> String {
        anstream::adapter::strip_str(&PinPage { answer, is_verbose, columns: None }.to_string()).to_string()
    }

    fn answer() -> PinAnswer {
        let (exposed, full) = (ObjectState::Exposed, ObjectState::Full);
        let objects = vec![
            object("/srv/shop/liba.so", exposed, full, None),
            object("/srv/shop/libb.so", exposed, ObjectState::Relocated, Some("SOPIN_MODE=relocated")),
            object("/srv/shop/lib\nc.so", exposed, exposed, Some("the file has changed since it was loaded")),
        ];
        let mut answer = PinAnswer::new(false);
        answer.processes.push(report(471, objects));
        answer
    }

    #[test]
    fn a_process_is_a_line_and_so_is_each_object_that_is_left() {
        let expected = "\
PID OBJECTS PINNED RELOCATED LEFT THREADS STOP-MS REPAIRED RESTARTED CUT-SHORT COMMAND
471      54      1         1    1       3    11.7        2         1         3 gunicorn app:app
    exposed   -> exposed        16 KiB  /srv/shop/lib\\nc.so: the file has changed since it was loaded
Objects that a process loads later are not pinned. Start the program under sopin run to protect them, too.
";
        assert_eq!(text(&answer(), false), expected);
    }

    #[test]
    fn verbose_shows_every_object_and_every_note() {
        let mut answer = answer();
        answer.processes[0].errors.push("its auxiliary vector cannot be read".to_owned());
        let expected = "\
PID OBJECTS PINNED RELOCATED LEFT THREADS STOP-MS REPAIRED RESTARTED CUT-SHORT COMMAND
471      54      1         1    1       3    11.7        2         1         3 gunicorn app:app
    exposed   -> full           16 KiB  /srv/shop/liba.so
    exposed   -> relocated      16 KiB  /srv/shop/libb.so: SOPIN_MODE=relocated
    exposed   -> exposed        16 KiB  /srv/shop/lib\\nc.so: the file has changed since it was loaded
    note      its auxiliary vector cannot be read
Objects that a process loads later are not pinned. Start the program under sopin run to protect them, too.
";
        assert_eq!(text(&answer, true), expected);
    }

    #[test]
    fn a_dry_run_has_stopped_nothing() {
        let mut answer = PinAnswer { dry_run: true, ..answer() };
        answer.processes[0].objects.clear();
        let expected = "\
PID OBJECTS PINNED RELOCATED LEFT THREADS STOP-MS REPAIRED RESTARTED CUT-SHORT COMMAND
471      54      0         0    0       -       -        -         -         - gunicorn app:app
Nothing was stopped or pinned (--dry-run).
";
        assert_eq!(text(&answer, false), expected);
    }

    #[test]
    fn only_some_of_many_objects_are_listed() {
        let mut answer = answer();
        let exposed = |number| object(&format!("/lib/{number}.so"), ObjectState::Exposed, ObjectState::Exposed, None);
        answer.processes[0].objects = (0..9).map(exposed).collect();
        assert!(text(&answer, false).contains("/lib/2.so\n    and 6 more (--verbose lists them)\n"));
        assert!(text(&answer, true).contains("/lib/8.so\nObjects that"));
        // A process that has the library pins what it loads itself.
        answer.processes[0].has_library = true;
        assert!(text(&answer, true).ends_with("/lib/8.so\n"));
    }

    #[test]
    fn what_was_not_pinned_has_its_reason_and_a_way_out() {
        let mut answer = PinAnswer::new(false);
        assert_eq!(text(&answer, false), "There is no such process.\n");
        answer.refuse(8, "java", true, false, &PinRefusal::Traced(9));
        answer.refuse(9, "ssh-agent", true, false, &PinRefusal::NotPermitted);
        answer.remedy = Some("run as root".to_owned());
        answer.passed_over.vanished = 1;
        let expected = "\
8 (java): could not be pinned: process 9 traces it; end the debugger or strace first
9 (ssh-agent): could not be pinned: tracing it is not permitted
1 process ended meanwhile.
Permission denied: run as root.
";
        assert_eq!(text(&answer, false), expected);
        answer.not_pinned = vec![NotPinned::interrupted(10, "sh"), NotPinned::interrupted(11, "sh")];
        answer.passed_over.denied = 12;
        let expected = "\
2 processes not pinned, because the command was interrupted.
1 process ended meanwhile.
12 processes could not be inspected or traced (permission denied): run as root.
";
        assert_eq!(text(&answer, false), expected);
    }

    #[test]
    fn a_stop_is_never_shown_as_shorter_than_it_was() {
        let shown = [(0, "0.0"), (1, "0.1"), (100, "0.1"), (101, "0.2"), (999, "1.0"), (11_649, "11.7")];
        for (microseconds, text) in shown {
            assert_eq!(milliseconds(microseconds), text);
        }
    }
}

//! The answer about a core dump, for people: the verdict first, then how the process has ended, and
//! the objects.

use std::fmt;

use sopin_inspect::core_dump::DumpOrigin;
use sopin_inspect::post_mortem::report::{
    AddressReport, CrashReport, DeadObject, DeadObjectDamage, Explanation, PlaceReport, Relation,
};
use sopin_inspect::post_mortem::verdict::{Answer, Certainty};
use sopin_inspect::small_addresses::{NamedAddress, NamedKind};

use crate::output::{BAD, DOUBTFUL, GOOD, shown};
use crate::status::WordLine;

/// The answer as text.
pub struct CorePage<'a> {
    /// The answer.
    pub explanation: &'a Explanation,
    /// True if each object and every word has a line.
    pub is_verbose: bool,
}

impl fmt::Display for CorePage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Explanation { verdict, process, dump, .. } = self.explanation;
        let style = match (verdict.answer, verdict.certainty) {
            (Answer::Rewritten, Some(Certainty::Certain)) => BAD,
            (Answer::Rewritten | Answer::Unknown, _) => DOUBTFUL,
            (Answer::Nothing, _) => GOOD,
        };
        writeln!(f, "{style}{}{style:#}", shown(&verdict.sentence))?;
        let certainty = match (verdict.answer, verdict.certainty) {
            (Answer::Rewritten, Some(Certainty::Certain)) => "certain",
            (Answer::Rewritten, _) => "likely; the dump does not prove it",
            (Answer::Nothing, _) => "",
            (Answer::Unknown, _) => "none",
        };
        if !certainty.is_empty() {
            writeln!(f, "Certainty: {certainty}.")?;
        }
        if let Some(way_out) = &verdict.way_out {
            writeln!(f, "To learn more: {}.", shown(way_out))?;
        }
        writeln!(f)?;
        let arguments = if process.arguments.is_empty() { &process.name } else { &process.arguments };
        let pid = process.pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
        writeln!(f, "process   {pid} {} ({} threads)", shown(arguments), process.threads)?;
        crash(f, &self.explanation.crash)?;
        if let Some(caught) = &self.explanation.caught {
            writeln!(f, "          The program had caught another signal before:")?;
            crash(f, caught)?;
        }
        for address in &self.explanation.addresses {
            small_address(f, address)?;
        }
        let origin = match dump.origin {
            DumpOrigin::Kernel => "the kernel",
            DumpOrigin::Gdb => "gdb",
        };
        writeln!(f, "dump      of {origin}, {}{}", dump.machine, if dump.cut { ", cut off" } else { "" })?;
        if process.protected != 0 {
            writeln!(f, "sopin     {} objects were mapped from copies of libsopin.so", process.protected)?;
        }
        self.objects(f)?;
        for error in &self.explanation.errors {
            writeln!(f, "{DOUBTFUL}note{DOUBTFUL:#}      {}", shown(error))?;
        }
        Ok(())
    }
}

impl CorePage<'_> {
    fn objects(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_shown = |object: &&DeadObject| self.is_verbose || object.damage.is_some();
        let judged = self.explanation.objects.iter().filter(|object| object.unjudged.is_none() && !object.data).count();
        let all = self.explanation.objects.iter().filter(|object| !object.data).count();
        writeln!(f, "objects   {all}, of which {judged} could be compared with their files")?;
        for object in self.explanation.objects.iter().filter(is_shown) {
            let (style, state) = state(object);
            writeln!(f, "    {style}{state:<10}{style:#} {}{}", shown(&object.path), remarks(object))?;
            if let Some(damage) = &object.damage {
                self.damage(f, damage)?;
            }
        }
        Ok(())
    }

    fn damage(&self, f: &mut fmt::Formatter<'_>, damage: &DeadObjectDamage) -> fmt::Result {
        let DeadObjectDamage { reverted_words, bytes_lost, clean_words, dynamic, other_build, words } = damage;
        if *bytes_lost != 0 {
            let kib = bytes_lost >> 10;
            writeln!(f, "               {kib} KiB could not be read: they lay behind the end of the file")?;
        }
        if *other_build {
            writeln!(f, "               the file had become another build while it was mapped")?;
        }
        if *clean_words != 0 {
            writeln!(
                f,
                "               {clean_words} relocated words lie in ranges that gdb left out: no page was private"
            )?;
        }
        if *dynamic {
            writeln!(f, "               the dynamic section had its values from the file again")?;
        }
        if *reverted_words != 0 {
            writeln!(f, "               {reverted_words} relocated words had their values from the file again:")?;
        }
        let mut listed: Vec<_> = words.iter().collect();
        if !self.is_verbose {
            listed.dedup_by_key(|word| &word.section);
        }
        for word in &listed {
            writeln!(f, "                 {}", WordLine(word))?;
        }
        if let Some(more) = reverted_words.checked_sub(listed.len()).filter(|more| *more != 0) {
            let hint = if self.is_verbose { "" } else { " (--verbose lists them)" };
            writeln!(f, "                 and {more} more{hint}")?;
        }
        Ok(())
    }
}

fn crash(f: &mut fmt::Formatter<'_>, crash: &CrashReport) -> fmt::Result {
    let CrashReport { signal, name, code, address, thread, instruction, caller, sender, alive, .. } = crash;
    if *alive {
        writeln!(f, "signal    none: gdb has made the dump of a live process")?;
    } else {
        write!(f, "signal    {}", name.map_or_else(|| signal.to_string(), str::to_owned))?;
        if let Some(what) = code.and_then(|code| code_name(*signal, code)) {
            write!(f, " ({what})")?;
        }
        if let Some(address) = address {
            write!(f, " at address {address:#x}")?;
        }
        if let Some(sender) = sender {
            write!(f, ", sent by process {sender}")?;
        }
        writeln!(f)?;
    }
    writeln!(f, "thread    {thread} at {}", Place(instruction))?;
    if let Some(caller) = caller {
        writeln!(f, "          called from {}", Place(caller))?;
    }
    Ok(())
}

fn small_address(f: &mut fmt::Formatter<'_>, report: &AddressReport) -> fmt::Result {
    let AddressReport { address, object, names, words, reverted, .. } = report;
    let named: Vec<String> = names.iter().filter_map(name).collect();
    let named = if named.is_empty() { String::new() } else { format!("{} in ", named.join(", ")) };
    writeln!(
        f,
        "{address:#9x} {named}{}: {words} relocated words hold this in the file, {reverted} held it in the process",
        shown(object)
    )
}

/// An address, and where it lies.
struct Place<'a>(&'a PlaceReport);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PlaceReport { address, object, offset } = self.0;
        write!(f, "{address:#x}")?;
        match (object, offset) {
            (Some(object), Some(offset)) => write!(f, ": {offset:#x} in {}", shown(object)),
            (Some(object), None) => write!(f, " in {}", shown(object)),
            (None, _) => f.write_str(", in no mapped file"),
        }
    }
}

fn name(named: &NamedAddress) -> Option<String> {
    let NamedAddress { kind, name, offset, section } = named;
    let section = section.as_deref().map_or_else(String::new, |section| format!(" ({section})"));
    let behind = if *offset == 0 { String::new() } else { format!("+{offset:#x}") };
    match (kind, name) {
        (NamedKind::Plt, Some(name)) => Some(format!("PLT entry of {}{section}", shown(name))),
        (_, Some(name)) => Some(format!("{}{behind}{section}", shown(name))),
        _ => None,
    }
}

fn state(object: &DeadObject) -> (anstyle::Style, &'static str) {
    if object.damage.is_some() {
        (BAD, "rewritten")
    } else if object.protected {
        (GOOD, "protected")
    } else if object.data {
        (anstyle::Style::new(), "data")
    } else if object.unjudged.is_some() || object.missing_words != 0 {
        (DOUBTFUL, "unknown")
    } else {
        (GOOD, "intact")
    }
}

/// Returns the remarks about an object that follow its path.
fn remarks(object: &DeadObject) -> String {
    let file = match object.file {
        Relation::Loaded | Relation::Unknown => None,
        Relation::Other => Some("the file on the disk is another version now".to_owned()),
        Relation::Absent => Some("there is no such file now".to_owned()),
    };
    let deleted = object.deleted.then(|| "it had no name any more when the process died".to_owned());
    let unjudged = object.unjudged.as_ref().map(|why| format!("not compared: {}", shown(why)));
    let missing = (object.missing_words != 0).then(|| format!("the dump lacks {} words", object.missing_words));
    let beyond = (object.bytes_beyond_end != 0)
        .then(|| format!("{} KiB of its mappings lie behind the file's present end", object.bytes_beyond_end >> 10));
    let all: Vec<String> = [file, deleted, beyond, unjudged, missing].into_iter().flatten().collect();
    if all.is_empty() { String::new() } else { format!(": {}", all.join("; ")) }
}

/// Returns the name of a `si_code` (`sigaction(2)`).
fn code_name(signal: i32, code: i32) -> Option<&'static str> {
    Some(match (signal, code) {
        (11, 1) => "SEGV_MAPERR: nothing is mapped there",
        (11, 2) => "SEGV_ACCERR: the mapping does not permit it",
        (7, 1) => "BUS_ADRALN",
        (7, 2) => "BUS_ADRERR: behind the end of a file, or the disk cannot be read",
        (4, _) if code > 0 => "no valid instruction",
        (_, 0) => "SI_USER",
        (_, -6) => "SI_TKILL",
        (_, 128) => "SI_KERNEL",
        _ => return None,
    })
}

//! The verdict where nothing shows that an object was rewritten: either nothing points to that, or
//! the crash has its signature and the objects could not be examined. This module is pure.

use super::{Answer, CrashVerdict, ExaminedObject, LOWEST_CODE, NULL, Names, SMALL};
use crate::post_mortem::crash::{Crash, SIGBUS, SIGILL, SIGSEGV};
use crate::post_mortem::examination::FileRelation;

/// Returns the verdict where no object is suspicious.
pub fn judge(crash: &Crash, examined: &[ExaminedObject], names: &impl Names) -> CrashVerdict {
    let objects =
        || examined.iter().enumerate().filter(|(_, found)| found.object.is_object && !found.finding.is_protected);
    let intact: usize = objects().map(|(_, found)| found.finding.intact).sum();
    let is_unexamined = |found: &ExaminedObject| found.finding.missing != 0 || found.finding.unjudged.is_some();
    let may_be_of = |value: u64, is_known: bool| {
        objects().find(|(index, found)| {
            let (start, end) = found.object.span();
            let holds = || names.holds(*index, value);
            is_unexamined(found)
                && value < end - start
                && if is_known { holds() == Some(true) } else { holds().is_none() }
        })
    };
    let jump = crash.jump().filter(|value| (LOWEST_CODE..SMALL).contains(value));
    let small = jump.or(crash.access().filter(|value| (NULL..SMALL).contains(value)));
    if let Some(value) = small.filter(|_| crash.is_own_fault()) {
        let act = if crash.jump().is_some() { "the jump" } else { "the access" };
        let known = may_be_of(value, true).map(|(index, found)| {
            let name = names.name(index, value).map(|name| format!("{name} of ")).unwrap_or_default();
            let path = found.path();
            (
                index,
                found,
                format!("{act} to {value:#x} may be to {name}{path} without its load address, but {}", missing(found)),
            )
        });
        let unknown = || {
            let (index, found) = may_be_of(value, false)?;
            let (path, cause) = (found.path(), missing(found));
            Some((
                index,
                found,
                format!("{act} to {value:#x} may be to an object without its load address; for {path}, {cause}"),
            ))
        };
        if let Some((index, found, why)) = known.or_else(unknown) {
            return CrashVerdict {
                answer: Answer::Unknown,
                object: Some(index),
                sentence: format!("It cannot be told whether a file was rewritten in place: {why}."),
                way_out: way_out(found),
                ..CrashVerdict::default()
            };
        }
    }
    if crash.is_own_fault()
        && crash.signal == SIGILL
        && let Some((index, found)) = objects().find(|(_, found)| crash.is_in(found.object.span()))
        && found.finding.relation != FileRelation::Loaded
    {
        return CrashVerdict {
            answer: Answer::Unknown,
            object: Some(index),
            sentence: format!(
                "It cannot be told whether a file was rewritten in place: the thread executed what is no instruction in {}, \
                 and {}.",
                found.path(),
                missing(found)
            ),
            way_out: way_out(found),
            ..CrashVerdict::default()
        };
    }
    let is_fault = matches!(crash.signal, SIGSEGV | SIGBUS | SIGILL) && crash.is_own_fault();
    let unexamined = objects().filter(|(_, found)| is_unexamined(found));
    if let (true, 0, Some((_, found))) = (is_fault, intact, unexamined.max_by_key(|(_, found)| found.finding.missing)) {
        let sentence = if found.finding.missing != 0 {
            "It cannot be told whether a file was rewritten in place: the dump leaves out the relocated words of all objects."
        } else {
            "It cannot be told whether a file was rewritten in place: the relocated words of no object could be compared with \
             its file."
        };
        return CrashVerdict {
            answer: Answer::Unknown,
            sentence: sentence.to_owned(),
            way_out: way_out(found),
            ..CrashVerdict::default()
        };
    }
    let protected = examined.iter().filter(|found| found.finding.is_protected).count();
    if intact == 0 && protected != 0 {
        let sentence = format!(
            "Nothing here points to a file that was rewritten in place: libsopin.so had put {protected} objects out of the \
             reach of their files."
        );
        return CrashVerdict { sentence, ..CrashVerdict::default() };
    }
    let judged = objects().filter(|(_, found)| found.finding.is_judged && found.finding.missing == 0).count();
    let all = objects().count();
    let rest = match all - judged {
        0 => String::new(),
        1 => "; 1 object could not be examined".to_owned(),
        rest => format!("; {rest} objects could not be examined"),
    };
    let sentence = format!(
        "Nothing here points to a file that was rewritten in place: {intact} relocated words of {judged} objects hold what \
         they should{rest}."
    );
    CrashVerdict { sentence, ..CrashVerdict::default() }
}

/// Returns why an object could not be examined.
fn missing(found: &ExaminedObject) -> String {
    match &found.finding.unjudged {
        Some(why) => why.clone(),
        None => format!("the dump leaves out {} of its relocated words", found.finding.missing),
    }
}

fn way_out(found: &ExaminedObject) -> String {
    match (&found.finding.unjudged, found.finding.relation) {
        (None, _) => {
            "dump private memory: coredump_filter 0x33 keeps it (core(5)); systemd-coredump's ExternalSizeMax may have cut \
             it off"
        }
        (Some(_), FileRelation::Absent | FileRelation::Other) => {
            "give a copy of the system as it was with --sysroot, or a directory with .build-id/ with --debug-dir"
        }
        _ => "",
    }
    .to_owned()
}

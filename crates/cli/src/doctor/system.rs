//! The subjects `libc` and `kernel`.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use rustix::system::uname;
use serde_json::json;

use super::answer::{Subject, SubjectVerdict};
use super::children;
use super::harmless::Harmless;
use super::probes::{self, Answers};
use super::surroundings::DoctorSurroundings;

/// The least versions for which the library that is published is made.
const LEAST_GLIBC: (u32, u32) = (2, 17);
const LEAST_MUSL: (u32, u32) = (1, 2);

/// Judges the C library of the programs.
pub fn libc(here: &DoctorSurroundings) -> Subject {
    let Some(harmless) = &here.harmless else {
        let facts = json!({ "name": null, "version": null, "loader": null, "program": null });
        let meaning = "no program with a loader found, neither true in PATH nor glibc's libc.so.6: only a loader can preload the library";
        return Subject::new("libc", SubjectVerdict::Limited, meaning, facts)
            .with_remedy("sopin check COMMAND says whether the library gets into that program");
    };
    let found = library_of(harmless);
    let known = found.as_ref().ok().and_then(Option::as_ref);
    let (name, version) = known.map_or((None, None), |(name, version)| (Some(*name), Some(version)));
    let loader = harmless.loader.display().to_string();
    let facts = json!({
        "name": name, "version": version, "loader": loader, "program": harmless.path.display().to_string(),
    });
    let found = match found {
        Ok(found) => found,
        Err(reason) => {
            let meaning = format!("{loader} is the loader, and could not be asked for its version: {reason}");
            return Subject::new("libc", SubjectVerdict::Limited, meaning, facts)
                .with_remedy(children::remedy(&reason));
        }
    };
    let Some((name, version)) = found else {
        let meaning = format!("{loader} is the loader, of a C library that is neither glibc nor musl");
        return Subject::new("libc", SubjectVerdict::Limited, meaning, facts)
            .with_remedy("sopin check COMMAND says whether the library gets into a program");
    };
    let least = if name == "glibc" { LEAST_GLIBC } else { LEAST_MUSL };
    if numbers(&version).is_some_and(|version| version < least) {
        let meaning = format!("{name} {version} is older than {}.{}, for which the library is made", least.0, least.1);
        return Subject::new("libc", SubjectVerdict::No, meaning, facts).with_remedy("use a newer system");
    }
    Subject::new("libc", SubjectVerdict::Ok, format!("{name} {version}, loaded by {loader}"), facts)
}

/// Returns name and version of the C library that a program's loader gives it; `None` if it is
/// neither glibc nor musl.
///
/// # Errors
/// When the loader cannot be run.
fn library_of(harmless: &Harmless) -> Result<Option<(&'static str, String)>, String> {
    let name = harmless.loader.file_name().unwrap_or_default();
    if name.as_bytes().starts_with(b"ld-musl-") {
        // Without arguments it prints how to use it, with its version.
        let ended = children::run(Command::new(&harmless.loader).env_remove("LD_PRELOAD"))?;
        let version = ended.stderr.lines().find_map(|line| line.strip_prefix("Version "));
        return Ok(version.map(|version| ("musl", version.trim().to_owned())));
    }
    let loaded = harmless.load(None)?;
    let is_libc = |path: &&Path| path.file_name().is_some_and(|name| name == "libc.so.6");
    let libc = loaded.objects.iter().map(AsRef::as_ref).find(is_libc).unwrap_or(&harmless.path);
    let version = fs::read(libc).ok().and_then(|file| glibc_version(&file));
    Ok(version.map(|version| ("glibc", version)))
}

/// Returns the version in glibc's banner (`csu/version.c`).
fn glibc_version(file: &[u8]) -> Option<String> {
    const BANNER: &[u8] = b"GNU C Library (";
    let start = file.windows(BANNER.len()).position(|window| window == BANNER)?;
    let line = file.get(start..)?.split(|byte| *byte == b'\n').next()?;
    let (_, version) = std::str::from_utf8(line).ok()?.rsplit_once(" version ")?;
    Some(version.trim_end_matches('.').to_owned())
}

fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.').map(|part| part.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().ok());
    Some((parts.next()??, parts.next()??))
}

/// Judges `/proc` and the system calls.
pub fn kernel(here: &DoctorSurroundings) -> Subject {
    let release = uname().release().to_string_lossy().into_owned();
    let is_readable = fs::read("/proc/self/maps").is_ok_and(|maps| !maps.is_empty());
    let calls = here.calls.as_ref();
    let answer = |of: fn(&Answers) -> &str| calls.map(of);
    let facts = json!({
        "release": release,
        "proc": is_readable,
        "memfd": answer(|calls| &calls.memfd),
        "process_vm_readv": answer(|calls| &calls.process_vm_readv),
        "procmap_query": answer(|calls| &calls.procmap_query),
        "ptrace": answer(|calls| &calls.ptrace),
    });
    let Some(calls) = calls.filter(|_| is_readable) else {
        let meaning = format!("Linux {release}, without a readable /proc: the library pins nothing");
        return Subject::new("kernel", SubjectVerdict::No, meaning, facts)
            .with_remedy("mount it (mount -t proc proc /proc); a unit with RootDirectory= needs MountAPIVFS=yes");
    };
    if let Some((_, reason)) = calls.all().into_iter().find(|(_, answer)| probes::is_untried(answer)) {
        let meaning = format!("Linux {release}, /proc is readable; the system calls were {reason}");
        return Subject::new("kernel", SubjectVerdict::Limited, meaning, facts).with_remedy(children::remedy(reason));
    }
    let (work, fail): (Vec<_>, Vec<_>) = calls.all().into_iter().partition(|(_, answer)| probes::works(answer));
    let work: Vec<_> = work.into_iter().map(|(call, _)| call).collect();
    let fail: Vec<_> = fail.into_iter().map(|(call, answer)| format!("{call} ({answer})")).collect();
    let is_limited = [&calls.memfd, &calls.process_vm_readv, &calls.ptrace].iter().any(|answer| !probes::works(answer));
    let lacking = if fail.is_empty() { String::new() } else { format!(", not {}", fail.join(", ")) };
    let work = if work.is_empty() { "nothing".to_owned() } else { work.join(", ") };
    let mut meaning = format!("Linux {release}, /proc is readable; works: {work}{lacking}");
    if is_limited {
        return Subject::new("kernel", SubjectVerdict::Limited, meaning, facts)
            .with_remedy("the library does without them, the lines trial and filter say how");
    }
    if !probes::works(&calls.procmap_query) {
        meaning += ", so the library reads the text of /proc/self/maps, which takes longer";
    }
    Subject::new("kernel", SubjectVerdict::Ok, meaning, facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_in_the_banner() {
        let banner = b"\0GNU C Library (Debian GLIBC 2.36-9+deb12u10) stable release version 2.36.\nCopyright";
        assert_eq!(glibc_version(banner).unwrap(), "2.36");
        assert_eq!(glibc_version(b"GNU C Library"), None);
        assert_eq!(
            (numbers("2.36"), numbers("1.2.5"), numbers("2.40.9000"), numbers("x")),
            (Some((2, 36)), Some((1, 2)), Some((2, 40)), None)
        );
        assert!(numbers("2.4") < Some(LEAST_GLIBC));
    }
}

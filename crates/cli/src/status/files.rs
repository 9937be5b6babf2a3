//! The mapped files that are no objects, for people: a line for each, and what they mean.

use std::fmt;

use sopin_inspect::report::{DataFileReport, ProcessReport};

use crate::output::{DOUBTFUL, shown};

/// How many files of a process are listed without `--verbose`.
const LISTED: usize = 10;

/// Writes the files of a process of this user, the largest first.
pub fn write(f: &mut fmt::Formatter<'_>, files: &[DataFileReport], user: u32, is_verbose: bool) -> fmt::Result {
    let listed = if is_verbose { files.len() } else { files.len().min(LISTED) };
    let (listed, rest) = files.split_at(listed);
    for file in listed {
        write!(f, "    mapped    {:>7} KiB  {}: {}", file.mapped_kib, shown(&file.path), kind(file))?;
        writeln!(f, ", {}", writers(file, user))?;
    }
    if rest.is_empty() {
        return Ok(());
    }
    let kib: u64 = rest.iter().map(|file| file.mapped_kib).sum();
    writeln!(f, "    mapped    {kib:>7} KiB  in {} more (--verbose lists them)", rest.len())
}

/// Writes what the listed files mean.
pub fn explain(f: &mut fmt::Formatter<'_>, processes: &[ProcessReport]) -> fmt::Result {
    let all = || processes.iter().filter_map(|process| process.files.as_deref()).flatten();
    if all().next().is_some() {
        writeln!(
            f,
            "{DOUBTFUL}mapped{DOUBTFUL:#}: no shared objects, so libsopin.so does not protect them. Truncating such a \
             file is SIGBUS in the process, other bytes in it change what the process reads. Replace it by rename(2)."
        )?;
    } else if processes.iter().any(|process| process.files.is_some()) {
        writeln!(f, "No files are mapped that are no shared objects and could be rewritten.")?;
    }
    Ok(())
}

/// Returns what kind of mapping it is.
fn kind(file: &DataFileReport) -> String {
    let sharing = if file.shared { "shared" } else { "private" };
    format!("{sharing}, {}", if file.writable { "writable" } else { "read-only" })
}

/// Returns who may write to it.
fn writers(file: &DataFileReport, user: u32) -> String {
    if file.deleted {
        return "deleted: only what has it open can write to it".to_owned();
    }
    let (Some(owner), Some(group), Some(mode)) = (file.owner, file.group, &file.mode) else {
        return "who may write to it could not be determined".to_owned();
    };
    let owner = match owner {
        0 => "root".to_owned(),
        owner if owner == user => "its own user".to_owned(),
        owner => format!("user {owner}"),
    };
    let may_write = |digit: usize| mode.as_bytes().get(digit).is_some_and(|digit| digit & 2 != 0);
    match (may_write(2), may_write(3)) {
        (_, true) => format!("{mode}: everybody may write to it"),
        (true, false) => format!("{mode}: {owner} and group {group} may write to it"),
        (false, false) => format!("{mode}: {owner} may write to it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(owner: u32, mode: &str) -> DataFileReport {
        DataFileReport {
            path: "/x".to_owned(),
            mapped_kib: 4,
            mappings: 1,
            shared: true,
            writable: false,
            deleted: false,
            owner: Some(owner),
            group: Some(27),
            mode: Some(mode.to_owned()),
            others: Some(true),
            consequence: "",
        }
    }

    struct Lines(Vec<DataFileReport>, bool);

    impl fmt::Display for Lines {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write(f, &self.0, 1000, self.1)
        }
    }

    #[test]
    fn it_says_who_may_write() {
        let said = |owner, mode| writers(&file(owner, mode), 1000);
        assert_eq!(said(0, "0644"), "0644: root may write to it");
        assert_eq!(said(1000, "0664"), "0664: its own user and group 27 may write to it");
        assert_eq!(said(7, "0444"), "0444: user 7 may write to it");
        assert_eq!(said(7, "1666"), "1666: everybody may write to it");
        assert!(writers(&DataFileReport { deleted: true, ..file(0, "0644") }, 0).starts_with("deleted"));
        assert!(writers(&DataFileReport { owner: None, ..file(0, "0644") }, 0).ends_with("determined"));
    }

    #[test]
    fn many_files_are_summarised() {
        let many = || (0..LISTED + 3).map(|_| file(0, "0644")).collect();
        let text = Lines(many(), false).to_string();
        assert_eq!(text.lines().count(), LISTED + 1);
        assert!(text.ends_with("     12 KiB  in 3 more (--verbose lists them)\n"), "{text}");
        assert_eq!(Lines(many(), true).to_string().lines().count(), LISTED + 3);
    }
}

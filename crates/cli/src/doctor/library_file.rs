//! The subject `library`: the file, its version and its machine.

use std::fs;
use std::path::Path;

use serde_json::json;
use sopin_core::records::{HEADER_SIZE, MAGIC, Seen};

use super::answer::{Subject, SubjectVerdict};
use super::surroundings::DoctorSurroundings;

/// The version of this command.
const OWN: &str = env!("CARGO_PKG_VERSION");

/// Judges the library.
pub fn library(here: &DoctorSurroundings) -> Subject {
    let library = match &here.library {
        Ok(library) => library,
        Err(failure) => {
            let facts = json!({ "path": null, "version": null, "command_version": OWN, "machine": null });
            let meaning = format!("{}: {}", failure.thing, failure.reason);
            return Subject::new("library", SubjectVerdict::No, meaning, facts).with_remedy(&failure.way_out);
        }
    };
    let path = library.path().display().to_string();
    let version = version_of(library.path());
    let machine = here.machine.map(|machine| machine.to_string());
    let facts = json!({ "path": path, "version": version, "command_version": OWN, "machine": machine });
    let Some(machine) = machine else {
        return Subject::new(
            "library",
            SubjectVerdict::No,
            format!("{path} is not an ELF file that can be read"),
            facts,
        )
        .with_remedy("install it anew");
    };
    let own = std::env::consts::ARCH.replace("x86_64", "x86-64");
    if machine != own {
        return Subject::new(
            "library",
            SubjectVerdict::No,
            format!("{path} is for {machine}, this command for {own}"),
            facts,
        )
        .with_remedy("install the files for this machine");
    }
    match version {
        Some(version) if version == OWN => {
            Subject::new("library", SubjectVerdict::Ok, format!("{path}, version {version}, for {machine}"), facts)
        }
        Some(version) => {
            let meaning = format!("{path} has version {version}, this command {OWN}");
            Subject::new("library", SubjectVerdict::Limited, meaning, facts)
                .with_remedy("install both from one release")
        }
        None => {
            Subject::new("library", SubjectVerdict::No, format!("{path} is not sopin's, or its file is damaged"), facts)
                .with_remedy("install it anew")
        }
    }
}

/// Returns the version in the records that the file has for readers.
fn version_of(library: &Path) -> Option<String> {
    let bytes = fs::read(library).ok()?;
    // The code has these bytes, too, where it compares.
    bytes.windows(HEADER_SIZE).filter(|window| window.starts_with(&MAGIC)).find_map(|window| {
        let seen = Seen::decode(window).ok()?;
        Some(seen.library_version().to_owned()).filter(|version| !version.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_records_has_no_version() {
        assert_eq!(version_of(Path::new("/proc/self/maps")), None);
        assert_eq!(version_of(Path::new("/nonexistent")), None);
    }
}

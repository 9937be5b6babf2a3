//! A process gets copies from a store only if it could open them itself. The root user of another
//! mount namespace could change a copy by its descriptor, in spite of a mount that is read-only.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::memory;
use crate::subject::Subject;
use crate::{Case, Run};

/// What the mappings show of copies in memory.
const IN_MEMORY: &str = "/memfd:sopin:";

pub fn cases() -> Vec<Case> {
    let elsewhere = [("other_mounts", &["namespace"] as &[_]), ("other_root", &["chroot", "."])];
    elsewhere
        .map(|(name, words)| {
            Case::new(format!("stores::none_for_{name}"), move |run, own| none_for(run, own, words))
                .with_needs(&["root"])
        })
        .into_iter()
        .chain([Case::new("stores::same_mounts", same_mounts).with_needs(&["root"])])
        .collect()
}

/// What a process had mapped and opened at any moment of a pin, and has afterwards.
struct Seen {
    store: bool,
    in_memory: bool,
}

fn none_for(run: &Run, directory: &Path, words: &[&str]) -> Result<(), String> {
    let subject = Subject::start(run, directory, &[&["threads", "1"], words].concat())?;
    let seen = pin(&subject)?;
    if seen.store {
        return Err("the process got a file of the store".to_owned());
    }
    if !seen.in_memory {
        return Err(format!("the process maps no {IN_MEMORY}"));
    }
    subject.truncate_and_stop()
}

fn same_mounts(run: &Run, directory: &Path) -> Result<(), String> {
    let subject = Subject::start(run, directory, &["threads", "1"])?;
    // The library is too new for the store, but those of the system are not.
    if !pin(&subject)?.store {
        let names = memory::names(subject.id())?;
        return Err(format!("a process with the same mounts and the same user has to map the store: {names:?}"));
    }
    subject.truncate_and_stop()
}

fn pin(subject: &Subject) -> Result<Seen, String> {
    let store = subject.directory.canonicalize().map_err(|error| error.to_string())?.join("store");
    let is_over = AtomicBool::new(false);
    let look = || -> Result<Seen, String> {
        let names = memory::names(subject.id())?;
        Ok(Seen {
            store: names.iter().any(|name| name.starts_with(&store)),
            in_memory: names.iter().any(|name| name.to_string_lossy().starts_with(IN_MEMORY)),
        })
    };
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut seen = look()?;
            while !is_over.load(Ordering::Relaxed) {
                seen.store |= look()?.store;
            }
            Ok::<_, String>(seen.store)
        });
        let pinned = subject.pin_whole();
        is_over.store(true, Ordering::Relaxed);
        let meanwhile = watch.join().map_err(|_| "the watching thread has panicked")??;
        pinned?;
        let afterwards = look()?;
        Ok(Seen { store: meanwhile || afterwards.store, ..afterwards })
    })
}

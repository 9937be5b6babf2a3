//! Inspects one process: from its files in `/proc` to its part of the report.

use std::time::Duration;

use sopin_core::mode::Mode;
use sopin_core::records::Reached;
use sopin_core::vmas::FileId;

use crate::damage::{Damage, Examiner, Finding};
use crate::data_files;
use crate::disk::{self, Disk, DiskState};
use crate::files::{Files, View};
use crate::loader::{self, Auxv, Executable, List};
use crate::maps::{self, Mapping};
use crate::memory::FileBytes;
use crate::names::{self, ObjectFile};
use crate::object::{InspectedObject, ObjectState, PartBacking, Scene};
use crate::process::{Process, Trouble};
use crate::published::Published;
use crate::report::{DamageReport, ObjectReport, ProcessReport, Shim};
use crate::shim::{is_library, mentions_library, shim};

/// How often damage must be found, and the time between the looks: an object that is just being
/// loaded is not relocated yet.
const LOOKS: u32 = 3;
const BETWEEN_LOOKS: Duration = Duration::from_millis(30);

/// The state that all inspections share.
pub struct Inspector {
    files: Files,
    page: u64,
    /// When the machine was started, in nanoseconds since 1970, and a clock tick.
    boot: i128,
    tick: i128,
    lists_all_words: bool,
    lists_files: bool,
}

impl Inspector {
    /// Makes an inspector that uses the present offset of the clocks.
    pub fn new(lists_all_words: bool) -> Self {
        use rustix::time::{ClockId, Timespec, clock_gettime};
        let nanoseconds = |time: Timespec| i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
        Self {
            files: Files::default(),
            page: rustix::param::page_size() as u64,
            boot: nanoseconds(clock_gettime(ClockId::Realtime)) - nanoseconds(clock_gettime(ClockId::Boottime)),
            tick: 1_000_000_000 / i128::from(rustix::param::clock_ticks_per_second().max(1)),
            lists_all_words,
            lists_files: false,
        }
    }

    /// Has it list mapped files that are no objects, too.
    #[must_use]
    pub fn with_files(self, lists_files: bool) -> Self {
        Self { lists_files, ..self }
    }

    /// Inspects a process; `None` if `only_with_library` is true and the process does not have
    /// the library.
    ///
    /// # Errors
    /// The reason for which the process cannot be inspected.
    pub fn inspect(&self, pid: u32, only_with_library: bool) -> Result<Option<ProcessReport>, Trouble> {
        let process = Process::open(pid)?;
        let text = process.require("maps")?;
        if only_with_library && !mentions_library(&text) {
            return Ok(None);
        }
        let report = self.look_repeatedly(&process, &text, None)?;
        Ok(report.filter(|report| !only_with_library || report.shim.is_some()))
    }

    /// Inspects those objects of a process that were loaded from one of these files, by the numbers that
    /// the kernel shows in `/proc/PID/maps`. The report has no other objects.
    ///
    /// # Errors
    /// Why the process cannot be inspected.
    pub fn inspect_files(&self, pid: u32, files: &[FileId]) -> Result<Option<ProcessReport>, Trouble> {
        let process = Process::open(pid)?;
        self.look_repeatedly(&process, &process.require("maps")?, Some(files))
    }

    fn look_repeatedly(
        &self,
        process: &Process,
        text: &[u8],
        files: Option<&[FileId]>,
    ) -> Result<Option<ProcessReport>, Trouble> {
        let mut report = self.look(process, text, files)?;
        for _ in 1..LOOKS {
            if report.as_ref().is_none_or(|report| report.damaged == 0) {
                break;
            }
            std::thread::sleep(BETWEEN_LOOKS);
            report = self.look(process, &process.require("maps")?, files)?;
        }
        Ok(report)
    }

    /// Finds the objects of a process, and passes them to `work`.
    ///
    /// # Errors
    /// Why the process cannot be inspected, which includes that its memory cannot be read.
    pub fn with_objects<R>(
        &self,
        process: &Process,
        work: impl FnOnce(&ProcessObjects<'_>) -> R,
    ) -> Result<R, Trouble> {
        let maps = maps::parse(&process.require("maps")?);
        if maps.is_empty() {
            return Err(Trouble::Vanished);
        }
        let auxv = Auxv::new(process.require("auxv")?);
        let memory = FileBytes::memory_of(process).map_err(|error| Trouble::of("open /proc/PID/mem", &error))?;
        let executable = Executable::read(&memory, &auxv);
        let list = loader::list(&memory, &auxv, executable.as_ref());
        let view = View::new(process, &self.files);
        let published = list.as_ref().and_then(|list| published(&memory, list, &mut Vec::new()));
        let scene = Scene {
            maps: &maps,
            memory: Some(&memory),
            view: &view,
            executable: executable.as_ref(),
            published: published.as_ref(),
            page: self.page,
        };
        let objects = scene.objects(list.as_ref());
        let has_library = shim(&objects, list.as_ref(), &maps, published.as_ref()).is_some();
        Ok(work(&ProcessObjects {
            objects: &objects,
            maps: &maps,
            memory: &memory,
            view: &view,
            has_library,
            published: published.as_ref(),
        }))
    }

    /// Inspects a process once, or those of its objects that were loaded from one of `files`. `None` if
    /// it has no memory because it is just ending.
    fn look(&self, process: &Process, text: &[u8], files: Option<&[FileId]>) -> Result<Option<ProcessReport>, Trouble> {
        let maps = maps::parse(text);
        if maps.is_empty() {
            return Err(Trouble::Vanished);
        }
        let mut errors = Vec::new();
        let auxv = Auxv::new(process.require("auxv")?);
        let memory = memory_of(process, &mut errors)?;
        let executable = memory.as_ref().and_then(|memory| Executable::read(memory, &auxv));
        let list = memory.as_ref().and_then(|memory| loader::list(memory, &auxv, executable.as_ref()));
        let view = View::new(process, &self.files);
        let published =
            memory.as_ref().zip(list.as_ref()).and_then(|(memory, list)| published(memory, list, &mut errors));
        let scene = Scene {
            maps: &maps,
            memory: memory.as_ref(),
            view: &view,
            executable: executable.as_ref(),
            published: published.as_ref(),
            page: self.page,
        };
        let objects = scene.objects(list.as_ref());
        let shim = shim(&objects, list.as_ref(), &maps, published.as_ref());
        let examiner = Examiner {
            process,
            memory: memory.as_ref(),
            view: &view,
            page: self.page,
            is_glibc: list.as_ref().is_some_and(has_glibc),
        };
        let start = self.boot + i128::from(process.image_start(auxv.bytes())) * self.tick;
        let mode = published.as_ref().and_then(|published| published.mode);
        let about = About { process, view: &view, start, has_shim: shim.is_some(), mode };
        let data_files = self.lists_files.then(|| data_files::find(&maps, &objects, &view, process.user));
        let is_asked_for = |object: &&InspectedObject| {
            files.is_none_or(|files| object.file().is_some_and(|file| files.contains(&file)))
        };
        let objects = objects.iter().filter(is_asked_for);
        let objects: Vec<_> = objects.map(|object| self.object(object, &about, examiner.examine(object))).collect();
        let source = if list.is_some() { "loader" } else { "maps" };
        Ok(Some(ProcessReport { files: data_files, ..report(process, shim, source, objects, errors) }))
    }

    fn object(&self, object: &InspectedObject, about: &About, finding: Finding) -> ObjectReport {
        let mut file = disk::look(object, about.view, about.start);
        // A process loses pages only when the file is truncated.
        let is_proven = finding.has_other_contents || finding.damage.is_any();
        if is_proven && file.state == DiskState::Rewritten {
            file.certain = true;
        }
        let damage = finding.damage.is_any().then(|| self.damage(object, about.view, &finding.damage));
        let state = if damage.is_some() { ObjectState::Damaged } else { object.state() };
        ObjectReport {
            path: String::from_utf8_lossy(&path(object, about)).into_owned(),
            loaded_from: object.file(),
            state,
            image_layer: state == ObjectState::Full && object.is_in_image(),
            base: object.base,
            start: object.span.0,
            end: object.span.1,
            namespace: object.namespace,
            pinned_kib: if is_pinned(object, about) { object.pinned() >> 10 } else { 0 },
            reason: reason(object, about, state, &file),
            file,
            damage,
            unjudged: finding.unjudged,
        }
    }

    fn damage(&self, object: &InspectedObject, view: &View, damage: &Damage) -> DamageReport {
        let mapping = object.copy().map(|part| part.mapping).or(object.original);
        let file = mapping.filter(|_| !damage.words.is_empty()).and_then(|mapping| ObjectFile::read(view, mapping));
        let finder = file.as_ref().and_then(ObjectFile::finder);
        DamageReport {
            reverted_words: damage.words.len(),
            bytes_beyond_end: damage.beyond_end,
            other_version: damage.is_of_another_version,
            words: names::reports(&damage.words, self.lists_all_words, finder.as_ref()),
        }
    }
}

/// The objects of a process, and what they were found in.
pub struct ProcessObjects<'a> {
    /// The objects.
    pub objects: &'a [InspectedObject<'a>],
    /// All mappings.
    pub maps: &'a [Mapping],
    /// The memory.
    pub memory: &'a FileBytes,
    /// The files.
    pub view: &'a View<'a>,
    /// Whether the library is loaded.
    pub has_library: bool,
    /// What it publishes.
    pub published: Option<&'a Published>,
}

/// Opens the memory of a process; `None`, and an error for the report, if it cannot be read.
fn memory_of(process: &Process, errors: &mut Vec<String>) -> Result<Option<FileBytes>, Trouble> {
    match FileBytes::memory_of(process) {
        Ok(memory) => Ok(Some(memory)),
        Err(error) if Trouble::of("", &error) == Trouble::Vanished => Err(Trouble::Vanished),
        Err(error) => {
            errors.push(format!("its memory cannot be read: {error}"));
            Ok(None)
        }
    }
}

/// Reads what the library publishes, if it is loaded.
fn published(memory: &FileBytes, list: &List, errors: &mut Vec<String>) -> Option<Published> {
    let library = list.objects.iter().find(|object| is_library(&object.name))?;
    let published = Published::read(memory, library).map_err(|error| errors.push(error)).ok()?;
    if published.is_torn {
        errors.push("the library's records were being changed all the time".to_owned());
    }
    Some(published)
}

fn report(
    process: &Process,
    shim: Option<Shim>,
    source: &'static str,
    objects: Vec<ObjectReport>,
    errors: Vec<String>,
) -> ProcessReport {
    let count = |state| objects.iter().filter(|object| object.state == state).count();
    ProcessReport {
        pid: process.pid,
        uid: process.user,
        name: process.facts.name.clone(),
        command: process.command(),
        shim,
        full: count(ObjectState::Full),
        relocated: count(ObjectState::Relocated),
        exposed: count(ObjectState::Exposed),
        damaged: count(ObjectState::Damaged),
        pinned_kib: objects.iter().map(|object| object.pinned_kib).sum(),
        source,
        objects,
        files: None,
        errors,
    }
}

/// What the reports on all objects of a process need.
struct About<'a> {
    process: &'a Process,
    view: &'a View<'a>,
    start: i128,
    has_shim: bool,
    mode: Option<Mode>,
}

/// Returns the path of the object, for people.
fn path(object: &InspectedObject, about: &About) -> Vec<u8> {
    match object.original {
        Some(original) => disk::path(original, about.view).to_owned(),
        None if object.name.is_empty() => about.process.link("exe").unwrap_or_default(),
        None => object.name.clone(),
    }
}

/// Returns whether an object was pinned, by the library or from outside. Only then is anonymous
/// memory in place of its file's sopin's.
fn is_pinned(object: &InspectedObject, about: &About) -> bool {
    about.has_shim || object.copy().is_some()
}

/// Returns why an object is not in a better state.
fn reason(object: &InspectedObject, about: &About, state: ObjectState, file: &Disk) -> Option<String> {
    let inferred = || match state {
        ObjectState::Full => None,
        _ if !about.has_shim => Some("libsopin.so is not loaded"),
        ObjectState::Relocated if about.mode == Some(Mode::Relocated) => Some("SOPIN_MODE=relocated"),
        _ if about.mode == Some(Mode::Off) => Some("SOPIN_MODE=off"),
        _ => None,
    };
    if state == ObjectState::Damaged && file.state == DiskState::Unchanged {
        return Some("its pages have been discarded".to_owned());
    }
    if state == ObjectState::Full {
        let is_unwritable = object.parts.iter().any(|part| part.backing == PartBacking::Unwritable);
        return (is_unwritable && !about.has_shim).then(|| "its file cannot be written to".to_owned());
    }
    let said = object.said.as_ref().and_then(|said| match (&said.cause, said.record.reached()) {
        (Some(cause), _) => Some(cause.clone()),
        (None, Some(Reached::Excluded)) => Some("left alone, as SOPIN_EXCLUDE or SOPIN_ONLY says".to_owned()),
        (None, Some(Reached::Pending)) => Some("libsopin.so is at work on it".to_owned()),
        _ => None,
    });
    said.or_else(|| inferred().map(str::to_owned))
}

fn has_glibc(list: &List) -> bool {
    list.objects.iter().any(|object| {
        let name = object.name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        name.starts_with(b"libc.so.") || name.starts_with(b"ld-linux")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_exposed() {
        let report = Inspector::new(false).inspect(std::process::id(), false).unwrap().unwrap();
        assert!(report.shim.is_none() && report.exposed >= 2 && report.damaged == 0, "{report:#?}");
        assert_eq!((report.source, report.pinned_kib), ("loader", 0));
        let exe = std::env::current_exe().unwrap();
        assert_eq!(report.objects[0].path, exe.to_str().unwrap());
        assert_eq!(report.objects[0].reason.as_deref(), Some("libsopin.so is not loaded"));
        assert!(Inspector::new(false).inspect(std::process::id(), true).unwrap().is_none());
    }

    #[test]
    fn objects_can_be_chosen_by_their_files() {
        let (inspector, own) = (Inspector::new(false), std::process::id());
        let all = inspector.inspect(own, false).unwrap().unwrap();
        let file = all.objects[1].loaded_from.unwrap();
        let one = inspector.inspect_files(own, &[file]).unwrap().unwrap();
        assert_eq!((one.objects.len(), one.exposed), (1, 1));
        assert_eq!(one.objects[0].path, all.objects[1].path);
        assert!(inspector.inspect_files(own, &[]).unwrap().unwrap().objects.is_empty());
    }
}

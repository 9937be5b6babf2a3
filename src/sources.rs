//! Where the bytes of an object's read-only ranges come from: a copy of its file in the
//! system's store or in the user's, if the file can be found and the store can be used.
//! Pages that were modified in memory are left.
//!
//! Only a process that has exactly the rights of a user uses that user's store. Every sweep
//! that needs this store checks this anew, since a daemon may have changed its user since the
//! last one. To change the user of all threads, the C library sends them a signal. Signals are
//! blocked during a sweep, so this thread's user cannot change in the middle of it. Where a
//! seccomp filter may kill for blocking signals, only a process with one thread uses the user's
//! store.

use core::ffi::CStr;

use sopin_core::cause::{Cause, Operation, Stopped};
use sopin_core::comparison;
use sopin_core::credentials::{ShownRights, User};
use sopin_core::image_layers::ImageLayers;
use sopin_core::memory::ProcessMemory;
use sopin_core::object::{Object, Span};
use sopin_core::once::{OnceCell, get_or_init};
use sopin_core::pagemap::Pagemap;
use sopin_core::pages::PageVec;
use sopin_core::plan::{Backing, Replacement};
use sopin_core::settings::Settings;
use sopin_core::sys::{self, Fd, ThreadIds};
use sopin_core::vmas::{FileId, Maps};
use sopin_store::{CacheEntry, InMemory, Known, OriginFile, Store};

use crate::candidates::Candidate;
use crate::original::{self, Original};

/// The files and directories that a sweep opens at most once each.
#[derive(Default)]
pub struct Sources {
    /// The ids of this thread, if they are known.
    caller: Option<ThreadIds>,
    /// The rights that its status has shown before the sweep.
    shown_rights: Option<ShownRights>,
    pagemap: OnceCell<sys::Result<Pagemap>>,
    system_store: OnceCell<Result<Option<Store>, Cause>>,
    user_store: OnceCell<Result<Store, Cause>>,
    layers: OnceCell<Option<ImageLayers>>,
}

/// The directories that this process has proven to be stores.
#[derive(Clone, Copy, Default)]
pub struct KnownStores {
    system: Known,
    user: Known,
}

impl KnownStores {
    pub const fn new() -> Self {
        Self { system: Known::new(), user: Known::new() }
    }
}

/// How much of the text of an object was modified in memory.
#[derive(Clone, Copy)]
pub enum Modified {
    /// So many bytes were.
    Bytes(usize),
    /// It could not be found out, for this reason.
    Unknown(Cause),
}

impl Sources {
    /// Makes sources of which nothing is open yet, for the thread with these ids, whose status has
    /// shown these rights.
    pub fn of(caller: ThreadIds, shown_rights: Option<ShownRights>) -> Self {
        Self { caller: Some(caller), shown_rights, ..Self::default() }
    }

    fn caller(&self) -> ThreadIds {
        self.caller.unwrap_or_else(ThreadIds::ask)
    }

    /// Removes the pages that were modified in memory from the ranges that are to get the
    /// file's bytes. If those pages cannot be found out, removes all such ranges.
    pub fn leave_modified_pages(
        &self,
        memory: &ProcessMemory,
        original: Option<&Original>,
        replacements: &mut PageVec<Replacement>,
        runs: &mut PageVec<Replacement>,
    ) -> Result<Modified, Cause> {
        runs.clear();
        let copied = replacements.iter().filter(|range| range.backing == Backing::Copy);
        let end = copied.map(|range| range.span.end).max().unwrap_or_default();
        let (mut reader, mut modified) = (None, Modified::Bytes(0));
        for range in replacements.iter() {
            if range.backing != Backing::Copy {
                runs.push(*range).map_err(Cause::no_memory)?;
                continue;
            }
            let keep = |span: Span| {
                let offset = range.offset + (span.start - range.span.start) as u64;
                runs.push(Replacement { span, offset, ..*range }).map_err(Cause::no_memory).map_err(Stopped::from)
            };
            let found = match (get_or_init(&self.pagemap, || Pagemap::open(self.caller())), original) {
                (Ok(pagemap), _) => {
                    reader.get_or_insert_with(|| pagemap.reader(end)).for_each_unmodified(range.span, keep)
                }
                (Err(_), Some(original)) => {
                    comparison::for_each_equal(memory, &original.file, range.span, range.offset, keep)
                }
                (Err(errno), None) => Err(Stopped::Reading(*errno)),
            };
            modified = match (found, modified) {
                (Ok(bytes), Modified::Bytes(sum)) => Modified::Bytes(sum + bytes),
                (Ok(_), unknown) => unknown,
                (Err(stopped), _) => Modified::Unknown(stopped.cause(Operation::ReadPagemap)),
            };
        }
        if matches!(modified, Modified::Unknown(_)) {
            runs.retain(|range| range.backing != Backing::Copy);
        }
        core::mem::swap(replacements, runs);
        Ok(modified)
    }

    /// Returns the page map of this process, if it can be read.
    pub fn pagemap(&self) -> Option<&Pagemap> {
        get_or_init(&self.pagemap, || Pagemap::open(self.caller())).as_ref().ok()
    }

    /// Opens the system's store, into which every process looks first. `None` if the settings turn
    /// the stores off.
    pub fn open_system_store(&self, settings: &Settings, known_stores: &mut KnownStores) -> Option<()> {
        settings.store.as_ref()?;
        let _ = get_or_init(&self.system_store, || Store::open_system(&mut known_stores.system));
        Some(())
    }

    /// Opens the user's store, unless the settings turn it off. A process that finds all copies in the
    /// system's store does not call this. So it makes no directory, and its rights are not checked.
    pub fn open_user_store(&self, settings: &Settings, known_stores: &mut KnownStores) {
        let Some(places) = settings.store.as_ref() else { return };
        let _ = get_or_init(&self.user_store, || {
            let user = User::of_thread(self.caller().thread, self.shown_rights.as_ref())?;
            Store::open(places, user, &mut known_stores.user)
        });
    }

    /// Returns the owner of the user's store, if that is open.
    pub fn user(&self) -> Option<User> {
        Some(self.user_store.get()?.as_ref().ok()?.owner())
    }

    /// Returns the directories of the open stores.
    pub fn directories(&self) -> [Option<&Fd>; 2] {
        self.stores().map(|store| store.map(Store::directory))
    }

    fn stores(&self) -> [Option<&Store>; 2] {
        let system = self.system_store.get().and_then(|store| store.as_ref().ok()?.as_ref());
        [system, self.user_store.get().and_then(|store| store.as_ref().ok())]
    }

    /// Returns whether the user's store can be used and no store seems to have a copy of the file at
    /// `path`. It opens the user's store only if the system's has no copy.
    pub fn may_add(&self, path: &CStr, settings: &Settings, known_stores: &mut KnownStores) -> bool {
        let [system, _] = self.stores();
        if system.is_some_and(|store| store.seems_warm(path)) {
            return false;
        }
        self.open_user_store(settings, known_stores);
        let [_, user] = self.stores();
        user.is_some_and(|store| !store.seems_warm(path))
    }

    /// Finds out which files are in layers of an image, for which the caller needs the library's
    /// lock.
    pub fn find_layers(&self) -> Option<ImageLayers> {
        *get_or_init(&self.layers, ImageLayers::of_this_process)
    }

    /// Opens the file from which the ranges to be copied come. `None` if there are no such ranges,
    /// or if the path leads to another file by now. The caller has the library's lock, or has
    /// called [`Sources::find_layers`] with it.
    pub fn find_original(
        &self,
        maps: &mut Maps,
        path: &CStr,
        mapped: FileId,
        candidate: &Candidate,
        replacements: &[Replacement],
    ) -> Option<Original> {
        let copied = || replacements.iter().filter(|range| range.backing == Backing::Copy);
        let shown = copied().find(|range| is_text(range)).or_else(|| copied().next())?;
        let is_executable = candidate.loaded.headers == sys::executable_headers();
        let page = original::WitnessPage { object: candidate.object.span, is_executable, offset: shown.offset };
        Original::find(maps, path, mapped, page, || self.find_layers()).ok()?
    }

    /// Returns whether the file at `path` is in a layer of an image. The caller has the library's
    /// lock.
    pub fn has_in_layers(&self, path: &CStr) -> bool {
        let Some(layers) = self.find_layers() else { return false };
        let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_NOFOLLOW;
        sys::open(path, flags, 0).is_ok_and(|file| layers.have(&file))
    }

    /// Finds the copy of an object's file in the stores, or makes it by way of `buffer`. It looks into
    /// the user's store only if the system's has no copy; it opens it then, by what `may_open` has, unless
    /// it is open. Writes no line; the result contains the complaints.
    pub fn find_copy(
        &self,
        wanted: &WantedCopy<'_>,
        buffer: &mut PageVec<u8>,
        may_open: Option<(&Settings, &mut KnownStores)>,
    ) -> CopySearch {
        let WantedCopy { path, original, memory, object, replacements } = *wanted;
        let Original { file, identity, file_system, has_own_numbers, .. } = original;
        let (identity, has_own_numbers) = (*identity, *has_own_numbers);
        let origin = OriginFile { file, path, identity, has_own_numbers, file_system };
        let mapped = InMemory { memory, object, replacements };
        let mut tampered = None;
        let found = match self.system_store.get() {
            Some(Ok(Some(system))) => system.find(&origin, &mapped, |cause| tampered = Some(cause)),
            Some(Ok(None)) | None => Ok(None),
            Some(Err(cause)) => Err(*cause),
        };
        let system = tampered.take().or(found.as_ref().err().copied());
        if let Ok(Some(entry)) = found {
            return CopySearch { entry: Ok(entry), complaints: [system, None] };
        }
        if let Some((settings, known_stores)) = may_open {
            self.open_user_store(settings, known_stores);
        }
        let entry = match self.user_store.get() {
            Some(Ok(store)) => match store.entry(origin, &mapped, buffer, |cause| tampered = Some(cause)) {
                // Debuggers and profilers can read a file, and the kernel can reclaim its pages.
                Err(cause) if sopin_store::is_unsettled(cause) => store.own_entry(&origin, &mapped, buffer),
                entry => entry,
            },
            Some(Err(cause)) => Err(*cause),
            None => Err(Cause::words(Operation::OpenStore, "it is off")),
        };
        CopySearch { entry, complaints: [system, tampered] }
    }
}

/// An object, and the file of which it needs a copy.
#[derive(Clone, Copy)]
pub struct WantedCopy<'a> {
    pub path: &'a CStr,
    pub original: &'a Original,
    pub memory: &'a ProcessMemory,
    pub object: &'a Object,
    pub replacements: &'a [Replacement],
}

/// The result of looking for a copy.
pub struct CopySearch {
    /// The copy, or why there is none.
    pub entry: Result<CacheEntry, Cause>,
    /// The problems with the system's store and with the user's, if there are some.
    pub complaints: [Option<Cause>; 2],
}

/// Returns whether a range is text that is to be mapped from a copy.
pub fn is_text(range: &Replacement) -> bool {
    range.backing == Backing::Copy && range.protection & libc::PROT_EXEC != 0
}

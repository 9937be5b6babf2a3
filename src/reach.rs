//! Finding out the [`Reach`] of an object that may have run, from the objects to which its
//! relocated words point, and whether musl has left some of these words unbound. It takes a read
//! of memory for every word, so it must be done only for objects that need it.

use sopin_core::cause::Cause;
use sopin_core::memory::ProcessMemory;
use sopin_core::object::{Bound, Object, Reference, SYMBOL_NAME, file_name};
use sopin_core::sys::{Errno, Result};
use sopin_core::write_safety::{Progress, Reach};

use crate::candidates::Candidate;
use crate::loader::Loaded;
use crate::own;

/// File names of the objects of the C library, glibc or musl, up to the first dot. None of their
/// functions stores, or starts a thread that stores, to objects that its caller has not named,
/// except those that [`starts_writers`] knows. [`reports_addresses`] knows those that report addresses.
const C_LIBRARY_FILES: [&[u8]; 11] = [
    b"libc",
    b"libm",
    b"libpthread",
    b"libdl",
    b"librt",
    b"libgcc_s",
    b"ld-linux-x86-64",
    b"ld-linux-aarch64",
    b"ld-musl-x86_64",
    b"ld-musl-aarch64",
    b"linux-vdso",
];

/// Functions that allocators define in place of the C library's. Nearly every object calls
/// them, and they look up no addresses for their callers.
const ALLOCATORS: [&[u8]; 7] =
    [b"malloc", b"calloc", b"realloc", b"free", b"memalign", b"posix_memalign", b"aligned_alloc"];

/// Variables of the C library of which executables have copies (copy relocations).
const COPIED: [&[u8]; 6] = [b"stdin", b"stdout", b"stderr", b"environ", b"__environ", b"_environ"];

/// Returns whether a function or variable of this name reports addresses of objects or symbols.
fn reports_addresses(name: &[u8]) -> bool {
    let prefixes: [&[u8]; 5] = [b"dl", b"_dl", b"__libc_dl", b"_r_debug", b"_rtld_global"];
    prefixes.iter().any(|prefix| name.starts_with(prefix)) || name == b"getauxval"
}

/// Returns whether a function of this name starts a thread or a similar task. Such a task can
/// find addresses in ways that no relocated word shows, so it counts like another object.
fn starts_writers(name: &[u8]) -> bool {
    let prefixes: [&[u8]; 3] = [b"aio_", b"lio_", b"io_uring_"];
    let names: [&[u8]; 7] =
        [b"pthread_create", b"thrd_create", b"clone", b"__clone", b"timer_create", b"mq_notify", b"getaddrinfo_a"];
    names.contains(&name) || prefixes.iter().any(|prefix| name.starts_with(prefix))
}

/// Finds out the reach of objects of the loader's list.
pub struct References<'a> {
    pub memory: &'a ProcessMemory,
    /// The loader's list.
    pub objects: &'a [Loaded],
}

impl References<'_> {
    /// Returns the reach of the candidate at `index`. Marks as known the candidates into whose
    /// data its words point. Fails if a word cannot be read; then the caller must assume
    /// [`Reach::Everywhere`].
    pub fn reach(&self, candidates: &mut [Candidate], index: usize) -> core::result::Result<Reach, Cause> {
        let Some(runner) = candidates.get(index).copied() else { return Ok(Reach::Everywhere) };
        let mut reach = Reach::Itself;
        // The object of the last reference, to which the next one usually points as well.
        let mut last = None;
        runner
            .dynamic
            .for_each_reference(self.memory, &runner.object, |reference| {
                reach = reach.max(self.of_reference(&runner, candidates, reference, &mut last)?);
                Ok(())
            })
            .map_err(|errno: Errno| Cause::call(self.memory.operation(), errno))?;
        Ok(reach)
    }

    /// Returns whether a word of `candidate` for a symbol that must be defined holds no address in
    /// an object: musl binds it at a later `dlopen` (source: `redo_lazy_relocs`).
    pub fn has_unbound(&self, candidate: &Candidate) -> core::result::Result<bool, Cause> {
        let mut has_unbound = false;
        candidate
            .dynamic
            .for_each_reference(self.memory, &candidate.object, |reference| {
                // An unbound word holds what the file has: null, or an address without the base. An
                // executable that is not position-independent may lie there, too.
                if let Bound::Address(address) = reference.bound
                    && address < candidate.object.base
                    && !reference.is_weak()
                    && self.object_at(address).is_none()
                {
                    has_unbound = true;
                }
                Ok(())
            })
            .map_err(|errno: Errno| Cause::call(self.memory.operation(), errno))?;
        Ok(has_unbound)
    }

    fn of_reference(
        &self,
        runner: &Candidate,
        candidates: &mut [Candidate],
        reference: &Reference,
        last: &mut Option<(Object, Loaded)>,
    ) -> Result<Reach> {
        let address = match reference.bound {
            Bound::Address(0) => return Ok(Reach::Itself),
            Bound::Address(address) if runner.object.span.contains(address) => {
                // The word points to the lazy-binding stub of a function that was not called, or to
                // a definition of the object's own. But if the object does not define the symbol
                // and the word is writable, the word may have held another address before.
                let is_overwritten = reference.is_writable && reference.is_undefined();
                return Ok(if is_overwritten { Reach::Everywhere } else { Reach::Itself });
            }
            Bound::Address(address) => address,
            // The object from which the variable was copied is not known, nor are the addresses in
            // the variable.
            Bound::Copied => return Ok(Reach::ThroughOthers),
            Bound::Unknown => return Ok(Reach::Everywhere),
        };
        let mut buffer = [0; SYMBOL_NAME];
        let name = reference.name(self.memory, &mut buffer)?;
        if reports_addresses(name) {
            return Ok(Reach::Everywhere);
        }
        if starts_writers(name) {
            return Ok(Reach::ThroughOthers);
        }
        let mut others = candidates.iter_mut().filter(|candidate| candidate.progress != Progress::MayHaveRun);
        if let Some(other) = others.find(|other| other.object.span.contains(address)) {
            let is_library = other.progress != Progress::NotBegun && self.is_c_library(&other.loaded);
            let is_data = other.object.has_writable(address);
            other.is_known |= is_data && !COPIED.contains(&name);
            return Ok(if is_library { Reach::Itself } else { Reach::ThroughOthers });
        }
        if !last.is_some_and(|(object, _)| object.span.contains(address)) {
            *last = self.object_at(address);
        }
        let Some((object, loaded)) = *last else {
            return Ok(if reference.is_writable { Reach::Everywhere } else { Reach::ThroughOthers });
        };
        let is_harmless = COPIED.contains(&name)
            || ALLOCATORS.contains(&name)
            || own::is_in(object.span)
            || self.is_c_library(&loaded);
        Ok(if is_harmless { Reach::Itself } else { Reach::ThroughOthers })
    }

    /// Returns the object that contains `address`: the one whose base is closest below it, or
    /// an executable that is not position-independent, whose base is 0.
    fn object_at(&self, address: usize) -> Option<(Object, Loaded)> {
        let closest = self.objects.iter().filter(|loaded| loaded.base <= address).max_by_key(|loaded| loaded.base);
        for loaded in closest.into_iter().chain(self.objects.first()) {
            match Object::read(self.memory, loaded.base, loaded.headers, loaded.header_count) {
                Ok(object) if object.span.contains(address) => return Some((object, *loaded)),
                _ => {}
            }
        }
        None
    }

    fn is_c_library(&self, loaded: &Loaded) -> bool {
        let mut buffer = [0; 512];
        let path = self.memory.read_string(loaded.name, &mut buffer).unwrap_or_default();
        let stem = file_name(path).split(|byte| *byte == b'.').next().unwrap_or_default();
        C_LIBRARY_FILES.contains(&stem)
    }
}

//! Finding out the [`Reach`] of an object that may have run: what its relocated
//! words point to. It must not be asked of more objects than need it, for every
//! word is read by itself.

use sopin_core::cause::Cause;
use sopin_core::memory::OwnMemory;
use sopin_core::object::{Bound, Object, Reference, SYMBOL_NAME, file_name};
use sopin_core::sys::{Errno, Result};
use sopin_core::write_safety::{Progress, Reach};

use crate::candidates::Candidate;
use crate::loader::Loaded;
use crate::own;

/// File names of the objects of the C library, up to the first dot. None of their
/// functions starts anything that stores to other objects than its caller has named,
/// and of those that report addresses [`reports_addresses`] knows the names.
const C_LIBRARY: [&[u8]; 9] = [
    b"libc",
    b"libm",
    b"libpthread",
    b"libdl",
    b"librt",
    b"libgcc_s",
    b"ld-linux-x86-64",
    b"ld-linux-aarch64",
    b"linux-vdso",
];

/// Functions that allocators define in the C library's place. They are called by
/// nearly everything and look nothing up for their callers.
const ALLOCATORS: [&[u8]; 7] =
    [b"malloc", b"calloc", b"realloc", b"free", b"memalign", b"posix_memalign", b"aligned_alloc"];

/// Variables of the C library that executables have copies of.
const COPIED: [&[u8]; 6] = [b"stdin", b"stdout", b"stderr", b"environ", b"__environ", b"_environ"];

/// Returns whether a function or variable of this name tells where objects or symbols are.
fn reports_addresses(name: &[u8]) -> bool {
    let prefixes: [&[u8]; 5] = [b"dl", b"_dl", b"__libc_dl", b"_r_debug", b"_rtld_global"];
    prefixes.iter().any(|prefix| name.starts_with(prefix)) || name == b"getauxval"
}

/// Returns whether a function of this name starts a thread, or a task like one: it can find
/// addresses in ways that no word shows, and count as another object does.
fn starts_writers(name: &[u8]) -> bool {
    let prefixes: [&[u8]; 3] = [b"aio_", b"lio_", b"io_uring_"];
    let names: [&[u8]; 7] =
        [b"pthread_create", b"thrd_create", b"clone", b"__clone", b"timer_create", b"mq_notify", b"getaddrinfo_a"];
    names.contains(&name) || prefixes.iter().any(|prefix| name.starts_with(prefix))
}

/// What to find out with.
pub struct References<'a> {
    /// To read with.
    pub memory: &'a OwnMemory,
    /// The loader's list.
    pub objects: &'a [Loaded],
}

impl References<'_> {
    /// Returns the reach of the candidate at `index`. Marks the others in whose data its words
    /// point. What cannot be read may say anything.
    pub fn reach(&self, candidates: &mut [Candidate], index: usize) -> core::result::Result<Reach, Cause> {
        let Some(runner) = candidates.get(index).copied() else { return Ok(Reach::Everywhere) };
        let mut reach = Reach::Itself;
        // Read in order, so that one look-up usually answers for the next reference as well.
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
                // A function that was not called, or its own definition. But a pointer to
                // what it does not define may have been another one before.
                let is_overwritten = reference.is_writable && reference.is_undefined();
                return Ok(if is_overwritten { Reach::Everywhere } else { Reach::Itself });
            }
            Bound::Address(address) => address,
            // Where the variable was copied from is not known, nor what it contains.
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

    /// The object that `address` lies in: the one that begins closest below it, or an
    /// executable that is not position-independent, whose base is 0.
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
        C_LIBRARY.contains(&stem)
    }
}

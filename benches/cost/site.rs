//! The files that are measured, all below `target/bench`: compiled programs, tiny
//! libraries, Python packages and stores.

use std::cell::Cell;
use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::effort::Effort;
use crate::inodes;
use crate::page::Variant;
use crate::run;

/// The number of tiny libraries.
pub const LIBRARIES: usize = 5000;

/// The files of the benchmark.
pub struct Site {
    /// The root of the checkout.
    pub checkout: PathBuf,
    /// The `libsopin.so` that is measured.
    pub library: PathBuf,
    pub effort: Effort,
    directory: PathBuf,
    new_stores: Cell<usize>,
    /// The number of new stores that have been emptied.
    emptied_stores: Cell<usize>,
    kept_inodes: Cell<usize>,
    /// A lock that is held, so that no other benchmark uses the directory meanwhile.
    _lock: File,
}

impl Site {
    /// Compiles the programs and libraries, and empties the stores.
    ///
    /// # Errors
    /// Those of the compiler or the file system.
    pub fn new(checkout: &Path, library: PathBuf, effort: Effort) -> Result<Self, String> {
        let directory = checkout.join("target/bench");
        let lock = lock(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        let site = Self {
            checkout: checkout.to_owned(),
            library,
            effort,
            directory,
            new_stores: Cell::default(),
            emptied_stores: Cell::default(),
            kept_inodes: Cell::default(),
            _lock: lock,
        };
        site.remove_stale()?;
        remove(&site.warm_store())?;
        remove(&site.reread_store())?;
        remove(&site.filled_store())?;
        for directory in [site.directory.join("tiny"), site.stores().join("cold"), site.replaceable().join("tiny")] {
            fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        }
        site.compile("tiny.c", "libtiny.so", &["-shared", "-fPIC"])?;
        // Without pages between the segments, which a file does not need.
        let small = ["-shared", "-fPIC", "-nostdlib", "-s", "-Wl,-z,noseparate-code,-z,max-page-size=4096"];
        site.compile("tiny.c", "libsmall.so", &small)?;
        site.compile("empty.c", "libempty.so", &["-shared", "-fPIC"])?;
        site.compile("crowd.c", "crowd", &[])?;
        site.compile("gaps.c", "libgaps.so", &["-shared", "-fPIC", "-pthread"])?;
        site.compile("rivals.c", "librivals.so", &["-shared", "-fPIC", "-Wl,-z,now", "-ldl"])?;
        site.compile("libraries.c", "libraries", &["-ldl"])?;
        site.compile("calls.c", "calls", &["-L.", "-ltiny", "-Wl,-rpath,$ORIGIN"])?;
        Ok(site)
    }

    /// Removes what was kept only until the end.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn remove_stale(&self) -> Result<(), String> {
        [self.stores().join("cold"), self.replaceable(), self.kept()].iter().try_for_each(|stale| remove(stale))
    }

    /// Copies the tiny libraries twice; those of one copy may be replaced.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn copy_tiny_libraries(&self) -> Result<(), String> {
        self.copy_tiny_to(&self.replaceable().join("tiny"), LIBRARIES)?;
        self.keep_inodes()?;
        self.copy_many_tiny_libraries(LIBRARIES)
    }

    /// Copies so many tiny libraries, for variants that replace none.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn copy_many_tiny_libraries(&self, count: usize) -> Result<(), String> {
        self.copy_tiny_to(&self.directory.join("tiny"), count)?;
        self.age();
        Ok(())
    }

    fn copy_tiny_to(&self, directory: &Path, count: usize) -> Result<(), String> {
        for number in 0..count {
            let copy = directory.join(format!("{number}.so"));
            fs::copy(self.built("libtiny.so"), &copy).map_err(|error| format!("{}: {error}", copy.display()))?;
        }
        Ok(())
    }

    /// Copies the shell, so that its processes can be told from others. Returns the path.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn copy_shell(&self) -> Result<PathBuf, String> {
        let copy = self.built("shell");
        fs::copy("/bin/sh", &copy).map_err(|error| format!("{}: {error}", copy.display()))?;
        self.age();
        Ok(copy)
    }

    /// Copies the Python packages, so that they can be replaced.
    ///
    /// # Errors
    /// Those of the file system, or a message that the packages are missing.
    pub fn copy_packages(&self) -> Result<(), String> {
        for packages in self.packages()? {
            let copy = self.replaceable().join(packages.strip_prefix("/").unwrap_or(&packages));
            if !copy.exists() {
                fs::create_dir_all(copy.parent().unwrap_or(&copy))
                    .map_err(|error| format!("{}: {error}", copy.display()))?;
                run::run(Command::new("cp").arg("-a").arg(&packages).arg(&copy))?;
            }
        }
        self.keep_inodes()?;
        self.age();
        Ok(())
    }

    /// Drops the copies that [`Variant::Reread`] uses from the page cache.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn drop_from_cache(&self) -> Result<(), String> {
        self.wait_for_disk();
        let store = self.reread_store();
        // Pages that a process maps stay in the cache.
        let drop = |file: &Path| Ok(rustix::fs::fadvise(File::open(file)?, 0, None, rustix::fs::Advice::DontNeed)?);
        inodes::for_each_file(&store, &mut { drop }).map_err(|error| format!("{}: {error}", store.display()))
    }

    /// Waits until the store accepts the new files, and until they are on the disk.
    pub fn age(&self) {
        self.wait_for_disk();
        thread::sleep(Duration::from_millis(2500));
    }

    fn compile(&self, source: &str, output: &str, flags: &[&str]) -> Result<(), String> {
        let mut command = Command::new("cc");
        // The flags are last, because libraries must follow the files that need them.
        command.current_dir(&self.directory).args(["-O2", "-Wall", "-Wextra", "-Werror", "-o", output]);
        command.arg(self.program(source)).args(flags);
        run::run(&mut command).map(drop)
    }

    /// Returns the path of a file that [`Site::new`] has compiled.
    pub fn built(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Returns the path of a program of the benchmark that needs no compiler.
    pub fn program(&self, name: &str) -> PathBuf {
        self.checkout.join("benches/cost/programs").join(name)
    }

    /// Returns the directory of all stores.
    pub fn stores(&self) -> PathBuf {
        self.directory.join("stores")
    }

    /// Returns the store that keeps its entries for the whole benchmark.
    pub fn warm_store(&self) -> PathBuf {
        self.stores().join("warm")
    }

    /// Returns the one for [`Variant::Reread`].
    pub fn reread_store(&self) -> PathBuf {
        self.stores().join("reread")
    }

    /// Returns the user's store for [`Variant::Filled`].
    pub fn filled_store(&self) -> PathBuf {
        self.stores().join("filled")
    }

    /// Returns a store that no process has used.
    pub fn new_store(&self) -> PathBuf {
        let number = self.new_stores.replace(self.new_stores.get() + 1);
        self.stores().join(format!("cold/{number}"))
    }

    /// Returns the directory of the files that may be replaced by copies of them.
    pub fn replaceable(&self) -> PathBuf {
        self.directory.join("replaceable")
    }

    /// Returns the directory with other names of files that may be replaced.
    fn kept(&self) -> PathBuf {
        self.directory.join("kept")
    }

    fn keep_inodes(&self) -> Result<(), String> {
        let number = self.kept_inodes.replace(self.kept_inodes.get() + 1);
        let kept = |number: usize| self.kept().join(number.to_string());
        inodes::keep(&self.replaceable(), &kept(number))
            .and_then(|()| if number > 0 { inodes::empty(&kept(number - 1)) } else { Ok(()) })
            .map_err(|error| format!("{}: {error}", self.kept().display()))
    }

    /// Returns the directory with the tiny libraries for this variant.
    pub fn tiny_libraries(&self, variant: Variant) -> PathBuf {
        if variant == Variant::Replaced { self.replaceable().join("tiny") } else { self.directory.join("tiny") }
    }

    /// Returns a command that runs `program` in this way.
    pub fn command(&self, program: &Path, variant: Variant) -> Command {
        let mut command = Command::new(program);
        self.apply(variant, &mut command);
        command
    }

    /// Makes `command` run in this way, whatever the caller's environment contains.
    fn apply(&self, variant: Variant, command: &mut Command) {
        for (name, _) in env::vars_os() {
            let name_text = name.to_string_lossy();
            if name_text.starts_with("SOPIN_") || name_text.starts_with("LD_") || name_text.starts_with("PYTHON") {
                command.env_remove(name);
            }
        }
        let mut sopin = |mode: &str, store: &OsStr| {
            command.env("LD_PRELOAD", &self.library).env("SOPIN_MODE", mode).env("SOPIN_STORE", store);
        };
        match variant {
            Variant::Native => {}
            Variant::Empty => {
                command.env("LD_PRELOAD", self.built("libempty.so"));
            }
            Variant::Off => sopin("off", OsStr::new("off")),
            Variant::Relocated => sopin("relocated", OsStr::new("off")),
            Variant::Warm => sopin("full", self.warm_store().as_os_str()),
            Variant::Reread => sopin("full", self.reread_store().as_os_str()),
            Variant::Cold => sopin("full", self.new_store().as_os_str()),
            Variant::Filled => sopin("full", self.filled_store().as_os_str()),
            Variant::Memfd => sopin("full", OsStr::new("off")),
            Variant::Floor | Variant::Anonymous | Variant::Replaced => {
                let rival = match variant {
                    Variant::Floor => "floor",
                    Variant::Anonymous => "anonymous",
                    _ => "replaced",
                };
                command.env("LD_PRELOAD", self.built("librivals.so")).env("RIVAL", rival);
                command.env("RIVAL_MAY_REPLACE", self.replaceable());
            }
        }
    }

    /// Returns the interpreter, set up for this variant: with an environment of the
    /// packages and the programs of the benchmark, from copies of the packages if they
    /// are to be replaced.
    ///
    /// # Errors
    /// A message that the packages are missing.
    pub fn python(&self, variant: Variant) -> Result<Command, String> {
        let mut path = vec![self.checkout.join("benches/cost/programs"), self.checkout.join("examples/gunicorn")];
        for packages in self.packages()? {
            path.push(if variant == Variant::Replaced {
                self.replaceable().join(packages.strip_prefix("/").unwrap_or(&packages))
            } else {
                packages
            });
        }
        let path = env::join_paths(path).map_err(|error| error.to_string())?;
        let mut command = self.command(&self.checkout.join("target/test-python/bin/python"), variant);
        command.env("PYTHONPATH", path).env("PYTHONNOUSERSITE", "1").env("PYTHONDONTWRITEBYTECODE", "1");
        // There is one thread, because the number of further ones to start would depend
        // on the machine.
        command.env("OPENBLAS_NUM_THREADS", "1").env("OMP_NUM_THREADS", "1");
        Ok(command)
    }

    /// Returns the directories of the Python packages.
    fn packages(&self) -> Result<[PathBuf; 2], String> {
        let missing = || "no Python packages; run scripts/test-environments".to_owned();
        let libraries = self.checkout.join("target/test-python/lib");
        let mut versions = fs::read_dir(&libraries).map_err(|_| missing())?.flatten().map(|entry| entry.path());
        let version = versions.find(|path| path.join("site-packages").is_dir()).ok_or_else(missing)?;
        let served = self.checkout.join("target/bench-packages");
        if served.is_dir() { Ok([served, version.join("site-packages")]) } else { Err(missing()) }
    }

    /// Cleans up after a measurement, outside the time that is measured.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn settle(&self, variant: Variant) -> Result<(), String> {
        match variant {
            Variant::Cold => {
                for number in self.emptied_stores.replace(self.new_stores.get())..self.new_stores.get() {
                    let store = self.stores().join(format!("cold/{number}"));
                    match inodes::empty(&store) {
                        // In a container, nothing was copied.
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                        result => result.map_err(|error| format!("{}: {error}", store.display()))?,
                    }
                }
            }
            Variant::Replaced => self.keep_inodes()?,
            _ => {}
        }
        if variant.writes() {
            self.wait_for_disk();
        }
        Ok(())
    }

    fn wait_for_disk(&self) {
        // If the file system does not support it, there is nothing to wait for.
        if let Ok(directory) = File::open(&self.directory) {
            let _ = rustix::fs::syncfs(directory);
        }
    }
}

fn lock(directory: &Path) -> io::Result<File> {
    fs::create_dir_all(directory)?;
    let lock = File::create(directory.join("lock"))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| io::Error::other("another benchmark is running here"))?;
    Ok(lock)
}

fn remove(directory: &Path) -> Result<(), String> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(format!("{}: {error}", directory.display())),
        _ => Ok(()),
    }
}

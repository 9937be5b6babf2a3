//! A running `host` (programs/host.c) with libraries of its own, which are truncated at the end:
//! it survives that only if they were pinned.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Run;
use crate::command::{self, Pin};
use crate::common::dialogue::Dialogue;
use crate::common::directives::PASSED;
use crate::common::process::{Finished, Outcome};
use crate::common::protection;
use crate::memory::{self, Scene};
use crate::patience;
use crate::tasks;

/// A host and its libraries.
pub struct Subject {
    pub dialogue: Dialogue,
    pub directory: PathBuf,
    id: u32,
    plug: PathBuf,
    libraries: Vec<PathBuf>,
}

impl Subject {
    /// Starts a host that loads one library and is then put into a state by these words.
    ///
    /// # Errors
    /// It does not become ready. The message has `77` if the kernel does not know the state.
    pub fn start(run: &Run, directory: &Path, words: &[&str]) -> Result<Self, String> {
        Self::start_by(Command::new(run.built("host")), run, directory, words)
    }

    /// Starts it by a command that ends with the host.
    ///
    /// # Errors
    /// Those of [`Self::start`].
    pub fn start_by(command: Command, run: &Run, directory: &Path, words: &[&str]) -> Result<Self, String> {
        Self::start_with(command, &run.built("libplug.so"), directory, words)
    }

    /// Starts it with another library.
    ///
    /// # Errors
    /// Those of [`Self::start`].
    pub fn start_with(mut command: Command, plug: &Path, directory: &Path, words: &[&str]) -> Result<Self, String> {
        fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        let first = copy(plug, directory, 0)?;
        command.arg("load").arg(&first).args(words).current_dir(directory);
        if !command.get_envs().any(|(name, _)| name == "LD_PRELOAD") {
            protection::forget_settings(&mut command);
        }
        let log = directory.join("host.log");
        let mut dialogue =
            Dialogue::start(&mut command, &log, patience()).map_err(|error| format!("{command:?}: {error}"))?;
        dialogue.wait_for("ready", 1)?;
        let id = dialogue.id();
        Ok(Self { dialogue, directory: directory.to_owned(), id, plug: plug.to_owned(), libraries: vec![first] })
    }

    /// Returns the number of the process.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Says that the host is this process, a child of the one that was started.
    pub fn names(&mut self, pid: u32) {
        self.id = pid;
    }

    /// Returns the newest library.
    pub fn newest(&self) -> &Path {
        &self.libraries[self.libraries.len() - 1]
    }

    /// Says a line, and waits for the answer.
    ///
    /// # Errors
    /// There is none.
    pub fn say(&mut self, line: &str, answer: &str) -> Result<(), String> {
        let before = self.dialogue.count(answer);
        self.dialogue.say(line);
        self.dialogue.wait_for(answer, before + 1)
    }

    /// Lets the host load another copy of the library.
    ///
    /// # Errors
    /// It does not.
    pub fn load(&mut self) -> Result<(), String> {
        let path = self.another()?;
        self.say(&format!("load {}", path.display()), "loaded")
    }

    /// Makes another copy of the library, which the host is to load.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn another(&mut self) -> Result<PathBuf, String> {
        let path = copy(&self.plug, &self.directory, self.libraries.len())?;
        self.libraries.push(path.clone());
        Ok(path)
    }

    /// Pins the host.
    ///
    /// # Errors
    /// The command hangs.
    pub fn pin(&self) -> Result<Pin, String> {
        command::pin(self.id(), &self.directory)
    }

    /// Pins the host and checks that all of its libraries are pinned and that it is in the same
    /// state as before.
    ///
    /// # Errors
    /// What is wrong.
    pub fn pin_whole(&self) -> Result<Pin, String> {
        let scene = Scene::of(self.id())?;
        let pin = self.pin()?;
        pin.is_whole()?;
        tasks::none_is_traced(self.id())?;
        scene.is_still(self.id()).map_err(|wrong| pin.describe(&wrong))?;
        self.is_out_of_reach().map_err(|wrong| pin.describe(&wrong))?;
        Ok(pin)
    }

    /// Checks that no library's file can reach the process.
    ///
    /// # Errors
    /// One can.
    pub fn is_out_of_reach(&self) -> Result<(), String> {
        for library in &self.libraries {
            let bytes = memory::exposed(self.id(), library)?;
            if bytes != 0 {
                return Err(format!("left {bytes} bytes of {}", library.display()));
            }
        }
        Ok(())
    }

    /// Truncates all libraries.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn truncate(&self) -> Result<(), String> {
        for library in self.libraries.iter().filter(|library| library.exists()) {
            fs::File::create(library).map_err(|error| format!("{}: {error}", library.display()))?;
        }
        Ok(())
    }

    /// Ends the host without truncating anything.
    ///
    /// # Errors
    /// It does not end with 42: it has died, or lost a store.
    pub fn stop(self) -> Result<(), String> {
        passed(&self.finish()?)
    }

    /// Truncates all libraries and ends the host.
    ///
    /// # Errors
    /// It has died, or lost a store.
    pub fn truncate_and_stop(self) -> Result<(), String> {
        self.truncate()?;
        self.stop()
    }

    /// Truncates all libraries and ends the host, which has to die.
    ///
    /// # Errors
    /// It does not die.
    pub fn truncate_and_die(self) -> Result<(), String> {
        self.truncate()?;
        let finished = self.finish()?;
        if let Outcome::Signal(libc::SIGBUS | libc::SIGSEGV) = finished.outcome {
            return Ok(());
        }
        Err(format!("a process that is not pinned has to die of this, but it {finished}"))
    }

    /// Ends the host.
    ///
    /// # Errors
    /// Those of waiting.
    pub fn finish(mut self) -> Result<Finished, String> {
        self.dialogue.say("stop");
        self.dialogue.finish()
    }
}

/// Checks that a program has ended with 42.
///
/// # Errors
/// It has not.
pub fn passed(finished: &Finished) -> Result<(), String> {
    if finished.outcome == Outcome::Exit(PASSED) { Ok(()) } else { Err(format!("the process {finished}")) }
}

/// Copies a library to a new inode.
fn copy(plug: &Path, directory: &Path, number: usize) -> Result<PathBuf, String> {
    let path = directory.join(format!("lib{number}.so"));
    fs::copy(plug, &path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}

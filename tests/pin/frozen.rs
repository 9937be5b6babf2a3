//! A process that the freezer of cgroups has frozen is refused, goes on as before when it is thawed, and
//! can then be pinned. Where the command cannot see the cgroup, it finds out that the process does not
//! run. A filter kills a process that makes a call of the command's afterwards.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Completion;

use crate::command::{self, Pin};
use crate::common::needs;
use crate::common::process::Outcome;
use crate::memory::Scene;
use crate::subject::Subject;
use crate::{Case, Run, limit, tasks};

/// The longest time for the command to refuse a process. A call that has begun is given up after 10 s.
const REFUSAL: Duration = Duration::from_secs(5);
const WORDS: &[&str] = &["threads", "1", "kill"];

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("frozen::seen", |run, directory| is_refused(run, directory, "frozen", command::pin_command))
            .with_needs(&["root", "freezer"]),
        Case::new("frozen::hidden", |run, directory| is_refused(run, directory, "does-not-run", without_cgroups))
            .with_needs(&["root", "freezer", "cmd:unshare"]),
        Case::ignorable("frozen::version_1", version_1).with_needs(&["root"]),
    ]
}

/// A cgroup with a freezer. Dropping it thaws and removes it.
struct Cgroup {
    directory: PathBuf,
    is_version_2: bool,
}

impl Cgroup {
    fn make(directory: &Path, is_version_2: bool) -> Result<Self, String> {
        fs::create_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        Ok(Self { directory: directory.to_owned(), is_version_2 })
    }

    fn write(&self, name: &str, text: &str) -> Result<(), String> {
        fs::write(self.directory.join(name), text).map_err(|error| format!("{name}: {error}"))
    }

    fn switch(&self, freezes: bool) -> Result<(), String> {
        match (self.is_version_2, freezes) {
            (true, _) => self.write("cgroup.freeze", if freezes { "1" } else { "0" }),
            (false, true) => self.write("freezer.state", "FROZEN"),
            (false, false) => self.write("freezer.state", "THAWED"),
        }
    }

    /// Freezes a process in this cgroup.
    fn freeze(&self, pid: u32) -> Result<(), String> {
        self.write("cgroup.procs", &pid.to_string())?;
        self.switch(true)?;
        let (name, frozen) =
            if self.is_version_2 { ("cgroup.events", "frozen 1") } else { ("freezer.state", "FROZEN") };
        let deadline = Instant::now() + limit(Duration::from_secs(10));
        loop {
            let text = fs::read_to_string(self.directory.join(name)).map_err(|error| format!("{name}: {error}"))?;
            if text.lines().any(|line| line == frozen) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("the process does not freeze: {text}"));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = self.switch(false);
        // After a failure the process is still there.
        let left = fs::read_to_string(self.directory.join("cgroup.procs")).unwrap_or_default();
        for pid in left.lines() {
            let _ = fs::write(self.directory.join("../cgroup.procs"), pid);
        }
        // The kernel removes the last task a little later than its end is reported.
        for _ in 0..100 {
            if fs::remove_dir(&self.directory).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Returns the command in a mount namespace without cgroups.
fn without_cgroups(pid: u32, directory: &Path) -> Result<Command, String> {
    let pin = command::pin_command(pid, directory)?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--", "sh", "-c", "umount -R -l /sys/fs/cgroup && exec \"$@\"", "sh"]);
    command.arg(pin.get_program()).args(pin.get_args());
    for (name, value) in pin.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    Ok(command)
}

fn is_refused(
    run: &Run,
    directory: &Path,
    code: &str,
    make: impl Fn(u32, &Path) -> Result<Command, String>,
) -> Result<(), String> {
    let mount = needs::freezer().ok_or("no freezer")?;
    let name = format!("sopin-{code}-{}", std::process::id());
    refuses(run, directory, &mount.join(name), true, code, make)
}

/// Version 1 of cgroups.
fn version_1(run: &Run, directory: &Path) -> Result<Completion, String> {
    let mount = Path::new("/sys/fs/cgroup/freezer");
    if !mount.join("cgroup.procs").exists() {
        return Ok(Completion::ignored_with("no freezer of version 1"));
    }
    let cgroup = mount.join(format!("sopin-frozen-{}", std::process::id()));
    refuses(run, directory, &cgroup, false, "frozen", command::pin_command)?;
    Ok(Completion::Completed)
}

/// Checks that the command refuses a process in a frozen cgroup with this code, and does it no harm.
fn refuses(
    run: &Run,
    directory: &Path,
    cgroup: &Path,
    is_version_2: bool,
    code: &str,
    make: impl Fn(u32, &Path) -> Result<Command, String>,
) -> Result<(), String> {
    let mut subject = Subject::start(run, directory, WORDS)?;
    let scene = Scene::of(subject.id())?;
    let cgroup = Cgroup::make(cgroup, is_version_2)?;
    cgroup.freeze(subject.id())?;
    let begin = Instant::now();
    let pin = command::run(&mut make(subject.id(), directory)?, directory)?;
    let took = begin.elapsed();
    check_refusal(&pin, code)?;
    if took > limit(REFUSAL) {
        return Err(pin.describe(&format!("refused only after {took:?}")));
    }
    tasks::none_is_traced(subject.id())?;
    cgroup.switch(false)?;
    subject.say("call", "called")?;
    scene.is_still(subject.id()).map_err(|wrong| pin.describe(&wrong))?;
    // What has been refused is that it was frozen, not the process or the place of the command.
    let pin = command::run(&mut make(subject.id(), directory)?, directory)?;
    pin.is_whole()?;
    subject.is_out_of_reach().map_err(|wrong| pin.describe(&wrong))?;
    subject.truncate_and_stop()
}

fn check_refusal(pin: &Pin, code: &str) -> Result<(), String> {
    let way_out = &pin.answer["not_pinned"][0]["way_out"];
    let says_so = way_out.as_str().is_some_and(|way_out| way_out.contains("thaw"));
    if pin.refusal() != Some(code) || pin.outcome != Outcome::Exit(3) || !says_so {
        return Err(pin.describe(&format!("has to refuse a frozen process with {code:?}")));
    }
    Ok(())
}

//! Runs programs under seccomp filters: they survive, no call of the library is trapped
//! or kills the process, and whatever can be protected is.
//!
//! The host (`host.c`) does what its arguments say and truncates its own libraries in
//! between. Every trial runs the same words without the library too: the filter allows
//! them, and the truncation kills the program.

#[path = "../common/mod.rs"]
mod common;

mod profiles;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use libtest_mimic::{Completion, Failed, Trial};

use common::needs::Need;
use common::process::{self, Outcome};
use common::{library, protection, suite};

const TIMEOUT: Duration = Duration::from_secs(60);
const PASSED: Outcome = Outcome::Exit(common::directives::PASSED);

/// The activity of a host under a filter.
#[derive(Clone, Copy)]
struct Case {
    /// The host's words for what it loads, and how.
    words: &'static [&'static str],
    /// With the library, the host survives a truncation.
    is_protected: bool,
    /// The end of the host after a truncation without the library.
    control: Outcome,
}

impl Case {
    const PROTECTED: Self = Self { words: &[], is_protected: true, control: Outcome::Signal(libc::SIGBUS) };
    const LEFT: Self = Self { is_protected: false, ..Self::PROTECTED };
}

const AT_STARTUP: Case = Case { words: &["load", "./libone.so"], ..Case::PROTECTED };
const IN_A_THREAD: Case = Case { words: &["load", "./libone.so", "thread", "./libtwo.so"], ..Case::PROTECTED };
const IN_A_CHILD: Case = Case { words: &["load", "./libone.so", "fork", "load", "./libtwo.so"], ..Case::PROTECTED };
/// The library pins this object's writable data only while the other thread has stopped.
const UNANNOUNCED: Case =
    Case { words: &["load", "./libone.so", "fork", "thread", "./libplain.so"], ..Case::PROTECTED };
/// A filter permits clone(2) for this fork, and kills for that of the task that would stop the threads.
const LEFT_UNANNOUNCED: Case = Case { words: &["load", "./libone.so", "fork", "load", "./libplain.so"], ..Case::LEFT };
/// The filters for which that is tried: they permit ptrace(2).
const UNANNOUNCED_UNDER: [&str; 3] = ["nothing", "docker", "podman"];
/// The library leaves objects that are loaded under a filter that the program has
/// installed itself.
const CONFINED: Case = Case { words: &["load", "./libone.so", "confine", "load", "./libtwo.so"], ..Case::LEFT };
const TRAPPED: Case = Case { words: &["load", "./libone.so", "trap", "load", "./libtwo.so"], ..Case::LEFT };
/// A fork and an unload open no file.
const WITHOUT_FILES: Case = Case {
    words: &["load", "./libone.so", "load", "./libtwo.so", "no_files", "fork", "unload"],
    // This is the host's status if the filter has killed its child.
    control: Outcome::Exit(7),
    ..Case::LEFT
};
const BROKERED: Case = Case { words: &["load", "./libone.so", "broker", "load", "./libtwo.so"], ..Case::LEFT };
/// The library leaves objects that a child of such a program loads as well, because the
/// filter would kill it for reading its memory.
const CONFINED_CHILD: Case =
    Case { words: &["load", "./libone.so", "confine", "fork", "load", "./libtwo.so"], ..Case::LEFT };

fn main() -> ExitCode {
    suite::run("filters", trials, || ())
}

/// The compiled programs, and the rules of one filter.
struct Jail {
    built: PathBuf,
    scratch: PathBuf,
}

type Rules = fn() -> Result<String, String>;

fn trials(run_directory: &Path) -> Result<Vec<Trial>, String> {
    let needs = ["header:seccomp.h", "links:-lseccomp", "arch:x86_64", "glibc"];
    let unmet = needs.iter().find_map(|need| need.parse::<Need>().ok()?.unmet());
    let built = run_directory.join("built");
    fs::create_dir(&built).map_err(|error| error.to_string())?;
    if unmet.is_none() {
        build(&built)?;
        // Files that are younger are not shared.
        thread::sleep(protection::SETTLING_TIME);
    }
    let jail = Arc::new(Jail { built, scratch: run_directory.to_owned() });
    let mut trials = Vec::new();
    let mut add = |name: String, case: Case, rules: Box<dyn Fn() -> Result<String, String> + Send + Sync>| {
        let (jail, unmet) = (Arc::clone(&jail), unmet.clone());
        let label = name.clone();
        trials.push(Trial::ignorable_test(name, move || {
            if let Some(reason) = &unmet {
                return Ok(Completion::ignored_with(reason));
            }
            match rules() {
                Ok(rules) => jail.try_all(&label, &rules, case),
                Err(reason) => Ok(Completion::ignored_with(reason)),
            }
        }));
    };
    add("loaders_calls_only".to_owned(), AT_STARTUP, Box::new(|| Ok(profiles::loaders_only())));
    for name in profiles::OURS {
        add(format!("killing::{name}"), AT_STARTUP, Box::new(move || Ok(profiles::killing([name]))));
    }
    let named: [(&str, Rules); 7] = [
        ("nothing", || Ok("default allow\n".to_owned())),
        ("systemd_247", || profiles::system_service(None, true)),
        ("systemd_252", || profiles::system_service(None, false)),
        ("systemd_252_without_ipc", || profiles::system_service(Some("@ipc"), false)),
        ("without_ipc", || Ok(profiles::killing(profiles::group("@ipc")?.iter().map(String::as_str)))),
        ("docker", || profiles::of_engine("docker.json")),
        ("podman", || profiles::of_engine("podman.json")),
    ];
    for (name, rules) in named.into_iter().filter(|(name, _)| UNANNOUNCED_UNDER.contains(name)) {
        let checked = move || "stops".parse::<Need>()?.unmet().map_or_else(rules, Err);
        add(format!("{name}::unannounced"), UNANNOUNCED, Box::new(checked));
    }
    let no_helper = || Ok(format!("default allow\nkill clone 0 SCMP_CMP_MASKED_EQ {0} {0}\n", libc::CLONE_VM));
    add("no_helper::unannounced".to_owned(), LEFT_UNANNOUNCED, Box::new(no_helper));
    for (name, rules) in named {
        for (kind, case) in [("startup", AT_STARTUP), ("thread", IN_A_THREAD), ("child", IN_A_CHILD)] {
            add(format!("{name}::{kind}"), case, Box::new(rules));
        }
    }
    for (name, case) in [
        ("confined", CONFINED),
        ("without_files", WITHOUT_FILES),
        ("trapped", TRAPPED),
        ("brokered", BROKERED),
        ("confined_child", CONFINED_CHILD),
    ] {
        add(format!("after_start::{name}"), case, Box::new(|| Ok("default allow\n".to_owned())));
    }
    let for_engine = Arc::clone(&jail);
    trials.push(Trial::ignorable_test("engine", move || for_engine.fills_the_store_in_a_container()));
    Ok(trials)
}

fn build(directory: &Path) -> Result<(), String> {
    let sources = library::checkout().join("tests/filters");
    let plug = |name: &'static str, function: &'static str| -> (&'static str, Vec<&'static str>) {
        (name, vec!["libplug.c", "-shared", "-fPIC", function])
    };
    let builds = [
        plug("libstartup.so", "-DNAME=startup"),
        plug("libone.so", "-DNAME=plugged"),
        plug("libtwo.so", "-DNAME=plugged"),
        ("libplain.so", vec!["libplug.c", "-shared", "-fPIC", "-DNAME=plugged", "-nostartfiles"]),
        ("host", vec!["host.c", "-L.", "-lstartup", "-Wl,-rpath,.", "-ldl", "-pthread"]),
        ("jail", vec!["jail.c", "-lseccomp"]),
    ];
    for (output, arguments) in builds {
        let mut command = Command::new("cc");
        command.current_dir(directory).args(["-O1", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-o", output]);
        command.arg(sources.join(arguments[0])).args(&arguments[1..]);
        let compiled = command.output().map_err(|error| format!("cc: {error}"))?;
        if !compiled.status.success() {
            return Err(String::from_utf8_lossy(&compiled.stderr).into_owned());
        }
    }
    Ok(())
}

impl Jail {
    /// Runs a case with and without the library, and with every kind of store.
    fn try_all(&self, label: &str, rules: &str, case: Case) -> Result<Completion, Failed> {
        let directory = self.scratch.join(label.replace("::", "-"));
        fs::create_dir(&directory)?;
        fs::write(directory.join("rules"), rules)?;
        let truncating = [case.words, &["truncate", "call"]].concat();
        let calling = [case.words, &["call"]].concat();
        let run = |name: &str, words: &[&str], settings: &[(&str, String)]| {
            self.run(&directory, name, words, settings).map_err(Failed::from)
        };
        expect(&run("natively", &calling, &[])?, PASSED, "without the library")?;
        expect(&run("control", &truncating, &[])?, case.control, "truncated without the library")?;
        let preload = || ("JAIL_PRELOAD", library::path().unwrap_or_default().display().to_string());
        let store = || ("SOPIN_STORE", directory.join("store").display().to_string());
        let words = if case.is_protected { &truncating } else { &calling };
        // There are two runs with a store, because the first may fill it.
        for (name, place) in [("off", ("SOPIN_STORE", "off".to_owned())), ("cold", store()), ("warm", store())] {
            let finished = run(name, words, &[preload(), place])?;
            expect(&finished, PASSED, name)?;
            if case.is_protected && finished.stderr.contains("libsopin") {
                return Err(format!("{name}: {finished}").into());
            }
        }
        Ok(Completion::Completed)
    }

    fn run(
        &self,
        directory: &Path,
        name: &str,
        words: &[&str],
        settings: &[(&str, String)],
    ) -> Result<process::Finished, String> {
        // The copies have the files' own times, so that they are settled.
        let place = directory.join(name);
        fs::create_dir(&place).map_err(|error| error.to_string())?;
        copy_with_times(&self.built, &place).map_err(|error| error.to_string())?;
        let mut command = Command::new(self.built.join("jail"));
        command.current_dir(&place).arg(directory.join("rules")).arg(self.built.join("host")).args(words);
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("SOPIN_") {
                command.env_remove(variable);
            }
        }
        command.env_remove("LD_PRELOAD").envs(settings.iter().map(|(name, value)| (*name, value)));
        process::run(&mut command, &directory.join(format!("{name}.log")), TIMEOUT).map_err(|error| error.to_string())
    }

    /// In the root of an engine of containers, the default profiles allow the store to
    /// be filled, as without a filter, because a child has found out which calls they
    /// allow.
    fn fills_the_store_in_a_container(&self) -> Result<Completion, Failed> {
        let needs = ["root", "stops", "filesystem:overlay", "header:seccomp.h", "links:-lseccomp"];
        if let Some(reason) = needs.iter().find_map(|need| need.parse::<Need>().ok()?.unmet()) {
            return Ok(Completion::ignored_with(reason));
        }
        let directory = self.scratch.join("engine");
        fs::create_dir(&directory)?;
        let [image, container] = ["1", "2"].map(|digit| format!("overlay2/{}", digit.repeat(64)));
        for part in [image + "/diff", format!("{container}/diff"), format!("{container}/work"), "merged".to_owned()] {
            fs::create_dir_all(directory.join(part))?;
        }
        for (name, kills, is_filled) in [("permitted", "swapon", true), ("refused", "linkat", false)] {
            fs::write(directory.join("rules"), profiles::killing([kills]))?;
            // The store is not on the overlay's lower layer itself, so its path shows
            // the same files.
            let store = directory.join(name).join("store");
            let settings = [
                ("JAIL_PRELOAD", library::path()?.display().to_string()),
                ("JAIL_ROOT", directory.display().to_string()),
                ("SOPIN_STORE", store.display().to_string()),
            ];
            let words = ["load", "./libone.so", "load", "./libplain.so", "truncate", "call"];
            expect(&self.run(&directory, name, &words, &settings)?, PASSED, name)?;
            let upper = directory
                .join(&container)
                .join("diff")
                .join(store.strip_prefix("/").map_err(|error| error.to_string())?);
            let files = |directory: &Path| fs::read_dir(directory).into_iter().flatten().flatten();
            let copies = files(&upper).flat_map(|entry| files(&entry.path())).filter(|entry| entry.path().is_file());
            if (copies.count() != 0) != is_filled {
                return Err(format!("{name}: {} is not as expected", upper.display()).into());
            }
        }
        Ok(Completion::Completed)
    }
}

fn expect(finished: &process::Finished, outcome: Outcome, what: &str) -> Result<(), Failed> {
    if finished.outcome == outcome { Ok(()) } else { Err(format!("{what}: {finished}, not {outcome}").into()) }
}

/// Copies libraries to new inodes with the modification times of the originals.
fn copy_with_times(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if target.extension().is_none() {
            continue;
        }
        fs::copy(entry.path(), &target)?;
        fs::File::open(&target)?.set_modified(entry.metadata()?.modified()?)?;
    }
    Ok(())
}

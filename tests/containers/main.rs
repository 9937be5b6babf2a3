//! Builds the images of `examples/docker` and runs the manifest of `examples/kubernetes`, as far
//! as a machine without Docker, without a cluster and without a registry can: the bases are made
//! of this machine's files ([`images`]), the instructions are carried out here ([`dockerfile`]),
//! and the containers run under runc, with Docker's seccomp profile ([`engine`], [`pods`]).
//!
//! Each application calls a plugin from a volume, and the plugin is rewritten in place: the
//! application lives on. Without `LD_PRELOAD` it dies.

#[path = "../common/mod.rs"]
mod common;

mod dockerfile;
mod engine;
mod images;
mod pods;
mod schema;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Arc, OnceLock};

use libtest_mimic::{Completion, Failed, Trial};

use common::dialogue::Dialogue;
use common::library::checkout;
use common::needs::Need;
use common::process::Outcome;
use common::rewrite::Rewrite;
use common::{protection, suite, toolchain};
use engine::{Container, Mount};
use images::{Image, Images};
use pods::{Deployment, Placed};

fn main() -> ExitCode {
    suite::run("containers", |run_directory| Ok(trials(run_directory)), || ())
}

/// An application's image: its name in trials, its Dockerfile, and the C library of its plugin.
struct Application {
    name: &'static str,
    file: &'static str,
    of_musl: bool,
}

const APPLICATIONS: [Application; 3] = [
    Application { name: "debian", file: "Dockerfile", of_musl: false },
    Application { name: "alpine", file: "alpine.Dockerfile", of_musl: true },
    Application { name: "distroless", file: "distroless.Dockerfile", of_musl: false },
];

/// Where the text of the plugin must be executed from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Text {
    /// The volume's file itself: the control.
    OfTheVolume,
    Store,
    PrivateMemory,
}

type Try = fn(&Images, &'static Application, &Path) -> Result<(), String>;

fn trials(run_directory: &Path) -> Vec<Trial> {
    let images = Arc::new(OnceLock::<Result<Images, String>>::new());
    let all: [(&str, Try); 6] = [
        ("docker", in_docker),
        ("kubernetes", in_a_pod),
        ("kubernetes::without_a_store", without_a_store),
        ("kubernetes::volume_itself", with_the_volume_itself),
        ("kubernetes::another_group", in_another_group),
        ("kubernetes::user_namespace", in_a_user_namespace),
    ];
    let mut trials = Vec::new();
    for (name, try_it) in all {
        for application in &APPLICATIONS {
            // What is special about these does not depend on the image.
            if name.contains("::") && application.name != "distroless" {
                continue;
            }
            let (images, run_directory) = (Arc::clone(&images), run_directory.to_owned());
            let trial_name =
                if name.contains("::") { name.to_owned() } else { format!("{name}::{}", application.name) };
            trials.push(Trial::ignorable_test(trial_name.clone(), move || {
                if let Some(reason) = unmet(application) {
                    return Ok(Completion::ignored_with(reason));
                }
                let images = images.get_or_init(|| make_images(&run_directory)).as_ref().map_err(Failed::from)?;
                let directory = run_directory.join(trial_name.replace("::", "."));
                fs::create_dir_all(&directory)?;
                let tried = try_it(images, application, &directory);
                tried.map_err(|error| format!("{error}\nin {}", directory.display()))?;
                Ok(Completion::Completed)
            }));
        }
    }
    trials.push(Trial::ignorable_test("kubernetes::schema", || schema::holds().map_err(Failed::from)));
    trials
}

fn unmet(application: &Application) -> Option<String> {
    let all = ["root", "namespaces", "cmd:chroot", "cmd:runc", "filesystem:overlay"];
    let unmet = all.iter().find_map(|word| word.parse::<Need>().map_or_else(Some, |need| need.unmet()));
    let files =
        [(dist().join("sopin"), "scripts/dist-binaries"), (engine::profile_file(), "scripts/test-environments")];
    unmet
        .or_else(|| {
            let missing = files.iter().find(|(file, _)| !file.exists());
            missing.map(|(file, script)| format!("no {} ({script})", file.display()))
        })
        .or_else(|| if application.of_musl { toolchain::CLibrary::Musl.unmet() } else { None })
        .or_else(|| {
            let has_python = Path::new("/usr/bin/python3").exists() || application.name != "debian";
            (!has_python).then(|| "no /usr/bin/python3".to_owned())
        })
}

fn dist() -> PathBuf {
    checkout().join("target/dist").join(std::env::consts::ARCH)
}

/// Makes the bases, the plugins, and the image of the command, in which there are two files.
fn make_images(run_directory: &Path) -> Result<Images, String> {
    let images = Images::make(&run_directory.join("images"))?;
    let recipe = checkout().join("packaging/containers/Dockerfile");
    let image = dockerfile::build(&images, "sopin", &recipe, &checkout().join("target/dist"), |_| true)?;
    let [layer] = image.layers.as_slice() else { return Err("the image of the command has not one layer".to_owned()) };
    let entries = fs::read_dir(images.layer(layer)).map_err(|error| error.to_string())?;
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    if names != ["libsopin.so", "sopin"] || image.entry_point != ["/sopin"] {
        return Err(format!("the image of the command has {names:?} and starts {:?}", image.entry_point));
    }
    for application in &APPLICATIONS {
        if application.of_musl && toolchain::CLibrary::Musl.unmet().is_some() {
            continue;
        }
        compile_plugin(run_directory, application)?;
    }
    // Files that are younger are not shared.
    std::thread::sleep(protection::SETTLING_TIME);
    Ok(images)
}

fn plugin_of(run_directory: &Path, application: &Application) -> PathBuf {
    run_directory.join(if application.of_musl { "plugin-musl.so" } else { "plugin.so" })
}

fn compile_plugin(run_directory: &Path, application: &Application) -> Result<(), String> {
    let compiler = if application.of_musl { "musl-gcc" } else { "cc" };
    let mut command = Command::new(compiler);
    command.args(["-O2", "-shared", "-fPIC", "-o"]).arg(plugin_of(run_directory, application));
    let output = command.arg(checkout().join("examples/c/plugin.c")).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Err(format!("{compiler}: {error}")),
    }
}

/// Makes the directory of the volume with the plugin. Every user may read it.
fn volume_with_plugin(application: &Application, directory: &Path) -> Result<PathBuf, String> {
    let volume = directory.join("plugins");
    let plugin = plugin_of(directory.parent().unwrap_or(directory), application);
    let mut command = Command::new("install");
    command.args(["-D", "-p", "-m", "755"]).arg(plugin).arg(volume.join("plugin.so"));
    let installed = command.status().is_ok_and(|status| status.success());
    if installed { Ok(volume) } else { Err("install has failed".to_owned()) }
}

/// Builds an application's image. `keep` says which lines of its Dockerfile are carried out.
fn build(images: &Images, application: &Application, name: &str, keep: fn(&str) -> bool) -> Result<Image, String> {
    let context = images::examples();
    dockerfile::build(images, &format!("{name}-{}", application.name), &context.join(application.file), &context, keep)
}

/// Rewrites the plugin under the application, which must live, or, as a control, die.
fn judge(mut app: Dialogue, plugin: &Path, text: Text) -> Result<(), String> {
    app.wait_for("ready", 1)?;
    app.say("call");
    app.wait_for("42", 1)?;
    let executed = executed_by_the_last_descendant(app.id())?;
    let is_of_volume = |path: &&String| path.as_str() == "/plugins/plugin.so";
    let has_private = executed.iter().any(|path| path.starts_with("/memfd:"));
    let in_store = |path: &&String| path.starts_with("/var/cache/sopin/") && path.ends_with("/plugin.so");
    let is_right = match text {
        Text::OfTheVolume => executed.iter().any(|path| is_of_volume(&path)),
        Text::Store => executed.iter().any(|path| in_store(&path)) && !has_private,
        Text::PrivateMemory => has_private && !executed.iter().any(|path| in_store(&path)),
    };
    if !is_right || text != Text::OfTheVolume && executed.iter().any(|path| is_of_volume(&path)) {
        return Err(format!("it executes {executed:#?}"));
    }
    Rewrite::SameBytes.apply(plugin).map_err(|error| error.to_string())?;
    app.say("call");
    if text == Text::OfTheVolume {
        let finished = app.finish()?;
        // runc reports a signal as a shell does.
        let has_died = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL].map(|signal| Outcome::Exit(128 + signal));
        return if has_died.contains(&finished.outcome) { Ok(()) } else { Err(finished.to_string()) };
    }
    app.wait_for("42", 2)?;
    Rewrite::Empty.apply(plugin).map_err(|error| error.to_string())?;
    app.say("call");
    app.wait_for("42", 3)?;
    let finished = app.finish()?;
    let is_right = finished.outcome == Outcome::Exit(0) && !finished.stderr.contains("sopin");
    if is_right { Ok(()) } else { Err(finished.to_string()) }
}

/// Returns the files from which the process executes that was started last of those below `process`.
fn executed_by_the_last_descendant(process: u32) -> Result<Vec<String>, String> {
    let mut last = process;
    loop {
        let children = fs::read_dir(format!("/proc/{last}/task")).into_iter().flatten().flatten().find_map(|task| {
            let text = fs::read_to_string(task.path().join("children")).ok()?;
            text.split_whitespace().next_back()?.parse::<u32>().ok()
        });
        match children {
            Some(child) => last = child,
            None => break,
        }
    }
    let maps = fs::read_to_string(format!("/proc/{last}/maps")).map_err(|error| format!("{last}: {error}"))?;
    // The library's witnesses are above the stack.
    let below_stack = maps.lines().take_while(|line| !line.ends_with("[stack]"));
    let executable = below_stack.filter(|line| line.split(' ').nth(1) == Some("r-xp"));
    Ok(executable.filter_map(|line| line.find('/').map(|at| line[at..].to_owned())).collect())
}

/// Runs the image as `docker run -i -v .../plugins:/plugins` does.
fn in_docker(images: &Images, application: &'static Application, directory: &Path) -> Result<(), String> {
    let image = build(images, application, "docker", |_| true)?;
    for (name, text) in [("protected", Text::Store), ("control", Text::OfTheVolume)] {
        let volume = volume_with_plugin(application, &make(&directory.join(name), directory)?)?;
        let mut container = Container::of(image.clone());
        if text == Text::OfTheVolume {
            container.image.environment.retain(|(name, _)| name != "LD_PRELOAD");
        }
        container.mounts.push(Mount { from: volume.clone(), to: "/plugins".to_owned(), is_read_only: false });
        let app = container.start(images, &directory.join(name).join("container"))?;
        judge(app, &volume.join("plugin.so"), text).map_err(|wrong| format!("{name}: {wrong}"))?;
    }
    Ok(())
}

/// Makes a directory that finds the plugins of the run's directory beside it.
fn make(directory: &Path, trial: &Path) -> Result<PathBuf, String> {
    fs::create_dir_all(directory).map_err(|error| error.to_string())?;
    let run_directory = trial.parent().unwrap_or(trial);
    for name in ["plugin.so", "plugin-musl.so"] {
        if run_directory.join(name).exists() && !trial.join(name).exists() {
            fs::hard_link(run_directory.join(name), trial.join(name)).map_err(|error| error.to_string())?;
        }
    }
    Ok(directory.to_owned())
}

/// The lines of a Dockerfile that do not concern the library: in a pod, the image has none.
fn without_sopin(line: &str) -> bool {
    !["sopin", "LD_PRELOAD", "/var/cache"].iter().any(|word| line.contains(word))
}

/// Runs a manifest in which `change` was made, with an image that knows nothing of the library.
fn place(
    images: &Images,
    application: &Application,
    directory: &Path,
    text: Text,
    change: fn(&mut Deployment),
) -> Result<(), String> {
    let manifest = fs::read_to_string(schema::manifest()).map_err(|error| error.to_string())?;
    let mut deployment = Deployment::parse(&manifest)?;
    change(&mut deployment);
    // Layers have names of their own, because trials run at the same time.
    let names: Vec<_> = directory.iter().rev().take(2).map(|name| name.to_string_lossy()).collect();
    let image = build(images, application, &names.join("-"), without_sopin)?;
    let volume = volume_with_plugin(application, directory)?;
    let pod = Placed::new(deployment.pod(), images, &make(&directory.join("pod"), directory)?, &volume)?;
    pod.initialise("")?;
    let app = pod.start_container(image)?;
    judge(app, &volume.join("plugin.so"), text)?;
    // A pod whose sandbox is made anew runs its init containers again, over the same volume.
    pod.initialise("-again")
}

fn in_a_pod(images: &Images, application: &'static Application, directory: &Path) -> Result<(), String> {
    let in_part = |part: &str| make(&directory.join(part), directory);
    place(images, application, &in_part("protected")?, Text::Store, |_| ())?;
    place(images, application, &in_part("control")?, Text::OfTheVolume, |deployment| {
        deployment.pod_mut().containers[0].env.retain(|variable| variable.name != "LD_PRELOAD");
    })
    .map_err(|wrong| format!("control: {wrong}"))
}

/// A read-only root and no HOME: the copies are private memory.
fn without_a_store(images: &Images, application: &'static Application, directory: &Path) -> Result<(), String> {
    place(images, application, &make(&directory.join("part"), directory)?, Text::PrivateMemory, |deployment| {
        let container = &mut deployment.pod_mut().containers[0];
        container.env.retain(|variable| variable.name != "SOPIN_STORE");
        container.volume_mounts.retain(|mount| mount.mount_path != "/var/cache/sopin");
    })
}

/// The directory of an emptyDir is everybody's, so it is not used as a store.
fn with_the_volume_itself(images: &Images, application: &'static Application, directory: &Path) -> Result<(), String> {
    place(images, application, &make(&directory.join("part"), directory)?, Text::PrivateMemory, |deployment| {
        for mount in &mut deployment.pod_mut().containers[0].volume_mounts {
            if mount.mount_path == "/var/cache/sopin" {
                mount.sub_path = None;
            }
        }
    })
}

/// The image has the user with another group, so the process has not the rights of that user.
fn in_another_group(images: &Images, application: &'static Application, directory: &Path) -> Result<(), String> {
    place(images, application, &make(&directory.join("part"), directory)?, Text::PrivateMemory, |deployment| {
        deployment.pod_mut().security_context.run_as_group = 0;
    })
}

/// `hostUsers: false`. The store's owner is a user of the namespace.
fn in_a_user_namespace(images: &Images, application: &'static Application, directory: &Path) -> Result<(), String> {
    place(images, application, &make(&directory.join("part"), directory)?, Text::Store, |deployment| {
        deployment.pod_mut().host_users = false;
    })
}

//! Runs the instructions of the Dockerfile's last stage without Docker, in a directory
//! that is the root of a mount namespace. Instead of the image named by FROM, it uses
//! this machine's own C library and Python, mounted read-only. The first stage is `make
//! install`, for which the staged tree is used. Only a machine with Docker can show
//! whether the image builds.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use libtest_mimic::Completion;

use super::deployments::{conclude, example, run, unmet};
use super::stage::Stage;
use crate::common::library::checkout;
use crate::common::process::Outcome;

/// The last stage of a Dockerfile.
#[derive(Default)]
struct LastStage {
    /// The words of `COPY --from`: source and target.
    from_stage: Vec<(String, String)>,
    /// The words of the other `COPY`.
    copies: Vec<(String, String)>,
    /// `RUN`, in the shell form.
    commands: Vec<String>,
    /// `ENV NAME=VALUE`.
    environment: Vec<(String, String)>,
    directory: String,
    user: String,
    /// `ENTRYPOINT`, in the exec form.
    entry_point: Vec<String>,
}

impl LastStage {
    fn parse(text: &str) -> Result<Self, String> {
        let mut stage = Self { directory: "/".to_owned(), user: "0".to_owned(), ..Self::default() };
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (instruction, rest) = line.split_once(' ').ok_or_else(|| format!("{line:?} is no instruction"))?;
            let two = || rest.rsplit_once(' ').map(|(from, to)| (from.to_owned(), to.to_owned())).ok_or(line);
            match instruction {
                "FROM" => stage = Self::parse("")?,
                "COPY" => match rest.strip_prefix("--from=sopin ").and_then(|words| words.split_once(' ')) {
                    Some((from, to)) => stage.from_stage.push((from.to_owned(), to.to_owned())),
                    None => stage.copies.push(two()?),
                },
                "RUN" => stage.commands.push(rest.to_owned()),
                "ENV" => {
                    let (name, value) = rest.split_once('=').ok_or(line)?;
                    stage.environment.push((name.to_owned(), value.to_owned()));
                }
                "WORKDIR" => rest.clone_into(&mut stage.directory),
                "USER" => rest.clone_into(&mut stage.user),
                "ENTRYPOINT" => stage.entry_point = serde_json::from_str(rest).map_err(|error| error.to_string())?,
                _ => return Err(format!("{instruction} is not done here")),
            }
        }
        Ok(stage)
    }
}

/// Returns a script that runs the stage's instructions and its entry point, and ends
/// that once it has printed a line.
fn script(stage: &LastStage, staged: &Path, root: &Path, without: Option<&str>) -> Result<String, String> {
    let mut script = format!("set -eu\nroot='{}'\n", root.display());
    script += "mkdir -p \"$root/proc\" \"$root/dev\" \"$root/etc\" \"$root/tmp\" \"$root/var/cache\"\n";
    script += "for name in usr bin lib lib64 sbin; do\n    [ -e /$name ] || continue\n    mkdir -p \"$root/$name\"\n";
    script += "    mount --bind /$name \"$root/$name\"\n    mount -o remount,bind,ro \"$root/$name\"\ndone\n";
    script += "mount -t proc proc \"$root/proc\"\nmount --bind /dev \"$root/dev\"\n";
    let [(from, to)] = stage.from_stage.as_slice() else { return Err("not exactly one COPY --from".to_owned()) };
    if (from.as_str(), to.as_str()) != ("/stage/", "/") {
        return Err(format!("COPY --from {from} {to}"));
    }
    // All of it is below /usr/local, which replaces the machine's own.
    let _ = writeln!(script, "mount --bind '{}/usr/local' \"$root/usr/local\"", staged.display());
    for (from, to) in &stage.copies {
        let from = checkout().join(from);
        let _ = writeln!(script, "install -D -m 644 '{}' \"$root{to}\"", from.display());
    }
    for command in &stage.commands {
        let _ = writeln!(script, "chroot \"$root\" sh -c '{command}'");
    }
    let mut start = String::from("env -i PATH=/usr/bin:/bin");
    for (name, value) in stage.environment.iter().filter(|(name, _)| Some(name.as_str()) != without) {
        let _ = write!(start, " {name}={value}");
    }
    // env would be protected too if it ran in the new root; only the program is to be
    // protected.
    let _ = write!(start, " {}", stage.entry_point.join(" "));
    let (user, group) = stage.user.split_once(':').unwrap_or((&stage.user, "0"));
    let _ = writeln!(script, "mkfifo \"$root/tmp/said\"");
    let _ = writeln!(
        script,
        "chroot --userspec={user}:{group} \"$root\" sh -c 'cd {} && exec {start}' > \"$root/tmp/said\" &",
        stage.directory
    );
    script += "read -r line < \"$root/tmp/said\" || line='printed nothing'\nprintf '%s\\n' \"$line\"\n";
    script += "ls \"$root/var/cache/sopin\" | wc -l\nkill -TERM $! 2>/dev/null || true\nwait $!\n";
    Ok(script)
}

fn enter(stage: &Stage, directory: &Path, without: Option<&str>) -> Result<Result<(i32, String), String>, String> {
    if let Some(reason) = unmet(&["root", "cmd:unshare", "cmd:chroot"]) {
        return Ok(Err(reason));
    }
    if !Path::new("/usr/bin/python3").exists() {
        return Ok(Err("no /usr/bin/python3".to_owned()));
    }
    let text = fs::read_to_string(example("docker/Dockerfile")).map_err(|error| error.to_string())?;
    let last = LastStage::parse(&text)?;
    // The root is not below the checkout, to which the image's user may not have
    // access.
    let root = tempfile::tempdir().map_err(|error| error.to_string())?;
    std::os::unix::fs::chown(root.path(), Some(0), Some(0)).map_err(|error| error.to_string())?;
    fs::set_permissions(root.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .map_err(|error| error.to_string())?;
    let script = script(&last, stage.root()?, root.path(), without)?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", &script]);
    let finished = run(&mut command, directory, "container")?;
    match finished.outcome {
        Outcome::Exit(code) => Ok(Ok((code, format!("{}{}", finished.stdout, finished.stderr)))),
        _ => conclude(false, &finished).map(|_| Err(String::new())),
    }
}

pub fn entry_point(stage: &Stage, directory: &Path) -> Result<Completion, String> {
    match enter(stage, directory, None)? {
        Err(reason) => Ok(Completion::ignored_with(reason)),
        // Copies of files that are old enough are in the store that ENV names.
        Ok((0, said)) if said.starts_with("protected: Success\n") && !said.contains("\n0\n") => {
            Ok(Completion::Completed)
        }
        Ok((code, said)) => Err(format!("exit:{code}\n{said}")),
    }
}

pub fn without_the_variable(stage: &Stage, directory: &Path) -> Result<Completion, String> {
    match enter(stage, directory, Some("LD_PRELOAD"))? {
        Err(reason) => Ok(Completion::ignored_with(reason)),
        Ok((1, said)) if said.contains("not protected") => Ok(Completion::Completed),
        Ok((code, said)) => Err(format!("exit:{code}\n{said}")),
    }
}

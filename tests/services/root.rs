//! A root directory in which a manager of services runs: an overlay over this machine's root, so
//! that every program of the machine is in it and nothing that is written stays. The service's
//! directory and `/var/cache` are on this machine's file system, as they are outside of a
//! container.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::common::dialogue::Dialogue;
use crate::common::library;
use crate::common::process::Finished;

/// The user of the service, who is not in this machine's `/etc/passwd`.
pub const USER: u32 = 4711;
const TIMEOUT: Duration = Duration::from_secs(150);

/// What every script begins with: the mounts, and a function that asks the service.
const PRELUDE: &str = r#"set -eu
top=$1 cgroup=$2
root=$top/root run=$top/shop/run
mount -t overlay overlay -o "lowerdir=/,upperdir=$top/upper,workdir=$top/work" "$root"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mkdir -p "$root/srv/shop"
mount --bind "$top/shop" "$root/srv/shop"
mount --bind "$top/cache" "$root/var/cache"

# ask NAME SECONDS: prints the answer of the service: process, result, user; or "none".
ask() {
    printf '%s: ' "$1"
    timeout "$2" sh -c 'echo now >"$1/ask"; exec head -n 1 "$1/answer"' sh "$run" || echo none
}

# judge: asks before the plugin is rewritten in place, and after it, and shows what is executed.
judge() {
    ask before 90 >"$top/before"
    cat "$top/before"
    read -r _ process _ <"$top/before"
    cp "$top/plugin.so" "$top/shop/plugin.so"
    # What of the files that are mapped is executed. The library's witnesses are above the stack.
    # systemd's processes have numbers of their own, too.
    for status in $(grep -l "^NSpid:.*[[:space:]]$process\$" "$root"/proc/[0-9]*/status 2>/dev/null); do
        if grep -q '^Name:[[:space:]]service$' "$status"; then
            sed -n -e '/\[stack\]$/q' -e "s#^[^ ]* r-xp [^/]*\(/.*\)#\1#" -e "s#^$root##" -e 's#^/#executes: /#p' \
                "${status%status}maps"
            tr '\0' '\n' <"${status%status}environ" | sed 's/^/environment: /'
        fi
    done
    ask after 5 >"$top/after"
    cat "$top/after"
    grep -q none "$top/after" || ask again 5
}
"#;

/// The directory of one root, before it is mounted.
pub struct Root {
    top: PathBuf,
}

impl Root {
    /// Makes the directory of a root, with the library, the command, the service and, if so, its
    /// user.
    ///
    /// # Errors
    /// Those of the file system, and no library.
    pub fn make(top: &Path, programs: &Path, has_user: bool) -> Result<Self, String> {
        let root = Self { top: top.to_owned() };
        for directory in ["upper", "work", "root", "cache/shop", "shop/run"] {
            fs::create_dir_all(top.join(directory)).map_err(|error| format!("{directory}: {error}"))?;
        }
        let owned = [top.join("cache/shop"), top.join("shop/run")];
        for (directory, mode) in owned.iter().zip([0o700, 0o755]) {
            own(directory, mode)?;
        }
        for name in ["ask", "answer"] {
            let fifo = top.join("shop/run").join(name);
            mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).map_err(|error| error.to_string())?;
            // A dynamic user of systemd is another one.
            own(&fifo, 0o666)?;
        }
        root.install(&library::path()?, "usr/local/lib/libsopin.so")?;
        root.install(&library::checkout().join("target/release/sopin"), "usr/local/bin/sopin")?;
        for name in ["service", "plugin.so"] {
            copy(&programs.join(name), &top.join("shop").join(name))?;
        }
        copy(&programs.join("plugin.so"), &top.join("plugin.so"))?;
        if has_user {
            root.add_user()?;
        }
        Ok(root)
    }

    /// Returns the name of the cgroup that a manager may make for itself.
    fn cgroup(&self) -> String {
        let names: Vec<_> = self.top.iter().rev().take(3).map(|name| name.to_string_lossy()).collect();
        format!("sopin-services-{}", names.join("-"))
    }

    /// Removes this cgroup and all below it, in which there are no processes any more.
    pub fn remove_cgroups(&self) {
        let pattern = format!("*/{}*", self.cgroup());
        let mut command = Command::new("find");
        command.args(["/sys/fs/cgroup", "-depth", "-type", "d", "-path", &pattern, "-exec", "rmdir", "{}", ";"]);
        // One that was not made is no error.
        let _ = command.output();
    }

    fn add_user(&self) -> Result<(), String> {
        for (file, line, mode) in [
            ("etc/passwd", format!("shop:x:{USER}:{USER}::/nonexistent:/bin/sh"), 0o644),
            ("etc/group", format!("shop:x:{USER}:"), 0o644),
            // cron asks PAM whether the account has expired.
            ("etc/shadow", "shop:*:19000:0:99999:7:::".to_owned(), 0o640),
        ] {
            let before = fs::read_to_string(Path::new("/").join(file)).map_err(|error| format!("{file}: {error}"))?;
            self.write(file, &format!("{before}{line}\n"), mode)?;
        }
        Ok(())
    }

    /// Writes a file of the root.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, file: &str, text: &str, mode: u32) -> Result<(), String> {
        let path = self.top.join("upper").join(file);
        let error = |error| format!("{}: {error}", path.display());
        fs::create_dir_all(path.parent().unwrap_or(&path)).map_err(error)?;
        fs::write(&path, text).map_err(error)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(error)
    }

    fn install(&self, from: &Path, file: &str) -> Result<(), String> {
        self.write(file, "", 0o755)?;
        copy(from, &self.top.join("upper").join(file))
    }

    /// Runs the manager and judges the service, in namespaces that end with the script.
    ///
    /// # Errors
    /// The script cannot be started.
    pub fn run(&self, script: &str) -> Result<Dialogue, String> {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--ipc", "--uts", "sh", "-c"]);
        command.arg(format!("{PRELUDE}{script}")).arg("sh").arg(&self.top).arg(self.cgroup());
        // A manager passes on what it has got itself.
        command.env_clear().env("HOME", "/root");
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        Dialogue::start(&mut command, &self.top.join("log"), TIMEOUT).map_err(|error| error.to_string())
    }
}

/// What a script has printed.
#[derive(Debug)]
pub struct Judged {
    finished: Finished,
}

impl Judged {
    pub fn new(finished: Finished) -> Self {
        Self { finished }
    }

    /// Returns the answer of this name: process, result and user; `None` if the service gave none.
    pub fn answer(&self, name: &str) -> Option<[u32; 3]> {
        let line = self.finished.stdout.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))?;
        let mut numbers = line.split(' ').map(|word| word.parse().ok());
        Some([numbers.next()??, numbers.next()??, numbers.next()??])
    }

    /// Returns the paths from which the service has executed.
    pub fn executed(&self) -> Vec<&str> {
        self.finished.stdout.lines().filter_map(|line| line.strip_prefix("executes: ")).collect()
    }

    /// Returns a variable of the service's environment.
    pub fn variable(&self, name: &str) -> Option<&str> {
        let lines = self.finished.stdout.lines().filter_map(|line| line.strip_prefix("environment: "));
        lines.filter_map(|line| line.split_once('=')).find_map(|(found, value)| (found == name).then_some(value))
    }
}

impl std::fmt::Display for Judged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.finished.fmt(f)
    }
}

fn own(path: &Path, mode: u32) -> Result<(), String> {
    chown(path, Some(USER), Some(USER))
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        .map_err(|error| format!("{}: {error}", path.display()))
}

/// Copies a file in another process, so that no child of this one has it open for writing.
fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let copied = Command::new("install").args(["-m", "755", "-p"]).arg(from).arg(to).status();
    if copied.is_ok_and(|status| status.success()) { Ok(()) } else { Err(format!("install {}", from.display())) }
}

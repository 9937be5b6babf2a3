//! Runs a container as an engine does: it mounts the layers of the image, writes the configuration
//! of the Open Container Initiative, and has runc do the rest. runc is the runtime below Docker,
//! containerd and so most Kubernetes nodes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::dockerfile::machine_name;
use super::images::{Image, Images};
use crate::common::dialogue::Dialogue;
use crate::common::library::checkout;

const TIMEOUT: Duration = Duration::from_secs(100);

/// Docker's capabilities of a container for which nothing is said.
const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// A mount of a directory or file of this machine.
#[derive(Clone)]
pub struct Mount {
    pub from: PathBuf,
    pub to: String,
    pub is_read_only: bool,
}

/// What an engine is told.
#[derive(Clone)]
pub struct Container {
    pub image: Image,
    pub mounts: Vec<Mount>,
    /// Other groups of the process.
    pub groups: Vec<u32>,
    pub has_read_only_root: bool,
    pub may_gain_privileges: bool,
    /// The capabilities that a program may get at all.
    pub bounding: &'static [&'static str],
    /// Its users are those of a namespace, in which there are not all of this machine's.
    pub has_user_namespace: bool,
}

impl Container {
    /// Returns a container of the image as `docker run` makes it.
    pub fn of(image: Image) -> Self {
        Self {
            image,
            mounts: Vec::new(),
            groups: Vec::new(),
            has_read_only_root: false,
            may_gain_privileges: true,
            bounding: &CAPABILITIES,
            has_user_namespace: false,
        }
    }

    /// Starts it. `directory` is the bundle, which no other container may have.
    ///
    /// # Errors
    /// Those of the file system, and no profile of Docker.
    pub fn start(&self, images: &Images, directory: &Path) -> Result<Dialogue, String> {
        for part in ["rootfs", "upper", "work", "state"] {
            fs::create_dir_all(directory.join(part)).map_err(|error| error.to_string())?;
        }
        // An engine makes the upper layer's root so, and other users enter it.
        let permissions = fs::Permissions::from_mode(0o755);
        fs::set_permissions(directory.join("upper"), permissions).map_err(|error| error.to_string())?;
        fs::write(directory.join("config.json"), self.configuration()?.to_string())
            .map_err(|error| error.to_string())?;
        let show = directory.display();
        let script = format!(
            "set -eu\nmount -t proc proc /proc\n{}\
             mount -t overlay overlay -o 'lowerdir={},upperdir={show}/upper,workdir={show}/work' '{show}/rootfs'\n\
             runc --root '{show}/state' --log '{show}/runc' run --bundle '{show}' \"sopin-$1\"\n",
            images.show_machine(),
            images.lower(&self.image),
        );
        let name = directory.strip_prefix(checkout()).unwrap_or(directory).display().to_string().replace('/', "-");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", &script, "sh", &name]);
        Dialogue::start(&mut command, &directory.join("log"), TIMEOUT).map_err(|error| error.to_string())
    }

    fn configuration(&self) -> Result<Value, String> {
        let image = &self.image;
        let path = ("PATH".to_owned(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
        let environment: Vec<_> =
            [&path].into_iter().chain(&image.environment).map(|(name, value)| format!("{name}={value}")).collect();
        let mut mounts = vec![
            json!({"destination": "/proc", "type": "proc", "source": "proc"}),
            json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                   "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]}),
            json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
                   "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]}),
        ];
        mounts.extend(self.mounts.iter().map(|mount| {
            let access = if mount.is_read_only { "ro" } else { "rw" };
            json!({"destination": mount.to, "type": "bind", "source": mount.from, "options": ["rbind", "rprivate", access]})
        }));
        let mut kinds = vec!["pid", "network", "ipc", "uts", "mount"];
        let mut mappings = vec![];
        if self.has_user_namespace {
            kinds.push("user");
            // The files of the layers belong to these users here, too, as they do with idmapped mounts.
            mappings.push(json!({"containerID": 0, "hostID": 0, "size": 0xffff}));
        }
        let namespaces: Vec<_> = kinds.into_iter().map(|kind| json!({"type": kind})).collect();
        Ok(json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false,
                "user": {"uid": image.user.0, "gid": image.user.1, "additionalGids": self.groups},
                "args": image.entry_point,
                "env": environment,
                "cwd": image.directory,
                "capabilities": {"bounding": self.bounding, "effective": [], "permitted": [], "inheritable": []},
                "noNewPrivileges": !self.may_gain_privileges,
            },
            "root": {"path": "rootfs", "readonly": self.has_read_only_root},
            "hostname": "shop",
            "mounts": mounts,
            "linux": {
                "namespaces": namespaces,
                "uidMappings": mappings,
                "gidMappings": mappings,
                "seccomp": default_profile()?,
                "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
                "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
            },
        }))
    }
}

/// A profile as Docker writes it: its rules have conditions, which an engine resolves.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    syscalls: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Value>,
    #[serde(default)]
    includes: Condition,
}

#[derive(Default, Deserialize)]
struct Condition {
    #[serde(default)]
    caps: Vec<String>,
    #[serde(default)]
    arches: Vec<String>,
}

pub fn profile_file() -> PathBuf {
    checkout().join("target/test-profiles/docker.json")
}

/// Returns Docker's default profile for a process without capabilities; `RuntimeDefault` of
/// Kubernetes is much the same.
fn default_profile() -> Result<Value, String> {
    let file = profile_file();
    let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let profile: Profile = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    let applies = |rule: &&Rule| {
        let arches = &rule.includes.arches;
        rule.includes.caps.is_empty() && (arches.is_empty() || arches.iter().any(|arch| arch == machine_name()))
    };
    let rules: Vec<_> = profile
        .syscalls
        .iter()
        .filter(applies)
        .map(|rule| {
            let mut resolved = json!({"names": rule.names, "action": rule.action});
            if let Some(number) = rule.errno_ret {
                resolved["errnoRet"] = number.into();
            }
            if let Some(args) = rule.args.as_ref().filter(|args| !args.is_null()) {
                resolved["args"] = args.clone();
            }
            resolved
        })
        .collect();
    Ok(json!({
        "defaultAction": profile.default_action,
        "defaultErrnoRet": profile.default_errno_ret.unwrap_or(libc::EPERM.cast_unsigned()),
        "syscalls": rules,
    }))
}

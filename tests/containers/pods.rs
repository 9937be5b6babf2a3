//! Does with a manifest what a node of Kubernetes does: makes the volumes, runs the init containers
//! one after the other, and starts the container. Every name in the manifest must be known here
//! (`deny_unknown_fields`), so a trial cannot pass over a line.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::engine::{Container, Mount};
use super::images::{Image, Images};
use crate::common::dialogue::Dialogue;
use crate::common::process::Outcome;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Deployment {
    pub api_version: String,
    pub kind: String,
    metadata: Metadata,
    spec: DeploymentSpec,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    name: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct DeploymentSpec {
    selector: Selector,
    template: Template,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Selector {
    match_labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Template {
    metadata: Metadata,
    spec: Pod,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Pod {
    automount_service_account_token: bool,
    /// Whether the users of the pod are the node's own; if not, they are those of a namespace.
    #[serde(default = "yes")]
    pub host_users: bool,
    pub security_context: PodSecurity,
    init_containers: Vec<Described>,
    pub containers: Vec<Described>,
    volumes: Vec<Volume>,
}

const fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PodSecurity {
    run_as_non_root: bool,
    run_as_user: u32,
    pub run_as_group: u32,
    fs_group: u32,
    seccomp_profile: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Described {
    name: String,
    image: String,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    stdin: bool,
    #[serde(default)]
    pub env: Vec<Variable>,
    security_context: Security,
    #[serde(default)]
    pub volume_mounts: Vec<VolumeMount>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variable {
    pub name: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Security {
    allow_privilege_escalation: bool,
    read_only_root_filesystem: bool,
    capabilities: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct VolumeMount {
    name: String,
    pub mount_path: String,
    pub sub_path: Option<String>,
    #[serde(default)]
    read_only: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Volume {
    name: String,
    empty_dir: Option<BTreeMap<String, String>>,
    persistent_volume_claim: Option<BTreeMap<String, String>>,
}

impl Deployment {
    /// Reads a manifest.
    ///
    /// # Errors
    /// It has a name that is not known here, or does not fit together.
    pub fn parse(text: &str) -> Result<Self, String> {
        let read: Self = serde_yaml_ng::from_str(text).map_err(|error| error.to_string())?;
        let labels = &read.spec.template.metadata.labels;
        let pod = read.pod();
        let fits = read.api_version == "apps/v1"
            && read.kind == "Deployment"
            && read.metadata.name.is_some()
            && read.spec.selector.match_labels.iter().all(|(name, value)| labels.get(name) == Some(value))
            && pod.security_context.run_as_non_root
            && pod.security_context.run_as_user != 0
            && pod.security_context.seccomp_profile.get("type").is_some_and(|kind| kind == "RuntimeDefault")
            && !pod.automount_service_account_token
            && pod.containers.len() == 1
            && pod.containers[0].stdin;
        if fits { Ok(read) } else { Err("the manifest does not say what is tried here".to_owned()) }
    }

    pub fn pod(&self) -> &Pod {
        &self.spec.template.spec
    }

    pub fn pod_mut(&mut self) -> &mut Pod {
        &mut self.spec.template.spec
    }
}

/// A pod on this node.
pub struct Placed<'a> {
    pod: &'a Pod,
    images: &'a Images,
    /// Where volumes and containers are.
    directory: PathBuf,
    /// The directory of the persistent volume.
    claimed: PathBuf,
}

impl<'a> Placed<'a> {
    /// Makes the volumes as the kubelet makes them: mode 0777, and with `fsGroup` that group and
    /// the set-group-id bit.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn new(pod: &'a Pod, images: &'a Images, directory: &Path, claimed: &Path) -> Result<Self, String> {
        for volume in pod.volumes.iter().filter(|volume| volume.empty_dir.is_some()) {
            let path = directory.join(&volume.name);
            let permissions = fs::Permissions::from_mode(0o2777);
            fs::create_dir_all(&path)
                .and_then(|()| chown(&path, Some(0), Some(pod.security_context.fs_group)))
                .and_then(|()| fs::set_permissions(&path, permissions))
                .map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(Self { pod, images, directory: directory.to_owned(), claimed: claimed.to_owned() })
    }

    /// Returns the directory of a volume.
    pub fn volume(&self, name: &str) -> Result<PathBuf, String> {
        let volume = self.pod.volumes.iter().find(|volume| volume.name == name).ok_or("no such volume")?;
        match (&volume.empty_dir, &volume.persistent_volume_claim) {
            (Some(_), None) => Ok(self.directory.join(name)),
            (None, Some(_)) => Ok(self.claimed.clone()),
            _ => Err(format!("volume {name} is of no kind that is known here")),
        }
    }

    /// Runs the init containers, each of which must succeed.
    ///
    /// # Errors
    /// What one has printed.
    pub fn initialise(&self, run: &str) -> Result<(), String> {
        for described in &self.pod.init_containers {
            let image = if described.image.contains("/sopin:") { self.images.sopin()? } else { Image::default() };
            let started = self.start(described, image, run)?;
            let finished = started.finish()?;
            let is_right =
                finished.outcome == Outcome::Exit(0) && finished.stdout.is_empty() && finished.stderr.is_empty();
            if !is_right {
                return Err(format!("{}: {finished}", described.name));
            }
        }
        Ok(())
    }

    /// Starts the container with this image.
    ///
    /// # Errors
    /// A mount that cannot be made.
    pub fn start_container(&self, image: Image) -> Result<Dialogue, String> {
        self.start(&self.pod.containers[0], image, "")
    }

    fn start(&self, described: &Described, image: Image, run: &str) -> Result<Dialogue, String> {
        let (pod, own) = (&self.pod.security_context, &described.security_context);
        let mut container = Container::of(image);
        container.image.user = (pod.run_as_user, pod.run_as_group);
        container.image.entry_point.extend(described.args.iter().cloned());
        let variables = described.env.iter().map(|variable| (variable.name.clone(), variable.value.clone()));
        container.image.environment.extend(variables);
        container.groups = vec![pod.fs_group];
        container.has_user_namespace = !self.pod.host_users;
        container.has_read_only_root = own.read_only_root_filesystem;
        container.may_gain_privileges = own.allow_privilege_escalation;
        if own.capabilities.get("drop").is_some_and(|drop| drop == &["ALL"]) {
            container.bounding = &[];
        }
        for mount in &described.volume_mounts {
            let mut from = self.volume(&mount.name)?;
            if let Some(below) = &mount.sub_path {
                from.push(below);
            }
            // The kubelet makes a missing subPath as a directory of root.
            if !from.exists() {
                return Err(format!("{} does not exist", from.display()));
            }
            container.mounts.push(Mount { from, to: mount.mount_path.clone(), is_read_only: mount.read_only });
        }
        container.start(self.images, &self.directory.join(format!("container-{}{run}", described.name)))
    }
}

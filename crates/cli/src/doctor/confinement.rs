//! The subjects `filter` and `container`: what confines this process.

use std::fs;
use std::path::Path;

use serde_json::json;
use sopin_core::image_layers::ImageLayers;
use sopin_core::thread_status::ThreadStatus;

use super::answer::{Subject, SubjectVerdict};
use super::copies::FILL;
use super::probes;
use super::surroundings::DoctorSurroundings;

/// Files and directories that engines leave in a container, and what that says.
const TRACES: [(&str, &str); 3] =
    [("/.dockerenv", "Docker"), ("/run/.containerenv", "Podman"), ("/run/secrets/kubernetes.io", "Kubernetes")];

/// Judges the seccomp filters.
pub fn filter(here: &DoctorSurroundings) -> Subject {
    let Some(status) = &here.status else {
        let facts = json!({ "filters": null, "no_new_privileges": null, "refused": [] });
        return Subject::new(
            "filter",
            SubjectVerdict::Limited,
            "whether a seccomp filter is in force only /proc shows",
            facts,
        )
        .with_remedy("mount /proc");
    };
    let refused: Vec<String> = here
        .calls
        .iter()
        .flat_map(|calls| {
            let failed =
                calls.all().into_iter().filter(|(call, answer)| *call != "PROCMAP_QUERY" && probes::fails(answer));
            failed.map(|(call, answer)| format!("{call}: {answer}")).collect::<Vec<_>>()
        })
        .collect();
    judge_filter(status, &refused, !here.is_filtered)
}

fn judge_filter(status: &ThreadStatus, refused: &[String], is_engines: bool) -> Subject {
    let filters = if status.is_filtered { status.filters } else { Some(0) };
    let facts = json!({
        "filters": filters, "no_new_privileges": status.has_no_new_privileges, "refused": refused,
    });
    if !status.is_filtered {
        return Subject::new("filter", SubjectVerdict::Ok, "no seccomp filter is in force", facts);
    }
    let tried = if refused.is_empty() {
        "it permits the calls that were tried".to_owned()
    } else {
        format!("it does not permit all calls ({})", refused.join(", "))
    };
    if !is_engines {
        let meaning = format!(
            "a seccomp filter is in force ({tried}): the library makes only calls that the loader makes, too, and \
             adds nothing to the user's store"
        );
        return Subject::new("filter", SubjectVerdict::Limited, meaning, facts)
            .with_remedy(format!("{FILL}, so that text is shared"));
    }
    if refused.is_empty() {
        return Subject::new(
            "filter",
            SubjectVerdict::Ok,
            format!("the container engine's seccomp filter: {tried}"),
            facts,
        );
    }
    let meaning = format!("the container engine's seccomp filter: {tried}; the library does without them");
    Subject::new("filter", SubjectVerdict::Limited, meaning, facts)
        .with_remedy("use the engine's default profile of a newer release, or permit the calls in the profile")
}

/// Judges the container.
pub fn container() -> Subject {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let mounts = text("/proc/self/mountinfo");
    let trace = TRACES.iter().find(|(path, _)| fs::symlink_metadata(path).is_ok()).map(|(_, engine)| *engine);
    let engine = engine(trace, &text("/proc/self/cgroup"), &text("/proc/1/environ"), &mounts);
    let is_overlay = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some("/")).is_some_and(is_overlay);
    let has_layers = ImageLayers::of_this_process().is_some();
    let (module, profile) = profile(&text("/proc/self/attr/current"));
    let in_user_namespace = is_user_namespace(&text("/proc/self/uid_map"));
    let facts = json!({
        "engine": engine, "overlay": is_overlay, "image_layers": has_layers, "module": module, "profile": profile,
        "user_namespace": in_user_namespace,
    });
    let mut words = vec![match &engine {
        Some(engine) => format!("in a container ({engine})"),
        None if is_overlay => "on an overlay".to_owned(),
        None => "no container".to_owned(),
    }];
    words.extend(in_user_namespace.then(|| "in a user namespace".to_owned()));
    if has_layers {
        words.push("files of the image need no copy".to_owned());
    }
    let is_confined = module.is_some() && profile.as_deref().is_some_and(|profile| !profile.starts_with("unconfined"));
    if let (Some(module), Some(profile), true) = (module, &profile, is_confined) {
        words.push(format!("confined by {module} ({profile}), and the lines trial and pin show what that refuses"));
    }
    // Copies are made of everything there, which costs memory or disk and no protection.
    if is_overlay && !has_layers {
        words.push("files of the image are copied, because their layers cannot be proven".to_owned());
        return Subject::new("container", SubjectVerdict::Limited, words.join("; "), facts)
            .with_remedy("docs/limits.md says which layers are known; the copies work as elsewhere");
    }
    Subject::new("container", SubjectVerdict::Ok, words.join("; "), facts)
}

/// Returns the engine of the container that this process is in.
fn engine(trace: Option<&str>, cgroup: &str, first_environment: &str, mounts: &str) -> Option<String> {
    let named = first_environment
        .split('\0')
        .find_map(|variable| variable.strip_prefix("container="))
        .filter(|name| !name.is_empty());
    let root = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some("/")).unwrap_or_default();
    let marks = [
        ("/overlay2/", "Docker"),
        ("/containers/storage/overlay/", "Podman, Buildah or CRI-O"),
        ("/io.containerd.snapshotter.v1.overlayfs/", "containerd"),
    ];
    let by_root = marks.iter().find(|(mark, _)| root.contains(mark)).map(|(_, engine)| *engine);
    let mut cgroups = cgroup.lines().filter_map(|line| line.splitn(3, ':').nth(2)).flat_map(|path| path.split('/'));
    let by_cgroup = cgroups.find_map(engine_of_cgroup);
    trace.or(by_root).or(by_cgroup).or(named).map(str::to_owned)
}

/// Returns the engine that has given a cgroup its name. The cgroups of the engine's own service are no
/// container's: docker.service, lxcfs.service.
fn engine_of_cgroup(name: &str) -> Option<&'static str> {
    // systemd's driver makes a scope for each container: docker-ID.scope.
    let is_dockers =
        name == "docker" || (name.starts_with("docker-") && Path::new(name).extension() == Some("scope".as_ref()));
    match name {
        _ if name.starts_with("kubepods") => Some("Kubernetes"),
        _ if is_dockers => Some("Docker"),
        _ if name.starts_with("libpod") => Some("Podman"),
        _ if name == "lxc" || name.starts_with("lxc.payload") => Some("LXC"),
        _ => None,
    }
}

fn is_overlay(line: &str) -> bool {
    line.split_once(" - ").is_some_and(|(_, file_system)| file_system.starts_with("overlay "))
}

/// Returns the security module and the profile or context that it has given to this process.
fn profile(text: &str) -> (Option<&'static str>, Option<String>) {
    let text = text.trim_end_matches(['\0', '\n']);
    let is_selinux = fs::metadata("/sys/fs/selinux/enforce").is_ok() || text.matches(':').count() >= 3;
    match text {
        "" => (None, None),
        _ if is_selinux => (Some("SELinux"), Some(text.to_owned())),
        _ => (Some("AppArmor"), Some(text.to_owned())),
    }
}

/// Returns whether ids are mapped otherwise than in the first user namespace.
fn is_user_namespace(map: &str) -> bool {
    let fields: Vec<_> = map.split_ascii_whitespace().collect();
    !fields.is_empty() && fields != ["0", "0", "4294967295"]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_judged_by_whose_they_are() {
        let status = |is_filtered, filters| ThreadStatus { is_filtered, filters, ..ThreadStatus::default() };
        let none = judge_filter(&status(false, Some(0)), &[], false);
        assert_eq!((none.verdict, &none.facts["filters"]), (SubjectVerdict::Ok, &json!(0)));
        let unit = judge_filter(&status(true, Some(2)), &[], false);
        assert_eq!((unit.verdict, &unit.facts["filters"]), (SubjectVerdict::Limited, &json!(2)));
        let old = judge_filter(&status(true, None), &[], true);
        assert_eq!((old.verdict, &old.facts["filters"]), (SubjectVerdict::Ok, &json!(null)));
        let strict = judge_filter(&status(true, Some(1)), &["ptrace: EPERM".to_owned()], true);
        assert!(strict.verdict == SubjectVerdict::Limited && strict.meaning.contains("ptrace: EPERM"));
    }

    #[test]
    fn engines_are_known_by_their_traces() {
        let root = |lower: &str| format!("36 25 0:41 / / rw - overlay overlay rw,lowerdir={lower}\n");
        assert!(is_overlay(root("/x").trim_end()) && !is_overlay("36 25 8:1 / / rw - ext4 /dev/sda rw"));
        assert_eq!(engine(None, "", "", &root("/var/lib/docker/overlay2/l/A")).unwrap(), "Docker");
        assert_eq!(engine(None, "0::/kubepods/x\n", "", "").unwrap(), "Kubernetes");
        assert_eq!(engine(None, "0::/system.slice/docker-0123abcd.scope\n", "", "").unwrap(), "Docker");
        assert_eq!(engine(None, "4:memory:/docker/0123abcd\n", "", "").unwrap(), "Docker");
        for service in ["docker.service", "docker-cleanup.service", "lxcfs.service"] {
            assert_eq!(engine(None, &format!("0::/system.slice/{service}\n"), "container=\0", ""), None, "{service}");
        }
        assert_eq!(engine(None, "", "a=b\0container=systemd-nspawn\0", "").unwrap(), "systemd-nspawn");
    }

    #[test]
    fn profiles_and_namespaces_are_read() {
        assert_eq!(profile("").0, None);
        assert_eq!(profile("system_u:system_r:container_t:s0:c1,c2\0").0, Some("SELinux"));
        assert!(!is_user_namespace("         0          0 4294967295\n") && !is_user_namespace(""));
        assert!(is_user_namespace("         0       1000          1\n"));
    }
}

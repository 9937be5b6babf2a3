//! The managers of services: what each reads, how it is started, and what the service must get
//! from it.

use std::fs;
use std::path::Path;
use std::process::Command;

use libtest_mimic::Completion;

use super::root::{Judged, Root, USER};
use crate::common::library;

/// The library's lines in the examples, and what stands in their place in the control.
const LINES: [(&str, &str); 4] = [
    ("LD_PRELOAD=/usr/local/lib/libsopin.so", "NOTHING=set"),
    (r#"LD_PRELOAD="/usr/local/lib/libsopin.so""#, r#"NOTHING="set""#),
    ("/usr/local/bin/sopin run -- ", ""),
    ("/usr/local/bin/sopin run ", ""),
];

/// Where the copies of what is executed must be.
enum Copies {
    /// In this store.
    Store(&'static str),
    /// In files without names.
    Unnamed,
}

/// A program that starts services.
pub struct Manager {
    pub name: &'static str,
    pub needs: &'static [&'static str],
    /// An example, the file of the root that is made of it, and its mode.
    example: (&'static str, &'static str, u32),
    /// Other files, which are the service's own.
    others: &'static [(&'static str, &'static str, u32)],
    /// Starts the manager.
    script: &'static str,
    copies: Copies,
    /// The user of the service, where that is not one whom systemd makes up.
    user: Option<u32>,
    /// What the service finds as HOME, as docs/services.md says.
    home: Option<&'static str>,
}

/// systemd reads its units and is process 1 of a namespace of processes, in cgroups of its own.
const SYSTEMD: &str = r#"
mount --rbind /sys "$root/sys"
# A cgroup in each hierarchy, below this one, which systemd takes for the root of all.
while IFS=: read -r _ controllers path; do
    case $controllers in
    '') hierarchy=/sys/fs/cgroup; [ ! -d /sys/fs/cgroup/unified ] || hierarchy=/sys/fs/cgroup/unified ;;
    # A new cgroup there has no processor until it is given some, and systemd uses none.
    cpuset) continue ;;
    *) hierarchy=/sys/fs/cgroup/${controllers#name=} ;;
    esac
    mkdir "$hierarchy/$path/$cgroup"
    echo $$ >"$hierarchy/$path/$cgroup/cgroup.procs"
done </proc/self/cgroup
if [ -d /sys/fs/cgroup/systemd ]; then kind='cgroup -o none,name=systemd,xattr'; else kind=cgroup2; fi
cat >"$top/boot" <<'END'
set -eu
mount -t proc proc "$1/proc"
mount -t tmpfs -o mode=755 tmpfs "$1/sys/fs/cgroup"
case $2 in
cgroup2) mount -t cgroup2 cgroup2 "$1/sys/fs/cgroup" ;;
*) mkdir "$1/sys/fs/cgroup/systemd"
   # shellcheck disable=SC2086 # Words.
   mount -t $2 cgroup "$1/sys/fs/cgroup/systemd" ;;
esac
exec chroot "$1" env container=sopin /lib/systemd/systemd --unit=trial.target --log-target=console --show-status=0
END
unshare --pid --fork --kill-child --mount --propagation unchanged --cgroup sh "$top/boot" "$root" "$kind" >"$top/systemd" 2>&1 &
judge
"#;

/// The directories are those that `OpenRC` makes when a machine boots.
const OPENRC: &str = r#"
mkdir "$root/run/openrc"
for state in daemons exclusive failed hotplugged inactive options scheduled started starting stopping tmp wasinactive; do
    mkdir "$root/run/openrc/$state"
done
: >"$root/run/openrc/softlevel"
chroot "$root" rc-service shop start >&2
judge
"#;

const TARGET: (&str, &str, u32) =
    ("etc/systemd/system/trial.target", "[Unit]\nDefaultDependencies=no\nRequires=shop.service\n", 0o644);

pub const ALL: &[Manager] = &[
    // It waits for the next minute, meanwhile the others run.
    Manager {
        name: "cron::of_busybox",
        needs: &["cmd:busybox"],
        example: ("cron/shop.crontab", "var/spool/cron/busybox/shop", 0o600),
        others: &[],
        script: "chroot \"$root\" busybox crond -f -l 0 -L /dev/stderr -c /var/spool/cron/busybox >&2 &\njudge\n",
        copies: Copies::Store("/var/cache/shop/"),
        user: Some(USER),
        home: Some("/nonexistent"),
    },
    Manager {
        name: "systemd::drop_in",
        needs: &["cmd:systemd-analyze"],
        example: ("systemd/sopin.conf", "etc/systemd/system/shop.service.d/sopin.conf", 0o644),
        others: &[
            TARGET,
            (
                "etc/systemd/system/shop.service",
                "[Unit]\nDefaultDependencies=no\n[Service]\nUser=shop\n\
                 ExecStart=/srv/shop/service /srv/shop/plugin.so /srv/shop/run\n",
                0o644,
            ),
        ],
        script: SYSTEMD,
        copies: Copies::Store("/var/cache/shop/sopin/"),
        user: Some(USER),
        home: Some("/nonexistent"),
    },
    Manager {
        name: "systemd::dynamic_user",
        needs: &["cmd:systemd-analyze"],
        example: ("systemd/sopin.conf", "etc/systemd/system/shop.service.d/sopin.conf", 0o644),
        others: &[
            TARGET,
            (
                "etc/systemd/system/shop.service",
                "[Unit]\nDefaultDependencies=no\n[Service]\nDynamicUser=yes\n\
                 ExecStart=/srv/shop/service /srv/shop/plugin.so /srv/shop/run\n",
                0o644,
            ),
        ],
        script: SYSTEMD,
        // It turns RestrictSUIDSGID= on, which is a seccomp filter.
        copies: Copies::Unnamed,
        user: None,
        home: None,
    },
    Manager {
        name: "systemd::hardened",
        needs: &["cmd:systemd-analyze"],
        example: ("systemd/hardened.service", "etc/systemd/system/shop.service", 0o644),
        others: &[TARGET, ("etc/systemd/system/shop.service.d/trial.conf", "[Unit]\nDefaultDependencies=no\n", 0o644)],
        script: SYSTEMD,
        copies: Copies::Unnamed,
        user: None,
        home: None,
    },
    Manager {
        name: "openrc",
        needs: &["cmd:openrc-run"],
        example: ("openrc/shop", "etc/conf.d/shop", 0o644),
        others: &[(
            "etc/init.d/shop",
            "#!/sbin/openrc-run\ncommand=/srv/shop/service\ncommand_args='/srv/shop/plugin.so /srv/shop/run'\n\
             command_user=shop\ncommand_background=yes\npidfile=/run/shop.pid\n",
            0o755,
        )],
        script: OPENRC,
        copies: Copies::Store("/var/cache/shop/"),
        user: Some(USER),
        home: None,
    },
    Manager {
        name: "runit",
        needs: &["cmd:runsvdir"],
        example: ("runit/run", "etc/service/shop/run", 0o755),
        others: &[],
        script: "chroot \"$root\" runsvdir -P /etc/service >&2 &\njudge\n",
        copies: Copies::Store("/var/cache/shop/"),
        user: Some(USER),
        home: Some("/root"),
    },
    Manager {
        name: "supervisor",
        needs: &["cmd:supervisord"],
        example: ("supervisor/shop.conf", "etc/supervisor/conf.d/shop.conf", 0o644),
        others: &[],
        script: "chroot \"$root\" supervisord --nodaemon --configuration /etc/supervisor/supervisord.conf >&2 &\njudge\n",
        copies: Copies::Store("/var/cache/shop/"),
        user: Some(USER),
        home: Some("/root"),
    },
    Manager {
        name: "cron::of_debian",
        needs: &["cmd:cron"],
        example: ("cron/shop", "etc/cron.d/shop", 0o644),
        others: &[],
        script: "chroot \"$root\" cron -f -L 15 >&2 &\njudge\n",
        copies: Copies::Store("/var/cache/shop/"),
        user: Some(USER),
        home: Some("/nonexistent"),
    },
];

impl Manager {
    /// Starts the service with the example, and without the library's lines in it, at the same
    /// time.
    ///
    /// # Errors
    /// What was not as it must be.
    pub fn try_it(&self, programs: &Path, directory: &Path) -> Result<(), String> {
        let (example, file, mode) = self.example;
        let path = library::checkout().join("examples").join(example);
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let without = LINES.iter().fold(text.clone(), |text, (line, other)| text.replace(line, other));
        let mut running = Vec::new();
        for (name, text) in [("protected", &text), ("control", &without)] {
            let root = Root::make(&directory.join(name), programs, self.user.is_some())?;
            root.write(file, text, mode)?;
            for (file, text, mode) in self.others {
                root.write(file, text, *mode)?;
            }
            running.push((name, root.run(self.script)?, root));
        }
        let mut ended = Vec::new();
        for (name, dialogue, root) in running {
            ended.push((name, dialogue.finish()));
            root.remove_cgroups();
        }
        for (name, finished) in ended {
            let judged = Judged::new(finished?);
            let verdict = if name == "control" { Self::check_control(&judged) } else { self.check(&judged) };
            verdict.map_err(|wrong| format!("{name}: {wrong}: {judged}"))?;
        }
        Ok(())
    }

    fn check(&self, judged: &Judged) -> Result<(), String> {
        let before @ [_, result, user] = judged.answer("before").ok_or("the service does not answer")?;
        if result != 42
            || self.user.is_some_and(|wanted| wanted != user)
            || [0, USER].contains(&user) && self.user != Some(user)
        {
            return Err("another answer".to_owned());
        }
        if judged.variable("HOME") != self.home {
            return Err("HOME is another one".to_owned());
        }
        if [judged.answer("after"), judged.answer("again")] != [Some(before); 2] {
            return Err("the service has not survived".to_owned());
        }
        let executed = judged.executed();
        let is_copy = |path: &&str| match self.copies {
            Copies::Store(store) => path.starts_with(store),
            Copies::Unnamed => path.starts_with("/var/tmp/#") && path.ends_with(" (deleted)"),
        };
        let has_plugin = |path: &&str| matches!(self.copies, Copies::Unnamed) || path.ends_with("/plugin.so");
        if executed.iter().filter(|path| is_copy(path)).count() < 5 || !executed.iter().any(has_plugin) {
            return Err("the copies are elsewhere".to_owned());
        }
        match executed.iter().find(|path| !is_copy(path)) {
            Some(path) => Err(format!("{path} is executed, which is no copy")),
            None => Ok(()),
        }
    }

    /// Without the library, the process that has answered is gone.
    fn check_control(judged: &Judged) -> Result<(), String> {
        let [process, result, _] = judged.answer("before").ok_or("the service does not answer")?;
        if result != 42 || !judged.executed().contains(&"/srv/shop/plugin.so") {
            return Err("it is no control".to_owned());
        }
        match judged.answer("after").or(judged.answer("again")) {
            Some([other, ..]) if other == process => Err("the service has survived".to_owned()),
            _ => Ok(()),
        }
    }
}

/// The hardened unit is as hard as it says.
///
/// # Errors
/// What systemd-analyze finds.
pub fn is_a_sandbox() -> Result<Completion, String> {
    let unit = library::checkout().join("examples/systemd/hardened.service");
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--offline=true", "--threshold=20", "--no-pager"]).arg(&unit);
    let output = command.output().map_err(|error| format!("systemd-analyze: {error}"))?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        return Err(said);
    }
    // The unit without its sandbox is far above the threshold, so the threshold means something.
    let text = fs::read_to_string(&unit).map_err(|error| error.to_string())?;
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let open = directory.path().join("open.service");
    let kept = ["[", "ExecStart=", "Environment="];
    let lines = text.lines().filter(|line| kept.iter().any(|start| line.starts_with(start)));
    fs::write(&open, lines.collect::<Vec<_>>().join("\n") + "\n").map_err(|error| error.to_string())?;
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--offline=true", "--threshold=20", "--no-pager"]).arg(&open);
    let output = command.output().map_err(|error| format!("systemd-analyze: {error}"))?;
    if output.status.success() {
        Err("a unit without a sandbox is as good".to_owned())
    } else {
        Ok(Completion::Completed)
    }
}

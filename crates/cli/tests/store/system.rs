//! `sopin store fill`, and the other subcommands with `--system`. They run in
//! namespaces of their own, in which `/var/lib` is empty and no other process is
//! visible.

use std::process::Command;

use serde_json::Value;
use snapbox::str;

use crate::Case;
use crate::listing::fields;
use crate::scene::Scene;

/// To make namespaces, and to be another user in them.
const NEEDS: &[&str] = &["root", "unshare", "setpriv"];

pub const CASES: &[Case] = &[
    Case { name: "system::programs_map_what_was_filled", needs: NEEDS, test: programs_map_what_was_filled },
    Case {
        name: "system::a_start_with_a_filled_store_reads_as_little_as_with_a_warm_one",
        needs: NEEDS,
        test: a_start_with_a_filled_store_reads_as_little_as_with_a_warm_one,
    },
    Case {
        name: "system::files_that_some_users_may_not_read_are_refused",
        needs: NEEDS,
        test: files_that_some_users_may_not_read_are_refused,
    },
    Case { name: "system::only_root_writes", needs: &[], test: only_root_writes },
    Case {
        name: "system::damage_is_found_by_every_user_and_pruned_by_root",
        needs: NEEDS,
        test: damage_is_found_by_every_user_and_pruned_by_root,
    },
    Case {
        name: "system::outdated_entries_are_removed_when_no_process_maps_them",
        needs: NEEDS,
        test: outdated_entries_are_removed_when_no_process_maps_them,
    },
    Case {
        name: "system::a_store_that_is_full_or_does_not_belong_to_root_is_refused",
        needs: NEEDS,
        test: a_store_that_is_full_or_does_not_belong_to_root_is_refused,
    },
    Case {
        name: "system::files_that_processes_map_are_copied",
        needs: NEEDS,
        test: files_that_processes_map_are_copied,
    },
];

/// The beginning of every script. `nobody COMMAND` runs the command as the user nobody; `hold
/// LIBRARY...` starts a program that maps libraries and stores its number in `$held`;
/// `let_go` ends it.
const PRELUDE: &str = r#"
mount -t tmpfs -o mode=755 none /var/lib
chmod a+rx . program bin bin/sopin lib lib/libsopin.so libone.so libtwo.so libthree.so
nobody() { setpriv --reuid 65534 --regid 65534 --clear-groups "$@"; }
become_program() {
    exec env LD_PRELOAD="$PWD/lib/libsopin.so" SOPIN_STORE="$PWD/store" SOPIN_LOG=warn \
        SOPIN_ONLY='*/libone.so:*/libtwo.so:*/libthree.so' ./program "$@"
}
hold() {
    mkfifo input
    # The shell opens `output` after `input`, for which it waits, and so perhaps after the first grep.
    : >output
    become_program "$@" <input >output &
    held=$!
    exec 3>input
    while ! grep -q ready output; do sleep 0.01; done
}
let_go() {
    exec 3>&-
    wait $held || test $? = 42
    rm input output
}
settle() { while [ $(date +%s) -le $(($(stat -c %Z "$1") + 2)) ]; do sleep 0.05; done; }
"#;

/// Returns a command that runs a script in such namespaces.
fn machine(scene: &Scene, script: &str) -> snapbox::cmd::Command {
    let arguments = ["--mount", "--propagation", "private", "--pid", "--fork", "--mount-proc", "sh", "-euc"];
    let command = scene.installation.command("unshare").args(arguments).arg(format!("{PRELUDE}{script}"));
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default())
}

fn programs_map_what_was_filled() {
    let scene = Scene::with(&[]);
    let script = r#"
bin/sopin store fill libone.so program
bin/sopin store list --system --json >filled.json
hold "$PWD/libone.so" "$PWD/libtwo.so"
grep 'r-xp.*/lib[ot]' /proc/$held/maps | sed 's|[^/]*||; s|/[-0-9a-f]*/\([^/]*\)$|/KEY/\1|' | sort
bin/sopin status --verbose $held | grep ' full .*/lib[ot]'
bin/sopin store list --system --json >used.json
echo $held >held
let_go
ls store/*
echo "another user:"
nobody env LD_PRELOAD="$PWD/lib/libsopin.so" SOPIN_STORE=/nonexistent/store SOPIN_LOG=warn SOPIN_ONLY='*/libone.so' \
    ./program "$PWD/libone.so" </dev/null || test $? = 42
"#;
    let machine = machine(&scene, script);
    machine.assert().success().stderr_eq("").stdout_eq(str![[r#"
/var/lib/sopin
2 copies added, [..] KiB; 0 there already
[ROOT]/libone.so
[ROOT]/libtwo.so
[ROOT]/store/KEY/libtwo.so
/var/lib/sopin/KEY/libone.so
[..] full [..] [ROOT]/libone.so
[..] full [..] [ROOT]/libtwo.so
libtwo.so
another user:
ready

"#]]);
    let read = |name: &str| -> Value { serde_json::from_slice(&std::fs::read(scene.path(name)).unwrap()).unwrap() };
    let entry = |name: &str| read(name)["stores"][0]["entries"][0].clone();
    let (filled, used) = (entry("filled.json"), entry("used.json"));
    assert_eq!(filled["origin"], scene.path("libone.so").to_str().unwrap());
    assert_eq!((&filled["on_disk"], &filled["users"]), (&true.into(), &serde_json::json!([])));
    let held: u32 = std::fs::read_to_string(scene.path("held")).unwrap().trim().parse().unwrap();
    assert_eq!(used["users"], serde_json::json!([held]));
}

/// The first commands of scripts in which a process of the user with the number 65534 maps a library of
/// 3 MiB. A process that compares a copy of the library reads 3 MiB more. `read_by STORE` prints how many bytes a process with
/// this store has read.
const READING: &str = r#"
# A file's owner can find out that no process writes to it, and so copies it after 2 seconds.
chmod a+rx libone.so; chown 65534 libone.so; settle libone.so
become_program() {
    exec setpriv --reuid 65534 --regid 65534 --clear-groups env LD_PRELOAD="$PWD/lib/libsopin.so" \
        SOPIN_STORE="/var/lib/home/$store" SOPIN_LOG=warn SOPIN_ONLY='*/libone.so' ./program "$@"
}
# No user's store is below a directory in which every user may make one, such as /tmp.
mkdir /var/lib/home; chown 65534 /var/lib/home
read_by() {
    store=$1
    hold "$PWD/libone.so"
    grep -q "/libone.so" /proc/$held/maps
    awk '/^rchar/ { print $2 }' /proc/$held/io
    let_go
}
"#;

/// Makes `libone.so` anew, of 3 MiB.
fn make_large(scene: &Scene, build_id: &str) {
    let source = "const char table[3 << 20] = {1};\nint one(void) { return table[0]; }\n";
    scene.installation.compile("libone.so", source, "cc", &["-shared", "-fPIC", build_id]);
}

fn a_start_with_a_filled_store_reads_as_little_as_with_a_warm_one() {
    let script = r#"
read_by store >cold; read_by store >warm
bin/sopin store fill libone.so >answer
read_by none >filled
test ! -e /var/lib/home/none || echo "a store was made"
copy=$(echo /var/lib/sopin/*/libone.so)
# The mark of another boot.
touch -d @1234567 "$copy"
read_by none >unmarked; read_by none >again
bin/sopin store verify --system >answer
read_by none >verified
touch -d @1234567 "$copy"
bin/sopin store fill libone.so >answer
read_by none >refilled
"#;
    for build_id in ["-Wl,--build-id=none", "-Wl,--build-id=sha1"] {
        let scene = Scene::with(&[]);
        make_large(&scene, build_id);
        let machine = machine(&scene, &format!("{READING}{script}"));
        machine.assert().success().stderr_eq("").stdout_eq("");
        let read = |name: &str| -> u64 { std::fs::read_to_string(scene.path(name)).unwrap().trim().parse().unwrap() };
        let all =
            ["cold", "warm", "filled", "unmarked", "again", "verified", "refilled"].map(|name| (name, read(name)));
        for (name, bytes) in all {
            // A cold start copies the file, and a comparison reads the copy.
            let reads_all = ["cold", "unmarked", "again"].contains(&name);
            assert_eq!(bytes > 3 << 20, reads_all, "{build_id}: {name} of {all:?}");
            assert!(reads_all || bytes < 100 << 10, "{build_id}: {name} of {all:?}");
        }
    }
}

fn files_that_some_users_may_not_read_are_refused() {
    let scene = Scene::with(&[]);
    let script = r#"
mkdir private open outside
cp libone.so private/libprivate.so
cp libone.so open/libsecret.so
cp libone.so open/libopen.so
cp libone.so outside/liboutside.so
ln -s ../outside/liboutside.so open/liboutside.so
echo text >open/text
for number in 1 2 3 4; do cp libone.so private/lib$number.so; done
chmod 750 private; chmod 640 open/libsecret.so
bin/sopin store fill open private/libprivate.so open/libsecret.so open/text open/none && echo everything || echo "status $?"
bin/sopin store fill open private
bin/sopin store fill open private private --json >answer.json
bin/sopin store fill open/liboutside.so
ls /var/lib/sopin/*
"#;
    let machine = machine(&scene, script);
    machine.assert().success().stderr_eq("").stdout_eq(str![[r#"
/var/lib/sopin
  1 object skipped: not everybody may read it (mode 0640)
    open/libsecret.so
  1 file skipped: not an object of this machine
  not copied: open/none: No such file or directory (os error 2)
  not copied: private/libprivate.so: not everybody may pass [ROOT]/private (mode 0750); everybody could read the copy; let everybody read the file (chmod), or leave it to the users' own stores
  not copied: open/libsecret.so: not everybody may read it (mode 0640); everybody could read the copy; let everybody read the file (chmod), or leave it to the users' own stores
  not copied: open/text: not an ELF file
1 copy added, 32.00 KiB; 0 there already
Programs copy the skipped objects to the stores of their users, as without a system's store.
status 1
/var/lib/sopin
  1 object skipped: not everybody may read it (mode 0640)
    open/libsecret.so
  5 objects skipped: not everybody may pass [ROOT]/private (mode 0750)
    private/lib1.so
    private/lib2.so
    private/lib3.so
    and 2 more (--json lists them)
  1 file skipped: not an object of this machine
0 copies added, 0 B; 1 there already
Programs copy the skipped objects to the stores of their users, as without a system's store.
/var/lib/sopin
1 copy added, 32.00 KiB; 0 there already
/var/lib/sopin/[..]:
lib[..].so

/var/lib/sopin/[..]:
lib[..].so

"#]]);
    // Once each, though the directory was named twice.
    let answer: Value = serde_json::from_slice(&std::fs::read(scene.path("answer.json")).unwrap()).unwrap();
    let left_out = answer["left_out"].as_array().unwrap();
    assert_eq!((&answer["skipped"]["not_for_everybody"], left_out.len()), (&6.into(), 6));
    let last = serde_json::json!({
        "path": "private/libprivate.so",
        "reason": format!("not everybody may pass {} (mode 0750)", scene.path("private").display()),
    });
    assert_eq!(left_out.last(), Some(&last));
}

fn only_root_writes() {
    let scene = Scene::with(&[]);
    let sopin = |arguments: &[&str]| {
        let sopin = scene.path("bin/sopin");
        if !rustix::process::geteuid().is_root() {
            return scene.installation.command(sopin).args(arguments);
        }
        let other = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];
        scene.installation.command("setpriv").args(other).arg(sopin).args(arguments)
    };
    sopin(&["store", "fill", "libone.so"]).assert().code(3).stdout_eq("").stderr_eq(str![[r#"
sopin: /var/lib/sopin: only root writes the system's store; run it with sudo

"#]]);
    sopin(&["store", "prune", "--system"]).assert().code(3).stdout_eq("").stderr_eq(str![[r#"
sopin: /var/lib/sopin: only root removes from the system's store; run it with sudo

"#]]);
    sopin(&["store", "fill", "--store", "/x", "libone.so"]).assert().code(2).stderr_eq(str![[r#"
sopin: --store: fill writes the system's store; leave it out

"#]]);
    sopin(&["store", "list", "--system", "--store", "/x"]).assert().code(2).stderr_eq(str![[r#"
sopin: --store: it is not the system's store; leave it out

"#]]);
    sopin(&["store", "fill"]).assert().code(2);
}

fn damage_is_found_by_every_user_and_pruned_by_root() {
    let scene = Scene::with(&[]);
    let script = r#"
nobody bin/sopin store list --system
bin/sopin store fill libone.so libtwo.so >/dev/null
nobody bin/sopin store verify --system
copy=$(echo /var/lib/sopin/*/libone.so)
printf x | dd of="$copy" bs=1 seek=5000 conv=notrunc status=none
nobody bin/sopin store verify --system || echo "status $?"
bin/sopin store prune --system --dry-run
bin/sopin store prune --system
test ! -e "$copy"
bin/sopin store fill libone.so
bin/sopin store verify --system
chmod 666 "$copy"
bin/sopin store fill libone.so
bin/sopin store verify --system
"#;
    let machine = machine(&scene, script);
    machine.assert().success().stderr_eq("").stdout_eq(str![[r#"
There is no store yet.
/var/lib/sopin: intact (2 entries, 2 compared with their origins)
/var/lib/sopin: 1 problem (2 entries, 2 compared with their origins)
  [..]: its bytes differ from the origin's, first at offset 5000; sopin store prune --system removes it, and sopin store fill makes it anew
    a copy of [ROOT]/libone.so
status 1
/var/lib/sopin
  damaged, 32.00 KiB: [ROOT]/libone.so
1 entry would be removed, 32.00 KiB; 1 kept
/var/lib/sopin
  damaged, 32.00 KiB: [ROOT]/libone.so
1 entry removed, 32.00 KiB; 1 kept
/var/lib/sopin
1 copy added, 32.00 KiB; 0 there already
/var/lib/sopin: intact (2 entries, 2 compared with their origins)
/var/lib/sopin
1 copy added, 32.00 KiB; 0 there already
/var/lib/sopin: intact (2 entries, 2 compared with their origins)

"#]]);
}

fn outdated_entries_are_removed_when_no_process_maps_them() {
    let scene = Scene::with(&[]);
    let script = r#"
bin/sopin store fill libone.so libtwo.so libthree.so >/dev/null
hold "$PWD/libone.so"
rm libone.so
echo other >libtwo.so
# Every user may hold such a lock.
copy=$(echo /var/lib/sopin/*/libtwo.so)
exec 4<"$copy"
flock -s 4
bin/sopin store prune --system --dry-run
bin/sopin store prune --system
exec 4<&-
let_go
bin/sopin store prune --system
bin/sopin store prune --system --older-than 0s
"#;
    let machine = machine(&scene, script);
    machine.assert().success().stderr_eq("").stdout_eq(str![[r#"
/var/lib/sopin
  superseded, 32.00 KiB: [ROOT]/libtwo.so
1 entry would be removed, 32.00 KiB; 2 kept (1 for being in use)
/var/lib/sopin
  superseded, 32.00 KiB: [ROOT]/libtwo.so
1 entry removed, 32.00 KiB; 2 kept (1 for being in use)
/var/lib/sopin
  gone, 32.00 KiB: [ROOT]/libone.so
1 entry removed, 32.00 KiB; 1 kept
/var/lib/sopin
  unused for just now, 32.00 KiB: [ROOT]/libthree.so
1 entry removed, 32.00 KiB; 0 kept

"#]]);
}

fn a_store_that_is_full_or_does_not_belong_to_root_is_refused() {
    let scene = Scene::with(&[]);
    let script = r#"
mount -o remount,size=80k /var/lib
bin/sopin store fill libone.so libtwo.so libthree.so || echo "status $?"
ls -d /var/lib/sopin/*/lib* | wc -l
chown 65534 /var/lib/sopin
bin/sopin store fill libone.so || echo "status $?"
nobody bin/sopin store verify --system || echo "status $?"
"#;
    let machine = machine(&scene, script);
    machine
        .assert()
        .success()
        .stdout_eq(str![[r#"
status 3
2
status 3
status 3

"#]])
        .stderr_eq(str![[r#"
sopin: /var/lib/sopin: [..]: ENOSPC (No space left on device); make room on its file system, or remove what is not needed (sopin store prune --system)
sopin: /var/lib/sopin: use the store: it belongs to another user or others can write to it
sopin: /var/lib/sopin: use the store: it belongs to another user or others can write to it

"#]]);
}

fn files_that_processes_map_are_copied() {
    let scene = Scene::with(&[]);
    // The user's store has copies already, but the command looks at the files only.
    let script = r#"
settle libtwo.so
hold "$PWD/libone.so" "$PWD/libtwo.so"
rm libtwo.so
bin/sopin store fill --used-by $held --json >answer.json
bin/sopin store fill --used-by 999999 && echo done || echo "status $?"
let_go
"#;
    let machine = machine(&scene, script);
    machine.assert().success().stderr_eq("").stdout_eq(str![[r#"
/var/lib/sopin
  not copied: process 999999: no such process
0 copies added, 0 B; 0 there already
status 1

"#]]);
    let answer: Value = serde_json::from_slice(&std::fs::read(scene.path("answer.json")).unwrap()).unwrap();
    let added: Vec<_> =
        answer["added"].as_array().unwrap().iter().map(|added| added["path"].as_str().unwrap()).collect();
    let has = |name: &str| added.contains(&scene.path(name).to_str().unwrap());
    assert!(has("program") && has("libone.so") && has("lib/libsopin.so"), "{answer:#}");
    assert!(!has("libtwo.so") && !added.iter().any(|path| path.contains("/store/")), "{answer:#}");
    assert_eq!((&answer["skipped"]["vanished"], &answer["failed"]), (&1.into(), &serde_json::json!([])));
    // The help documents every name in the output.
    let help = Command::new(scene.path("bin/sopin")).args(["store", "fill", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let (_, table) = help.split_once("JSON output:").unwrap();
    let words: Vec<_> = table.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let mut found = Vec::new();
    fields(&answer, &mut found);
    assert!(found.len() > 10);
    found.retain(|name| !words.contains(&name.as_str()));
    assert!(found.is_empty(), "{found:?}");
}

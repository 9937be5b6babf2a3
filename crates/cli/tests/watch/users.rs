//! A watch by a user without root's rights: inotify instead of fanotify, and fewer processes.

use std::process::Command;

use serde_json::{Value, json};

use crate::Case;
use crate::common::clean_process;
use crate::common::victim::Running;
use crate::watcher::{Rewriter, Watcher, scene};

pub const CASES: &[Case] = &[
    Case { name: "ones_own_processes", needs: &["root", "setpriv"], test: ones_own_processes },
    Case { name: "processes_of_others", needs: &["root", "setpriv"], test: processes_of_others },
    Case { name: "root_without_its_capability", needs: &["root", "setpriv"], test: root_without_its_capability },
];

const NOBODY: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

fn ones_own_processes() {
    let victim = scene();
    let _of_root = victim.start();
    let mut command = Command::new(NOBODY[0]);
    let command = clean_process(&mut command).args(&NOBODY[1..]).arg("./program");
    let running = Running::start(command.current_dir(victim.installation.path("")));
    let path = victim.library.to_str().unwrap();
    let watcher = Watcher::start_under(&victim.installation, &NOBODY, &["--json", "--mapping", path]);
    let [.., denied, greeting] = watcher.greeting.as_slice() else { panic!("{:?}", watcher.greeting) };
    assert!(denied.starts_with("sopin: warning: permission denied: ") && denied.contains("run as root"), "{denied}");
    assert!(greeting.contains("1 file of 1 process") && greeting.contains("CAP_SYS_ADMIN"), "{greeting}");
    for (how, state) in [("same", "exposed"), ("truncate", "damaged"), ("copy", "damaged")] {
        let _rewriter = Rewriter::run(&victim.installation, &[], &[how, path]);
        let line = watcher.next_about(&victim.library);
        assert_eq!(line[state], 1, "{how}: {line:#}");
        assert_eq!((&line["writer"]["pid"], &line["writer"]["unknown"]), (&Value::Null, &json!("no-privilege")));
        assert_eq!(line["processes"][0]["pid"], running.pid());
    }
    watcher.is_silent_about(&victim.library);
    watcher.end();
    let people = Watcher::start_under(&victim.installation, &NOBODY, &["--mapping", path]);
    let _rewriter = Rewriter::run(&victim.installation, &[], &["copy", path]);
    let text = people.next_line(crate::watcher::PATIENCE).unwrap();
    assert!(text.contains(&format!(" an unknown process rewrote {path} in place: 1 process damaged")), "{text}");
    people.end();
}

fn processes_of_others() {
    let victim = scene();
    let running = victim.start();
    let [program, rest @ ..] = NOBODY;
    let watch = victim.installation.command(program).args(rest).args(["bin/sopin", "watch"]);
    let output = watch.arg(running.pid().to_string()).assert().code(3).stdout_eq("").get_output().clone();
    let text = String::from_utf8(output.stderr).unwrap();
    let start = format!("sopin: {}: permission denied; run as root or with CAP_SYS_PTRACE", running.pid());
    assert!(text.starts_with(&start), "{text}");
}

/// As in a container: root, but not of the machine.
fn root_without_its_capability() {
    let victim = scene();
    let _running = victim.start();
    let path = victim.library.to_str().unwrap();
    let under = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"];
    let watcher = Watcher::start_under(&victim.installation, &under, &["--json", "--mapping", path]);
    let _rewriter = Rewriter::run(&victim.installation, &[], &["copy", path]);
    let line = watcher.next_about(&victim.library);
    assert_eq!((&line["damaged"], &line["writer"]["unknown"]), (&json!(1), &json!("no-privilege")));
    watcher.end();
}

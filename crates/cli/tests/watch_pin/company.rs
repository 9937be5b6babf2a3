//! Two watches, `sopin pin` and `sopin status` at the same time, on the same processes.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::Case;
use super::watching::{Watch, pids, ruin, survives};
use crate::common::clean_process;
use crate::common::victim::{Running, Victim};

pub const CASES: &[Case] = &[
    Case { name: "company::two_watches", needs: &["root", "cc"], test: two_watches },
    Case { name: "company::other_commands", needs: &["root", "cc"], test: other_commands },
    Case { name: "company::a_process_that_decides_about_opens", needs: &["root", "cc"], test: decider },
];

fn two_watches() -> Result<(), String> {
    for _ in 0..5 {
        let victim = Victim::new();
        let running: Vec<Running> = (0..4).map(|_| victim.start()).collect();
        running.iter().for_each(Running::settle);
        let watches = [Watch::start(&victim), Watch::start(&victim)];
        let time = ruin(&victim.library);
        // Each has 2 seconds, one after the other.
        assert!(time < Duration::from_secs(4), "{time:?}");
        assert!(running.into_iter().all(survives), "{:?}", watches.each_ref().map(|watch| watch.said("open")));
    }
    Ok(())
}

/// They trace the processes and open the files that are guarded.
fn other_commands() -> Result<(), String> {
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            let victim = Victim::new();
            let running: Vec<Running> = (0..4).map(|_| victim.start()).collect();
            running.iter().for_each(Running::settle);
            end.store(false, Ordering::SeqCst);
            let watch = Watch::start(&victim);
            let root = victim.installation.path("");
            for arguments in [&["pin", "--mapping"][..], &["status", "--mapping"]] {
                let (root, end) = (root.clone(), &end);
                scope.spawn(move || {
                    while !end.load(Ordering::SeqCst) {
                        let mut command = Command::new(env!("CARGO_BIN_EXE_sopin"));
                        clean_process(&mut command).args(arguments).arg(&root);
                        command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
                    }
                });
            }
            let time = ruin(&victim.library);
            end.store(true, Ordering::SeqCst);
            assert!(time < Duration::from_secs(3), "{time:?}");
            assert!(running.into_iter().all(survives), "{:?}", watch.said("open"));
        }
    });
    Ok(())
}

/// A process that decides about the opens of others, as a watch does: if it was stopped, all would wait, the one that
/// has stopped it included.
fn decider() -> Result<(), String> {
    let victim = Victim::new();
    let main = "#include <stdio.h>\n#include <sys/fanotify.h>\nextern int (*const table[2048])(void);\n\
        int main(void) { int group = fanotify_init(FAN_CLASS_CONTENT, 0);\n\
        puts(\"ready\"); fflush(stdout); getchar(); return group < 0 || table[0] == 0; }\n";
    let program = victim.installation.compile("decider", main, "cc", &[victim.library.to_str().unwrap()]);
    let (running, decider) = (victim.start(), Running::start(&mut Command::new(program)));
    let watch = Watch::start(&victim);
    ruin(&victim.library);
    let line = watch.wait_for("open", |_| true);
    assert_eq!((pids(&line, "pinned"), pids(&line, "left")), (vec![running.pid()], vec![decider.pid()]), "{line}");
    assert!(survives(running));
    Ok(())
}

//! Programs in containers whose root directory is an overlay over the layers of an image, as
//! engines make it. The command runs outside.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::Case;
use crate::common::clean_process;
use crate::common::victim::{Running, Victim, object};

const NEEDS: &[&str] = &["root", "unshare", "mount", "pivot_root"];

pub const CASES: &[Case] = &[
    Case { name: "an_image_layer", needs: NEEDS, test: an_image_layer },
    Case { name: "a_file_that_was_copied_up", needs: NEEDS, test: a_file_that_was_copied_up },
    Case { name: "a_record_about_a_layer", needs: NEEDS, test: a_record_about_a_layer },
    Case { name: "an_overlay_of_no_engine", needs: NEEDS, test: an_overlay_of_no_engine },
];

/// Makes a container whose image is this machine's root directory, and runs the command there.
/// The file system must note when the upper layer's root directory was made.
const CONTAINER: &str = "\
mount -t tmpfs none layers
cd layers
mkdir -p $IMAGE/diff $OWN/diff $OWN/work root
mount --bind / $IMAGE/diff
mount -t overlay -o lowerdir=$PWD/$IMAGE/diff,upperdir=$PWD/$OWN/diff,workdir=$PWD/$OWN/work none root
mount --rbind /dev root/dev
cd root
mkdir old-root
pivot_root . old-root
cd /
mount -t proc none /proc
umount -l /old-root
eval \"$BEFORE\"
exec env LD_PRELOAD=\"$PRELOAD\" \"$PROGRAM\"
";

/// A program in a container, and what it was made of.
struct Contained {
    victim: Victim,
    running: Running,
}

impl Contained {
    /// Starts the program in a container in which the shell has executed `before`.
    fn start(storage: &str, is_protected: bool, before: &str) -> Result<Self, String> {
        let victim = Victim::new();
        let installation = &victim.installation;
        fs::create_dir(installation.path("layers")).unwrap();
        let here = |path: &str| installation.path(path).display().to_string();
        let on_root = Command::new("findmnt").args(["-n", "-o", "TARGET", "--target", &here("program")]).output();
        if !on_root.is_ok_and(|output| output.stdout == b"/\n") {
            return Err("the test's files are not on the root file system".to_owned());
        }
        let layer = |digit: &str| format!("{storage}/{}", digit.repeat(64));
        let variables = [
            ("IMAGE", layer("1")),
            ("OWN", layer("2")),
            ("BEFORE", before.replace("LIBRARY", &here("libvictim.so"))),
            ("PRELOAD", if is_protected { here("lib/libsopin.so") } else { String::new() }),
            ("PROGRAM", here("program")),
            ("SOPIN_STORE", "off".to_owned()),
        ];
        let mut command = Command::new("unshare");
        let command =
            clean_process(&mut command).args(["--mount", "--propagation", "private", "sh", "-euc", CONTAINER]);
        let running = Running::start(command.envs(variables).current_dir(installation.path("")));
        Ok(Self { victim, running })
    }

    fn json(&self) -> Value {
        self.victim.json(self.running.pid())
    }

    /// Returns the state of the program's library, and whether it is in an image.
    fn library(&self) -> Value {
        let process = self.json();
        let library = object(&process, "/libvictim.so");
        json!([library["state"], library["image_layer"]])
    }

    /// Rewrites the library as a process in the container would.
    fn rewrite(&self) {
        self.running.settle();
        let path = format!("/proc/{}/root{}", self.running.pid(), self.victim.library.display());
        fs::write(path, fs::read(&self.victim.library).unwrap()).unwrap();
    }
}

/// An overlay shows the layer of a file since Linux 6.6; before, the test's files are too new.
fn needs_signs() -> Result<(), String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    let is_new = (numbers.next(), numbers.next()) >= (Some(6), Some(6));
    if is_new { Ok(()) } else { Err("needs Linux 6.6".to_owned()) }
}

/// Without the library, too, nothing of the image can be lost, and there is nothing to pin.
fn an_image_layer() -> Result<(), String> {
    needs_signs()?;
    let contained = Contained::start("overlay2", false, "")?;
    let process = contained.json();
    assert_eq!((&process["exposed"], &process["relocated"]), (&json!(0), &json!(0)), "{process:#}");
    assert_eq!(contained.library(), json!(["full", true]), "{process:#}");
    let pid = contained.running.pid();
    let shown = contained.victim.status(pid, &["--verbose"]).get_output().stdout.clone();
    assert!(String::from_utf8_lossy(&shown).contains("full (image layer)       0 KiB"));
    let maps = || fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let before = maps();
    let pinned = contained.victim.installation.sopin().args(["pin", "--json", &pid.to_string()]).assert();
    let pinned: Value = serde_json::from_slice(&pinned.get_output().stdout).unwrap();
    assert_eq!((&pinned["not_pinned"], &pinned["processes"][0]["objects"]), (&json!([]), &json!([])), "{pinned:#}");
    assert_eq!(maps(), before);
    // The mapping is still one of the lower file, but nothing shows that now.
    contained.rewrite();
    assert_eq!(contained.library(), json!(["exposed", false]));
    assert!(contained.running.ends_well());
    Ok(())
}

/// A library that was copied up before the program was started can be rewritten.
fn a_file_that_was_copied_up() -> Result<(), String> {
    needs_signs()?;
    let before = "touch LIBRARY";
    assert_eq!(Contained::start("overlay2", false, before)?.library(), json!(["exposed", false]));
    assert_eq!(Contained::start("overlay2", true, before)?.library(), json!(["full", false]));
    Ok(())
}

/// The library has left the object as it is. Once its file was copied up, its record alone shows
/// that the mapping is one of the lower file.
fn a_record_about_a_layer() -> Result<(), String> {
    needs_signs()?;
    let contained = Contained::start("overlay2", true, "")?;
    assert_eq!(contained.library(), json!(["full", true]));
    contained.rewrite();
    assert_eq!(contained.library(), json!(["full", true]));
    assert!(contained.running.ends_well());
    Ok(())
}

/// The lower directory may be a work tree.
fn an_overlay_of_no_engine() -> Result<(), String> {
    assert_eq!(Contained::start("tree", false, "")?.library(), json!(["exposed", false]));
    assert_eq!(Contained::start("tree", true, "")?.library(), json!(["full", false]));
    Ok(())
}

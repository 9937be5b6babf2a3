//! Two subvolumes of a btrfs, each of which numbers its files anew, while the mappings show one device
//! number for both.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Completion;

use crate::memory::{self, Vma};
use crate::subject::Subject;
use crate::{Case, Run, tasks};

/// Makes the file system and the first file of each subvolume, and executes the rest of the words. The
/// mount ends with the namespace. Arguments: the program, the two libraries, the program's words.
const SCRIPT: &str = r#"
PATH=$PATH:/usr/sbin:/sbin
mkdir mounted && truncate -s 128M image && mkfs.btrfs -q image && mount -o loop image mounted &&
    btrfs subvolume create mounted/a >/dev/null && btrfs subvolume create mounted/b >/dev/null &&
    cp "$1" mounted/a/lib.so && cp "$2" mounted/b/lib.so || exit 77
shift 2
exec "$0" "$@"
"#;

pub fn cases() -> Vec<Case> {
    let needs = ["root", "cmd:unshare", "filesystem:btrfs"];
    vec![Case::ignorable("subvolumes::each_object_gets_its_own_bytes", own_bytes).with_needs(&needs)]
}

fn own_bytes(run: &Run, directory: &Path) -> Result<Completion, String> {
    let paths = ["a", "b"].map(|name| directory.join("mounted").join(name).join("lib.so"));
    let [first, second] = paths.each_ref().map(|path| path.to_string_lossy().into_owned());
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "private", "--", "sh", "-c", SCRIPT]).arg(run.built("host"));
    unshare.args([run.built("libplug.so"), run.built("libplug_without_start_files.so")]);
    let words = ["load", first.as_str(), "load", second.as_str(), "threads", "1"];
    let mut subject = match Subject::start_by(unshare, run, directory, &words) {
        Err(error) if error.contains("ended with exit:77") => {
            return Ok(Completion::ignored_with("no btrfs can be made and mounted here"));
        }
        started => started?,
    };
    let [a, b] = paths.each_ref().map(|path| texts(subject.id(), path));
    let (a, b) = (a?, b?);
    if a[0].file != b[0].file {
        return Ok(Completion::ignored_with("the files have different numbers in the mappings"));
    }
    let before = contents(subject.id(), a.iter().chain(&b))?;
    let pin = subject.pin()?;
    pin.is_whole()?;
    tasks::none_is_traced(subject.id())?;
    if contents(subject.id(), a.iter().chain(&b)).map_err(|error| pin.describe(&error))? != before {
        return Err(pin.describe("changed bytes of the objects"));
    }
    for path in &paths {
        if memory::exposed(subject.id(), path)? != 0 {
            return Err(pin.describe(&format!("left {}", path.display())));
        }
        truncate_there(subject.id(), path)?;
    }
    subject.say("call", "called").map_err(|error| pin.describe(&error))?;
    subject.truncate_and_stop()?;
    Ok(Completion::Completed)
}

/// Returns the mappings of a file that the process does not write to.
fn texts(pid: u32, file: &Path) -> Result<Vec<Vma>, String> {
    let all = memory::mappings(pid)?.into_iter();
    let texts: Vec<_> = all.filter(|vma| Path::new(&vma.path) == file && vma.mode.starts_with("r-")).collect();
    if texts.is_empty() { Err(format!("{} is not mapped", file.display())) } else { Ok(texts) }
}

/// Reads the memory of a process at these mappings.
fn contents<'a>(pid: u32, mappings: impl Iterator<Item = &'a Vma>) -> Result<Vec<Vec<u8>>, String> {
    let memory = fs::File::open(format!("/proc/{pid}/mem")).map_err(|error| error.to_string())?;
    mappings
        .map(|vma| {
            let mut bytes = vec![0; usize::try_from(vma.end - vma.start).map_err(|error| error.to_string())?];
            memory.read_exact_at(&mut bytes, vma.start).map_err(|error| format!("{:x}: {error}", vma.start))?;
            Ok(bytes)
        })
        .collect()
}

/// Truncates a file that has this path for the process.
fn truncate_there(pid: u32, path: &Path) -> Result<(), String> {
    let below = path.strip_prefix("/").map_err(|error| error.to_string())?;
    let there = PathBuf::from(format!("/proc/{pid}/root")).join(below);
    fs::File::create(&there).map(drop).map_err(|error| format!("{}: {error}", there.display()))
}

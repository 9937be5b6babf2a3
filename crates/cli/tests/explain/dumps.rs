//! Forms of dumps: compressed, from a pipe, cut off, of gdb, and what is none.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use snapbox::str;

use crate::common::victim::Victim;
use crate::{Case, DUMPS, explain, object, rewritten, rewritten_under, sentence};

pub const CASES: &[Case] = &[
    Case { name: "compressed", needs: &["cc", "gzip", "zstd", "lz4"], test: compressed },
    Case { name: "from_a_pipe", needs: &["cc", "zstd"], test: from_a_pipe },
    Case { name: "cut_off", needs: &["cc", "gzip"], test: cut_off },
    Case { name: "without_private_memory", needs: &["cc"], test: without_private_memory },
    Case { name: "of_gdb", needs: &["cc", "gcore", "stops"], test: of_gdb },
    Case { name: "no_room", needs: &["cc", "root", "unshare", "zstd"], test: no_room },
    Case { name: "no_dump", needs: &[], test: no_dump },
];

/// Returns a process that has died of a jump, and its core.
fn died() -> Result<(Victim, PathBuf), String> {
    let victim = crate::victim(&[]);
    let core = rewritten(&victim)?;
    Ok((victim, core))
}

/// Compresses the core by a program that writes to stdout.
fn compress(victim: &Victim, core: &PathBuf, program: &str) -> PathBuf {
    let to = victim.installation.path(&format!("compressed.{program}"));
    let mut command = Command::new(program);
    command.arg("-c").stdin(File::open(core).unwrap()).stdout(File::create(&to).unwrap()).stderr(Stdio::null());
    assert!(command.status().unwrap().success(), "{program}");
    to
}

fn compressed() -> Result<(), String> {
    let (victim, core) = died()?;
    let plain = explain(&victim, &[core.to_str().unwrap()], 4);
    assert_eq!(plain["compression"], "none");
    for program in ["gzip", "zstd", "lz4"] {
        let path = compress(&victim, &core, program);
        let mut answer = explain(&victim, &[path.to_str().unwrap()], 4);
        assert_eq!(answer["compression"], program);
        answer["compression"] = "none".into();
        assert_eq!(answer, plain, "{program}");
        // Two frames, as parallel compressors write them.
        let frame = fs::read(&path).unwrap();
        let twice = victim.installation.path("twice");
        fs::write(&twice, [&frame[..], &frame[..]].concat()).unwrap();
        let answer = explain(&victim, &[twice.to_str().unwrap()], 4);
        assert_eq!(answer["verdict"], plain["verdict"], "{program}");
    }
    Ok(())
}

fn from_a_pipe() -> Result<(), String> {
    let (victim, core) = died()?;
    for path in [core.clone(), compress(&victim, &core, "zstd")] {
        let command =
            victim.installation.command("sh").args(["-c", "cat \"$0\" | bin/sopin explain --json -"]).arg(path);
        let output = command.assert().code(4).stderr_eq("").get_output().clone();
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(answer["verdict"]["certainty"], "certain");
    }
    let command = victim.installation.command("sh").args(["-c", "bin/sopin explain - <\"$0\""]).arg(core);
    command.assert().code(4).stderr_eq("");
    Ok(())
}

/// As systemd-coredump cuts them at `ExternalSizeMax`.
fn cut_off() -> Result<(), String> {
    let (victim, core) = died()?;
    let bytes = fs::read(&core).unwrap();
    let cut = victim.installation.path("cut");
    for (len, code) in [(bytes.len() - 4096, 4), (0x3000, 3)] {
        fs::write(&cut, &bytes[..len]).unwrap();
        let answer = explain(&victim, &[cut.to_str().unwrap()], code);
        assert_eq!(answer["dump"]["cut"], true);
        assert!(answer["errors"].to_string().contains("the dump is cut off"), "{}", answer["errors"]);
    }
    // The part before the end of the compressed data is examined.
    let compressed = fs::read(compress(&victim, &core, "gzip")).unwrap();
    fs::write(&cut, &compressed[..compressed.len() / 2]).unwrap();
    let output = victim.installation.sopin().args(["explain", cut.to_str().unwrap()]).assert().get_output().clone();
    assert!(matches!(output.status.code(), Some(3 | 4)), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("its compressed data ends early"), "{output:?}");
    Ok(())
}

fn without_private_memory() -> Result<(), String> {
    let victim = crate::victim(&[]);
    let filter = "echo 0 >/proc/self/coredump_filter; ulimit -c unlimited; exec \"$0\"";
    let core = rewritten_under(&victim, &[DUMPS[0], DUMPS[1], filter])?;
    let answer = explain(&victim, &[core.to_str().unwrap()], 3);
    assert!(sentence(&answer).contains("may be to answer of"), "{}", sentence(&answer));
    assert!(answer["verdict"]["way_out"].as_str().unwrap().contains("coredump_filter 0x33"));
    Ok(())
}

/// gdb leaves out the ranges that have reverted, because no page of them is private.
fn of_gdb() -> Result<(), String> {
    let victim = crate::victim(&[]);
    let running = victim.start();
    let dump = |name: &str| {
        let path = victim.installation.path(name);
        let mut command = Command::new("gcore");
        command.arg("-o").arg(&path).arg(running.pid().to_string()).stdout(Stdio::null()).stderr(Stdio::null());
        let is_made = command.status().unwrap().success();
        let path = format!("{}.{}", path.display(), running.pid());
        if is_made { Ok(path) } else { Err("gcore has failed".to_owned()) }
    };
    let answer = explain(&victim, &[&dump("healthy")?], 0);
    assert_eq!((&answer["dump"]["origin"], &answer["crash"]["alive"]), (&"gdb".into(), &true.into()));
    victim.rewrite(&running);
    let answer = explain(&victim, &[&dump("damaged")?], 4);
    assert!(sentence(&answer).starts_with("This process was damaged when it was dumped"), "{}", sentence(&answer));
    let damage = &object(&answer, "libvictim.so")["damage"];
    assert!(damage["clean_words"].as_u64().unwrap() + damage["reverted_words"].as_u64().unwrap() > 4000, "{damage}");
    assert!(!running.ends_well());
    Ok(())
}

fn no_room() -> Result<(), String> {
    let (victim, core) = died()?;
    let compressed = compress(&victim, &core, "zstd");
    let room = victim.installation.path("room");
    fs::create_dir(&room).unwrap();
    let script = "mount -t tmpfs -o size=64k none room && TMPDIR=room exec bin/sopin explain \"$0\"";
    let command = victim.installation.command("unshare").args(["-m", "sh", "-c", script]).arg(compressed);
    command.assert().code(3).stdout_eq("").stderr_eq(str![[r#"
sopin: room: no room for a copy of [ROOT]/compressed.zstd, of which there are 0 MiB: No space left on device (os error 28); set TMPDIR to a directory with more

"#]]);
    Ok(())
}

fn no_dump() -> Result<(), String> {
    let victim = crate::victim(&[]);
    let explain = |path: &str| victim.installation.sopin().args(["explain", path]).assert().code(3).stdout_eq("");
    explain("libvictim.so").stderr_eq("sopin: libvictim.so: an ELF file, but no core dump\n");
    explain("libvictim.so.c").stderr_eq("sopin: libvictim.so.c: not an ELF file\n");
    explain("nothing").stderr_eq("sopin: nothing: No such file or directory (os error 2)\n");
    explain("bin").stderr_eq("sopin: bin: is a directory\n");
    fs::write(victim.installation.path("x.xz"), b"\xfd7zXZ\0\0").unwrap();
    explain("x.xz")
        .stderr_eq("sopin: x.xz: compressed by xz, which sopin cannot decompress; xz -dc x.xz | sopin explain -\n");
    victim.installation.sopin().args(["explain"]).assert().code(2);
    victim.installation.sopin().args(["explain", "core", "--log", "x"]).assert().code(2);
    victim.installation.sopin().args(["explain", "--sysroot", "nothing", "x"]).assert().code(3);
    Ok(())
}

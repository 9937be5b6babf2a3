//! Where the files are: on the machine, in a copy of its system, or only by their build-ids; and the
//! names in JSON.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::common::sopin;
use crate::{Case, explain, object, rewritten, sentence};

pub const CASES: &[Case] = &[
    Case { name: "in_a_copy_of_the_system", needs: &["cc"], test: in_a_copy_of_the_system },
    Case { name: "by_build_id", needs: &["cc", "objcopy"], test: by_build_id },
    Case { name: "hostile_names", needs: &["cc"], test: hostile_names },
    Case {
        name: "the_names_in_json_are_those_documented",
        needs: &["cc"],
        test: the_names_in_json_are_those_documented,
    },
];

fn copy_to(root: &Path, file: &str) {
    let to = root.join(file.trim_start_matches('/'));
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(file, to).unwrap();
}

fn in_a_copy_of_the_system() -> Result<(), String> {
    let victim = crate::victim(&[]);
    let core = rewritten(&victim)?;
    let core = core.to_str().unwrap();
    let root = victim.installation.path("root");
    for found in explain(&victim, &[core], 4)["objects"].as_array().unwrap() {
        copy_to(&root, found["path"].as_str().unwrap());
    }
    // The files on this machine are not read any more.
    fs::write(&victim.library, "rewritten again").unwrap();
    let answer = explain(&victim, &["--sysroot", root.to_str().unwrap(), core], 4);
    assert_eq!(answer["verdict"]["certainty"], "certain");
    let empty = victim.installation.path("empty");
    fs::create_dir(&empty).unwrap();
    // Without any file the dynamic section still shows it, but not what the jump was to.
    let answer = explain(&victim, &["--sysroot", empty.to_str().unwrap(), core], 3);
    assert!(sentence(&answer).contains("its dynamic section had its values from the file again"), "{answer:#}");
    Ok(())
}

fn by_build_id() -> Result<(), String> {
    let victim = crate::victim(&["-g", "-Wl,--build-id"]);
    let debug = victim.installation.path("debug");
    let core = rewritten(&victim)?;
    let core = core.to_str().unwrap();
    let arguments = ["--debug-dir", debug.to_str().unwrap(), core];
    fs::create_dir(&debug).unwrap();
    let answer = explain(&victim, &arguments, 4);
    let build_id = object(&answer, "libvictim.so")["mapped_build_id"].as_str().unwrap().to_owned();
    let (first, rest) = build_id.split_at(2);
    let place = debug.join(".build-id").join(first);
    fs::create_dir_all(&place).unwrap();
    // The symbols are in a separate file.
    let objcopy = |arguments: &[&str]| assert!(Command::new("objcopy").args(arguments).status().unwrap().success());
    let separate = place.join(format!("{rest}.debug"));
    let library = victim.library.to_str().unwrap();
    objcopy(&["--only-keep-debug", library, separate.to_str().unwrap()]);
    objcopy(&["--strip-all", library]);
    let answer = explain(&victim, &arguments, 4);
    assert!(sentence(&answer).contains("is answer without its load address"), "{}", sentence(&answer));
    let unnamed = explain(&victim, &[core], 4);
    assert!(
        sentence(&unnamed).contains("is a function without a name without its load address"),
        "{}",
        sentence(&unnamed)
    );
    // The object itself is gone from its path.
    fs::rename(library, place.join(rest)).unwrap();
    let answer = explain(&victim, &arguments, 4);
    assert_eq!(
        (&answer["verdict"]["certainty"], &object(&answer, "libvictim.so")["file"]),
        (&"certain".into(), &"absent".into())
    );
    let answer = explain(&victim, &[core], 3);
    assert!(answer["verdict"]["object"].as_str().unwrap().ends_with("libvictim.so"), "{answer:#}");
    Ok(())
}

/// A name cannot forge a line, nor colour.
fn hostile_names() -> Result<(), String> {
    let victim = crate::victim(&[]);
    let strange = victim.installation.path("lib\x1b[31m\nvictim.so");
    fs::rename(&victim.library, &strange).unwrap();
    std::os::unix::fs::symlink(&strange, &victim.library).unwrap();
    let core = rewritten(&victim)?;
    let output =
        victim.installation.sopin().args(["explain", "-v", core.to_str().unwrap()]).assert().get_output().clone();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains('\x1b') && text.contains(r"lib\u{1b}[31m\nvictim.so"), "{text}");
    assert_eq!(output.status.code(), Some(4));
    Ok(())
}

/// The help lists these names.
fn the_names_in_json_are_those_documented() -> Result<(), String> {
    let victim = crate::victim(&[]);
    let core = rewritten(&victim)?;
    let answer = explain(&victim, &[core.to_str().unwrap()], 4);
    let help = sopin().args(["explain", "--help"]).assert().get_output().stdout.clone();
    let help = String::from_utf8(help).unwrap();
    let words: Vec<&str> = help.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).collect();
    let library = object(&answer, "libvictim.so");
    let parts = [&answer, &answer["verdict"], &answer["crash"], &answer["crash"]["caller"], &answer["addresses"][0]];
    let more = [&answer["process"], &answer["dump"], library, &library["damage"], &library["damage"]["words"][0]];
    for part in parts.into_iter().chain(more) {
        let names = part.as_object().unwrap_or_else(|| panic!("{answer:#}")).keys();
        assert!(names.len() >= 3);
        for name in names {
            assert!(words.contains(&name.as_str()), "{name} is not in the help");
        }
    }
    assert_ne!(answer["registers"], Value::Null);
    Ok(())
}

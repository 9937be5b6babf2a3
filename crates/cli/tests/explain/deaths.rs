//! Ways to die: of a rewritten library, and of something else.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::process::Command;

use snapbox::str;

use crate::common::victim::Victim;
use crate::{Case, DUMPS, core, explain, object, rewritten, rewritten_under, sentence, start};

pub const CASES: &[Case] = &[
    Case { name: "a_jump_to_a_reverted_pointer", needs: &["cc"], test: a_jump_to_a_reverted_pointer },
    Case {
        name: "a_function_below_the_first_page",
        needs: &["cc", "-Wl,-z,pack-relative-relocs"],
        test: a_function_below_the_first_page,
    },
    Case { name: "a_call_that_was_not_bound_yet", needs: &["cc"], test: a_call_that_was_not_bound_yet },
    Case { name: "a_truncated_library", needs: &["cc"], test: a_truncated_library },
    Case { name: "another_build_in_place", needs: &["cc"], test: another_build_in_place },
    Case { name: "a_null_pointer", needs: &["cc"], test: a_null_pointer },
    Case { name: "a_null_pointer_after_an_upgrade", needs: &["cc"], test: a_null_pointer_after_an_upgrade },
    Case { name: "a_signal_from_another_process", needs: &["cc"], test: a_signal_from_another_process },
    Case { name: "damage_without_connection", needs: &["cc"], test: damage_without_connection },
    Case { name: "a_handler_that_aborts", needs: &["cc"], test: a_handler_that_aborts },
    Case { name: "a_protected_process", needs: &["cc"], test: a_protected_process },
];

fn a_jump_to_a_reverted_pointer() -> Result<(), String> {
    let victim = crate::victim(&[]);
    let core = rewritten(&victim)?;
    let core = core.to_str().unwrap();
    victim.installation.sopin().args(["explain", core]).assert().code(4).stderr_eq("").stdout_eq(str![[r#"
This process died because [ROOT]/libvictim.so was rewritten in place after it was loaded: [..] relocated words had their values from the file again; the jump to 0x[..] is answer without its load address.
Certainty: certain.

process   [..] ./program (1 threads)
signal    SIGSEGV (SEGV_MAPERR: nothing is mapped there) at address 0x[..]
thread    [..] at 0x[..], in no mapped file
          called from 0x[..]: 0x[..] in [ROOT]/program
[..]0x[..] answer (.text) in [ROOT]/libvictim.so: [..] relocated words hold this in the file, [..] held it in the process
dump      of the kernel, [..]
objects   4, of which 4 could be compared with their files
    rewritten  [ROOT]/libvictim.so
...
               [..] relocated words had their values from the file again:
...
                 0x[..] in .data.rel.ro, table[..]: holds 0x[..], should hold 0x[..]
...
                 and [..] more (--verbose lists them)

"#]]);
    let answer = explain(&victim, &[core], 4);
    let (crash, address) = (&answer["crash"], &answer["addresses"][0]);
    assert_eq!((&crash["signal"], &crash["address"]), (&11.into(), &address["address"]));
    assert_eq!(address["names"][0]["name"], "answer");
    assert!(address["reverted"].as_u64().unwrap() > 2000, "{address}");
    let library = object(&answer, "libvictim.so");
    assert_eq!((&library["file"], &library["unjudged"]), (&"loaded".into(), &serde_json::Value::Null));
    for other in ["/program", "libc.so.6"] {
        assert_eq!(object(&answer, other)["damage"], serde_json::Value::Null, "{other}");
    }
    Ok(())
}

/// As in the logs of many: `segfault at ad0 ip 0000000000000ad0`.
fn a_function_below_the_first_page() -> Result<(), String> {
    let victim = crate::victim(&["-Wl,-z,noseparate-code", "-Wl,-z,pack-relative-relocs"]);
    let core = rewritten(&victim)?;
    let answer = explain(&victim, &[core.to_str().unwrap()], 4);
    let target = answer["crash"]["address"].as_u64().unwrap();
    assert!((64..4096).contains(&target), "{target:#x}");
    assert_eq!(answer["verdict"]["certainty"], "certain");
    assert!(
        sentence(&answer).contains(&format!("the jump to {target:#x} is answer without its load address")),
        "{}",
        sentence(&answer)
    );
    assert_eq!(answer["addresses"][0]["names"][0]["name"], "answer");
    Ok(())
}

/// The loader dies, when it looks for a symbol by the dynamic section of the library.
fn a_call_that_was_not_bound_yet() -> Result<(), String> {
    let victim = crate::victim(&[]);
    let source = "int price(void);\n#include <stdio.h>\n\
        int main(void) { puts(\"ready\"); fflush(stdout); while (getchar() != EOF) {} return price(); }\n";
    let library = "static int surcharge(void) { return 42; }\n\
        int (*const rules[2048])(void) = { [0 ... 2047] = surcharge };\nint price(void) { return rules[1024](); }\n";
    victim.installation.compile("libvictim.so", library, "cc", &["-shared", "-fPIC"]);
    let path = victim.library.to_str().unwrap();
    victim.installation.compile("program", source, "cc", &["-Wl,-z,lazy", path]);
    let core = rewritten(&victim)?;
    let answer = explain(&victim, &[core.to_str().unwrap()], 4);
    assert_eq!(answer["verdict"]["certainty"], "certain");
    assert!(sentence(&answer).contains("the loader looked for a symbol at 0x"), "{}", sentence(&answer));
    Ok(())
}

fn a_truncated_library() -> Result<(), String> {
    let victim = crate::victim(&[]);
    let running = start(&victim);
    running.settle();
    let bytes = fs::read(&victim.library).unwrap();
    fs::write(&victim.library, "").unwrap();
    assert!(!running.ends_well());
    let core = core(&victim)?;
    let core = core.to_str().unwrap();
    let answer = explain(&victim, &[core], 4);
    assert_eq!((&answer["crash"]["name"], &answer["crash"]["code"]), (&"SIGBUS".into(), &2.into()));
    assert_eq!(answer["verdict"]["certainty"], "certain");
    assert!(sentence(&answer).contains("libvictim.so was truncated after it was loaded"), "{}", sentence(&answer));
    assert!(object(&answer, "libvictim.so")["bytes_beyond_end"].as_u64().unwrap() > 0x8000);
    // The copy that was under way has ended.
    fs::write(&victim.library, bytes).unwrap();
    let answer = explain(&victim, &[core], 4);
    assert_eq!(answer["verdict"]["certainty"], "certain", "the zeroes in the dump show it");
    Ok(())
}

/// Without truncation the words stay what they were, and the text becomes another's.
fn another_build_in_place() -> Result<(), String> {
    let victim = crate::victim(&[]);
    let running = start(&victim);
    running.settle();
    let other = "int (*const table[2048])(void); int (*changing[2048])(void);\n\
        int unrelated[9000] = { 1 };\n__asm__(\".text\\n.fill 8192, 1, 0xcc\");\n";
    let other = victim.installation.compile("libother.so", other, "cc", &["-shared", "-fPIC"]);
    let other = fs::read(other).unwrap();
    OpenOptions::new().write(true).open(&victim.library).unwrap().write_all(&other).unwrap();
    assert!(!running.ends_well());
    let core = core(&victim)?;
    let answer = explain(&victim, &[core.to_str().unwrap()], 4);
    assert_eq!(answer["verdict"]["certainty"], "likely");
    assert!(sentence(&answer).contains("the file had become another build"), "{}", sentence(&answer));
    assert_eq!(object(&answer, "libvictim.so")["damage"]["other_build"], true);
    Ok(())
}

/// Replaces the program by one that dies of itself.
fn with_program(main: &str) -> Victim {
    let victim = crate::victim(&[]);
    let source = format!(
        "#define _GNU_SOURCE\n#include <signal.h>\n#include <stdio.h>\n#include <stdlib.h>\n\
         extern int (*const table[2048])(void);\nextern int (*changing[2048])(void);\n\
         static void handler(int number) {{ char room[5000]; snprintf(room, sizeof room, \"%d\", number); puts(room); abort(); }}\n\
         int main(void) {{\n    if (getenv(\"HANDLER\")) signal(SIGSEGV, handler);\n\
         \x20   puts(\"ready\");\n    fflush(stdout);\n    while (getchar() != EOF) {{}}\n    {main}\n    return 0;\n}}\n"
    );
    let library = victim.library.to_str().unwrap().to_owned();
    victim.installation.compile("program", &source, "cc", &["-O1", "-fPIC", "-Wl,--no-as-needed", &library]);
    victim
}

const NULL_POINTER: &str = "return *(volatile int *)8;";

fn a_null_pointer() -> Result<(), String> {
    let victim = with_program(NULL_POINTER);
    assert!(!start(&victim).ends_well());
    let core = core(&victim)?;
    let core = core.to_str().unwrap();
    victim.installation.sopin().args(["explain", core]).assert().code(0).stderr_eq("").stdout_eq(str![[r#"
Nothing here points to a file that was rewritten in place: [..] relocated words of 4 objects hold what they should.

process   [..] ./program (1 threads)
signal    SIGSEGV (SEGV_MAPERR: nothing is mapped there) at address 0x8
thread    [..] at 0x[..]: 0x[..] in [ROOT]/program
dump      of the kernel, [..]
objects   4, of which 4 could be compared with their files

"#]]);
    let answer = explain(&victim, &[core], 0);
    assert!(object(&answer, "libvictim.so")["intact_words"].as_u64().unwrap() > 4000);
    Ok(())
}

/// The new version has another inode, as a package manager does it.
fn a_null_pointer_after_an_upgrade() -> Result<(), String> {
    let victim = with_program(NULL_POINTER);
    let running = start(&victim);
    let other = "int (*const table[2048])(void); int (*changing[2048])(void); int unrelated[9000] = { 1 };\n";
    let other = victim.installation.compile("libother.so", other, "cc", &["-shared", "-fPIC"]);
    fs::rename(other, &victim.library).unwrap();
    assert!(!running.ends_well());
    let core = core(&victim)?;
    let answer = explain(&victim, &[core.to_str().unwrap()], 0);
    let library = object(&answer, "libvictim.so");
    assert_eq!((&library["file"], &library["damage"]), (&"other".into(), &serde_json::Value::Null));
    Ok(())
}

fn a_signal_from_another_process() -> Result<(), String> {
    let victim = crate::victim(&[]);
    let running = start(&victim);
    assert!(Command::new("kill").args(["-SEGV", &running.pid().to_string()]).status().unwrap().success());
    assert!(!running.ends_well());
    let core = core(&victim)?;
    let answer = explain(&victim, &[core.to_str().unwrap()], 0);
    assert_eq!((&answer["crash"]["signal"], &answer["crash"]["address"]), (&11.into(), &serde_json::Value::Null));
    assert!(answer["crash"]["sender"].as_u64().is_some());
    Ok(())
}

fn damage_without_connection() -> Result<(), String> {
    let victim = with_program("abort();");
    let core = rewritten(&victim)?;
    let answer = explain(&victim, &[core.to_str().unwrap()], 3);
    assert!(
        sentence(&answer).ends_with("it cannot be told whether the process died of that."),
        "{}",
        sentence(&answer)
    );
    assert!(object(&answer, "libvictim.so")["damage"]["reverted_words"].as_u64().unwrap() > 2000);
    Ok(())
}

/// As a JVM does, and Python with its `faulthandler`.
fn a_handler_that_aborts() -> Result<(), String> {
    for (main, is_rewritten) in [("return table[1024]();", true), (NULL_POINTER, false)] {
        let victim = with_program(main);
        let running = victim.start_under(&[&["env", "HANDLER=1"], &DUMPS[..]].concat());
        if is_rewritten {
            victim.rewrite(&running);
        }
        assert!(!running.ends_well());
        let core = core(&victim)?;
        let answer = explain(&victim, &[core.to_str().unwrap()], if is_rewritten { 4 } else { 0 });
        assert_eq!((&answer["crash"]["name"], &answer["caught"]["name"]), (&"SIGABRT".into(), &"SIGSEGV".into()));
        if is_rewritten {
            assert_eq!(answer["verdict"]["certainty"], "certain");
            assert_eq!(
                answer["registers"]["rip"].as_u64().or(answer["registers"]["pc"].as_u64()),
                answer["caught"]["address"].as_u64()
            );
        }
    }
    Ok(())
}

fn a_protected_process() -> Result<(), String> {
    let victim = with_program("abort();");
    let library = format!("LD_PRELOAD={}", victim.installation.library());
    let core = rewritten_under(&victim, &[&["env", &library], &DUMPS[..]].concat())?;
    let answer = explain(&victim, &[core.to_str().unwrap()], 0);
    assert!(sentence(&answer).contains("libsopin.so had put 5 objects out of the reach of their files"));
    assert_eq!(answer["process"]["protected"], 5);
    Ok(())
}

//! Programs that are linked and load in different ways: statically, with another C
//! library, into other namespaces.

use snapbox::str;

use crate::Case;
use crate::common::victim::{PROGRAM, Running, Victim, object};
use crate::common::{Installation, clean_process};

pub const CASES: &[Case] = &[
    Case { name: "a_static_program", needs: &["cc"], test: a_static_program },
    Case { name: "a_static_pie", needs: &["cc"], test: a_static_pie },
    Case { name: "a_go_program", needs: &["go"], test: a_go_program },
    Case { name: "a_musl_program", needs: &["musl-gcc"], test: a_musl_program },
    Case { name: "other_namespaces", needs: &["cc"], test: other_namespaces },
    Case { name: "other_namespaces_pinned", needs: &["cc", "stops"], test: other_namespaces_pinned },
    Case { name: "a_library_without_permission_to_be_pinned", needs: &["cc"], test: reasons_are_reported },
];

const WAITING: &str = "#include <stdio.h>\n\
    int main(void) { puts(\"ready\"); fflush(stdout); while (getchar() != EOF) {} return 0; }\n";

/// A function that begins to use asynchronous I/O. While a process does, its other threads are not
/// stopped, because the kernel could store to its memory all the same.
const REQUESTS: &str = "#include <sys/syscall.h>\n#include <unistd.h>\n\
    static long use_requests(void) { static long context; return syscall(SYS_io_setup, 1, &context); }\n";

fn start(installation: &Installation, program: &str) -> Running {
    let mut command = std::process::Command::new(installation.path(program));
    Running::start(clean_process(&mut command))
}

fn a_static_program() -> Result<(), String> {
    let installation = Installation::new();
    installation.compile("program", WAITING, "cc", &["-static"]);
    let running = start(&installation, "program");
    let command = installation.sopin().args(["status", "-v", &running.pid().to_string()]);
    command.assert().code(1).stderr_eq("").stdout_eq(str![[r#"
[..]PID SHIM FULL RELOCATED EXPOSED DAMAGED PINNED-KIB COMMAND
[..]  no    0         0       1       0          0 [ROOT]/program
    exposed         0 KiB  [ROOT]/program: libsopin.so is not loaded

"#]]);
    Ok(())
}

fn a_static_pie() -> Result<(), String> {
    let installation = Installation::new();
    installation.compile("program", WAITING, "cc", &["-static-pie"]);
    let running = start(&installation, "program");
    let library = installation.path("program");
    let victim = Victim { installation, library };
    let process = victim.json(running.pid());
    assert_eq!((&process["exposed"], &process["damaged"]), (&1.into(), &0.into()), "{process:#}");
    assert!(object(&process, "/program")["base"].as_u64().unwrap() > 1 << 20, "{process:#}");
    Ok(())
}

fn a_go_program() -> Result<(), String> {
    let installation = Installation::new();
    let source = "package main\nimport (\"fmt\"; \"os\")\n\
        func main() { fmt.Println(\"ready\"); os.Stdin.Read(make([]byte, 1)) }\n";
    installation.file("program.go", source.as_bytes(), 0o644);
    let mut command = std::process::Command::new("go");
    let command = command.args(["build", "-o", "program", "program.go"]).current_dir(installation.path(""));
    assert!(command.env("GOCACHE", installation.path("cache")).status().unwrap().success());
    let running = start(&installation, "program");
    let library = installation.path("program");
    let process = Victim { installation, library }.json(running.pid());
    assert_eq!((&process["exposed"], &process["damaged"], &process["full"]), (&1.into(), &0.into(), &0.into()));
    Ok(())
}

/// musl's loader has the same list, but does not store to dynamic sections.
fn a_musl_program() -> Result<(), String> {
    let installation = Installation::new();
    let source = crate::common::victim::LIBRARY;
    let library = installation.compile("libvictim.so", source, "musl-gcc", &["-shared", "-fPIC"]);
    installation.compile("program", PROGRAM, "musl-gcc", &[library.to_str().unwrap()]);
    let victim = Victim { installation, library };
    let running = victim.start();
    let process = victim.json(running.pid());
    assert_eq!((&process["source"], &process["damaged"]), (&"loader".into(), &0.into()), "{process:#}");
    assert_eq!(object(&process, "libvictim.so")["unjudged"], serde_json::Value::Null);
    victim.rewrite(&running);
    let process = victim.json(running.pid());
    assert_eq!(object(&process, "libvictim.so")["state"], "damaged", "{process:#}");
    Ok(())
}

/// A program that loads a library into two namespaces.
fn with_namespaces() -> Victim {
    let victim = Victim::new();
    let main = format!(
        "#define _GNU_SOURCE\n#include <dlfcn.h>\n#include <stdio.h>\n#include <stdlib.h>\n{REQUESTS}int main(void) {{\n\
        if (getenv(\"REQUESTS\") && use_requests()) return 1;\n\
        for (int i = 0; i < 2; i++) if (!dlmopen(LM_ID_NEWLM, \"./libvictim.so\", RTLD_NOW)) return 1;\n\
        puts(\"ready\"); fflush(stdout); while (getchar() != EOF) {{}} return 0; }}\n"
    );
    victim.installation.compile("program", &main, "cc", &["-ldl"]);
    victim
}

/// Returns the namespaces of the library, which must have this state in each.
fn namespaces_with(process: &serde_json::Value, state: &str) -> Vec<u64> {
    let objects = process["objects"].as_array().unwrap();
    let found = objects.iter().filter(|object| object["path"].as_str().unwrap().ends_with("/libvictim.so"));
    let found: Vec<_> = found.inspect(|object| assert_eq!(object["state"], state, "{object:#}")).collect();
    let loaders = objects.iter().filter(|object| object["path"].as_str().unwrap().contains("/ld-")).count();
    assert_eq!(loaders, 1, "all namespaces share one loader");
    found.iter().map(|object| object["namespace"].as_u64().unwrap()).collect()
}

fn other_namespaces() -> Result<(), String> {
    let victim = with_namespaces();
    let running = victim.start();
    let process = victim.json(running.pid());
    let namespaces = namespaces_with(&process, "exposed");
    if namespaces.is_empty() {
        return Err("this C library shows no namespaces".to_owned());
    }
    assert!(namespaces.len() == 2 && !namespaces.contains(&0) && namespaces[0] != namespaces[1], "{process:#}");
    victim.rewrite(&running);
    assert_eq!(namespaces_with(&victim.json(running.pid()), "damaged"), namespaces);
    let protected = victim.start_protected(&[("REQUESTS", "1")]);
    // Their writable ranges are exposed, because their constructors have run, and the kernel may
    // be storing to them.
    assert_eq!(namespaces_with(&victim.json(protected.pid()), "exposed").len(), 2);
    Ok(())
}

fn other_namespaces_pinned() -> Result<(), String> {
    let victim = with_namespaces();
    let protected = victim.start_protected(&[]);
    match namespaces_with(&victim.json(protected.pid()), "full").len() {
        0 => return Err("this C library shows no namespaces".to_owned()),
        namespaces => assert_eq!(namespaces, 2),
    }
    victim.rewrite(&protected);
    assert_eq!(namespaces_with(&victim.json(protected.pid()), "full").len(), 2);
    Ok(())
}

/// Objects that were loaded before the library, to which something may be storing that cannot be
/// stopped, have reasons.
fn reasons_are_reported() -> Result<(), String> {
    let victim = Victim::new();
    let main = format!(
        "#define _GNU_SOURCE\n#include <dlfcn.h>\n#include <stdio.h>\n{REQUESTS}\
        extern int (*const table[2048])(void);\n\
        int main(void) {{ if (use_requests() || !table[1024]) return 1;\n\
        if (!dlopen(\"./lib/libsopin.so\", RTLD_NOW | RTLD_GLOBAL)) return 1;\n\
        puts(\"ready\"); fflush(stdout); while (getchar() != EOF) {{}} return 0; }}\n"
    );
    let library = victim.library.to_str().unwrap();
    victim.installation.compile("program", &main, "cc", &[library, "-ldl"]);
    let running = victim.start();
    let process = victim.json(running.pid());
    let object = object(&process, "libvictim.so");
    assert_eq!(object["state"], "exposed", "{process:#}");
    assert_eq!(
        object["reason"],
        "pin writable ranges: code of the object may have run, and something may be storing to them"
    );
    Ok(())
}

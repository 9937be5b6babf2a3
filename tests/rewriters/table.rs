//! The rewriters: programs that give an installed shared object other bytes.

/// A way to give a file other bytes.
pub struct Rewriter {
    /// Its name in the trials and in the table.
    pub name: &'static str,
    /// A note for the reader of the table.
    pub note: &'static str,
    /// Programs and files that it needs.
    pub needs: &'static [&'static str],
    /// How the object in use was made.
    pub installed: Installed,
    /// A shell script that changes `$FILE`, the object in use. `$NEW` is another
    /// build of it, `$DIRECTORY` the trial's own directory, `$TOOLS` that of the
    /// scripts beside this file, `$SOURCE` what the object is compiled from.
    pub script: &'static str,
    /// The script changes the file that processes have mapped, instead of replacing it
    /// by another one.
    pub changes_mapped_file: bool,
}

/// How the object in use was made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Installed {
    /// It was compiled there.
    Here,
    /// It was installed as part of a Python package in a virtual environment.
    AsPackage,
}

const fn plain(name: &'static str, needs: &'static [&'static str], script: &'static str) -> Rewriter {
    Rewriter { name, note: "", needs, installed: Installed::Here, script, changes_mapped_file: true }
}

const fn harmless(name: &'static str, needs: &'static [&'static str], script: &'static str) -> Rewriter {
    Rewriter { changes_mapped_file: false, ..plain(name, needs, script) }
}

const fn packaged(name: &'static str, needs: &'static [&'static str], script: &'static str) -> Rewriter {
    Rewriter { installed: Installed::AsPackage, ..harmless(name, needs, script) }
}

/// The path of the server that scp and sftp clients start, on Debian and its derivatives.
const SFTP_SERVER: &str = "/usr/lib/openssh/sftp-server";

/// Every rewriter, in the order of the table.
pub const ALL: &[Rewriter] = &[
    plain("cp", &["cp"], r#"cp "$NEW" "$FILE""#),
    plain("cat >", &["cat"], r#"cat "$NEW" >"$FILE""#),
    plain("rsync --inplace", &["rsync"], r#"rsync --inplace --ignore-times "$NEW" "$FILE""#),
    plain("dd conv=notrunc", &["dd"], r#"dd if="$NEW" of="$FILE" conv=notrunc status=none"#),
    Rewriter {
        note: "the receiving side, `scp -t`",
        ..plain(
            "scp -O",
            &["scp"],
            r#"{ printf 'C0755 %s new\n' "$(stat -c %s "$NEW")"; cat "$NEW"; printf '\0'; } | scp -t "$FILE" >/dev/null"#,
        )
    },
    Rewriter {
        note: "`put` to sftp-server, as scp does since OpenSSH 9",
        ..plain(
            "sftp",
            &["sftp", SFTP_SERVER],
            r#"printf 'put "%s" "%s"\n' "$NEW" "$FILE" | sftp -q -b - -D /usr/lib/openssh/sftp-server >/dev/null"#,
        )
    },
    plain("truncate -s 0", &["truncate"], r#"truncate -s 0 "$FILE""#),
    Rewriter {
        note: "a hole of two pages in the text",
        ..plain(
            "fallocate --punch-hole",
            &["fallocate"],
            r#"fallocate --punch-hole --offset 8192 --length 8192 "$FILE""#,
        )
    },
    Rewriter {
        note: "`FALLOC_FL_COLLAPSE_RANGE`: the rest of the file moves down",
        ..plain(
            "fallocate --collapse-range",
            &["fallocate"],
            r#"fallocate --collapse-range --offset 4096 --length 4096 "$FILE""#,
        )
    },
    plain(
        "tar --overwrite",
        &["tar"],
        r#"tar -C "${NEW%/*}" -cf - libvictim.so | tar -C "${FILE%/*}" --overwrite -xf -"#,
    ),
    harmless("tar", &["tar"], r#"tar -C "${NEW%/*}" -cf - libvictim.so | tar -C "${FILE%/*}" -xf -"#),
    harmless(
        "unzip -o",
        &["zip", "unzip"],
        r#"zip -q -j "$DIRECTORY/new.zip" "$NEW" && unzip -q -o -d "${FILE%/*}" "$DIRECTORY/new.zip""#,
    ),
    harmless("install", &["install"], r#"install "$NEW" "$FILE""#),
    harmless("cp and mv", &["cp", "mv"], r#"cp "$NEW" "$FILE.new" && mv "$FILE.new" "$FILE""#),
    Rewriter {
        note: "what pip did in 2017",
        ..plain(
            "shutil.copyfile",
            &["python3"],
            r#"python3 -c 'import shutil, sys; shutil.copyfile(*sys.argv[1:])' "$NEW" "$FILE""#,
        )
    },
    packaged(
        "pip install --force-reinstall",
        &["pip"],
        r#"pip --quiet --disable-pip-version-check --python "$DIRECTORY/venv/bin/python" install --no-index --no-deps \
            --no-compile --force-reinstall "$(package victim)""#,
    ),
    Rewriter {
        note: "another package with a file of the same path",
        ..packaged(
            "pip install",
            &["pip"],
            r#"pip --quiet --disable-pip-version-check --python "$DIRECTORY/venv/bin/python" install --no-index --no-deps \
                --no-compile "$(package other)""#,
        )
    },
    packaged(
        "uv pip install --reinstall",
        &["uv"],
        r#"uv --quiet --no-cache --no-config --offline pip install --python "$DIRECTORY/venv/bin/python" --no-index --no-deps \
            --link-mode copy --reinstall "$(package victim)""#,
    ),
    Rewriter {
        note: "`--link-mode copy`, another package with a file of the same path; 0.8 (0.13 makes a new file)",
        changes_mapped_file: true,
        ..packaged(
            "uv pip install",
            &["uv"],
            r#"uv --quiet --no-cache --no-config --offline pip install --python "$DIRECTORY/venv/bin/python" --no-index --no-deps \
                --link-mode copy "$(package other)""#,
        )
    },
    Rewriter {
        note: "early versions changed the file (its issue 517)",
        ..harmless("mold", &["mold"], r#"cc -shared -fPIC -DPAGE=16384 -fuse-ld=mold -o "$FILE" "$SOURCE""#)
    },
    harmless("ld.bfd", &["ld.bfd"], r#"cc -shared -fPIC -DPAGE=16384 -fuse-ld=bfd -o "$FILE" "$SOURCE""#),
    harmless("ld.gold", &["ld.gold"], r#"cc -shared -fPIC -DPAGE=16384 -fuse-ld=gold -o "$FILE" "$SOURCE""#),
    harmless("ld.lld", &["ld.lld"], r#"cc -shared -fPIC -DPAGE=16384 -fuse-ld=lld -o "$FILE" "$SOURCE""#),
    plain("strip", &["strip"], r#"strip "$FILE""#),
    plain("objcopy", &["objcopy"], r#"objcopy --strip-debug "$FILE""#),
];

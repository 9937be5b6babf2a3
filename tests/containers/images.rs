//! Images as engines of containers keep them: layers, which are directories, and how the program
//! is started. No registry can be reached, so the bases are made of this machine's files: of the
//! whole root for Debian, of its C library alone for distroless, of musl and busybox for Alpine.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::common::library::checkout;
use crate::common::process::{self, Outcome};
use crate::common::toolchain::CLibrary;

/// Where containerd keeps layers; the library recognises a container's root by it.
const LAYERS: &str = "io.containerd.snapshotter.v1.overlayfs/snapshots";
const TIMEOUT: Duration = Duration::from_secs(100);

/// The functions of the scripts that fill a layer: `$root` is the stage, as its programs see it.
const PRELUDE: &str = r#"umask 022
root=$1 other=$2
for place in dev proc tmp; do mkdir -p "$root/$place"; done
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"

# inside COMMAND...: runs a command in the stage.
inside() {
    env -i PATH="${tools}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" chroot "$root" "$@"
}

# show LOWER: mounts the layers of another image at $other.
show() {
    umount "$other" 2>/dev/null || true
    mount -t overlay overlay -o "lowerdir=$1" "$other"
}

# copy OWNER TARGET SOURCE...: as COPY does it; of a directory it copies what is in it.
copy() {
    owner=$1 target=$root$2
    shift 2
    case $target in
    */) mkdir -p "$target" ;;
    *) mkdir -p "${target%/*}" ;;
    esac
    for source; do
        rm -rf "$new"
        if [ -d "$source" ]; then
            cp -R --preserve=mode "$source" "$new"
            chown -R "$owner" "$new"
            for file in "$new"/*; do cp -a "$file" "$target"; done
        else
            mkdir "$new"
            cp --preserve=mode "$source" "$new"
            chown -R "$owner" "$new"
            cp -a "$new"/* "$target"
        fi
    done
}
"#;

/// An image.
#[derive(Clone, Default)]
pub struct Image {
    /// The layers by name, the lowest first.
    pub layers: Vec<String>,
    pub environment: Vec<(String, String)>,
    pub directory: String,
    pub user: (u32, u32),
    pub entry_point: Vec<String>,
}

impl Image {
    /// Returns the image that FROM names in a last stage.
    ///
    /// # Errors
    /// There is none.
    pub fn base(name: &str) -> Result<Self, String> {
        let (layers, user) = match name {
            "scratch" => (vec![], (0, 0)),
            "python:3-slim-bookworm" => (vec!["machine"], (0, 0)),
            "alpine:3" => (vec!["alpine"], (0, 0)),
            "gcr.io/distroless/base-debian12:nonroot" => (vec!["distroless"], (65532, 65532)),
            _ => return Err(format!("no image {name}")),
        };
        let layers = layers.into_iter().map(str::to_owned).collect();
        Ok(Self { layers, directory: "/".to_owned(), user, ..Self::default() })
    }

    /// Returns an image on which a stage builds something for this base.
    ///
    /// # Errors
    /// There is none.
    pub fn for_building(name: &str) -> Result<Self, String> {
        let tools = match name {
            "alpine:3" => "tools-musl",
            "gcc:12-bookworm" => "tools",
            _ => return Err(format!("no image {name}")),
        };
        Ok(Self { layers: vec!["machine".to_owned(), tools.to_owned()], ..Self::default() })
    }
}

/// All images of a run.
pub struct Images {
    directory: PathBuf,
}

impl Images {
    /// Makes the bases in a directory that is on the way of no other user.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn make(directory: &Path) -> Result<Self, String> {
        let images = Self { directory: directory.to_owned() };
        for directory in [images.layer("machine"), images.layer("empty"), directory.join("nothing")] {
            fs::create_dir_all(directory).map_err(|error| error.to_string())?;
        }
        images.make_distroless()?;
        images.make_tools()?;
        if CLibrary::Musl.unmet().is_none() {
            images.make_alpine()?;
        }
        Ok(images)
    }

    /// Returns the directory of a layer.
    pub fn layer(&self, name: &str) -> PathBuf {
        self.directory.join(LAYERS).join(name).join("fs")
    }

    /// Returns the layers of an image as a value of `lowerdir=`.
    pub fn lower(&self, image: &Image) -> String {
        let names = image.layers.iter().rev().map(|name| self.layer(name).display().to_string());
        names.chain([self.layer("empty").display().to_string()]).collect::<Vec<_>>().join(":")
    }

    /// Returns the commands that make the machine's root the layer `machine`, for scripts. It is
    /// an overlay of its own, because the other layers are below `/`, and a layer must not be
    /// below another one.
    pub fn show_machine(&self) -> String {
        let (machine, nothing) = (self.layer("machine"), self.directory.join("nothing"));
        format!(
            "mount -t tmpfs tmpfs '{0}'\nmount -t overlay overlay -o 'lowerdir=/:{0}' '{1}'\n",
            nothing.display(),
            machine.display()
        )
    }

    /// Returns the image of `packaging/containers`, which COPY --from names.
    ///
    /// # Errors
    /// There is none.
    pub fn named(&self, name: &str) -> Result<Image, String> {
        match name {
            "sopin" => self.sopin(),
            _ => Err(format!("no image {name}")),
        }
    }

    /// Returns the image of the command.
    ///
    /// # Errors
    /// It has not been built.
    pub fn sopin(&self) -> Result<Image, String> {
        let layer = "sopin-0".to_owned();
        let has_one = ["sopin-0", "sopin-1"].into_iter().find(|name| self.layer(name).join("sopin").exists());
        let layer = has_one.map_or(layer, str::to_owned);
        let entry_point = vec!["/sopin".to_owned()];
        if !self.layer(&layer).exists() {
            return Err("the image sopin was not built".to_owned());
        }
        Ok(Image { layers: vec![layer], directory: "/".to_owned(), entry_point, ..Image::default() })
    }

    /// Fills a new layer over an image. Returns the layer's name.
    ///
    /// # Errors
    /// What the script has printed.
    pub fn add_layer(&self, name: &str, image: &Image, script: &str) -> Result<String, String> {
        let (layer, stage) = (self.layer(name), self.directory.join("stages").join(name));
        for directory in [&layer, &stage.join("work"), &stage.join("root"), &stage.join("other")] {
            fs::create_dir_all(directory).map_err(|error| error.to_string())?;
        }
        let show = |part: &str| stage.join(part).display().to_string();
        let mut text = format!("set -eu\n{}", self.show_machine());
        let _ = writeln!(
            text,
            "mount -t overlay overlay -o 'lowerdir={},upperdir={},workdir={}' '{}'\nnew='{}' tools=/tools:",
            self.lower(image),
            layer.display(),
            show("work"),
            show("root"),
            show("new")
        );
        text += PRELUDE;
        text += script;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", &text, "sh"]);
        command.args([show("root"), show("other")]);
        let finished = process::run(&mut command, &stage.join("log"), TIMEOUT).map_err(|error| error.to_string())?;
        if finished.outcome != Outcome::Exit(0) {
            return Err(format!("{script}{finished}"));
        }
        // They were made for the mounts.
        for place in ["dev", "proc", "tmp"] {
            let _ = fs::remove_dir(layer.join(place));
        }
        Ok(name.to_owned())
    }

    /// glibc without a shell, as distroless/base has it.
    fn make_distroless(&self) -> Result<(), String> {
        let layer = self.layer("distroless");
        let loader = CLibrary::Native.loader()?;
        // The path by which programs name it.
        let interpreter = if cfg!(target_arch = "x86_64") { "lib64" } else { "lib" };
        let name = loader.file_name().unwrap_or_default();
        copy(&loader, &layer.join(interpreter).join(name))?;
        let libraries = Path::new("lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
        for name in ["libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0"] {
            let found = crate::common::toolchain::found_by_compiler(name)?;
            copy(&found, &layer.join(&libraries).join(name))?;
        }
        accounts(&layer, "nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n")
    }

    /// musl and busybox, as Alpine has them.
    fn make_alpine(&self) -> Result<(), String> {
        let layer = self.layer("alpine");
        let loader = CLibrary::Musl.loader()?;
        copy(&loader, &layer.join("lib").join(loader.file_name().unwrap_or_default()))?;
        let busybox = crate::common::needs::found_program("busybox").ok_or("no program busybox")?;
        copy(&busybox, &layer.join("bin/busybox"))?;
        fs::create_dir_all(layer.join("usr/bin")).map_err(|error| error.to_string())?;
        for (applet, directory) in [("sh", "bin"), ("mkdir", "bin"), ("chown", "bin")] {
            symlink("/bin/busybox", layer.join(directory).join(applet)).map_err(|error| error.to_string())?;
        }
        accounts(&layer, "nobody:x:65534:65534:nobody:/:/sbin/nologin\n")
    }

    /// What a build stage finds before the machine's programs.
    fn make_tools(&self) -> Result<(), String> {
        for (layer, name, text) in [
            ("tools", "apt-get", "#!/bin/sh\n"),
            ("tools-musl", "apk", "#!/bin/sh\n"),
            ("tools-musl", "cc", "#!/bin/sh\nexec musl-gcc \"$@\"\n"),
        ] {
            let file = self.layer(layer).join("tools").join(name);
            write(&file, text)?;
            fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755))
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

/// Copies a file and its mode, and makes the directories on the way.
fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let error = |error| format!("{}: {error}", from.display());
    fs::create_dir_all(to.parent().unwrap_or(to)).map_err(error)?;
    fs::copy(from, to).map(drop).map_err(error)
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    let error = |error| format!("{}: {error}", file.display());
    fs::create_dir_all(file.parent().unwrap_or(file)).map_err(error)?;
    fs::write(file, text).map_err(error)
}

fn accounts(layer: &Path, user: &str) -> Result<(), String> {
    write(&layer.join("etc/passwd"), &format!("root:x:0:0:root:/root:/sbin/nologin\n{user}"))?;
    fs::create_dir_all(layer.join("var/cache")).map_err(|error| error.to_string())
}

/// Returns the directory whose files an image of the examples may copy.
pub fn examples() -> PathBuf {
    checkout().join("examples/docker")
}

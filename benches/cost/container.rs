//! A start in a container: what lies in the layers of its image needs no copy.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::counts;
use crate::memory;
use crate::mounts::Mounts;
use crate::page::situations::names;
use crate::page::{Column, Compared, Section, Variant};
use crate::rounds::{interleave, interleave_until_known};
use crate::run::{self, Held};
use crate::site::Site;

const ROUNDS: usize = 21;
const TINY_ROUNDS: usize = 300;

/// Mounts the root directory of a container, whose image is this machine's root directory, and
/// keeps it until the end of standard input.
const KEEPER: &str = "\
cd \"$HERE\"
rm -rf overlay2
mkdir -p overlay2/$IMAGE/diff overlay2/$OWN/diff overlay2/$OWN/work overlay2/root
mount --bind / overlay2/$IMAGE/diff
cd overlay2
mount -t overlay -o lowerdir=$PWD/$IMAGE/diff,upperdir=$PWD/$OWN/diff,workdir=$PWD/$OWN/work none root
mount --rbind /dev root/dev
mount --rbind /proc root/proc
cd root
mkdir old-root
pivot_root . old-root
cd /
umount -l /old-root
rmdir /old-root
echo ready
read -r line || true
";

/// A container, as an engine makes it.
struct Container {
    keeper: Held,
    mounts: Mounts,
    own_layer: PathBuf,
}

impl Container {
    fn new(site: &Site) -> Result<Self, String> {
        let here = site.built("container");
        fs::create_dir_all(&here).map_err(|error| format!("{}: {error}", here.display()))?;
        let [image, own] = ["1", "2"].map(|digit| digit.repeat(64));
        let own_layer = here.join("overlay2").join(&own).join("diff");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-euc", KEEPER]);
        let keeper = Held::start(command.envs([("IMAGE", image), ("OWN", own)]).env("HERE", here))
            .map_err(|error| format!("a container cannot be made, for which root is needed: {error}"))?;
        let mounts = Mounts::of(keeper.pid())?;
        Ok(Self { keeper, mounts, own_layer })
    }

    /// Returns the KiB in the container's own layer.
    fn used(&self) -> Result<f64, String> {
        let blocks = blocks_below(&self.own_layer).map_err(|error| format!("{}: {error}", self.own_layer.display()))?;
        #[expect(clippy::cast_precision_loss, reason = "no disk has that many")]
        Ok(blocks as f64 / 2.0)
    }

    fn end(self) -> Result<(), String> {
        self.keeper.end().map(drop)
    }
}

fn blocks_below(directory: &Path) -> io::Result<u64> {
    fs::read_dir(directory)?.try_fold(0, |sum, entry| {
        let entry = entry?;
        let status = entry.metadata()?;
        Ok(sum + if status.is_dir() { blocks_below(&entry.path())? } else { status.blocks() })
    })
}

/// Measures the first start of a scientific service in a container, and that of a tiny program.
///
/// # Errors
/// If a program fails, or the library copies what lies in the image.
pub fn container(site: &Site) -> Result<Section, String> {
    let container = Container::new(site)?;
    let variants = [Variant::Native, Variant::Empty, Variant::Cold];
    let unused = container.used()?;
    let importing = |variant| {
        let mut command = site.python(variant)?;
        command.arg(site.program("importing.py")).arg("scientific");
        Ok::<_, String>(command)
    };
    let start = |variant| {
        let held = Held::start(container.mounts.enter(&mut importing(variant)?))?;
        let text = memory::text_of(held.pid(), &site.stores())?;
        if (text.stored, text.memfds) != (0, 0) {
            return Err(format!("{} objects of the image were copied", text.stored + text.memfds));
        }
        let memory = memory::of(&[held.pid()], &site.stores())?;
        let elapsed = held.took;
        let usage = held.end_with_usage()?;
        #[expect(clippy::cast_precision_loss, reason = "there are not so many faults")]
        let faults = usage.minor_faults as f64;
        let (cpu, elapsed) = (1e3 * usage.cpu.as_secs_f64(), 1e3 * elapsed.as_secs_f64());
        Ok([cpu, elapsed, memory.proportional, container.used()? - unused, faults])
    };
    let [cpu, elapsed, memory, disk, faults] = interleave_until_known(site, &variants, ROUNDS, Variant::Cold, start)?;
    let counts = counts::columns(&variants, importing, |command| {
        container.mounts.enter(command);
    })?;
    let [tiny] = interleave(site, &variants, TINY_ROUNDS, |variant| {
        let mut command = site.command(Path::new("/bin/true"), variant);
        let (_, cpu) = run::start_and_end(container.mounts.enter(&mut command))?;
        Ok([1e6 * cpu.as_secs_f64()])
    })?;
    container.end()?;
    let both = [Compared::Ratio, Compared::Extra];
    let column = |what: &str, unit: &str, rounds: &crate::rounds::Rounds, limit: f64| {
        Column::new(what, unit, &both, rounds.cells()).target(Variant::Cold, Compared::Ratio, limit)
    };
    let mut columns = vec![
        column("CPU", "ms", &cpu, 1.01).in_summary(names::CONTAINER_START),
        column("elapsed", "ms", &elapsed, 1.01).in_summary("scientific service in a container, start: elapsed"),
        column("memory", "MiB", &memory, 1.01).in_summary(names::CONTAINER_MEMORY),
        Column::new("disk", "KiB", &[Compared::Extra], disk.cells()).target(Variant::Cold, Compared::Extra, 0.0),
    ];
    columns.extend(counts);
    columns.push(Column::new("minor page faults", "", &both, faults.cells()));
    columns.push(Column::new("a tiny program, CPU", "µs", &[Compared::Ratio], tiny.cells()));
    if let Some(instructions) = columns.iter_mut().find(|column| column.what == "instructions") {
        instructions.add_target(Variant::Cold, Compared::Ratio, 1.01);
    }
    Ok(Section {
        title: "In a container: importing numpy, scipy, pandas and SQLAlchemy".to_owned(),
        about: "The root directory is an overlay over layers as Docker mounts it, and everything that is loaded lies in a \
                layer. There is a new, empty store each time, which stays empty. Disk is what is in the container's own layer \
                afterwards. The last column is `/bin/true`."
            .to_owned(),
        rounds: cpu.count(),
        columns,
    })
}

"""Makes the files that the demonstration uses, all below one directory: packages,
other builds of them, and copies that may be destroyed."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
SHARED_OBJECT = re.compile(r"\.so(\.\d+)*$")


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Holds a lock, so that no other run prepares or uses `root` meanwhile; a second run waits."""
    root.mkdir(parents=True, exist_ok=True)
    with open(root / "lock", "w", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another run on {root}", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class Packages:
    """Installed packages, never rewritten."""

    site: Path
    other_builds: Path

    @classmethod
    def below(cls, root: Path) -> Packages:
        """Returns the packages that are installed below a directory."""
        return cls(root / "packages", root / "other-builds")


def prepare(root: Path) -> Packages:
    """Installs both sets of packages below `root` unless they are installed already."""
    packages = Packages.below(root)
    stamp = root / "made-from"
    wanted = "\n".join(
        [sys.version, str(root), *(file.read_text() for file in (HERE / "requirements.txt", HERE / "other-builds.txt"))]
    )
    if stamp.is_file() and stamp.read_text() == wanted:
        return packages
    print(f"setting up {root} (Flask, gunicorn, SQLAlchemy)", file=sys.stderr)
    stamp.unlink(missing_ok=True)
    for directory in (packages.site, packages.other_builds, root / "venv"):
        shutil.rmtree(directory, ignore_errors=True)
    venv.create(root / "venv", with_pip=True)
    python = root / "venv" / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]
    subprocess.run([*pip, "--target", packages.site, "-r", HERE / "requirements.txt"], check=True)
    subprocess.run([*pip, "--target", packages.other_builds, "--no-deps", "-r", HERE / "other-builds.txt"], check=True)
    stamp.write_text(wanted)
    return packages


@dataclass(frozen=True)
class Site:
    """A copy of all compiled files that the service loads, which may be rewritten."""

    root: Path
    packages: Path
    shared_objects: tuple[Path, ...]
    variables: dict[str, str]
    library: Path | None

    @property
    def extensions(self) -> tuple[Path, ...]:
        """Returns the compiled extensions of SQLAlchemy, for which the demonstration is made."""
        return tuple(path for path in self.shared_objects if path.parent.name == "cyextension")


def copy_site(packages: Packages, root: Path, library: Path | None) -> Site:
    """Copies packages, compiled standard modules, libpython and the library, if
    one is to be preloaded, to `root`."""
    site, dynload = root / "site-packages", root / "lib-dynload"
    shutil.copytree(packages.site, site)
    dynload.mkdir()
    original = sysconfig.get_config_var("DESTSHARED")
    for file in sorted(Path(original).glob("*.so")) if original else []:
        shutil.copy(file, dynload)
    if library is not None:
        library = Path(shutil.copy(library, root))
    interpreter = copy_interpreter_library(root)
    preloads = [str(path) for path in (library, interpreter) if path is not None]
    objects = tuple(sorted(path for path in root.rglob("*.so*") if SHARED_OBJECT.search(path.name)))
    variables = {
        # These precede the interpreter's own directories.
        "PYTHONPATH": os.pathsep.join([str(HERE), str(site), str(dynload)]),
        "PYTHONNOUSERSITE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    if preloads:
        variables["LD_PRELOAD"] = ":".join(preloads)
    return Site(root, site, objects, variables, library)


def copy_interpreter_library(root: Path) -> Path | None:
    """Copies libpython, unless the interpreter is linked statically. If the copy is
    preloaded, it replaces the original, because the loader knows it by its SONAME."""
    name, directory = sysconfig.get_config_var("INSTSONAME"), sysconfig.get_config_var("LIBDIR")
    if not sysconfig.get_config_var("Py_ENABLE_SHARED") or not name or not directory:
        return None
    library = Path(directory) / name
    return Path(shutil.copy(library, root)) if library.is_file() else None

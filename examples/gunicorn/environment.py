"""What the demonstration runs on: packages, other builds of them, and copies
that may be destroyed. Everything lies below one directory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Standard modules that the service needs compiled, as far as this interpreter
# has them as files and not built in.
DYNLOAD_SKIP = ("test", "xx", "_test")


@dataclass(frozen=True)
class Packages:
    """Installed packages, never rewritten."""

    site: Path
    other_builds: Path


def prepare(root: Path) -> Packages:
    """Installs both sets of packages below `root` unless they are there."""
    packages = Packages(root / "packages", root / "other-builds")
    stamp = root / "made-from"
    wanted = "\n".join(
        [sys.version, str(root), *(file.read_text() for file in (HERE / "requirements.txt", HERE / "other-builds.txt"))]
    )
    if stamp.is_file() and stamp.read_text() == wanted:
        return packages
    print(f"setting up {root} (Flask, gunicorn, SQLAlchemy)", file=sys.stderr)
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
    """A copy of everything compiled that the service loads, free to be rewritten."""

    root: Path
    shared_objects: tuple[Path, ...]
    variables: dict[str, str]
    preloads: tuple[Path, ...]


def copy_site(packages: Packages, root: Path) -> Site:
    """Copies packages, compiled standard modules and libpython to `root`."""
    shutil.rmtree(root, ignore_errors=True)
    site, dynload = root / "site-packages", root / "lib-dynload"
    shutil.copytree(packages.site, site)
    dynload.mkdir()
    original = sysconfig.get_config_var("DESTSHARED")
    for file in sorted(Path(original).glob("*.so")) if original else []:
        if not file.name.startswith(DYNLOAD_SKIP):
            shutil.copy(file, dynload)
    preloads = tuple(copy_interpreter_library(root))
    objects = tuple(sorted([*site.rglob("*.so"), *dynload.glob("*.so"), *preloads]))
    path = os.pathsep.join([str(HERE), str(site), str(dynload)])
    return Site(root, objects, {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}, preloads)


def copy_interpreter_library(root: Path) -> list[Path]:
    """A copy of libpython, if the interpreter is not linked statically. Preloaded,
    it takes the place of the original, because the loader knows it by its SONAME."""
    name, directory = sysconfig.get_config_var("INSTSONAME"), sysconfig.get_config_var("LIBDIR")
    if not sysconfig.get_config_var("Py_ENABLE_SHARED") or not name or not directory:
        return []
    library = Path(directory) / name
    return [Path(shutil.copy(library, root))] if library.is_file() else []

"""Installs the wheel by an installer and uses it as its user does.

    install_trial.py INSTALLER WHEEL TOOLS DIRECTORY

TOOLS is the environment with the installers. Exits with 42 if all is right.
"""

import os
import sys
import zipapp
from pathlib import Path

from checks import SIGNALS, environment, libraries_in, outcome_of_rewriting, run

installer, wheel, tools, directory = sys.argv[1], *map(Path, sys.argv[2:])
HOME = directory / "home"
PIP = (tools / "bin" / "python", "-m", "pip", "--disable-pip-version-check")
OFFLINE = ("--no-index", "--no-deps", "--quiet")


def packages_of(prefix):
    (found,) = {path.resolve() for path in prefix.glob("lib*/python3.*/*-packages/sopin")}
    return found.parent


def install():
    """Returns the command, the interpreter with its options, and the directory of the packages."""
    venv = directory / "venv"
    python = venv / "bin" / "python"
    if installer in ("venv", "debian"):
        base = "/usr/bin/python3" if installer == "debian" else sys.executable
        run(base, "-m", "venv", "--without-pip", venv)
        run(*PIP, "--python", python, "install", *OFFLINE, wheel)
    elif installer == "virtualenv":
        run(tools / "bin" / "virtualenv", "--quiet", "--no-download", venv)
        run(python, "-m", "pip", "--disable-pip-version-check", "install", *OFFLINE, wheel)
    elif installer in ("uv", "uv_symlinks"):
        uv = os.environ["UV"]
        variables = environment(UV_CACHE_DIR=str(directory / "cache"), UV_OFFLINE="1")
        run(uv, "venv", "--quiet", "--python", sys.executable, venv, env=variables)
        mode = "symlink" if installer == "uv_symlinks" else "copy"
        run(uv, "pip", "install", "--quiet", "--link-mode", mode, "--python", python, wheel, env=variables)
    elif installer == "pipx":
        variables = environment(PIPX_HOME=str(directory / "pipx"), PIPX_BIN_DIR=str(directory / "bin"), HOME=str(HOME))
        # Otherwise it would first install another pip for itself, which --no-index forbids.
        variables["PIPX_DISABLE_SHARED_LIBS_AUTO_UPGRADE"] = "1"
        run(tools / "bin" / "pipx", "install", "--quiet", "--pip-args=--no-index --no-deps", wheel, env=variables)
        venv = directory / "pipx" / "venvs" / "sopin"
        # The command is a link, as pipx makes it.
        return directory / "bin" / "sopin", (venv / "bin" / "python",), packages_of(venv)
    elif installer == "user":
        base = os.path.realpath(sys.executable)
        variables = environment(HOME=str(HOME), PIP_BREAK_SYSTEM_PACKAGES="1")
        run(base, "-m", "pip", "--disable-pip-version-check", "install", "--user", *OFFLINE, wheel, env=variables)
        prefix = HOME / ".local"
        return prefix / "bin" / "sopin", (base,), packages_of(prefix)
    elif installer == "target":
        run(*PIP, "install", "--target", directory / "target", *OFFLINE, wheel)
        return directory / "target" / "bin" / "sopin", (sys.executable,), directory / "target"
    return venv / "bin" / "sopin", (python,), packages_of(venv)


HOME.mkdir()
command, python, packages = install()
variables = environment(HOME=str(HOME))
if installer == "target":
    variables["PYTHONPATH"] = str(packages)
library = str(packages / "sopin" / "libsopin.so")

# Without the command there is no protection, and the trial of it can fail.
assert libraries_in(*python, env=variables) == []
assert outcome_of_rewriting(*python, env=variables) in SIGNALS

if installer == "uv_symlinks":
    # The command is a link, and finds the file beside its own.
    (library,) = libraries_in(command, "run", "--", *python, env=variables)
    assert os.path.samefile(library, packages / "sopin" / "libsopin.so")
    assert library.startswith(str(directory / "cache"))
assert libraries_in(command, "run", "--", *python, env=variables) == [library]
assert outcome_of_rewriting(command, "run", "--", *python, env=variables) == 42
version = run(command, "--version", env=variables).stdout
assert run(*python, "-m", "sopin", "--version", env=variables).stdout == version
assert libraries_in(*python, "-m", "sopin", "run", "--", *python, env=variables) == [library]
run(*python, "-m", "sopin", "run", "--", "sh", "-c", "exit 9", expected=9, env=variables)

program = "import sopin; state = sopin.status(); assert sopin.pin_all(); print(state.version, state.mode)"
assert run(*python, "-c", program, env=variables).stdout == f"{version.split()[1]} full\n"

if installer == "target":
    # No interpreter reads .pth files there.
    assert "in no Python environment" in run(command, "enable", expected=1, env=variables).stderr
    sys.exit(42)

if installer == "uv_symlinks":
    assert "in no Python environment" in run(command, "enable", expected=1, env=variables).stderr
    run(command, "enable", "--python", *python, env=variables)
    assert os.path.samefile(*libraries_in(*python, env=variables), library)
    run(command, "disable", "--python", *python, env=variables)
    assert libraries_in(*python, env=variables) == []
    sys.exit(42)

run(command, "enable", env=variables)
assert libraries_in(*python, env=variables) == [library]
assert outcome_of_rewriting(*python, env=variables) == 42
# An isolated interpreter does not read the directories of the user.
assert libraries_in(*python, "-I", env=variables) == ([] if installer == "user" else [library])
application = directory / "application"
application.mkdir()
(application / "__main__.py").write_text("import sys; exec(sys.argv.pop())\n")
zipapp.create_archive(application, directory / "application.pyz", str(python[0]))
assert libraries_in(directory / "application.pyz", env=variables) == [library]
run(command, "disable", env=variables)
assert libraries_in(*python, env=variables) == []
sys.exit(42)

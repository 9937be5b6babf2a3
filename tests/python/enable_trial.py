"""What `sopin enable` does to every start of an interpreter, also after the installation was damaged.

    enable_trial.py CASE ENVIRONMENT

ENVIRONMENT has the wheel and belongs to this trial. Exits with 42 if all is right.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from checks import SIGNALS, environment, libraries_in, outcome_of_rewriting, run

case, venv = sys.argv[1], Path(sys.argv[2])
python = venv / "bin" / "python"
command = venv / "bin" / "sopin"
(packages,) = venv.glob("lib/python3.*/site-packages")
library = packages / "sopin" / "libsopin.so"
start = packages / "_sopin_start.py"
pth = packages / "sopin.pth"


def options():
    """Every way to start an interpreter that reads .pth files, and the one that does not."""
    assert libraries_in(python) == []
    assert outcome_of_rewriting(python) in SIGNALS
    run(command, "enable")
    for flags in ([], ["-I"], ["-E"], ["-s"], ["-B"], ["-u"], ["-O"], ["-X", "utf8=0"], ["-W", "error"]):
        assert libraries_in(python, *flags) == [str(library)], flags
    assert libraries_in(python, "-S") == []
    assert outcome_of_rewriting(python, "-S") in SIGNALS
    assert libraries_in(python, env=environment(LC_ALL="C", LANG="C", PYTHONCOERCECLOCALE="0")) == [str(library)]
    assert outcome_of_rewriting(python) == 42
    assert outcome_of_rewriting(python, "-I") == 42
    # A Python that it starts has the library too, and another program has not.
    start = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)"
    assert "libsopin.so" in run(python, "-c", start, python, "-c", "print(open('/proc/self/maps').read())").stdout
    assert "libsopin.so" not in run(python, "-c", start, "cat", "/proc/self/maps").stdout


def other_environment():
    """Names another interpreter, and one whose environment lacks the package."""
    elsewhere = venv / "elsewhere"
    run(sys.executable, "-m", "venv", "--without-pip", elsewhere)
    refused = run(command, "enable", "--python", elsewhere / "bin" / "python", expected=1)
    assert "has no package sopin" in refused.stderr, refused
    run(command, "enable", "--python", python)
    assert libraries_in(python) == [str(library)]
    assert libraries_in(elsewhere / "bin" / "python") == []
    run(command, "disable", "--python", python)
    assert not pth.exists()


def preloaded():
    """The process has a library already, which may be another file."""
    run(command, "enable")
    other = venv / "libsopin.so"
    shutil.copy(library, other)
    assert libraries_in(python, env=environment(LD_PRELOAD=str(other))) == [str(other)]
    assert libraries_in(command, "run", "--", python) == [str(library)]
    program = "import sopin; assert sopin._library.was_loaded; print(sopin.pin_all())"
    assert run(python, "-c", program).stdout == "True\n"


def started(lines, **variables):
    """Checks that Python starts, and prints at most so many lines."""
    done = run(python, "-c", "print('started')", env=environment(**variables))
    assert done.stdout == "started\n", done
    said = done.stderr.splitlines()
    assert len(said) == lines and all(line.startswith("sopin: ") for line in said), done
    return done.stderr


def damaged():
    """The library, or what loads it, is not as it was installed."""
    run(command, "enable")
    whole = library.read_bytes()
    middle = len(whole) // 2
    for content in (
        b"",
        whole[:64],
        whole[:4096],
        whole[:middle],
        whole[:-1],
        bytes(len(whole)),
        whole[:middle] + bytes(len(whole) - middle),
        whole + b"x",
        b"\xcc" * len(whole),
    ):
        library.write_bytes(content)
        assert "not as it was installed" in started(1)
        # So do programs that import the package.
        done = run(python, "-c", "import sopin; print('started')")
        assert done.stdout == "started\n" and "this process is not protected" in done.stderr, done
    library.unlink()
    assert "No such file" in started(1)
    library.mkdir()
    started(1)
    library.rmdir()
    library.write_bytes(whole)
    assert libraries_in(python) == [str(library)]
    sums = packages / "sopin" / "libsopin.sums"
    for text in ("", "1", "x y", "\xff"):
        sums.write_text(text, encoding="latin-1")
        started(1)
    sums.unlink()
    started(1)
    source = start.read_text()
    for text in ("", source[: len(source) // 2], "\0", "raise SystemError"):
        start.write_text(text)
        started(0)


def known():
    """A start does not read the library that `sopin enable` has read, and no change of the file is missed."""
    run(command, "enable")
    kind = subprocess.run(["stat", "-f", "-c", "%T", library], capture_output=True, text=True, check=True).stdout
    dates_every_change = kind.strip() in ("ext2/ext3", "xfs", "btrfs", "f2fs")
    whole, found = library.read_bytes(), library.stat()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    identity = f"known = '{boot} {found.st_ino} {len(whole)} {found.st_mtime_ns} {found.st_ctime_ns}'"
    assert (identity in pth.read_text()) == dates_every_change, pth.read_text()
    assert "enabled already" in run(command, "enable").stdout
    sums = packages / "sopin" / "libsopin.sums"
    text = sums.read_text()
    sums.write_text("1 1")
    if dates_every_change:
        assert started(0) == "" and libraries_in(python) == [str(library)]
    else:
        started(1)
    # Another boot.
    pth.write_text(pth.read_text().replace(boot, boot[::-1]))
    started(1)
    sums.write_text(text)
    run(command, "enable")
    # Same file, same size, and the time of the last modification is put back.
    library.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    os.utime(library, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert "not as it was installed" in started(1)
    run(command, "enable")
    assert "known" not in pth.read_text()
    assert "not as it was installed" in started(1)
    # Another file with the same bytes, as an installer makes it.
    other = library.with_name("other")
    other.write_bytes(whole)
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    other.rename(library)
    assert libraries_in(python) == [str(library)]
    # While somebody has the file open for writing, its times prove nothing.
    with library.open("r+b"):
        run(command, "enable")
        assert "known" not in pth.read_text()
    run(command, "enable")
    assert ("known" in pth.read_text()) == dates_every_change, pth.read_text()


def quickly():
    """What a start does not import, and what it does instead where a Python lacks something."""
    run(command, "enable")
    # The file is not the one that was compared.
    library.touch()
    slow = "import sys; print(sorted({'_ctypes', 'binascii', 'ctypes', 'zlib'} & set(sys.modules)))"
    assert run(python, "-c", slow).stdout == "[]\n"
    assert libraries_in(python) == [str(library)]
    # The hash function is another one than those that the build knows: the slower sum decides.
    sums = packages / "sopin" / "libsopin.sums"
    size, checksum, *quick = sums.read_text().split()
    assert len(quick) == 2
    for text in (f"{size} {checksum}", f"{size} {checksum} {'0' * 16}"):
        sums.write_text(text)
        assert libraries_in(python) == [str(library)]
        assert run(python, "-c", slow).stdout == "['binascii']\n"
    sums.write_text(f"{size} {int(checksum, 16) ^ 1:x}")
    assert "not as it was installed" in started(1)
    sums.write_text(f"{size} {checksum} {' '.join(quick)}")
    # Python reads these files in the order of their names.
    lacks = packages / "a.pth"
    other = "_imp.create_dynamic = lambda spec, real=_imp.create_dynamic: spec.name == 'libsopin' and {} or real(spec)"
    for change in (
        "_imp.__dict__.pop('source_hash', None)",
        other.format("spec"),
        other.format("spec.missing"),
    ):
        lacks.write_text(f"import _imp; {change}\n")
        assert libraries_in(python) == [str(library)], change
    lacks.unlink()
    # Everything is pinned, by this thread alone: a helper would make another process.
    status = run(python, "-c", "import sopin; s = sopin.status(); print(s.count('exposed'), s.count('full') > 3)")
    assert status.stdout == "0 True\n", status


def loader_dies():
    """The control of `damaged`: what the loader itself does with a shortened library."""
    shortened = library.read_bytes()[:4096]
    library.write_bytes(shortened)
    done = run(python, "-c", f"import _ctypes; _ctypes.dlopen({str(library)!r}, 2)", expected=None)
    assert done.returncode in SIGNALS, done


def removed():
    """The package was removed, wholly or in part, or its .pth file is shortened."""
    run(command, "enable")
    text = pth.read_bytes()
    for length in range(0, len(text), 7):
        pth.write_bytes(text[:length])
        done = run(python, "-c", "print('started')")
        assert done.stdout == "started\n", done
    pth.write_bytes(text)
    shutil.rmtree(packages / "sopin")
    started(1)
    start.unlink()
    shutil.rmtree(packages / "__pycache__", ignore_errors=True)
    started(0)
    for record in packages.glob("sopin-*.dist-info"):
        shutil.rmtree(record)
    started(0)
    # Whoever has no other `sopin` removes the file by hand; one of another environment does it too.
    run(command, "disable", "--python", python)
    assert not pth.exists()


def without_stderr():
    """A daemon may have closed it."""
    run(command, "enable")
    library.write_bytes(b"")
    close = f"exec 2>&-; exec {python} -c 'print(\"started\")'"
    assert run("sh", "-c", close).stdout == "started\n"


TRIALS = (options, other_environment, preloaded, damaged, known, quickly, loader_dies, removed, without_stderr)
CASES = {function.__name__: function for function in TRIALS}
CASES[case]()
sys.exit(42)

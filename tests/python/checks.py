"""What the trials ask of an interpreter, and how they start one."""

import os
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIBRARIES = """
import sys
with open('/proc/self/maps', encoding='utf-8', errors='surrogateescape') as maps:
    names = {line.rstrip('\\n').split(' /', 1)[1] for line in maps if '/libsopin.so' in line or '/sopin/' in line}
print('\\n'.join(sorted('/' + name for name in names if name.endswith('/libsopin.so'))))
"""
SIGNALS = (-7, -11)


def environment(**changes):
    """Returns this process's environment without what concerns sopin and Python."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("SOPIN_", "PYTHON", "LD_"))}
    return {**kept, "SOPIN_STORE": "off", "LC_ALL": "C.UTF-8", **changes}


def run(*command, expected=0, **options):
    """Runs a command, which must exit with this status, and returns what it printed on both streams."""
    options.setdefault("env", environment())
    command = [str(word) for word in command]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=110, **options)
    assert expected is None or done.returncode == expected, (command, done)
    return done


def libraries_in(*command, **options):
    """Returns the libraries that a Python has that is started so; it prints nothing else."""
    done = run(*command, "-c", LIBRARIES, **options)
    assert done.stderr == "", done
    return done.stdout.split("\n")[:-1] if done.stdout != "\n" else []


def outcome_of_rewriting(*command, **options):
    """Returns how a Python ends that calls an extension after the extension's file was rewritten."""
    return run(*command, HERE / "rewritten_extension.py", expected=None, **options).returncode
